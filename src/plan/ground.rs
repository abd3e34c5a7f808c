//! What a plan that waits still builds on, and what of it others have changed meanwhile. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Plan;
use super::step::{Action, StepId};
use crate::state::{BackendKind, Instance};

/// The instances that the open steps of a plan are about, by name, with what tells another one of that name, and
/// whether it lives.
pub type Ground = BTreeMap<String, (Option<String>, bool)>;

/// The instances that what is still to be done is about. What becomes of the rest is for those to say who change it.
#[derive(Debug)]
pub struct Subjects {
    backends: BTreeMap<String, BackendKind>,
    /// Jobs that are waited for: they are expected to end.
    jobs: BTreeSet<String>,
}

impl Subjects {
    /// Those of the steps that are open.
    pub fn of(plan: &Plan, is_open: impl Fn(StepId) -> bool) -> Self {
        let open = || plan.steps.iter().filter(|step| is_open(step.id));
        let backends = open()
            .filter_map(|step| step.action.subject())
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

    /// Whether a backend has to be looked at for them.
    pub fn are_in(&self, backend: BackendKind) -> bool {
        self.backends.values().any(|it| *it == backend)
    }

    /// What they are now, of all instances of the project.
    pub fn ground(&self, instances: Vec<Instance>) -> Ground {
        let kept = instances
            .into_iter()
            .filter(|one| !one.one_off && self.backends.contains_key(&one.name));
        kept.map(|one| {
            let is_job = self.jobs.contains(&one.name);
            let lives = one.status.is_alive() && !one.ending || is_job;
            // A process has another id in each run.
            let id = (one.backend == BackendKind::Container).then_some(one.id.0);
            (one.name, (id, lives))
        })
        .collect()
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
pub struct Change<'a> {
    name: &'a str,
    became: Became,
}

impl Change<'_> {
    /// Whether that is a part of what was planned: something was made or started, and nothing stopped or removed.
    pub fn leads_further(&self) -> bool {
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
pub fn change<'a>(before: &'a Ground, after: &'a Ground) -> Option<Change<'a>> {
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
