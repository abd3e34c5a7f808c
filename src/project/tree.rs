//! The tree that every stage of loading works on: values with the place where each was written.
//!
//! Made by `node`, changed by the stages in `mod`, read by `typed` and `render`. Knows no YAML and
//! no meaning of keys.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::diagnostic::{Place, Source};

/// A mapping. Sorted, so that no stage can depend on the order in which keys were written.
pub(crate) type Map = BTreeMap<String, Node>;

/// Where a node stands: bytes of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) source: Arc<Source>,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Mark {
    /// The same, for a diagnostic.
    pub(crate) fn place(&self) -> Place {
        Place {
            source: Arc::clone(&self.source),
            start: self.start as usize,
            end: self.end as usize,
        }
    }
}

/// What the tags `!reset` and `!override` ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Directive {
    /// Nothing.
    #[default]
    None,
    /// Remove what earlier files have here.
    Reset,
    /// Replace it.
    Override,
}

/// A value of the tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    /// An integer beyond `i64`.
    Large(u64),
    Float(f64),
    Text(String),
    /// A plain scalar that YAML 1.1 reads as a date; valid nowhere in a compose file.
    Date(String),
    List(Vec<Node>),
    Map(Map),
}

/// A value and its places.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Where the value is written; `None`: added by a stage.
    pub(crate) mark: Option<Mark>,
    /// Where its key is written, for a value in a mapping.
    pub(crate) key: Option<Mark>,
    pub(crate) directive: Directive,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    /// A value that no file has.
    pub(crate) fn new(value: impl Into<Value>) -> Self {
        Self {
            value: value.into(),
            ..Self::default()
        }
    }

    /// A value in place of this one: it keeps the places.
    pub(crate) fn with(&self, value: impl Into<Value>) -> Self {
        Self {
            value: value.into(),
            mark: self.mark.clone(),
            key: self.key.clone(),
            directive: Directive::None,
        }
    }

    /// The place of the value, else of its key.
    pub(crate) fn place(&self) -> Option<Place> {
        self.mark.as_ref().or(self.key.as_ref()).map(Mark::place)
    }

    /// The place of the key, else of the value.
    pub(crate) fn key_place(&self) -> Option<Place> {
        self.key.as_ref().or(self.mark.as_ref()).map(Mark::place)
    }

    pub(crate) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Large(_)
            | Value::Float(_)
            | Value::Date(_)
            | Value::List(_)
            | Value::Map(_) => None,
        }
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = self.value {
            Some(value)
        } else {
            None
        }
    }

    pub(crate) fn as_int(&self) -> Option<i64> {
        if let Value::Int(value) = self.value {
            Some(value)
        } else {
            None
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        if let Value::Map(map) = &self.value {
            Some(map)
        } else {
            None
        }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Value::Map(map) = &mut self.value {
            Some(map)
        } else {
            None
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Node]> {
        if let Value::List(list) = &self.value {
            Some(list)
        } else {
            None
        }
    }

    pub(crate) fn as_list_mut(&mut self) -> Option<&mut Vec<Node>> {
        if let Value::List(list) = &mut self.value {
            Some(list)
        } else {
            None
        }
    }

    /// The child with this key, when this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.as_map().and_then(|map| map.get(key))
    }

    /// The text of the child with this key.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Node::as_text)
    }

    /// The value without its places.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Large(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(text) | Value::Date(text) => text.as_str().into(),
            Value::List(list) => list.iter().map(Node::to_json).collect(),
            Value::Map(map) => map
                .iter()
                .map(|(key, node)| (key.clone(), node.to_json()))
                .collect(),
        }
    }

    /// A scalar as the text that formatting it gives; empty for null, lists and mappings.
    pub(crate) fn display(&self) -> String {
        match &self.value {
            Value::Null | Value::List(_) | Value::Map(_) => String::new(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Large(value) => value.to_string(),
            Value::Float(value) => super::scalar::float(*value),
            // As Compose prints the time that a date stands for.
            Value::Date(text) if text.len() <= 10 => {
                let mut parts = text.split('-').map(|part| format!("{part:0>2}"));
                let mut next = || parts.next().unwrap_or_default();
                let (year, month, day) = (next(), next(), next());
                format!("{year}-{month}-{day} 00:00:00 +0000 UTC")
            }
            Value::Text(text) | Value::Date(text) => text.clone(),
        }
    }
}

impl Value {
    /// The kind, in words, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Large(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::Date(_) => "a date",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Value::Map(map)
    }
}

impl From<Vec<Node>> for Value {
    fn from(list: Vec<Node>) -> Self {
        Value::List(list)
    }
}

/// One step of a key path.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// The key path from the top to where a walk is, kept on its stack.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trail<'a> {
    last: Option<(&'a Trail<'a>, Step<'a>)>,
}

impl<'a> Trail<'a> {
    /// One key deeper.
    pub(crate) fn key(&'a self, key: &'a str) -> Trail<'a> {
        Trail {
            last: Some((self, Step::Key(key))),
        }
    }

    /// One list element deeper.
    pub(crate) fn index(&'a self, index: usize) -> Trail<'a> {
        Trail {
            last: Some((self, Step::Index(index))),
        }
    }
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((parent, step)) = self.last else {
            return Ok(());
        };
        parent.fmt(f)?;
        match step {
            Step::Key(key) if parent.last.is_some() => write!(f, ".{key}"),
            Step::Key(key) => f.write_str(key),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A table of path patterns, `*` for any one key or list element: how stages say what happens
/// where. An exact key wins over `*`.
#[derive(Debug)]
pub(crate) struct Table<T: 'static> {
    exact: BTreeMap<&'static str, Table<T>>,
    any: Option<Box<Table<T>>>,
    pub(crate) here: Option<T>,
}

impl<T: Copy> Table<T> {
    /// From patterns such as `services.*.ports`.
    pub(crate) fn new(rows: &[(&'static str, T)]) -> Self {
        let mut table = Self::empty();
        for (pattern, value) in rows {
            let mut at = &mut table;
            for step in pattern.split('.') {
                at = if step == "*" {
                    at.any.get_or_insert_with(|| Box::new(Self::empty()))
                } else {
                    at.exact.entry(step).or_insert_with(Self::empty)
                };
            }
            at.here = Some(*value);
        }
        table
    }

    fn empty() -> Self {
        Self {
            exact: BTreeMap::new(),
            any: None,
            here: None,
        }
    }

    /// What the table says below a key.
    pub(crate) fn key(&self, key: &str) -> Option<&Self> {
        self.exact.get(key).or(self.any.as_deref())
    }

    /// What the table says below a list element.
    pub(crate) fn item(&self) -> Option<&Self> {
        self.any.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_reads_as_people_write_paths() {
        let top = Trail::default();
        let services = top.key("services");
        let web = services.key("web");
        let ports = web.key("ports");
        assert_eq!(ports.index(3).to_string(), "services.web.ports[3]");
        assert_eq!(top.to_string(), "");
    }

    #[test]
    fn an_exact_key_wins_over_any() {
        let table = Table::new(&[("a.*", 1), ("a.b", 2)]);
        let below = table.key("a").map(|a| {
            (
                a.key("x").and_then(|t| t.here),
                a.key("b").and_then(|t| t.here),
            )
        });
        assert_eq!(below, Some((Some(1), Some(2))));
    }
}
