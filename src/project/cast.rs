//! Gives every value of a canonical tree the type that `shape` says: text to numbers, booleans,
//! byte counts and times; lists of `KEY=value` to mappings.
//!
//! After it a tree holds no other spelling of the same thing, which is what `typed` and `render`
//! rely on.

use super::diagnostic::Diagnostic;
use super::interpolate::boolean;
use super::quantity::{bytes, duration, duration_text};
use super::report::Report;
use super::shape::{Field, Form, SECTIONS};
use super::tree::{Map, Node, Trail, Value};

/// How long a command may be, in bytes; Linux takes two MiB of arguments and environment together
/// where the stack has its usual size (execve(2)).
const COMMAND_LIMIT: usize = 1 << 20;

/// Casts a whole project.
pub(crate) fn cast(node: &mut Node, report: &mut Report) {
    let Some(top) = node.as_map_mut() else { return };
    let trail = Trail::default();
    for (name, fields) in SECTIONS {
        if let Some(section) = top.get_mut(*name).and_then(Node::as_map_mut) {
            let trail = trail.key(name);
            for (key, child) in section.iter_mut() {
                if child.is_null() {
                    child.value = Value::Map(Map::new());
                }
                fields_of(child, fields, &trail.key(key), report);
            }
        }
    }
}

/// Casts one section.
pub(crate) fn fields_of(node: &mut Node, fields: &[Field], trail: &Trail<'_>, report: &mut Report) {
    let Some(map) = node.as_map_mut() else { return };
    for field in fields {
        if let Some(child) = map.get_mut(field.name) {
            if child.is_null() {
                map.remove(field.name);
            } else {
                one(child, field.form, &trail.key(field.name), report);
            }
        }
    }
}

fn one(node: &mut Node, form: Form, trail: &Trail<'_>, report: &mut Report) {
    match form {
        Form::Text => {
            if !matches!(node.value, Value::List(_) | Value::Map(_)) {
                node.value = Value::Text(node.display());
            }
        }
        Form::Flag | Form::MaybeFlag | Form::External => {
            if let Some(text) = node.as_text() {
                match boolean(text) {
                    Some(value) => node.value = Value::Bool(value),
                    None => wrong(node, trail, "a boolean", report),
                }
            }
        }
        Form::Int | Form::MaybeInt => integer(node, trail, report),
        Form::Float => {
            let value = match &node.value {
                Value::Text(text) => text.parse::<f32>().ok(),
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "the canonical form holds these numbers in 32 bits"
                )]
                Value::Int(value) => Some(*value as f32),
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the canonical form holds these numbers in 32 bits"
                )]
                Value::Float(value) => Some(*value as f32),
                Value::Null
                | Value::Bool(_)
                | Value::Large(_)
                | Value::Date(_)
                | Value::List(_)
                | Value::Map(_) => None,
            };
            match value {
                // Through text, so that 0.1 of 32 bits prints as 0.1.
                Some(value) => {
                    node.value = Value::Float(value.to_string().parse().unwrap_or(0.0));
                }
                None => wrong(node, trail, "a number", report),
            }
        }
        Form::Bytes => {
            if let Some(text) = node.as_text() {
                match bytes(text) {
                    Some(value) => node.value = Value::Int(value),
                    None => wrong(node, trail, "a size such as `64m` or `2gb`", report),
                }
            } else {
                integer(node, trail, report);
            }
        }
        Form::Duration | Form::MaybeDuration => match node.as_text().map(duration) {
            Some(Some(value)) => node.value = Value::Text(duration_text(value)),
            _ => wrong(node, trail, "a time such as `10s` or `1m30s`", report),
        },
        Form::Mode => match node.as_text().map(|text| i64::from_str_radix(text, 8)) {
            Some(Ok(value)) => node.value = Value::Int(value),
            Some(Err(_)) => wrong(node, trail, "permission bits such as `0440`", report),
            None => integer(node, trail, report),
        },
        Form::Count => match node.as_text() {
            Some("all") => node.value = Value::Int(-1),
            _ => integer(node, trail, report),
        },
        Form::Command => {
            if let Some(text) = node.as_text() {
                if text.len() > COMMAND_LIMIT {
                    let message =
                        format!("a command of more than {COMMAND_LIMIT} bytes cannot be run");
                    report.error(node, trail, message);
                    return;
                }
                match split(text) {
                    Some(words) => {
                        let words: Vec<Node> = words.into_iter().map(|w| node.with(w)).collect();
                        node.value = Value::List(words);
                    }
                    None => {
                        report.add(
                            Diagnostic::error("this command ends within quotes or after a `\\`")
                                .at(node.place())
                                .key(trail.to_string())
                                .label("cannot be split into words")
                                .hint("write it as a list, one entry per argument"),
                        );
                    }
                }
            }
        }
        Form::Test => {
            if let Some(text) = node.as_text() {
                let words = vec![node.with("CMD-SHELL"), node.with(text)];
                node.value = Value::List(words);
            }
        }
        Form::Texts => texts(node),
        Form::Pairs => pairs(node, &|| Value::Text(String::new())),
        Form::Environment => pairs(node, &|| Value::Null),
        Form::Hosts => hosts(node, trail, report),
        Form::MultiOptions => {
            if let Some(map) = node.as_map_mut() {
                map.values_mut().for_each(texts);
            }
        }
        Form::Ssh => {
            if node.as_list().is_some() {
                pairs(node, &|| Value::Null);
            }
        }
        Form::Ulimit => ulimit(node, trail, report),
        Form::EnvFile => {
            fields_of(node, &[], trail, report);
            if let Some(required) = node.as_map_mut().and_then(|map| map.get_mut("required")) {
                one(required, Form::Flag, &trail.key("required"), report);
            }
        }
        Form::Value(fields) | Form::Section(fields) => fields_of(node, fields, trail, report),
        Form::List(item) => {
            if let Some(list) = node.as_list_mut() {
                for (index, child) in list.iter_mut().enumerate() {
                    one(child, *item, &trail.index(index), report);
                }
            }
        }
        Form::Map(value) => {
            if let Some(map) = node.as_map_mut() {
                for (key, child) in map.iter_mut() {
                    if !child.is_null() {
                        one(child, *value, &trail.key(key), report);
                    }
                }
            }
        }
    }
}

