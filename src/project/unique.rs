//! Lists that hold each thing once: a later entry with the same key takes the place of the earlier.
//!
//! Runs after every merge, before and after short forms become long ones. `KEYS` says what the key
//! of an entry is.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::short;
use super::tree::{Node, Table, Value};

/// What makes two entries of a list the same.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    /// The text before `=`.
    Name,
    /// The target of a mount.
    Mount,
    /// The target of a secret or config, by default below this directory.
    File(&'static str),
    /// The path of an env file.
    Path,
    /// The value itself.
    Whole,
    /// Address, both ports and the protocol.
    Port,
}

/// The lists that hold each thing once.
pub(crate) fn keys() -> &'static Table<Key> {
    static TABLE: OnceLock<Table<Key>> = OnceLock::new();
    TABLE.get_or_init(|| {
        use Key::{File, Mount, Name, Path, Port, Whole};
        Table::new(&[
            ("networks.*.ipam.options", Name),
            ("networks.*.labels", Name),
            ("volumes.*.labels", Name),
            ("services.*.annotations", Name),
            ("services.*.build.additional_contexts", Name),
            ("services.*.build.args", Name),
            ("services.*.build.labels", Name),
            ("services.*.build.platform", Name),
            ("services.*.build.tags", Name),
            ("services.*.cap_add", Name),
            ("services.*.cap_drop", Name),
            ("services.*.configs", File("")),
            ("services.*.deploy.labels", Name),
            ("services.*.devices", Mount),
            ("services.*.dns", Name),
            ("services.*.dns_opt", Name),
            ("services.*.dns_search", Name),
            ("services.*.env_file", Path),
            ("services.*.environment", Name),
            ("services.*.expose", Whole),
            ("services.*.labels", Name),
            ("services.*.links", Name),
            ("services.*.networks.*.aliases", Name),
            ("services.*.networks.*.link_local_ips", Name),
            ("services.*.ports", Port),
            ("services.*.profiles", Name),
            ("services.*.secrets", File("/run/secrets")),
            ("services.*.sysctls", Name),
            ("services.*.tmpfs", Name),
            ("services.*.volumes", Mount),
        ])
    })
}

/// Thins out every such list of a tree.
pub(crate) fn unique(node: &mut Node) {
    walk(node, keys());
}

fn walk(node: &mut Node, table: &Table<Key>) {
    match &mut node.value {
        Value::Map(map) => {
            for (key, child) in map {
                if let Some(below) = table.key(key) {
                    walk(child, below);
                }
            }
        }
        Value::List(list) => {
            if let Some(rule) = table.here {
                thin(list, rule);
            }
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

fn thin(list: &mut Vec<Node>, rule: Key) {
    // Entries without a key are wrong; they stay for `validate` to say so.
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<Node> = Vec::with_capacity(list.len());
    for entry in list.drain(..) {
        match rule.of(&entry) {
            Some(key) => {
                if let Some(earlier) = places.get(&key).and_then(|at| kept.get_mut(*at)) {
                    *earlier = entry;
                } else {
                    places.insert(key, kept.len());
                    kept.push(entry);
                }
            }
            None => kept.push(entry),
        }
    }
    *list = kept;
}

impl Key {
    fn of(self, entry: &Node) -> Option<String> {
        match (self, &entry.value) {
            (Key::Name, Value::Text(text)) => {
                Some(text.split('=').next().unwrap_or_default().to_owned())
            }
            (Key::Whole | Key::Port, Value::Text(_) | Value::Int(_) | Value::Large(_)) => {
                Some(entry.display())
            }
            (Key::Path, Value::Text(text)) => Some(text.clone()),
            (Key::Path, Value::Map(_)) => entry.text("path").map(str::to_owned),
            (Key::Mount, Value::Text(text)) => short::volume(text).ok().map(|mount| mount.target),
            (Key::Mount, Value::Map(_)) => entry.text("target").map(str::to_owned),
            (Key::File(directory), Value::Text(text)) => Some(format!("{directory}/{text}")),
            (Key::File(directory), Value::Map(_)) => match entry.text("target") {
                Some(target) => Some(target.to_owned()),
                None => Some(format!("{directory}/{}", entry.text("source")?)),
            },
            (Key::Port, Value::Map(_)) => {
                let part = |name: &str| entry.get(name).map(Node::display);
                Some(format!(
                    "{}:{}:{}/{}",
                    part("host_ip").unwrap_or_else(|| "0.0.0.0".to_owned()),
                    part("published").unwrap_or_default(),
                    part("target")?,
                    part("protocol").unwrap_or_else(|| "tcp".to_owned()),
                ))
            }
            (_, _) => None,
        }
    }
}
