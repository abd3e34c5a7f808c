//! WORLD → ROUTES: which names each local instance sees, where connections are taken in, and where they go.
//! Pure: the same world gives the same routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::world::{Heard, Life, Local, Member, World};
use crate::naming::Way;

/// What should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    /// For each instance that has a hosts file: addresses and the names that stand for them.
    pub(super) hosts: BTreeMap<String, Vec<(IpAddr, Vec<String>)>>,
    /// Where connections are taken in, and where they may go, all equally good.
    pub(super) doors: BTreeMap<Door, Vec<Destination>>,
}

/// A place where connections are taken in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Door {
    /// On this machine.
    Here(SocketAddr),
    /// In the relays of a service.
    Relay {
        /// The service.
        service: String,
        /// The port.
        port: u16,
    },
}

/// A place where they go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Destination {
    /// To be dialled from here.
    Here(SocketAddr),
    /// To be dialled by the relay of one of these services.
    Through {
        /// Services whose relay is on the same network.
        relays: Vec<String>,
        /// An address there.
        address: SocketAddr,
    },
}

/// Names that mean the machine itself, whatever a compose file says.
const KEPT: [&str; 5] = [
    "localhost",
    "localhost.localdomain",
    "ip6-localhost",
    "ip6-loopback",
    "broadcasthost",
];

/// Where a container port of a local instance is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    at: SocketAddr,
    /// Something of the instance listens there; else it is where it is expected to.
    heard: bool,
}

/// What should be in this world.
pub(super) fn routes(world: &World) -> Routes {
    let mut making = Making {
        world,
        spots: world
            .locals
            .iter()
            .map(|local| spots(local, &world.locals))
            .collect(),
        routes: Routes::default(),
        by_loopback: BTreeMap::new(),
    };
    making.open_relays();
    for local in &world.locals {
        if local.names.way == Way::Hosts {
            making.name_for(local);
        }
    }
    making.open_loopback();
    for local in &world.locals {
        making.forward_for(local);
    }
    for destinations in making.routes.doors.values_mut() {
        destinations.sort();
        destinations.dedup();
    }
    making.routes
}

struct Making<'a> {
    world: &'a World,
    /// For each local instance: its container ports.
    spots: Vec<BTreeMap<u16, Spot>>,
    routes: Routes,
    /// Services that somebody sees at a loopback address.
    by_loopback: BTreeMap<&'a str, Ipv4Addr>,
}

impl<'a> Making<'a> {
    /// Living instances of a service that stand for it, with their ports.
    fn living(
        &self,
        service: &'a str,
    ) -> impl Iterator<Item = (&'a Local, &BTreeMap<u16, Spot>)> + use<'_, 'a> {
        self.world
            .locals
            .iter()
            .zip(&self.spots)
            .filter(move |(local, _)| local.service == service && stands_for_service(local))
    }

