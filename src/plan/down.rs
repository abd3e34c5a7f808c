//! The plans that end things: `stop`, `kill`, `pause`, `rm` and `down`.
//!
//! They work from the instances' labels, so they need no compose file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::plan::Plan;
use crate::plan::links::along::{self, End};
use crate::plan::order::{Edge, by_dependency_with, edges, of_service};
use crate::plan::spec::existing;
use crate::plan::step::{Action, Cause, Provision, Step, StepId, Target};
use crate::project::model::Service;
use crate::state::{Instance, Observed, Status};

pub use crate::plan::order::DEPENDS_ON_LABEL;

/// What to end.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// The project's name, by which its networks are told from others of the same name.
    pub project: String,
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
    /// Images to remove as well, by reference (`--rmi`).
    pub images: Vec<String>,
    /// The providers to be called.
    pub providers: Vec<Provided>,
    /// One-off instances (`run`) are left alone, unless `remove_orphans` says otherwise.
    pub leave_one_offs: bool,
}

/// A service that another program provides, and what that is asked for.
#[derive(Clone, Debug)]
pub struct Provided {
    /// The service.
    pub service: Arc<Service>,
    /// The project.
    pub project: String,
    /// What.
    pub what: Provision,
}

impl Ending {
    fn takes(&self, instance: &Instance) -> bool {
        if instance.one_off && self.leave_one_offs && !instance.is_preparing() {
            return self.remove_orphans;
        }
        if self.remove_orphans && self.is_orphan(instance) {
            return true;
        }
        if !self.services.is_empty() {
            return self.services.contains(&instance.service);
        }
        let enabled = self.enabled.as_ref();
        enabled.is_none_or(|enabled| enabled.contains(&instance.service))
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
    let chosen = chosen(observed, ending);
    let stops = stop_all(&mut plan, &chosen, ending, "stop", |_| true);
    if ending.services.is_empty() {
        let stops: Vec<StepId> = stops.into_values().collect();
        let how = (End::Stop, "stop");
        along::end(&mut plan, observed, &ending.services, how, &stops);
    }
    plan
}

/// Stops what is being stopped already, all at once: the order is that of the stop under way.
pub fn hasten(observed: &Observed, ending: &Ending) -> Plan {
    let mut plan = Plan::default();
    let ends = |instance: &&&Instance| instance.ending && instance.status.is_alive();
    for instance in chosen(observed, ending).iter().filter(ends) {
        let stop = Action::Stop {
            instance: existing(instance),
            grace: ending.timeout,
        };
        plan.add(stop, Cause::Requested("stop"), Vec::new());
    }
    plan
}

/// Sends a signal to every instance that is alive, to all at once.
pub fn kill(observed: &Observed, ending: &Ending, signal: &str) -> Plan {
    each_alive(observed, ending, "kill", |instance| Action::Kill {
        instance,
        signal: signal.to_owned(),
    })
}

/// Freezes every instance that is alive.
pub fn pause(observed: &Observed, ending: &Ending) -> Plan {
    each_alive(observed, ending, "pause", |instance| Action::Pause {
        instance,
    })
}

/// Lets every instance that is alive go on.
pub fn unpause(observed: &Observed, ending: &Ending) -> Plan {
    each_alive(observed, ending, "unpause", |instance| Action::Unpause {
        instance,
    })
}

fn each_alive(
    observed: &Observed,
    ending: &Ending,
    why: &'static str,
    action: impl Fn(Target) -> Action,
) -> Plan {
    let mut plan = Plan::default();
    let alive = |instance: &&&Instance| instance.status.is_alive();
    for instance in chosen(observed, ending).iter().filter(alive) {
        plan.add(
            action(existing(instance)),
            Cause::Requested(why),
            Vec::new(),
        );
    }
    plan
}

/// Removes instances that are not alive; `stop`: all, after stopping those that are.
pub fn remove(observed: &Observed, ending: &Ending, stop: bool) -> Plan {
    let mut plan = Plan::default();
    let mut chosen = chosen(observed, ending);
    let mut stops = BTreeMap::new();
    if stop {
        stops = stop_all(&mut plan, &chosen, ending, "rm --stop", |_| true);
    } else {
        chosen.retain(|instance| !instance.status.is_alive());
    }
    let removals = remove_all(&mut plan, &chosen, ending, &stops, "rm");
    let how = (if stop { End::Down } else { End::Sweep }, "rm");
    along::end(&mut plan, observed, &ending.services, how, &removals);
    plan
}

/// Stops and removes instances, dependents first; then networks, volumes and images.
pub fn down(observed: &Observed, ending: &Ending) -> Plan {
    let mut plan = Plan::default();
    let chosen = chosen(observed, ending);
    let stops = stop_all(&mut plan, &chosen, ending, "down", |_| true);
    let mut removals = remove_all(&mut plan, &chosen, ending, &stops, "down");
    let how = (End::Down, "down");
    let own = along::end(&mut plan, observed, &ending.services, how, &removals);
    removals.extend(own);
    let provides = |step: &&Step| matches!(step.action, Action::Provide { .. });
    removals.extend(plan.steps.iter().filter(provides).map(|step| step.id));
    let left: Vec<&Instance> = observed
        .instances
        .iter()
        .filter(|instance| !ending.takes(instance))
        .collect();
    // With services named, what the others use is theirs.
    let is_theirs = |network: &String| {
        left.iter()
            .any(|instance| instance.networks.contains(network))
    };
    for name in &ending.networks {
        if observed.networks.contains(name) && (ending.services.is_empty() || !is_theirs(name)) {
            let remove = Action::RemoveNetwork {
                name: name.clone(),
                project: ending.project.clone(),
            };
            plan.add(remove, Cause::Requested("down"), removals.clone());
        }
    }
    for name in &ending.volumes {
        if observed.volumes.contains(name) {
            let remove = Action::RemoveVolume { name: name.clone() };
            plan.add(remove, Cause::Requested("down --volumes"), removals.clone());
        }
    }
    // One after the other: engines stumble when images that share layers go at the same time.
    let mut needs = removals;
    for name in &ending.images {
        if observed.images.contains_key(name) {
            let remove = Action::RemoveImage { name: name.clone() };
            needs = vec![plan.add(remove, Cause::Requested("down --rmi"), needs)];
        }
    }
    if ending.services.is_empty() {
        note_left(&mut plan, ending, &left);
    }
    plan
}

/// Says what `down` leaves alone although it is of the project.
fn note_left(plan: &mut Plan, ending: &Ending, left: &[&Instance]) {
    let names = |wanted: &dyn Fn(&Instance) -> bool| {
        let names = left.iter().filter(|instance| wanted(instance));
        let names: Vec<&str> = names.map(|instance| instance.name.as_str()).collect();
        names.join(", ")
    };
    let orphans = names(&|instance| ending.is_orphan(instance) && !instance.one_off);
    let one_offs = names(&|instance| instance.one_off);
    let without_profile = names(&|instance| !instance.one_off && !ending.is_orphan(instance));
    for (what, names, way) in [
        ("orphans of this project", orphans, "--remove-orphans"),
        (
            "one-off instances of this project",
            one_offs,
            "--remove-orphans",
        ),
        (
            "instances of services whose profile is off",
            without_profile,
            "wharf --profile '*' down",
        ),
    ] {
        if !names.is_empty() {
            plan.notes.push(format!(
                "{what} are left alone: {names} ({way} removes them)"
            ));
        }
    }
}

fn chosen<'a>(observed: &'a Observed, ending: &Ending) -> Vec<&'a Instance> {
    observed
        .instances
        .iter()
        .filter(|instance| ending.takes(instance))
        .collect()
}

