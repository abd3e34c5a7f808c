//! Taking an instance over from the ledger: what an earlier supervisor left, or what was never started.

use std::time::Duration;

use super::leftover::Leftover;
use super::{Held, Surroundings, Unit};
use crate::backend::BackendError;
use crate::backend::process::dirs::InstanceDir;
use crate::backend::process::notes::Notes;
use crate::backend::process::run::{ProcessId, wall_clock};
use crate::backend::process::tree::Snapshot;
use crate::backend::process::{Record, UNKNOWN_CODE};
use crate::naming::Role;
use crate::state::{Health, Status};
use crate::supervise::capture::hold;
use crate::supervise::health::Schedule;
use crate::supervise::keeper;
use crate::supervise::lifecycle::Lifecycle;

/// How long a keeper that was just forked, or a command, may take until it has noted what became of its process.
const LOOKS: u32 = 100;

impl Unit {
    /// Takes an instance over as the ledger describes it: alive, waiting for a restart, or idle.
    pub(in crate::supervise) fn take_over(
        dir: InstanceDir,
        record: Record,
        around: &mut Surroundings,
    ) -> Result<Self, BackendError> {
        dir.create()?;
        let policy = record.spec.restart;
        let pacing = record.spec.attributes.pacing;
        // Neighbours wait for names.
        let is_undaunted = Role::of(&record.spec.labels) == Some(Role::Forwarder);
        let shaped = |life: Lifecycle| life.paced(pacing).undaunted(is_undaunted);
        let mut unit = Self {
            life: shaped(Lifecycle::new(policy)),
            dir,
            prepared: None,
            starting: None,
            main: None,
            keeper: None,
            watch: None,
            memory_watch: None,
            leftover: Leftover::of_run(),
            main_end: None,
            recorder: None,
            held: Vec::new(),
            ended: None,
            watched: Vec::new(),
            known: Vec::new(),
            output_retry: None,
            health: None,
            check: None,
            ear: None,
            note: None,
            unwritten: None,
            record,
        };
        unit.await_launch()?;
        let Some(run) = unit.record.run.clone() else {
            unit.leftover = Leftover::of_none();
            return Ok(unit);
        };
        // Nothing is left of what is not of here: no supervisor comes up before that is certain.
        if !run.is_of_here() {
            if unit.record.status.is_alive() || run.finished.is_none() {
                unit.write_end(Status::Exited {
                    code: run.code.unwrap_or(UNKNOWN_CODE),
                })?;
            }
            return Ok(unit);
        }
        if unit.record.status == Status::Restarting {
            let restarts = unit.record.restarts;
            unit.life = shaped(Lifecycle::adopted_waiting(policy, restarts, around.now));
            return Ok(unit);
        }
        if run.finished.is_some() && !unit.record.status.is_alive() {
            return Ok(unit);
        }
        let age = u64::try_from(wall_clock().saturating_sub(run.started)).unwrap_or_default();
        let since = around.now.saturating_sub(Duration::from_nanos(age));
        unit.life = shaped(Lifecycle::adopted(policy, unit.record.restarts, since));
        unit.find_keeper(&run.id)?;
        unit.main = unit
            .record
            .run
            .as_ref()
            .and_then(|run| run.process)
            .or_else(|| unnoted(&run.id));
        unit.on_notes();
        if unit.main.is_none() {
            // It has never come to life.
            unit.ended = Some(UNKNOWN_CODE);
        } else if unit.keeper.is_none() && unit.ended.is_none() {
            unit.on_keeper_ended(around.now);
        } else if unit.keeper.is_some() {
            unit.held = hold(&unit.dir);
        }
        if let Some(id) = unit.main.filter(|_| unit.ended.is_none()) {
            unit.health = unit.record.spec.healthcheck.as_ref().map(|check| {
                let verdict = unit.record.health.unwrap_or(Health::Starting);
                Schedule::resumed(check, verdict, since, around.now)
            });
            if let Some(run) = &mut unit.record.run {
                run.process = Some(id);
            }
            if unit.record.status == Status::Paused {
                unit.health = None;
            } else {
                unit.record.status = Status::Running;
            }
            // What is new in it is in the keeper's notes as well.
            drop(unit.record.write(&unit.dir));
        }
        Ok(unit)
    }

    /// Waits for a command that is just starting a run in its foreground, until it has noted the process or has gone.
    fn await_launch(&mut self) -> Result<(), BackendError> {
        for look in 0..LOOKS {
            let run = self.record.run.as_ref().filter(|run| run.is_of_here());
            let launcher = run.and_then(|run| run.launcher);
            if !launcher.is_some_and(ProcessId::is_alive) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(u64::from(look)));
            if let Some(record) = Record::read(&self.dir)? {
                self.record = record;
            }
        }
        Ok(())
    }

    /// Finds the keeper of a run, if it lives, and learns what it has noted.
    pub(super) fn find_keeper(&mut self, run_id: &str) -> Result<(), BackendError> {
        for look in 0..LOOKS {
            let is_free = keeper::lock(&self.dir)?.is_some();
            let notes = Notes::read(&self.dir.notes(), run_id);
            self.record.learn(&notes);
            if is_free {
                return Ok(());
            }
            let is_settled = notes.main.is_some() || notes.failed.is_some();
            if let Some(id) = notes.keeper.filter(|_| is_settled) {
                // One that is just leaving lets go of its lock in a moment.
                if let Some(end) = id.open() {
                    self.keeper = Some(Held { id, end });
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(u64::from(look)));
        }
        Ok(())
    }
}

/// The main process of a run whose keeper was killed before it could note the pid. It has let go of the
/// keeper's lock by now, but the kernel shows its environment only a moment later: as long as there is a
/// process without one, it is waited for.
pub(super) fn unnoted(run_id: &str) -> Option<ProcessId> {
    const LOOKS: u32 = 200;
    for look in 0..LOOKS {
        let all = Snapshot::take().ok()?;
        // Asked first: one that gets its environment in between is found.
        let is_any_on_its_way = all.is_any_in_exec();
        if let Some(main) = all.main_of(run_id) {
            return Some(main);
        }
        if !is_any_on_its_way {
            return None;
        }
        std::thread::sleep(Duration::from_millis(u64::from(look.min(10))));
    }
    None
}
