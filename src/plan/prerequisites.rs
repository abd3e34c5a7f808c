//! What comes before any instance is ended or made: the images of all that is made anew, and what providers
//! tell.

use std::sync::Arc;

use crate::plan::decide::{Decided, Decision};
use crate::plan::step::{Action, Cause, Provision};
use crate::plan::up::Planner;
use crate::state::BackendKind;

impl Planner<'_> {
    /// Plans all images first where instances are replaced: an image that cannot be had must not cost an
    /// instance that runs, be it another service's.
    pub(super) fn images(&mut self) {
        let creates = |decision: &Decision<'_>| matches!(decision, Decision::Create { .. });
        let replaces = |decision: &Decision<'_>| match decision {
            Decision::Create { old, .. } => !old.is_empty(),
            Decision::Drop(..) | Decision::Restart(..) => true,
            Decision::Keep(_) | Decision::Start(_) | Decision::Unpause(_) => false,
        };
        let all = self.decided;
        let mut decisions = all.values().flat_map(|decided| &decided.decisions);
        if !decisions.any(replaces) {
            return;
        }
        for decided in all.values() {
            if decided.backend == BackendKind::Container && decided.decisions.iter().any(creates) {
                let (inputs, service) = (self.inputs, &decided.service);
                let steps = self
                    .shared
                    .images(&mut self.plan, inputs, &self.project, service);
                self.images.extend(steps);
            }
        }
    }

    /// Has the provider of a service bring it up, after what it depends on.
    pub(super) fn provide(&mut self, decided: &Decided<'_>) {
        let service = &decided.service;
        let is_due =
            service.provider.is_some() && !self.inputs.policy.provided.contains(&service.name);
        if !is_due {
            return;
        }
        let needs = self.gates(service, BackendKind::Process);
        let provide = Action::Provide {
            service: Arc::clone(service),
            project: self.project.name.clone(),
            what: Provision::Up,
        };
        let step = self.plan.add(provide, Cause::Requested("provider"), needs);
        self.provided.insert(service.name.clone(), step);
    }
}
