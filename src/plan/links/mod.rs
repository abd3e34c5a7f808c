//! What services that run as processes need to be found by name, and to find others: relays, the forwarder, and
//! the names themselves (docs/design/networking.md). Pure.

pub(super) mod along;
mod own;
mod pairs;
mod rewrite;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::naming::{Names, Place, Reach, Way, loopback_addresses, moved};
use crate::plan::Inputs;
use crate::plan::decide::{Decided, Decision};
use crate::plan::placement::{Placement, in_form};
use crate::plan::ports::{exposed_as, needs, variables};
use crate::plan::step::Attachment;
use crate::port::claim::Protocol;
use crate::project::model::{Project, Service};
use crate::state::BackendKind;

pub use rewrite::Rewritten;
use rewrite::{Mentioned, Outcome, rewrite};

/// What a project needs of relays and forwarder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    /// Some local service shares a network with another service.
    pub forwarder: bool,
    /// Local services that containers are to find by name.
    pub relays: BTreeSet<String>,
    /// What loopback addresses are made from, and those that are others.
    scope: String,
    addresses: BTreeMap<String, Ipv4Addr>,
    /// By service, the ports that it cannot be reached on at a loopback address.
    forbidden: BTreeMap<String, Vec<u16>>,
}

impl Links {
    /// By where each service runs. A service without replicas takes no part.
    pub(super) fn of(inputs: &Inputs<'_>, decided: &BTreeMap<String, Decided<'_>>) -> Self {
        let runs = |decided: &Decided<'_>| {
            let mut decisions = decided.decisions.iter();
            decisions.any(|decision| !matches!(decision, Decision::Drop(..)))
        };
        let once = inputs.policy.once.as_ref();
        let mut links = Self::default();
        for local in decided.values() {
            if local.backend != BackendKind::Process || !runs(local) {
                continue;
            }
            if !has_others(inputs.project, &local.service) {
                continue;
            }
            links.forwarder = true;
            let is_once = once.is_some_and(|once| once.service.name == local.service.name);
            if !is_once && meets_containers(inputs, &local.service) {
                links.relays.insert(local.service.name.clone());
            }
        }
        if links.forwarder {
            links.scope = scope(inputs);
            links.addresses = moved(&links.scope, &addresses(inputs));
            links.forbidden = links.forbidden(inputs);
        }
        links
    }

    /// What goes into the ledger entry of a local instance.
    pub(super) fn names(
        &self,
        inputs: &Inputs<'_>,
        service: &Service,
        places: &[Attachment],
        way: Way,
    ) -> Names {
        if !self.forwarder {
            return Names::default();
        }
        let hostname = hostname(inputs.project, service);
        Names {
            way,
            hosts: None,
            places: places
                .iter()
                .map(|place| Place {
                    network: place.network.clone(),
                    aliases: {
                        let aliases = place.aliases.iter().map(String::as_str);
                        aliases.chain(hostname).map(str::to_owned).collect()
                    },
                })
                .collect(),
            exposed: exposed(service),
            scope: self.scope.clone(),
            addresses: self.addresses.clone(),
            forwards: Vec::new(),
            links: aliased(service)
                .map(|(alias, service)| (alias.to_owned(), service.to_owned()))
                .collect(),
            extra: extra_hosts(service),
        }
    }

    /// The ports of others that a local service with a hosts file would reach at a loopback address, where this user
    /// may not listen on them.
    fn refused(&self, inputs: &Inputs<'_>, service: &Service) -> BTreeSet<(String, u16)> {
        let mut refused = BTreeSet::new();
        for (name, ports) in &self.forbidden {
            let other = inputs.project.services.get(name);
            if other.is_some_and(|other| is_neighbour(service, other)) {
                refused.extend(ports.iter().map(|port| (name.clone(), *port)));
            }
        }
        refused
    }

    /// By service, the ports that this user may not listen on and others would reach at a loopback address.
    fn forbidden(&self, inputs: &Inputs<'_>) -> BTreeMap<String, Vec<u16>> {
        let first_port = inputs.observed.first_port;
        let mut forbidden = BTreeMap::new();
        if first_port == 0 {
            return forbidden;
        }
        for other in inputs.project.services.values() {
            let backend = inputs.placement.of(&other.name);
            let is_near = inputs.observed.linkage.reach != Some(Reach::Stream);
            // Its own address, or its relay's, where this machine has a leg in the network.
            let is_direct = match backend {
                BackendKind::Container => is_near,
                BackendKind::Process => is_near && self.relays.contains(&other.name),
            };
            if is_direct {
                continue;
            }
            let form = in_form(other, backend);
            let is_its_own = |port: u16| {
                let mut ports = form.ports.iter().filter(|it| it.target == port);
                ports.any(|it| it.published == Some((port, port)))
            };
            let mut ports = declared_ports(&form);
            ports.retain(|port| *port < first_port && !is_its_own(*port));
            if !ports.is_empty() {
                forbidden.insert(other.name.clone(), ports);
            }
        }
        forbidden
    }
}

