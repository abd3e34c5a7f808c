//! `use_api_socket`: the engine's socket and the credentials for registries inside a container.

use std::borrow::Cow;

use super::model::SOCKET_CONFIG;
use super::tree::{Map, Node, Value};
use super::typed::flag;

/// Where the engine listens inside the container, as on the host.
const SOCKET: &str = "/var/run/docker.sock";

/// The directory of the client's configuration inside the container.
const CONFIGURATION: &str = "/run/secrets/docker";

/// The service with what `use_api_socket` stands for, as Docker Compose writes it out before it makes a
/// container (and takes its hash).
pub(crate) fn with_engine_socket(service: &Node) -> Cow<'_, Node> {
    if !flag(service, "use_api_socket") {
        return Cow::Borrowed(service);
    }
    let mut service = service.clone();
    if let Some(map) = service.as_map_mut() {
        let entry = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            let map: Map = pairs
                .map(|(key, value)| ((*key).to_owned(), Node::new(*value)))
                .collect();
            Node::new(map)
        };
        push(
            map,
            "volumes",
            entry(&[("type", "bind"), ("source", SOCKET), ("target", SOCKET)]),
        );
        push(
            map,
            "configs",
            entry(&[
                ("source", SOCKET_CONFIG),
                ("target", &format!("{CONFIGURATION}/config.json")),
            ]),
        );
        let environment = map
            .entry("environment".to_owned())
            .or_insert_with(|| Node::new(Map::new()));
        if let Some(environment) = environment.as_map_mut() {
            environment
                .entry("DOCKER_CONFIG".to_owned())
                .or_insert_with(|| Node::new(CONFIGURATION));
        }
    }
    Cow::Owned(service)
}

fn push(map: &mut Map, key: &str, item: Node) {
    let list = map
        .entry(key.to_owned())
        .or_insert_with(|| Node::new(Vec::new()));
    if let Value::List(items) = &mut list.value {
        items.push(item);
    }
}
