//! The plans that begin what exists: `start` and `restart`, and the wait for what was started.
//!
//! They work from the instances' labels, so they need no compose file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::plan::Plan;
use crate::plan::down::{Ending, stop_all};
use crate::plan::links::along;
use crate::plan::order::{
    Edge, by_dependency, edges, of_service, with_dependencies, with_restarted,
};
use crate::plan::pre_start::{Prepared, never_ran};
use crate::plan::spec::existing;
use crate::plan::step::{Action, Cause, Preparation, RESTART, StepId, Stores};
use crate::project::model::Condition;
use crate::state::{BackendKind, Health, Instance, Observed, Status};

/// What to start or restart.
#[derive(Clone, Debug, Default)]
pub struct Launching {
    /// These services; empty: all that take part.
    pub services: BTreeSet<String>,
    /// The services that take part; `None`: no compose file, so all do.
    pub enabled: Option<BTreeSet<String>>,
    /// Services that the compose file gives a healthcheck.
    pub checked: BTreeSet<String>,
    /// What the compose file says somebody can do without: the dependent, and what it depends on (`required: false`).
    pub optional: BTreeSet<(String, String)>,
    /// Overrides every grace period.
    pub timeout: Option<Duration>,
    /// `--no-deps`: the named services alone.
    pub no_deps: bool,
    /// What the file says is to be written into containers that never ran, by service.
    pub stores: BTreeMap<String, Stores>,
    /// What the file says is to be done before a service's instances run for the first time, by service.
    pub preparations: BTreeMap<String, Vec<Preparation>>,
}

impl Launching {
    /// Says what is left alone because it was never finished.
    fn note_unfinished(&self, plan: &mut Plan, observed: &Observed, services: &BTreeSet<String>) {
        let takes = |instance: &&Instance| self.takes(instance, services);
        let unfinished = observed.instances.iter().filter(takes);
        for instance in unfinished.filter(|instance| instance.is_unfinished()) {
            plan.notes.push(format!(
                "{} was not finished when it was made: `wharf up -d {}` makes it anew",
                instance.name, instance.service
            ));
        }
    }

    /// What `start` concerns: the instances of the services, and of what these depend on.
    pub fn instances<'a>(&self, observed: &'a Observed) -> Vec<&'a Instance> {
        self.chosen(observed, &self.started(observed))
    }

    /// The services that `start` concerns.
    fn started(&self, observed: &Observed) -> BTreeSet<String> {
        if self.no_deps {
            return self.services.clone();
        }
        with_dependencies(&self.services, &observed.instances)
    }

    /// The services that `restart` concerns.
    fn restarted(&self, observed: &Observed) -> BTreeSet<String> {
        if self.no_deps {
            return self.services.clone();
        }
        with_restarted(&self.services, &observed.instances)
    }

    /// The instances of `services`, of all services that take part if none is named.
    fn chosen<'a>(&self, observed: &'a Observed, services: &BTreeSet<String>) -> Vec<&'a Instance> {
        observed
            .instances
            .iter()
            .filter(|instance| self.takes(instance, services) && !instance.is_unfinished())
            .collect()
    }

    fn takes(&self, instance: &Instance, services: &BTreeSet<String>) -> bool {
        if instance.one_off {
            return false;
        }
        if services.is_empty() {
            let enabled = self.enabled.as_ref();
            return enabled.is_none_or(|enabled| enabled.contains(&instance.service));
        }
        services.contains(&instance.service)
    }
}

/// Starts instances that exist and do not run, dependencies first, also those that are not named.
pub fn start(observed: &Observed, launching: &Launching) -> Plan {
    let mut plan = Plan::default();
    let chosen = launching.instances(observed);
    let starting: Vec<&Instance> = chosen
        .iter()
        .copied()
        .filter(|instance| can_start(instance))
        .collect();
    let first = along::begin(&mut plan, observed, &starting, "start");
    let stops = await_ends(&mut plan, &starting);
    Launcher {
        launching,
        chosen: &chosen,
        stops: &stops,
        first,
        only_restarting: false,
        why: "start",
        started: BTreeMap::new(),
        takers: Vec::new(),
        prepared: Prepared::default(),
        waits: BTreeMap::new(),
    }
    .launch(&mut plan, can_start);
    launching.note_unfinished(&mut plan, observed, &launching.started(observed));
    plan
}

/// An engine takes a container that is about to end for one that runs. To stop it is to wait for its end.
fn await_ends(plan: &mut Plan, starting: &[&Instance]) -> BTreeMap<String, StepId> {
    let mut stops = BTreeMap::new();
    for instance in starting {
        if instance.backend == BackendKind::Container && instance.status.is_alive() {
            let stop = Action::Stop {
                instance: existing(instance),
                grace: None,
            };
            let step = plan.add(stop, Cause::Ending, Vec::new());
            plan.note_end(instance, instance.stop_grace.map(Duration::from_secs));
            stops.insert(instance.id.0.clone(), step);
        }
    }
    stops
}

