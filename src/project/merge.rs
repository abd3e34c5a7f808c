//! Puts one file's tree on top of another: mappings merge, lists append, other values replace.
//!
//! `RULES` names the places where compose has its own rule (compose specification, 13-merge). Lists
//! that may hold each thing once are thinned out in `unique`. Must not read anything.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::diagnostic::Diagnostic;
use super::report::Report;
use super::tree::{Map, Node, Table, Trail, Value};

/// How two values at one place become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The later one replaces the earlier.
    Replace,
    /// `KEY=value` lists and mappings become one list.
    Sequence,
    /// The same, without entries that are there already.
    Hosts,
    /// A text stands for its `context`.
    Build,
    /// A list of names stands for a mapping to defaults.
    DependsOn,
    /// A list of names stands for a mapping to nothing.
    Names,
    /// Merged only for the same driver.
    Logging,
    /// Pools merge by their subnet.
    Pools,
}

fn rules() -> &'static Table<Rule> {
    static TABLE: OnceLock<Table<Rule>> = OnceLock::new();
    TABLE.get_or_init(|| {
        use Rule::{Build, DependsOn, Hosts, Logging, Names, Pools, Replace, Sequence};
        Table::new(&[
            ("networks.*.ipam.config", Pools),
            ("networks.*.labels", Sequence),
            ("volumes.*.labels", Sequence),
            ("services.*.annotations", Sequence),
            ("services.*.build", Build),
            ("services.*.build.additional_contexts", Sequence),
            ("services.*.build.args", Sequence),
            ("services.*.build.extra_hosts", Hosts),
            ("services.*.build.labels", Sequence),
            ("services.*.command", Replace),
            ("services.*.depends_on", DependsOn),
            ("services.*.deploy.labels", Sequence),
            ("services.*.dns", Sequence),
            ("services.*.dns_opt", Sequence),
            ("services.*.dns_search", Sequence),
            ("services.*.entrypoint", Replace),
            ("services.*.env_file", Sequence),
            ("services.*.environment", Sequence),
            ("services.*.extra_hosts", Hosts),
            ("services.*.healthcheck.test", Replace),
            ("services.*.label_file", Sequence),
            ("services.*.labels", Sequence),
            ("services.*.logging", Logging),
            ("services.*.models", Names),
            ("services.*.networks", Names),
            ("services.*.sysctls", Sequence),
            ("services.*.tmpfs", Sequence),
            ("services.*.ulimits.*", Replace),
        ])
    })
}

/// `over` on top of `base`, both whole files.
pub(crate) fn merge(base: Node, over: Node, report: &mut Report) -> Node {
    if base.is_null() {
        return over;
    }
    merge_at(base, over, Some(rules()), &Trail::default(), report)
}

/// `over` on top of `base`, both services.
pub(crate) fn merge_service(base: Node, over: Node, name: &str, report: &mut Report) -> Node {
    let table = rules().key("services").and_then(|table| table.key(name));
    let top = Trail::default();
    let services = top.key("services");
    merge_at(base, over, table, &services.key(name), report)
}

fn merge_at(
    base: Node,
    over: Node,
    table: Option<&Table<Rule>>,
    trail: &Trail<'_>,
    report: &mut Report,
) -> Node {
    if let Some(rule) = table.and_then(|table| table.here) {
        return special(rule, base, over, table, trail, report);
    }
    if over.is_null() {
        return base;
    }
    plain(base, over, table, trail, report)
}

fn plain(
    base: Node,
    over: Node,
    table: Option<&Table<Rule>>,
    trail: &Trail<'_>,
    report: &mut Report,
) -> Node {
    let mark = over.mark.clone().or_else(|| base.mark.clone());
    let key = over.key.clone().or_else(|| base.key.clone());
    let value = match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => {
            Value::Map(mappings(base, over, table, trail, report))
        }
        (Value::List(mut base), Value::List(over)) => {
            base.extend(over);
            Value::List(base)
        }
        (base @ (Value::Map(_) | Value::List(_)), over) => {
            report.add(
                Diagnostic::error(format!(
                    "{} cannot be put on top of {}",
                    over.kind(),
                    base.kind()
                ))
                .at(mark.as_ref().map(super::tree::Mark::place))
                .key(trail.to_string())
                .label(format!("{} in the file before", base.kind())),
            );
            base
        }
        (_, over) => over,
    };
    Node {
        value,
        mark,
        key,
        directive: over.directive,
    }
}

fn mappings(
    mut base: Map,
    over: Map,
    table: Option<&Table<Rule>>,
    trail: &Trail<'_>,
    report: &mut Report,
) -> Map {
    for (key, node) in over {
        let merged = match base.remove(&key) {
            Some(earlier) => {
                let below = table.and_then(|table| table.key(&key));
                merge_at(earlier, node, below, &trail.key(&key), report)
            }
            None => node,
        };
        base.insert(key, merged);
    }
    base
}

fn special(
    rule: Rule,
    base: Node,
    over: Node,
    table: Option<&Table<Rule>>,
    trail: &Trail<'_>,
    report: &mut Report,
) -> Node {
    match rule {
        Rule::Replace => over,
        Rule::Sequence => {
            let mut list = sequence(&base);
            list.extend(sequence(&over));
            carry(&base, &over, list)
        }
        Rule::Hosts => {
            let mut list = sequence(&base);
            for entry in sequence(&over) {
                if !list.contains(&entry) {
                    list.push(entry);
                }
            }
            carry(&base, &over, list)
        }
        Rule::Build => plain(as_build(base), as_build(over), table, trail, report),
        Rule::DependsOn => plain(
            as_mapping(base, &started),
            as_mapping(over, &started),
            table,
            trail,
            report,
        ),
        Rule::Names => {
            let nothing = || Value::Null;
            plain(
                as_mapping(base, &nothing),
                as_mapping(over, &nothing),
                table,
                trail,
                report,
            )
        }
        Rule::Logging => {
            let driver = |node: &Node| node.get("driver").cloned();
            let (before, after) = (driver(&base), driver(&over));
            if before == after || before.is_none() || after.is_none() {
                plain(base, over, table, trail, report)
            } else {
                over
            }
        }
        Rule::Pools => pools(&base, &over, trail, report),
    }
}

