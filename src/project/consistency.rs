//! Rules between values: references that lead nowhere, attributes that exclude each other, circles.
//!
//! Runs on the cast tree with profiles applied. Reports every breach with its place; changes
//! nothing but `deploy.replicas`, which follows `scale`.

use std::collections::BTreeMap;

use super::diagnostic::Diagnostic;
use super::report::Report;
use super::select::{Services, dependencies, is_disabled};
use super::tree::{Map, Node, Value};
use super::validate::closest;
use super::watch;

/// Checks the enabled services against each other and the top-level sections; whether two have the
/// same container only with `container_names`.
pub(crate) fn check(
    services: &mut Services,
    top: &Map,
    container_names: bool,
    report: &mut Report,
) {
    let mut containers: BTreeMap<String, String> = BTreeMap::new();
    for (name, service) in &services.enabled {
        let rules = Rules {
            name,
            service,
            services,
            top,
        };
        rules.form(report);
        rules.build(report);
        rules.networks(report);
        rules.healthcheck(report);
        rules.dependencies(report);
        rules.references(report);
        rules.amounts(report);
        rules.watch(report);
        rules.mounts(report);
        if let Some(container) = service.get("container_name")
            && let Some(text) = container.as_text().filter(|text| !text.is_empty())
            && container_names
        {
            if let Some(other) = containers.get(text) {
                report.add(
                    Diagnostic::error(format!(
                        "`{other}` and `{name}` have the same container name `{text}`"
                    ))
                    .at(container.place())
                    .key(format!("services.{name}.container_name"))
                    .label(format!("taken by `{other}`")),
                );
            } else {
                containers.insert(text.to_owned(), name.clone());
            }
        }
    }
    circles(&services.enabled, report);
    for service in services.enabled.values_mut() {
        let Some(scale) = service.get("scale").cloned() else {
            continue;
        };
        if let Some(deploy) = service
            .as_map_mut()
            .and_then(|service| service.get_mut("deploy"))
            .and_then(Node::as_map_mut)
        {
            deploy.insert("replicas".to_owned(), scale);
        }
    }
}

struct Rules<'a> {
    name: &'a str,
    service: &'a Node,
    services: &'a Services,
    top: &'a Map,
}

