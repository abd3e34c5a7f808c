//! Short forms → long forms, then the defaults that the specification gives.
//!
//! One walk, one table (`FORMS`): each row turns the value at a place into its long form. Values
//! that are already long, or that `validate` has refused, pass as they are.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::diagnostic::Diagnostic;
use super::merge::{as_mapping, started};
use super::report::Report;
use super::short;
use super::tree::{Map, Node, Table, Trail, Value};

/// How many ports the services of a file may have together: more than there are of one protocol.
const PORT_LIMIT: usize = 70_000;

/// How many mounts the services of a file may write in short form: each becomes several values.
const MOUNT_LIMIT: usize = 50_000;

/// What is long at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A text becomes a mapping with it under this key.
    Wrapped(&'static str),
    /// A text becomes a list of it.
    Listed,
    /// A list of `KEY=value` becomes a mapping.
    KeyValue,
    DependsOn,
    EnvFile,
    Gpus,
    /// A list of names becomes a mapping from them to nothing.
    Names,
    Ports,
    /// Ports of the container alone.
    Expose,
    Volume,
    Device,
    Ssh,
    /// A boolean becomes the word for it.
    Worded,
    /// `external: {name: x}` becomes `name: x, external: true`.
    External,
}

fn forms() -> &'static Table<Form> {
    static TABLE: OnceLock<Table<Form>> = OnceLock::new();
    TABLE.get_or_init(|| {
        use Form::{
            DependsOn, Device, EnvFile, Expose, External, Gpus, KeyValue, Listed, Names, Ports,
            Ssh, Volume, Worded, Wrapped,
        };
        Table::new(&[
            ("configs.*", External),
            ("include.*", Wrapped("path")),
            ("networks.*", External),
            ("secrets.*", External),
            ("volumes.*", External),
            ("services.*.build", Wrapped("context")),
            ("services.*.build.additional_contexts", KeyValue),
            ("services.*.build.provenance", Worded),
            ("services.*.build.sbom", Worded),
            ("services.*.build.secrets.*", Wrapped("source")),
            ("services.*.build.ssh", Ssh),
            ("services.*.configs.*", Wrapped("source")),
            ("services.*.depends_on", DependsOn),
            ("services.*.develop.watch.*.ignore", Listed),
            ("services.*.develop.watch.*.include", Listed),
            ("services.*.devices.*", Device),
            ("services.*.dns", Listed),
            ("services.*.env_file", EnvFile),
            ("services.*.expose", Expose),
            ("services.*.extends", Wrapped("service")),
            ("services.*.gpus", Gpus),
            ("services.*.label_file", Listed),
            ("services.*.models", Names),
            ("services.*.networks", Names),
            ("services.*.ports", Ports),
            ("services.*.secrets.*", Wrapped("source")),
            ("services.*.volumes.*", Volume),
        ])
    })
}

/// Turns every short form of a tree into the long one. With `lenient`, what cannot be read stays as
/// it is (variables were not replaced).
pub(crate) fn canonical(node: &mut Node, lenient: bool, report: &mut Report) {
    let mut walk = Walk {
        lenient,
        ports: 0,
        mounts: 0,
        report,
    };
    walk.at(node, forms(), &Trail::default());
}

struct Walk<'a> {
    lenient: bool,
    /// How many ports were written out so far.
    ports: usize,
    /// Mounts in short form so far.
    mounts: usize,
    report: &'a mut Report,
}

