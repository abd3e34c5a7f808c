//! Where connections are taken in: in relays, at loopback addresses of services, and where values of environments
//! lead to; and where they go from there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::spots::Spot;
use super::{Destination, Door, Making};
use crate::forward::world::{Local, Member};

impl<'a> Making<'a> {
    /// A container reaches a process on its container port.
    pub(super) fn open_relays(&mut self) {
        let services: Vec<&str> = self.by_service.keys().copied().collect();
        for service in services {
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

    /// Listens at the loopback addresses of services, on what is not there by itself. A listener there keeps
    /// everybody else from listening on all addresses, so there is none before the service has its own.
    pub(super) fn open_loopback(&mut self) {
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
    pub(super) fn forward_for(&mut self, client: &'a Local) {
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

/// Those that listen, if any does.
fn best(spots: &[Spot]) -> Vec<Destination> {
    let any_heard = spots.iter().any(|spot| spot.heard);
    spots
        .iter()
        .filter(|spot| spot.heard || !any_heard)
        .map(|spot| Destination::Here(spot.at))
        .collect()
}
