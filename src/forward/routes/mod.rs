//! WORLD → ROUTES: which names each local instance sees, where connections are taken in, and where they go.
//! Pure: the same world gives the same routes.

mod listeners;
mod seen;
mod spots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use spots::{Spot, spots};

use super::world::{Life, Local, World};

/// What should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    /// For each instance that has a hosts file: addresses and the names that stand for them.
    pub(super) hosts: BTreeMap<String, Lines>,
    /// Where connections are taken in, and where they may go, all equally good.
    pub(super) doors: BTreeMap<Door, Vec<Destination>>,
}

/// Addresses and their names. Those who see the same share them.
pub(super) type Lines = Arc<Vec<(IpAddr, Vec<String>)>>;

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

/// What should be in this world.
pub(super) fn routes(world: &World) -> Routes {
    let mut making = Making {
        world,
        spots: world
            .locals
            .iter()
            .map(|local| spots(local, &world.locals))
            .collect(),
        by_service: BTreeMap::new(),
        routes: Routes::default(),
        by_loopback: BTreeMap::new(),
    };
    for (at, local) in world.locals.iter().enumerate() {
        let found = making.by_service.entry(local.service.as_str());
        found.or_default().push(at);
    }
    making.open_relays();
    making.name();
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
    /// For each service: where its local instances stand in `world.locals`.
    by_service: BTreeMap<&'a str, Vec<usize>>,
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
        let found = self.by_service.get(service).map_or(&[][..], Vec::as_slice);
        found
            .iter()
            .filter_map(|at| Some((self.world.locals.get(*at)?, self.spots.get(*at)?)))
            .filter(|(local, _)| stands_for_service(local))
    }

    /// Whether this machine has a leg in a network.
    fn is_near(&self, network: &str) -> bool {
        self.world.networks.get(network) == Some(&true)
    }
}

/// Whether connections to a service may go to an instance.
fn stands_for_service(local: &Local) -> bool {
    let has_its_name = |place: &crate::naming::Place| place.aliases.contains(&local.service);
    local.life == Life::Up && (!local.one_off || local.names.places.iter().any(has_its_name))
}
