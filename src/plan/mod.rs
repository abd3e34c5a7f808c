//! PROJECT + OBSERVED + POLICY → PLAN. Pure, synchronous, deterministic.
//!
//! ```text
//! placement   which backend runs a service
//! decide      what becomes of every instance
//! claims      what ports that needs            → the caller looks up who holds them
//! up, down,   the steps and their edges        → questions for a person, or steps for `execute`
//! launch
//! ```
//!
//! A plan with questions is not executed: the caller answers them and plans again. If reality moved,
//! observe and plan again; a plan is never patched.

pub mod claims;
pub mod conflicts;
mod decide;
mod diverged;
pub mod down;
mod ends;
mod gates;
pub mod ground;
pub mod images;
pub mod launch;
pub mod links;
mod makings;
mod notes;
mod order;
mod orphans;
mod own_ports;
pub mod placement;
pub mod policy;
pub mod ports;
mod pre_start;
mod prerequisites;
pub mod replacing;
mod resources;
mod settle;
mod sharing;
mod spec;
pub mod step;
mod text;
mod up;

pub use claims::{claims, given, of};
pub use conflicts::{Question, has, without};
pub use decide::fingerprint;
pub use ports::may_listen_anywhere;
pub(crate) use pre_start::preparations;
pub(crate) use spec::stores;
pub use up::up;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::project::model::Project;
use crate::state::{Instance, Observed};
use placement::Placement;
use policy::Policy;
use step::{Action, Cause, Step, StepId, Which};

/// All that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// What should be.
    pub project: &'a Project,
    /// Where.
    pub placement: &'a Placement,
    /// What is.
    pub observed: &'a Observed,
    /// What was decided in advance.
    pub policy: &'a Policy,
}

/// What will be done, or what must be answered first.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The steps; a step's needs come before it.
    pub steps: Vec<Step>,
    /// Held ports that nobody decided about. Not empty: nothing may be executed.
    pub questions: Vec<Question>,
    /// What is worth a line on the screen.
    pub notes: Vec<String>,
    /// Steps whose failure is only worth a warning: their dependents go on.
    pub optional: BTreeSet<StepId>,
    /// Volumes that exist and were made from another configuration, and are kept.
    pub diverged_volumes: Vec<String>,
    /// Local services that stay as they are and that containers are to reach when all is done. No step waits for them:
    /// of a stack that is as it should be nothing has to be done.
    pub reachable: Vec<String>,
    /// What makes the plan impossible. Not empty: nothing may be executed.
    pub problems: Vec<Problem>,
}

/// Something that no step can mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do about it; can be pasted where possible.
    pub hint: Option<String>,
}

impl Plan {
    /// Says that an end is waited for that somebody asked for before.
    fn note_end(&mut self, instance: &Instance, grace: Option<Duration>) {
        if let Some(survivors) = &instance.survivors {
            self.notes.push(format!(
                "{} {} was to be stopped, as somebody asked before, and could not be: {survivors}",
                instance.backend, instance.name
            ));
            return;
        }
        // More than a day is as long as it takes, and less than a second is not told in seconds.
        let told = Duration::from_secs(1)..=Duration::from_hours(24);
        let limit = grace.filter(|grace| told.contains(grace));
        let limit = limit.map_or_else(String::new, |grace| {
            format!(", {} s at most", grace.as_secs())
        });
        self.notes.push(format!(
            "{} {} is being stopped, as somebody asked before: waiting for its end{limit}; `wharf kill {}` ends it at \
             once",
            instance.backend, instance.name, instance.service
        ));
    }

    fn add(&mut self, action: Action, cause: Cause, needs: Vec<StepId>) -> StepId {
        let id = StepId(
            u32::try_from(self.steps.len())
                .unwrap_or(u32::MAX)
                .saturating_add(1),
        );
        let mut needs = needs;
        needs.sort_unstable();
        needs.dedup();
        self.steps.push(Step {
            id,
            action,
            cause,
            needs,
        });
        id
    }

    /// Whether any step changes an instance that exists.
    pub fn changes(&self, instance: &Instance) -> bool {
        let this = Which::Existing(instance.id.clone());
        self.steps
            .iter()
            .filter_map(|step| step.action.changes())
            .any(|target| target.which == this)
    }

    /// The steps that satisfy `wanted`, and all they need, as a plan of their own.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&Action) -> bool) -> Self {
        self.select(|step| wanted(&step.action))
    }

    /// The steps of providers that need no other provider before, and all that these need.
    #[must_use]
    pub fn providing(&self) -> Self {
        let mut behind = BTreeSet::new();
        let mut due = BTreeSet::new();
        for step in &self.steps {
            let waits = step.needs.iter().any(|need| behind.contains(need));
            let provides = matches!(step.action, Action::Provide { .. });
            if provides && !waits {
                due.insert(step.id);
            }
            if provides || waits {
                behind.insert(step.id);
            }
        }
        self.select(|step| due.contains(&step.id))
    }

    fn select(&self, wanted: impl Fn(&Step) -> bool) -> Self {
        let wanted = self.steps.iter().filter(|step| wanted(step));
        let mut open: Vec<StepId> = wanted.map(|step| step.id).collect();
        let mut keep = BTreeSet::new();
        while let Some(id) = open.pop() {
            if keep.insert(id) {
                let step = self.steps.iter().find(|step| step.id == id);
                open.extend(step.into_iter().flat_map(|step| &step.needs));
            }
        }
        let steps = self
            .steps
            .iter()
            .filter(|step| keep.contains(&step.id))
            .cloned()
            .collect();
        let optional = self.optional.iter().copied();
        Self {
            steps,
            optional: optional.filter(|id| keep.contains(id)).collect(),
            ..Self::default()
        }
    }
}
