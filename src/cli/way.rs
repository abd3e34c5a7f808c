//! Making way: a command that only waits lets others in that ask (`stop`, `down`, `restart`), and goes on afterwards,
//! if what it had planned still holds.

use std::cell::{Cell, RefCell};

use crate::backend::Backend as _;
use crate::backend::router::Backends;
use crate::error::{Error, Result};
use crate::execute::Halt;
use crate::plan::Plan;
use crate::plan::ground::{Ground, Subjects, change};
use crate::state::BackendKind;

/// Whom a command has let in.
#[derive(Debug, Default)]
pub(super) struct Way {
    who: RefCell<Option<String>>,
    /// Whether what they did was on this command's way, too.
    leads_further: Cell<bool>,
}

/// A plan that does not hold any more.
#[derive(Debug, thiserror::Error)]
#[error("another command has changed what this one was waiting for: {by}")]
pub(super) struct Voided {
    by: String,
    /// Whether a new plan is to be made.
    pub(super) leads_further: bool,
}

impl Way {
    /// Lets others in for as long as a plan is carried out.
    ///
    /// # Errors
    /// It returns only where the plan does not hold any more.
    pub(super) async fn make(&self, backends: &Backends, plan: &Plan, halt: &Halt) -> Error {
        let Some(project) = backends.processes.turn_of() else {
            return std::future::pending().await;
        };
        loop {
            let who = backends.processes.asked().await;
            halt.hold().await;
            // Waits may end meanwhile; they were open when the turn was given away.
            let subjects = Subjects::of(plan, |step| halt.is_open(step));
            let before = match ground(&subjects, backends, &project).await {
                Ok(before) => before,
                Err(error) => return error,
            };
            self.who.replace(Some(who));
            backends.processes.give_way();
            let after = match backends.processes.regain().await {
                Ok(()) => ground(&subjects, backends, &project).await,
                Err(error) => return error.into(),
            };
            match after {
                Ok(after) => {
                    if let Some(change) = change(&before, &after) {
                        self.leads_further.set(change.leads_further());
                        return Error::failed(change.to_string());
                    }
                }
                Err(error) => return error,
            }
            halt.let_go();
        }
    }

    /// The same failure, with whom it may be owed to.
    pub(super) fn explain(&self, error: Error) -> Error {
        let who = self.who.borrow();
        let Some(who) = who.as_ref() else {
            return error;
        };
        let mut told = Error::failed(Voided {
            by: who.clone(),
            leads_further: self.leads_further.get(),
        });
        told.details.push(error.to_string());
        told.details.extend(error.details);
        told.hints = error.hints;
        told.answers = error.answers;
        told
    }

    /// Takes the turn back where it was given away, for what the command does next.
    ///
    /// # Errors
    /// The lock cannot be had.
    pub(super) async fn end(&self, backends: &Backends) -> Result<()> {
        if self.who.borrow().is_some() {
            backends.processes.regain().await?;
        }
        Ok(())
    }
}

async fn ground(subjects: &Subjects, backends: &Backends, project: &str) -> Result<Ground> {
    let mut instances = backends.processes.everything(project).await?;
    if subjects.are_in(BackendKind::Container) {
        instances.extend(backends.containers.observe(project).await?);
    }
    Ok(subjects.ground(instances))
}
