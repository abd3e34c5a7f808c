//! What comes before what: services by the project's dependencies; instances by those that their labels
//! record, for commands that have no compose file.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::decide::Decided;
use crate::project::model::{Condition, Service};
use crate::state::Instance;

/// The label that carries a service's dependencies: `name:condition:restart`, comma-separated.
pub const DEPENDS_ON_LABEL: &str = "com.docker.compose.depends_on";

/// Services after what they depend on. Where nothing else decides, those that let the engine pick a port come last,
/// the widest range at the end: who has the least choice is served first. Then by name.
pub(super) fn dependency_order(all: &BTreeMap<String, Decided<'_>>) -> Vec<String> {
    fn visit(
        name: &str,
        all: &BTreeMap<String, Decided<'_>>,
        seen: &mut Vec<String>,
        order: &mut Vec<String>,
    ) {
        if seen.iter().any(|other| other == name) {
            return;
        }
        seen.push(name.to_owned());
        if let Some(decided) = all.get(name) {
            for dependency in decided.service.depends_on.keys() {
                visit(dependency, all, seen, order);
            }
            order.push(name.to_owned());
        }
    }
    let (mut seen, mut order) = (Vec::new(), Vec::new());
    let mut names: Vec<&String> = all.keys().collect();
    names.sort_by_key(|name| all.get(*name).map(Decided::choice));
    for name in names {
        visit(name, all, &mut seen, &mut order);
    }
    order
}

/// One dependency of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge<'a> {
    /// The service it depends on.
    pub on: &'a str,
    /// What it waits for.
    pub condition: Condition,
    /// `restart: true`: it runs anew with that service.
    pub restart: bool,
}

/// What an instance depends on.
pub(super) fn edges(instance: &Instance) -> impl Iterator<Item = Edge<'_>> {
    instance
        .labels
        .get(DEPENDS_ON_LABEL)
        .into_iter()
        .flat_map(|label| label.split(','))
        .filter_map(|entry| {
            let mut parts = entry.split(':');
            let on = parts.next().filter(|name| !name.is_empty())?;
            let condition = match parts.next() {
                Some("service_healthy") => Condition::Healthy,
                Some("service_completed_successfully") => Condition::CompletedSuccessfully,
                _ => Condition::Started,
            };
            let restart = parts.next() == Some("true");
            Some(Edge {
                on,
                condition,
                restart,
            })
        })
}

/// The services of these instances, each after what it depends on by the edges that `counts` takes; where nothing
/// else decides, those that let the engine pick a port come last, the widest range at the end.
pub(super) fn by_dependency<'a>(
    instances: &[&'a Instance],
    counts: impl Fn(&Edge<'_>) -> bool + Copy,
) -> Vec<&'a str> {
    by_dependency_with(instances, &[], counts)
}

/// The same, with services among them that have no instances, and depend on what their files say.
pub(super) fn by_dependency_with<'a>(
    instances: &[&'a Instance],
    others: &[&'a Service],
    counts: impl Fn(&Edge<'_>) -> bool + Copy,
) -> Vec<&'a str> {
    fn visit<'a>(
        service: &'a str,
        instances: &[&'a Instance],
        others: &[&'a Service],
        counts: impl Fn(&Edge<'_>) -> bool + Copy,
        seen: &mut BTreeSet<&'a str>,
        order: &mut Vec<&'a str>,
    ) {
        if !seen.insert(service) {
            return;
        }
        for instance in of_service(instances, service) {
            for edge in edges(instance).filter(counts) {
                visit(edge.on, instances, others, counts, seen, order);
            }
        }
        let mut is_other = false;
        for other in others.iter().filter(|other| other.name == service) {
            is_other = true;
            for on in other.depends_on.keys() {
                visit(on, instances, others, counts, seen, order);
            }
        }
        if is_other || of_service(instances, service).next().is_some() {
            order.push(service);
        }
    }
    let names: BTreeSet<&str> = instances
        .iter()
        .map(|instance| instance.service.as_str())
        .chain(others.iter().map(|other| other.name.as_str()))
        .collect();
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_by_key(|name| {
        let spans = of_service(instances, name).flat_map(|instance| &instance.asked_ports);
        spans.map(|span| span.width()).max().unwrap_or_default()
    });
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for name in names {
        visit(name, instances, others, counts, &mut seen, &mut order);
    }
    order
}

/// The instances of one service.
pub(super) fn of_service<'a, 'i>(
    instances: &'i [&'a Instance],
    service: &'i str,
) -> impl Iterator<Item = &'a Instance> + use<'a, 'i> {
    instances
        .iter()
        .copied()
        .filter(move |instance| instance.service == service)
}

/// These services, and all they depend on.
pub(super) fn with_dependencies(
    services: &BTreeSet<String>,
    instances: &[Instance],
) -> BTreeSet<String> {
    closure(services, |known| {
        instances
            .iter()
            .filter(|instance| known.contains(&instance.service))
            .flat_map(edges)
            .map(|edge| edge.on.to_owned())
            .collect()
    })
}

/// These services, and all that run anew with them.
pub(super) fn with_restarted(
    services: &BTreeSet<String>,
    instances: &[Instance],
) -> BTreeSet<String> {
    closure(services, |known| {
        instances
            .iter()
            .filter(|instance| edges(instance).any(|edge| edge.restart && known.contains(edge.on)))
            .map(|instance| instance.service.clone())
            .collect()
    })
}

fn closure(
    start: &BTreeSet<String>,
    more: impl Fn(&BTreeSet<String>) -> BTreeSet<String>,
) -> BTreeSet<String> {
    let mut known = start.clone();
    loop {
        let before = known.len();
        known.extend(more(&known));
        if known.len() == before {
            return known;
        }
    }
}
