//! Instances that follow others: those that share a namespace or volumes of a container live and end
//! with it, and `depends_on.*.restart: true` lets dependents run anew.

use std::collections::BTreeMap;

use crate::plan::Inputs;
use crate::plan::decide::{Decided, Decision};
use crate::plan::policy::Recreate;
use crate::plan::step::{Cause, StepId};
use crate::plan::up::Planner;
use crate::project::model::Service;
use crate::state::{BackendKind, Fingerprint, Instance};

/// The hash of a container, by the containers that it shares something of.
pub(super) fn hash_beside(inputs: &Inputs<'_>, service: &Service) -> Fingerprint {
    let id = |name: &str| {
        // A local service's network namespace is its relay's.
        let all = inputs.observed.instances.iter().chain(&inputs.observed.own);
        let of_service = all.filter(|instance| {
            instance.service == name
                && instance.backend == BackendKind::Container
                && !instance.one_off
        });
        of_service
            .min_by_key(|instance| &instance.name)
            .map(|instance| instance.id.0.clone())
    };
    Fingerprint(service.hash_beside(id))
}

/// Passes on what happens to an instance to those that follow it, until nothing changes any more.
pub(super) fn follow(inputs: &Inputs<'_>, all: &mut BTreeMap<String, Decided<'_>>) {
    loop {
        let made: Vec<String> = names(all, |decision| matches!(decision, Decision::Create { .. }));
        let restarted: Vec<String> = names(all, |decision| {
            matches!(decision, Decision::Create { .. } | Decision::Restart(..))
        });
        let started: Vec<String> = names(all, |decision| {
            !matches!(
                decision,
                Decision::Keep(_) | Decision::Unpause(_) | Decision::Drop(..)
            )
        });
        let mut changed = false;
        for decided in all.values_mut() {
            let service = &decided.service;
            let shares = |names: &[String]| {
                let mut shared = service.shares_with();
                shared.find(|name| names.iter().any(|other| other == name))
            };
            let remade = (inputs.policy.recreate != Recreate::Never)
                .then(|| shares(&made))
                .flatten()
                .map(|name| Cause::NeededBy(format!("{name} is made anew")));
            let dependency = service
                .depends_on
                .iter()
                .find(|(name, dependency)| dependency.restart && restarted.contains(name))
                .map(|(name, _)| name.as_str());
            // A namespace ends with the container that it belongs to.
            let rerun = dependency
                .or_else(|| shares(&started))
                .map(|name| Cause::NeededBy(format!("{name} runs anew")));
            for decision in &mut decided.decisions {
                let next = match (&*decision, &remade, &rerun) {
                    (
                        Decision::Keep(instance)
                        | Decision::Unpause(instance)
                        | Decision::Start(instance)
                        | Decision::Restart(instance, _),
                        Some(cause),
                        _,
                    ) => Decision::Create {
                        number: instance.number,
                        old: vec![instance],
                        cause: cause.clone(),
                    },
                    (Decision::Keep(instance) | Decision::Unpause(instance), None, Some(cause)) => {
                        Decision::Restart(instance, cause.clone())
                    }
                    _ => continue,
                };
                *decision = next;
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

fn names(
    all: &BTreeMap<String, Decided<'_>>,
    wanted: impl Fn(&Decision<'_>) -> bool,
) -> Vec<String> {
    all.iter()
        .filter(|(_, decided)| decided.decisions.iter().any(&wanted))
        .map(|(name, _)| name.clone())
        .collect()
}

impl Planner<'_> {
    /// Stops who runs anew with a service (`restart: true`) before the service's own instances go.
    pub(super) fn end_dependents(
        &mut self,
        service: &str,
        old: &[&Instance],
        needs: &[StepId],
    ) -> Vec<StepId> {
        if !old.iter().any(|instance| instance.status.is_alive()) {
            return Vec::new();
        }
        let decided = self.decided;
        let mut stops = Vec::new();
        for (name, dependent) in decided {
            let follows = dependent
                .service
                .depends_on
                .get(service)
                .is_some_and(|dependency| dependency.restart);
            if !follows || name == service {
                continue;
            }
            for decision in &dependent.decisions {
                let ending: Vec<(&Instance, Cause)> = match decision {
                    Decision::Restart(instance, cause) => vec![(*instance, cause.clone())],
                    Decision::Create { old, cause, .. } => {
                        old.iter().map(|old| (*old, cause.clone())).collect()
                    }
                    Decision::Keep(_)
                    | Decision::Unpause(_)
                    | Decision::Start(_)
                    | Decision::Drop(..) => Vec::new(),
                };
                for (instance, cause) in ending {
                    if instance.status.is_alive() {
                        stops.push(self.stop(instance, cause, needs.to_vec()));
                    }
                }
            }
        }
        stops
    }
}
