//! The specifications of wharf's own instances: a relay and the forwarder, as services that no file declares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::hostname;
use crate::naming::{FORWARDER, Names, ROLE, Reach, Role, forwarder_name};
use crate::plan::Inputs;
use crate::plan::decide::digest;
use crate::plan::spec::attachments;
use crate::plan::step::{InstanceSpec, ProjectIdentity};
use crate::project::model::{Logging, Mount, MountKind, Project, Restart, Service};
use crate::state::{BackendKind, Fingerprint, Instance};

/// Where the directory of a relay is mounted.
const MOUNTED: &str = "/run/wharf";

/// Which engine a forwarder asks; not on one that asks none.
const ENGINE: &str = "wharf.engine";

/// Where commands meet the forwarder: one that listens elsewhere is replaced.
const LISTENS: &str = "names.sock";

/// They have nothing to save.
const GRACE: Duration = Duration::from_secs(2);

/// The relay of a local service with these instances.
pub(in crate::plan) fn relay(
    inputs: &Inputs<'_>,
    identity: &Arc<ProjectIdentity>,
    service: &Service,
    instances: &BTreeSet<String>,
) -> InstanceSpec {
    let (project, linkage) = (inputs.project, &inputs.observed.linkage);
    let name = relay_name(project, &service.name);
    let (uid, gid) = linkage.user;
    let reach = linkage.reach.unwrap_or(Reach::Stream);
    let (command, volumes) = match reach {
        Reach::Socket => (
            vec![
                "relay".to_owned(),
                "--socket".to_owned(),
                format!("{MOUNTED}/socket"),
            ],
            vec![Mount {
                kind: MountKind::Bind {
                    source: linkage.relays.join(&service.name),
                    create_host_path: false,
                    propagation: None,
                    selinux: None,
                    recursive: None,
                },
                target: MOUNTED.to_owned(),
                read_only: false,
                consistency: None,
            }],
        ),
        Reach::Stream => (vec!["relay".to_owned(), "--idle".to_owned()], Vec::new()),
    };
    let mut networks = attachments(project, service, &name, false);
    let first = service.instance_name(&project.name, 1);
    for place in &mut networks {
        place.aliases.push(first.clone());
        place
            .aliases
            .extend(hostname(project, service).map(str::to_owned));
    }
    // Without the names of further replicas: to make it anew for them would end the connections of all.
    let made_from = format!(
        "{} {} {reach:?} {uid} {gid} {:?} {networks:?}",
        env!("CARGO_PKG_VERSION"),
        linkage.relay_image,
        service.networks
    );
    for place in &mut networks {
        let new = |name: &&String| !place.aliases.contains(*name);
        let instances: Vec<String> = instances.iter().filter(new).cloned().collect();
        place.aliases.extend(instances);
    }
    let relay = Service {
        name: service.name.clone(),
        place: service.place.clone(),
        image: Some(linkage.relay_image.clone()),
        command: Some(command),
        networks: service.networks.clone(),
        volumes,
        user: Some(format!("{uid}:{gid}")),
        labels: BTreeMap::from([(ROLE.to_owned(), Role::Relay.word().to_owned())]),
        read_only: true,
        cap_drop: vec!["ALL".to_owned()],
        // The directory is in a home or a state directory, whose label no container may touch.
        security_opt: vec![
            "no-new-privileges:true".to_owned(),
            "label=disable".to_owned(),
        ],
        logging: Some(Logging {
            driver: Some("none".to_owned()),
            options: BTreeMap::new(),
        }),
        // Also after a restart of the engine, which ends it in good order: the processes it stands for live on.
        restart: Restart::UnlessStopped,
        restart_given: true,
        stop_grace_period: Some(GRACE),
        mac_address: service.mac_address.clone(),
        separator: service.separator,
        ..Service::default()
    };
    InstanceSpec {
        image: linkage.relay_image.clone(),
        networks,
        ..own(
            identity,
            relay,
            BackendKind::Container,
            name,
            digest([made_from.as_str()]),
        )
    }
}

/// The project's forwarder; `engine`: it asks the engine.
pub(in crate::plan) fn forwarder(
    inputs: &Inputs<'_>,
    identity: &Arc<ProjectIdentity>,
    engine: bool,
) -> InstanceSpec {
    let linkage = &inputs.observed.linkage;
    let mut command = ["wharf", "forward", "--project", &inputs.project.name]
        .map(str::to_owned)
        .to_vec();
    let mut labels = BTreeMap::from([(ROLE.to_owned(), Role::Forwarder.word().to_owned())]);
    if engine {
        command.push("--engine".to_owned());
        if linkage.reach == Some(Reach::Stream) {
            command.extend(["--reach", "stream"].map(str::to_owned));
        }
        labels.insert(ENGINE.to_owned(), engine_word(inputs));
    }
    let service = Service {
        name: FORWARDER.to_owned(),
        command: Some(command),
        labels,
        // The project's directory may go while it runs.
        working_dir: Some("/".to_owned()),
        // It ends with code 0 when nobody needs it any more.
        restart: Restart::OnFailure(None),
        restart_given: true,
        stop_grace_period: Some(GRACE),
        logging: Some(Logging {
            driver: None,
            options: BTreeMap::from(
                [("max-size", "1m"), ("max-file", "2")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned())),
            ),
        }),
        ..Service::default()
    };
    own(
        identity,
        service,
        BackendKind::Process,
        forwarder_name(&inputs.project.name),
        // What it asks is compared by its label: one that asks the engine serves those that do not need it.
        digest([env!("CARGO_PKG_VERSION"), LISTENS]),
    )
}

/// The one instance of a service of wharf's own, with nothing to it but the service.
fn own(
    identity: &Arc<ProjectIdentity>,
    service: Service,
    backend: BackendKind,
    name: String,
    fingerprint: Fingerprint,
) -> InstanceSpec {
    InstanceSpec {
        project: Arc::clone(identity),
        service: Arc::new(service),
        backend,
        name,
        number: 1,
        fingerprint,
        image: String::new(),
        ports: Vec::new(),
        environment: BTreeMap::new(),
        networks: Vec::new(),
        volumes: BTreeMap::new(),
        secrets: BTreeMap::new(),
        configs: BTreeMap::new(),
        replaces: None,
        inherits: false,
        readiness: None,
        one_off: None,
        names: Names::default(),
    }
}

/// Whether a forwarder that exists will do.
pub(in crate::plan) fn serves(instance: &Instance, spec: &InstanceSpec) -> bool {
    let wanted = spec.service.labels.get(ENGINE);
    instance.fingerprint.as_ref() == Some(&spec.fingerprint)
        && (wanted.is_none() || instance.labels.get(ENGINE) == wanted)
}

fn engine_word(inputs: &Inputs<'_>) -> String {
    let linkage = &inputs.observed.linkage;
    format!("{} {:?}", linkage.endpoint, linkage.reach)
}

/// `P-service-wharf-relay-1`: no replica of any likely service is called so.
fn relay_name(project: &Project, service: &str) -> String {
    format!("{}-{service}-wharf-relay-1", project.name)
}
