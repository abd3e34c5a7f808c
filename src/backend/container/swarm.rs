//! The services of a swarm, as an engine lists them: what they publish, and what ends one.
//!
//! Reads a reply; asks nobody.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

use super::observe;
use crate::port::holder::{ContainerFacts, Published};
use crate::port::one_line;

/// On Swarm services: the stack they belong to.
const STACK: &str = "com.docker.stack.namespace";

/// Why stopping one of its containers does not release a port.
pub(super) fn kept_by_swarm(service: &str) -> String {
    format!("Swarm would start another task: docker service rm {service}")
}

/// One entry of `GET /services`.
#[derive(Deserialize)]
pub(super) struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Spec")]
    spec: ServiceSpec,
    #[serde(rename = "Endpoint", default)]
    endpoint: ServiceEndpoint,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceSpec {
    name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    task_template: TaskTemplate,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskTemplate {
    #[serde(default)]
    container_spec: Option<ContainerSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerSpec {
    #[serde(default)]
    image: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceEndpoint {
    #[serde(default)]
    ports: Option<Vec<ServicePort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServicePort {
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    published_port: u16,
    #[serde(default)]
    publish_mode: String,
}

impl Service {
    /// The ports that the swarm's ingress network publishes for it, on all addresses of every node. Those
    /// in host mode are published by the tasks' containers themselves.
    pub(super) fn published(self, engine: &str) -> Vec<Published> {
        let labels = self.spec.labels.unwrap_or_default();
        let facts = ContainerFacts {
            id: self.id,
            name: self.spec.name.clone(),
            image: self
                .spec
                .task_template
                .container_spec
                .map(|spec| spec.image)
                .unwrap_or_default(),
            command: String::new(),
            project: labels.get(STACK).map(String::as_str).map(one_line),
            service: Some(self.spec.name),
            created: 0,
            engine: engine.to_owned(),
            removal: None,
        };
        let any = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        let mut ports = Vec::new();
        for port in self.endpoint.ports.unwrap_or_default() {
            let Some(protocol) = observe::protocol(&port.protocol) else {
                continue;
            };
            if port.published_port == 0 || port.publish_mode == "host" {
                continue;
            }
            ports.extend(any.map(|ip| Published {
                container: facts.clone(),
                ip,
                port: port.published_port,
                protocol,
                kept: Some(kept_by_swarm(&facts.name)),
                forwarded: false,
            }));
        }
        ports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_swarm_service_publishes_is_read() {
        let service: Service = serde_json::from_str(
            r#"{"ID":"s1","Spec":{"Name":"shop_web","Labels":{"com.docker.stack.namespace":"shop"},"TaskTemplate":{"ContainerSpec":{"Image":"nginx"}}},
               "Endpoint":{"Ports":[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"},{"Protocol":"tcp","TargetPort":81,"PublishedPort":8081,"PublishMode":"host"}]}}"#,
        )
        .unwrap();
        let ports = service.published("unix:///x");
        assert_eq!(ports.len(), 2);
        assert!(ports.iter().all(|port| {
            port.port == 8080
                && port.container.project.as_deref() == Some("shop")
                && port
                    .kept
                    .as_deref()
                    .is_some_and(|why| why.contains("docker service rm shop_web"))
        }));
    }
}
