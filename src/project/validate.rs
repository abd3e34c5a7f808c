//! Holds a tree against `schema`: unknown keys, wrong kinds, missing and repeated entries.
//!
//! Reports everything it finds. Runs on each merged state, before short forms become long ones.

use super::diagnostic::Diagnostic;
use super::report::Report;
use super::schema::{FILE, Kinds, Names, Object, Shape};
use super::tree::{Map, Node, Trail, Value};

/// Reports what the specification does not allow in a file.
pub(crate) fn validate(node: &Node, report: &mut Report) {
    check(node, &FILE, &Trail::default(), report);
}

fn check(node: &Node, shape: &Shape, trail: &Trail<'_>, report: &mut Report) {
    match shape {
        Shape::Scalar(kinds) => {
            if !kinds.allow(&node.value) {
                wrong_kind(node, shape, trail, report);
            }
        }
        Shape::Within(low, high) => match whole(&node.value) {
            Some(value) if value >= *low && value <= *high => {}
            Some(value) => report.add(
                Diagnostic::error(format!("{value} is not between {low} and {high}"))
                    .at(node.place())
                    .key(trail.to_string())
                    .label("out of range"),
            ),
            None => wrong_kind(node, shape, trail, report),
        },
        Shape::Word(words) => match node.as_text() {
            Some(text) if words.contains(&text) => {}
            Some(text) => {
                let mut diagnostic = Diagnostic::error(format!("`{text}` is not allowed here"))
                    .at(node.place())
                    .key(trail.to_string())
                    .label(format!("expected {}", alternatives(words)));
                if let Some(word) = closest(text, words.iter().copied()) {
                    diagnostic = diagnostic.hint(format!("did you mean `{word}`?"));
                }
                report.add(diagnostic);
            }
            None => wrong_kind(node, shape, trail, report),
        },
        Shape::Text(passes, wanted) => match node.as_text() {
            Some(text) if passes(text) => {}
            Some(text) => report.add(
                Diagnostic::error(format!("`{text}` is not allowed here"))
                    .at(node.place())
                    .key(trail.to_string())
                    .label(format!("expected {wanted}")),
            ),
            None => wrong_kind(node, shape, trail, report),
        },
        Shape::List(item, unique) => match node.as_list() {
            Some(list) => {
                for (index, child) in list.iter().enumerate() {
                    check(child, item, &trail.index(index), report);
                }
                if *unique {
                    repeated(list, trail, report);
                }
            }
            None => wrong_kind(node, shape, trail, report),
        },
        Shape::Map(names, value) => match node.as_map() {
            Some(map) => keys_of_choice(map, *names, value, trail, report),
            None => wrong_kind(node, shape, trail, report),
        },
        Shape::Object(object) => match &node.value {
            Value::Map(map) => known_keys(node, map, object, trail, report),
            Value::Null if object.nullable => {}
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Large(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Date(_)
            | Value::List(_) => wrong_kind(node, shape, trail, report),
        },
        Shape::Either(shapes) => {
            match shapes.iter().find(|shape| shape.takes_kind_of(&node.value)) {
                Some(shape) => check(node, shape, trail, report),
                None => wrong_kind(node, shape, trail, report),
            }
        }
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole and within the range of 64 bits, as checked"
        )]
        Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e18 => Some(*value as i64),
        Value::Null
        | Value::Bool(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Date(_)
        | Value::List(_)
        | Value::Map(_) => None,
    }
}

impl Kinds {
    fn allow(self, value: &Value) -> bool {
        match value {
            Value::Null => self.null,
            Value::Bool(_) => self.boolean,
            Value::Int(_) | Value::Large(_) => self.integer || self.number,
            Value::Float(_) => self.number || (self.integer && whole(value).is_some()),
            Value::Text(_) => self.text,
            Value::Date(_) | Value::List(_) | Value::Map(_) => false,
        }
    }
}

impl Shape {
    fn takes_kind_of(&self, value: &Value) -> bool {
        match self {
            Shape::Scalar(kinds) => kinds.allow(value),
            Shape::Within(..) => whole(value).is_some(),
            Shape::Word(_) | Shape::Text(..) => matches!(value, Value::Text(_)),
            Shape::List(..) => matches!(value, Value::List(_)),
            Shape::Map(..) => matches!(value, Value::Map(_)),
            Shape::Object(object) => {
                matches!(value, Value::Map(_)) || (object.nullable && *value == Value::Null)
            }
            Shape::Either(shapes) => shapes.iter().any(|shape| shape.takes_kind_of(value)),
        }
    }

    /// What is expected, in words.
    fn words(&self) -> Vec<&'static str> {
        match self {
            Shape::Scalar(kinds) => {
                let mut words = Vec::new();
                if kinds.text {
                    words.push("text");
                }
                if kinds.number {
                    words.push("a number");
                } else if kinds.integer {
                    words.push("an integer");
                }
                if kinds.boolean {
                    words.push("a boolean");
                }
                if kinds.null && words.is_empty() {
                    words.push("nothing");
                }
                words
            }
            Shape::Within(..) => vec!["an integer"],
            Shape::Word(_) | Shape::Text(..) => vec!["text"],
            Shape::List(..) => vec!["a list"],
            Shape::Map(..) | Shape::Object(_) => vec!["a mapping"],
            Shape::Either(shapes) => {
                let mut words = Vec::new();
                for word in shapes.iter().flat_map(Shape::words) {
                    if !words.contains(&word) && word != "nothing" {
                        words.push(word);
                    }
                }
                words
            }
        }
    }
}

