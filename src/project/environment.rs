//! What a container's environment and labels come to: `environment` over `env_file`, `labels` over
//! `label_file`, values without one from the project's variables.
//!
//! Works on the cast tree. Reads the files through `Files`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Files;
use super::diagnostic::{Diagnostic, Place, Source};
use super::dotenv;
use super::locate::absent;
use super::report::Report;
use super::tree::{Map, Node, Value};

/// Resolves one service's environment; `env_file` goes away.
pub(crate) fn resolve_environment(
    name: &str,
    service: &mut Map,
    variables: &BTreeMap<String, String>,
    files: &dyn Files,
    report: &mut Report,
) {
    let mut own = service
        .remove("environment")
        .unwrap_or_else(|| Node::new(Map::new()));
    if let Some(own) = own.as_map_mut() {
        for (key, child) in own.iter_mut() {
            if child.is_null()
                && let Some(value) = variables.get(key)
            {
                child.value = value.as_str().into();
            }
        }
    }
    let mut resolved = Map::new();
    let env_files = service.remove("env_file");
    for entry in env_files
        .iter()
        .flat_map(|node| node.as_list().unwrap_or_default())
    {
        let Some(path) = entry.get("path") else {
            continue;
        };
        let lookup = |key: &str| {
            variables
                .get(key)
                .cloned()
                .or_else(|| own.get(key).and_then(Node::as_text).map(str::to_owned))
        };
        let raw = entry.text("format") == Some("raw");
        let required = entry.get("required").and_then(Node::as_bool) != Some(false);
        let key = format!("services.{name}.env_file");
        for (key, value) in read(path, raw, required, &key, &lookup, files, report) {
            resolved.insert(key, path.with(value));
        }
    }
    if let Value::Map(own) = own.value {
        resolved.extend(own);
    }
    if !resolved.is_empty() {
        let node = Node {
            value: Value::Map(resolved),
            ..own
        };
        service.insert("environment".to_owned(), node);
    }
}

/// Resolves one service's labels; `label_file` goes away.
pub(crate) fn resolve_labels(
    name: &str,
    service: &mut Map,
    variables: &BTreeMap<String, String>,
    files: &dyn Files,
    report: &mut Report,
) {
    let Some(label_files) = service.remove("label_file") else {
        return;
    };
    let lookup = |key: &str| variables.get(key).cloned();
    let mut resolved = Map::new();
    for path in label_files.as_list().unwrap_or_default() {
        let key = format!("services.{name}.label_file");
        for (key, value) in read(path, false, true, &key, &lookup, files, report) {
            resolved.insert(key, path.with(value));
        }
    }
    if let Some(Value::Map(own)) = service.remove("labels").map(|node| node.value) {
        resolved.extend(own);
    }
    if !resolved.is_empty() {
        service.insert("labels".to_owned(), Node::new(resolved));
    }
}

fn read(
    path: &Node,
    raw: bool,
    required: bool,
    key: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    files: &dyn Files,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let Some(text) = path.as_text() else {
        return BTreeMap::new();
    };
    let file = Path::new(text);
    if !files.exists(file) {
        if required {
            report.add(
                absent("the file", file, files)
                    .at(path.place())
                    .key(key)
                    .label("not there")
                    .hint("create it, or write `required: false` beside `path`"),
            );
        }
        return BTreeMap::new();
    }
    match load(file, raw, lookup, files, report) {
        Ok(values) => values,
        Err(mut diagnostic) => {
            if diagnostic.place.is_none() {
                *diagnostic = diagnostic.at(path.place()).label("named here");
            }
            report.add((*diagnostic).key(key));
            BTreeMap::new()
        }
    }
}

/// Reads a file of variables.
pub(crate) fn load(
    path: &Path,
    raw: bool,
    lookup: &dyn Fn(&str) -> Option<String>,
    files: &dyn Files,
    report: &mut Report,
) -> Result<BTreeMap<String, String>, Box<Diagnostic>> {
    let source = source(path, files)?;
    if raw {
        return Ok(read_raw(&source.text, lookup));
    }
    match dotenv::parse(&source.text, lookup) {
        Ok(variables) => {
            for name in variables.unset {
                report.add(
                    Diagnostic::warning(format!("the variable `{name}` is not set"))
                        .at(Some(Place {
                            source: Arc::clone(&source),
                            start: 0,
                            end: 0,
                        }))
                        .label("an empty text is used"),
                );
            }
            Ok(variables.values)
        }
        Err(mistake) => Err(Box::new(
            Diagnostic::error(mistake.message)
                .at(Some(Place {
                    source,
                    start: mistake.start,
                    end: mistake.end,
                }))
                .label(mistake.label),
        )),
    }
}

/// A file's text; what is not UTF-8 is a mistake.
pub(crate) fn source(path: &Path, files: &dyn Files) -> Result<Arc<Source>, Box<Diagnostic>> {
    let shown = path.display();
    if files.is_dir(path) {
        return Err(Box::new(Diagnostic::error(format!(
            "`{shown}` is a directory, and no file"
        ))));
    }
    let bytes = files
        .read(path)
        .map_err(|error| Box::new(Diagnostic::error(format!("cannot read `{shown}`: {error}"))))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Arc::new(Source {
            path: path.to_path_buf(),
            text,
        })),
        Err(error) => {
            let start = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let place = Place {
                source: Arc::new(Source {
                    path: path.to_path_buf(),
                    text,
                }),
                start,
                // What stands in the text for bytes that are none.
                end: start + char::REPLACEMENT_CHARACTER.len_utf8(),
            };
            Err(Box::new(
                Diagnostic::error("the file is not UTF-8 text")
                    .at(Some(place))
                    .label("the first byte that is not"),
            ))
        }
    }
}

/// `KEY=value` lines as they are; a bare `KEY` takes its value from the environment.
fn read_raw(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut values = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((key, value)) => {
                values.insert(key.to_owned(), value.to_owned());
            }
            None => {
                if let Some(value) = lookup(line) {
                    values.insert(line.to_owned(), value);
                }
            }
        }
    }
    values
}
