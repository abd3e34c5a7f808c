//! One instance in the supervisor's hands: carries out what its lifecycle decides, on the real process, its
//! output and its ledger entry. Decides nothing itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::capture::{Moved, Recorder};
use super::health::Schedule;
use super::lifecycle::{Action, Event, Lifecycle, Moment, Phase};
use crate::backend::BackendError;
use crate::backend::process::child::Launch;
use crate::backend::process::dirs::InstanceDir;
use crate::backend::process::protocol::Failure;
use crate::backend::process::run::{ProcessId, boot_id, new_run_id, wall_clock};
use crate::backend::process::tree::Snapshot;
use crate::backend::process::{Record, Run, UNKNOWN_CODE};
use crate::state::{Health, Status};

/// Pause after a failed attempt to record output (no space left, as a rule).
const OUTPUT_RETRY: Duration = Duration::from_secs(1);

/// The outcome for those who asked for the instance to end.
pub(super) type Settled = Option<Result<(), Failure>>;

/// What a unit needs from the loop: the time, and the processes of this moment, looked at once for all
/// units.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// Now.
    pub(super) now: Moment,
    snapshot: Option<Snapshot>,
}

impl Surroundings {
    /// Of a new turn of the loop.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            now,
            snapshot: None,
        }
    }

    fn tree(&mut self, unit: &Unit, main: Option<ProcessId>) -> Vec<ProcessId> {
        if self.snapshot.is_none() {
            self.snapshot = Snapshot::take().ok();
        }
        match &self.snapshot {
            Some(snapshot) => snapshot.tree(unit.record.id(), main, &unit.known),
            // Out of descriptors or memory: at least those known before.
            None => unit
                .known
                .iter()
                .chain(&main)
                .copied()
                .filter(|id| id.is_alive())
                .collect(),
        }
    }
}

/// The main process.
#[derive(Debug)]
struct Main {
    id: ProcessId,
    /// Set for a process that another supervisor started: its end shows here, and its code is lost.
    adopted: Option<OwnedFd>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Unit {
    dir: InstanceDir,
    record: Record,
    life: Lifecycle,
    recorder: Recorder,
    main: Option<Main>,
    ended: Option<i32>,
    /// Processes that were told to end, each with a descriptor that tells when it has.
    watched: Vec<(ProcessId, OwnedFd)>,
    /// Processes found in the tree when it was last looked at.
    known: Vec<ProcessId>,
    output_retry: Option<Moment>,
    health: Option<Schedule>,
    check: Option<u32>,
}

impl Unit {
    /// Takes an instance over as the ledger describes it: alive, waiting for a restart, or idle.
    pub(super) fn take_over(
        dir: InstanceDir,
        record: Record,
        around: &mut Surroundings,
    ) -> Result<Self, BackendError> {
        let owner = record
            .spec
            .user
            .as_ref()
            .map(|account| (account.uid, account.gid));
        dir.create()?;
        let recorder = Recorder::open(&dir, owner)?;
        let policy = record.spec.restart;
        let mut unit = Self {
            life: Lifecycle::new(policy),
            dir,
            recorder,
            main: None,
            ended: None,
            watched: Vec::new(),
            known: Vec::new(),
            output_retry: None,
            health: None,
            check: None,
            record,
        };
        let Some(run) = unit.record.run.clone() else {
            return Ok(unit);
        };
        if run.boot_id != boot_id() {
            if unit.record.status.is_alive() || run.finished.is_none() {
                unit.write_end(Status::Exited {
                    code: run.code.unwrap_or(UNKNOWN_CODE),
                })?;
            }
            return Ok(unit);
        }
        if unit.record.status == Status::Restarting {
            unit.life = Lifecycle::adopted_waiting(policy, unit.record.restarts, around.now);
            return Ok(unit);
        }
        if run.finished.is_some() && !unit.record.status.is_alive() {
            return Ok(unit);
        }
        let age = u64::try_from(wall_clock().saturating_sub(run.started)).unwrap_or_default();
        let since = around.now.saturating_sub(Duration::from_nanos(age));
        unit.life = Lifecycle::adopted(policy, unit.record.restarts, since);
        let process = run.process.or_else(|| {
            // Started, and the supervisor was killed before it could note the pid.
            Snapshot::take().ok().and_then(|all| all.main_of(&run.id))
        });
        let fd = process.and_then(|id| Some((id, id.open()?)));
        if let Some((id, fd)) = fd {
            unit.main = Some(Main {
                id,
                adopted: Some(fd),
            });
            unit.health = unit.record.spec.healthcheck.as_ref().map(|check| {
                let verdict = unit.record.health.unwrap_or(Health::Starting);
                Schedule::resumed(check, verdict, since, around.now)
            });
            if let Some(run) = &mut unit.record.run {
                run.process = Some(id);
            }
            unit.record.status = Status::Running;
            unit.record.write(&unit.dir)?;
        } else {
            unit.ended = Some(run.code.unwrap_or(UNKNOWN_CODE));
        }
        Ok(unit)
    }

