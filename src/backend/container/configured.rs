//! How a container was made, as its engine tells: the ports that it asks for, and what is lost when it stops. Reads.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::observe;
use super::reply::Binding;
use crate::port::attribute::Choosing;
use crate::port::holder::{AnonymousVolume, ContainerFacts, Published, Removal};
use crate::port::one_line;

/// What `GET /containers/ID/json` says about how a container was made.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Configured {
    #[serde(default)]
    host_config: HostConfig,
    #[serde(default)]
    mounts: Vec<Mount>,
}

/// What is mounted in a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    destination: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    port_bindings: Option<BTreeMap<String, Option<Vec<Binding>>>>,
    #[serde(default)]
    auto_remove: bool,
    /// `SOURCE:TARGET[:OPTIONS]`; a volume that stands here was given by its name.
    #[serde(default)]
    binds: Option<Vec<String>>,
}

impl Configured {
    /// The ports inside for which no port of the host was given.
    pub(super) fn choosing(&self, container: &ContainerFacts) -> Vec<Choosing> {
        let bindings = self.host_config.port_bindings.iter().flatten();
        let open = bindings.filter(|(_, bindings)| {
            let bindings = bindings.as_deref().unwrap_or_default();
            let is_open = |it: &Binding| matches!(it.host_port.as_str(), "" | "0");
            bindings.is_empty() || bindings.iter().any(is_open)
        });
        open.filter_map(|(inside, _)| {
            let (port, protocol) = inside.split_once('/').unwrap_or((inside, "tcp"));
            Some(Choosing {
                container: container.clone(),
                port: port.parse().ok()?,
                protocol: observe::protocol(protocol)?,
            })
        })
        .collect()
    }

    pub(super) fn removal(self) -> Option<Removal> {
        let binds = self.host_config.binds.unwrap_or_default();
        // The engine makes up such names, of 64 hexadecimal digits.
        let is_anonymous = |mount: &Mount| {
            mount.kind == "volume"
                && mount.name.len() == 64
                && mount.name.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !binds.iter().any(|bind| bind.starts_with(&mount.name))
        };
        let volumes = self.mounts.into_iter().filter(is_anonymous);
        self.host_config.auto_remove.then(|| Removal {
            volumes: volumes
                .map(|mount| AnonymousVolume {
                    target: one_line(&mount.destination),
                    name: mount.name,
                })
                .collect(),
        })
    }

    pub(super) fn published(self, container: &ContainerFacts) -> Vec<Published> {
        let mut ports = Vec::new();
        for (port, bindings) in self.host_config.port_bindings.unwrap_or_default() {
            let protocol = port
                .rsplit_once('/')
                .map_or("tcp", |(_, protocol)| protocol);
            let Some(protocol) = observe::protocol(protocol) else {
                continue;
            };
            for binding in bindings.unwrap_or_default() {
                let host_port = binding.host_port.parse().ok().filter(|port| *port != 0);
                let (Some(port), Some(ip)) = (host_port, observe::address(&binding.host_ip)) else {
                    continue;
                };
                ports.push(Published {
                    container: container.clone(),
                    ip,
                    port,
                    protocol,
                    kept: None,
                    forwarded: false,
                });
            }
        }
        ports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(host: &str, mounts: &str) -> Configured {
        let text = format!(r#"{{"HostConfig":{host},"Mounts":{mounts}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn anonymous_volumes_are_lost_with_a_container_that_is_removed() {
        let made_up = "0123456789abcdef".repeat(4);
        let given = "fedcba9876543210".repeat(4);
        let mounts = format!(
            r#"[{{"Type":"volume","Name":"{made_up}","Destination":"/data"}},
                {{"Type":"volume","Name":"{given}","Destination":"/given"}},
                {{"Type":"volume","Name":"pg","Destination":"/pg"}},
                {{"Type":"bind","Source":"/srv","Destination":"/srv"}}]"#
        );
        let host = |removed| format!(r#"{{"AutoRemove":{removed},"Binds":["{given}:/given"]}}"#);
        let removal = configured(&host(true), &mounts).removal().unwrap();
        let lost: Vec<(&str, &str)> = removal
            .volumes
            .iter()
            .map(|volume| (volume.target.as_str(), volume.name.as_str()))
            .collect();
        assert_eq!(lost, [("/data", made_up.as_str())]);
        assert_eq!(configured(&host(false), &mounts).removal(), None);
    }

    #[test]
    fn ports_that_an_engine_chooses_are_told_by_the_port_inside() {
        let container = ContainerFacts::named("web");
        let host = r#"{"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":""}],"53/udp":null,"81/tcp":[{"HostIp":"","HostPort":"81"}]}}"#;
        let choosing = configured(host, "[]").choosing(&container);
        let ports: Vec<(u16, String)> = choosing
            .iter()
            .map(|it| (it.port, it.protocol.to_string()))
            .collect();
        assert_eq!(ports, [(53, "udp".to_owned()), (80, "tcp".to_owned())]);
    }
}