fn remove_all(
    plan: &mut Plan,
    chosen: &[&Instance],
    ending: &Ending,
    stops: &BTreeMap<String, StepId>,
    why: &'static str,
) -> Vec<StepId> {
    let mut removals = Vec::new();
    for instance in chosen {
        // Another removes it already.
        if instance.status == Status::Removing {
            continue;
        }
        let needs = stops.get(&instance.id.0).copied().into_iter().collect();
        let remove = Action::Remove {
            instance: existing(instance),
            volumes: ending.anonymous_volumes,
        };
        removals.push(plan.add(remove, Cause::Requested(why), needs));
    }
    removals
}

/// Stops those of the chosen instances that are alive, dependents first by the edges that `counts` takes;
/// the steps by instance.
pub(super) fn stop_all(
    plan: &mut Plan,
    chosen: &[&Instance],
    ending: &Ending,
    why: &'static str,
    counts: impl Fn(&Edge<'_>) -> bool + Copy,
) -> BTreeMap<String, StepId> {
    let providers = &ending.providers;
    let provided: Vec<&Service> = providers.iter().map(|each| each.service.as_ref()).collect();
    let mut order = by_dependency_with(chosen, &provided, counts);
    order.reverse();
    // The last steps of what depends on a service, also through services that are not alive.
    let mut before: BTreeMap<&str, Vec<StepId>> = BTreeMap::new();
    let mut stops = BTreeMap::new();
    for service in order {
        let dependents = before.remove(service).unwrap_or_default();
        let mut steps = Vec::new();
        for instance in of_service(chosen, service) {
            if instance.status.is_alive() {
                let stop = Action::Stop {
                    instance: existing(instance),
                    grace: ending.timeout,
                };
                let step = plan.add(stop, Cause::Requested(why), dependents.clone());
                stops.insert(instance.id.0.clone(), step);
                steps.push(step);
            }
        }
        let mut on: BTreeSet<&str> = of_service(chosen, service)
            .flat_map(edges)
            .filter(counts)
            .map(|edge| edge.on)
            .collect();
        for provided in providers.iter().filter(|each| each.service.name == service) {
            let provide = Action::Provide {
                service: Arc::clone(&provided.service),
                project: provided.project.clone(),
                what: provided.what,
            };
            steps.push(plan.add(provide, Cause::Requested(why), dependents.clone()));
            on.extend(provided.service.depends_on.keys().map(String::as_str));
        }
        if steps.is_empty() {
            steps = dependents;
        }
        for dependency in on {
            before.entry(dependency).or_default().extend(&steps);
        }
    }
    stops
}
