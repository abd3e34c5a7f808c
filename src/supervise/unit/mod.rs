//! One instance in the supervisor's hands: carries out what its lifecycle decides, on the real process, its
//! keeper and its ledger entry. Decides nothing itself.

mod chase;
mod ear;
mod ending;
mod entry;
mod freeze;
mod group;
mod kept;
mod leftover;
mod spawn;
mod takeover;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::process::{Pid, Rlimit, Signal};

use self::ear::Ear;
use self::ending::Relatives;
use self::leftover::Leftover;
use super::capture::{Moved, Recorder};
use super::health::Schedule;
use super::keeper::Prepared;
use super::lifecycle::{Action, Event, Lifecycle, Moment, Phase};
use super::starting::Starting;
use crate::backend::BackendError;
use crate::backend::process::dirs::{InstanceDir, failed};
use crate::backend::process::protocol::Failure;
use crate::backend::process::run::{ProcessId, Survivor, is_signal, wall_clock};
use crate::backend::process::tree::Snapshot;
use crate::backend::process::{Record, RestartPolicy, UNKNOWN_CODE};
use crate::backend::process::{journal, lock};
use crate::state::{Health, Status};

/// How many are named of what a main process has left running.
const NAMED: usize = 3;

/// Pause after a failed attempt to record output (no space left, as a rule).
const OUTPUT_RETRY: Duration = Duration::from_secs(1);

/// Pause between two looks at a control group whose processes cannot be seen.
const GROUP_RETRY: Duration = Duration::from_millis(20);

/// The outcome for those who asked for the instance to end.
pub(super) type Settled = Option<Result<(), Failure>>;

/// What a unit needs from the loop: the time, and the processes of this moment, looked at once for all
/// units.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// Now.
    pub(super) now: Moment,
    /// The limit of open descriptors that processes get.
    descriptors: Option<Rlimit>,
    snapshot: Option<Snapshot>,
}

impl Surroundings {
    /// Of a new turn of the loop.
    pub(super) fn new(now: Moment, descriptors: Option<Rlimit>) -> Self {
        Self {
            now,
            descriptors,
            snapshot: None,
        }
    }

    /// The processes of this moment; `None` when out of descriptors or memory.
    fn snapshot(&mut self) -> Option<&Snapshot> {
        if self.snapshot.is_none() {
            self.snapshot = Snapshot::take().ok();
        }
        self.snapshot.as_ref()
    }

    fn tree(&mut self, unit: &Unit, main: Option<ProcessId>) -> Vec<ProcessId> {
        match self.snapshot() {
            Some(snapshot) => snapshot.tree(
                unit.record.id(),
                main,
                unit.keeper.as_ref().map(|keeper| keeper.id),
                &unit.vouching(),
            ),
            // Out of descriptors or memory: at least those known before.
            None => unit
                .vouching()
                .into_iter()
                .chain(main)
                .filter(|id| id.is_alive())
                .collect(),
        }
    }
}

/// A process and the descriptor that tells its end.
#[derive(Debug)]
struct Held {
    id: ProcessId,
    end: OwnedFd,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Unit {
    dir: InstanceDir,
    record: Record,
    life: Lifecycle,
    /// The keeper that is to be made, and the one that has not reported yet.
    prepared: Option<Prepared>,
    starting: Option<Starting>,
    main: Option<ProcessId>,
    /// The run's keeper while it lives.
    keeper: Option<Held>,
    /// The watch on the keeper's notes.
    watch: Option<i32>,
    /// The watch on what its control group tells of its memory.
    memory_watch: Option<i32>,
    /// Who is left of the last run.
    leftover: Leftover,
    /// The end of the main process, and who records its output: both only without a keeper.
    main_end: Option<OwnedFd>,
    recorder: Option<Recorder>,
    /// Its pipes, so that nothing is lost with its keeper.
    held: Vec<File>,
    ended: Option<i32>,
    /// Processes that were told to end, each with a descriptor that tells when it has.
    watched: Vec<(ProcessId, OwnedFd)>,
    /// Processes found in the tree when it was last looked at.
    known: Vec<ProcessId>,
    output_retry: Option<Moment>,
    health: Option<Schedule>,
    check: Option<u32>,
    /// What the last healthcheck says.
    ear: Option<Ear>,
    /// What the user should know and no error says.
    note: Option<String>,
    /// Why its end is written nowhere: who starts it would find the same run again.
    unwritten: Option<Failure>,
}

impl Unit {
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
            self.ended.map(|_| Moment::ZERO),
            self.must_sweep().then_some(Moment::ZERO),
            self.life.deadline(),
            self.health.as_ref().map(Schedule::deadline),
            self.output_retry,
            self.leftover.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Its output to wait on.
    pub(super) fn pipes(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.recorder
            .iter()
            .flat_map(Recorder::pipes)
            .filter(|_| self.output_retry.is_none())
    }

    /// The end of the keeper, to wait on.
    pub(super) fn keeper(&self) -> Option<BorrowedFd<'_>> {
        self.keeper.as_ref().map(|keeper| keeper.end.as_fd())
    }

