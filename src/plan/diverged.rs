//! Networks and volumes that were made from another configuration than the file has now.
//!
//! A network is made anew: its containers go first and are made again. A volume holds data, so it is
//! kept unless the policy says otherwise.

use std::collections::BTreeSet;

use crate::naming::Role;
use crate::plan::decide::Decision;
use crate::plan::policy::Recreate;
use crate::plan::step::{Action, Cause, StepId};
use crate::plan::up::Planner;
use crate::plan::{Inputs, Plan, Problem};
use crate::project::model::{MountKind, Service};
use crate::state::BackendKind;

/// Whether a network, by its key, is to be made anew.
fn network_diverged(inputs: &Inputs<'_>, key: &str) -> bool {
    let Some(network) = inputs.project.networks.get(key) else {
        return false;
    };
    let recorded = inputs.observed.network_hashes.get(&network.name);
    !network.external
        && inputs.policy.recreate != Recreate::Never
        && recorded.is_some_and(|hash| !hash.is_empty() && *hash != network.config_hash())
}

/// Whether a volume, by its key, differs from what the file says.
fn volume_differs(inputs: &Inputs<'_>, key: &str) -> bool {
    let Some(volume) = inputs.project.volumes.get(key) else {
        return false;
    };
    let recorded = inputs.observed.volume_hashes.get(&volume.name);
    !volume.external
        && recorded.is_some_and(|hash| !hash.is_empty() && *hash != volume.config_hash())
}

/// The networks and volumes that are to be made anew, by key.
pub(super) struct Diverged<'a> {
    networks: BTreeSet<&'a str>,
    volumes: BTreeSet<&'a str>,
}

impl<'a> Diverged<'a> {
    pub(super) fn of(inputs: &Inputs<'a>) -> Self {
        let networks = inputs.project.networks.keys();
        let volumes = inputs.project.volumes.keys();
        Self {
            networks: networks
                .map(String::as_str)
                .filter(|key| network_diverged(inputs, key))
                .collect(),
            volumes: volumes
                .map(String::as_str)
                .filter(|key| inputs.policy.renew_diverged && volume_differs(inputs, key))
                .collect(),
        }
    }

    /// The first that a service uses, and why it is made anew.
    pub(super) fn used_by(&self, service: &Service) -> Option<String> {
        let mut networks = service.networks.keys();
        let network = networks
            .find(|key| self.networks.contains(key.as_str()))
            .map(|key| format!("network {key}, which changed"));
        network.or_else(|| {
            named_volumes(service)
                .find(|key| self.volumes.contains(key.as_str()))
                .map(|key| format!("volume {key}, which changed"))
        })
    }
}

/// The keys of the named volumes that a service mounts.
pub(super) fn named_volumes(service: &Service) -> impl Iterator<Item = &String> {
    service
        .volumes
        .iter()
        .filter_map(|mount| match &mount.kind {
            MountKind::Volume { source, .. } => source.as_ref(),
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } | MountKind::Image { .. } => None,
        })
}

