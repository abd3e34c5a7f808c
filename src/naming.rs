//! How services name each other across backends, as data: what the planner settles, the ledger keeps and the
//! forwarder acts on. Pure; looks nothing up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The label (and ledger label) of instances that are wharf's own and no service's.
pub const ROLE: &str = "wharf.role";

/// The service name under which a project's forwarder stands in the ledger. No compose file can have it:
/// service names hold no blanks.
pub const FORWARDER: &str = "wharf forwarder";

/// A project name from any text: lower-case, only letters, digits, `_` and `-`, no mark in front.
pub(crate) fn normal_name(text: &str) -> String {
    text.to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect::<String>()
        .trim_start_matches(['_', '-'])
        .to_owned()
}

/// The name of a project's forwarder among its instances.
pub fn forwarder_name(project: &str) -> String {
    format!("{project}-wharf-forwarder-1")
}

/// Docker Compose's label of a container that runs beside those of its service.
pub const HOOK: &str = "com.docker.compose.hook";

/// Its value on a container that runs one of the commands of `pre_start`.
pub const PRE_START: &str = "pre_start";

/// What an instance is for, when it is not a service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A container that has the names of a service which runs as a process.
    Relay,
    /// The process that carries connections between names and services.
    Forwarder,
}

impl Role {
    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Forwarder => "forwarder",
        }
    }

    /// Read from an instance's labels; `None` for instances of services.
    pub fn of(labels: &BTreeMap<String, String>) -> Option<Self> {
        let word = labels.get(ROLE)?;
        [Self::Relay, Self::Forwarder]
            .into_iter()
            .find(|role| role.word() == word)
    }
}

/// How a local process finds services by their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// By a hosts file of its own over `/etc/hosts`.
    Hosts,
    /// By addresses in place of names in the values of its environment.
    Environment,
    /// Not at all.
    #[default]
    Off,
}

/// How a relay and the forwarder reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Over a socket in a directory that is mounted into the relay.
    Socket,
    /// Over the standard streams of a command that the engine runs in the relay.
    Stream,
}

/// What an instance of a local service has to do with names. In its ledger entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// How it finds others.
    pub way: Way,
    /// Its hosts file, where that is the way; settled when the instance is made.
    pub hosts: Option<PathBuf>,
    /// The networks it is on, with the names that it has there.
    pub places: Vec<Place>,
    /// TCP ports that it has for others besides its published ones: `expose`.
    pub exposed: Vec<u16>,
    /// What the loopback addresses of services are made from; empty where they all stand in `addresses`.
    pub scope: String,
    /// The loopback addresses that are not what the scope gives.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// Where the values of its environment lead to; the forwarder listens there.
    pub forwards: Vec<Forward>,
    /// Names that it alone has for services: `links`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
    /// Names that it alone has for addresses: `extra_hosts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<(String, IpAddr)>,
}

impl Names {
    /// The loopback address of a service.
    pub fn address(&self, service: &str) -> Option<Ipv4Addr> {
        let given = self.addresses.get(service).copied();
        given.or_else(|| (!self.scope.is_empty()).then(|| loopback(&self.scope, service, 0)))
    }
}

/// One network and the names that an instance has in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The engine's name of the network.
    pub network: String,
    /// The service's name, `container_name`, the instance's name, declared aliases.
    pub aliases: Vec<String>,
}

/// An address that stands for a service's port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Forward {
    /// A loopback address and port.
    pub listen: SocketAddr,
    /// The service.
    pub service: String,
    /// Its container port.
    pub port: u16,
}

/// What this machine and the engine allow where local services are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linkage {
    /// How a local process can be given names here.
    pub way: Way,
    /// How relays can be reached; `None`: no engine was asked.
    pub reach: Option<Reach>,
    /// The engine's address, empty without one.
    pub endpoint: String,
    /// The image that relays are made of.
    pub relay_image: String,
    /// The directory that has one for each relay.
    pub relays: PathBuf,
    /// User and group of this command.
    pub user: (u32, u32),
}

/// How much of an id is in front of the name of a container that waits.
const ID: usize = 12;

/// The name under which a container waits for its own: until it is finished, or until `old`, which has that name,
/// is gone. Docker Compose does the same.
pub fn waiting_name(old: &str, name: &str) -> String {
    format!("{}_{name}", old.get(..ID).unwrap_or(old))
}

/// The name that a container waits for; `None` if its name is its own.
pub fn waits_for(name: &str) -> Option<&str> {
    let (id, own) = name.split_once('_')?;
    (id.len() == ID && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(own)
}

/// Whether a container waits for the name of another one that is there: it is no replica, and goes with the next `up`.
pub fn is_left<'a>(name: &str, mut others: impl Iterator<Item = &'a str>) -> bool {
    waits_for(name).is_some_and(|own| others.any(|other| other == own))
}

