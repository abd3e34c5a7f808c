//! What `up` ends, and when: what is replaced goes after its replacement is there, where both can be there at once.

use crate::naming;
use crate::plan::spec::existing;
use crate::plan::step::{Action, Cause, StepId};
use crate::plan::up::Planner;
use crate::state::{BackendKind, Instance};

impl Planner<'_> {
    /// Whether an instance can be there while the one in its place is made: a container, unless something else ends it
    /// before. Processes have one place in the ledger.
    pub(super) fn stands_aside(
        &self,
        backend: BackendKind,
        instance: &Instance,
        old: &[&Instance],
    ) -> bool {
        backend == BackendKind::Container
            && !self.removals.contains_key(&instance.id.0)
            && !is_left(instance, old)
    }

    /// Removes what is replaced, after those who run anew with it have stopped.
    pub(super) fn replaced(
        &mut self,
        service: &str,
        old: &[&Instance],
        cause: &Cause,
        needs: &[StepId],
    ) -> Vec<StepId> {
        let ended = self.end_dependents(service, old, needs);
        let needs: Vec<StepId> = needs.iter().copied().chain(ended).collect();
        let removals = old
            .iter()
            .map(|instance| self.discard(instance, cause.clone(), needs.clone()));
        removals.collect()
    }

    pub(super) fn stop(
        &mut self,
        instance: &Instance,
        cause: Cause,
        mut needs: Vec<StepId>,
    ) -> StepId {
        if let Some(step) = self.stops.get(&instance.id.0) {
            return *step;
        }
        needs.extend(&self.images);
        let stop = Action::Stop {
            instance: existing(instance),
            grace: self.inputs.policy.timeout,
        };
        let step = self.plan.add(stop, cause, needs);
        self.stops.insert(instance.id.0.clone(), step);
        step
    }

    /// Stop if it lives, then remove.
    pub(super) fn discard(
        &mut self,
        instance: &Instance,
        cause: Cause,
        mut needs: Vec<StepId>,
    ) -> StepId {
        if let Some(step) = self.removals.get(&instance.id.0) {
            return *step;
        }
        if let Some(stop) = self.stops.get(&instance.id.0) {
            // It was planned for another reason, and so did not wait for this.
            needs.push(*stop);
        } else if instance.status.is_alive() {
            needs = vec![self.stop(instance, cause.clone(), needs)];
        } else {
            needs.extend(&self.images);
        }
        let remove = Action::Remove {
            instance: existing(instance),
            volumes: false,
        };
        let step = self.plan.add(remove, cause, needs);
        self.removals.insert(instance.id.0.clone(), step);
        step
    }
}

/// Whether a container still waits for the name of another one that is there: it is no replica, and has the name under
/// which a replacement would wait.
pub(super) fn is_left(instance: &Instance, all: &[&Instance]) -> bool {
    naming::is_left(&instance.name, all.iter().map(|other| other.name.as_str()))
}
