//! The second pass of `up`: from decisions to steps and edges.
//!
//! Per new instance: image, network and volumes → create → stop and remove what it replaces → free or
//! move its ports → wait for dependencies → start → wait until it answers. What runs, a holder or an instance, is
//! stopped as late as possible: after all that can fail without it. (A process has the place of the one that it
//! replaces in the ledger, which goes first.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::plan::claims::{recorded_needs, reserved_ports};
use crate::plan::conflicts::{Taken, Verdict};
use crate::plan::decide::{Decided, Decision, decide};
use crate::plan::diverged::said;
use crate::plan::links::Links;
use crate::plan::order::dependency_order;
use crate::plan::ports::{needs, taken};
use crate::plan::pre_start::{Prepared, never_ran};
use crate::plan::resources::Shared;
use crate::plan::settle::{PendingStep, watch};
use crate::plan::spec::{existing, identity, specify, stores};
use crate::plan::step::{Action, Cause, ProjectIdentity, StepId, Target, Which};
use crate::plan::{Inputs, Plan, Problem, makings};
use crate::port::claim::Claim;
use crate::project::model::{HealthTest, Port};
use crate::state::{BackendKind, Instance, PortSpan, Readiness, Status};

/// Docker's grace period, where nobody says another.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Plans `up`.
pub fn up(inputs: &Inputs<'_>) -> Plan {
    let decided = decide(inputs);
    let mut planner = Planner {
        inputs,
        decided: &decided,
        project: identity(inputs.project),
        plan: Plan::default(),
        shared: Shared::default(),
        stops: BTreeMap::new(),
        removals: BTreeMap::new(),
        outcomes: BTreeMap::new(),
        made: BTreeMap::new(),
        made_as: BTreeMap::new(),
        moved: BTreeMap::new(),
        taken: Taken {
            now: Vec::new(),
            reserved: reserved_ports(&decided),
        },
        takers: Vec::new(),
        links: Links::of(inputs, &decided),
        forwarding: None,
        reachable: BTreeMap::new(),
        provided: BTreeMap::new(),
        prepared: Prepared::default(),
        images: Vec::new(),
    };
    planner.images();
    planner.diverged();
    planner.doubled();
    planner.forwarder();
    let order = dependency_order(&decided);
    // Ports that move are handed to dependents, so dependencies settle theirs first.
    for name in &order {
        if let Some(decided) = decided.get(name) {
            planner.service(decided);
            planner.retire_relay(decided, &[]);
            planner.relay(decided);
        }
    }
    if inputs.policy.all_resources {
        planner
            .shared
            .everything(&mut planner.plan, inputs, &planner.project);
    }
    planner.without_effect();
    planner.plan.notes.extend(said(&planner.plan));
    planner.orphans();
    makings::before_ends(&mut planner.plan);
    planner.plan
}

/// One replica of a service that is up, or will be when its steps are done.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) target: Target,
    pub(super) started: Option<StepId>,
    pub(super) ready: Option<StepId>,
    pub(super) readiness: Option<Readiness>,
    pub(super) has_healthcheck: bool,
}

pub(super) struct Planner<'a> {
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) decided: &'a BTreeMap<String, Decided<'a>>,
    pub(super) project: Arc<ProjectIdentity>,
    pub(super) plan: Plan,
    pub(super) shared: Shared,
    pub(super) stops: BTreeMap<String, StepId>,
    pub(super) removals: BTreeMap<String, StepId>,
    pub(super) outcomes: BTreeMap<String, Vec<Outcome>>,
    /// The steps that make a service's instances.
    pub(super) made: BTreeMap<String, Vec<StepId>>,
    /// The same of each instance, by its name.
    made_as: BTreeMap<String, Vec<StepId>>,
    pub(super) moved: BTreeMap<String, Vec<(String, String)>>,
    pub(super) taken: Taken,
    /// The starts of those that take ports, and which they may be.
    takers: Vec<(StepId, Vec<PortSpan>)>,
    pub(super) links: Links,
    /// The step that starts the forwarder, if one is due.
    pub(super) forwarding: Option<StepId>,
    /// The waits for local services to be reachable by name, which containers that depend on them share.
    pub(super) reachable: BTreeMap<String, StepId>,
    /// The steps that have services brought up by their providers.
    pub(super) provided: BTreeMap<String, StepId>,
    /// What is done once before a service runs for the first time.
    pub(super) prepared: Prepared,
    /// What brings images, where something is replaced: nothing is ended before all of them are there.
    pub(super) images: Vec<StepId>,
}

