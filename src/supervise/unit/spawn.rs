//! Starting processes of an instance: its main process, and its healthchecks.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, kill_process_group};

use super::ear::Ear;
use super::leftover::Leftover;
use super::takeover::unnoted;
use super::{Held, Surroundings, Unit, as_pid};

use crate::backend::process::Run;
use crate::backend::process::cgroup::{Group, View, controllers};
use crate::backend::process::child::{Launch, Way};
use crate::backend::process::protocol::Failure;
use crate::backend::process::remains::Remains;
use crate::backend::process::run::{boot_id, new_run_id, wall_clock};
use crate::backend::process::stores;
use crate::state::{Health, Status};
use crate::supervise::health::Schedule;
use crate::supervise::keeper::{self, Order, Prepared};
use crate::supervise::lifecycle::{Action, Event};
use crate::supervise::starting::{Begun, Starting};
use crate::supervise::torn;

impl Unit {
    pub(super) fn spawn(&mut self, around: &mut Surroundings) -> Result<(), Failure> {
        let prepared = self.try_spawn(around);
        self.prepared = Some(self.tried(prepared, around)?);
        Ok(())
    }

    /// What came of a part of a start; where it failed, so has the start.
    fn tried<T>(
        &mut self,
        outcome: Result<T, Failure>,
        around: &mut Surroundings,
    ) -> Result<T, Failure> {
        if let Err(failure) = &outcome {
            self.spawn_failed(failure, around);
        }
        outcome
    }

    /// Whether its keeper is to be made.
    pub(in crate::supervise) fn is_prepared(&self) -> bool {
        self.prepared.is_some()
    }

    /// Makes its keeper if it is prepared.
    pub(in crate::supervise) fn launch(
        &mut self,
        around: &mut Surroundings,
    ) -> Result<(), Failure> {
        let Some(prepared) = self.prepared.take() else {
            return Ok(());
        };
        let starting = prepared.begin(&self.order(around));
        self.starting = Some(self.tried(starting, around)?);
        Ok(())
    }

    /// Whether its keeper is being made or has not reported yet.
    pub(in crate::supervise) fn is_starting(&self) -> bool {
        self.starting.is_some() || self.is_prepared()
    }