    fn services(&self) -> BTreeSet<&'a str> {
        let locals = self.world.locals.iter();
        locals.map(|local| local.service.as_str()).collect()
    }

    /// A container reaches a process on its container port.
    fn open_relays(&mut self) {
        for service in self.services() {
            let mut doors: BTreeMap<u16, Vec<Spot>> = BTreeMap::new();
            let mut expected = BTreeSet::new();
            for (local, spots) in self.living(service) {
                if local.names.places.is_empty() {
                    continue;
                }
                expected.extend(local.ports.iter().map(|(target, _)| *target));
                expected.extend(&local.names.exposed);
                for (port, spot) in spots {
                    doors.entry(*port).or_default().push(*spot);
                }
            }
            // A port that somebody else has is there all the same: refused or reset, never left hanging.
            for port in expected {
                doors.entry(port).or_default();
            }
            for (port, spots) in doors {
                let door = Door::Relay {
                    service: service.to_owned(),
                    port,
                };
                self.routes.doors.insert(door, best(&spots));
            }
        }
    }

    /// The names that a local instance sees.
    fn name_for(&mut self, client: &'a Local) {
        let mut lines: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
        for other in &self.world.locals {
            let is_itself = other.instance == client.instance;
            if !is_itself && other.life == Life::Down {
                continue;
            }
            let names = shared_names(client, other);
            if names.is_empty() {
                continue;
            }
            for address in self.addresses_of(client, other) {
                lines.entry(address).or_default().extend(&names);
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
        let lines = lines
            .into_iter()
            .map(|(address, names)| {
                let names = names.into_iter().filter(|name| is_name(name));
                (address, names.map(str::to_owned).collect::<Vec<_>>())
            })
            .filter(|(_, names)| !names.is_empty())
            .collect();
        self.routes.hosts.insert(client.instance.clone(), lines);
    }

    fn is_near(&self, network: &str) -> bool {
        self.world.networks.get(network) == Some(&true)
    }

    /// Where a local instance sees another one, or itself.
    fn addresses_of(&mut self, client: &Local, other: &'a Local) -> Vec<IpAddr> {
        let is_direct = |local: &Local| {
            let mut heard = local.heard.iter();
            // What only IPv6 has cannot be reached at 127.0.0.1, and can at ::1.
            let is_here = |heard: &Heard| {
                heard.has_all_of_v4()
                    || heard.ip == IpAddr::V4(Ipv4Addr::LOCALHOST)
                    || heard.ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
                    || heard.ip.is_unspecified()
            };
            local.ports.iter().all(|(target, actual)| target == actual)
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
            .filter(|member| member.is_relay && member.service.as_ref() == Some(&other.service))
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

    /// Listens at the loopback addresses of services, on what is not there by itself. A listener there keeps
    /// everybody else from listening on all addresses, so there is none before the service has its own.
    fn open_loopback(&mut self) {
        for (service, address) in std::mem::take(&mut self.by_loopback) {
            let mut doors: BTreeMap<u16, Vec<Spot>> = BTreeMap::new();
            let mut there = BTreeSet::new();
            for (local, spots) in self.living(service) {
                let everywhere = local.heard.iter().filter(|heard| heard.has_all_of_v4());
                there.extend(everywhere.map(|heard| heard.port));
                for (port, spot) in spots {
                    doors.entry(*port).or_default().push(*spot);
                }
            }
            for (port, spots) in doors {
                let door = Door::Here((address, port).into());
                let is_free = !there.contains(&port) && !self.is_awaited(service, port);
                if spots.iter().any(|spot| spot.heard) && is_free {
                    self.routes.doors.insert(door, best(&spots));
                }
            }
            for member in &self.world.members {
                if member.is_relay || member.service.as_deref() != Some(service) {
                    continue;
                }
                for port in &member.exposed {
                    let destinations = self.to_container(member, *port);
                    if !destinations.is_empty() {
                        let door = Door::Here((address, *port).into());
                        let all = self.routes.doors.entry(door).or_default();
                        all.extend(destinations);
                    }
                }
            }
        }
    }

    /// Whether another service is about to listen on a port of this machine, perhaps on all addresses.
    fn is_awaited(&self, service: &str, port: u16) -> bool {
        let others = self.world.locals.iter();
        others
            .filter(|local| local.service != service && local.is_starting)
            .filter(|local| local.ports.iter().any(|(_, actual)| *actual == port))
            .any(|local| local.heard.iter().all(|heard| heard.port != port))
    }

    /// What stands in an instance's environment leads somewhere.
    fn forward_for(&mut self, client: &'a Local) {
        for forward in &client.names.forwards {
            let mut spots: Vec<Spot> = Vec::new();
            for (_, ports) in self.living(&forward.service) {
                spots.extend(ports.get(&forward.port).filter(|spot| spot.heard));
            }
            let mut destinations = best(&spots);
            // It may be that what is to be listened on is the service's own.
            destinations.retain(|to| *to != Destination::Here(forward.listen));
            for member in &self.world.members {
                let is_it = member.service.as_ref() == Some(&forward.service);
                if !is_it || member.is_relay {
                    continue;
                }
                destinations.extend(self.to_container(member, forward.port));
            }
            if !destinations.is_empty() {
                let door = Door::Here(forward.listen);
                self.routes
                    .doors
                    .entry(door)
                    .or_default()
                    .extend(destinations);
            }
        }
    }

    /// The ways to a port of a container: directly if there is one, else by a relay beside it.
    fn to_container(&self, member: &Member, port: u16) -> Vec<Destination> {
        let mut through = Vec::new();
        for (network, (addresses, _)) in &member.places {
            let Some(ip) = addresses.first() else {
                continue;
            };
            let address = SocketAddr::new(*ip, port);
            if self.is_near(network) {
                return vec![Destination::Here(address)];
            }
            let relays: BTreeSet<String> = self
                .world
                .members
                .iter()
                .filter(|other| other.is_relay && other.places.contains_key(network))
                .filter_map(|other| other.service.clone())
                .collect();
            if !relays.is_empty() && through.is_empty() {
                let relays = relays.into_iter().collect();
                through.push(Destination::Through { relays, address });
            }
        }
        through
    }
}

/// Whether connections to a service may go to an instance.
fn stands_for_service(local: &Local) -> bool {
    let has_its_name = |place: &crate::naming::Place| place.aliases.contains(&local.service);
    local.life == Life::Up && (!local.one_off || local.names.places.iter().any(has_its_name))
}

/// The container ports of an instance: what was declared, and what it listens on besides.
fn spots(local: &Local, all: &[Local]) -> BTreeMap<u16, Spot> {
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
        let spot = heard_at(local, *actual)
            .or_else(|| heard_at(local, *target))
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
fn is_elsewhere_too(local: &Local, port: u16) -> bool {
    heard_at(local, port).is_some_and(|spot| {
        [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ]
        .contains(&spot.at.ip())
    })
}

/// Whether an instance has a port that is not at 127.0.0.1.
fn has_only_v6(local: &Local) -> bool {
    let mut ports = local.heard.iter().map(|heard| heard.port);
    ports.any(|port| heard_at(local, port).is_some_and(|spot| spot.at.is_ipv6()))
}

/// Those that listen, if any does.
fn best(spots: &[Spot]) -> Vec<Destination> {
    let any_heard = spots.iter().any(|spot| spot.heard);
    spots
        .iter()
        .filter(|spot| spot.heard || !any_heard)
        .map(|spot| Destination::Here(spot.at))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naming::{Forward, Names, Place};

    const V_API: &str = "127.70.0.1";
    const V_DB: &str = "127.70.0.2";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn heard(text: &str) -> Heard {
        let address: SocketAddr = text.parse().unwrap();
        Heard {
            port: address.port(),
            ip: address.ip(),
            only_v6: false,
        }
    }

    /// A living instance on network `n` that finds others by its hosts file.
    fn local(service: &str, ports: &[(u16, u16)], listens: &[&str]) -> Local {
        let instance = format!("p-{service}-1");
        Local {
            names: Names {
                way: Way::Hosts,
                places: vec![Place {
                    network: "n".into(),
                    aliases: vec![service.into(), instance.clone()],
                }],
                addresses: BTreeMap::from([
                    ("api".into(), V_API.parse().unwrap()),
                    ("db".into(), V_DB.parse().unwrap()),
                ]),
                ..Names::default()
            },
            instance,
            service: service.into(),
            one_off: false,
            life: Life::Up,
            ports: ports.to_vec(),
            heard: listens.iter().map(|text| heard(text)).collect(),
            is_starting: false,
        }
    }

    fn member(service: &str, network: &str, addresses: &[&str], exposed: &[u16]) -> Member {
        Member {
            service: Some(service.into()),
            is_relay: false,
            exposed: exposed.to_vec(),
            places: BTreeMap::from([(
                network.into(),
                (
                    addresses.iter().map(|text| ip(text)).collect(),
                    vec![service.into()],
                ),
            )]),
        }
    }

    fn relay(service: &str, network: &str, address: &str) -> Member {
        Member {
            is_relay: true,
            ..member(service, network, &[address], &[])
        }
    }

    fn world(near: bool, locals: Vec<Local>, members: Vec<Member>) -> World {
        World {
            locals,
            networks: BTreeMap::from([("n".into(), near)]),
            members,
        }
    }

    /// The hosts lines of an instance.
    fn lines(world: &World, instance: &str) -> Vec<String> {
        let line =
            |(address, names): &(IpAddr, Vec<String>)| format!("{address} {}", names.join(" "));
        routes(world).hosts[instance].iter().map(line).collect()
    }

    /// All doors, one a line.
    fn doors(world: &World) -> Vec<String> {
        let to = |to: &Destination| match to {
            Destination::Here(address) => address.to_string(),
            Destination::Through { relays, address } => format!("{}>{address}", relays.join(",")),
        };
        routes(world)
            .doors
            .iter()
            .map(|(door, all)| {
                let all: Vec<String> = all.iter().map(to).collect();
                match door {
                    Door::Here(address) => format!("{address} -> {}", all.join(" ")),
                    Door::Relay { service, port } => {
                        format!("{service}:{port} -> {}", all.join(" "))
                    }
                }
            })
            .collect()
    }

    #[test]
    fn a_port_that_another_service_is_about_to_take_is_let_go() {
        let api = local("api", &[(8080, 8081)], &["127.0.0.1:8081"]);
        let door = [format!("{V_API}:8080 -> 127.0.0.1:8081")];
        let mut web = local("web", &[(80, 8080)], &[]);
        web.life = Life::Down;
        let with = |web: &Local| doors(&world(false, vec![api.clone(), web.clone()], vec![]));
        let here = |all: Vec<String>| -> Vec<String> {
            all.into_iter()
                .filter(|door| door.starts_with(V_API))
                .collect()
        };
        // One that is down may stay so.
        assert_eq!(here(with(&web)), door);
        web.is_starting = true;
        assert_eq!(here(with(&web)), [""; 0]);
        web.life = Life::Up;
        assert_eq!(here(with(&web)), [""; 0]);
        web.heard = vec![heard("127.0.0.1:8080")];
        assert_eq!(here(with(&web)), door);
    }

    #[test]
    fn a_container_is_at_its_own_addresses_where_there_is_a_leg() {
        let db = member("db", "n", &["172.18.0.2", "fd00::2"], &[5432]);
        let elsewhere = member("db", "m", &["172.19.0.2"], &[5432]);
        let mut stranger = member("db", "n", &["172.18.0.9"], &[]);
        stranger.service = None;
        stranger.places.get_mut("n").unwrap().1 = vec!["other".into()];
        let world = world(
            true,
            vec![local("api", &[], &[])],
            vec![db, elsewhere, stranger],
        );
        assert_eq!(
            lines(&world, "p-api-1"),
            [
                "127.0.0.1 api p-api-1",
                "172.18.0.2 db",
                "172.18.0.9 other",
                "fd00::2 db"
            ]
        );
        assert_eq!(doors(&world), Vec::<String>::new());
    }

    #[test]
    fn a_container_that_is_far_is_reached_through_a_relay_beside_it() {
        let members = vec![
            member("db", "n", &["172.18.0.2"], &[5432, 80]),
            member("db", "n", &["172.18.0.3"], &[5432]),
            relay("api", "n", "172.18.0.4"),
            relay("web", "m", "172.19.0.4"),
        ];
        let world = world(false, vec![local("api", &[], &[])], members);
        assert_eq!(
            lines(&world, "p-api-1"),
            ["127.0.0.1 api p-api-1", "127.70.0.2 db"]
        );
        assert_eq!(
            doors(&world),
            [
                "127.70.0.2:80 -> api>172.18.0.2:80",
                "127.70.0.2:5432 -> api>172.18.0.2:5432 api>172.18.0.3:5432",
            ]
        );
    }

    #[test]
    fn containers_reach_a_process_on_its_container_port_wherever_it_is() {
        let api = local(
            "api",
            &[(8080, 8081)],
            &["127.0.0.1:8081", "127.0.0.1:9229"],
        );
        let admin = local("admin", &[(8080, 8080)], &["[::]:8080"]);
        let relays = vec![relay("api", "n", "172.18.0.4")];
        let world = world(true, vec![api, admin], relays);
        assert_eq!(
            doors(&world),
            [
                "admin:8080 -> 127.0.0.1:8080",
                "api:8080 -> 127.0.0.1:8081",
                "api:9229 -> 127.0.0.1:9229",
            ]
        );
    }

    #[test]
    fn a_process_that_does_not_listen_yet_is_expected_where_it_was_told_to() {
        let mut api = local("api", &[(8080, 8081)], &[]);
        api.names.exposed = vec![7000];
        let mut world = world(true, vec![api], Vec::new());
        let expected = ["api:7000 -> 127.0.0.1:7000", "api:8080 -> 127.0.0.1:8081"];
        assert_eq!(doors(&world), expected);
        // It did not do as it was told.
        world.locals[0].heard = vec![heard("0.0.0.0:8080")];
        let found = ["api:7000 -> 127.0.0.1:7000", "api:8080 -> 127.0.0.1:8080"];
        assert_eq!(doors(&world), found);
    }

    #[test]
    fn nobody_is_sent_to_another_service() {
        let mut api = local("api", &[(8080, 8081)], &[]);
        api.names.exposed = vec![7000];
        let other = local("other", &[], &["0.0.0.0:8081", "127.0.0.1:7000"]);
        let world = world(true, vec![api, other], Vec::new());
        assert_eq!(
            doors(&world),
            [
                "api:7000 -> ",
                "api:8080 -> ",
                "other:7000 -> 127.0.0.1:7000",
                "other:8081 -> 127.0.0.1:8081",
            ]
        );
    }

    #[test]
    fn what_is_down_has_no_name_and_no_door_and_what_restarts_keeps_its_name() {
        let mut api = local("api", &[(80, 80)], &["0.0.0.0:80"]);
        api.life = Life::Down;
        let mut world = world(true, vec![api, local("web", &[], &[])], Vec::new());
        assert_eq!(lines(&world, "p-web-1"), ["127.0.0.1 p-web-1 web"]);
        // It has a hosts file before it starts, with its own name.
        assert_eq!(
            lines(&world, "p-api-1"),
            ["127.0.0.1 api p-api-1 p-web-1 web"]
        );
        assert_eq!(doors(&world), Vec::<String>::new());
        world.locals[0].life = Life::Restarting;
        assert_eq!(
            lines(&world, "p-web-1"),
            ["127.0.0.1 api p-api-1 p-web-1 web"]
        );
        assert_eq!(doors(&world), Vec::<String>::new());
    }

    #[test]
    fn a_process_with_another_port_is_seen_at_its_relay_or_at_its_loopback_address() {
        let locals = || {
            vec![
                local("api", &[(8080, 8081)], &["127.0.0.1:8081"]),
                local("web", &[], &[]),
            ]
        };
        let near = world(true, locals(), vec![relay("api", "n", "172.18.0.4")]);
        assert_eq!(
            lines(&near, "p-web-1"),
            ["127.0.0.1 p-web-1 web", "172.18.0.4 api p-api-1"]
        );
        assert_eq!(doors(&near), ["api:8080 -> 127.0.0.1:8081"]);
        let mut alone = world(false, locals(), Vec::new());
        assert_eq!(
            lines(&alone, "p-web-1"),
            ["127.0.0.1 p-web-1 web", "127.70.0.1 api p-api-1"]
        );
        let opened = [
            "127.70.0.1:8080 -> 127.0.0.1:8081",
            "api:8080 -> 127.0.0.1:8081",
        ];
        assert_eq!(doors(&alone), opened);
        // Never before the service has its own port.
        alone.locals[0].heard.clear();
        assert_eq!(doors(&alone), ["api:8080 -> 127.0.0.1:8081"]);
    }

    #[test]
    fn what_listens_everywhere_needs_no_door_at_the_loopback_address() {
        let listens = ["0.0.0.0:9000", "127.0.0.1:9001", "127.0.0.1:8081"];
        let api = local("api", &[(8080, 8081), (9000, 9000), (9001, 9001)], &listens);
        let world = world(false, vec![api, local("web", &[], &[])], Vec::new());
        let all = doors(&world);
        let here: Vec<_> = all.iter().filter(|door| door.starts_with("127")).collect();
        assert_eq!(
            here,
            [
                "127.70.0.1:8080 -> 127.0.0.1:8081",
                "127.70.0.1:9001 -> 127.0.0.1:9001",
            ]
        );
    }

    #[test]
    fn what_has_only_ipv6_is_at_its_loopback_address_too() {
        let mut api = local("api", &[(80, 80)], &["[::1]:80"]);
        let web = local("web", &[], &[]);
        let names = ["127.0.0.1 api p-api-1 p-web-1 web", "::1 api p-api-1"];
        assert_eq!(
            lines(
                &world(true, vec![api.clone(), web.clone()], vec![]),
                "p-web-1"
            ),
            names
        );
        api.heard = vec![Heard {
            only_v6: true,
            ..heard("[::]:80")
        }];
        let world = world(true, vec![api, web], vec![]);
        assert_eq!(lines(&world, "p-web-1"), names);
        assert_eq!(doors(&world), ["api:80 -> [::1]:80"]);
    }

    #[test]
    fn replicas_share_their_service_and_those_that_listen_are_preferred() {
        let one = local("api", &[(8080, 8081)], &["127.0.0.1:8081"]);
        let mut two = local("api", &[(8080, 8082)], &["127.0.0.1:8082"]);
        two.instance = "p-api-2".into();
        let mut all = world(true, vec![one, two], Vec::new());
        assert_eq!(doors(&all)[1], "api:8080 -> 127.0.0.1:8081 127.0.0.1:8082");
        all.locals[1].heard.clear();
        assert_eq!(doors(&all)[1], "api:8080 -> 127.0.0.1:8081");
        let mut run = all.locals.remove(0);
        run.one_off = true;
        run.names.places[0].aliases = vec!["p-api-run-1".into()];
        all.locals[0].life = Life::Down;
        all.locals.push(run);
        assert_eq!(
            doors(&all),
            Vec::<String>::new(),
            "one for a command is no replica"
        );
    }

    #[test]
    fn addresses_in_an_environment_lead_to_where_the_service_is_now() {
        let forward = |service: &str, port: u16, listen: &str| Forward {
            listen: listen.parse().unwrap(),
            service: service.into(),
            port,
        };
        let mut web = local("web", &[], &[]);
        web.names.way = Way::Environment;
        web.names.forwards = vec![
            forward("db", 5432, "127.70.0.2:5432"),
            forward("api", 8080, "127.70.0.1:8080"),
        ];
        let api = local("api", &[(8080, 8081)], &[]);
        let db = member("db", "n", &["172.18.0.2"], &[]);
        let beside = relay("web", "n", "172.18.0.5");
        let mut all = world(true, vec![api, web], vec![db, beside]);
        assert!(!routes(&all).hosts.contains_key("p-web-1"));
        let here = |world: &World| -> Vec<String> {
            let all = doors(world).into_iter();
            all.filter(|door| door.starts_with("127")).collect()
        };
        assert_eq!(here(&all), ["127.70.0.2:5432 -> 172.18.0.2:5432"]);
        all.locals[0].heard = vec![heard("0.0.0.0:8081")];
        assert_eq!(
            here(&all),
            [
                "127.70.0.1:8080 -> 127.0.0.1:8081",
                "127.70.0.2:5432 -> 172.18.0.2:5432",
            ]
        );
        all.networks.insert("n".into(), false);
        assert_eq!(here(&all)[1], "127.70.0.2:5432 -> web>172.18.0.2:5432");
    }

    #[test]
    fn services_without_a_common_network_do_not_see_each_other() {
        let mut api = local("api", &[(80, 80)], &[]);
        api.names.places[0].network = "m".into();
        let world = world(true, vec![api, local("web", &[], &[])], vec![]);
        assert_eq!(lines(&world, "p-web-1"), ["127.0.0.1 p-web-1 web"]);
    }

    #[test]
    fn the_machines_own_names_stay_its_own() {
        let mut api = local("api", &[], &[]);
        let odd = ["localhost", "a b", "", "#x", "api"];
        api.names.places[0].aliases = odd.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            lines(&world(true, vec![api], vec![]), "p-api-1"),
            ["127.0.0.1 api"]
        );
    }
}
