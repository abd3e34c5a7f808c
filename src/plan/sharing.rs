//! Instances that follow others: those that share a namespace or volumes of a container live and end
//! with it, and `depends_on.*.restart: true` lets dependents run anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::Inputs;
use crate::plan::decide::{Decided, Decision};
use crate::plan::ends::is_left;
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
        let of_service: Vec<&Instance> = all
            .filter(|instance| {
                instance.service == name
                    && instance.backend == BackendKind::Container
                    && !instance.one_off
            })
            .collect();
        let replicas = of_service
            .iter()
            .filter(|instance| !is_left(instance, &of_service));
        replicas
            .min_by_key(|instance| &instance.name)
            .map(|instance| instance.id.0.clone())
    };
    Fingerprint(service.hash_beside(id))
}

/// Passes on what happens to an instance to those that follow it, until nothing changes any more.
pub(super) fn follow(inputs: &Inputs<'_>, all: &mut BTreeMap<String, Decided<'_>>) {
    loop {
        let project = &inputs.project.name;
        let made = Names::of(project, all, |decision| {
            matches!(decision, Decision::Create { .. })
        });
        let restarted = restarted(all);
        let started = Names::of(project, all, |decision| {
            !matches!(
                decision,
                Decision::Keep(_) | Decision::Unpause(_) | Decision::Drop(..)
            )
        });
        let mut changed = false;
        for decided in all.values_mut() {
            let service = &decided.service;
            let shares = |names: &Names| {
                let mut services = service.shares_with();
                let mut containers = service.containers_shared();
                services
                    .find(|name| names.homes.contains(*name))
                    .or_else(|| containers.find(|name| names.containers.contains(*name)))
            };
            let remade = (inputs.policy.recreate != Recreate::Never)
                .then(|| shares(&made))
                .flatten()
                .map(|name| Cause::NeededBy(format!("{name} is made anew")));
            let dependency = service
                .depends_on
                .iter()
                .find(|(name, dependency)| dependency.restart && restarted.contains(*name))
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

/// The services of which something runs anew; a replica more beside one that goes on is none.
fn restarted(all: &BTreeMap<String, Decided<'_>>) -> BTreeSet<String> {
    let runs_anew = |decided: &Decided<'_>| {
        let goes_on = |decision: &Decision<'_>| matches!(decision, Decision::Keep(_));
        let is_more = decided.decisions.iter().any(goes_on);
        decided.decisions.iter().any(|decision| match decision {
            Decision::Create { old, .. } => !(is_more && old.is_empty()),
            Decision::Restart(..) => true,
            Decision::Keep(_) | Decision::Start(_) | Decision::Unpause(_) | Decision::Drop(..) => {
                false
            }
        })
    };
    let services = all.iter().filter(|(_, decided)| runs_anew(decided));
    services.map(|(name, _)| name.clone()).collect()
}

/// The instances of which something becomes.
struct Names {
    /// The services of which it is the instance that others share.
    homes: BTreeSet<String>,
    containers: BTreeSet<String>,
}

impl Names {
    fn of(
        project: &str,
        all: &BTreeMap<String, Decided<'_>>,
        wanted: impl Fn(&Decision<'_>) -> bool,
    ) -> Self {
        let mut names = Self {
            homes: BTreeSet::new(),
            containers: BTreeSet::new(),
        };
        for (service, decided) in all {
            let named = |decision: &Decision<'_>| match decision {
                Decision::Create { number, .. } => decided.service.instance_name(project, *number),
                Decision::Keep(instance)
                | Decision::Start(instance)
                | Decision::Unpause(instance)
                | Decision::Restart(instance, _)
                | Decision::Drop(instance, _) => instance.name.clone(),
            };
            let stay = decided.decisions.iter();
            let stay = stay.filter(|decision| !matches!(decision, Decision::Drop(..)));
            // As engines are told: the first by name.
            let home = stay.map(named).min();
            for decision in decided.decisions.iter().filter(|each| wanted(each)) {
                let name = named(decision);
                if home.as_ref() == Some(&name) {
                    names.homes.insert(service.clone());
                }
                names.containers.insert(name);
            }
        }
        names
    }
}

/// A container that it shares the network of by name, where that one is not the same any more: an engine keeps the id.
pub(super) fn lost_home<'a>(
    inputs: &Inputs<'_>,
    service: &'a Service,
    instance: &Instance,
) -> Option<&'a str> {
    let name = service
        .network_mode
        .as_deref()?
        .strip_prefix("container:")?;
    let mut all = inputs.observed.instances.iter();
    let home = all.find(|other| other.name == name)?;
    let is_in = instance.shares_network_of.as_ref()?;
    (*is_in != home.id).then_some(name)
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
