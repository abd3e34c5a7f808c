//! YAML → tree. The only file that knows the YAML crate.
//!
//! Aliases are expanded, merge keys (`<<`) applied, duplicate keys refused and the tags `!reset`
//! and `!override` kept as directives. Expansion is bounded in nodes and in depth, so that a small
//! file cannot become a large tree. Must not know what a key means.

use std::collections::BTreeMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag, options};

use super::base64::base64;
use super::diagnostic::{Diagnostic, Source};
use super::scalar::plain;
use super::tree::{Directive, Map, Mark, Node, Value};

/// How many keys and values one file may hold: sixty for each of ten thousand services.
const VALUE_LIMIT: usize = 600_000;
/// How many nodes aliases may add to one file.
const ALIAS_BUDGET: usize = 200_000;
/// How deep a tree may be, aliases expanded.
const DEPTH_LIMIT: usize = 256;

/// The documents of a source, top nodes; empty documents are left out. Mistakes go to `found`; what
/// could be read before one is not returned.
pub(crate) fn parse(source: &Arc<Source>, found: &mut Vec<Diagnostic>) -> Vec<Node> {
    let mut reader = Reader {
        source,
        found,
        anchors: BTreeMap::new(),
        stack: Vec::new(),
        documents: Vec::new(),
        values: 0,
        alias_nodes: 0,
        sound: true,
    };
    let options = options! {
        emit_comments: false,
        // As Compose's reader has it.
        block_scalar_eof_without_line_feed: true,
    };
    for next in Parser::new_from_str_with_options(&source.text, options) {
        match next {
            Ok((event, span)) => {
                if !reader.event(event, &span) {
                    return Vec::new();
                }
            }
            Err(error) => {
                let at = error
                    .marker()
                    .byte_offset()
                    .unwrap_or_else(|| byte_of_char(&source.text, error.marker().index()));
                let mark = reader.mark(at, at + 1);
                reader.found.push(
                    Diagnostic::error(format!("not valid YAML: {}", error.info().to_lowercase()))
                        .at(Some(mark.place()))
                        .label("here"),
                );
                return Vec::new();
            }
        }
    }
    if reader.sound {
        reader.documents
    } else {
        Vec::new()
    }
}

fn byte_of_char(text: &str, index: usize) -> usize {
    text.char_indices()
        .nth(index)
        .map_or(text.len(), |(byte, _)| byte)
}

/// A collection that is not closed yet.
struct Frame {
    anchor: usize,
    directive: Directive,
    start: u32,
    content: Content,
    /// Nodes so far, itself included.
    size: usize,
    /// Levels below it.
    depth: usize,
}

enum Content {
    List(Vec<Node>),
    Map {
        map: Map,
        /// What `<<` brings in, the strongest first.
        merged: Vec<Node>,
        /// The key whose value comes next.
        key: Option<Key>,
    },
}

struct Key {
    name: String,
    mark: Mark,
    merge: bool,
}

/// A finished node and its extent.
struct Sized {
    node: Node,
    size: usize,
    depth: usize,
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    found: &'a mut Vec<Diagnostic>,
    anchors: BTreeMap<usize, Sized>,
    stack: Vec<Frame>,
    documents: Vec<Node>,
    values: usize,
    alias_nodes: usize,
    sound: bool,
}

