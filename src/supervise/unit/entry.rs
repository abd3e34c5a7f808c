//! The ledger entry of a living run that somebody has taken away, or replaced.

use rustix::process::Signal;

use super::Unit;
use crate::backend::in_one_line;
use crate::backend::process::Record;
use crate::backend::process::protocol::Failure;
use crate::state::Fingerprint;
use crate::supervise::lifecycle::Moment;

impl Unit {
    /// Writes its entry again where that is missing; what the user should know of it.
    pub(in crate::supervise) fn restore(&mut self, now: Moment) -> Option<String> {
        // What its keeper is about to report, the entry does not have yet.
        if self.is_starting() || !self.is_active() || self.dir.record().exists() {
            return None;
        }
        let whom = self.whom();
        let had_files = self.dir.path().is_dir();
        if !had_files {
            self.forget_origin();
        }
        if let Err(error) = self
            .dir
            .create()
            .and_then(|()| self.record.write(&self.dir))
        {
            return Some(format!(
                "{whom} runs without its entry in the ledger, which somebody has removed: {}",
                in_one_line(&error)
            ));
        }
        if had_files {
            return Some(format!(
                "the entry of {whom} was removed while it ran and is written again"
            ));
        }
        self.record_anew(now);
        Some(format!(
            "the files of {whom} were removed while it ran: its entry is written again, what else was there is \
             gone; `wharf up` makes it anew"
        ))
    }

    /// Whether another entry has taken the place of this living run's, and what is to be said then. It is written
    /// over: to start what it describes would be a second run.
    pub(in crate::supervise) fn superseded(&mut self) -> Option<Failure> {
        if !self.is_active() {
            return None;
        }
        let there = Record::read(&self.dir).ok().flatten()?;
        if there.created_id == self.record.created_id {
            return None;
        }
        self.forget_origin();
        Some(match self.record.write(&self.dir) {
            Ok(()) => Failure::Refused {
                message: format!(
                    "{} runs already: its files were replaced while it ran. Run the same command again",
                    self.whom()
                ),
            },
            Err(error) => error.into(),
        })
    }

    /// What it was made from is not there any more: whoever compares it with the file makes it anew.
    fn forget_origin(&mut self) {
        self.record.spec.fingerprint = Fingerprint(String::new());
    }

    /// Its keeper writes into files that nobody can open any more: this one takes its place. Not that of a terminal,
    /// which would hang up.
    fn record_anew(&mut self, now: Moment) {
        match &self.keeper {
            Some(keeper) if !self.held.is_empty() => {
                // That it ends shows on its descriptor.
                let _ = rustix::process::pidfd_send_signal(&keeper.end, Signal::KILL);
            }
            None if self.main.is_some() => self.record_here(now),
            Some(_) | None => {}
        }
    }

    fn whom(&self) -> String {
        let name = &self.record.spec.name;
        match self.main {
            Some(main) => format!("{name} (pid {})", main.pid),
            None => name.clone(),
        }
    }
}
