//! The last pass of `up`: nothing that runs is ended before all is made that can be made beside it, so that what cannot
//! be made costs nothing that runs, be it another service's.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::Plan;
use crate::plan::step::{Action, Step, StepId};

/// Lets every stop come after the makings that need no end, no start and no wait before them.
pub(super) fn before_ends(plan: &mut Plan) {
    let mut early = BTreeSet::new();
    let mut makings = Vec::new();
    for step in &plan.steps {
        if step.action.prepares() && step.needs.iter().all(|need| early.contains(need)) {
            early.insert(step.id);
            if matches!(step.action, Action::Create(_)) {
                makings.push(step.id);
            }
        }
    }
    let mut moves = false;
    for step in &mut plan.steps {
        if matches!(step.action, Action::Stop { .. }) {
            moves |= makings.last().is_some_and(|last| *last > step.id);
            step.needs.extend(&makings);
            step.needs.sort_unstable();
            step.needs.dedup();
        }
    }
    if moves {
        sort(plan);
    }
}

impl Action {
    /// Whether a step ends nothing, starts nothing and waits for nothing.
    pub fn prepares(&self) -> bool {
        matches!(
            self,
            Self::Create(_)
                | Self::Build { .. }
                | Self::Pull { .. }
                | Self::LoadRelay { .. }
                | Self::PrepareRelay { .. }
                | Self::CreateNetwork { .. }
                | Self::UniteNetwork { .. }
                | Self::CreateVolume { .. }
        )
    }
}

/// Puts each step after what it needs, and otherwise leaves them in the order in which they were planned.
fn sort(plan: &mut Plan) {
    let mut steps: BTreeMap<StepId, Step> = std::mem::take(&mut plan.steps)
        .into_iter()
        .map(|step| (step.id, step))
        .collect();
    let mut done = BTreeSet::new();
    while let Some(id) = steps
        .values()
        .find(|step| step.needs.iter().all(|need| done.contains(need)))
        .map(|step| step.id)
    {
        done.insert(id);
        plan.steps.extend(steps.remove(&id));
    }
    // None is left: what was added needs only what needs no stop.
    plan.steps.extend(steps.into_values());
}
