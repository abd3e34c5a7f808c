//! `extends`: a service on top of another one, of the same file or of another.
//!
//! Part of `layers`: runs on each document after interpolation, before it is merged.

use std::path::{Path, PathBuf};

use super::canonical;
use super::diagnostic::Diagnostic;
use super::layers::{CHAIN_LIMIT, Layers, Scope, omit_empty};
use super::locate::{absent, join, relative};
use super::merge;
use super::paths::{self, Base};
use super::reset::{self, Paths};
use super::tree::{Map, Node, Value};
use super::unique::unique;
use super::validate::closest;

impl Layers<'_> {
    /// Puts every service of a file on top of the one it extends.
    pub(super) fn extends(&mut self, layer: &mut Node, file: &Path, scope: &Scope, resets: &Paths) {
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
            Value::Map(_) => {
                if extends.text("service").is_none() {
                    self.report.add(
                        Diagnostic::error("`extends` names no service")
                            .at(extends.place())
                            .key(format!("services.{name}.extends"))
                            .label("has no `service`"),
                    );
                }
                (extends.text("service")?, extends.text("file"))
            }
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Large(_)
            | Value::Float(_)
            | Value::Date(_)
            | Value::List(_) => {
                self.report.add(
                    Diagnostic::error("`extends` names no service")
                        .at(extends.place())
                        .key(format!("services.{name}.extends"))
                        .label(format!("this is {}", extends.value.kind())),
                );
                return None;
            }
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
                absent("the file", &path, self.files)
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
        for mut layer in self.documents(path)?.clone() {
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
}
