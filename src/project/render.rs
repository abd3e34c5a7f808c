//! The cast tree → text: the JSON and YAML that `config` prints, and the hash of a service.
//!
//! Both follow the order of `shape`; they differ in what they leave out and in how they write byte
//! counts. Extensions are YAML's only, but for those of the project itself.

use std::fmt::Write as _;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::scalar;
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
pub(crate) fn json(top: &Map) -> Json {
    project(top, Style::Json)
}

/// A project as the values that its YAML holds.
pub(crate) fn yaml(top: &Map) -> Json {
    project(top, Style::Yaml)
}

fn project(top: &Map, style: Style) -> Json {
    let mut out = serde_json::Map::new();
    if let Some(name) = top.get("name") {
        out.insert("name".to_owned(), name.to_json());
    }
    for (name, fields) in SECTIONS {
        // Compose's JSON has no models.
        if style == Style::Json && *name == "models" {
            continue;
        }
        let section = top.get(*name).and_then(Node::as_map);
        let section = match section {
            Some(section) if !section.is_empty() => section,
            _ if *name == "services" => &Map::new(),
            _ => continue,
        };
        let rendered = in_order(section.iter(), style)
            .map(|(key, node)| (key.clone(), fields_of(node, fields, style)))
            .collect();
        out.insert((*name).to_owned(), Json::Object(rendered));
    }
    extensions(top, style, &mut out);
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
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let Some(at) = a.iter().zip(&b).position(|(x, y)| x != y) else {
        return a.len().cmp(&b.len());
    };
    let (Some(&x), Some(&y)) = (a.get(at), b.get(at)) else {
        return Ordering::Equal;
    };
    let within_number = at
        .checked_sub(1)
        .and_then(|before| a.get(before))
        .is_some_and(|c| c.is_numeric());
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
        a.get(..at)
            .unwrap_or_default()
            .iter()
            .rev()
            .take_while(|c| c.is_numeric())
            .any(|c| *c != '0')
    };
    let lead = u64::from((x == '0' || y == '0') && behind_digit());
    let number = |text: &[char]| {
        let digits: Vec<u32> = text
            .iter()
            .skip(at)
            .map_while(|c| c.is_numeric().then(|| c.to_digit(10).unwrap_or_default()))
            .collect();
        let value = digits.iter().fold(lead, |value, digit| {
            value.wrapping_mul(10).wrapping_add(u64::from(*digit))
        });
        (value, digits.len())
    };
    number(&a).cmp(&number(&b)).then(x.cmp(&y))
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
    if required && format.is_empty() {
        return path.into();
    }
    let mut out = serde_json::Map::new();
    out.insert("path".to_owned(), path.into());
    if !required {
        out.insert("required".to_owned(), required.into());
    }
    if !format.is_empty() {
        out.insert("format".to_owned(), format.into());
    }
    Json::Object(out)
}

/// The hash of a service: SHA-256 over its canonical JSON, without what does not change its
/// container (docker/compose, `ServiceHash`).
pub(crate) fn hash(service: &Node) -> String {
    let mut service = service.clone();
    if let Some(map) = service.as_map_mut() {
        for key in ["build", "pull_policy", "scale", "depends_on", "profiles"] {
            map.remove(key);
        }
        if let Some(deploy) = map.get_mut("deploy").and_then(Node::as_map_mut) {
            deploy.remove("replicas");
        }
    }
    let json = fields_of(&service, SERVICE, Style::Json).to_string();
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
    let mut out = String::with_capacity(64);
    for byte in Sha256::digest(escaped.as_bytes()) {
        let _written = write!(out, "{byte:02x}");
    }
    out
}

