//! What a local instance sees: the names in its hosts file and the addresses that they stand for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::spots::{has_only_v6, is_elsewhere_too};
use super::{Lines, Making};
use crate::forward::world::{Heard, Life, Local, Member};
use crate::naming::Way;

/// Names that mean the machine itself, whatever a compose file says.
const KEPT: [&str; 5] = [
    "localhost",
    "localhost.localdomain",
    "ip6-localhost",
    "ip6-loopback",
    "broadcasthost",
];

impl<'a> Making<'a> {
    /// The names that local instances see. In most projects all see the same, which is found out once.
    pub(super) fn name(&mut self) {
        let mut seen: BTreeMap<View<'a>, (Seen<'a>, Lines)> = BTreeMap::new();
        for client in &self.world.locals {
            if client.names.way != Way::Hosts {
                continue;
            }
            let (all, lines) = seen.entry(View::of(client)).or_insert_with(|| {
                let mut all = self.seen_by(client);
                add_own(client, &mut all);
                let lines = in_lines(&all);
                (all, lines)
            });
            let mut lines = Arc::clone(lines);
            if client.life == Life::Down && client.is_starting {
                // Others do not see it yet, and it has its own names before it starts.
                let mut all = all.clone();
                self.add(client, client, &mut all);
                lines = in_lines(&all);
            }
            self.routes.hosts.insert(client.instance.clone(), lines);
        }
    }

    /// What the names of `other` mean for `client`.
    fn add(&mut self, client: &Local, other: &'a Local, seen: &mut Seen<'a>) {
        let names = shared_names(client, other);
        if names.is_empty() {
            return;
        }
        for address in self.addresses_of(client, other) {
            seen.entry(address).or_default().extend(&names);
        }
    }

    /// What everybody sees who has the client's view.
    fn seen_by(&mut self, client: &Local) -> Seen<'a> {
        let mut lines = Seen::new();
        for other in &self.world.locals {
            if other.life != Life::Down {
                self.add(client, other, &mut lines);
            }
        }
        for member in &self.world.members {
            // What a relay stands for is in the ledger.
            if member.is_relay {
                continue;
            }
            let mut has_far = false;
            let mut names: BTreeSet<&str> = BTreeSet::new();
            let mut has_near = false;
            for (network, (addresses, found)) in shared_places(client, member) {
                let found = found.iter().map(String::as_str);
                if self.is_near(network) {
                    has_near = true;
                    for address in addresses {
                        lines.entry(*address).or_default().extend(found.clone());
                    }
                } else {
                    has_far = true;
                    names.extend(found);
                }
            }
            if has_far
                && !has_near
                && let Some(service) = member.service.as_deref()
                && let Some(address) = client.names.address(service)
            {
                self.by_loopback.insert(service, address);
                lines.entry(address.into()).or_default().extend(names);
            }
        }
        lines
    }

    /// Where a local instance sees another one, or itself.
    fn addresses_of(&mut self, client: &Local, other: &'a Local) -> Vec<IpAddr> {
        let is_its_relay =
            |member: &&Member| member.is_relay && member.service.as_ref() == Some(&other.service);
        // What lives there has the service's names, too.
        let lends = self
            .world
            .members
            .iter()
            .filter(is_its_relay)
            .any(|it| it.lends);
        let is_direct = |local: &Local| {
            let mut heard = local.heard.iter();
            // What only IPv6 has cannot be reached at 127.0.0.1, and can at ::1.
            let is_here = |heard: &Heard| {
                heard.has_all_of_v4()
                    || heard.ip == IpAddr::V4(Ipv4Addr::LOCALHOST)
                    || heard.ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
                    || heard.ip.is_unspecified()
            };
            !lends
                && local.ports.iter().all(|(target, actual)| target == actual)
                && heard.all(|heard| is_here(heard) || is_elsewhere_too(local, heard.port))
        };
        let mut together: Vec<&Local> = self
            .living(&other.service)
            .map(|(local, _)| local)
            .filter(|local| local.one_off == other.one_off)
            .collect();
        if !together
            .iter()
            .any(|local| local.instance == other.instance)
        {
            together.push(other);
        }
        if together.iter().all(|local| is_direct(local)) {
            let mut found = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
            if together.iter().any(|local| has_only_v6(local)) {
                found.push(IpAddr::V6(Ipv6Addr::LOCALHOST));
            }
            return found;
        }
        // The relay has a network namespace of its own, where no port is in anybody's way.
        let relays: Vec<IpAddr> = self
            .world
            .members
            .iter()
            .filter(is_its_relay)
            .flat_map(|member| shared_places(client, member))
            .filter(|(network, _)| self.is_near(network))
            .flat_map(|(_, (addresses, _))| addresses.iter().copied())
            .collect();
        if !relays.is_empty() {
            return relays;
        }
        let address = client.names.address(&other.service);
        if let Some(address) = address {
            self.by_loopback.insert(&other.service, address);
        }
        address.map(IpAddr::V4).into_iter().collect()
    }
}