/// A loopback address for each service, the same at every call with the same `scope` (something that no other
/// project has) and services.
pub fn loopback_addresses<'a>(
    scope: &str,
    services: impl IntoIterator<Item = &'a str>,
) -> BTreeMap<String, Ipv4Addr> {
    let services: BTreeSet<&str> = services.into_iter().collect();
    let mut taken = BTreeSet::new();
    let mut addresses = BTreeMap::new();
    for service in services {
        let mut round = 0_u32;
        let address = loop {
            let address = loopback(scope, service, round);
            if taken.insert(address) {
                break address;
            }
            round = round.wrapping_add(1);
        };
        addresses.insert(service.to_owned(), address);
    }
    addresses
}

/// Those of the addresses that another service was given first, so that they are not what the scope gives.
pub fn moved(scope: &str, addresses: &BTreeMap<String, Ipv4Addr>) -> BTreeMap<String, Ipv4Addr> {
    addresses
        .iter()
        .filter(|(service, address)| loopback(scope, service, 0) != **address)
        .map(|(service, address)| (service.clone(), *address))
        .collect()
}

/// Whether an address is one that a service may be given.
pub fn may_be_loopback_of_service(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets(), [127, 64..=127, ..]))
}

/// In 127.64.0.0/10; never ends in 0 or 255, which some programs take for a network or for everybody.
fn loopback(scope: &str, service: &str, round: u32) -> Ipv4Addr {
    let mut hash = Sha256::new();
    for part in [scope.as_bytes(), service.as_bytes(), &round.to_be_bytes()] {
        hash.update(part);
        hash.update([0]);
    }
    let hash = hash.finalize();
    let byte = |at: usize| hash.get(at).copied().unwrap_or_default();
    Ipv4Addr::new(127, 64 | (byte(0) & 0x3f), byte(1), 1 + byte(2) % 254)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_needs_only_the_addresses_that_were_moved() {
        let services: Vec<String> = (0..5000).map(|number| format!("s{number}")).collect();
        let all = loopback_addresses("/a p", services.iter().map(String::as_str));
        let names = Names {
            scope: "/a p".to_owned(),
            addresses: moved("/a p", &all),
            ..Names::default()
        };
        // Two of so many services meet now and then.
        assert!(
            (1..50).contains(&names.addresses.len()),
            "{:?}",
            names.addresses
        );
        for service in &services {
            assert_eq!(names.address(service), all.get(service).copied());
        }
        // As older entries have it.
        let written = Names {
            addresses: all.clone(),
            ..Names::default()
        };
        assert_eq!(written.address("s7"), all.get("s7").copied());
        assert_eq!(written.address("other"), None);
    }

    #[test]
    fn a_name_that_waits_is_told_from_one_that_is_taken() {
        let id = "9f8e7d6c5b4a9f8e7d6c5b4a";
        assert_eq!(waits_for(&waiting_name(id, "p-web-1")), Some("p-web-1"));
        for own in ["p-web-1", "p_web_1", "my_9f8e7d6c5b4a-web-1"] {
            assert_eq!(waits_for(own), None, "{own}");
        }
    }

    #[test]
    fn who_waits_is_left_where_another_one_has_the_name() {
        let all = ["012345678901_p-a-1", "p-a-1", "012345678901_p-b-1"];
        let left = all.map(|name| is_left(name, all.into_iter()));
        assert_eq!(left, [true, false, false]);
    }

    #[test]
    fn every_service_has_an_address_of_its_own_and_keeps_it() {
        let names: Vec<String> = (0..2_000).map(|number| format!("s{number}")).collect();
        let all = loopback_addresses("/a p", names.iter().map(String::as_str));
        let distinct: BTreeSet<&Ipv4Addr> = all.values().collect();
        assert_eq!(distinct.len(), names.len());
        for address in all.values() {
            let [first, second, _, last] = address.octets();
            assert_eq!((first, second & 0xc0), (127, 64), "{address}");
            assert!(may_be_loopback_of_service((*address).into()));
            assert!(last != 0 && last != 255, "{address}");
        }
        assert_eq!(
            all,
            loopback_addresses("/a p", names.iter().map(String::as_str))
        );
        assert_ne!(
            all.get("s1"),
            loopback_addresses("/b p", ["s1"]).get("s1"),
            "another project"
        );
    }

    #[test]
    fn a_role_is_read_from_its_label() {
        let labels = |word: &str| BTreeMap::from([(ROLE.to_owned(), word.to_owned())]);
        assert_eq!(Role::of(&labels("relay")), Some(Role::Relay));
        assert_eq!(Role::of(&labels("forwarder")), Some(Role::Forwarder));
        assert_eq!(Role::of(&labels("else")), None);
        assert_eq!(Role::of(&BTreeMap::new()), None);
    }
}
