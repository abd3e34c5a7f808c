//! The hashes by which Docker Compose tells whether a container, a network or a volume was made from
//! another configuration. Pure.
//!
//! SHA-256 of the JSON that Go's encoder makes of Docker Compose's own structs (2.40.3): fields in the
//! structs' order, empty ones left out, `<`, `>` and `&` escaped. With another hash it would take what
//! wharf made for outdated.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Network, Service, Volume};

impl Service {
    /// The hash of a container of it, with the services whose namespaces or volumes it shares replaced
    /// by their containers (docker/compose, `resolveServiceReferences`). `container` knows the id of the
    /// first container of a service; where it does not, the reference stays as it is written.
    pub fn hash_beside(&self, container: impl Fn(&str) -> Option<String>) -> String {
        let Some(form) = &self.shared_form else {
            return self.config_hash.clone();
        };
        let mut text = form.clone();
        for (key, mode) in [
            ("network_mode", &self.network_mode),
            ("ipc", &self.ipc),
            ("pid", &self.pid),
        ] {
            let name = mode
                .as_deref()
                .and_then(|mode| mode.strip_prefix("service:"));
            if let Some(id) = name.and_then(&container) {
                let old = mode.as_deref().unwrap_or_default();
                text = text.replace(
                    &format!("{}:{}", json!(key), json!(old)),
                    &format!("{}:{}", json!(key), json!(format!("container:{id}"))),
                );
            }
        }
        let resolved: Vec<String> = self
            .volumes_from
            .iter()
            .map(|entry| volumes_of(entry, &container))
            .collect();
        text = text.replace(
            &format!("\"volumes_from\":{}", json!(self.volumes_from)),
            &format!("\"volumes_from\":{}", json!(resolved)),
        );
        digest(&text)
    }
}

/// An entry of `volumes_from` as the engine takes it: `service[:mode]` by the container's id, and
/// `container:name[:mode]` by its name. Docker Compose drops the mode, and so does this.
pub fn volumes_of(entry: &str, container: impl Fn(&str) -> Option<String>) -> String {
    let mut parts = entry.split(':');
    let first = parts.next().unwrap_or_default();
    if first == "container" {
        return parts.next().unwrap_or_default().to_owned();
    }
    container(first).unwrap_or_else(|| entry.to_owned())
}

impl Network {
    /// The hash of its configuration, as its label has it.
    pub fn config_hash(&self) -> String {
        of_network(self)
    }
}

impl Volume {
    /// The hash of its configuration, as its label has it.
    pub fn config_hash(&self) -> String {
        of_volume(self)
    }
}

fn of_network(network: &Network) -> String {
    let pools: Vec<Value> = network
        .subnets
        .iter()
        .zip(
            network
                .reserved
                .iter()
                .map(Some)
                .chain(std::iter::repeat(None)),
        )
        .map(|((subnet, ip_range, gateway), reserved)| {
            let reserved = reserved.filter(|addresses| !addresses.is_empty());
            object([
                ("subnet", subnet.as_ref().map(|text| json!(text))),
                ("gateway", gateway.as_ref().map(|text| json!(text))),
                ("ip_range", ip_range.as_ref().map(|text| json!(text))),
                ("aux_addresses", reserved.map(|addresses| json!(addresses))),
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
    digest_of(&object([
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

fn of_volume(volume: &Volume) -> String {
    let driver = volume.driver.as_deref().unwrap_or("local");
    digest_of(&object([
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

fn digest_of(value: &Value) -> String {
    digest(&escaped(&value.to_string()))
}

/// JSON as Go's encoder escapes it.
pub(crate) fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a text cannot fail.
                let _written = write!(escaped, "\\u{:04x}", u32::from(c));
            }
            _ => escaped.push(c),
        }
    }
    escaped
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn digest(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text) {
        for digit in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    hex
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
