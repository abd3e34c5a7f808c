//! Making way: a command that only waits lets others in that ask (`stop`, `down`, `restart`), and goes on afterwards,
//! if what it had planned still holds.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::backend::Backend as _;
use crate::backend::router::Backends;
use crate::error::{Error, Result};
use crate::execute::Halt;
use crate::plan::Plan;
use crate::plan::step::Action;
use crate::state::{BackendKind, Instance};

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
    /// Whether a new plan is to be made: something was started, and nothing stopped or removed.
    pub(super) leads_further: bool,
}

/// What a plan builds on: the instances by name, with what tells another one of that name, and whether it lives.
type Ground = BTreeMap<String, (Option<String>, bool)>;

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
            let subjects = Subjects::of(plan, halt);
            let before = match subjects.ground(backends, &project).await {
                Ok(before) => before,
                Err(error) => return error,
            };
            self.who.replace(Some(who));
            backends.processes.give_way();
            let after = match backends.processes.regain().await {
                Ok(()) => subjects.ground(backends, &project).await,
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

/// The instance that a step works on or waits for.
fn subject(action: &Action) -> Option<(BackendKind, &str)> {
    if let Action::Create(spec) = action {
        Some((spec.backend, &spec.name))
    } else if let Action::AwaitReady { instance, .. }
    | Action::AwaitHealthy { instance }
    | Action::AwaitCompleted { instance } = action
    {
        Some((instance.backend, &instance.name))
    } else {
        let target = action.changes()?;
        Some((target.backend, &target.name))
    }
}

/// The instances that what is still to be done is about. What becomes of the rest is for those to say who change it.
struct Subjects {
    backends: BTreeMap<String, BackendKind>,
    /// Jobs that are waited for: they are expected to end.
    jobs: BTreeSet<String>,
}

impl Subjects {
    fn of(plan: &Plan, halt: &Halt) -> Self {
        let open = || plan.steps.iter().filter(|step| halt.is_open(step.id));
        let backends = open()
            .filter_map(|step| subject(&step.action))
            .map(|(backend, name)| (name.to_owned(), backend));
        let jobs = open().filter_map(|step| {
            let Action::AwaitCompleted { instance } = &step.action else {
                return None;
            };
            Some(instance.name.clone())
        });
        Self {
            backends: backends.collect(),
            jobs: jobs.collect(),
        }
    }

    async fn ground(&self, backends: &Backends, project: &str) -> Result<Ground> {
        let mut instances = backends.processes.everything(project).await?;
        let mut kinds = self.backends.values();
        if kinds.any(|kind| *kind == BackendKind::Container) {
            instances.extend(backends.containers.observe(project).await?);
        }
        let kept = instances
            .into_iter()
            .filter(|one| !one.one_off && self.backends.contains_key(&one.name));
        Ok(kept
            .map(|one: Instance| {
                let is_job = self.jobs.contains(&one.name);
                let lives = one.status.is_alive() && !one.ending || is_job;
                // A process has another id in each run.
                let id = (one.backend == BackendKind::Container).then_some(one.id.0);
                (one.name, (id, lives))
            })
            .collect())
    }
}

/// What has become of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Became {
    Removed,
    Stopped,
    Started,
    MadeAnew,
    Made,
}

/// What has become of the ground meanwhile.
#[derive(Debug, PartialEq, Eq)]
struct Change<'a> {
    name: &'a str,
    became: Became,
}

impl Change<'_> {
    fn leads_further(&self) -> bool {
        match self.became {
            Became::Removed | Became::Stopped => false,
            Became::Started | Became::MadeAnew | Became::Made => true,
        }
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let became = match self.became {
            Became::Removed => "removed",
            Became::Stopped => "stopped",
            Became::Started => "started",
            Became::MadeAnew => "made anew",
            Became::Made => "made",
        };
        write!(f, "{} was {became}", self.name)
    }
}

/// What has become of the ground meanwhile; what was taken away counts before all else.
fn change<'a>(before: &'a Ground, after: &'a Ground) -> Option<Change<'a>> {
    let of_old = before.iter().filter_map(|(name, (id, lived))| {
        let became = match after.get(name) {
            None => Became::Removed,
            Some((_, lives)) if *lived && !lives => Became::Stopped,
            Some((other, _)) if other != id => Became::MadeAnew,
            Some((_, lives)) if !lived && *lives => Became::Started,
            Some(_) => return None,
        };
        Some(Change { name, became })
    });
    let new = after.keys().filter(|name| !before.contains_key(*name));
    let made = new.map(|name| Change {
        name,
        became: Became::Made,
    });
    let mut all: Vec<Change<'_>> = of_old.chain(made).collect();
    all.sort_by_key(Change::leads_further);
    all.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground(all: &[(&str, Option<&str>, bool)]) -> Ground {
        let one = |(name, id, lives): &(&str, Option<&str>, bool)| {
            ((*name).to_owned(), (id.map(str::to_owned), *lives))
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn what_a_plan_builds_on_is_what_makes_it_void() {
        let before = ground(&[("a", None, true), ("b", Some("1"), false)]);
        assert_eq!(change(&before, &before), None);
        for (after, words) in [
            (ground(&[("b", Some("1"), false)]), "a was removed"),
            (
                ground(&[("a", None, false), ("b", Some("1"), false)]),
                "a was stopped",
            ),
            (
                ground(&[("a", None, true), ("b", Some("1"), true)]),
                "b was started",
            ),
            (
                ground(&[("a", None, true), ("b", Some("2"), false)]),
                "b was made anew",
            ),
        ] {
            let found = change(&before, &after).unwrap();
            assert_eq!(found.to_string(), words);
            let is_taken = words.ends_with("removed") || words.ends_with("stopped");
            assert_eq!(found.leads_further(), !is_taken, "{words}");
        }
        let more = ground(&[
            ("a", None, true),
            ("b", Some("1"), false),
            ("c", None, false),
        ]);
        assert_eq!(change(&before, &more).unwrap().to_string(), "c was made");
        // Whatever else happened.
        let both = ground(&[("b", Some("2"), true), ("c", None, true)]);
        assert_eq!(change(&before, &both).unwrap().to_string(), "a was removed");
    }
}