/// What the names that an instance sees depend on, besides the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct View<'a> {
    networks: BTreeSet<&'a str>,
    scope: &'a str,
    addresses: &'a BTreeMap<String, Ipv4Addr>,
    links: &'a BTreeMap<String, String>,
    extra: &'a [(String, IpAddr)],
}

impl<'a> View<'a> {
    fn of(client: &'a Local) -> Self {
        let places = client.names.places.iter();
        Self {
            networks: places.map(|place| place.network.as_str()).collect(),
            scope: &client.names.scope,
            addresses: &client.names.addresses,
            links: &client.names.links,
            extra: &client.names.extra,
        }
    }
}

/// Adds the names that an instance alone has. Those with addresses come first, as in a container, whose hosts file has
/// them.
fn add_own<'a>(client: &'a Local, seen: &mut Seen<'a>) {
    for (alias, service) in &client.names.links {
        let names = seen.values_mut();
        for names in names.filter(|names| names.contains(service.as_str())) {
            names.insert(alias);
        }
    }
    let extra = &client.names.extra;
    for names in seen.values_mut() {
        names.retain(|name| !extra.iter().any(|(other, _)| other == name));
    }
    for (name, address) in extra {
        seen.entry(*address).or_default().insert(name);
    }
}

/// Addresses and all names that stand for them.
type Seen<'a> = BTreeMap<IpAddr, BTreeSet<&'a str>>;

/// As they stand in a hosts file.
fn in_lines(seen: &Seen<'_>) -> Lines {
    let lines = seen
        .iter()
        .map(|(address, names)| {
            let names = names.iter().copied().filter(|name| is_name(name));
            (*address, names.map(str::to_owned).collect::<Vec<_>>())
        })
        .filter(|(_, names)| !names.is_empty())
        .collect();
    Arc::new(lines)
}

/// The names that one instance has where another one is too.
fn shared_names<'a>(client: &Local, other: &'a Local) -> BTreeSet<&'a str> {
    let is_shared = |network: &String| {
        let mut places = client.names.places.iter();
        places.any(|place| place.network == *network)
    };
    other
        .names
        .places
        .iter()
        .filter(|place| is_shared(&place.network))
        .flat_map(|place| place.aliases.iter().map(String::as_str))
        .collect()
}

/// The places of a container where an instance is too.
fn shared_places<'a>(
    client: &Local,
    member: &'a Member,
) -> impl Iterator<Item = (&'a str, &'a (Vec<IpAddr>, Vec<String>))> {
    let networks: BTreeSet<&str> = client
        .names
        .places
        .iter()
        .map(|place| place.network.as_str())
        .collect();
    member
        .places
        .iter()
        .map(|(network, place)| (network.as_str(), place))
        .filter(move |(network, _)| networks.contains(network))
        .collect::<Vec<_>>()
        .into_iter()
}

/// Whether a name can stand in a hosts file.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '#';
    !name.is_empty() && name.chars().all(is_plain) && !KEPT.contains(&name)
}
