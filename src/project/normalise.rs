//! What a project means beyond what it says: the implicit network, names, build defaults and the
//! dependencies that other attributes imply (compose specification, and docker/compose's loader).
//!
//! Works on the canonical tree, once all files are merged. Reads nothing.

use std::collections::BTreeMap;

use super::tree::{Map, Node, Value};

/// Fills in what is implied. `name` is the project's.
pub(crate) fn normalise(node: &mut Node, name: &str, variables: &BTreeMap<String, String>) {
    let Some(top) = node.as_map_mut() else { return };
    top.insert("name".to_owned(), Node::new(name));
    let mut uses_default = false;
    if let Some(services) = top.get_mut("services").and_then(Node::as_map_mut) {
        for service in services.values_mut() {
            if let Some(service) = service.as_map_mut() {
                uses_default |= join_default(service);
                service_defaults(service, variables);
                implied_dependencies(service);
            }
        }
    }
    if uses_default {
        let networks = top
            .entry("networks".to_owned())
            .or_insert_with(|| Node::new(Map::new()));
        if networks.is_null() {
            networks.value = Value::Map(Map::new());
        }
        if let Some(networks) = networks.as_map_mut() {
            networks
                .entry("default".to_owned())
                .or_insert_with(|| Node::new(Value::Null));
        }
    }
    name_resources(top, name);
}

/// Whether a service is on the default network; one that names none joins it.
fn join_default(service: &mut Map) -> bool {
    if service.contains_key("network_mode") || service.contains_key("provider") {
        return false;
    }
    match service.get("networks").and_then(Node::as_map) {
        Some(networks) if !networks.is_empty() => networks.contains_key("default"),
        _ => {
            let default = Map::from([("default".to_owned(), Node::new(Value::Null))]);
            service.insert("networks".to_owned(), Node::new(default));
            true
        }
    }
}

fn service_defaults(service: &mut Map, variables: &BTreeMap<String, String>) {
    if let Some(policy) = service.get_mut("pull_policy")
        && policy.as_text() == Some("if_not_present")
    {
        policy.value = "missing".into();
    }
    if let Some(environment) = service.get_mut("environment") {
        resolve_values(environment, variables, true);
    }
    let Some(build) = service.get_mut("build").and_then(Node::as_map_mut) else {
        return;
    };
    let given = |build: &Map, key: &str| build.get(key).is_some_and(|node| !node.is_null());
    if !given(build, "context") {
        build.insert("context".to_owned(), Node::new("."));
    }
    if !given(build, "dockerfile") && !given(build, "dockerfile_inline") {
        build.insert("dockerfile".to_owned(), Node::new("Dockerfile"));
    }
    if let Some(args) = build.get_mut("args") {
        resolve_values(args, variables, false);
    }
}

/// Gives entries without a value that of the environment; others are kept as they are or dropped.
fn resolve_values(node: &mut Node, variables: &BTreeMap<String, String>, keep: bool) {
    match &mut node.value {
        Value::Map(map) => {
            map.retain(|key, child| {
                if !child.is_null() {
                    return true;
                }
                match variables.get(key) {
                    Some(value) => {
                        child.value = value.as_str().into();
                        true
                    }
                    None => keep,
                }
            });
        }
        Value::List(list) => {
            list.retain_mut(|item| {
                let Some(text) = item.as_text() else {
                    return true;
                };
                if text.contains('=') {
                    return true;
                }
                match variables.get(text) {
                    Some(value) => {
                        item.value = format!("{text}={value}").into();
                        true
                    }
                    None => keep,
                }
            });
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Date(_) => {}
    }
}

/// `links`, `volumes_from` and shared namespaces need their services first.
fn implied_dependencies(service: &mut Map) {
    let mut implied: Vec<(String, bool, Node)> = Vec::new();
    let listed = |service: &Map, key: &str| -> Vec<Node> {
        service
            .get(key)
            .and_then(Node::as_list)
            .map(<[Node]>::to_vec)
            .unwrap_or_default()
    };
    for link in listed(service, "links") {
        if let Some(text) = link.as_text() {
            let parts: Vec<&str> = text.split(':').collect();
            let name = match parts.as_slice() {
                [name, _] => *name,
                _ => text,
            };
            implied.push((name.to_owned(), true, link.clone()));
        }
    }
    for key in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        if let Some(node) = service.get(key)
            && let Some(name) = node
                .as_text()
                .and_then(|text| text.strip_prefix("service:"))
        {
            implied.push((name.to_owned(), true, node.clone()));
        }
    }
    for volumes in listed(service, "volumes_from") {
        if let Some(text) = volumes.as_text()
            && !text.starts_with("container:")
        {
            let name = text.split(':').next().unwrap_or_default();
            implied.push((name.to_owned(), false, volumes.clone()));
        }
    }
    if implied.is_empty() {
        return;
    }
    let depends_on = service
        .entry("depends_on".to_owned())
        .or_insert_with(|| Node::new(Map::new()));
    if depends_on.is_null() {
        depends_on.value = Value::Map(Map::new());
    }
    let Some(depends_on) = depends_on.as_map_mut() else {
        return;
    };
    for (name, restart, from) in implied {
        let dependency = Map::from([
            ("condition".to_owned(), Node::new("service_started")),
            ("required".to_owned(), Node::new(true)),
            ("restart".to_owned(), Node::new(restart)),
        ]);
        depends_on.entry(name).or_insert_with(|| Node {
            key: None,
            ..from.with(dependency)
        });
    }
}

/// Resources are called `project_key`, or by their key when somebody else made them.
fn name_resources(top: &mut Map, project: &str) {
    for section in ["networks", "volumes", "configs", "secrets"] {
        let Some(resources) = top.get_mut(section).and_then(Node::as_map_mut) else {
            continue;
        };
        for (key, resource) in resources.iter_mut() {
            if resource.is_null() {
                resource.value = Value::Map(Map::new());
            }
            let Some(map) = resource.as_map_mut() else {
                continue;
            };
            if map.get("name").is_some_and(|name| !name.is_null()) {
                continue;
            }
            let external = map.get("external").is_some_and(|external| {
                matches!(
                    external.display().as_str(),
                    "true" | "True" | "TRUE" | "1" | "t" | "T"
                )
            });
            let name = if external {
                key.clone()
            } else {
                format!("{project}_{key}")
            };
            map.insert("name".to_owned(), Node::new(name));
        }
    }
}