/// How a service finds others by name: as its file says, else the best that this machine allows.
pub(super) fn way(inputs: &Inputs<'_>, service: &Service) -> Way {
    let asked = service.wharf.process.as_ref().and_then(|form| form.names);
    asked.unwrap_or(inputs.observed.linkage.way)
}

/// The environment of a local service with addresses in place of names, where it has no other way.
fn rewritten(inputs: &Inputs<'_>, service: &Service) -> Outcome {
    let addresses = addresses(inputs);
    // Of those that do not take part now no more is known than the name.
    let mut names: BTreeMap<String, Mentioned> = inputs
        .project
        .disabled
        .iter()
        .filter_map(|name| {
            let mentioned = Mentioned {
                service: Some(name.clone()),
                address: *addresses.get(name)?,
                ports: Vec::new(),
            };
            Some((name.clone(), mentioned))
        })
        .collect();
    let myself = inputs.project.services.get(&service.name);
    let others = neighbours(inputs.project, service);
    for other in others.chain(myself) {
        let Some(address) = addresses.get(&other.name) else {
            continue;
        };
        let form = in_form(other, inputs.placement.of(&other.name));
        let mentioned = Mentioned {
            service: Some(other.name.clone()),
            address: *address,
            ports: declared_ports(&form),
        };
        for name in hosts(inputs.project, service, other) {
            names.insert(name.to_owned(), mentioned.clone());
        }
    }
    for (alias, service) in aliased(service) {
        if let Some(mentioned) = names.get(service).cloned() {
            names.insert(alias.to_owned(), mentioned);
        }
    }
    // As in a container, whose hosts file comes before the network's names.
    for (name, address) in extra_hosts(service) {
        names.remove(&name);
        if let IpAddr::V4(address) = address {
            let given = Mentioned {
                service: None,
                address,
                ports: Vec::new(),
            };
            names.insert(name, given);
        }
    }
    rewrite(&service.environment, &names, inputs.observed.first_port)
}

/// A service as it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// Where.
    pub backend: BackendKind,
    /// In the form that it has there.
    pub service: Arc<Service>,
    /// Its variables beyond those of this command, with what takes the place of names.
    pub environment: BTreeMap<String, String>,
    /// How it finds other services.
    pub way: Way,
    /// The values that are not what the file says.
    pub rewritten: Vec<Rewritten>,
}

/// A service as it would run on free ports.
pub fn effective(inputs: &Inputs<'_>, service: &Arc<Service>) -> Effective {
    let backend = inputs.placement.of(&service.name);
    let service = in_form(service, backend);
    let mut environment = service.environment.clone();
    let (mut way, mut values) = (Way::Off, Vec::new());
    if backend == BackendKind::Process {
        if has_others(inputs.project, &service) {
            way = self::way(inputs, &service);
        }
        if way == Way::Environment {
            values = rewritten(inputs, &service).values;
        }
        let ports: Vec<_> = needs(&service, 1, backend, inputs.observed.first_port)
            .iter()
            .map(|need| need.settle(need.candidates.first().copied()))
            .collect();
        environment.extend(variables(&ports));
    }
    for value in &values {
        environment.insert(value.variable.clone(), value.to.clone());
    }
    Effective {
        backend,
        service,
        environment,
        way,
        rewritten: values,
    }
}

/// Whether some service of the project may run as a process and has others to name.
pub fn may_name(project: &Project, placement: &Placement) -> bool {
    let services = project.services.values();
    services
        .filter(|service| placement.of(&service.name) == BackendKind::Process)
        .any(|service| has_others(project, service))
}

/// Whether there may be services that a service could name: it is on a network, and the project has others, also
/// such as do not take part now.
fn has_others(project: &Project, service: &Service) -> bool {
    !service.networks.is_empty() && project.services.len() + project.disabled.len() > 1
}

/// Whether containers may want to find a local service: those that will be there, and those that are there of
/// services that do not take part now.
fn meets_containers(inputs: &Inputs<'_>, service: &Service) -> bool {
    let project = inputs.project;
    let planned = inputs
        .placement
        .services(BackendKind::Container)
        .filter_map(|name| project.services.get(name))
        .any(|other| is_neighbour(service, other));
    let named: BTreeSet<&str> = service
        .networks
        .keys()
        .filter_map(|key| project.networks.get(key))
        .map(|network| network.name.as_str())
        .collect();
    planned
        || inputs.observed.instances.iter().any(|instance| {
            // Orphans that go at this command need no names any more.
            let stays =
                !inputs.policy.remove_orphans || project.disabled.contains(&instance.service);
            instance.backend == BackendKind::Container
                && stays
                && !project.services.contains_key(&instance.service)
                && instance
                    .networks
                    .iter()
                    .any(|name| named.contains(name.as_str()))
        })
}

