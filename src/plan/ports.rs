//! The ports an instance needs: from `ports:` to claims, and from claims to settled ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::plan::step::SettledPort;
use crate::port::claim::{Claim, Protocol};
use crate::project::model::{Port, Service};
use crate::state::{BackendKind, ProbeKind, Readiness};

/// How long a server may take to answer when its service does not say.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Added to a port that this user may not listen on.
const ABOVE: u16 = 8000;

/// One port an instance needs, and the host ports that would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// The declaration.
    pub port: Port,
    /// Host ports in order of preference; empty: the engine chooses.
    pub candidates: Vec<u16>,
    /// Whether a port outside the candidates does as well: nothing was published, so nobody counts on
    /// the number.
    pub anywhere: bool,
    /// Whether it is only for others of the project (`expose`), published nowhere.
    pub exposed: bool,
}

impl Need {
    /// The claim on one of the candidates.
    pub(super) fn claim(&self, service: &str, number: u32, port: u16) -> Claim {
        Claim {
            service: service.to_owned(),
            number,
            addresses: addresses(&self.port),
            port,
            protocol: self.port.protocol,
        }
    }

    /// The one place that the file gives a port that nobody publishes: the program decides what becomes of it there.
    pub(super) fn given(&self) -> Option<u16> {
        let is_given = self.exposed && !self.anywhere;
        self.candidates.first().copied().filter(|_| is_given)
    }

    /// The mapping with a host port chosen.
    pub(super) fn settle(&self, published: Option<u16>) -> SettledPort {
        SettledPort {
            target: self.port.target,
            published,
            addresses: if self.exposed {
                Vec::new()
            } else {
                addresses(&self.port)
            },
            protocol: self.port.protocol,
            app_protocol: self.port.app_protocol.clone(),
        }
    }
}

/// What replica `number` of a service needs in a backend.
///
/// A published range serves the replicas in turn; the engine lets any of them take any free port of
/// it, and so does this, starting at the replica's own. A process without a published port is offered
/// its target port first, or the one that stands for it where this user may not listen there; so is one
/// without ports of its own for those that it exposes.
pub(super) fn needs(
    service: &Service,
    number: u32,
    backend: BackendKind,
    first_port: u16,
) -> Vec<Need> {
    service
        .ports
        .iter()
        .map(|port| {
            let (candidates, anywhere) = match (port.published, backend) {
                (Some((first, last)), _) => (rotated(first, last, number), false),
                (None, BackendKind::Process) => (vec![permitted(port.target, first_port)], true),
                (None, BackendKind::Container) => (Vec::new(), true),
            };
            Need {
                port: port.clone(),
                candidates,
                anywhere,
                exposed: false,
            }
        })
        .chain(exposures(service, number, backend, first_port))
        .collect()
}

/// The ports that a process is found on by its neighbours alone: where it has but one, at the place that its own `PORT`
/// names, if that is another one.
fn exposures(
    service: &Service,
    number: u32,
    backend: BackendKind,
    first_port: u16,
) -> impl Iterator<Item = Need> {
    // A one-off instance stands beside the one that has the port.
    let is_told = number != 0 && tells_exposed(service, backend);
    let targets = if is_told {
        exposed_as(service, "tcp")
    } else {
        Vec::new()
    };
    let given = service.environment.get("PORT");
    let given: Option<u16> = given.and_then(|text| text.trim().parse().ok());
    let given = match targets[..] {
        [only] => given.filter(|port| ![0, only].contains(port)),
        _ => None,
    };
    targets.into_iter().map(move |target| Need {
        port: Port {
            target,
            published: None,
            host_ip: None,
            protocol: Protocol::Tcp,
            app_protocol: None,
            mode: None,
            name: None,
        },
        candidates: vec![given.unwrap_or_else(|| permitted(target, first_port))],
        anywhere: given.is_none(),
        exposed: true,
    })
}

/// Whether a service is told where to listen, and no file counts on the number.
pub fn may_listen_anywhere(service: &Service, backend: BackendKind) -> bool {
    let has_unpublished = service.ports.iter().any(|port| port.published.is_none());
    backend == BackendKind::Process && (has_unpublished || tells_exposed(service, backend))
}

/// Whether a service is told where to listen for its neighbours. Of more ports than a program has names for, it is not:
/// each is a variable.
fn tells_exposed(service: &Service, backend: BackendKind) -> bool {
    const MOST: usize = 64;
    backend == BackendKind::Process
        && service.ports.is_empty()
        && (1..=MOST).contains(&exposed_as(service, "tcp").len())
}

