//! The cast tree → text: the JSON and YAML that `config` prints, and the hash of a service.
//!
//! Both follow the order of `shape`; they differ in what they leave out and in how they write byte
//! counts. Extensions are YAML's only, but for those of the project itself. The YAML text is written
//! by `yaml`.

use serde_json::Value as Json;

use super::model::{digest, escaped};
use super::shape::{Field, Form, SECTIONS, SERVICE};
use super::tree::{Map, Node, Table, Value};
use super::unique;

/// Which of the two is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Json,
    Yaml,
}

/// A project as JSON.
pub(crate) fn json(top: Map) -> Json {
    project(top, Style::Json)
}

/// A project as the values that its YAML holds.
pub(crate) fn yaml(top: Map) -> Json {
    project(top, Style::Yaml)
}

/// Takes the tree apart while it writes: a large project is not in memory twice.
fn project(mut top: Map, style: Style) -> Json {
    let mut out = serde_json::Map::new();
    if let Some(name) = top.get("name") {
        out.insert("name".to_owned(), name.to_json());
    }
    for (name, fields) in SECTIONS {
        // Compose's JSON has no models.
        if style == Style::Json && *name == "models" {
            continue;
        }
        let mut section = match top.remove(*name).map(|node| node.value) {
            Some(Value::Map(section)) if !section.is_empty() => section,
            _ if *name == "services" => Map::new(),
            _ => continue,
        };
        let keys: Vec<String> = in_order(section.iter(), style)
            .map(|(key, _)| key.clone())
            .collect();
        let mut rendered = serde_json::Map::new();
        for key in keys {
            if let Some(node) = section.remove(&key) {
                rendered.insert(key, fields_of(&node, fields, style));
            }
        }
        out.insert((*name).to_owned(), Json::Object(rendered));
    }
    extensions(&top, style, &mut out);
    if style == Style::Json {
        out.sort_keys();
    }
    Json::Object(out)
}

fn extensions(map: &Map, style: Style, out: &mut serde_json::Map<String, Json>) {
    let own = map.iter().filter(|(key, _)| key.starts_with("x-"));
    for (key, node) in in_order(own, style) {
        out.insert(key.clone(), free(node, style));
    }
}

/// A value of any shape. An empty list is nothing in JSON: Compose has no list there.
fn free(node: &Node, style: Style) -> Json {
    match &node.value {
        Value::List(list) if list.is_empty() && style == Style::Json => Json::Null,
        Value::List(list) => list.iter().map(|child| free(child, style)).collect(),
        Value::Map(map) => in_order(map.iter(), style)
            .map(|(key, child)| (key.clone(), free(child, style)))
            .collect(),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Date(_) => node.to_json(),
    }
}

/// The entries of a mapping in the order that the style has: by bytes in JSON, as people count in
/// YAML.
fn in_order<'a>(
    entries: impl Iterator<Item = (&'a String, &'a Node)>,
    style: Style,
) -> impl Iterator<Item = (&'a String, &'a Node)> {
    let mut entries: Vec<(&String, &Node)> = entries.collect();
    if style == Style::Yaml {
        entries.sort_by(|a, b| natural(a.0, b.0));
    }
    entries.into_iter()
}

/// Compares keys so that numbers in them count by their value and letters come after the rest,
/// which is how Compose's YAML writer sorts them.
pub(crate) fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let differing = a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y);
    let Some(((at, x), y)) = differing else {
        return a.len().cmp(&b.len());
    };
    let (same, a, b) = (
        a.get(..at).unwrap_or_default(),
        a.get(at..).unwrap_or_default(),
        b.get(at..).unwrap_or_default(),
    );
    let within_number = same.chars().next_back().is_some_and(char::is_numeric);
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => return x.cmp(&y),
        (true, false) | (false, true) => {
            // A letter ends a number early; elsewhere it comes last.
            let letter_first = within_number;
            return if x.is_alphabetic() == letter_first {
                Ordering::Less
            } else {
                Ordering::Greater
            };
        }
        (false, false) => {}
    }
    // Zeros count only behind another digit.
    let behind_digit = || {
        let mut digits = same.chars().rev().take_while(|c| c.is_numeric());
        digits.any(|c| c != '0')
    };
    let lead = u64::from((x == '0' || y == '0') && behind_digit());
    let number = |text: &str| {
        let digits = text.chars().take_while(|c| c.is_numeric());
        digits.fold((lead, 0usize), |(value, length), digit| {
            let digit = u64::from(digit.to_digit(10).unwrap_or_default());
            (value.wrapping_mul(10).wrapping_add(digit), length + 1)
        })
    };
    number(a).cmp(&number(b)).then(x.cmp(&y))
}