fn wrong(node: &mut Node, trail: &Trail<'_>, wanted: &str, report: &mut Report) {
    report.add(
        Diagnostic::error(format!("`{}` is not {wanted}", node.display()))
            .at(node.place())
            .key(trail.to_string())
            .label(format!("expected {wanted}")),
    );
    node.value = Value::Null;
}

fn integer(node: &mut Node, trail: &Trail<'_>, report: &mut Report) {
    match &node.value {
        Value::Int(_) => {}
        #[expect(
            clippy::cast_possible_truncation,
            reason = "compose drops the fraction; out of range saturates"
        )]
        Value::Float(value) => node.value = Value::Int(*value as i64),
        Value::Text(text) => match text.parse() {
            Ok(value) => node.value = Value::Int(value),
            Err(_) => wrong(node, trail, "an integer", report),
        },
        Value::Null
        | Value::Bool(_)
        | Value::Large(_)
        | Value::Date(_)
        | Value::List(_)
        | Value::Map(_) => {
            wrong(node, trail, "an integer", report);
        }
    }
}

fn texts(node: &mut Node) {
    match &mut node.value {
        Value::List(list) => {
            for item in list {
                item.value = Value::Text(item.display());
            }
        }
        Value::Null | Value::Map(_) => {}
        Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Date(_) => {
            let item = node.with(node.display());
            node.value = Value::List(vec![Node { key: None, ..item }]);
        }
    }
}