/// Ports of a protocol that `expose` names, ranges written out.
pub(super) fn exposed_as(service: &Service, wanted: &str) -> Vec<u16> {
    let mut ports = Vec::new();
    for entry in &service.expose {
        let (range, protocol) = entry.split_once('/').unwrap_or((entry, "tcp"));
        if protocol != wanted {
            continue;
        }
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            let new = (first..=last).filter(|port| !ports.contains(port));
            let new: Vec<u16> = new.collect();
            ports.extend(new);
        }
    }
    ports
}

/// What stands for a port below the first that this user may listen on: 8080 for 80, 8443 for 443.
fn permitted(target: u16, first_port: u16) -> u16 {
    if target < first_port {
        target.saturating_add(ABOVE).max(first_port)
    } else {
        target
    }
}

fn rotated(first: u16, last: u16, number: u32) -> Vec<u16> {
    let size = u32::from(last.saturating_sub(first)) + 1;
    let offset = number.saturating_sub(1) % size;
    let all: Vec<u16> = (first..=last.max(first)).collect();
    let (before, after) = all.split_at(usize::try_from(offset).unwrap_or(0).min(all.len()));
    [after, before].concat()
}

fn addresses(port: &Port) -> Vec<IpAddr> {
    match port.host_ip {
        Some(ip) => vec![ip],
        None => Claim::any_address(),
    }
}

/// The first port that declares a protocol wharf can probe, made a readiness.
pub(super) fn readiness(service: &Service, ports: &[SettledPort]) -> Option<Readiness> {
    let asked = &service.wharf.ready;
    let path = |default: &str| asked.path.clone().unwrap_or_else(|| default.to_owned());
    let is_published = |port: &&SettledPort| !port.addresses.is_empty();
    let published = || ports.iter().filter(is_published);
    let tcp = || published().filter(|port| port.protocol == Protocol::Tcp);
    let spoken = tcp().find_map(|port| {
        let probe = match port.app_protocol.as_deref()? {
            "ws" => ProbeKind::WebSocket { path: path("/") },
            "http" => ProbeKind::Http { path: path("/") },
            // Encrypted: that something accepts is all that can be seen from here.
            "wss" | "https" | "tcp" => ProbeKind::Tcp,
            _ => return None,
        };
        Some((port, probe))
    });
    let declared = || {
        let port = (asked.path.is_some() || asked.timeout.is_some()).then(|| tcp().next())??;
        let probe = asked
            .path
            .clone()
            .map_or(ProbeKind::Tcp, |path| ProbeKind::Http { path });
        Some((port, probe))
    };
    let (port, probe) = spoken.or_else(declared)?;
    let timeout = asked.timeout.unwrap_or(READY_TIMEOUT);
    Some(Readiness {
        probe,
        address: SocketAddr::new(reachable(&port.addresses), port.published.unwrap_or(0)),
        target: port.target,
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    })
}

/// The proof that a process took a port that another had: somebody accepts there, and it is the process.
/// `None` for UDP, which nobody accepts, and for a container, whose port the engine itself takes.
pub(super) fn taken(port: &SettledPort, backend: BackendKind) -> Option<Readiness> {
    let published = port.published?;
    (port.protocol == Protocol::Tcp && backend == BackendKind::Process).then(|| Readiness {
        probe: ProbeKind::Tcp,
        address: SocketAddr::new(reachable(&port.addresses), published),
        target: port.target,
        timeout_ms: u64::try_from(READY_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
    })
}

/// An address to connect to for what listens on these.
pub fn reachable(addresses: &[IpAddr]) -> IpAddr {
    match addresses.first() {
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        Some(ip) if !ip.is_unspecified() => *ip,
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

/// `PORT` and `PORT_<target>`: where a process is to listen. Which of several exposed ports is the one that a program
/// means by `PORT` is not known.
pub(super) fn variables(ports: &[SettledPort]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let has_main = ports.len() == 1 || ports.iter().any(|port| !port.addresses.is_empty());
    for port in ports {
        let Some(published) = port.published else {
            continue;
        };
        if has_main {
            variables
                .entry("PORT".to_owned())
                .or_insert_with(|| published.to_string());
        }
        variables
            .entry(format!("PORT_{}", port.target))
            .or_insert_with(|| published.to_string());
    }
    variables
}

/// `<SERVICE>_PORT` and `<SERVICE>_PORT_<target>`: where a dependency's moved port is now.
pub(super) fn moved_variables(service: &str, target: u16, to: u16) -> [(String, String); 2] {
    let name: String = service
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    [
        (format!("{name}_PORT"), to.to_string()),
        (format!("{name}_PORT_{target}"), to.to_string()),
    ]
}