fn fields_of(node: &Node, fields: &[Field], style: Style) -> Json {
    let empty = Map::new();
    let map = node.as_map().unwrap_or(&empty);
    let mut out = serde_json::Map::new();
    for field in fields {
        let name = match style {
            Style::Json => field.json,
            Style::Yaml => field.name,
        };
        if let Some(value) = one(map.get(field.name), field, style) {
            out.insert(name.to_owned(), value);
        }
    }
    if style == Style::Yaml {
        extensions(map, style, &mut out);
    }
    Json::Object(out)
}

/// A field's value, `None` when it is left out.
fn one(node: Option<&Node>, field: &Field, style: Style) -> Option<Json> {
    let node = node.filter(|node| !node.is_null());
    let empty = |value: &Json| match value {
        Json::Null => true,
        Json::Bool(value) => !value,
        Json::Number(value) => value.as_f64() == Some(0.0),
        Json::String(text) => text.is_empty(),
        Json::Array(list) => list.is_empty(),
        Json::Object(map) => map.is_empty(),
    };
    match (field.form, node) {
        (Form::Command, None) => (style == Style::Json).then_some(Json::Null),
        (Form::Command, Some(node)) => Some(node.to_json()),
        (Form::Value(fields), node) => {
            let null = Node::default();
            let value = fields_of(node.unwrap_or(&null), fields, style);
            (style == Style::Json || !empty(&value)).then_some(value)
        }
        (_, None) => field.always.then(|| zero(field.form)),
        (
            Form::MaybeFlag
            | Form::MaybeInt
            | Form::MaybeDuration
            | Form::Mode
            | Form::Section(_)
            | Form::Test,
            Some(node),
        ) => Some(value(node, field.form, style)),
        (Form::Bytes, Some(node)) => {
            (node.as_int() != Some(0) || field.always).then(|| value(node, field.form, style))
        }
        (Form::Duration, Some(node)) => {
            (node.as_text() != Some("0s")).then(|| value(node, field.form, style))
        }
        (form, Some(node)) => {
            let value = value(node, form, style);
            (field.always || !empty(&value)).then_some(value)
        }
    }
}

/// What an unset field that is always shown is shown as.
fn zero(form: Form) -> Json {
    if matches!(form, Form::Flag) {
        Json::Bool(false)
    } else if matches!(form, Form::Int) {
        0.into()
    } else if matches!(form, Form::Bytes) {
        "0".into()
    } else {
        "".into()
    }
}

fn value(node: &Node, form: Form, style: Style) -> Json {
    match form {
        Form::Text
        | Form::Flag
        | Form::MaybeFlag
        | Form::Int
        | Form::MaybeInt
        | Form::Duration
        | Form::MaybeDuration
        | Form::Count
        | Form::Command
        | Form::Test
        | Form::Texts
        | Form::Hosts
        | Form::External => node.to_json(),
        Form::Pairs | Form::Environment | Form::MultiOptions => in_order(entries(node), style)
            .map(|(key, child)| (key.clone(), child.to_json()))
            .collect(),
        Form::Float => number(node),
        Form::Bytes => node.display().into(),
        Form::Mode => format!("0{:o}", node.as_int().unwrap_or_default()).into(),
        Form::Ssh => ssh(node, style),
        Form::Ulimit => ulimit(node, style),
        Form::EnvFile => env_file(node),
        Form::Section(fields) | Form::Value(fields) => fields_of(node, fields, style),
        Form::List(item) => node
            .as_list()
            .unwrap_or_default()
            .iter()
            .map(|child| value(child, *item, style))
            .collect(),
        Form::Map(item) => in_order(entries(node), style)
            .map(|(key, child)| {
                let rendered = if child.is_null() {
                    Json::Null
                } else {
                    value(child, *item, style)
                };
                (key.clone(), rendered)
            })
            .collect(),
    }
}

