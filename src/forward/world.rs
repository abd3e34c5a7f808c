//! What is, as far as names go: the local instances of a project, where they listen, and who is on their
//! networks. Data; `gather` puts it together from what ledger, kernel and engine said.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::container::{Neighbourhood, Spot};
use crate::backend::process::{Look, Record, status_by};
use crate::naming::{Names, Role};
use crate::port::claim::Protocol;
use crate::state::Status;

/// For how long a look at a process is good while a start or an end may be under way.
const MOMENT: Duration = Duration::from_millis(100);

/// None is when the ledger has said nothing else for as long.
const SETTLED: Duration = Duration::from_secs(1);

/// For how long it is good afterwards: who keeps the run notes its end, and only where nobody is left who could does a
/// look tell more. With a hundred services these looks are most of what a forwarder does in the first seconds.
const WHILE: Duration = Duration::from_secs(15);

/// A ledger entry, and what has become of its run.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: Arc<Record>,
    pub(super) life: Life,
    /// When that was looked at.
    looked: Instant,
    /// Since when the ledger says so.
    since: Instant,
}

impl Entry {
    /// The entries as they are now. Each costs a look at its process: one that was looked at a moment ago, and
    /// has not been written since, is not looked at again.
    pub(super) fn refresh(records: Vec<Arc<Record>>, before: &[Self]) -> Vec<Self> {
        let known: BTreeMap<&str, &Self> = before
            .iter()
            .map(|entry| (entry.record.spec.name.as_str(), entry))
            .collect();
        let now = Instant::now();
        let look = Look::default();
        let is_good = |entry: &Self| {
            let is_settled = now.duration_since(entry.since) >= SETTLED;
            let good = if is_settled { WHILE } else { MOMENT };
            now.duration_since(entry.looked) < good
        };
        records
            .into_iter()
            .map(|record| {
                let same = known
                    .get(record.spec.name.as_str())
                    .filter(|entry| Arc::ptr_eq(&entry.record, &record));
                match same {
                    Some(entry) if is_good(entry) => (*entry).clone(),
                    Some(_) | None => Self {
                        life: life(&record, &look),
                        looked: now,
                        since: same.map_or(now, |entry| entry.since),
                        record,
                    },
                }
            })
            .collect()
    }
}

/// Everything that routes are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct World {
    /// The project's local instances, by name.
    pub(super) locals: Vec<Local>,
    /// Networks that exist; whether this machine has a leg there.
    pub(super) networks: BTreeMap<String, bool>,
    /// Running containers on them, those of other projects included, sorted.
    pub(super) members: Vec<Member>,
}

/// A local instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Local {
    /// Its name.
    pub(super) instance: String,
    /// Its service.
    pub(super) service: String,
    /// Made for one command.
    pub(super) one_off: bool,
    /// How it is.
    pub(super) life: Life,
    /// What it has to do with names.
    pub(super) names: Names,
    /// Its TCP ports: what the compose file says, and what it has on this machine.
    pub(super) ports: Vec<(u16, u16)>,
    /// Where its processes listen, sorted.
    pub(super) heard: Vec<Heard>,
    /// It is about to listen on its ports.
    pub(super) is_starting: bool,
}

/// How an instance is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Life {
    /// Not there.
    #[default]
    Down,
    /// About to be started again: it keeps its names.
    Restarting,
    /// There.
    Up,
}

/// A listening TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Heard {
    /// Its port.
    pub(super) port: u16,
    /// Its address.
    pub(super) ip: IpAddr,
    /// `IPV6_V6ONLY`.
    pub(super) only_v6: bool,
}

/// A running container.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    /// The service, if the project is ours.
    pub(super) service: Option<String>,
    /// It is the relay of that service.
    pub(super) is_relay: bool,
    /// Other containers live in its network namespace.
    pub(super) lends: bool,
    /// Its TCP ports.
    pub(super) exposed: Vec<u16>,
    /// Its addresses and names, by network.
    pub(super) places: BTreeMap<String, (Vec<IpAddr>, Vec<String>)>,
}

impl Heard {
    /// Whether a connection to any loopback address of IPv4 gets there.
    pub(super) fn has_all_of_v4(self) -> bool {
        self.ip.is_unspecified() && !(self.ip.is_ipv6() && self.only_v6)
    }
}

impl World {
    /// Puts together what was found.
    pub(super) fn gather(
        project: &str,
        entries: &[Entry],
        heard: &BTreeMap<String, Vec<Heard>>,
        starting: &BTreeSet<String>,
        around: &Neighbourhood,
    ) -> Self {
        let locals = entries
            .iter()
            .filter(|entry| Role::of(&entry.record.spec.labels).is_none())
            .map(|entry| local(entry, heard, starting))
            .collect();
        let networks = around
            .networks
            .iter()
            .map(|(name, network)| (name.clone(), network.direct))
            .collect();
        let mut members: Vec<Member> = around
            .neighbours
            .values()
            .map(|neighbour| {
                let ours = neighbour.project == project && !neighbour.service.is_empty();
                let place = |spot: &Spot| (spot.addresses.clone(), spot.names.clone());
                Member {
                    service: ours.then(|| neighbour.service.clone()),
                    is_relay: ours && Role::of(&neighbour.labels) == Some(Role::Relay),
                    lends: neighbour.lends,
                    exposed: neighbour.exposed.clone(),
                    places: neighbour
                        .places
                        .iter()
                        .map(|(network, spot)| (network.clone(), place(spot)))
                        .collect(),
                }
            })
            .collect();
        members.sort();
        Self {
            locals,
            networks,
            members,
        }
    }
}

/// The networks that local instances are on.
pub(super) fn networks(entries: &[Entry]) -> BTreeSet<String> {
    let records = entries.iter().map(|entry| &entry.record);
    let places = records.flat_map(|record| &record.spec.names.places);
    places.map(|place| place.network.clone()).collect()
}

/// How the ledger and the system say that an instance is.
fn life(record: &Record, look: &Look) -> Life {
    match status_by(record, look) {
        Status::Running | Status::Paused => Life::Up,
        Status::Restarting => Life::Restarting,
        Status::Created | Status::Removing | Status::Exited { .. } | Status::Dead => Life::Down,
    }
}

fn local(
    entry: &Entry,
    heard: &BTreeMap<String, Vec<Heard>>,
    starting: &BTreeSet<String>,
) -> Local {
    let Entry { record, life, .. } = entry;
    let life = *life;
    let spec = &record.spec;
    let mut ports: Vec<(u16, u16)> = spec
        .ports
        .iter()
        .filter(|port| port.protocol == Protocol::Tcp)
        .map(|port| (port.target, port.published.unwrap_or(port.target)))
        .collect();
    ports.sort_unstable();
    ports.dedup_by_key(|(target, _)| *target);
    Local {
        instance: spec.name.clone(),
        service: spec.service.clone(),
        one_off: spec.number == 0,
        life,
        names: spec.names.clone(),
        ports,
        heard: heard.get(record.id()).cloned().unwrap_or_default(),
        is_starting: life == Life::Restarting || starting.contains(&spec.name),
    }
}