impl Planner<'_> {
    /// Plans to pull or build the image of a service whose containers may stay, where that is asked for:
    /// whether they stay is known afterwards.
    fn renew_image(&mut self, decided: &Decided<'_>) {
        let (inputs, service) = (self.inputs, &decided.service);
        let policy = inputs.policy;
        let is_provided = service.provider.is_some();
        if decided.backend != BackendKind::Container || policy.images_done || is_provided {
            return;
        }
        let image = service.image_name(&inputs.project.name);
        // An image that was removed since is missed when a container is made.
        if policy.pull || policy.build || inputs.observed.images.contains_key(&image) {
            self.shared
                .image(&mut self.plan, inputs, &self.project, service);
        }
    }

    fn service(&mut self, decided: &Decided<'_>) {
        self.renew_image(decided);
        self.provide(decided);
        let mut decisions: Vec<&Decision<'_>> = decided.decisions.iter().collect();
        if decided.choice() > 0 {
            // The new ones have no choice any more.
            decisions.sort_by_key(|decision| !matches!(decision, Decision::Create { .. }));
        }
        for decision in decisions {
            let outcome = match decision {
                Decision::Keep(instance) => Some(Outcome {
                    target: existing(instance),
                    started: None,
                    ready: None,
                    readiness: instance.readiness.clone(),
                    has_healthcheck: instance.health.is_some(),
                }),
                Decision::Start(_) | Decision::Unpause(_) | Decision::Restart(..)
                    if self.inputs.policy.no_start =>
                {
                    None
                }
                Decision::Unpause(instance) => Some(self.unpause(instance)),
                Decision::Start(instance) => self.start(decided, instance),
                Decision::Restart(instance, cause) => {
                    if *cause == Cause::Ending {
                        let own = instance.stop_grace.map(Duration::from_secs);
                        let own = own.or(decided.service.stop_grace_period);
                        let grace = self.inputs.policy.timeout.or(own).unwrap_or(STOP_GRACE);
                        self.plan.note_end(instance, Some(grace));
                    }
                    let stop = self.stop(instance, cause.clone(), Vec::new());
                    Some(self.launch(
                        decided,
                        existing(instance),
                        cause.clone(),
                        vec![stop],
                        instance.readiness.clone(),
                        Vec::new(),
                    ))
                }
                Decision::Create { number, old, cause } => {
                    self.create(decided, *number, old, cause)
                }
                Decision::Drop(instance, cause) => {
                    self.discard(instance, cause.clone(), Vec::new());
                    None
                }
            };
            if let Some(outcome) = outcome {
                self.outcomes
                    .entry(decided.service.name.clone())
                    .or_default()
                    .push(outcome);
            }
        }
        let mut decisions = decided.decisions.iter();
        if !self.inputs.policy.no_start && decisions.any(|it| matches!(it, Decision::Keep(_))) {
            self.await_beside(&decided.service);
        }
        self.prepared_alone(&decided.service);
    }

    fn unpause(&mut self, instance: &Instance) -> Outcome {
        let target = existing(instance);
        let action = Action::Unpause {
            instance: target.clone(),
        };
        let started = self.plan.add(action, Cause::Paused, Vec::new());
        Outcome {
            target,
            started: Some(started),
            ready: None,
            readiness: instance.readiness.clone(),
            has_healthcheck: instance.health.is_some(),
        }
    }

    fn start(&mut self, decided: &Decided<'_>, instance: &Instance) -> Option<Outcome> {
        let all = recorded_needs(decided, instance);
        for need in &all {
            // It was made with one particular port: if that is to be another, so is the instance.
            if let Verdict::Move { rule, .. } =
                self.judge(&decided.service, instance.number, need, &[instance])
            {
                let cause = Cause::PortHeld(rule);
                return self.create(decided, instance.number, &[instance], &cause);
            }
        }
        let target = existing(instance);
        let mut first = Vec::new();
        // Docker Compose makes containers without them.
        if instance.status == Status::Created
            && instance.backend == BackendKind::Container
            && let Some(stores) = stores(self.inputs.project, &decided.service)
        {
            let write = Action::WriteStores {
                instance: target.clone(),
                stores: Box::new(stores),
            };
            first.push(self.plan.add(write, Cause::NotRunning, Vec::new()));
        }
        if never_ran(instance) {
            let networks = self.joined(decided);
            first.extend(networks);
            first.extend(self.before_first_start(decided, &target, instance.number, &first));
        }
        let mut proof = None;
        let mut watched = Vec::new();
        for need in all {
            // The engine may be starting it already, for a command that was killed.
            let own = [instance];
            if let Some((settled, steps)) =
                self.port(&decided.service, instance.number, &need, &own)
            {
                watched.extend(watch(decided, instance.number, &need, &settled));
                if !steps.is_empty() && !need.anywhere {
                    proof = proof.or_else(|| taken(&settled, decided.backend));
                }
                first.extend(steps);
            }
        }
        Some(self.launch(
            decided,
            target,
            Cause::NotRunning,
            first,
            instance.readiness.clone().or(proof),
            watched,
        ))
    }

    fn create(
        &mut self,
        decided: &Decided<'_>,
        number: u32,
        old: &[&Instance],
        cause: &Cause,
    ) -> Option<Outcome> {
        let service = &decided.service;
        let mut before = match decided.backend {
            BackendKind::Container => {
                self.shared
                    .for_container(&mut self.plan, self.inputs, &self.project, service)
            }
            BackendKind::Process => Vec::new(),
        };
        // What its provider tells is part of what it is made from.
        let provided = service.depends_on.keys();
        before.extend(provided.filter_map(|name| self.provided.get(name)));
        let mut ports = Vec::new();
        let mut freeing: Vec<PendingStep> = Vec::new();
        let ending: Vec<&Instance> = old.to_vec();
        let mut proof = None;
        let mut watched = Vec::new();
        let first_port = self.inputs.observed.first_port;
        for need in needs(service, number, decided.backend, first_port) {
            let (settled, steps) = self.settle(service, number, &need, &ending);
            if let Some(settled) = settled {
                watched.extend(watch(decided, number, &need, &settled));
                if !steps.is_empty() && !need.anywhere {
                    proof = proof.or_else(|| taken(&settled, decided.backend));
                }
                ports.push(settled);
            }
            freeing.extend(steps);
        }
        let (aside, first): (Vec<&Instance>, Vec<&Instance>) = old
            .iter()
            .partition(|instance| self.stands_aside(decided.backend, instance, old));
        before.extend(self.replaced(&service.name, &first, cause, &before));
        // What it shares must exist when it is made.
        let linked = service
            .links
            .iter()
            .filter_map(|link| link.split(':').next());
        for name in service.shares_with().chain(linked) {
            before.extend(self.made.get(name).into_iter().flatten());
        }
        // The same by its own name, where it is one of this project's.
        for name in service.containers_named() {
            before.extend(self.made_as.get(name).into_iter().flatten());
        }
        if number > 1 && service.container_name.is_some() {
            self.plan.problems.push(Problem {
                message: format!(
                    "service `{}` has a container_name, so it cannot have {number} replicas",
                    service.name
                ),
                hint: Some("remove `container_name`".to_owned()),
            });
        }
        let moved = service
            .depends_on
            .keys()
            .filter_map(|name| self.moved.get(name))
            .flatten()
            .cloned();
        let own = service.instance_name(&self.inputs.project.name, number);
        let mut like = old
            .iter()
            .filter(|instance| instance.backend == decided.backend);
        let old = like
            .clone()
            .find(|instance| instance.name == own)
            .or_else(|| like.next())
            .copied();
        let spec = self.named(specify(
            self.inputs,
            &self.project,
            decided,
            number,
            ports,
            moved,
            old,
        ));
        let readiness = spec.readiness.clone().or(proof);
        let name = spec.name.clone();
        let made = self
            .plan
            .add(Action::Create(Box::new(spec)), cause.clone(), before);
        let gone = self.replaced(&service.name, &aside, cause, &[made]);
        // It has its name when the old one is gone.
        for steps in [
            self.made.entry(service.name.clone()).or_default(),
            self.made_as.entry(name.clone()).or_default(),
        ] {
            steps.push(made);
            steps.extend(&gone);
        }
        let target = Target {
            backend: decided.backend,
            project: self.project.name.clone(),
            service: service.name.clone(),
            name,
            which: Which::MadeBy(made),
            role: None,
        };
        if self.inputs.policy.no_start {
            return None;
        }
        let mut first = vec![made];
        first.extend(gone);
        let prepared = self.before_first_start(decided, &target, number, &first);
        let before: Vec<StepId> = std::iter::once(made).chain(prepared).collect();
        first.extend(prepared);
        for pending in freeing {
            first.push(self.pend(pending, before.clone()));
        }
        Some(self.launch(decided, target, cause.clone(), first, readiness, watched))
    }

    /// Start, and wait for the answer; where none is declared, watch that it gets its ports.
    fn launch(
        &mut self,
        decided: &Decided<'_>,
        target: Target,
        cause: Cause,
        mut first: Vec<StepId>,
        readiness: Option<Readiness>,
        mut watched: Vec<Claim>,
    ) -> Outcome {
        if let (Which::Existing(_), BackendKind::Container) = (&target.which, decided.backend) {
            first.extend(self.joined(decided));
        }
        first.extend(self.gates(&decided.service, decided.backend));
        first.extend(self.yield_addresses(decided, &first));
        if decided.backend == BackendKind::Process {
            first.extend(self.forwarding);
        }
        // Compose makes containers with the whole range, and engines pick from it without a lock: one
        // after the other, and after those that have no choice. What wharf makes has one port, settled before.
        let spans = decided.spans();
        let in_range = decided.backend == BackendKind::Container
            && matches!(target.which, Which::Existing(_))
            && decided.service.ports.iter().any(Port::is_range);
        if in_range {
            let meets = |others: &[PortSpan]| {
                let mut others = others.iter();
                others.any(|other| spans.iter().any(|span| span.meets(*other)))
            };
            let takers = self.takers.iter().filter(|(_, others)| meets(others));
            first.extend(takers.map(|(step, _)| *step));
        }
        let started = self.plan.add(
            Action::Start {
                instance: target.clone(),
            },
            cause,
            first,
        );
        self.retire_relay(decided, &[started]);
        if !spans.is_empty() {
            self.takers.push((started, spans));
        }
        let ready = readiness.clone().map(|readiness| {
            let wait = Action::AwaitReady {
                instance: target.clone(),
                readiness,
            };
            self.plan.add(wait, Cause::ReadyWhenAnswered, vec![started])
        });
        if let Some(readiness) = &readiness {
            watched.retain(|claim| claim.port != readiness.address.port());
        }
        if !watched.is_empty() {
            let watch = Action::AwaitListening {
                instance: target.clone(),
                claims: watched,
            };
            self.plan.add(watch, Cause::PortNeeded, vec![started]);
        }
        let has_healthcheck = decided
            .service
            .healthcheck
            .as_ref()
            .is_some_and(|check| check.test != Some(HealthTest::None));
        Outcome {
            target,
            started: Some(started),
            ready,
            readiness,
            has_healthcheck,
        }
    }

    /// The steps that make the networks of a container that exists, which says by name which they are.
    fn joined(&self, decided: &Decided<'_>) -> Vec<StepId> {
        let networks = decided.service.networks.keys();
        let steps = networks.filter_map(|key| self.shared.networks.get(key));
        steps.flatten().copied().collect()
    }
}
