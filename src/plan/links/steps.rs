//! The steps that make, start and remove relays and the forwarder, and those that wait for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::naming::{Role, Way};
use crate::plan::Inputs;
use crate::plan::decide::{Decided, Decision};
use crate::plan::links::own;
use crate::plan::spec::existing;
use crate::plan::step::{Action, Cause, InstanceSpec, StepId, Target, Which};
use crate::plan::up::Planner;
use crate::project::model::{Project, Service};
use crate::state::{BackendKind, Instance, Status};

impl Planner<'_> {
    /// The forwarder, before the first local service starts.
    pub(in crate::plan) fn forwarder(&mut self) {
        if !self.links.forwarder {
            return;
        }
        let inputs = self.inputs;
        let spec = own::forwarder(inputs, &self.project, !self.links.relays.is_empty());
        let there = inputs
            .observed
            .own
            .iter()
            .find(|instance| instance.role() == Some(Role::Forwarder));
        let starts = inputs.policy.once.is_some() || self.starts_processes();
        match there {
            // One that waits to be started again is started at once: nobody is to wait for that, too.
            Some(instance)
                if own::serves(instance, &spec)
                    && instance.status.is_alive()
                    && instance.status != Status::Restarting => {}
            Some(instance) if own::serves(instance, &spec) => {
                let due = starts.then(|| existing(instance));
                self.forwarding =
                    due.and_then(|instance| self.start_own(instance, Cause::NotRunning, vec![]));
            }
            Some(instance) => {
                let gone = self.discard(instance, Cause::ConfigChanged, Vec::new());
                let cause = Cause::ConfigChanged;
                self.forwarding = self.make(spec, cause, vec![gone], Vec::new()).1;
            }
            None if starts || !self.links.relays.is_empty() => {
                let cause = Cause::Missing;
                self.forwarding = self.make(spec, cause, Vec::new(), Vec::new()).1;
            }
            None => {}
        }
    }

    /// Whether any local service is to be started: the forwarder ends by itself when none is alive.
    fn starts_processes(&self) -> bool {
        self.decided
            .values()
            .filter(|decided| decided.backend == BackendKind::Process)
            .any(|decided| {
                decided
                    .decisions
                    .iter()
                    .any(|decision| !matches!(decision, Decision::Drop(..)))
            })
    }

    /// The relay of a local service, after the service itself was planned.
    pub(in crate::plan) fn relay(&mut self, decided: &Decided<'_>) {
        let service = &decided.service;
        let inputs = self.inputs;
        if runs_once(inputs, &service.name) {
            // The service's own instances are left alone, and so is what stands for them.
            return;
        }
        let there = relay_of(inputs, &service.name);
        if !self.links.relays.contains(&service.name) {
            if let Some(relay) = there.filter(|_| decided.backend == BackendKind::Process) {
                self.discard(relay, Cause::Unneeded, Vec::new());
            }
            return;
        }
        let names = instances(inputs.project, decided);
        let spec = own::relay(inputs, &self.project, service, &names);
        // A container of the service has its names, too, and perhaps its addresses, until it has stopped. The relay
        // is there before and takes them over at once: a look-up between the two finds nobody, and may go on to
        // name servers that take seconds to say so.
        let stops: Vec<StepId> = inputs
            .observed
            .instances
            .iter()
            .filter(|instance| {
                instance.service == service.name && instance.backend == BackendKind::Container
            })
            .filter_map(|instance| self.stops.get(&instance.id.0).copied())
            .collect();
        let is_current = |instance: &Instance| {
            instance.fingerprint.as_ref() == Some(&spec.fingerprint)
                && !matches!(instance.status, Status::Removing | Status::Dead)
                // Something that was asked of the engine ends it all the same.
                && !instance.ending
                && !self.removals.contains_key(&instance.id.0)
                && (!instance.status.is_alive()
                    || spec
                        .networks
                        .iter()
                        .all(|place| instance.networks.contains(&place.network)))
        };
        let started = match there {
            Some(instance) if is_current(instance) => {
                if instance.status.is_alive() {
                    None
                } else {
                    let mut needs = stops;
                    needs.push(self.prepare(&spec));
                    self.start_own(existing(instance), Cause::NotRunning, needs)
                }
            }
            there => {
                // Once: a relay lasts as long as its service runs here.
                if there.is_none() {
                    self.plan.notes.extend(super::without_udp(service));
                }
                let cause = there.map_or(Cause::Missing, |_| Cause::ConfigChanged);
                let mut needs: Vec<StepId> = Vec::new();
                for key in service.networks.keys() {
                    needs.extend(
                        self.shared
                            .network(&mut self.plan, inputs, &self.project, key),
                    );
                }
                needs.extend(self.load(&spec.image));
                needs.push(self.prepare(&spec));
                if let Some(old) = there {
                    needs.push(self.discard(old, cause.clone(), needs.clone()));
                }
                let (made, started) = self.make(spec, cause, needs, stops);
                // Others may share its network namespace.
                let instances = self.made.entry(service.name.clone()).or_default();
                instances.push(made);
                started
            }
        };
        let mut decisions = decided.decisions.iter();
        let is_kept = decisions.any(|decision| matches!(decision, Decision::Keep(_)));
        self.reachable(&service.name, started, is_kept);
    }

    /// What containers that depend on a local service wait for, besides the service itself. Relay and forwarder of
    /// one that is kept may have been killed a moment ago, which none of them shows.
    fn reachable(&mut self, service: &str, started: Option<StepId>, is_kept: bool) {
        if self.inputs.policy.no_start {
            return;
        }
        let outcomes = self.outcomes.get(service).into_iter().flatten();
        let mut needs: Vec<StepId> = outcomes
            .filter_map(|outcome| outcome.ready.or(outcome.started))
            .chain(started)
            .collect();
        if needs.is_empty() {
            if is_kept {
                self.plan.reachable.push(service.to_owned());
            }
            return;
        }
        needs.extend(self.forwarding);
        let wait = Action::AwaitReachable {
            project: self.project.name.clone(),
            service: service.to_owned(),
        };
        let cause = Cause::NeededBy("containers that name it".to_owned());
        let step = self.plan.add(wait, cause, needs);
        self.reachable.insert(service.to_owned(), step);
    }

    /// Removes the relay of a service that runs as a container now, as late as possible.
    pub(in crate::plan) fn retire_relay(&mut self, decided: &Decided<'_>, needs: &[StepId]) {
        let Some(relay) = retiring(self.inputs, decided) else {
            return;
        };
        let removed = self.discard(relay, Cause::BackendChanged, needs.to_vec());
        // Containers that start until then could be led to it.
        let gone = self.stops.get(&relay.id.0).copied().unwrap_or(removed);
        self.reachable.insert(decided.service.name.clone(), gone);
    }

    /// Has the relay gone before the container starts, where both cannot be there at once. Returns the step after
    /// which its addresses are free.
    pub(in crate::plan) fn yield_addresses(
        &mut self,
        decided: &Decided<'_>,
        needs: &[StepId],
    ) -> Option<StepId> {
        let relay = retiring(self.inputs, decided)?;
        if !has_fixed_address(&decided.service) {
            return None;
        }
        self.retire_relay(decided, needs);
        self.reachable.get(&relay.service).copied()
    }

    /// The step that gives the engine the relay's image, if it lacks it.
    fn load(&mut self, image: &str) -> Option<StepId> {
        let there = self.inputs.observed.images.contains_key(image);
        self.shared.loaded(image, there, &mut self.plan)
    }

    /// The step that makes the directory of a relay, which also tells later commands that there is one.
    fn prepare(&mut self, spec: &InstanceSpec) -> StepId {
        let prepare = Action::PrepareRelay {
            project: self.project.name.clone(),
            service: spec.service.name.clone(),
        };
        let cause = Cause::NeededBy(spec.name.clone());
        self.plan.add(prepare, cause, Vec::new())
    }

    fn make(
        &mut self,
        spec: InstanceSpec,
        cause: Cause,
        needs: Vec<StepId>,
        mut before_start: Vec<StepId>,
    ) -> (StepId, Option<StepId>) {
        let (backend, service) = (spec.backend, spec.service.name.clone());
        let (name, role) = (spec.name.clone(), Role::of(&spec.service.labels));
        let create = Action::Create(Box::new(spec));
        let made = self.plan.add(create, cause.clone(), needs);
        let target = Target {
            backend,
            project: self.project.name.clone(),
            service,
            name,
            which: Which::MadeBy(made),
            role,
        };
        before_start.push(made);
        (made, self.start_own(target, cause, before_start))
    }

    fn start_own(&mut self, instance: Target, cause: Cause, needs: Vec<StepId>) -> Option<StepId> {
        if self.inputs.policy.no_start {
            return None;
        }
        Some(self.plan.add(Action::Start { instance }, cause, needs))
    }

    /// The names of a local service, and its environment with what stands for names in it.
    pub(in crate::plan) fn named(&mut self, mut spec: InstanceSpec) -> InstanceSpec {
        if spec.backend != BackendKind::Process || !self.links.forwarder {
            return spec;
        }
        let way = super::way(self.inputs, &spec.service);
        spec.names = self
            .links
            .names(self.inputs, &spec.service, &spec.networks, way);
        let mut refused = match way {
            Way::Hosts => self.links.refused(self.inputs, &spec.service),
            Way::Environment | Way::Off => BTreeSet::new(),
        };
        if way == Way::Environment {
            let outcome = super::rewritten(self.inputs, &spec.service);
            if !outcome.values.is_empty() {
                let mut service = Service::clone(&spec.service);
                for value in outcome.values {
                    service.environment.insert(value.variable, value.to);
                }
                spec.service = Arc::new(service);
            }
            spec.names.forwards = outcome.forwards.into_iter().collect();
            refused = outcome.refused;
        }
        for note in super::without_privilege(self.inputs, &refused) {
            if !self.plan.notes.contains(&note) {
                self.plan.notes.push(note);
            }
        }
        spec
    }
}

