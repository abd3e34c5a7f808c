//! Where the container ports of a local instance are on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::forward::world::{Heard, Life, Local};

/// Where a container port of a local instance is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) at: SocketAddr,
    /// Something of the instance listens there; else it is where it is expected to.
    pub(super) heard: bool,
}

/// The container ports of an instance: what was declared, and what it listens on besides.
pub(super) fn spots(local: &Local, all: &[Local]) -> BTreeMap<u16, Spot> {
    let mut found = BTreeMap::new();
    if local.life != Life::Up {
        return found;
    }
    let is_free = |port: u16| {
        let others = all.iter().filter(|other| other.instance != local.instance);
        !others
            .flat_map(|other| &other.heard)
            .any(|heard| heard.port == port)
    };
    let expected = |port: u16| {
        is_free(port).then_some(Spot {
            at: (Ipv4Addr::LOCALHOST, port).into(),
            heard: false,
        })
    };
    for (target, actual) in &local.ports {
        // Where a port is only exposed, a program may have its own idea of its place.
        let (first, then) = if local.names.exposed.contains(target) {
            (target, actual)
        } else {
            (actual, target)
        };
        let spot = heard_at(local, *first)
            .or_else(|| heard_at(local, *then))
            .or_else(|| expected(*actual));
        found.extend(spot.map(|spot| (*target, spot)));
    }
    for port in &local.names.exposed {
        if !found.contains_key(port) {
            let spot = heard_at(local, *port).or_else(|| expected(*port));
            found.extend(spot.map(|spot| (*port, spot)));
        }
    }
    let taken: BTreeSet<SocketAddr> = found
        .values()
        .filter(|spot| spot.heard)
        .map(|spot| spot.at)
        .collect();
    for heard in &local.heard {
        let is_another_ones = taken.iter().any(|at| at.port() == heard.port);
        if !is_another_ones && !found.contains_key(&heard.port) {
            let spot = heard_at(local, heard.port);
            found.extend(spot.map(|spot| (heard.port, spot)));
        }
    }
    found
}

/// Where a port of an instance can be dialled.
fn heard_at(local: &Local, port: u16) -> Option<Spot> {
    let dialled = |heard: &Heard| {
        if heard.has_all_of_v4() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else if heard.ip.is_unspecified() {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        } else {
            heard.ip
        }
    };
    local
        .heard
        .iter()
        .filter(|heard| heard.port == port)
        .map(dialled)
        // 127.0.0.1 first, then other addresses of IPv4, then IPv6.
        .min_by_key(|ip| (ip.is_ipv6(), !ip.is_loopback(), *ip))
        .map(|ip| Spot {
            at: SocketAddr::new(ip, port),
            heard: true,
        })
}

/// Whether a port is at 127.0.0.1 or `::1`, besides where else it is.
pub(super) fn is_elsewhere_too(local: &Local, port: u16) -> bool {
    heard_at(local, port).is_some_and(|spot| {
        [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ]
        .contains(&spot.at.ip())
    })
}

/// Whether an instance has a port that is not at 127.0.0.1.
pub(super) fn has_only_v6(local: &Local) -> bool {
    let mut ports = local.heard.iter().map(|heard| heard.port);
    ports.any(|port| heard_at(local, port).is_some_and(|spot| spot.at.is_ipv6()))
}
