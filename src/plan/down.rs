//! The plans that end things: `stop` and `down`; and `start`, `restart` of what exists.
//!
//! They work from the instances' labels, so they need no compose file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::plan::Plan;
use crate::plan::step::{Action, Cause, StepId};
use crate::plan::up::existing;
use crate::state::{Instance, Observed};

/// The label that carries a service's dependencies: `name:condition:restart`, comma-separated.
pub const DEPENDS_ON_LABEL: &str = "com.docker.compose.depends_on";

/// What to end.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Only these services; empty: all.
    pub services: BTreeSet<String>,
    /// Overrides every grace period.
    pub timeout: Option<Duration>,
    /// The services that take part; `None`: no compose file, so all do.
    pub enabled: Option<BTreeSet<String>>,
    /// Services that the compose file declares and whose profile is off: left alone, and no orphans.
    pub disabled: BTreeSet<String>,
    /// `--remove-orphans`
    pub remove_orphans: bool,
    /// Volumes to remove as well, by the engine's names (`-v`).
    pub volumes: Vec<String>,
    /// Networks of the project, by the engine's names; external ones left out.
    pub networks: Vec<String>,
    /// Anonymous volumes too (`-v`).
    pub anonymous_volumes: bool,
}

impl Ending {
    fn takes(&self, instance: &Instance) -> bool {
        if !self.services.is_empty() {
            return self.services.contains(&instance.service);
        }
        let Some(enabled) = &self.enabled else {
            return true;
        };
        enabled.contains(&instance.service) || (self.remove_orphans && self.is_orphan(instance))
    }

    fn is_orphan(&self, instance: &Instance) -> bool {
        let declared = |enabled: &BTreeSet<String>| {
            enabled.contains(&instance.service) || self.disabled.contains(&instance.service)
        };
        self.enabled
            .as_ref()
            .is_some_and(|enabled| !declared(enabled))
    }
}

/// Stops instances, dependents first.
pub fn stop(observed: &Observed, ending: &Ending) -> Plan {
    let mut plan = Plan::default();
    stop_all(&mut plan, observed, ending, "stop");
    plan
}

/// Stops and removes instances, dependents first; then networks and volumes.
pub fn down(observed: &Observed, ending: &Ending) -> Plan {
    let mut plan = Plan::default();
    let stops = stop_all(&mut plan, observed, ending, "down");
    let mut removals = Vec::new();
    for instance in observed
        .instances
        .iter()
        .filter(|instance| ending.takes(instance))
    {
        let needs = stops.get(&instance.id.0).copied().into_iter().collect();
        let remove = Action::Remove {
            instance: existing(instance),
            volumes: ending.anonymous_volumes,
        };
        removals.push(plan.add(remove, Cause::Requested("down"), needs));
    }
    if ending.services.is_empty() {
        for name in ending
            .networks
            .iter()
            .filter(|name| observed.networks.contains(*name))
        {
            let remove = Action::RemoveNetwork { name: name.clone() };
            plan.add(remove, Cause::Requested("down"), removals.clone());
        }
        for name in ending
            .volumes
            .iter()
            .filter(|name| observed.volumes.contains(*name))
        {
            let remove = Action::RemoveVolume { name: name.clone() };
            plan.add(remove, Cause::Requested("down --volumes"), removals.clone());
        }
    }
    let orphans: Vec<&str> = observed
        .instances
        .iter()
        .filter(|instance| ending.is_orphan(instance) && !ending.takes(instance))
        .filter(|_| ending.services.is_empty())
        .map(|instance| instance.name.as_str())
        .collect();
    if !orphans.is_empty() {
        plan.notes.push(format!(
            "orphans of this project are left alone: {} (--remove-orphans removes them)",
            orphans.join(", ")
        ));
    }
    plan
}

/// Starts instances that exist and do not run, dependencies first.
pub fn start(observed: &Observed, services: &BTreeSet<String>) -> Plan {
    let mut plan = Plan::default();
    let chosen = chosen(observed, services);
    launch_all(&mut plan, &chosen, &BTreeMap::new(), |instance| {
        !instance.status.is_alive()
    });
    plan
}

