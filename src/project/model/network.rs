//! Top-level `networks`, `volumes`, `secrets`, `configs`, and a service's place in a network.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A network of the project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// The key in the compose file.
    pub key: String,
    /// The engine's name: `P_key` unless set, or the external network's own.
    pub name: String,
    /// Made by somebody else: must exist, is never removed.
    pub external: bool,
    /// The driver; `None`: the engine's default.
    pub driver: Option<String>,
    /// Its options.
    pub driver_opts: BTreeMap<String, String>,
    /// No way out.
    pub internal: bool,
    /// Containers outside the project may join.
    pub attachable: bool,
    /// IPv4 addresses.
    pub enable_ipv4: Option<bool>,
    /// IPv6 addresses.
    pub enable_ipv6: Option<bool>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The address pools: subnet, ip range, gateway.
    pub subnets: Vec<(Option<String>, Option<String>, Option<String>)>,
    /// Addresses that are not given out, by name, for each pool.
    pub reserved: Vec<BTreeMap<String, String>>,
    /// The IPAM driver.
    pub ipam_driver: Option<String>,
}

/// A volume of the project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// The key in the compose file.
    pub key: String,
    /// The engine's name: `P_key` unless set, or the external volume's own.
    pub name: String,
    /// Made by somebody else.
    pub external: bool,
    /// The driver.
    pub driver: Option<String>,
    /// Its options.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A secret or a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The key in the compose file.
    pub key: String,
    /// Its name outside.
    pub name: String,
    /// Where the content comes from.
    pub source: StoreSource,
}

/// Where the content of a secret or config comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSource {
    /// A file, absolute.
    File(PathBuf),
    /// The value of a variable, already looked up (`None`: unset).
    Environment(String, Option<String>),
    /// The text itself (configs only).
    Content(String),
    /// Kept by the platform.
    External,
}

/// A service's place in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkAttachment {
    /// More names.
    pub aliases: Vec<String>,
    /// A fixed address.
    pub ipv4_address: Option<String>,
    /// A fixed address.
    pub ipv6_address: Option<String>,
    /// Fixed link-local addresses.
    pub link_local_ips: Vec<String>,
    /// A fixed hardware address.
    pub mac_address: Option<String>,
    /// The highest joins first.
    pub priority: i64,
    /// The highest is the way out.
    pub gw_priority: i64,
    /// The interface's name in the container.
    pub interface_name: Option<String>,
    /// Driver options.
    pub driver_opts: BTreeMap<String, String>,
}
