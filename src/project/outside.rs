//! The cast tree → the model of what services share: networks, volumes, secrets and configs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::model::{Network, Store, StoreSource, Volume};
use super::tree::Node;
use super::typed::{flag, items, maybe_flag, owned, pairs};

/// A network of the project.
pub(crate) fn network(key: &str, node: &Node) -> Network {
    let empty = Node::default();
    let ipam = node.get("ipam").unwrap_or(&empty);
    Network {
        key: key.to_owned(),
        name: owned(node, "name").unwrap_or_else(|| key.to_owned()),
        external: flag(node, "external"),
        driver: owned(node, "driver"),
        driver_opts: pairs(node, "driver_opts"),
        internal: flag(node, "internal"),
        attachable: flag(node, "attachable"),
        enable_ipv4: maybe_flag(node, "enable_ipv4"),
        enable_ipv6: maybe_flag(node, "enable_ipv6"),
        labels: pairs(node, "labels"),
        subnets: items(ipam, "config")
            .iter()
            .map(|pool| {
                (
                    owned(pool, "subnet"),
                    owned(pool, "ip_range"),
                    owned(pool, "gateway"),
                )
            })
            .collect(),
        reserved: items(ipam, "config")
            .iter()
            .map(|pool| pairs(pool, "aux_addresses"))
            .collect(),
        ipam_driver: owned(ipam, "driver"),
    }
}

/// A volume of the project.
pub(crate) fn volume(key: &str, node: &Node) -> Volume {
    Volume {
        key: key.to_owned(),
        name: owned(node, "name").unwrap_or_else(|| key.to_owned()),
        external: flag(node, "external"),
        driver: owned(node, "driver"),
        driver_opts: pairs(node, "driver_opts"),
        labels: pairs(node, "labels"),
    }
}

/// A secret or config of the project.
pub(crate) fn store(key: &str, node: &Node, variables: &BTreeMap<String, String>) -> Store {
    let source = if flag(node, "external") {
        StoreSource::External
    } else if let Some(file) = owned(node, "file") {
        StoreSource::File(PathBuf::from(file))
    } else if let Some(variable) = owned(node, "environment") {
        let value = variables.get(&variable).cloned();
        StoreSource::Environment(variable, value)
    } else {
        StoreSource::Content(node.text("content").unwrap_or_default().to_owned())
    };
    Store {
        key: key.to_owned(),
        name: owned(node, "name").unwrap_or_else(|| key.to_owned()),
        source,
    }
}