fn carry(base: &Node, over: &Node, list: Vec<Node>) -> Node {
    Node {
        value: Value::List(list),
        mark: over.mark.clone().or_else(|| base.mark.clone()),
        key: over.key.clone().or_else(|| base.key.clone()),
        directive: over.directive,
    }
}

/// What `depends_on: [name]` stands for.
pub(crate) fn started() -> Value {
    Value::Map(BTreeMap::from([
        ("condition".to_owned(), Node::new("service_started")),
        ("required".to_owned(), Node::new(true)),
    ]))
}

/// A mapping as a list of `KEY=value`, sorted; a list as it is; a text as a list of one.
fn sequence(node: &Node) -> Vec<Node> {
    match &node.value {
        Value::Map(map) => {
            let mut list = Vec::new();
            for (key, child) in map {
                let mut push = |child: &Node, text: String| {
                    list.push(Node {
                        value: Value::Text(text),
                        mark: child.mark.clone(),
                        key: child.key.clone(),
                        directive: child.directive,
                    });
                };
                match &child.value {
                    Value::Null => push(child, key.clone()),
                    Value::List(items) => {
                        for item in items {
                            push(item, format!("{key}={}", item.display()));
                        }
                    }
                    Value::Bool(_)
                    | Value::Int(_)
                    | Value::Large(_)
                    | Value::Float(_)
                    | Value::Text(_)
                    | Value::Date(_)
                    | Value::Map(_) => push(child, format!("{key}={}", child.display())),
                }
            }
            list.sort_by(|a, b| a.as_text().cmp(&b.as_text()));
            list
        }
        Value::List(list) => list.clone(),
        Value::Text(_) => vec![Node {
            key: None,
            ..node.clone()
        }],
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Date(_) => Vec::new(),
    }
}

fn as_build(node: Node) -> Node {
    if node.as_text().is_some() {
        let context = Node {
            key: None,
            ..node.clone()
        };
        node.with(BTreeMap::from([("context".to_owned(), context)]))
    } else {
        node
    }
}

/// A list of names as a mapping from the names to a default.
pub(crate) fn as_mapping(node: Node, default: &dyn Fn() -> Value) -> Node {
    let Value::List(list) = &node.value else {
        return node;
    };
    if list.iter().any(|item| item.as_text().is_none()) {
        return node;
    }
    let map: Map = list
        .iter()
        .filter_map(|item| Some((item.as_text()?.to_owned(), item.with(default()))))
        .map(|(name, item)| {
            let key = item.mark.clone();
            (name, Node { key, ..item })
        })
        .collect();
    node.with(map)
}

fn pools(base: &Node, over: &Node, trail: &Trail<'_>, report: &mut Report) -> Node {
    let (Some(before), Some(after)) = (base.as_list(), over.as_list()) else {
        return over.clone();
    };
    let subnet = |node: &Node| node.get("subnet").cloned();
    let mut merged: Vec<Node> = Vec::new();
    for original in before {
        let mut current = original.clone();
        for addition in after {
            if subnet(addition) != subnet(&current)
                && !merged.iter().any(|pool| subnet(pool) == subnet(addition))
            {
                merged.push(addition.clone());
                continue;
            }
            current = plain(current, addition.clone(), None, trail, report);
            match merged
                .iter_mut()
                .find(|pool| subnet(pool) == subnet(&current))
            {
                Some(pool) => *pool = current.clone(),
                None => merged.push(current.clone()),
            }
        }
    }
    carry(base, over, merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::diagnostic::Source;
    use crate::project::node;
    use std::path::PathBuf;
    use std::sync::Arc;

    fn tree(text: &str) -> Node {
        let source = Arc::new(Source {
            path: PathBuf::from("c.yaml"),
            text: text.to_owned(),
        });
        node::parse(&source, &mut Vec::new()).remove(0)
    }

    fn merged(base: &str, over: &str) -> Node {
        let mut report = Report::default();
        let wrap = |text: &str| tree(&format!("services: {{a: {text}}}"));
        let merged = merge(wrap(base), wrap(over), &mut report);
        assert_eq!(report.errors(), 0);
        merged.get("services").unwrap().get("a").unwrap().clone()
    }

    #[test]
    fn lists_append_and_commands_replace() {
        let node = merged(
            "{command: [a, b], cap_add: [X]}",
            "{command: c, cap_add: [Y]}",
        );
        assert_eq!(node.text("command"), Some("c"));
        assert_eq!(node.get("cap_add").unwrap().as_list().unwrap().len(), 2);
    }

    #[test]
    fn environment_becomes_one_list() {
        let node = merged("{environment: {B: 1, A: ~}}", "{environment: [C=2]}");
        let list: Vec<_> = node
            .get("environment")
            .unwrap()
            .as_list()
            .unwrap()
            .iter()
            .filter_map(Node::as_text)
            .collect();
        assert_eq!(list, ["A", "B=1", "C=2"]);
    }

    #[test]
    fn a_list_on_a_mapping_is_a_mistake() {
        let mut report = Report::default();
        let base = tree("services: {a: {healthcheck: {interval: 1s}}}");
        let over = tree("services: {a: {healthcheck: [x]}}");
        merge(base, over, &mut report);
        assert_eq!(report.errors(), 1);
    }
}