/// The other services that share a network of the project with a service.
fn neighbours<'a>(
    project: &'a Project,
    service: &'a Service,
) -> impl Iterator<Item = &'a Arc<Service>> {
    let others = project.services.values();
    others.filter(|other| is_neighbour(service, other))
}

/// Whether another service shares a network of the project with a service.
fn is_neighbour(service: &Service, other: &Service) -> bool {
    let mut networks = other.networks.keys();
    other.name != service.name && networks.any(|key| service.networks.contains_key(key))
}

/// The `hostname` of a service, where others find it by that: neither what is always oneself, nor what another service
/// is called.
fn hostname<'a>(project: &'a Project, service: &'a Service) -> Option<&'a str> {
    let name = service.hostname.as_deref()?;
    let plain = name.trim_end_matches('.').to_ascii_lowercase();
    let is_oneself =
        plain == "localhost" || plain.ends_with(".localhost") || plain.parse::<IpAddr>().is_ok();
    let mut others = project.services.values();
    let is_taken = others.any(|other| {
        let aliases = other.networks.values().flat_map(|place| &place.aliases);
        let given = other.container_name.iter().chain(aliases);
        other.name != service.name && given.chain([&other.name]).any(|given| *given == plain)
    });
    (!is_oneself && !is_taken).then_some(name)
}

/// The names by which `service` finds `other`.
fn hosts<'a>(
    project: &'a Project,
    service: &'a Service,
    other: &'a Service,
) -> impl Iterator<Item = &'a str> {
    let shared = other
        .networks
        .iter()
        .filter(|(key, _)| service.networks.contains_key(*key));
    let aliases = shared.flat_map(|(_, place)| place.aliases.iter().map(String::as_str));
    [other.name.as_str()]
        .into_iter()
        .chain(other.container_name.as_deref())
        .chain(hostname(project, other))
        .chain(aliases)
}

/// `links` that have another name than the service: the name, and the service.
fn aliased(service: &Service) -> impl Iterator<Item = (&str, &str)> {
    let links = service.links.iter();
    links.filter_map(|link| {
        let (service, alias) = link.split_once(':')?;
        Some((alias, service))
    })
}

/// `extra_hosts`. This machine is the one that the process runs on.
fn extra_hosts(service: &Service) -> Vec<(String, IpAddr)> {
    let entries = service.extra_hosts.iter();
    entries
        .filter_map(|entry| {
            let (name, address) = entry.split_once(':')?;
            let address = match address {
                "host-gateway" => IpAddr::V4(Ipv4Addr::LOCALHOST),
                text => text.trim_matches(['[', ']']).parse().ok()?,
            };
            Some((name.to_owned(), address))
        })
        .collect()
}

fn addresses(inputs: &Inputs<'_>) -> BTreeMap<String, Ipv4Addr> {
    let project = inputs.project;
    let all = project.services.keys().chain(&project.disabled);
    loopback_addresses(&scope(inputs), all.map(String::as_str))
}

/// What no other project has, nor the same one of another user: each user has files of his own for it.
fn scope(inputs: &Inputs<'_>) -> String {
    let Project {
        directory, name, ..
    } = inputs.project;
    let files = inputs.observed.linkage.relays.display();
    format!("{} {name} {files}", directory.display())
}

/// TCP ports that `expose` names, ranges written out.
fn exposed(service: &Service) -> Vec<u16> {
    exposed_as(service, "tcp")
}

/// What is to be said of a local service's UDP ports, which relays do not carry.
fn without_udp(service: &Service) -> Option<String> {
    let ports = service.ports.iter();
    let published = ports.filter(|port| port.protocol == Protocol::Udp);
    let all: BTreeSet<u16> = published
        .map(|port| port.target)
        .chain(exposed_as(service, "udp"))
        .collect();
    if all.is_empty() {
        return None;
    }
    let all: Vec<String> = all.iter().map(u16::to_string).collect();
    Some(format!(
        "{} runs as a local process, which containers reach by TCP only: not on {}/udp",
        service.name,
        all.join(", ")
    ))
}

/// What is to be said of ports on which names lead nowhere, one line for each service.
fn without_privilege(inputs: &Inputs<'_>, refused: &BTreeSet<(String, u16)>) -> Vec<String> {
    let first_port = inputs.observed.first_port;
    let mut services: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for (service, port) in refused {
        services.entry(service).or_default().push(*port);
    }
    let lines = services.into_iter().map(|(service, ports)| {
        let first = ports.first().copied().unwrap_or_default();
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        format!(
            "{service} cannot be reached by its name on port {} from other local services: ports below {first_port} \
             need a privilege that you do not have (sudo sysctl -w net.ipv4.ip_unprivileged_port_start={first})",
            ports.join(", ")
        )
    });
    lines.collect()
}

fn declared_ports(service: &Service) -> Vec<u16> {
    let tcp = service
        .ports
        .iter()
        .filter(|port| port.protocol == Protocol::Tcp);
    let mut ports: Vec<u16> = tcp
        .map(|port| port.target)
        .chain(exposed(service))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