impl Reader<'_> {
    fn mark(&self, start: usize, end: usize) -> Mark {
        let text = &self.source.text;
        let start = text.floor_char_boundary(start);
        let end = text.ceil_char_boundary(end.max(start));
        let bounded = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Mark {
            source: Arc::clone(self.source),
            start: bounded(start),
            end: bounded(end),
        }
    }

    fn span(&self, span: &Span) -> Mark {
        let range = span.byte_range().unwrap_or(0..0);
        self.mark(range.start, range.end)
    }

    fn complain(&mut self, mark: &Mark, message: String, label: &str) {
        self.sound = false;
        self.found.push(
            Diagnostic::error(message)
                .at(Some(mark.place()))
                .label(label),
        );
    }

    /// Takes one event in; `false` ends the reading.
    fn event(&mut self, event: Event<'_>, span: &Span) -> bool {
        self.values += 1;
        if self.values > VALUE_LIMIT {
            let mark = self.span(span);
            self.complain(
                &mark,
                format!("the file has more than {VALUE_LIMIT} keys and values"),
                "here",
            );
            return false;
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let mark = self.span(span);
                if self.awaits_key() {
                    let bare = style == ScalarStyle::Plain && tag.is_none();
                    self.key(&text, bare, mark);
                    return true;
                }
                let (value, directive) = match scalar(&text, style, tag.as_deref()) {
                    Ok(read) => read,
                    Err(message) => {
                        self.complain(&mark, message, "here");
                        (Value::Null, Directive::None)
                    }
                };
                let node = Node {
                    value,
                    mark: Some(mark),
                    key: None,
                    directive,
                };
                return self.finish(node, 1, 0, anchor);
            }
            Event::SequenceStart(_, anchor, tag) => {
                return self.open(Content::List(Vec::new()), anchor, tag.as_deref(), span);
            }
            Event::MappingStart(_, anchor, tag) => {
                let content = Content::Map {
                    map: Map::new(),
                    merged: Vec::new(),
                    key: None,
                };
                return self.open(content, anchor, tag.as_deref(), span);
            }
            Event::SequenceEnd | Event::MappingEnd => return self.close(span),
            Event::Alias(id) => return self.alias(id, span),
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::UnresolvedAlias(_)
            | Event::Comment(..)
            // What the reader may come to tell later.
            | _ => {}
        }
        true
    }

    fn awaits_key(&self) -> bool {
        matches!(
            self.stack.last(),
            Some(Frame {
                content: Content::Map { key: None, .. },
                ..
            })
        )
    }

    fn key(&mut self, text: &str, bare: bool, mark: Mark) {
        if bare {
            let read = plain(text);
            if !matches!(read, Value::Text(_)) {
                let shown = if text.is_empty() {
                    "an empty key"
                } else {
                    text
                };
                self.complain(
                    &mark,
                    format!("the key `{shown}` is {}, not text", read.kind()),
                    "quote it to make it text",
                );
            }
        }
        let duplicate = match self.stack.last() {
            Some(Frame {
                content: Content::Map { map, merged, .. },
                ..
            }) => {
                if bare && text == "<<" {
                    (!merged.is_empty()).then_some(None)
                } else {
                    map.get(text).map(|first| first.key.clone())
                }
            }
            _ => None,
        };
        if let Some(first) = duplicate {
            self.sound = false;
            let mut diagnostic = Diagnostic::error(format!("the key `{text}` is given twice"))
                .at(Some(mark.place()))
                .label("again here");
            if let Some(first) = first {
                let (line, _) = first.place().line_and_column();
                diagnostic = diagnostic.note(format!("it was first given on line {line}"));
            }
            self.found.push(diagnostic.hint("keep one of them"));
        }
        if let Some(Frame {
            content: Content::Map { key, .. },
            ..
        }) = self.stack.last_mut()
        {
            *key = Some(Key {
                name: text.to_owned(),
                mark,
                merge: bare && text == "<<",
            });
        }
    }

    fn open(&mut self, content: Content, anchor: usize, tag: Option<&Tag>, span: &Span) -> bool {
        let mark = self.span(span);
        if self.awaits_key() {
            self.complain(
                &mark,
                "a key must be text, not a collection".to_owned(),
                "this key",
            );
            return false;
        }
        if self.stack.len() >= DEPTH_LIMIT {
            self.too_deep(&mark);
            return false;
        }
        self.stack.push(Frame {
            anchor,
            directive: tag.and_then(directive).unwrap_or_default(),
            start: mark.start,
            content,
            size: 1,
            depth: 0,
        });
        true
    }

    fn too_deep(&mut self, mark: &Mark) {
        self.complain(
            mark,
            format!("nested deeper than {DEPTH_LIMIT} levels"),
            "here",
        );
    }

    fn close(&mut self, span: &Span) -> bool {
        let Some(frame) = self.stack.pop() else {
            return true;
        };
        let end = self.span(span).end;
        let mark = self.mark(frame.start as usize, end as usize);
        let value = match frame.content {
            Content::List(list) => Value::List(list),
            Content::Map {
                mut map, merged, ..
            } => {
                for node in merged {
                    if let Value::Map(more) = node.value {
                        for (key, value) in more {
                            map.entry(key).or_insert(value);
                        }
                    }
                }
                Value::Map(map)
            }
        };
        let node = Node {
            value,
            mark: Some(mark),
            key: None,
            directive: frame.directive,
        };
        self.finish(node, frame.size, frame.depth, frame.anchor)
    }

    fn alias(&mut self, id: usize, span: &Span) -> bool {
        let mark = self.span(span);
        if self.awaits_key() {
            if let Some(text) = self
                .anchors
                .get(&id)
                .and_then(|anchor| anchor.node.as_text())
                .map(str::to_owned)
            {
                self.key(&text, false, mark);
                return true;
            }
            self.complain(
                &mark,
                "a key must be text, not a collection".to_owned(),
                "this key",
            );
            return false;
        }
        let Some(anchor) = self.anchors.get(&id) else {
            self.complain(&mark, "this alias contains itself".to_owned(), "here");
            return false;
        };
        let (size, depth) = (anchor.size, anchor.depth);
        self.alias_nodes += size;
        if self.alias_nodes > ALIAS_BUDGET {
            self.complain(
                &mark,
                format!("aliases expand to more than {ALIAS_BUDGET} values"),
                "here",
            );
            return false;
        }
        if self.stack.len() + depth > DEPTH_LIMIT {
            self.too_deep(&mark);
            return false;
        }
        let node = anchor.node.clone();
        self.finish(node, size, depth, 0)
    }

    /// Puts a finished node where it belongs.
    fn finish(&mut self, node: Node, size: usize, depth: usize, anchor: usize) -> bool {
        if anchor != 0 {
            self.anchors.insert(
                anchor,
                Sized {
                    node: node.clone(),
                    size,
                    depth,
                },
            );
        }
        let Some(frame) = self.stack.last_mut() else {
            let empty = node.is_null() && node.mark.as_ref().is_some_and(|m| m.start == m.end);
            if !empty {
                self.documents.push(node);
            }
            return true;
        };
        frame.size += size;
        frame.depth = frame.depth.max(depth + 1);
        match &mut frame.content {
            Content::List(list) => list.push(node),
            Content::Map { map, key, .. } => {
                let Some(key) = key.take() else { return true };
                if key.merge {
                    return self.merge(node, &key.mark);
                }
                let node = Node {
                    key: Some(key.mark),
                    ..node
                };
                map.entry(key.name).or_insert(node);
            }
        }
        true
    }

    /// Keeps the value of `<<` until its mapping ends.
    fn merge(&mut self, node: Node, mark: &Mark) -> bool {
        let parts = match node.value {
            Value::List(list) => list,
            Value::Map(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Large(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Date(_) => vec![node],
        };
        if parts.iter().any(|part| part.as_map().is_none()) {
            self.complain(
                mark,
                "`<<` takes a mapping or a list of mappings".to_owned(),
                "here",
            );
            return true;
        }
        if let Some(Frame {
            content: Content::Map { merged, .. },
            ..
        }) = self.stack.last_mut()
        {
            *merged = parts;
        }
        true
    }
}

/// What a scalar means, and what its tag asks for.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<(Value, Directive), String> {
    let as_written = || {
        if style == ScalarStyle::Plain {
            plain(text)
        } else {
            Value::Text(text.to_owned())
        }
    };
    let Some(tag) = tag else {
        return Ok((as_written(), Directive::None));
    };
    if let Some(directive) = directive(tag) {
        return Ok((as_written(), directive));
    }
    let wrong = |wanted: &str| format!("`{text}` cannot be read as {wanted}");
    let read = || plain(text);
    let value = match tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() {
        Some("str") => Value::Text(text.to_owned()),
        Some("null") => match read() {
            Value::Null => Value::Null,
            Value::Bool(_)
            | Value::Int(_)
            | Value::Large(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Date(_)
            | Value::List(_)
            | Value::Map(_) => return Err(wrong("null")),
        },
        Some("bool") => Value::Bool(
            Node::new(read())
                .as_bool()
                .ok_or_else(|| wrong("a boolean"))?,
        ),
        Some("int") => Value::Int(
            Node::new(read())
                .as_int()
                .ok_or_else(|| wrong("an integer"))?,
        ),
        Some("float") => match read() {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a float was asked for; the nearest one is what YAML defines"
            )]
            Value::Int(value) => Value::Float(value as f64),
            Value::Float(value) => Value::Float(value),
            Value::Null
            | Value::Bool(_)
            | Value::Large(_)
            | Value::Text(_)
            | Value::Date(_)
            | Value::List(_)
            | Value::Map(_) => return Err(wrong("a number")),
        },
        Some("timestamp") => Value::Date(text.to_owned()),
        Some("binary") => Value::Text(base64(text).ok_or_else(|| wrong("base64"))?),
        // A tag that nobody knows: the value counts as it is written.
        _ => as_written(),
    };
    Ok((value, Directive::None))
}