impl Walk<'_> {
    fn at(&mut self, node: &mut Node, table: &Table<Form>, trail: &Trail<'_>) {
        if let Some(form) = table.here {
            self.expand(node, form, trail);
        }
        match &mut node.value {
            Value::Map(map) => {
                for (key, child) in map.iter_mut() {
                    if let Some(below) = table.key(key) {
                        self.at(child, below, &trail.key(key));
                    }
                }
            }
            Value::List(list) => {
                if let Some(below) = table.item() {
                    for (index, child) in list.iter_mut().enumerate() {
                        self.at(child, below, &trail.index(index));
                    }
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

    fn expand(&mut self, node: &mut Node, form: Form, trail: &Trail<'_>) {
        match form {
            Form::Wrapped(key) => {
                if node.as_text().is_some() {
                    *node = node.with(wrap(key, node));
                }
            }
            Form::Listed => {
                if node.as_text().is_some() {
                    let item = Node {
                        key: None,
                        ..node.clone()
                    };
                    *node = node.with(vec![item]);
                }
            }
            Form::KeyValue => self.key_value(node, trail),
            Form::DependsOn => depends_on(node),
            Form::EnvFile => env_file(node),
            Form::Gpus => {
                if node.as_text().is_some() {
                    let all = node.with(wrap("count", node));
                    *node = node.with(vec![all]);
                }
            }
            Form::Names => {
                let taken = std::mem::take(node);
                *node = as_mapping(taken, &|| Value::Null);
            }
            Form::Ports => self.ports(node, trail),
            Form::Expose => {
                for (index, item) in node.as_list().into_iter().flatten().enumerate() {
                    if self.fraction(item, &trail.index(index)) {
                        break;
                    }
                }
            }
            Form::Volume => self.volume(node, trail),
            Form::Device => self.device(node, trail),
            Form::Ssh => ssh(node),
            Form::Worded => {
                if node.as_bool().is_some() {
                    node.value = Value::Text(node.display());
                }
            }
            Form::External => self.external(node, trail),
        }
    }

    fn malformed(&mut self, node: &Node, trail: &Trail<'_>, wrong: short::Malformed) {
        if !self.lenient {
            self.refuse(node, trail, wrong);
        }
    }

    fn refuse(&mut self, node: &Node, trail: &Trail<'_>, wrong: short::Malformed) {
        let mut diagnostic = Diagnostic::error(wrong.message)
            .at(node.place())
            .key(trail.to_string())
            .label("here");
        if let Some(hint) = wrong.hint {
            diagnostic = diagnostic.hint(hint);
        }
        self.report.add(diagnostic);
    }

    /// No port is a fraction, and `80.0` is none either: Compose refuses both.
    fn fraction(&mut self, item: &Node, trail: &Trail<'_>) -> bool {
        let found = matches!(item.value, Value::Float(_));
        if found {
            let wrong = short::Malformed {
                message: format!("`{}` is not a port", item.display()),
                hint: Some("write a whole number, or a text such as \"8080:80\""),
            };
            self.refuse(item, trail, wrong);
        }
        found
    }

    fn key_value(&mut self, node: &mut Node, trail: &Trail<'_>) {
        let Some(list) = node.as_list() else { return };
        let mut map = Map::new();
        for (index, item) in list.iter().enumerate() {
            let Some((key, value)) = item.as_text().and_then(|text| text.split_once('=')) else {
                let shown = item.display();
                let wrong = short::Malformed {
                    message: format!("`{shown}` is not of the form KEY=value"),
                    hint: None,
                };
                let item = item.clone();
                self.malformed(&item, &trail.index(index), wrong);
                return;
            };
            map.insert(key.to_owned(), item.with(value));
        }
        *node = node.with(map);
    }

    fn ports(&mut self, node: &mut Node, trail: &Trail<'_>) {
        let Value::List(list) = &node.value else {
            return;
        };
        if self.ports > PORT_LIMIT {
            return;
        }
        let mut long = Vec::with_capacity(list.len());
        for (index, item) in list.clone().into_iter().enumerate() {
            if item.as_map().is_some() {
                long.push(item);
                continue;
            }
            if self.fraction(&item, &trail.index(index)) {
                return;
            }
            match short::port(&item.display()) {
                Ok(ports) => long.extend(ports.into_iter().map(|port| {
                    let mut map = Map::from([
                        ("mode".to_owned(), item.with("ingress")),
                        ("protocol".to_owned(), item.with(port.protocol)),
                        ("target".to_owned(), item.with(i64::from(port.target))),
                    ]);
                    if !port.host_ip.is_empty() {
                        map.insert("host_ip".to_owned(), item.with(port.host_ip));
                    }
                    if !port.published.is_empty() {
                        map.insert("published".to_owned(), item.with(port.published));
                    }
                    item.with(map)
                })),
                Err(wrong) => {
                    self.malformed(&item, &trail.index(index), wrong);
                    if self.lenient {
                        return;
                    }
                }
            }
            if self.ports + long.len() > PORT_LIMIT {
                let wrong = short::Malformed {
                    message: format!("with these there are more than {PORT_LIMIT} ports"),
                    hint: None,
                };
                self.malformed(&item, &trail.index(index), wrong);
                // Once is enough, and what was written out is given back.
                self.ports = usize::MAX;
                return;
            }
        }
        self.ports += long.len();
        node.value = Value::List(long);
    }

    fn volume(&mut self, node: &mut Node, trail: &Trail<'_>) {
        if let Some(target) = node.as_map_mut().and_then(|map| map.get_mut("target"))
            && let Value::Text(path) = &mut target.value
        {
            *path = if path.is_empty() {
                ".".to_owned()
            } else {
                clean(path)
            };
        }
        let Some(text) = node.as_text() else { return };
        self.mounts += 1;
        if self.mounts > MOUNT_LIMIT {
            // Once is enough.
            if self.mounts == MOUNT_LIMIT + 1 {
                let wrong = short::Malformed {
                    message: format!("with this there are more than {MOUNT_LIMIT} mounts"),
                    hint: None,
                };
                let item = node.clone();
                self.malformed(&item, trail, wrong);
            }
            return;
        }
        let volume = match short::volume(text) {
            Ok(volume) => volume,
            Err(wrong) => {
                let item = node.clone();
                self.malformed(&item, trail, wrong);
                return;
            }
        };
        let text = |value: &str| node.with(value);
        let mut map = Map::from([("target".to_owned(), text(&clean(&volume.target)))]);
        if !volume.source.is_empty() {
            map.insert("source".to_owned(), text(&volume.source));
        }
        if volume.read_only {
            map.insert("read_only".to_owned(), node.with(true));
        }
        let mut bind = Map::new();
        if let Some(selinux) = &volume.selinux {
            bind.insert("selinux".to_owned(), text(selinux));
        }
        if let Some(propagation) = &volume.propagation {
            bind.insert("propagation".to_owned(), text(propagation));
        }
        if volume.is_bind() {
            bind.insert("create_host_path".to_owned(), node.with(true));
            map.insert("type".to_owned(), text("bind"));
        } else {
            map.insert("type".to_owned(), text("volume"));
        }
        if volume.nocopy {
            let nocopy = Map::from([("nocopy".to_owned(), node.with(true))]);
            map.insert("volume".to_owned(), node.with(nocopy));
        } else if !volume.is_bind() && !volume.bare {
            map.insert("volume".to_owned(), node.with(Map::new()));
        }
        if !bind.is_empty() {
            map.insert("bind".to_owned(), node.with(bind));
        }
        *node = node.with(map);
    }

    fn device(&mut self, node: &mut Node, trail: &Trail<'_>) {
        let Some(text) = node.as_text() else { return };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, permissions) = match parts.as_slice() {
            [source] => (*source, "", "rwm"),
            [source, target] => (*source, *target, "rwm"),
            [source, target, permissions] => (*source, *target, *permissions),
            _ => {
                let wrong = short::Malformed {
                    message: format!("`{text}` has too many colons for a device"),
                    hint: Some("write it as {source: …, target: …, permissions: …}"),
                };
                let item = node.clone();
                self.malformed(&item, trail, wrong);
                return;
            }
        };
        let target = if target.is_empty() { source } else { target };
        let map = Map::from([
            ("permissions".to_owned(), node.with(permissions)),
            ("source".to_owned(), node.with(source)),
            ("target".to_owned(), node.with(target)),
        ]);
        *node = node.with(map);
    }

    fn external(&mut self, node: &mut Node, trail: &Trail<'_>) {
        let Some(map) = node.as_map_mut() else { return };
        let Some(external) = map.get("external").cloned() else {
            return;
        };
        let Some(inner) = external.as_map() else {
            return;
        };
        map.insert("external".to_owned(), external.with(true));
        let Some(name) = inner.get("name").cloned() else {
            return;
        };
        self.report.add(
            Diagnostic::warning("`external.name` is deprecated")
                .at(name.key_place())
                .key(trail.to_string())
                .hint("write `name` beside `external: true`"),
        );
        match map.get("name") {
            Some(given) if *given != name => {
                let mut diagnostic =
                    Diagnostic::error("`name` and `external.name` say different things")
                        .at(name.place())
                        .key(trail.to_string())
                        .label("differs from `name`");
                diagnostic = diagnostic.hint("keep `name` only");
                self.report.add(diagnostic);
            }
            Some(_) => {}
            None => {
                map.insert("name".to_owned(), name);
            }
        }
    }
}

fn wrap(key: &str, node: &Node) -> Map {
    let inner = Node {
        key: None,
        ..node.clone()
    };
    BTreeMap::from([(key.to_owned(), inner)])
}

fn depends_on(node: &mut Node) {
    let taken = std::mem::take(node);
    *node = as_mapping(taken, &started);
    if let Some(map) = node.as_map_mut() {
        for child in map.values_mut() {
            if let Some(dependency) = child.as_map_mut() {
                dependency
                    .entry("condition".to_owned())
                    .or_insert_with(|| Node::new("service_started"));
                dependency
                    .entry("required".to_owned())
                    .or_insert_with(|| Node::new(true));
            }
        }
    }
}

fn env_file(node: &mut Node) {
    let long = |item: &Node| -> Node {
        let mut map = match &item.value {
            Value::Text(_) => wrap("path", item),
            Value::Map(map) => map.clone(),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Large(_)
            | Value::Float(_)
            | Value::Date(_)
            | Value::List(_) => return item.clone(),
        };
        map.entry("required".to_owned())
            .or_insert_with(|| Node::new(true));
        item.with(map)
    };
    match &node.value {
        Value::Text(_) => {
            let item = Node {
                key: None,
                ..long(node)
            };
            *node = node.with(vec![item]);
        }
        Value::List(list) => {
            let list: Vec<Node> = list.iter().map(long).collect();
            node.value = Value::List(list);
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Date(_)
        | Value::Map(_) => {}
    }
}

fn ssh(node: &mut Node) {
    let Some(list) = node.as_list() else { return };
    let mut map = Map::new();
    for item in list {
        let Some(text) = item.as_text() else { return };
        match text.split_once('=') {
            Some((key, value)) => map.insert(key.to_owned(), item.with(value)),
            None => map.insert(text.to_owned(), item.with(Value::Null)),
        };
    }
    *node = node.with(map);
}

/// A path without `.`, doubled slashes and resolved `..`, as Go's `path.Clean` gives it.
pub(crate) fn clean(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.last().is_some_and(|last| *last != "..") {
                    parts.pop();
                } else if !rooted {
                    parts.push("..");
                }
            }
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Adds what the specification says about values that are not given.
pub(crate) fn defaults(node: &mut Node) {
    let Some(services) = node.as_map_mut().and_then(|top| top.get_mut("services")) else {
        return;
    };
    let Some(services) = services.as_map_mut() else {
        return;
    };
    for service in services.values_mut() {
        let Some(service) = service.as_map_mut() else {
            continue;
        };
        if let Some(build) = service.get_mut("build") {
            if build.is_null() {
                build.value = Value::Map(Map::new());
            }
            set(build, "context", ".");
        }
        each(service.get_mut("secrets"), |secret| {
            if let Some(source) = secret.text("source") {
                let target = format!("/run/secrets/{source}");
                set(secret, "target", target);
            }
        });
        each(service.get_mut("ports"), |port| {
            set(port, "protocol", "tcp");
            set(port, "mode", "ingress");
        });
        each(service.get_mut("gpus"), device_request);
        let devices = service
            .get_mut("deploy")
            .and_then(|deploy| deploy.as_map_mut()?.get_mut("resources"))
            .and_then(|resources| resources.as_map_mut()?.get_mut("reservations"))
            .and_then(|reservations| reservations.as_map_mut()?.get_mut("devices"));
        each(devices, device_request);
    }
}

fn device_request(request: &mut Node) {
    if request.get("count").is_none() && request.get("device_ids").is_none() {
        set(request, "count", "all");
    }
}

fn each(list: Option<&mut Node>, change: impl Fn(&mut Node)) {
    if let Some(list) = list.and_then(Node::as_list_mut) {
        list.iter_mut().for_each(change);
    }
}

/// Sets a key that is not there.
fn set(node: &mut Node, key: &str, value: impl Into<Value>) {
    if let Some(map) = node.as_map_mut()
        && !map.contains_key(key)
    {
        map.insert(key.to_owned(), Node::new(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [
            ("/a//b/./c/..", "/a/b"),
            ("a/../..", ".."),
            ("/..", "/"),
            ("./", "."),
            ("a/b/", "a/b"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