/// Values as the text that Compose's YAML writer gives: indented by two, quoted where the text
/// would read as something else.
pub(crate) fn to_yaml(value: &Json) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Json, indent: usize, out: &mut String) {
    match value {
        Json::Object(map) => {
            for (index, (key, child)) in map.iter().enumerate() {
                if index > 0 || !out.ends_with("- ") {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str(&text(key, None));
                out.push(':');
                entry(child, indent, out);
            }
        }
        Json::Array(list) => {
            for (index, child) in list.iter().enumerate() {
                if index > 0 || !out.ends_with("- ") {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str("- ");
                match child {
                    Json::Object(map) if !map.is_empty() => block(child, indent + 2, out),
                    Json::Array(inner) if !inner.is_empty() => block(child, indent + 2, out),
                    Json::Null
                    | Json::Bool(_)
                    | Json::Number(_)
                    | Json::String(_)
                    | Json::Array(_)
                    | Json::Object(_) => {
                        out.push_str(&inline(child, indent));
                        out.push('\n');
                    }
                }
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            out.push_str(&inline(value, indent));
            out.push('\n');
        }
    }
}

/// What follows a key's colon.
fn entry(child: &Json, indent: usize, out: &mut String) {
    let nested = match child {
        Json::Object(map) => !map.is_empty(),
        Json::Array(list) => !list.is_empty(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    };
    if nested {
        out.push('\n');
        block(child, indent + 2, out);
    } else {
        out.push(' ');
        out.push_str(&inline(child, indent));
        out.push('\n');
    }
}

fn inline(value: &Json, indent: usize) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Bool(value) => value.to_string(),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (None, Some(value)) if number.as_u64().is_none() => scalar::float(value),
            _ => number.to_string(),
        },
        Json::String(content) => text(content, Some(indent)),
        Json::Array(_) => "[]".to_owned(),
        Json::Object(_) => "{}".to_owned(),
    }
}

/// A text: in several lines where it has some, plain where that reads as the same text, else in
/// single quotes, else in double quotes. A key (no `indent`) stays on its line.
fn text(content: &str, indent: Option<usize>) -> String {
    // The writer knows the characters of the basic plane only.
    let printable = |c: char| !c.is_control() && c != '\u{feff}' && u32::from(c) < 0xfffe;
    if let Some(indent) = indent
        && content.contains('\n')
        && content
            .chars()
            .all(|c| c == '\n' || c == '\t' || printable(c))
        && !content.ends_with(' ')
        && !content.contains(" \n")
    {
        return literal(content, indent);
    }
    if reads_as_other(content) || legacy_boolean(content) || !content.chars().all(printable) {
        return double_quoted(content);
    }
    if plain_is_fine(content) {
        content.to_owned()
    } else {
        format!("'{}'", content.replace('\'', "''"))
    }
}

/// A literal block, `|`.
fn literal(content: &str, indent: usize) -> String {
    let mut out = String::from("|");
    if content.starts_with([' ', '\n']) {
        out.push('2');
    }
    if content == "\n" || content.ends_with("\n\n") {
        out.push('+');
    } else if !content.ends_with('\n') {
        out.push('-');
    }
    let body = content.strip_suffix('\n').unwrap_or(content);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&" ".repeat(indent + 2));
            out.push_str(line);
        }
    }
    out
}

fn reads_as_other(content: &str) -> bool {
    content == "<<" || !matches!(scalar::plain(content), Value::Text(_)) || is_sexagesimal(content)
}

/// `y`, `no`, `on` and their like, which older readers take for booleans.
fn legacy_boolean(content: &str) -> bool {
    matches!(
        content,
        "y" | "Y"
            | "yes"
            | "Yes"
            | "YES"
            | "on"
            | "On"
            | "ON"
            | "n"
            | "N"
            | "no"
            | "No"
            | "NO"
            | "off"
            | "Off"
            | "OFF"
    )
}

/// `1:30`, which YAML 1.1 reads as a number of base 60.
fn is_sexagesimal(content: &str) -> bool {
    let content = content.strip_prefix(['-', '+']).unwrap_or(content);
    let (whole, fraction) = content.split_once('.').unwrap_or((content, ""));
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or_default();
    let digits = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_')
    };
    let rest: Vec<&str> = parts.collect();
    first.starts_with(|c: char| c.is_ascii_digit())
        && digits(first)
        && digits(fraction)
        && !rest.is_empty() && rest.iter().all(|part| {
        matches!(part.as_bytes(), [a] if a.is_ascii_digit())
            || matches!(part.as_bytes(), [a, b] if (b'0'..=b'5').contains(a) && b.is_ascii_digit())
    })
}

fn plain_is_fine(content: &str) -> bool {
    let Some(first) = content.chars().next() else {
        return false;
    };
    if content.starts_with(' ') || content.ends_with(' ') {
        return false;
    }
    if content.starts_with("---") || content.starts_with("...") {
        return false;
    }
    let second = content.chars().nth(1);
    let second_is_blank = second.is_none_or(|c| c == ' ' || c == '\t');
    match first {
        '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%'
        | '@' | '`' => return false,
        '-' | '?' | ':' if second_is_blank => return false,
        _ => {}
    }
    !content.contains(": ")
        && !content.ends_with(':')
        && !content.contains(" #")
        && !content.contains('\t')
}

fn double_quoted(content: &str) -> String {
    let mut out = String::from("\"");
    for c in content.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0' => out.push_str("\\0"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            '\u{feff}' => out.push_str("\\uFEFF"),
            '\u{fffe}' => out.push_str("\\uFFFE"),
            '\u{ffff}' => out.push_str("\\uFFFF"),
            '\u{85}' => out.push_str("\\N"),
            c if c.is_control() => {
                let _written = write!(out, "\\x{:02X}", u32::from(c));
            }
            c if u32::from(c) > 0xffff => {
                let _written = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
