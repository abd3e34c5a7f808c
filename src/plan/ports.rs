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

    /// The mapping with a host port chosen.
    pub(super) fn settle(&self, published: Option<u16>) -> SettledPort {
        SettledPort {
            target: self.port.target,
            published,
            addresses: addresses(&self.port),
            protocol: self.port.protocol,
            app_protocol: self.port.app_protocol.clone(),
        }
    }
}

/// What replica `number` of a service needs in a backend.
///
/// A published range serves the replicas in turn; the engine lets any of them take any free port of
/// it, and so does this, starting at the replica's own. A process without a published port is offered
/// its target port first, or the one that stands for it where this user may not listen there.
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
            }
        })
        .collect()
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
    let tcp = || ports.iter().filter(|port| port.protocol == Protocol::Tcp);
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

/// `PORT` and `PORT_<target>`: where a process is to listen.
pub(super) fn variables(ports: &[SettledPort]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for port in ports {
        let Some(published) = port.published else {
            continue;
        };
        variables
            .entry("PORT".to_owned())
            .or_insert_with(|| published.to_string());
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
