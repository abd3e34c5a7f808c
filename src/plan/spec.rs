//! The specification of one instance: everything settled, nothing left to choose.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::naming::Names;
use crate::plan::Inputs;
use crate::plan::decide::Decided;
use crate::plan::own_ports::checked_where_it_listens;
use crate::plan::ports::{readiness, variables};
use crate::plan::step::{
    Attachment, InstanceSpec, ProjectIdentity, SettledPort, Stores, Target, Which,
};
use crate::project::model::{Project, SOCKET_CONFIG, Service, Store, StoreMount, StoreSource};
use crate::state::{BackendKind, Instance};

/// Specifies a replica with settled ports. `moved` are the variables of dependencies whose ports moved,
/// `old` the instance whose place it takes.
pub(super) fn specify(
    inputs: &Inputs<'_>,
    identity: &Arc<ProjectIdentity>,
    decided: &Decided<'_>,
    number: u32,
    ports: Vec<SettledPort>,
    moved: impl Iterator<Item = (String, String)>,
    old: Option<&Instance>,
) -> InstanceSpec {
    let (project, service) = (inputs.project, &decided.service);
    let name = service.instance_name(&project.name, number);
    let is_container = decided.backend == BackendKind::Container;
    let once = inputs.policy.once.as_ref();
    let one_off = once
        .filter(|once| number == 0 && once.service.name == service.name)
        .map(|once| once.one_off.clone());
    let anonymous = one_off.as_ref().is_some_and(|one_off| !one_off.aliases);
    let mut environment = if is_container {
        BTreeMap::new()
    } else {
        variables(&ports)
    };
    environment.extend(moved);
    InstanceSpec {
        project: Arc::clone(identity),
        service: if is_container {
            Arc::clone(service)
        } else {
            checked_where_it_listens(service, &ports)
        },
        backend: decided.backend,
        number,
        fingerprint: decided.fingerprint.clone(),
        image: if is_container {
            service.image_name(&project.name)
        } else {
            String::new()
        },
        readiness: readiness(service, &ports),
        ports,
        environment,
        networks: attachments(project, service, &name, anonymous),
        volumes: project
            .volumes
            .iter()
            .map(|(key, volume)| (key.clone(), volume.name.clone()))
            .collect(),
        secrets: mounted(&project.secrets, &service.secrets),
        configs: mounted(&project.configs, &service.configs),
        replaces: old
            .filter(|old| old.backend == decided.backend)
            .map(|old| old.id.clone()),
        inherits: !inputs.policy.renew_volumes,
        one_off,
        names: Names::default(),
        name,
    }
}

/// What is to be written into a container of the service before it runs for the first time; Docker Compose does it
/// when it starts one.
pub(crate) fn stores(project: &Project, service: &Arc<Service>) -> Option<Stores> {
    let stores = Stores {
        service: Arc::clone(service),
        secrets: mounted(&project.secrets, &service.secrets),
        configs: mounted(&project.configs, &service.configs),
    };
    let mut all = stores.secrets.values().chain(stores.configs.values());
    let is_written = |store: &Arc<Store>| !matches!(store.source, StoreSource::File(_));
    let has_socket = service
        .configs
        .iter()
        .any(|mount| mount.source == SOCKET_CONFIG);
    (has_socket || all.any(is_written)).then_some(stores)
}

/// The secrets or configs that a service mounts.
pub(super) fn mounted(
    all: &BTreeMap<String, Arc<Store>>,
    mounts: &[StoreMount],
) -> BTreeMap<String, Arc<Store>> {
    let named = mounts
        .iter()
        .filter_map(|mount| all.get_key_value(&mount.source));
    named
        .map(|(key, store)| (key.clone(), Arc::clone(store)))
        .collect()
}

/// The networks to join, highest priority first, then by name. An `anonymous` instance has no name there
/// but its own.
pub(super) fn attachments(
    project: &Project,
    service: &Service,
    name: &str,
    anonymous: bool,
) -> Vec<Attachment> {
    let mut joined: Vec<_> = service.networks.iter().collect();
    joined.sort_by_key(|(key, place)| (std::cmp::Reverse(place.priority), (*key).clone()));
    joined
        .into_iter()
        .filter_map(|(key, place)| {
            let network = project.networks.get(key)?;
            let mut aliases = vec![name.to_owned()];
            if !anonymous {
                aliases.push(service.name.clone());
                aliases.extend(place.aliases.iter().cloned());
            }
            Some(Attachment {
                key: key.clone(),
                network: network.name.clone(),
                aliases,
            })
        })
        .collect()
}

/// The ports an instance was made with.
pub(super) fn recorded_ports(service: &Service, instance: &Instance) -> Vec<SettledPort> {
    let mut ports = Vec::new();
    for publisher in &instance.publishers {
        let declared = service
            .ports
            .iter()
            .find(|port| port.target == publisher.target);
        ports.push(SettledPort {
            target: publisher.target,
            published: (publisher.published != 0).then_some(publisher.published),
            addresses: publisher.ip.into_iter().collect(),
            protocol: publisher.protocol,
            app_protocol: declared.and_then(|port| port.app_protocol.clone()),
        });
    }
    ports
}

/// What is written on everything the project makes.
pub(super) fn identity(project: &Project) -> Arc<ProjectIdentity> {
    Arc::new(ProjectIdentity {
        name: project.name.clone(),
        working_dir: project.directory.clone(),
        config_files: project.files.clone(),
        env_files: project.env_files.clone(),
    })
}

/// An instance that exists, as a target.
pub(super) fn existing(instance: &Instance) -> Target {
    Target {
        backend: instance.backend,
        project: instance.project.clone(),
        service: instance.service.clone(),
        name: instance.name.clone(),
        which: Which::Existing(instance.id.clone()),
        role: instance.role(),
    }
}