fn entries(node: &Node) -> impl Iterator<Item = (&String, &Node)> {
    node.as_map().into_iter().flatten()
}

/// Files merged, with their variables in them, as JSON.
pub(crate) fn raw_json(node: &Node) -> Json {
    raw(node, Style::Json, Some(unique::keys()))
}

/// The same as the values that the YAML holds.
pub(crate) fn raw_yaml(node: &Node) -> Json {
    raw(node, Style::Yaml, Some(unique::keys()))
}

/// Lists that may hold each thing once stay lists when they are empty; see [`free`] for the others.
fn raw(node: &Node, style: Style, table: Option<&Table<unique::Key>>) -> Json {
    match &node.value {
        Value::List(list) => {
            let kept = table.and_then(|table| table.here).is_some();
            if list.is_empty() && kept {
                Json::Array(Vec::new())
            } else {
                free(node, style)
            }
        }
        Value::Map(map) => in_order(map.iter(), style)
            .map(|(key, child)| {
                let below = table.and_then(|table| table.key(key));
                (key.clone(), raw(child, style, below))
            })
            .collect(),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Date(_) => node.to_json(),
    }
}

/// A float, as an integer when it is one: both mean the same, and Compose prints it so.
fn number(node: &Node) -> Json {
    match node.value {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole and small, as checked"
        )]
        Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => (value as i64).into(),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Date(_)
        | Value::List(_)
        | Value::Map(_) => node.to_json(),
    }
}

fn ssh(node: &Node, style: Style) -> Json {
    node.as_map()
        .into_iter()
        .flatten()
        .map(|(id, path)| {
            let path = path.display();
            let separator = match style {
                Style::Json => "=",
                Style::Yaml => ": ",
            };
            Json::from(if path.is_empty() {
                id.clone()
            } else {
                format!("{id}{separator}{path}")
            })
        })
        .collect()
}

fn ulimit(node: &Node, style: Style) -> Json {
    let part = |key: &str| node.get(key).and_then(Node::as_int).unwrap_or_default();
    let (soft, hard) = match node.as_int() {
        Some(single) if single != 0 => return single.into(),
        Some(_) => (0, 0),
        None => (part("soft"), part("hard")),
    };
    let mut out = serde_json::Map::new();
    for (key, limit) in [("soft", soft), ("hard", hard)] {
        if style == Style::Yaml || limit != 0 {
            out.insert(key.to_owned(), limit.into());
        }
    }
    Json::Object(out)
}

fn env_file(node: &Node) -> Json {
    let path = node.text("path").unwrap_or_default();
    let required = node.get("required").and_then(Node::as_bool).unwrap_or(true);
    let format = node.text("format").unwrap_or_default();
    // Compose writes a required one so whatever its format.
    if required {
        return path.into();
    }
    let mut out = serde_json::Map::new();
    out.insert("path".to_owned(), path.into());
    out.insert("required".to_owned(), false.into());
    if !format.is_empty() {
        out.insert("format".to_owned(), format.into());
    }
    Json::Object(out)
}

/// The hash of a service: SHA-256 over its canonical JSON, without what does not change its
/// container (docker/compose, `ServiceHash`).
pub(crate) fn hash(service: &Node) -> String {
    digest(&hashed(service))
}

/// The text that a service's hash is made of.
pub(crate) fn hashed(service: &Node) -> String {
    let mut service = service.clone();
    if let Some(map) = service.as_map_mut() {
        for key in ["build", "pull_policy", "scale", "depends_on", "profiles"] {
            map.remove(key);
        }
        if let Some(deploy) = map.get_mut("deploy").and_then(Node::as_map_mut) {
            deploy.remove("replicas");
        }
    }
    escaped(&fields_of(&service, SERVICE, Style::Json).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_people_count() {
        let mut keys = vec!["b10", "b9", "b", "3.4", "007", "a-1", "a1", "aa", "10", "9"];
        keys.sort_by(|a, b| natural(a, b));
        assert_eq!(
            keys,
            ["3.4", "007", "9", "10", "a-1", "a1", "aa", "b", "b9", "b10"]
        );
    }
}