/// The directive that a tag stands for.
fn directive(tag: &Tag) -> Option<Directive> {
    match tag.parts() {
        ("!", "reset") => Some(Directive::Reset),
        ("!", "override") => Some(Directive::Override),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn read(text: &str) -> (Vec<Node>, Vec<Diagnostic>) {
        let source = Arc::new(Source {
            path: PathBuf::from("compose.yaml"),
            text: text.to_owned(),
        });
        let mut found = Vec::new();
        let documents = parse(&source, &mut found);
        (documents, found)
    }

    #[test]
    fn explicit_keys_win_over_merged_ones_and_earlier_merges_over_later() {
        let (documents, found) =
            read("a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc:\n  y: own\n  <<: [*a, *b]\n");
        assert_eq!(found, []);
        let c = documents[0].get("c").unwrap();
        assert_eq!(c.get("x").unwrap().as_int(), Some(1));
        assert_eq!(c.text("y"), Some("own"));
        assert_eq!(c.get("z").unwrap().as_int(), Some(2));
    }

    #[test]
    fn values_know_their_bytes() {
        let text = "name: demo\nservices:\n  wéb: {image: x}\n";
        let (documents, _) = read(text);
        let image = documents[0].get("services").unwrap().get("wéb").unwrap();
        let image = image.get("image").unwrap();
        let mark = image.mark.clone().unwrap();
        assert_eq!(&text[mark.start as usize..mark.end as usize], "x");
        assert_eq!(mark.place().line_and_column(), (3, 16));
        let key = image.key.clone().unwrap();
        assert_eq!(&text[key.start as usize..key.end as usize], "image");
    }

    #[test]
    fn a_key_given_twice_names_the_first_line() {
        let (documents, found) = read("a: 1\nb: 2\na: 3\n");
        assert!(documents.is_empty());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].notes, ["it was first given on line 1"]);
    }

    #[test]
    fn an_alias_bomb_is_refused_early() {
        let levels = (1..12).map(|level| {
            let below = format!("*a{}", level - 1);
            format!(
                "a{level}: &a{level} [{}]\n",
                [below.as_str(); 10].join(", ")
            )
        });
        let text: String = std::iter::once("a0: &a0 [x, x, x, x, x]\n".to_owned())
            .chain(levels)
            .collect();
        let (documents, found) = read(&text);
        assert!(documents.is_empty());
        assert!(found[0].message.contains("aliases expand"), "{found:?}");
    }

    #[test]
    fn an_alias_in_itself_is_refused() {
        let (_, found) = read("a: &a {b: *a}\n");
        assert_eq!(found[0].message, "this alias contains itself");
    }
}