impl Rules<'_> {
    fn error(&self, report: &mut Report, node: &Node, key: &str, message: String, label: &str) {
        report.add(
            Diagnostic::error(message)
                .at(node.place())
                .key(format!("services.{}.{key}", self.name))
                .label(label),
        );
    }

    /// It needs an image, a build, a provider or a process form.
    fn form(&self, report: &mut Report) {
        let given = |key: &str| {
            self.service
                .get(key)
                .is_some_and(|node| !node.is_null() && node.as_text() != Some(""))
        };
        let process = self
            .service
            .get("x-wharf")
            .is_some_and(|wharf| wharf.get("process").is_some());
        if !(given("image") || given("build") || given("provider") || process) {
            report.add(
                Diagnostic::error(format!("`{}` has neither an image nor a build", self.name))
                    .at(self.service.key_place())
                    .key(format!("services.{}", self.name))
                    .label("nothing to run")
                    .hint("add `image:` or `build:`, or `x-wharf: {process: {command: …}}`"),
            );
        }
    }

    fn build(&self, report: &mut Report) {
        let Some(build) = self.service.get("build") else {
            return;
        };
        let text = |key: &str| build.text(key).filter(|text| !text.is_empty());
        if text("dockerfile").is_some() && text("dockerfile_inline").is_some() {
            let node = build.get("dockerfile_inline").unwrap_or(build);
            self.error(
                report,
                node,
                "build",
                "`dockerfile` and `dockerfile_inline` exclude each other".to_owned(),
                "also given as a file",
            );
        }
        for (key, context) in build
            .get("additional_contexts")
            .and_then(Node::as_map)
            .into_iter()
            .flatten()
        {
            let Some(target) = context.as_text().and_then(|c| c.strip_prefix("service:")) else {
                continue;
            };
            let key = format!("build.additional_contexts.{key}");
            match self.services.enabled.get(target) {
                None => self.undefined(report, context, &key, "service", target, "services"),
                Some(service) if service.get("build").is_none() => self.error(
                    report,
                    context,
                    &key,
                    format!("`{target}` is not built, so it is no build context"),
                    "has no `build:`",
                ),
                Some(_) => {}
            }
        }
        let platforms = build
            .get("platforms")
            .and_then(Node::as_list)
            .unwrap_or_default();
        if let Some(platform) = self.service.get("platform")
            && let Some(wanted) = platform.as_text()
            && !wanted.is_empty()
            && !platforms.is_empty()
            && !platforms.iter().any(|p| p.as_text() == Some(wanted))
        {
            self.error(
                report,
                platform,
                "platform",
                format!("`build.platforms` does not contain the platform `{wanted}`"),
                "is not built",
            );
        }
    }

    fn networks(&self, report: &mut Report) {
        let mode = self
            .service
            .get("network_mode")
            .filter(|mode| mode.as_text() != Some(""));
        let networks = self.service.get("networks").and_then(Node::as_map);
        if let Some(mode) = mode
            && networks.is_some_and(|networks| !networks.is_empty())
        {
            self.error(
                report,
                mode,
                "network_mode",
                "`network_mode` and `networks` exclude each other".to_owned(),
                "`networks` is given too",
            );
        }
        if let Some(mode) = mode
            && let Some(target) = mode
                .as_text()
                .and_then(|text| text.strip_prefix("service:"))
            && !self.services.enabled.contains_key(target)
            && !self.services.disabled.contains_key(target)
        {
            self.undefined(report, mode, "network_mode", "service", target, "services");
        }
        for (network, node) in networks.into_iter().flatten() {
            if !self.defines("networks", network) {
                let key = format!("networks.{network}");
                self.undefined(report, node, &key, "network", network, "networks");
            }
        }
    }

    fn defines(&self, section: &str, name: &str) -> bool {
        self.top
            .get(section)
            .and_then(Node::as_map)
            .is_some_and(|map| map.contains_key(name))
    }

    fn undefined(
        &self,
        report: &mut Report,
        node: &Node,
        key: &str,
        what: &str,
        name: &str,
        section: &str,
    ) {
        let mut diagnostic = Diagnostic::error(format!(
            "`{}` refers to the {what} `{name}`, which is not defined",
            self.name
        ))
        .at(node.key_place())
        .key(format!("services.{}.{key}", self.name))
        .label("not defined");
        let known: Vec<&str> = if section == "services" {
            let services = self.services;
            let all = services.enabled.keys().chain(services.disabled.keys());
            all.map(String::as_str).collect()
        } else {
            let map = self.top.get(section).and_then(Node::as_map);
            map.into_iter()
                .flatten()
                .map(|(key, _)| key.as_str())
                .collect()
        };
        diagnostic = match closest(name, known.into_iter()) {
            Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
            None => diagnostic.hint(format!("add `{name}` to `{section}:`")),
        };
        report.add(diagnostic);
    }

    fn healthcheck(&self, report: &mut Report) {
        let test = self
            .service
            .get("healthcheck")
            .and_then(|check| check.get("test"));
        if let Some(first) = test.and_then(Node::as_list).and_then(<[Node]>::first)
            && !matches!(first.as_text(), Some("CMD" | "CMD-SHELL" | "NONE"))
        {
            report.add(
                Diagnostic::error("a healthcheck's test starts with CMD, CMD-SHELL or NONE")
                    .at(first.place())
                    .key(format!("services.{}.healthcheck.test[0]", self.name))
                    .label("not one of them")
                    .hint("write [\"CMD\", …], or one text for a shell"),
            );
        }
    }

    fn dependencies(&self, report: &mut Report) {
        for (target, detail) in dependencies(self.service) {
            if self.services.enabled.contains_key(target) {
                continue;
            }
            if let Some(disabled) = self.services.disabled.get(target) {
                if detail.get("required").and_then(Node::as_bool) != Some(false) {
                    report.add(is_disabled(self.name, target, disabled, detail));
                }
            } else {
                let key = format!("depends_on.{target}");
                self.undefined(report, detail, &key, "service", target, "services");
            }
        }
    }

    fn references(&self, report: &mut Report) {
        let listed = |node: Option<&Node>| -> Vec<Node> {
            node.and_then(Node::as_list)
                .map(<[Node]>::to_vec)
                .unwrap_or_default()
        };
        for (index, mount) in listed(self.service.get("volumes")).iter().enumerate() {
            if mount.text("type") == Some("volume")
                && let Some(source) = mount.text("source").filter(|source| !source.is_empty())
                && !self.defines("volumes", source)
            {
                let key = format!("volumes[{index}]");
                self.undefined(report, mount, &key, "volume", source, "volumes");
            }
        }
        let build = self
            .service
            .get("build")
            .and_then(|build| build.get("secrets"));
        for (what, section, key, list) in [
            ("secret", "secrets", "build.secrets", listed(build)),
            (
                "secret",
                "secrets",
                "secrets",
                listed(self.service.get("secrets")),
            ),
            (
                "config",
                "configs",
                "configs",
                listed(self.service.get("configs")),
            ),
        ] {
            for (index, mount) in list.iter().enumerate() {
                let source = mount.text("source").unwrap_or_default();
                if !self.defines(section, source) {
                    let key = format!("{key}[{index}]");
                    self.undefined(report, mount, &key, what, source, section);
                }
            }
        }
        for (model, node) in self
            .service
            .get("models")
            .and_then(Node::as_map)
            .into_iter()
            .flatten()
        {
            if !self.defines("models", model) {
                let key = format!("models.{model}");
                self.undefined(report, node, &key, "model", model, "models");
            }
        }
    }

    /// Amounts that can be given in two places must agree.
    fn amounts(&self, report: &mut Report) {
        let scale = self.service.get("scale");
        let deploy = self.service.get("deploy");
        let replicas = deploy.and_then(|deploy| deploy.get("replicas"));
        for (key, node) in [("scale", scale), ("deploy.replicas", replicas)] {
            if let Some(node) = node.filter(|node| matches!(node.value, Value::Int(..0))) {
                let message = format!("`{key}` must be greater than or equal to 0");
                self.error(report, node, key, message, "fewer than none");
            }
        }
        if let (Some(scale), Some(replicas)) = (scale, replicas)
            && scale != replicas
        {
            self.error(
                report,
                scale,
                "scale",
                "`scale` and `deploy.replicas` say different things".to_owned(),
                "differs from `deploy.replicas`",
            );
        }
        let resources = deploy.and_then(|deploy| deploy.get("resources"));
        let limits = resources.and_then(|resources| resources.get("limits"));
        let reservations = resources.and_then(|resources| resources.get("reservations"));
        for (own, section, section_name, key) in [
            ("cpus", limits, "limits", "cpus"),
            ("mem_limit", limits, "limits", "memory"),
            ("mem_reservation", reservations, "reservations", "memory"),
            ("pids_limit", limits, "limits", "pids"),
        ] {
            let zero = |node: &&Node| {
                !matches!(node.value, Value::Int(0)) && node.value != Value::Float(0.0)
            };
            let Some(node) = self.service.get(own).filter(zero) else {
                continue;
            };
            let Some(section) = section else { continue };
            if section.get(key) != Some(node) {
                self.error(
                    report,
                    node,
                    own,
                    format!(
                        "`{own}` and `deploy.resources.{section_name}.{key}` say different things"
                    ),
                    "differs",
                );
            }
        }
        let count = scale.or(replicas).and_then(Node::as_int).unwrap_or(1);
        if let Some(container) = self.service.get("container_name")
            && count > 1
            && container.as_text().is_some_and(|text| !text.is_empty())
        {
            self.error(
                report,
                container,
                "container_name",
                format!("{count} containers cannot have the same name"),
                "a fixed name allows one container",
            );
        }
    }

    fn watch(&self, report: &mut Report) {
        for (index, trigger) in watch::written(self.service).iter().enumerate() {
            let action = trigger.text("action").unwrap_or_default();
            let target = trigger.text("target").unwrap_or_default();
            if target.is_empty() && !matches!(action, "rebuild" | "restart") {
                let key = format!("develop.watch[{index}]");
                self.error(
                    report,
                    trigger,
                    &key,
                    format!("the action `{action}` needs a target"),
                    "has no `target`",
                );
            }
        }
    }

    fn mounts(&self, report: &mut Report) {
        let mut mounted: BTreeMap<String, String> = BTreeMap::new();
        let mut targets: Vec<(String, String, Node)> = Vec::new();
        let list = |key: &str| -> Vec<Node> {
            let node = self.service.get(key).and_then(Node::as_list);
            node.map(<[Node]>::to_vec).unwrap_or_default()
        };
        for (index, tmpfs) in list("tmpfs").into_iter().enumerate() {
            let text = tmpfs.display();
            let path = text.split(':').next().unwrap_or_default().to_owned();
            targets.push((path, format!("tmpfs[{index}]"), tmpfs));
        }
        for (index, mount) in list("volumes").into_iter().enumerate() {
            let target = mount.text("target").unwrap_or_default().to_owned();
            targets.push((target, format!("volumes[{index}]"), mount));
        }
        for (path, key, node) in targets {
            if let Some(other) = mounted.get(&path) {
                let message = format!("two mounts have the target `{path}`");
                let label = format!("already the target of {other}");
                self.error(report, &node, &key, message, &label);
            } else {
                mounted.insert(path, key);
            }
        }
    }
}

