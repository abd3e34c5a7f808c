//! A backend that keeps its instances in memory: the planner's tests execute plans on it, observe, and
//! plan again.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backend::{Backend, BackendError, LogOptions, Made};
use crate::event::Events;
use crate::naming::Role;
use crate::plan::step::{Action, InstanceSpec, Step, Target, Which};
use crate::state::{Fingerprint, Instance, InstanceId, Observed, Publisher, Status};

/// The world in memory.
#[derive(Debug, Default)]
pub struct Fake {
    world: Mutex<World>,
}

#[derive(Debug, Default)]
struct World {
    observed: Observed,
    performed: Vec<String>,
    failing: BTreeSet<String>,
    made: u32,
}

impl Fake {
    /// A world in which this exists.
    pub fn new(observed: Observed) -> Self {
        // Ids go on after those that were made before.
        let all = observed.instances.iter().chain(&observed.own);
        let made = all
            .filter_map(|instance| u32::from_str_radix(&instance.id.0, 16).ok())
            .max();
        let world = World {
            observed,
            made: made.unwrap_or_default(),
            ..World::default()
        };
        Self {
            world: Mutex::new(world),
        }
    }

    /// Makes every step fail whose text is this.
    pub fn fail(&self, step: impl Into<String>) {
        self.world().failing.insert(step.into());
    }

    /// What exists now.
    pub fn observed(&self) -> Observed {
        self.world().observed.clone()
    }

    /// The texts of the steps performed so far, in order.
    pub fn performed(&self) -> Vec<String> {
        self.world().performed.clone()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Fake {
    async fn observe(&self, _: &str) -> Result<Vec<Instance>, BackendError> {
        Ok(self.world().observed.instances.clone())
    }

    async fn perform(
        &self,
        step: &Step,
        made: &Made,
        _: &Events,
    ) -> Result<Option<InstanceId>, BackendError> {
        let mut world = self.world();
        let text = step.action.to_string();
        if world.failing.contains(&text) {
            return Err(BackendError::Unsupported(format!(
                "{text} was made to fail"
            )));
        }
        world.performed.push(text);
        Ok(world.apply(&step.action, made))
    }

    async fn follow(&self, _: &[Instance], _: &LogOptions, _: &Events) -> Result<(), BackendError> {
        Ok(())
    }
}

impl World {
    fn apply(&mut self, action: &Action, made: &Made) -> Option<InstanceId> {
        match action {
            Action::FreePort { claim, .. } => {
                self.observed.held.retain(|held| held.claim != *claim);
            }
            Action::Build { image, .. }
            | Action::Pull { image, .. }
            | Action::LoadRelay { image } => {
                self.observed
                    .images
                    .insert(image.clone(), format!("sha256:{image}"));
            }
            Action::CreateNetwork { network, .. } => {
                self.observed.networks.insert(network.name.clone());
                let hash = network.config_hash();
                self.observed
                    .network_hashes
                    .insert(network.name.clone(), hash);
            }
            Action::CreateVolume { volume, .. } => {
                self.observed.volumes.insert(volume.name.clone());
                let hash = volume.config_hash();
                self.observed
                    .volume_hashes
                    .insert(volume.name.clone(), hash);
            }
            Action::Create(spec) => return Some(self.create(spec)),
            Action::Start { instance } | Action::Unpause { instance } => {
                self.set(instance, made, Status::Running);
            }
            Action::Stop { instance, .. } => {
                self.set(instance, made, Status::Exited { code: 143 });
            }
            Action::Kill { instance, .. } => {
                self.set(instance, made, Status::Exited { code: 137 });
            }
            Action::Pause { instance } => self.set(instance, made, Status::Paused),
            Action::Remove { instance, .. } => {
                let id = resolve(instance, made);
                for list in [&mut self.observed.instances, &mut self.observed.own] {
                    list.retain(|other| Some(&other.id) != id.as_ref());
                }
            }
            Action::UniteNetwork { name, .. } => {
                self.observed.doubled_networks.remove(name);
            }
            Action::RemoveNetwork { name, .. } => drop(self.observed.networks.remove(name)),
            Action::RemoveVolume { name } => drop(self.observed.volumes.remove(name)),
            Action::RemoveImage { name } => drop(self.observed.images.remove(name)),
            Action::MovePort { .. }
            | Action::Provide { .. }
            | Action::PrepareRelay { .. }
            | Action::WriteStores { .. }
            | Action::PreStart { .. }
            | Action::AwaitReachable { .. }
            | Action::AwaitReady { .. }
            | Action::AwaitListening { .. }
            | Action::AwaitHealthy { .. }
            | Action::AwaitCompleted { .. } => {}
        }
        None
    }

    fn create(&mut self, spec: &InstanceSpec) -> InstanceId {
        self.made += 1;
        let id = InstanceId(format!("{:064x}", self.made));
        let fingerprint = self.fingerprint(spec);
        let own = Role::of(&spec.service.labels).is_some();
        let list = if own {
            &mut self.observed.own
        } else {
            &mut self.observed.instances
        };
        list.push(Instance {
            id: id.clone(),
            name: spec.name.clone(),
            project: spec.project.name.clone(),
            service: spec.service.name.clone(),
            number: spec.number,
            backend: spec.backend,
            fingerprint: Some(fingerprint),
            status: Status::Created,
            health: None,
            pid: None,
            image: spec.image.clone(),
            command: spec.service.command.clone().unwrap_or_default(),
            created: 0,
            started: None,
            finished: None,
            publishers: spec
                .ports
                .iter()
                .map(|port| Publisher {
                    ip: port.addresses.first().copied(),
                    target: port.target,
                    published: port.published.unwrap_or_default(),
                    protocol: port.protocol,
                })
                .collect(),
            asked_ports: Vec::new(),
            last_code: None,
            survivors: None,
            ending: false,
            labels: spec.service.labels.clone(),
            networks: spec
                .networks
                .iter()
                .map(|network| network.network.clone())
                .collect(),
            shares_network_of: None,
            volumes: spec.volumes.values().cloned().collect(),
            one_off: false,
            stop_grace: None,
            readiness: spec.readiness.clone(),
        });
        id
    }

    /// What an instance is made from, by the containers that it shares something of.
    fn fingerprint(&self, spec: &InstanceSpec) -> Fingerprint {
        if spec.service.shared_form.is_none() {
            return spec.fingerprint.clone();
        }
        let hash = spec.service.hash_beside(|service| {
            let all = self.observed.instances.iter();
            let of_service = all.chain(&self.observed.own);
            let mut ids: Vec<_> = of_service
                .filter(|instance| instance.service == service)
                .map(|instance| (&instance.name, &instance.id.0))
                .collect();
            ids.sort();
            ids.first().map(|(_, id)| (*id).clone())
        });
        Fingerprint(hash)
    }

    fn set(&mut self, target: &Target, made: &Made, status: Status) {
        let id = resolve(target, made);
        let all = self.observed.instances.iter_mut();
        for instance in all.chain(&mut self.observed.own) {
            if Some(&instance.id) == id.as_ref() {
                instance.status = status;
            }
        }
    }
}

fn resolve(target: &Target, made: &Made) -> Option<InstanceId> {
    match &target.which {
        Which::Existing(id) => Some(id.clone()),
        Which::MadeBy(step) => made.get(*step),
    }
}