/// `a, b or c`.
fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn wrong_kind(node: &Node, shape: &Shape, trail: &Trail<'_>, report: &mut Report) {
    let wanted = alternatives(&shape.words());
    let mut diagnostic =
        Diagnostic::error(format!("{wanted} is expected, not {}", node.value.kind()))
            .at(node.place())
            .key(trail.to_string())
            .label(format!("this is {}", node.value.kind()));
    let text_is_fine = shape.words().contains(&"text");
    match &node.value {
        Value::Int(_) | Value::Large(_) | Value::Float(_) | Value::Bool(_) | Value::Date(_)
            if text_is_fine =>
        {
            if let Some(mark) = &node.mark {
                let written = mark
                    .source
                    .text
                    .get(mark.start as usize..mark.end as usize)
                    .unwrap_or_default();
                diagnostic = diagnostic.hint(format!("write \"{written}\" to make it text"));
            }
        }
        Value::Null => diagnostic = diagnostic.hint("give it a value or remove the key"),
        Value::Bool(true) if trail.to_string().ends_with(".x-wharf.process") => {
            diagnostic = diagnostic.hint("write {} to run the service's own command");
        }
        Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Date(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => {}
    }
    report.add(diagnostic);
}

fn keys_of_choice(map: &Map, names: Names, value: &Shape, trail: &Trail<'_>, report: &mut Report) {
    let identifier = |key: &str| {
        !key.is_empty()
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    for (key, child) in map {
        let fits = match names {
            Names::Identifier => {
                if !identifier(key) {
                    report.add(
                        Diagnostic::error(format!("`{key}` is not a valid name"))
                            .at(child.key_place())
                            .key(trail.key(key).to_string())
                            .label("not a name")
                            .hint("names are made of letters, digits, `.`, `_` and `-`"),
                    );
                    continue;
                }
                true
            }
            Names::IdentifierOrOther => identifier(key),
            Names::Any => !key.is_empty(),
            Names::Limit => !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase()),
        };
        if fits {
            check(child, value, &trail.key(key), report);
        }
    }
}

fn known_keys(node: &Node, map: &Map, object: &Object, trail: &Trail<'_>, report: &mut Report) {
    for (key, child) in map {
        let field = object.fields.iter().find(|(name, _)| name == key);
        if let Some((_, shape)) = field {
            check(child, shape, &trail.key(key), report);
        } else if !(object.open || (object.extensible && key.starts_with("x-"))) {
            let mut diagnostic = Diagnostic::error(format!("unknown key `{key}`"))
                .at(child.key_place())
                .key(trail.key(key).to_string())
                .label("not known here");
            let names = object.fields.iter().map(|(name, _)| *name);
            let near = if report.is_full() {
                None
            } else {
                closest(key, names)
            };
            if let Some(name) = near {
                diagnostic = diagnostic.hint(format!("did you mean `{name}`?"));
            } else if object.extensible {
                diagnostic =
                    diagnostic.hint(format!("keys of your own start with `x-`, as in `x-{key}`"));
            }
            report.add(diagnostic);
        }
    }
    for name in object.required {
        if !map.contains_key(*name) {
            report.add(
                Diagnostic::error(format!("`{name}` is missing"))
                    .at(node.place())
                    .key(trail.to_string())
                    .label(format!("has no `{name}`")),
            );
        }
    }
}

fn repeated(list: &[Node], trail: &Trail<'_>, report: &mut Report) {
    let mut seen = std::collections::BTreeMap::new();
    for (index, item) in list.iter().enumerate() {
        let first = *seen.entry(item.to_json().to_string()).or_insert(index);
        if first != index && list.get(first) == Some(item) {
            report.add(
                Diagnostic::error("the same entry stands twice in this list")
                    .at(item.place())
                    .key(trail.index(index).to_string())
                    .label(format!("the same as entry {}", first + 1))
                    .hint("keep one of them"),
            );
        }
    }
}

/// The word that was probably meant.
pub(crate) fn closest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    words
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words: insertions, deletions, replacements and swapped neighbours.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX);
            let mut cost = (at(&last, j) + usize::from(x != y))
                .min(at(&last, j + 1) + 1)
                .min(at(&row, j) + 1);
            let swapped =
                i > 0 && j > 0 && Some(x) == b.get(j - 1) && a.get(i - 1) == Some(y) && x != y;
            if swapped {
                cost = cost.min(at(&before, j - 1).saturating_add(1));
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near_misses_only() {
        let keys = ["environment", "image", "ports", "profiles"];
        assert_eq!(closest("enviroment", keys.into_iter()), Some("environment"));
        assert_eq!(closest("port", keys.into_iter()), Some("ports"));
        assert_eq!(closest("imgae", keys.into_iter()), Some("image"));
        assert_eq!(closest("restart", keys.into_iter()), None);
    }
}