/// Reports services that wait for each other in a circle, each circle once.
fn circles(services: &Map, report: &mut Report) {
    #[derive(PartialEq)]
    enum State {
        OnPath,
        Done,
    }
    let mut states: BTreeMap<&str, State> = BTreeMap::new();
    for start in services.keys() {
        // Depth first, without recursion: a chain may have thousands of links.
        let mut path: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut next = Some(start.as_str());
        loop {
            if let Some(found) = next.and_then(|name| services.get_key_value(name)) {
                let (name, service) = found;
                match states.get(name.as_str()) {
                    None => {
                        states.insert(name, State::OnPath);
                        path.push((name, dependencies(service).map(|(name, _)| name).collect()));
                    }
                    Some(State::OnPath) => report.add(circle(name, service, &path)),
                    Some(State::Done) => {}
                }
            }
            let Some((name, open)) = path.last_mut() else {
                break;
            };
            next = open.pop();
            if next.is_none() {
                states.insert(name, State::Done);
                path.pop();
            }
        }
    }
}

fn circle(name: &str, service: &Node, path: &[(&str, Vec<&str>)]) -> Diagnostic {
    let mut names: Vec<&str> = path
        .iter()
        .map(|(on, _)| *on)
        .skip_while(|on| *on != name)
        .collect();
    names.push(name);
    Diagnostic::error("services wait for each other in a circle")
        .at(service.key_place())
        .key(format!("services.{name}.depends_on"))
        .label("part of the circle")
        .note(names.join(" → "))
}
