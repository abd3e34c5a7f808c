//! Freezing an instance and letting it go on: by its control group, and SIGSTOP and SIGCONT to what of its
//! tree is not in one. The ledger says that
//! it is paused, so that everybody knows, and a later supervisor too.

use rustix::process::Signal;

use super::{Surroundings, Unit};
use crate::backend::process::protocol::Failure;
use crate::backend::process::run::ProcessId;
use crate::state::{Health, Status};
use crate::supervise::health::Schedule;
use crate::supervise::lifecycle::Phase;

/// How often the tree is looked at anew for processes that were forked while it was being frozen. A frozen
/// process forks no more, so each look finds fewer.
const LOOKS: usize = 20;

impl Unit {
    /// Freezes all its processes and its healthcheck.
    pub(in crate::supervise) fn pause(&mut self) -> Result<(), Failure> {
        self.must_run("pause")?;
        if self.record.status == Status::Paused {
            return Err(self.refused("is already paused"));
        }
        if let Some(group) = self.record.group().filter(|group| group.path().is_dir())
            && let Err(error) = group.freeze()
        {
            self.thaw();
            return Err(self.cannot_pause(&error));
        }
        let mut frozen: Vec<ProcessId> = Vec::new();
        for _ in 0..LOOKS {
            let in_group = self.record.group().map(|group| group.members());
            let in_group = in_group.unwrap_or_default();
            let mut all = self.whole_tree();
            all.retain(|id| !frozen.contains(id) && !in_group.contains(id));
            if all.is_empty() {
                break;
            }
            for id in all {
                if let Err(error) = id.signal(Signal::STOP) {
                    self.thaw();
                    return Err(self.cannot_pause(&error));
                }
                frozen.push(id);
            }
        }
        let health = self.health.take();
        self.note(Status::Paused).inspect_err(|_| {
            // A later supervisor would not know, and wait for checks that are frozen, too.
            self.thaw();
            self.record.status = Status::Running;
            self.health = health;
        })
    }

    /// Lets it go on.
    pub(in crate::supervise) fn unpause(&mut self, around: &Surroundings) -> Result<(), Failure> {
        self.must_run("unpause")?;
        if self.record.status != Status::Paused {
            return Err(self.refused("is not paused"));
        }
        self.thaw();
        if let Err(failure) = self.note(Status::Running) {
            // It goes on, and the ledger says otherwise: to be asked again.
            self.record.status = Status::Paused;
            return Err(failure);
        }
        if let Phase::Running { since } = self.life.phase() {
            self.health = self.record.spec.healthcheck.as_ref().map(|check| {
                let verdict = self.record.health.unwrap_or(Health::Starting);
                Schedule::resumed(check, verdict, since, around.now)
            });
        }
        Ok(())
    }

    fn cannot_pause(&self, error: &std::io::Error) -> Failure {
        Failure::State {
            action: format!("cannot pause {}", self.record.spec.name),
            cause: error.into(),
        }
    }

    fn thaw(&self) {
        if let Some(group) = self.record.group() {
            drop(group.thaw());
        }
        for id in self.whole_tree() {
            // One that has ended needs nothing, and one that may not be signalled was not frozen by us.
            drop(id.signal(Signal::CONT));
        }
    }

    /// A fresh look: forks since the last one count.
    fn whole_tree(&self) -> Vec<ProcessId> {
        Surroundings::new(std::time::Duration::ZERO, None).tree(self, self.record.process())
    }

    fn must_run(&self, what: &str) -> Result<(), Failure> {
        match self.life.phase() {
            Phase::Running { .. } => Ok(()),
            Phase::Idle
            | Phase::Starting
            | Phase::Clearing { .. }
            | Phase::Waiting { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. }
            | Phase::Left => Err(self.refused(&format!("does not run: cannot {what} it"))),
        }
    }

    fn refused(&self, why: &str) -> Failure {
        Failure::Refused {
            message: format!("{} {why}", self.record.spec.name),
        }
    }

    fn note(&mut self, status: Status) -> Result<(), Failure> {
        self.record.status = status;
        self.record.write(&self.dir).map_err(Failure::from)
    }
}
