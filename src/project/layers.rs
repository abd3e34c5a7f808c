//! Files → one canonical tree: each document is interpolated, extended, put on top of what was
//! before, validated and made canonical; included files come in with their own directory and
//! variables.
//!
//! The order of these steps is Docker Compose's, and matters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::canonical;
use super::diagnostic::Diagnostic;
use super::interpolate;
use super::merge;
use super::node;
use super::paths::{self, Base};
use super::report::Report;
use super::reset;
use super::tree::{Map, Node};
use super::unique::unique;
use super::validate::validate;
use super::{Files, Stages, environment, resources};

/// How many files may include or extend each other in one chain.
pub(super) const CHAIN_LIMIT: usize = 200;
/// How many times files may be included in all.
pub(super) const INCLUDE_LIMIT: usize = 1_000;

/// Where a set of files stands.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// Its directory, absolute.
    pub(crate) directory: PathBuf,
    /// Its variables.
    pub(crate) variables: BTreeMap<String, String>,
}

/// Loads files.
pub(crate) struct Layers<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) stages: Stages,
    pub(crate) home: Option<String>,
    pub(crate) report: Report,
    /// What was read already.
    pub(crate) cache: BTreeMap<PathBuf, Vec<Node>>,
    /// How many files were included.
    pub(crate) includes: usize,
}

impl Layers<'_> {
    /// The documents of a file, which may be asked for again.
    pub(crate) fn documents(&mut self, path: &Path) -> Option<&Vec<Node>> {
        if !self.cache.contains_key(path) {
            let documents = self.read(path)?;
            self.cache.insert(path.to_path_buf(), documents);
        }
        self.cache.get(path)
    }

    /// The documents of a file, for the last time.
    fn take(&mut self, path: &Path) -> Option<Vec<Node>> {
        match self.cache.remove(path) {
            Some(documents) => Some(documents),
            None => self.read(path),
        }
    }

    fn read(&mut self, path: &Path) -> Option<Vec<Node>> {
        let source = match environment::source(path, self.files) {
            Ok(source) => source,
            Err(diagnostic) => {
                self.report.add(*diagnostic);
                return None;
            }
        };
        let mut found = Vec::new();
        let documents = node::parse(&source, &mut found);
        let failed = !found.is_empty();
        for diagnostic in found {
            self.report.add(diagnostic);
        }
        if failed {
            return None;
        }
        for document in &documents {
            if document.as_map().is_none() {
                self.report.add(
                    Diagnostic::error("a compose file is a mapping")
                        .at(document.place())
                        .label(format!("this is {}", document.value.kind())),
                );
                return None;
            }
        }
        Some(documents)
    }

    /// Several files, one on top of the other, with defaults and resolved paths.
    pub(crate) fn model(
        &mut self,
        files: &[PathBuf],
        scope: &Scope,
        base: &Path,
        included: &[PathBuf],
    ) -> Node {
        let mut tree = Node::default();
        for file in files {
            tree = self.file(tree, file, scope, included);
        }
        // A `version` alone says nothing, nor does a section that was taken away again.
        let says_something = |map: &Map| map.keys().any(|key| key != "version" && key != "include");
        let is_empty = tree.is_null() || tree.as_map().is_some_and(|map| !says_something(map));
        if let (true, Some(first)) = (is_empty, files.first()) {
            self.report.add(Diagnostic::error(format!(
                "the compose file `{}` is empty",
                first.display()
            )));
        }
        canonical::defaults(&mut tree);
        resources::check(&tree, &mut self.report);
        // What is included is always seen from the project's directory, as in Compose.
        if self.stages.paths || !included.is_empty() {
            let base = Base {
                directory: base,
                home: self.home.as_deref(),
            };
            paths::resolve(&mut tree, base);
        }
        resolve_listed_environment(&mut tree, &scope.variables);
        tree
    }

    /// One file on top of a tree.
    fn file(&mut self, mut tree: Node, file: &Path, scope: &Scope, included: &[PathBuf]) -> Node {
        for mut layer in self.take(file).unwrap_or_default() {
            let resets = reset::take(&mut layer);
            self.interpolate(&mut layer, scope);
            self.extends(&mut layer, file, scope, &resets);
            reset::apply(&mut tree, &[], &resets);
            self.include(&mut layer, file, scope, included);
            tree = merge::merge(tree, layer, &mut self.report);
            unique(&mut tree);
            validate(&tree, &mut self.report);
            if let Some(version) = tree.as_map_mut().and_then(|top| top.remove("version")) {
                self.report.add(
                    Diagnostic::warning("`version` is obsolete and ignored")
                        .at(version.key_place())
                        .key("version")
                        .hint("remove it"),
                );
            }
            canonical::canonical(&mut tree, !self.stages.interpolate, &mut self.report);
            omit_empty(&mut tree);
            unique(&mut tree);
        }
        tree
    }

    pub(super) fn interpolate(&mut self, layer: &mut Node, scope: &Scope) {
        if self.stages.interpolate {
            let lookup = |name: &str| scope.variables.get(name).cloned();
            interpolate::interpolate(layer, &lookup, &mut self.report);
        }
    }
}

/// Drops empty name servers, which a variable may leave behind.
pub(super) fn omit_empty(tree: &mut Node) {
    let services = tree
        .as_map_mut()
        .and_then(|top| top.get_mut("services"))
        .and_then(Node::as_map_mut);
    for service in services.into_iter().flat_map(Map::values_mut) {
        if let Some(dns) = service.as_map_mut().and_then(|map| map.get_mut("dns"))
            && let Some(list) = dns.as_list_mut()
        {
            list.retain(|item| item.as_text() != Some(""));
        }
    }
}

/// Gives bare names in lists of `environment` their values.
fn resolve_listed_environment(tree: &mut Node, variables: &BTreeMap<String, String>) {
    let services = tree
        .as_map_mut()
        .and_then(|top| top.get_mut("services"))
        .and_then(Node::as_map_mut);
    for service in services.into_iter().flat_map(Map::values_mut) {
        let environment = service
            .as_map_mut()
            .and_then(|map| map.get_mut("environment"))
            .and_then(Node::as_list_mut);
        for item in environment.into_iter().flatten() {
            if let Some(name) = item.as_text()
                && let Some(value) = variables.get(name)
            {
                item.value = format!("{name}={value}").into();
            }
        }
    }
}
