//! Which services take part: profiles, `SERVICE…` arguments and their dependencies; and which
//! networks, volumes, secrets and configs those need.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::Diagnostic;
use super::report::Report;
use super::tree::{Map, Node};
use super::validate::closest;

/// How many services are listed for one that there is not.
const LISTED: usize = 12;

/// The services that are on and those that are off.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) enabled: Map,
    pub(crate) disabled: Map,
}

/// The profiles of a service.
pub(crate) fn profiles(service: &Node) -> Vec<&str> {
    service
        .get("profiles")
        .and_then(Node::as_list)
        .unwrap_or_default()
        .iter()
        .filter_map(Node::as_text)
        .collect()
}

impl Services {
    /// Splits services by the profiles that are on.
    pub(crate) fn by_profiles(services: Map, on: &[String]) -> Self {
        let mut split = Services::default();
        for (name, service) in services {
            let own = profiles(&service);
            let enabled =
                own.is_empty() || on.iter().any(|on| on == "*" || own.contains(&on.as_str()));
            if enabled {
                split.enabled.insert(name, service);
            } else {
                split.disabled.insert(name, service);
            }
        }
        split
    }

    /// Turns on the profiles of the named services. An unknown name is a mistake.
    pub(crate) fn enable(self, names: &[String], on: &[String], report: &mut Report) -> Self {
        let mut on = on.to_vec();
        for name in names {
            if let Some(service) = self.disabled.get(name) {
                on.extend(profiles(service).into_iter().map(str::to_owned));
            } else if !self.enabled.contains_key(name) {
                let known = self.enabled.keys().chain(self.disabled.keys());
                let mut diagnostic = Diagnostic::error(format!("no such service: {name}"));
                let known: Vec<&str> = known.map(String::as_str).collect();
                if let Some(near) = closest(name, known.iter().copied()) {
                    diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                } else if !known.is_empty() {
                    let left = match known.len().saturating_sub(LISTED) {
                        0 => String::new(),
                        left => format!(" and {left} more"),
                    };
                    let known = known.iter().take(LISTED).copied();
                    let known = known.collect::<Vec<_>>().join(", ");
                    diagnostic = diagnostic.note(format!("the project has: {known}{left}"));
                }
                report.add(diagnostic);
            }
        }
        let mut all = self.enabled;
        all.extend(self.disabled);
        Services::by_profiles(all, &on)
    }

    /// Leaves only the named services on, and unless `no_deps` what they depend on.
    pub(crate) fn select(&mut self, names: &[String], no_deps: bool, report: &mut Report) {
        if names.is_empty() {
            return;
        }
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        let mut open: Vec<String> = names.to_vec();
        while let Some(name) = open.pop() {
            let Some(service) = self.enabled.get(&name) else {
                continue;
            };
            if !wanted.insert(name.clone()) || no_deps {
                continue;
            }
            for (dependency, detail) in dependencies(service) {
                if self.enabled.contains_key(dependency) {
                    open.push(dependency.to_owned());
                } else if detail.get("required").and_then(Node::as_bool) != Some(false)
                    && let Some(disabled) = self.disabled.get(dependency)
                {
                    report.add(is_disabled(&name, dependency, disabled, detail));
                }
            }
        }
        let (kept, dropped) = std::mem::take(&mut self.enabled)
            .into_iter()
            .partition(|(name, _)| wanted.contains(name));
        self.enabled = kept;
        self.disabled.extend::<Map>(dropped);
    }
}

/// The dependencies of a service.
pub(crate) fn dependencies(service: &Node) -> impl Iterator<Item = (&str, &Node)> {
    service
        .get("depends_on")
        .and_then(Node::as_map)
        .into_iter()
        .flatten()
        .map(|(name, detail)| (name.as_str(), detail))
}

/// The mistake of needing a service whose profile is off.
pub(crate) fn is_disabled(
    name: &str,
    dependency: &str,
    disabled: &Node,
    detail: &Node,
) -> Diagnostic {
    let own = profiles(disabled);
    Diagnostic::error(format!(
        "`{name}` needs `{dependency}`, which is in a profile that is off"
    ))
    .at(detail.key_place())
    .key(format!("services.{name}.depends_on.{dependency}"))
    .label("its profile is off")
    .hint(format!(
        "add --profile {}, or write `required: false`",
        own.first().copied().unwrap_or("*")
    ))
}

/// Drops what no enabled service needs.
pub(crate) fn drop_unused(top: &mut Map, services: &Map) {
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::from([
        ("networks", BTreeSet::new()),
        ("volumes", BTreeSet::new()),
        ("secrets", BTreeSet::new()),
        ("configs", BTreeSet::new()),
        ("models", BTreeSet::new()),
    ]);
    let mut note = |section: &'static str, name: &str| {
        if let Some(names) = used.get_mut(section) {
            names.insert(name.to_owned());
        }
    };
    let sources = |node: Option<&Node>| -> Vec<String> {
        node.and_then(Node::as_list)
            .unwrap_or_default()
            .iter()
            .filter_map(|item| item.text("source").map(str::to_owned))
            .collect()
    };
    for service in services.values() {
        for section in ["networks", "models"] {
            for name in service
                .get(section)
                .and_then(Node::as_map)
                .into_iter()
                .flatten()
            {
                note(section, name.0);
            }
        }
        for mount in service
            .get("volumes")
            .and_then(Node::as_list)
            .unwrap_or_default()
        {
            if mount.text("type") == Some("volume")
                && let Some(source) = mount.text("source")
            {
                note("volumes", source);
            }
        }
        for section in ["secrets", "configs"] {
            for source in sources(service.get(section)) {
                note(section, &source);
            }
        }
        let build = service.get("build").and_then(|build| build.get("secrets"));
        for source in sources(build) {
            note("secrets", &source);
        }
    }
    for (section, names) in used {
        if let Some(map) = top.get_mut(section).and_then(Node::as_map_mut) {
            map.retain(|name, _| names.contains(name));
            if map.is_empty() {
                top.remove(section);
            }
        }
    }
}