/// Stops instances, dependents first, and starts them again, dependencies first.
pub fn restart(
    observed: &Observed,
    services: &BTreeSet<String>,
    timeout: Option<Duration>,
) -> Plan {
    let mut plan = Plan::default();
    let ending = Ending {
        services: services.clone(),
        timeout,
        ..Ending::default()
    };
    let stops = stop_all(&mut plan, observed, &ending, "restart");
    let chosen = chosen(observed, services);
    launch_all(&mut plan, &chosen, &stops, |_| true);
    plan
}

fn chosen<'a>(observed: &'a Observed, services: &BTreeSet<String>) -> Vec<&'a Instance> {
    observed
        .instances
        .iter()
        .filter(|instance| !instance.one_off)
        .filter(|instance| services.is_empty() || services.contains(&instance.service))
        .collect()
}

fn launch_all(
    plan: &mut Plan,
    chosen: &[&Instance],
    stops: &BTreeMap<String, StepId>,
    wanted: impl Fn(&Instance) -> bool,
) {
    let mut started: BTreeMap<&str, Vec<StepId>> = BTreeMap::new();
    for service in by_dependency(chosen) {
        for instance in chosen.iter().filter(|instance| instance.service == service) {
            if !wanted(instance) {
                continue;
            }
            let mut needs: Vec<StepId> = stops.get(&instance.id.0).copied().into_iter().collect();
            for dependency in dependencies(instance) {
                needs.extend(started.get(dependency).into_iter().flatten());
            }
            let cause = Cause::Requested(if stops.is_empty() { "start" } else { "restart" });
            let start = plan.add(
                Action::Start {
                    instance: existing(instance),
                },
                cause,
                needs,
            );
            started.entry(service).or_default().push(start);
            if let Some(readiness) = instance.readiness.clone() {
                let wait = Action::AwaitReady {
                    instance: existing(instance),
                    readiness,
                };
                plan.add(wait, Cause::ReadyWhenAnswered, vec![start]);
            }
        }
    }
}

fn stop_all(
    plan: &mut Plan,
    observed: &Observed,
    ending: &Ending,
    why: &'static str,
) -> BTreeMap<String, StepId> {
    let alive: Vec<&Instance> = observed
        .instances
        .iter()
        .filter(|instance| ending.takes(instance) && instance.status.is_alive())
        .collect();
    let mut order = by_dependency(&alive);
    order.reverse();
    let mut of_service: BTreeMap<&str, Vec<StepId>> = BTreeMap::new();
    let mut stops = BTreeMap::new();
    for service in order {
        let dependents: Vec<StepId> = alive
            .iter()
            .filter(|instance| dependencies(instance).any(|name| name == service))
            .filter_map(|instance| of_service.get(instance.service.as_str()))
            .flatten()
            .copied()
            .collect();
        for instance in alive.iter().filter(|instance| instance.service == service) {
            let stop = Action::Stop {
                instance: existing(instance),
                grace: ending.timeout,
            };
            let step = plan.add(stop, Cause::Requested(why), dependents.clone());
            of_service.entry(service).or_default().push(step);
            stops.insert(instance.id.0.clone(), step);
        }
    }
    stops
}

/// The names of the services an instance depends on, by its label.
fn dependencies(instance: &Instance) -> impl Iterator<Item = &str> {
    instance
        .labels
        .get(DEPENDS_ON_LABEL)
        .into_iter()
        .flat_map(|label| label.split(','))
        .filter_map(|entry| entry.split(':').next())
        .filter(|name| !name.is_empty())
}

/// The services of these instances, each after what it depends on.
fn by_dependency<'a>(instances: &[&'a Instance]) -> Vec<&'a str> {
    fn visit<'a>(
        service: &'a str,
        instances: &[&'a Instance],
        seen: &mut BTreeSet<&'a str>,
        order: &mut Vec<&'a str>,
    ) {
        if !seen.insert(service) {
            return;
        }
        for instance in instances
            .iter()
            .filter(|instance| instance.service == service)
        {
            for name in dependencies(instance) {
                visit(name, instances, seen, order);
            }
        }
        if instances.iter().any(|instance| instance.service == service) {
            order.push(service);
        }
    }
    let names: BTreeSet<&str> = instances
        .iter()
        .map(|instance| instance.service.as_str())
        .collect();
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for name in names {
        visit(name, instances, &mut seen, &mut order);
    }
    order
}