    /// The end of the main process, to wait on where no keeper notes it.
    pub(super) fn main_end(&self) -> Option<BorrowedFd<'_>> {
        self.main_end.as_ref().map(AsFd::as_fd)
    }

    /// The pid of the main process.
    pub(super) fn main_pid(&self) -> Option<u32> {
        self.main.map(|main| main.pid)
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
        let Some(recorder) = &mut self.recorder else {
            return;
        };
        match recorder.move_portion(at) {
            Ok(Moved::Some | Moved::Nothing | Moved::Closed) => {}
            // The bytes stay in the pipe; the process waits when it is full.
            Err(_) => self.output_retry = Some(now.saturating_add(OUTPUT_RETRY)),
        }
    }

    /// The main process has ended; what follows is done by [`Unit::settle`]. `code` is `None` when nobody
    /// can know it.
    pub(super) fn on_main_ended(&mut self, code: Option<i32>) {
        self.on_notes();
        if self.main.is_some() {
            self.main_end = None;
            self.ended.get_or_insert(code.unwrap_or(UNKNOWN_CODE));
        }
    }

    /// A watched process has ended.
    pub(super) fn on_watched_ended(&mut self, pid: u32) {
        self.watched.retain(|(id, _)| id.pid != pid);
    }

    /// What the healthcheck says, to wait on.
    pub(super) fn ear(&self) -> Option<BorrowedFd<'_>> {
        self.ear.as_ref().and_then(Ear::end)
    }

    /// The healthcheck says something.
    pub(super) fn on_check_speaks(&mut self) {
        if let Some(ear) = &mut self.ear {
            ear.listen();
        }
    }

    /// The healthcheck has ended.
    pub(super) fn on_check_ended(&mut self, passed: bool, now: Moment) {
        self.check = None;
        self.on_check_speaks();
        let heard = self.ear.as_ref().map(Ear::heard).unwrap_or_default();
        self.judge(passed, heard, now);
    }

    /// Its healthcheck has passed, or failed for a reason.
    fn judge(&mut self, passed: bool, reason: String, now: Moment) {
        let (Some(schedule), Some(check)) = (&mut self.health, &self.record.spec.healthcheck)
        else {
            return;
        };
        if schedule.is_running() && schedule.finish(check, passed, now) {
            self.record.health = Some(schedule.verdict());
            let is_ill = self.record.health == Some(Health::Unhealthy);
            self.record.ailment = Some(reason).filter(|reason| is_ill && !reason.is_empty());
            // Not worth failing for: the next change is written again.
            drop(self.record.write(&self.dir));
        }
    }

    /// The id of a run that has come to life since the instance had the id `before`.
    pub(super) fn ran_since(&self, before: Option<&str>) -> Option<String> {
        let run = self.record.run.as_ref()?;
        let is_new = before.is_some_and(|before| before != run.id);
        (is_new && run.process.is_some()).then(|| run.id.clone())
    }

    /// Its current id.
    pub(super) fn id(&self) -> String {
        self.record.id().to_owned()
    }

    /// Begins to start it; what comes of it, the keeper reports. Not while it is ending: then nothing is done,
    /// and it is to be asked again when that is over.
    pub(super) fn start(&mut self, around: &mut Surroundings) -> Result<(), Failure> {
        if self.is_ending() {
            return Ok(());
        }
        match self.life.phase() {
            Phase::Idle | Phase::Waiting { .. } => {
                if self.end_remains(around) {
                    return Ok(());
                }
                self.record.wanted = true;
                self.record.restarts = 0;
                match self.apply(Event::Start, around) {
                    Some(Err(failure)) => Err(failure),
                    Some(Ok(())) | None => Ok(()),
                }
            }
            // Nothing to do, or excluded above.
            Phase::Running { .. }
            | Phase::Starting
            | Phase::Clearing { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. }
            | Phase::Left => Ok(()),
        }
    }

    /// Whether nothing of it runs, and it is to be started again in a while.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.life.phase(), Phase::Waiting { .. })
    }

    /// Sends a signal to the main process alone; one that is frozen goes on, as a container does, since it could
    /// not take it otherwise. One that has ended needs none.
    pub(super) fn signal(&mut self, signal: i32, around: &Surroundings) -> Result<(), Failure> {
        if !is_signal(signal) {
            return Err(Failure::Refused {
                message: format!("{signal} is not a signal"),
            });
        }
        let Some(main) = self.main else {
            return Ok(());
        };
        // Before it can end of it: a successor must know, too.
        self.record.told = Some(signal);
        self.record.write(&self.dir)?;
        self.note_signal(signal);
        if let Err(error) = main.signal_number(signal) {
            return Err(Failure::State {
                action: format!("cannot signal {}", self.record.spec.name),
                cause: (&error).into(),
            });
        }
        let stops = [Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU];
        if self.record.status == Status::Paused
            && !stops.iter().any(|stop| stop.as_raw() == signal)
            && !self.is_ending()
        {
            return self.unpause(around);
        }
        Ok(())
    }

    /// That a user sends a signal is told by `events`, each time.
    fn note_signal(&self, signal: i32) {
        journal::note(&self.dir, "kill", &[("signal", &signal.to_string())]);
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
            self.health_due(around);
        }
        if self.output_retry.is_some_and(|at| at <= around.now) {
            self.output_retry = None;
            if self.keeper.is_none() {
                self.keep_here(around.now);
            }
        }
        self.leftover.on_time(around.now);
        if self.life.deadline().is_some_and(|at| at <= around.now) {
            return self.apply(Event::Due, around);
        }
        if self.must_sweep() {
            return self.sweep(around, None);
        }
        None
    }

    fn main_ended(&mut self, code: i32, around: &mut Surroundings) -> Settled {
        let id = self.main.take();
        self.main_end = None;
        self.health = None;
        // It may have taken the signal for what it is, or died of it.
        let stop_signal = self.record.spec.stop_signal;
        let is_end = |signal: i32| signal == stop_signal || code == 128 + signal;
        if self.record.told.is_some_and(is_end) {
            self.life.dismiss();
        }
        self.forsake();
        self.note_starvation();
        self.known = match self.relatives(around, id.or_else(|| self.record.process())) {
            Relatives::Below(kin) => kin.all().copied().collect(),
            Relatives::All(found) => found,
            Relatives::Unsettled => {
                let all = self.vouching().into_iter();
                all.filter(|id| id.is_alive()).collect()
            }
        };
        let is_by_itself = matches!(self.life.phase(), Phase::Running { .. });
        if let Some(run) = &mut self.record.run {
            run.code = Some(code);
            run.finished.get_or_insert(wall_clock());
            if code == 0 && is_by_itself && self.record.told.is_none() {
                run.left_running = daemons(&self.known, id);
            }
        }
        if !self.known.is_empty() {
            // A successor would have to finish the clearing and must know the code.
            drop(self.record.write(&self.dir));
        }
        let action = self.life.on_event(Event::MainEnded { code }, around.now);
        if action == Action::None {
            self.sweep(around, id)
        } else {
            self.perform(action, around, id)
        }
    }

    /// Without its place in the ledger, which somebody has removed, it ends as it likes and is not started again: no
    /// command could know of it.
    fn forsake(&mut self) {
        if !self.dir.path().is_dir() {
            self.life.dismiss();
        }
    }

    fn apply(&mut self, event: Event, around: &mut Surroundings) -> Settled {
        let action = self.life.on_event(event, around.now);
        self.perform(action, around, self.main)
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
            Action::GiveUp => Some(Err(self.give_up(around, main))),
        }
    }

    /// Notes the end, once all output has been moved.
    fn finish(&mut self, status: Status) -> Result<(), Failure> {
        self.watched.clear();
        self.known.clear();
        self.health = None;
        // Its keeper may have been killed before it had recorded everything.
        if let Some(mut recorder) = self.recorder.take().or_else(|| self.recorder().ok()) {
            // Output that cannot be recorded must not keep the instance from ending.
            drop(recorder.drain());
            drop(recorder.end_lines());
        }
        self.held.clear();
        self.leftover.settle();
        self.remove_group();
        self.record.restarts = self.life.restarts();
        let Err(error) = self.write_end(status) else {
            return Ok(());
        };
        self.end_unwritten(status, error).map_err(Failure::from)
    }

    /// The end is what counts, and without space readers see it in the keeper's notes. Only that it is to stay so they
    /// do not have, which a mark without contents tells.
    fn end_unwritten(&mut self, status: Status, error: BackendError) -> Result<(), BackendError> {
        let is_over = matches!(status, Status::Exited { .. });
        let is_full = matches!(&error, BackendError::State { source, .. } if source.kind() == std::io::ErrorKind::StorageFull);
        if !is_over || !is_full {
            return Err(error);
        }
        let path = self.dir.over(self.record.id());
        if let Err(other) = lock::open(&path) {
            let other = failed("write", &path, other);
            if self.record.spec.restart != RestartPolicy::No {
                return Err(other);
            }
            self.unwritten = Some(other.into());
        }
        self.note = Some(format!(
            "{} has ended, and its entry {} could not be written: no space is left on the disk",
            self.record.spec.name,
            self.dir.record().display()
        ));
        Ok(())
    }

    /// What the user should know and no error says, once.
    pub(super) fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }

    /// Why it cannot be started after its end.
    pub(super) fn take_unwritten(&mut self) -> Option<Failure> {
        self.unwritten.take()
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
}

fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The names of those that have left the session of the main process, each once, and not more than are worth telling.
/// What has not may be on its way out with it.
fn daemons(processes: &[ProcessId], main: Option<ProcessId>) -> Vec<String> {
    let main = main.and_then(|id| as_pid(id.pid));
    let is_apart = |id: &&ProcessId| {
        let session = rustix::process::getsid(as_pid(id.pid)).ok();
        main.is_some() && session.is_some() && session != main
    };
    let mut names = Vec::new();
    let apart = processes.iter().filter(is_apart);
    for survivor in apart.map(|id| Survivor::of(id.pid)) {
        let is_new = !survivor.name.is_empty() && !names.contains(&survivor.name);
        if is_new && names.len() < NAMED {
            names.push(survivor.name);
        }
    }
    names
}