impl Planner<'_> {
    /// Plans the end of what diverged and what takes its place, before anything else.
    pub(super) fn diverged(&mut self) {
        let inputs = self.inputs;
        for (key, network) in &inputs.project.networks {
            let uses = |service: &Service| service.networks.contains_key(key);
            if !network_diverged(inputs, key) || !self.is_used(uses) {
                continue;
            }
            let mut removals = self.end_users(uses);
            removals.extend(self.end_relays(uses));
            let remove = Action::RemoveNetwork {
                name: network.name.clone(),
                project: self.project.name.clone(),
            };
            let removed = self.plan.add(remove, Cause::ConfigChanged, removals);
            let create = Action::CreateNetwork {
                network: std::sync::Arc::clone(network),
                project: std::sync::Arc::clone(&self.project),
            };
            let created = self.plan.add(create, Cause::ConfigChanged, vec![removed]);
            self.shared.networks.insert(key.clone(), Some(created));
        }
        for (key, volume) in &inputs.project.volumes {
            let uses = |service: &Service| named_volumes(service).any(|other| other == key);
            if !volume_differs(inputs, key) || !self.is_used(uses) {
                continue;
            }
            if !inputs.policy.renew_diverged {
                self.plan.diverged_volumes.push(volume.name.clone());
                continue;
            }
            let removals = self.end_users(uses);
            let remove = Action::RemoveVolume {
                name: volume.name.clone(),
            };
            let removed = self.plan.add(remove, Cause::ConfigChanged, removals);
            let create = Action::CreateVolume {
                volume: std::sync::Arc::clone(volume),
                project: std::sync::Arc::clone(&self.project),
            };
            let created = self.plan.add(create, Cause::ConfigChanged, vec![removed]);
            self.shared.volumes.insert(key.clone(), Some(created));
        }
    }

    /// Plans that the names of networks say which network is meant.
    pub(super) fn doubled(&mut self) {
        let inputs = self.inputs;
        for (key, network) in &inputs.project.networks {
            let uses = |service: &Service| service.networks.contains_key(key);
            let Some(foreign) = inputs.observed.doubled_networks.get(&network.name) else {
                continue;
            };
            if !self.is_used(uses) {
                continue;
            }
            if foreign.is_empty() && !network.external {
                // One that changed is made anew: all of its name go.
                if self.shared.networks.contains_key(key) {
                    continue;
                }
                let unite = Action::UniteNetwork {
                    name: network.name.clone(),
                    project: self.project.name.clone(),
                };
                let united = self.plan.add(unite, Cause::Doubled, Vec::new());
                self.shared.networks.insert(key.clone(), Some(united));
            } else {
                self.plan.problems.push(Problem {
                    message: format!("there are several networks named {}", network.name),
                    hint: Some(format!(
                        "remove all but one by id, of those that others made: docker network rm {}",
                        foreign.join(" ")
                    )),
                });
            }
        }
    }

    /// By containers, or by relays of local services.
    fn is_used(&self, uses: impl Fn(&Service) -> bool) -> bool {
        let mut all = self.decided.values();
        all.any(|decided| {
            let in_engine = decided.backend == BackendKind::Container
                || self.links.relays.contains(&decided.service.name);
            in_engine && uses(&decided.service)
        })
    }

    /// Removes the relays of services that use something.
    fn end_relays(&mut self, uses: impl Fn(&Service) -> bool) -> Vec<StepId> {
        let inputs = self.inputs;
        let mut removals = Vec::new();
        for instance in &inputs.observed.own {
            let service = inputs.project.services.get(&instance.service);
            if instance.role() == Some(Role::Relay) && service.is_some_and(|service| uses(service))
            {
                removals.push(self.discard(instance, Cause::ConfigChanged, Vec::new()));
            }
        }
        removals
    }

    /// Removes the containers of services that use something, after their images are there.
    fn end_users(&mut self, uses: impl Fn(&Service) -> bool) -> Vec<StepId> {
        let decided = self.decided;
        let mut removals = Vec::new();
        for decided in decided.values() {
            if decided.backend != BackendKind::Container || !uses(&decided.service) {
                continue;
            }
            let image =
                self.shared
                    .image(&mut self.plan, self.inputs, &self.project, &decided.service);
            for decision in &decided.decisions {
                let (old, cause) = match decision {
                    Decision::Create { old, cause, .. } => (old.clone(), cause.clone()),
                    Decision::Drop(instance, cause) => (vec![*instance], cause.clone()),
                    Decision::Keep(_)
                    | Decision::Unpause(_)
                    | Decision::Start(_)
                    | Decision::Restart(..) => continue,
                };
                for instance in old {
                    let step = self.discard(instance, cause.clone(), image.into_iter().collect());
                    removals.push(step);
                }
            }
        }
        removals
    }
}

/// What to say of volumes that are kept although they differ.
pub(super) fn said(plan: &Plan) -> Option<String> {
    let names = plan.diverged_volumes.join(", ");
    (!names.is_empty()).then(|| {
        format!(
            "made from another configuration and kept: volume {names} (--yes makes it anew, and its \
             data is lost)"
        )
    })
}
