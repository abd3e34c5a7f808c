//! Making way: a command that only waits lets others in that ask (`stop`, `down`, `restart`), and goes on afterwards,
//! if what it had planned still holds.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::backend::Backend as _;
use crate::backend::router::Backends;
use crate::error::{Error, Result};
use crate::execute::Halt;
use crate::plan::Plan;
use crate::plan::step::Action;
use crate::state::{BackendKind, Instance};

/// Whom a command has let in.
#[derive(Debug, Default)]
pub(super) struct Way(RefCell<Option<String>>);

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
            let before = match ground(backends, plan, halt, &project).await {
                Ok(before) => before,
                Err(error) => return error,
            };
            self.0.replace(Some(who));
            backends.processes.give_way();
            let after = match backends.processes.regain().await {
                Ok(()) => ground(backends, plan, halt, &project).await,
                Err(error) => return error.into(),
            };
            match after {
                Ok(after) => {
                    if let Some(change) = change(&before, &after) {
                        return Error::failed(change);
                    }
                }
                Err(error) => return error,
            }
            halt.let_go();
        }
    }

    /// The same failure, with whom it may be owed to.
    pub(super) fn explain(&self, error: Error) -> Error {
        let who = self.0.borrow();
        let Some(who) = who.as_ref() else {
            return error;
        };
        let mut told = Error::failed(format!(
            "another command has changed what this one was waiting for: {who}"
        ));
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
        if self.0.borrow().is_some() {
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

/// Of what is still to be done. What becomes of the rest is for those to say who change it.
async fn ground(backends: &Backends, plan: &Plan, halt: &Halt, project: &str) -> Result<Ground> {
    let open = || plan.steps.iter().filter(|step| halt.is_open(step.id));
    let subjects: BTreeMap<&str, BackendKind> = open()
        .filter_map(|step| subject(&step.action))
        .map(|(backend, name)| (name, backend))
        .collect();
    let mut instances = backends.processes.everything(project).await?;
    if subjects.values().any(|it| *it == BackendKind::Container) {
        instances.extend(backends.containers.observe(project).await?);
    }
    // A job that is waited for is expected to end.
    let ends = |name: &str| {
        open().any(|step| {
            matches!(&step.action, Action::AwaitCompleted { instance } if instance.name == name)
        })
    };
    let kept = instances
        .into_iter()
        .filter(|one| !one.one_off && subjects.contains_key(one.name.as_str()));
    Ok(kept
        .map(|one: Instance| {
            let lives = one.status.is_alive() && !one.ending || ends(&one.name);
            // A process has another id in each run.
            let id = (one.backend == BackendKind::Container).then_some(one.id.0);
            (one.name, (id, lives))
        })
        .collect())
}

/// What has become of the ground meanwhile, in words.
fn change(before: &Ground, after: &Ground) -> Option<String> {
    for (name, (id, lived)) in before {
        match after.get(name) {
            None => return Some(format!("{name} was removed")),
            Some((other, _)) if other != id => return Some(format!("{name} was made anew")),
            Some((_, lives)) if *lived && !lives => return Some(format!("{name} was stopped")),
            Some((_, lives)) if !lived && *lives => return Some(format!("{name} was started")),
            Some(_) => {}
        }
    }
    let new = after.keys().find(|name| !before.contains_key(*name))?;
    Some(format!("{new} was made"))
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
            assert_eq!(change(&before, &after).as_deref(), Some(words));
        }
        let more = ground(&[
            ("a", None, true),
            ("b", Some("1"), false),
            ("c", None, false),
        ]);
        assert_eq!(change(&before, &more).as_deref(), Some("c was made"));
    }
}