/// It does not run, or will not in a moment: the start waits for that.
fn can_start(instance: &Instance) -> bool {
    !instance.status.is_alive() || instance.ending
}

/// Stops instances and starts them again, whether they run or not, and with them those that depend on
/// them with `restart: true`. Only such dependencies order the restart.
pub fn restart(observed: &Observed, launching: &Launching) -> Plan {
    let mut plan = Plan::default();
    let services = launching.restarted(observed);
    let chosen = launching.chosen(observed, &services);
    let ending = Ending {
        timeout: launching.timeout,
        ..Ending::default()
    };
    let first = along::begin(&mut plan, observed, &chosen, RESTART);
    let stops = stop_all(&mut plan, &chosen, &ending, RESTART, |edge| edge.restart);
    Launcher {
        launching,
        chosen: &chosen,
        stops: &stops,
        first,
        only_restarting: true,
        why: RESTART,
        started: BTreeMap::new(),
        takers: Vec::new(),
        prepared: Prepared::default(),
        waits: BTreeMap::new(),
    }
    .launch(&mut plan, |_| true);
    launching.note_unfinished(&mut plan, observed, &services);
    plan
}

/// What is left of a restart that has stopped all: to start what does not run.
pub fn rest_of_restart(observed: &Observed, launching: &Launching) -> Plan {
    let launching = Launching {
        services: launching.restarted(observed),
        no_deps: true,
        ..launching.clone()
    };
    start(observed, &launching)
}

/// Waits for the verdict of every healthcheck that has none yet (`--wait`).
pub fn await_healthy(observed: &Observed, launching: &Launching) -> Plan {
    let mut plan = Plan::default();
    for instance in launching.instances(observed) {
        if instance
            .health
            .is_some_and(|health| health != Health::Healthy)
        {
            let wait = Action::AwaitHealthy {
                instance: existing(instance),
            };
            plan.add(wait, Cause::Requested("--wait"), Vec::new());
        }
    }
    plan
}

/// Whether an instance that has ended with code 0 has done all that others expect of it.
pub fn is_done(instance: &Instance, observed: &Observed) -> bool {
    let expects = |other: &Instance| {
        edges(other).any(|edge| {
            edge.on == instance.service && edge.condition == Condition::CompletedSuccessfully
        })
    };
    instance.status == Status::Exited { code: 0 } && observed.instances.iter().any(expects)
}

struct Launcher<'a> {
    launching: &'a Launching,
    chosen: &'a [&'a Instance],
    /// The steps that stop instances first, by id.
    stops: &'a BTreeMap<String, StepId>,
    /// What every process waits for.
    first: Vec<StepId>,
    /// Only dependencies with `restart: true` count.
    only_restarting: bool,
    why: &'static str,
    /// The start steps of each service.
    started: BTreeMap<&'a str, Vec<StepId>>,
    /// Each start step and its instance.
    takers: Vec<(StepId, &'a Instance)>,
    /// What is done once before a service runs for the first time.
    prepared: Prepared,
    /// The waits for each instance, which its dependents share; whether they are required.
    waits: BTreeMap<(String, Wait, bool), StepId>,
}