    /// The keeper's report, to wait on.
    pub(in crate::supervise) fn report(&self) -> Option<BorrowedFd<'_>> {
        self.starting.as_ref().map(Starting::report)
    }

    /// The keeper reports; waits for it if it has not yet.
    pub(in crate::supervise) fn on_report(
        &mut self,
        around: &mut Surroundings,
    ) -> Result<(), Failure> {
        self.launch(around)?;
        let Some(mut starting) = self.starting.take() else {
            return Ok(());
        };
        let held = starting.take_held();
        let begun = starting
            .finish()
            .and_then(|begun| begun.or_else(|| self.left_by_keeper()).ok_or_else(killed));
        let begun = self.tried(begun, around)?;
        self.begun(begun, held, around);
        Ok(())
    }

    /// The process that a keeper had started when it was killed, if it came so far. Starting another one
    /// beside it would be a second instance.
    fn left_by_keeper(&mut self) -> Option<Begun> {
        let run_id = self.record.id().to_owned();
        // Returns once nothing is between fork and exec any more.
        self.find_keeper(&run_id).ok()?;
        let main = self.record.process().or_else(|| unnoted(&run_id))?;
        let keeper = self.record.keeper();
        Some(Begun {
            keeper,
            end: None,
            main,
        })
    }

    fn spawn_failed(&mut self, failure: &Failure, around: &mut Surroundings) {
        // As the shell does: not found, or found and not to be run.
        let not_found = matches!(failure, Failure::Command { cause, .. }
            if cause.errno == Some(Errno::NOENT.raw_os_error()));
        let code = if not_found { 127 } else { 126 };
        if let Some(run) = self.record.run.as_mut().filter(|run| run.code.is_none()) {
            run.code = Some(code);
            run.finished = Some(wall_clock());
        }
        self.forsake();
        drop(self.apply(Event::SpawnFailed, around));
    }

    fn order(&self, around: &Surroundings) -> Order<'_> {
        Order {
            dir: &self.dir,
            spec: &self.record.spec,
            run_id: self.record.id(),
            descriptors: around.descriptors,
            supervisor: std::process::id(),
        }
    }

    fn try_spawn(&mut self, around: &Surroundings) -> Result<Prepared, Failure> {
        let state = |action: &str, error: &io::Error| Failure::State {
            action: action.to_owned(),
            cause: error.into(),
        };
        let Some(lock) = keeper::lock(&self.dir)? else {
            // Of a run that the ledger does not know: any other is ended before a start.
            let found = Remains::kept(&self.dir, &self.record);
            return Err(found.into_error(&self.record.spec.name).into());
        };
        let run_id = new_run_id().map_err(|error| state("cannot make a run id", &error))?;
        let spec = &self.record.spec;
        for stale in stores::refresh(&self.dir, &spec.attributes.files)? {
            // The command that starts says so, too. A full disk must not keep it from starting.
            drop(writeln!(io::stderr(), "{}: {stale}", spec.name));
        }
        stores::expose(&self.dir, self.record.spec.user.as_ref())?;
        // What an earlier run left where something survived its end.
        self.remove_group();
        if self
            .record
            .run
            .as_ref()
            .is_some_and(|run| run.boot_id != boot_id())
        {
            // A log that cannot be set right is still a log.
            drop(torn::mend(&self.dir));
        }
        let settings = self.record.spec.attributes.resources.settings();
        let place = View::find_once(&controllers(&settings));
        let planned = |place| Group::planned(place, &self.dir.tag(), &run_id);
        let group = place.as_ref().map(planned);
        // The intent is on disk before the process is: whoever comes after a crash looks for this id.
        self.leftover = Leftover::of_run();
        let planned = Run::planned(run_id, group.as_ref());
        let last = self.record.run.replace(planned);
        self.record.past = last.as_ref().and_then(Run::past);
        self.record.told = None;
        self.record.status = Status::Running;
        self.record.restarts = self.life.restarts();
        self.record.health = self
            .record
            .spec
            .healthcheck
            .as_ref()
            .map(|_| Health::Starting);
        self.record.ailment = None;
        if let Err(error) = self.record.write(&self.dir) {
            // What is noted of its end must be of the run that the ledger knows.
            self.record.run = last.or_else(|| self.record.run.take());
            return Err(error.into());
        }
        let group = group.as_ref().zip(place.as_ref());
        Prepared::make(&self.order(around), group, lock)
    }

    fn begun(&mut self, begun: Begun, held: Vec<File>, around: &Surroundings) {
        self.known.clear();
        self.main = Some(begun.main);
        self.keeper = begun.keeper.and_then(|id| {
            let end = begun.end.or_else(|| id.open())?;
            Some(Held { id, end })
        });
        self.held = held;
        if let Some(run) = &mut self.record.run {
            run.process = Some(begun.main);
            run.keeper = begun.keeper;
        }
        let spawned = self.life.on_event(Event::Spawned, around.now);
        debug_assert_eq!(spawned, Action::None);
        self.health = self
            .record
            .spec
            .healthcheck
            .as_ref()
            .map(|check| Schedule::new(check, around.now));
        if self.keeper.is_none() {
            // It has come to its end by now, or was killed, perhaps before it could note anything.
            self.on_keeper_ended(around.now);
            drop(self.record.write(&self.dir));
        }
        // Else not written: whoever reads the entry of a run that has not ended learns this from the keeper's
        // notes.
    }

    pub(super) fn health_due(&mut self, around: &Surroundings) {
        let now = around.now;
        let beside = self.beside();
        let (Some(schedule), Some(check)) = (&mut self.health, &self.record.spec.healthcheck)
        else {
            return;
        };
        if schedule.is_running() {
            let limit = check.timeout;
            if let Some(pid) = self.check.and_then(as_pid) {
                // It leads its own session and group.
                let _ = kill_process_group(pid, Signal::KILL);
            }
            // What it leaves behind is looked for when it has gone.
            self.on_check_speaks();
            let heard = self.ear.as_ref().map(Ear::heard).unwrap_or_default();
            self.judge(false, overdue(limit, &heard), now);
            return;
        }
        schedule.begin(check, now);
        let spec = &self.record.spec;
        let launch = Launch {
            command: &check.command,
            program: None,
            working_dir: &spec.working_dir,
            environment: &spec.environment,
            run_id: self.record.id(),
            user: spec.user.as_ref(),
            descriptors: around.descriptors,
            hosts: spec.names.hosts.as_deref(),
        };
        let started = Ear::new(spec.user.as_ref()).and_then(|(ear, ends)| {
            let pid = launch.ready(Way::Apart, &beside)?.begin(ends)?;
            Ok((ear, pid))
        });
        match started {
            Ok((ear, pid)) => {
                self.ear = Some(ear);
                self.check = Some(pid);
            }
            Err(error) => {
                let program = check.command.first().map_or("", String::as_str);
                let reason = format!("cannot run `{program}`: {error}");
                self.ear = None;
                self.judge(false, reason, now);
            }
        }
    }
}

/// What a healthcheck that takes too long is told with.
fn overdue(limit: Duration, heard: &str) -> String {
    let reason = format!("it had not ended after {} s", limit.as_secs_f64());
    if heard.is_empty() {
        reason
    } else {
        format!("{heard}\n{reason}")
    }
}

/// A keeper that was killed before it had started anything.
fn killed() -> Failure {
    Failure::State {
        action: "cannot start a keeper".to_owned(),
        cause: (&io::Error::other("it was killed")).into(),
    }
}