    /// Whether it must be kept an eye on.
    pub(super) fn is_active(&self) -> bool {
        self.life.is_active()
    }

    /// Whether it was meant to end when its last supervisor was killed.
    pub(super) fn is_unwanted(&self) -> bool {
        !self.record.wanted && matches!(self.life.phase(), Phase::Running { .. })
    }

    /// When it wants to be woken without anything happening.
    pub(super) fn deadline(&self) -> Option<Moment> {
        [
            self.life.deadline(),
            self.health.as_ref().map(Schedule::deadline),
            self.output_retry,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Its output to wait on.
    pub(super) fn pipes(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.recorder
            .pipes()
            .filter(|_| self.output_retry.is_none())
    }

    /// The main process, if its end shows on a descriptor.
    pub(super) fn adopted_main(&self) -> Option<BorrowedFd<'_>> {
        self.main
            .as_ref()
            .and_then(|main| main.adopted.as_ref())
            .map(AsFd::as_fd)
    }

    /// The pid of the main process, if it is our child.
    pub(super) fn child_pid(&self) -> Option<u32> {
        self.main
            .as_ref()
            .filter(|main| main.adopted.is_none() && self.ended.is_none())
            .map(|main| main.id.pid)
    }

    /// The pid of the running healthcheck.
    pub(super) fn check_pid(&self) -> Option<u32> {
        self.check
    }

    /// Processes whose end is waited for.
    pub(super) fn watched(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.watched.iter().map(|(id, fd)| (id.pid, fd.as_fd()))
    }

    /// There is output, or may be.
    pub(super) fn on_output(&mut self, at: usize, now: Moment) {
        match self.recorder.move_portion(at) {
            Ok(Moved::Some | Moved::Nothing | Moved::Closed) => {}
            // The bytes stay in the pipe; the process waits when it is full.
            Err(_) => self.output_retry = Some(now.saturating_add(OUTPUT_RETRY)),
        }
    }

    /// The main process has ended; what follows is done by [`Unit::settle`]. `code` is `None` when nobody
    /// can know it.
    pub(super) fn on_main_ended(&mut self, code: Option<i32>) {
        self.ended = Some(code.unwrap_or(UNKNOWN_CODE));
    }

    /// A watched process has ended.
    pub(super) fn on_watched_ended(&mut self, pid: u32) {
        self.watched.retain(|(id, _)| id.pid != pid);
    }

    /// The healthcheck has ended.
    pub(super) fn on_check_ended(&mut self, passed: bool, now: Moment) {
        self.check = None;
        let (Some(schedule), Some(check)) = (&mut self.health, &self.record.spec.healthcheck)
        else {
            return;
        };
        if schedule.is_running() && schedule.finish(check, passed, now) {
            self.record.health = Some(schedule.verdict());
            // Not worth failing for: the next change is written again.
            drop(self.record.write(&self.dir));
        }
    }

    /// Starts it; the id of the run.
    pub(super) fn start(&mut self, around: &mut Surroundings) -> Result<String, Failure> {
        match self.life.phase() {
            Phase::Running { .. } => Ok(self.record.id().to_owned()),
            Phase::Idle | Phase::Waiting { .. } => {
                self.record.wanted = true;
                self.record.restarts = 0;
                match self.apply(Event::Start, around) {
                    Some(Err(failure)) => Err(failure),
                    Some(Ok(())) | None => Ok(self.record.id().to_owned()),
                }
            }
            Phase::Starting
            | Phase::Clearing { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. } => Err(Failure::Refused {
                message: format!("{} is just ending", self.record.spec.name),
            }),
        }
    }

    /// Ends it; settled at once only if there is nothing to end.
    pub(super) fn stop(&mut self, grace: Option<Duration>, around: &mut Surroundings) -> Settled {
        let grace = grace.unwrap_or(self.record.spec.stop_grace);
        self.end(Event::Stop { grace }, around)
    }

    /// Kills it.
    pub(super) fn kill(&mut self, around: &mut Surroundings) -> Settled {
        self.end(Event::Kill, around)
    }

    fn end(&mut self, event: Event, around: &mut Surroundings) -> Settled {
        if self.record.wanted {
            self.record.wanted = false;
            // A successor goes on with the stop. Should this fail, it would only have to be asked again.
            drop(self.record.write(&self.dir));
        }
        if self.is_active() {
            self.apply(event, around)
        } else {
            Some(Ok(()))
        }
    }

    /// Sends a signal to the main process alone.
    pub(super) fn signal(&mut self, signal: i32) -> Result<(), Failure> {
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Err(Failure::Refused {
                message: format!("{signal} is not a signal"),
            });
        };
        let main = self.main.as_ref().ok_or_else(|| Failure::Refused {
            message: format!("{} is not running", self.record.spec.name),
        })?;
        match main.id.signal(signal) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::State {
                action: format!("cannot signal {}", self.record.spec.name),
                cause: (&error).into(),
            }),
        }
    }

    /// Draws the conclusions of what happened in this turn of the loop.
    pub(super) fn settle(&mut self, around: &mut Surroundings) -> Settled {
        if let Some(code) = self.ended.take() {
            return self.main_ended(code, around);
        }
        if self
            .health
            .as_ref()
            .is_some_and(|schedule| schedule.deadline() <= around.now)
        {
            self.health_due(around.now);
        }
        if self.output_retry.is_some_and(|at| at <= around.now) {
            self.output_retry = None;
        }
        if self.life.deadline().is_some_and(|at| at <= around.now) {
            return self.apply(Event::Due, around);
        }
        if self.is_ending() && self.main.is_none() && self.watched.is_empty() {
            return self.sweep(around, None);
        }
        None
    }

    fn is_ending(&self) -> bool {
        matches!(
            self.life.phase(),
            Phase::Clearing { .. } | Phase::Stopping { .. } | Phase::Killing { .. }
        )
    }

    /// Its tree is looked at while the main process is still a zombie and so vouches for its session.
    fn main_ended(&mut self, code: i32, around: &mut Surroundings) -> Settled {
        let main = self.main.take();
        let id = main.as_ref().map(|main| main.id);
        self.known = around.tree(self, id.or_else(|| self.record.process()));
        if let Some(main) = main.filter(|main| main.adopted.is_none()) {
            reap(main.id.pid);
        }
        if let Some(run) = &mut self.record.run {
            run.code = Some(code);
            run.finished.get_or_insert(wall_clock());
        }
        if !self.known.is_empty() {
            // A successor would have to finish the clearing and must know the code.
            drop(self.record.write(&self.dir));
        }
        match self.life.on_event(Event::MainEnded { code }, around.now) {
            Action::None => self.sweep(around, id),
            action => self.perform(action, around, id),
        }
    }

    fn apply(&mut self, event: Event, around: &mut Surroundings) -> Settled {
        let action = self.life.on_event(event, around.now);
        let main = self.main.as_ref().map(|main| main.id);
        self.perform(action, around, main)
    }

    fn perform(
        &mut self,
        action: Action,
        around: &mut Surroundings,
        main: Option<ProcessId>,
    ) -> Settled {
        match action {
            Action::None => None,
            Action::Spawn => self.spawn(around).err().map(Err),
            Action::AskToEnd => self.sweep(around, main),
            Action::KillTree => {
                self.watched.clear();
                self.sweep(around, main)
            }
            Action::Over => {
                let code = self.record.run.as_ref().and_then(|run| run.code);
                Some(self.finish(Status::Exited {
                    code: code.unwrap_or(UNKNOWN_CODE),
                }))
            }
            Action::Pause => {
                // Failing to note it changes nothing about the restart itself.
                drop(self.finish(Status::Restarting));
                None
            }
            Action::GiveUp => {
                let left = around.tree(self, main);
                if self.main.is_none() {
                    let code = self.record.run.as_ref().and_then(|run| run.code);
                    drop(self.finish(Status::Exited {
                        code: code.unwrap_or(UNKNOWN_CODE),
                    }));
                }
                Some(Err(Failure::Unkillable {
                    pids: left.iter().map(|id| id.pid).collect(),
                }))
            }
        }
    }

    /// Sends every process of the tree the signal of the phase, once; concludes when there is none.
    fn sweep(&mut self, around: &mut Surroundings, main: Option<ProcessId>) -> Settled {
        let tree = around.tree(self, main);
        if tree.is_empty() && self.main.is_none() {
            return self.apply(Event::TreeGone, around);
        }
        let signal = match self.life.phase() {
            Phase::Stopping { .. } => Signal::from_named_raw(self.record.spec.stop_signal),
            _ => None,
        }
        .unwrap_or(Signal::KILL);
        for id in &tree {
            if self.watched.iter().any(|(known, _)| known == id) {
                continue;
            }
            let Some(fd) = id.open() else { continue };
            // A process we may not signal stays watched; it is reported if it outlives its time.
            let _ = rustix::process::pidfd_send_signal(&fd, signal);
            self.watched.push((*id, fd));
        }
        self.known = tree;
        None
    }

    /// Notes the end, once all output has been moved.
    fn finish(&mut self, status: Status) -> Result<(), Failure> {
        self.watched.clear();
        self.known.clear();
        self.health = None;
        // Output that cannot be recorded must not keep the instance from ending.
        drop(self.recorder.drain());
        self.record.restarts = self.life.restarts();
        self.write_end(status).map_err(Failure::from)
    }

    fn write_end(&mut self, status: Status) -> Result<(), BackendError> {
        self.record.status = status;
        self.record.health = None;
        if let Some(run) = &mut self.record.run {
            run.finished.get_or_insert(wall_clock());
            run.code.get_or_insert(UNKNOWN_CODE);
        }
        self.record.write(&self.dir)
    }

    fn spawn(&mut self, around: &mut Surroundings) -> Result<(), Failure> {
        let outcome = self.try_spawn(around);
        if let Err(failure) = &outcome {
            let code = match failure {
                Failure::Command { cause, .. } if cause.errno == Some(2) => 127,
                _ => 126,
            };
            if let Some(run) = &mut self.record.run {
                run.code = Some(code);
                run.finished = Some(wall_clock());
            }
            drop(self.apply(Event::SpawnFailed, around));
        }
        outcome
    }

    fn try_spawn(&mut self, around: &mut Surroundings) -> Result<(), Failure> {
        let state = |action: &str, error: &std::io::Error| Failure::State {
            action: action.to_owned(),
            cause: error.into(),
        };
        let run_id = new_run_id().map_err(|error| state("cannot make a run id", &error))?;
        // The intent is on disk before the process is: whoever comes after a crash looks for this id.
        self.record.run = Some(Run {
            id: run_id.clone(),
            process: None,
            boot_id: boot_id(),
            started: wall_clock(),
            finished: None,
            code: None,
        });
        self.record.restarts = self.life.restarts();
        self.record.health = self
            .record
            .spec
            .healthcheck
            .as_ref()
            .map(|_| Health::Starting);
        self.record.write(&self.dir)?;
        let [stdout, stderr] = self.recorder.ends(&self.dir)?;
        let spec = &self.record.spec;
        let child = Launch {
            command: &spec.command,
            program: spec.program.as_deref(),
            working_dir: &spec.working_dir,
            environment: &spec.environment,
            run_id: &run_id,
            user: spec.user.as_ref(),
        }
        .spawn(stdout.into(), stderr.into())
        .map_err(|error| Failure::Command {
            command: spec.command.join(" "),
            working_dir: spec.working_dir.clone(),
            cause: (&error).into(),
        })?;
        let pid = child.id();
        let id = ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 });
        self.main = Some(Main { id, adopted: None });
        self.known.clear();
        if let Some(run) = &mut self.record.run {
            run.process = Some(id);
        }
        self.record.status = Status::Running;
        let spawned = self.life.on_event(Event::Spawned, around.now);
        debug_assert_eq!(spawned, Action::None);
        self.health = spec
            .healthcheck
            .as_ref()
            .map(|check| Schedule::new(check, around.now));
        if let Err(error) = self.record.write(&self.dir) {
            // What the ledger does not know, nobody could stop.
            self.record.wanted = false;
            drop(self.apply(Event::Kill, around));
            return Err(error.into());
        }
        Ok(())
    }

    fn health_due(&mut self, now: Moment) {
        let (Some(schedule), Some(check)) = (&mut self.health, &self.record.spec.healthcheck)
        else {
            return;
        };
        if schedule.is_running() {
            if let Some(pid) = self.check.and_then(as_pid) {
                // It leads its own session and group.
                let _ = kill_process_group(pid, Signal::KILL);
            }
            self.on_check_ended(false, now);
            return;
        }
        schedule.begin(check, now);
        let spec = &self.record.spec;
        let started = Launch {
            command: &check.command,
            program: None,
            working_dir: &spec.working_dir,
            environment: &spec.environment,
            run_id: self.record.id(),
            user: spec.user.as_ref(),
        }
        .spawn(Stdio::null(), Stdio::null());
        match started {
            Ok(child) => self.check = Some(child.id()),
            Err(_) => self.on_check_ended(false, now),
        }
    }
}

/// Takes a child's zombie away; its status is known.
fn reap(pid: u32) {
    if let Some(pid) = as_pid(pid) {
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
    }
}

fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}