impl Launcher<'_> {
    fn launch(mut self, plan: &mut Plan, wanted: impl Fn(&Instance) -> bool) {
        let only_restarting = self.only_restarting;
        let order = by_dependency(self.chosen, |edge| edge.restart || !only_restarting);
        for service in order {
            // A port that the engine picks must not be one that another replica was made with.
            let (picking, fixed): (Vec<_>, Vec<_>) = of_service(self.chosen, service)
                .filter(|instance| wanted(instance))
                .partition(|instance| instance.picks_ports());
            let stops = self.stops;
            let stop = |instance: &&Instance| stops.get(&instance.id.0).copied();
            let freed: Vec<StepId> = picking.iter().filter_map(stop).collect();
            for instance in fixed.into_iter().chain(picking) {
                let mut needs: Vec<StepId> = stop(&instance).into_iter().collect();
                if instance.picks_ports() {
                    // One after the other, and after those that have less choice: engines pick without a lock.
                    needs.extend(self.started.get(service).into_iter().flatten());
                    needs.extend(self.takers_beside(instance));
                } else {
                    needs.extend(&freed);
                }
                if instance.backend == BackendKind::Process {
                    needs.extend(&self.first);
                }
                needs.extend(self.gates(plan, instance));
                let stores = self.launching.stores.get(service);
                if let Some(stores) = stores.filter(|_| instance.status == Status::Created)
                    && instance.backend == BackendKind::Container
                {
                    let write = Action::WriteStores {
                        instance: existing(instance),
                        stores: Box::new(stores.clone()),
                    };
                    needs.push(plan.add(write, Cause::Requested(self.why), Vec::new()));
                }
                needs.extend(self.prepared(plan, instance, &needs));
                let action = Action::Start {
                    instance: existing(instance),
                };
                let start = plan.add(action, Cause::Requested(self.why), needs);
                self.started.entry(service).or_default().push(start);
                self.takers.push((start, instance));
                if let Some(readiness) = instance.readiness.clone() {
                    let wait = Action::AwaitReady {
                        instance: existing(instance),
                        readiness,
                    };
                    let wait = plan.add(wait, Cause::ReadyWhenAnswered, vec![start]);
                    self.waits
                        .insert((instance.id.0.clone(), Wait::Ready, true), wait);
                }
            }
            // What runs already needs what was started here, too: the command fails if it does not get there.
            for instance in of_service(self.chosen, service).filter(|it| !wanted(it)) {
                self.await_started(plan, instance);
            }
        }
    }

    /// Has done what comes before the first start of a service; the last step of that.
    fn prepared(
        &mut self,
        plan: &mut Plan,
        instance: &Instance,
        needs: &[StepId],
    ) -> Option<StepId> {
        let all = self.launching.preparations.get(&instance.service)?;
        if !never_ran(instance) {
            return None;
        }
        let is_first_run = of_service(self.chosen, &instance.service).all(never_ran);
        let due = all.iter().filter(|it| is_first_run || it.per_replica);
        let all: Vec<Preparation> = due.cloned().collect();
        let (target, cause) = (existing(instance), Cause::Requested(self.why));
        self.prepared
            .add(plan, &all, (&target, instance.number), needs, &cause)
    }

    /// The starts so far of those that may get a port which this one may get, too.
    fn takers_beside(&self, instance: &Instance) -> Vec<StepId> {
        let meets = |other: &Instance| {
            let mut spans = other.asked_ports.iter();
            spans.any(|span| instance.asked_ports.iter().any(|own| own.meets(*span)))
        };
        let takers = self.takers.iter().filter(|(_, other)| meets(other));
        takers.map(|(step, _)| *step).collect()
    }

    /// The steps that the dependencies of an instance must have passed before it starts.
    fn gates(&mut self, plan: &mut Plan, instance: &Instance) -> Vec<StepId> {
        let mut gates = Vec::new();
        let counts = |restart: bool| restart || !self.only_restarting;
        let all: Vec<_> = edges(instance)
            .filter(|edge| counts(edge.restart))
            .collect();
        for edge in all {
            gates.extend(self.started.get(edge.on).into_iter().flatten());
            gates.extend(self.met(plan, instance, &edge));
        }
        gates
    }

    /// Waits for those dependencies of an instance that are started here.
    fn await_started(&mut self, plan: &mut Plan, instance: &Instance) {
        for edge in edges(instance) {
            if self.started.contains_key(edge.on) {
                self.met(plan, instance, &edge);
            }
        }
    }

    /// The waits for one dependency of an instance to meet its condition.
    fn met(&mut self, plan: &mut Plan, instance: &Instance, edge: &Edge<'_>) -> Vec<StepId> {
        if edge.condition == Condition::Started {
            return Vec::new();
        }
        let after = self.started.get(edge.on).cloned().unwrap_or_default();
        let optional = &self.launching.optional;
        let required = !optional.contains(&(instance.service.clone(), edge.on.to_owned()));
        let mut waits = Vec::new();
        for dependency in of_service(self.chosen, edge.on) {
            let (what, action) = self.wait_of(dependency, edge.condition);
            let key = (dependency.id.0.clone(), what, required);
            let step = self.waits.entry(key).or_insert_with(|| {
                let by = Cause::NeededBy(instance.service.clone());
                plan.add(action, by, after.clone())
            });
            if !required {
                plan.optional.insert(*step);
            }
            waits.push(*step);
        }
        waits
    }

    /// How to wait for a dependency. What its own readiness proves is enough where no healthcheck is known.
    fn wait_of(&self, dependency: &Instance, condition: Condition) -> (Wait, Action) {
        let instance = existing(dependency);
        let is_checked =
            dependency.health.is_some() || self.launching.checked.contains(&dependency.service);
        if condition == Condition::CompletedSuccessfully {
            return (Wait::Completed, Action::AwaitCompleted { instance });
        }
        match dependency.readiness.clone().filter(|_| !is_checked) {
            Some(readiness) => (
                Wait::Ready,
                Action::AwaitReady {
                    instance,
                    readiness,
                },
            ),
            None => (Wait::Healthy, Action::AwaitHealthy { instance }),
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wait {
    Ready,
    Healthy,
    Completed,
}