/// The names of the instances that a service has, or will have.
fn instances(project: &Project, decided: &Decided<'_>) -> BTreeSet<String> {
    let named = decided.decisions.iter().filter_map(|it| match it {
        Decision::Keep(instance)
        | Decision::Start(instance)
        | Decision::Unpause(instance)
        | Decision::Restart(instance, _) => Some(instance.name.clone()),
        Decision::Create { number, .. } => {
            Some(decided.service.instance_name(&project.name, *number))
        }
        Decision::Drop(..) => None,
    });
    named.collect()
}

/// The relay of a service that runs as a container now.
fn retiring<'a>(inputs: &Inputs<'a>, decided: &Decided<'_>) -> Option<&'a Instance> {
    let service = &decided.service.name;
    if decided.backend != BackendKind::Container || runs_once(inputs, service) {
        return None;
    }
    relay_of(inputs, service)
}

/// Whether the plan is for a single run of a service, beside its instances.
fn runs_once(inputs: &Inputs<'_>, service: &str) -> bool {
    let once = inputs.policy.once.as_ref();
    once.is_some_and(|once| once.service.name == service)
}

/// Whether an address of a service is such that only one container can have it.
fn has_fixed_address(service: &Service) -> bool {
    service.mac_address.is_some()
        || service.networks.values().any(|place| {
            place.ipv4_address.is_some()
                || place.ipv6_address.is_some()
                || place.mac_address.is_some()
                || !place.link_local_ips.is_empty()
        })
}

/// The relay that a service has.
fn relay_of<'a>(inputs: &Inputs<'a>, service: &str) -> Option<&'a Instance> {
    let mut own = inputs.observed.own.iter();
    own.find(|instance| instance.role() == Some(Role::Relay) && instance.service == service)
}