fn pairs(node: &mut Node, unset: &dyn Fn() -> Value) {
    match &mut node.value {
        Value::Map(map) => {
            for child in map.values_mut() {
                child.value = if child.is_null() {
                    unset()
                } else {
                    Value::Text(child.display())
                };
            }
        }
        Value::List(list) => {
            let map: Map = list
                .iter()
                .map(|item| {
                    let text = item.display();
                    match text.split_once('=') {
                        Some((key, value)) => (key.to_owned(), item.with(value)),
                        None => (text.clone(), item.with(unset())),
                    }
                })
                .collect();
            node.value = Value::Map(map);
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

/// To a sorted list of `host=address`; an address in brackets loses them.
fn hosts(node: &mut Node, trail: &Trail<'_>, report: &mut Report) {
    let mut entries: Vec<(String, Node)> = Vec::new();
    let bare = |address: &str| {
        address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(address)
            .to_owned()
    };
    match &node.value {
        Value::Map(map) => {
            for (host, child) in map {
                match &child.value {
                    Value::List(list) => {
                        for item in list {
                            entries.push((host.clone(), item.with(bare(&item.display()))));
                        }
                    }
                    Value::Null
                    | Value::Bool(_)
                    | Value::Int(_)
                    | Value::Large(_)
                    | Value::Float(_)
                    | Value::Text(_)
                    | Value::Date(_)
                    | Value::Map(_) => {
                        entries.push((host.clone(), child.with(bare(&child.display()))));
                    }
                }
            }
        }
        Value::List(list) => {
            for (index, item) in list.iter().enumerate() {
                let text = item.display();
                match text.split_once('=').or_else(|| text.split_once(':')) {
                    Some((host, address)) if !host.is_empty() => {
                        entries.push((host.to_owned(), item.with(bare(address))));
                    }
                    _ => report.add(
                        Diagnostic::error(format!("`{text}` is not of the form host=address"))
                            .at(item.place())
                            .key(trail.index(index).to_string())
                            .label("here"),
                    ),
                }
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Date(_) => return,
    }
    let mut list: Vec<Node> = entries
        .into_iter()
        .map(|(host, node)| {
            let text = format!("{host}={}", node.display());
            node.with(text)
        })
        .collect();
    list.sort_by(|a, b| a.as_text().cmp(&b.as_text()));
    node.value = Value::List(list);
}

/// To an integer, or to a mapping with `soft` and `hard`.
fn ulimit(node: &mut Node, trail: &Trail<'_>, report: &mut Report) {
    match &mut node.value {
        Value::Map(map) => {
            for name in ["soft", "hard"] {
                if let Some(child) = map.get_mut(name) {
                    integer(child, &trail.key(name), report);
                }
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Date(_)
        | Value::List(_) => integer(node, trail, report),
    }
}

/// Splits a command line into words as Compose does: quotes and backslashes as in a shell; backquotes
/// and `$(…)` hold their words together and stay; an unquoted operator ends the command. `None` when
/// something is left open.
pub(crate) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut started = false;
    let (mut escaped, mut single, mut double, mut back, mut dollar) =
        (false, false, false, false, false);
    for c in text.chars() {
        if escaped {
            word.push(match c {
                't' => '\t',
                'n' => '\n',
                _ => c,
            });
            escaped = false;
            started = true;
            continue;
        }
        match c {
            '\\' if single => word.push(c),
            '\\' => escaped = true,
            ' ' | '\t' | '\r' | '\n' => {
                if single || double || back || dollar {
                    word.push(c);
                } else if started {
                    words.push(std::mem::take(&mut word));
                    started = false;
                }
            }
            '"' if !single && !dollar => {
                started |= double;
                double = !double;
            }
            '\'' if !double && !dollar => {
                started |= single;
                single = !single;
            }
            ';' | '&' | '|' | '<' | '>' if !(single || double || back || dollar) => {
                // `2>` belongs to the operator.
                if c == '>' && word.starts_with(|first: char| first.is_ascii_digit()) {
                    started = false;
                }
                break;
            }
            _ => {
                match c {
                    '`' if !single && !double && !dollar => back = !back,
                    '(' if !single && !double && !back => {
                        if dollar || !word.ends_with('$') {
                            return None;
                        }
                        dollar = true;
                    }
                    ')' if !single && !double && !back => dollar = !dollar,
                    _ => {}
                }
                started = true;
                word.push(c);
            }
        }
    }
    if started {
        words.push(word);
    }
    (!(escaped || single || double || back || dollar)).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_compose_splits_them() {
        for (text, words) in [
            ("a  'b c' \"d\" e\\ f", vec!["a", "b c", "d", "e f"]),
            ("a \"\" b", vec!["a", "", "b"]),
            ("a `b c` $(d e)", vec!["a", "`b c`", "$(d e)"]),
            ("a b 2>x", vec!["a", "b"]),
            ("a#b # c", vec!["a#b", "#", "c"]),
            ("", vec![]),
        ] {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            assert_eq!(split(text), Some(words), "{text}");
        }
        for text in ["'a", "a \\", "(a)", "`a"] {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
