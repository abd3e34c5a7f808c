//! Files → one canonical tree: each document is interpolated, extended, put on top of what was
//! before, validated and made canonical; included files come in with their own directory and
//! variables.
//!
//! The order of these steps is Docker Compose's, and matters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::canonical;
use super::diagnostic::Diagnostic;
use super::interpolate;
use super::locate::{join, read_all, relative};
use super::merge;
use super::node;
use super::paths::{self, Base};
use super::report::Report;
use super::reset::{self, Paths};
use super::tree::{Map, Node, Value};
use super::unique::unique;
use super::validate::{closest, validate};
use super::{Files, Stages, environment};

/// How many files may include or extend each other in one chain.
const CHAIN_LIMIT: usize = 200;
/// How many times files may be included in all.
const INCLUDE_LIMIT: usize = 1_000;

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
    /// The documents of a file.
    pub(crate) fn documents(&mut self, path: &Path) -> Option<Vec<Node>> {
        if let Some(documents) = self.cache.get(path) {
            return Some(documents.clone());
        }
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
        self.cache.insert(path.to_path_buf(), documents.clone());
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
        if let (true, Some(first)) = (tree.is_null(), files.first()) {
            self.report.add(Diagnostic::error(format!(
                "the compose file `{}` is empty",
                first.display()
            )));
        }
        canonical::defaults(&mut tree);
        check_values(&tree, &mut self.report);
        if self.stages.paths {
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
        for mut layer in self.documents(file).unwrap_or_default() {
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

    fn interpolate(&mut self, layer: &mut Node, scope: &Scope) {
        if self.stages.interpolate {
            let lookup = |name: &str| scope.variables.get(name).cloned();
            interpolate::interpolate(layer, &lookup, &mut self.report);
        }
    }

    /// Puts every service of a file on top of the one it extends.
    fn extends(&mut self, layer: &mut Node, file: &Path, scope: &Scope, resets: &Paths) {
        let Some(services) = layer.as_map_mut().and_then(|top| top.get_mut("services")) else {
            return;
        };
        let Some(services) = services.as_map_mut() else {
            return;
        };
        let names: Vec<String> = services
            .iter()
            .filter(|(_, service)| service.get("extends").is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            let mut chain = Vec::new();
            self.extend(&name, services, file, scope, &[resets], &mut chain);
        }
    }

    /// Resolves one service's `extends` in place, with those it leads to.
    fn extend(
        &mut self,
        name: &str,
        services: &mut Map,
        file: &Path,
        scope: &Scope,
        resets: &[&Paths],
        chain: &mut Vec<(PathBuf, String)>,
    ) {
        let Some(extends) = services
            .get(name)
            .and_then(|service| service.get("extends"))
            .cloned()
        else {
            return;
        };
        let step = (file.to_path_buf(), name.to_owned());
        if chain.contains(&step) || chain.len() > CHAIN_LIMIT * 10 {
            let circle: Vec<&str> = chain
                .iter()
                .skip_while(|on| **on != step)
                .map(|(_, name)| name.as_str())
                .chain([name])
                .take(20)
                .collect();
            self.report.add(
                Diagnostic::error("services extend each other in a circle")
                    .at(extends.place())
                    .key(format!("services.{name}.extends"))
                    .label("part of the circle")
                    .note(circle.join(" → ")),
            );
            return;
        }
        chain.push(step);
        let base = self.base_of(name, &extends, services, file, scope, resets, chain);
        chain.pop();
        let Some(service) = services.get_mut(name) else {
            return;
        };
        if let Some(map) = service.as_map_mut() {
            map.remove("extends");
        }
        if let Some(mut base) = base {
            for resets in resets {
                reset::apply(&mut base, &["services", name], resets);
            }
            let over = std::mem::take(service);
            *service = merge::merge_service(base, over, name, &mut self.report);
            if let Some(map) = service.as_map_mut() {
                map.remove("extends");
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the state of one walk; a struct would only rename it"
    )]
    fn base_of(
        &mut self,
        name: &str,
        extends: &Node,
        services: &mut Map,
        file: &Path,
        scope: &Scope,
        resets: &[&Paths],
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Option<Node> {
        let (target, other) = match &extends.value {
            Value::Text(target) => (target.as_str(), None),
            Value::Map(_) => (extends.text("service")?, extends.text("file")),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Large(_)
            | Value::Float(_)
            | Value::Date(_)
            | Value::List(_) => return None,
        };
        let missing = |known: &Map, place: &str| {
            let mut diagnostic = Diagnostic::error(format!(
                "`{name}` extends `{target}`, which is not in {place}"
            ))
            .at(extends.get("service").unwrap_or(extends).place())
            .key(format!("services.{name}.extends"))
            .label("not there");
            if let Some(near) = closest(target, known.keys().map(String::as_str)) {
                diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
            }
            diagnostic
        };
        let Some(other) = other else {
            if !services.contains_key(target) {
                let diagnostic = missing(services, "this file");
                self.report.add(diagnostic);
                return None;
            }
            self.extend(target, services, file, scope, resets, chain);
            return services.get(target).cloned().filter(|base| !base.is_null());
        };
        let path = join(&scope.directory, other);
        if !self.files.exists(&path) {
            self.report.add(
                Diagnostic::error(format!("the file `{}` does not exist", path.display()))
                    .at(extends.get("file").and_then(Node::place))
                    .key(format!("services.{name}.extends.file"))
                    .label("not there"),
            );
            return None;
        }
        let (mut tree, own_resets) = self.base_file(&path, scope)?;
        let base_services = tree
            .as_map_mut()
            .and_then(|top| top.get_mut("services"))
            .and_then(Node::as_map_mut);
        let Some(base_services) = base_services else {
            let diagnostic = missing(&Map::new(), other);
            self.report.add(diagnostic);
            return None;
        };
        if !base_services.contains_key(target) {
            let diagnostic = missing(base_services, other);
            self.report.add(diagnostic);
            return None;
        }
        let mut all: Vec<&Paths> = resets.to_vec();
        all.push(&own_resets);
        self.extend(target, base_services, &path, scope, &all, chain);
        base_services.remove(target).filter(|base| !base.is_null())
    }

    /// A file that services are taken from: canonical, its paths seen from the project's directory.
    fn base_file(&mut self, path: &Path, scope: &Scope) -> Option<(Node, Paths)> {
        let mut tree = Node::default();
        let mut all = Vec::new();
        for mut layer in self.documents(path)? {
            let resets = reset::take(&mut layer);
            self.interpolate(&mut layer, scope);
            reset::apply(&mut tree, &[], &resets);
            all.extend(resets);
            tree = merge::merge(tree, layer, &mut self.report);
            unique(&mut tree);
            canonical::canonical(&mut tree, !self.stages.interpolate, &mut self.report);
            omit_empty(&mut tree);
            unique(&mut tree);
        }
        let directory = path
            .parent()
            .map(|parent| relative(&scope.directory, parent))?;
        let base = Base {
            directory: &directory,
            home: self.home.as_deref(),
        };
        paths::resolve(&mut tree, base);
        Some((tree, all))
    }

    /// Brings in the files that a file includes.
    fn include(&mut self, layer: &mut Node, file: &Path, scope: &Scope, included: &[PathBuf]) {
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
        let place = || entry.get("path").unwrap_or(entry).place();
        let files: Vec<PathBuf> = given
            .iter()
            .map(|path| join(&scope.directory, path))
            .collect();
        let first = files.first()?;
        for path in &files {
            if !self.files.exists(path) {
                self.report.add(
                    Diagnostic::error(format!("the file `{}` does not exist", path.display()))
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
            if own.is_null() {
                own.value = Value::Map(Map::new());
            }
            let Some(own) = own.as_map_mut() else {
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

/// Drops empty name servers, which a variable may leave behind.
fn omit_empty(tree: &mut Node) {
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

/// Rules within one resource: where secrets, configs and external resources come from.
fn check_values(tree: &Node, report: &mut Report) {
    let section = |name: &str| tree.get(name).and_then(Node::as_map).into_iter().flatten();
    for (what, sources) in [
        ("configs", ["file", "environment", "content"].as_slice()),
        ("secrets", ["file", "environment"].as_slice()),
    ] {
        for (name, node) in section(what) {
            let given: Vec<&str> = sources
                .iter()
                .copied()
                .filter(|key| node.get(key).is_some())
                .collect();
            let listed = sources.join("`, `");
            if let [_, second, ..] = given.as_slice() {
                report.add(
                    Diagnostic::error(format!("only one of `{listed}` can be given"))
                        .at(node.get(second).and_then(Node::key_place))
                        .key(format!("{what}.{name}"))
                        .label("a second source"),
                );
            } else if given.is_empty()
                && node.get("driver").is_none()
                && node.get("external").is_none()
            {
                report.add(
                    Diagnostic::error(format!("one of `{listed}` must be given"))
                        .at(node.key_place())
                        .key(format!("{what}.{name}"))
                        .label("has no source"),
                );
            }
        }
    }
    for (name, node) in section("volumes") {
        let external = node
            .get("external")
            .is_some_and(|external| external.display() == "true");
        let extra: BTreeSet<&str> = node
            .as_map()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.as_str())
            .filter(|key| !key.starts_with("x-") && !matches!(*key, "name" | "external"))
            .collect();
        if external && let Some(key) = extra.first() {
            report.add(
                Diagnostic::error(format!("an external volume has no `{key}`"))
                    .at(node.get(key).and_then(Node::key_place))
                    .key(format!("volumes.{name}.{key}"))
                    .label("somebody else made the volume"),
            );
        }
    }
    for (name, service) in section("services") {
        let watch = service
            .get("develop")
            .and_then(|develop| develop.get("watch"));
        for (index, trigger) in watch
            .and_then(Node::as_list)
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            if let Some(path) = trigger.get("path")
                && path.as_text() == Some("")
            {
                let key = format!("services.{name}.develop.watch[{index}].path");
                report.error(path, key, "an empty path cannot be watched");
            }
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
