//! `include`: other compose files with their own directory and variables.
//!
//! Part of `layers`: runs on each document after `extends`. What comes in is a tree of its own,
//! complete, whose resources must not differ from those of the including file.

use std::path::{Path, PathBuf};

use super::diagnostic::Diagnostic;
use super::layers::{CHAIN_LIMIT, INCLUDE_LIMIT, Layers, Scope};
use super::locate::{absent, join, read_all, relative};
use super::tree::{Map, Node, Value};

impl Layers<'_> {
    /// Brings in the files that a file includes.
    pub(super) fn include(
        &mut self,
        layer: &mut Node,
        file: &Path,
        scope: &Scope,
        included: &[PathBuf],
    ) {
        let Some(include) = layer.as_map_mut().and_then(|top| top.remove("include")) else {
            return;
        };
        let Some(entries) = include.as_list() else {
            if !include.is_null() {
                self.report.add(
                    Diagnostic::error(format!("a list is expected, not {}", include.value.kind()))
                        .at(include.place())
                        .key("include")
                        .label("write it as a list"),
                );
            }
            return;
        };
        let mut chain = included.to_vec();
        chain.push(file.to_path_buf());
        for entry in entries {
            if let Some(part) = self.included(entry, scope, &chain) {
                self.import(part, layer);
            }
        }
    }

    fn included(&mut self, entry: &Node, scope: &Scope, chain: &[PathBuf]) -> Option<Node> {
        let listed = |key: &str| -> Vec<String> {
            match entry.get(key).map(|node| &node.value) {
                Some(Value::Text(text)) => vec![text.clone()],
                Some(Value::List(list)) => list.iter().map(Node::display).collect(),
                _ => Vec::new(),
            }
        };
        let given = match entry.as_text() {
            Some(text) => vec![text.to_owned()],
            None => listed("path"),
        };
        let texts = |node: &Node| match &node.value {
            Value::Text(_) => true,
            Value::List(list) => list.iter().all(|item| item.as_text().is_some()),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Large(_)
            | Value::Float(_)
            | Value::Date(_)
            | Value::Map(_) => false,
        };
        let wrong = match entry.as_map() {
            None => entry.as_text().is_none().then_some(entry),
            Some(map) => map.iter().find_map(|(key, node)| {
                let fits = match key.as_str() {
                    "path" | "env_file" => texts(node),
                    "project_directory" => !matches!(node.value, Value::List(_) | Value::Map(_)),
                    _ => true,
                };
                (!fits).then_some(node)
            }),
        };
        if let Some(wrong) = wrong {
            self.report.add(
                Diagnostic::error(format!("a path is expected, not {}", wrong.value.kind()))
                    .at(wrong.place())
                    .key("include")
                    .label(format!("this is {}", wrong.value.kind())),
            );
            return None;
        }
        let place = || entry.get("path").unwrap_or(entry).place();
        let files: Vec<PathBuf> = given
            .iter()
            .map(|path| join(&scope.directory, path))
            .collect();
        let first = files.first()?;
        for path in &files {
            if !self.files.exists(path) {
                self.report.add(
                    absent("the file", path, self.files)
                        .at(place())
                        .key("include")
                        .label("not there"),
                );
                return None;
            }
        }
        self.includes += 1;
        if self.includes > INCLUDE_LIMIT {
            self.report.add(
                Diagnostic::error(format!("more than {INCLUDE_LIMIT} files are included"))
                    .at(place())
                    .key("include")
                    .label("one too many"),
            );
            return None;
        }
        if chain.contains(first) || chain.len() > CHAIN_LIMIT {
            let names: Vec<String> = chain
                .iter()
                .chain([first])
                .take(20)
                .map(|path| path.display().to_string())
                .collect();
            let what = if chain.contains(first) {
                "files include each other in a circle".to_owned()
            } else {
                format!("files include each other more than {CHAIN_LIMIT} deep")
            };
            self.report.add(
                Diagnostic::error(what)
                    .at(place())
                    .key("include")
                    .label("part of it")
                    .note(names.join(" → ")),
            );
            return None;
        }
        let directory = match entry
            .text("project_directory")
            .filter(|path| !path.is_empty())
        {
            Some(directory) => join(&scope.directory, directory),
            None => first.parent()?.to_path_buf(),
        };
        let env_files = listed("env_file");
        let env_files: Vec<PathBuf> = if env_files.is_empty() {
            let usual = directory.join(".env");
            let there = self.files.exists(&usual) && !self.files.is_dir(&usual);
            there.then_some(usual).into_iter().collect()
        } else if env_files == ["/dev/null"] {
            Vec::new()
        } else {
            env_files
                .iter()
                .map(|path| join(&scope.directory, path))
                .collect()
        };
        let mut variables = scope.variables.clone();
        match read_all(&env_files, &variables, self.files, &mut self.report) {
            Ok(read) => {
                for (key, value) in read {
                    variables.entry(key).or_insert(value);
                }
            }
            Err(failure) => {
                let (_, diagnostic) = *failure;
                let at = diagnostic.place.clone().or_else(place);
                self.report.add(diagnostic.at(at).key("include"));
                return None;
            }
        }
        let base = relative(&scope.directory, &directory);
        let scope = Scope {
            directory,
            variables,
        };
        Some(self.model(&files, &scope, &base, chain))
    }

    /// Adds the resources of an included tree to a file's.
    fn import(&mut self, mut part: Node, layer: &mut Node) {
        let (Some(part), Some(top)) = (part.as_map_mut(), layer.as_map_mut()) else {
            return;
        };
        for section in [
            "services", "volumes", "networks", "secrets", "configs", "models",
        ] {
            let Some(Value::Map(resources)) = part.remove(section).map(|node| node.value) else {
                continue;
            };
            let own = top
                .entry(section.to_owned())
                .or_insert_with(|| Node::new(Map::new()));
            let Some(own) = own.as_map_mut() else {
                // Said by `validate`, as it stays.
                continue;
            };
            for (name, resource) in resources {
                match own.get(&name) {
                    None => {
                        own.insert(name, resource);
                    }
                    Some(existing) if *existing == resource => {}
                    Some(existing) => {
                        let from = resource.key_place().map_or_else(String::new, |place| {
                            let (line, _) = place.line_and_column();
                            format!("{}:{line}", place.source.path.display())
                        });
                        self.report.add(
                            Diagnostic::error(format!(
                                "`{name}` differs from what an included file says"
                            ))
                            .at(existing.key_place())
                            .key(format!("{section}.{name}"))
                            .label("also included")
                            .note(format!("the included one is at {from}"))
                            .hint("override it in a file of its own, given with a second -f"),
                        );
                    }
                }
            }
        }
    }
}
