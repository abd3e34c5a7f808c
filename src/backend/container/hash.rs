//! The hashes by which Docker Compose tells whether a network or a volume was made from another
//! configuration. Pure.
//!
//! SHA-256 of the JSON that Go's encoder makes of Docker Compose's own structs (2.40.3): fields in the
//! structs' order, empty ones left out, `<`, `>` and `&` escaped. With another hash it would take what
//! wharf made for outdated.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::connect::hex;
use crate::project::model::{Network, Volume};

/// The hash of a network.
pub(super) fn of_network(network: &Network) -> String {
    let pools: Vec<Value> = network
        .subnets
        .iter()
        .map(|(subnet, ip_range, gateway)| {
            object([
                ("subnet", subnet.as_ref().map(|text| json!(text))),
                ("gateway", gateway.as_ref().map(|text| json!(text))),
                ("ip_range", ip_range.as_ref().map(|text| json!(text))),
            ])
        })
        .collect();
    let ipam = object([
        (
            "driver",
            network.ipam_driver.as_ref().map(|text| json!(text)),
        ),
        ("config", (!pools.is_empty()).then(|| json!(pools))),
    ]);
    digest(&object([
        ("name", Some(json!(network.name))),
        ("driver", network.driver.as_ref().map(|text| json!(text))),
        (
            "driver_opts",
            (!network.driver_opts.is_empty()).then(|| json!(network.driver_opts)),
        ),
        ("ipam", Some(ipam)),
        ("external", network.external.then(|| json!(true))),
        ("internal", network.internal.then(|| json!(true))),
        ("attachable", network.attachable.then(|| json!(true))),
        (
            "labels",
            (!network.labels.is_empty()).then(|| json!(network.labels)),
        ),
        ("enable_ipv4", network.enable_ipv4.map(|on| json!(on))),
        ("enable_ipv6", network.enable_ipv6.map(|on| json!(on))),
    ]))
}

/// The hash of a volume.
pub(super) fn of_volume(volume: &Volume) -> String {
    let driver = volume.driver.as_deref().unwrap_or("local");
    digest(&object([
        ("name", Some(json!(volume.name))),
        ("driver", Some(json!(driver))),
        (
            "driver_opts",
            (!volume.driver_opts.is_empty()).then(|| json!(volume.driver_opts)),
        ),
        ("external", volume.external.then(|| json!(true))),
        (
            "labels",
            (!volume.labels.is_empty()).then(|| json!(volume.labels)),
        ),
    ]))
}

fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let present: Map<String, Value> = fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    Value::Object(present)
}

fn digest(value: &Value) -> String {
    let text = value
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    hex(&Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// The expected values were read off networks and volumes that Docker Compose 2.40.3 made.
    #[test]
    fn hashes_are_those_of_docker_compose() {
        let plain = Network {
            name: "stock_default".to_owned(),
            ..Network::default()
        };
        assert_eq!(
            of_network(&plain),
            "a9f1ee3306c9a07c52c120c91d3da7288c5a167e62d659f63bc289bc32ebac9d"
        );
        let full = Network {
            name: "nn".to_owned(),
            driver: Some("bridge".to_owned()),
            driver_opts: map(&[("z", "1"), ("a", "5")]),
            internal: true,
            attachable: true,
            labels: map(&[("b", "<é>"), ("z", "1")]),
            subnets: vec![(
                Some("172.31.0.0/24".to_owned()),
                Some("172.31.0.128/25".to_owned()),
                Some("172.31.0.1".to_owned()),
            )],
            ipam_driver: Some("default".to_owned()),
            enable_ipv6: Some(false),
            ..Network::default()
        };
        assert_eq!(of_network(&full), FULL_NETWORK);
        let volume = Volume {
            name: "my-data".to_owned(),
            driver: Some("local".to_owned()),
            driver_opts: map(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=<1m>&")]),
            ..Volume::default()
        };
        assert_eq!(
            of_volume(&volume),
            "65f8f9ddfb9ea6d589fb82377e215d796a1b404f4234ddf06873a5e2fafb65c3"
        );
        let bare = Volume {
            name: "qq_data".to_owned(),
            ..Volume::default()
        };
        assert_eq!(
            of_volume(&bare),
            "4bdecbb85a71576f693d02fd52596075e153d523820242318f8356b40561e51a"
        );
    }

    const FULL_NETWORK: &str = "cc9741a1fbdb815b5808b0bc161714dbd8b5035e88ed75357979907378758e12";
}
