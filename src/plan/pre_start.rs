//! `pre_start`: what has to be done before a service runs for the first time, one command after the other, each in a
//! container of its own that has the volumes of the one it prepares.
//!
//! A service has run for the first time when one of its instances, made as it is declared now, has been started.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::naming::{HOOK, Names, PRE_START};
use crate::plan::Plan;
use crate::plan::decide::{Decided, Decision};
use crate::plan::spec::{attachments, identity, mounted};
use crate::plan::step::{Action, Cause, InstanceSpec, OneOff, Preparation, StepId, Target};
use crate::plan::up::Planner;
use crate::project::model::{PreStart, Project, Restart, Service};
use crate::state::{BackendKind, Fingerprint, Instance, Status};

/// How long a command that is cut off gets to end, where the service says nothing about it.
const GRACE: Duration = Duration::from_secs(2);

/// The steps that are taken once for a service, by its name and their place in its list.
#[derive(Debug, Default)]
pub(super) struct Prepared(BTreeMap<(String, usize), StepId>);

impl Prepared {
    /// Adds what comes before the first start of an instance, one step after the other; the last one. `needs` is what
    /// the instance itself waits for.
    pub(super) fn add(
        &mut self,
        plan: &mut Plan,
        all: &[Preparation],
        (instance, number): (&Target, u32),
        needs: &[StepId],
        cause: &Cause,
    ) -> Option<StepId> {
        let mut last = None;
        for preparation in all.iter().filter(|it| it.runs_as(instance.backend)) {
            let key = (instance.service.clone(), preparation.index);
            if let Some(step) = self.0.get(&key) {
                last = Some(*step);
                continue;
            }
            let before = last.into_iter().chain(needs.iter().copied()).collect();
            let action = Action::PreStart {
                instance: instance.clone(),
                preparation: Box::new(preparation.of_replica(number)),
            };
            let step = plan.add(action, cause.clone(), before);
            last = Some(step);
            if !preparation.per_replica {
                self.0.insert(key, step);
            }
        }
        last
    }

    /// The first one of a service.
    fn first(&self, service: &str) -> Option<StepId> {
        let steps = self.0.iter().filter(|((name, _), _)| name == service);
        steps.map(|(_, step)| *step).min()
    }
}

impl Planner<'_> {
    /// The step that an instance must have behind it before it is started; `needs` is what it needs itself.
    pub(super) fn before_first_start(
        &mut self,
        decided: &Decided<'_>,
        target: &Target,
        number: u32,
        needs: &[StepId],
    ) -> Option<StepId> {
        let service = &decided.service;
        let once = self.inputs.policy.once.as_ref();
        let is_once = once.is_some_and(|once| once.service.name == service.name);
        if service.pre_start.is_empty() || is_once {
            return None;
        }
        let mut all = preparations(self.inputs.project, service);
        if !is_first_run(decided) {
            // A replica more has what is done for each still before it.
            all.retain(|preparation| preparation.per_replica);
        }
        let mut needs = needs.to_vec();
        needs.extend(self.gates(service, decided.backend));
        let cause = Cause::Requested(PRE_START);
        self.prepared
            .add(&mut self.plan, &all, (target, number), &needs, &cause)
    }

    /// Has what is done once for a service wait until none of its replicas runs any more.
    pub(super) fn prepared_alone(&mut self, service: &Service) {
        let made = self.made.get(&service.name).into_iter().flatten();
        let made: Vec<StepId> = made.copied().collect();
        let Some(first) = self.prepared.first(&service.name) else {
            return;
        };
        let mut steps = self.plan.steps.iter_mut();
        if let Some(step) = steps.find(|step| step.id == first) {
            step.needs.extend(made);
            step.needs.sort_unstable();
            step.needs.dedup();
        }
    }
}

/// What is to be done before an instance of a service runs for the first time.
pub(crate) fn preparations(project: &Project, service: &Arc<Service>) -> Vec<Preparation> {
    let all = service.pre_start.iter().enumerate();
    all.map(|(index, hook)| Preparation {
        index,
        per_replica: hook.per_replica,
        own_image: hook.image.is_some(),
        hook: hook.hook.clone(),
        spec: specify(project, service, hook, index),
    })
    .collect()
}

/// Whether no instance that stays, or is started again, has run as the service is declared now.
pub(super) fn is_first_run(decided: &Decided<'_>) -> bool {
    decided.decisions.iter().all(|decision| match decision {
        Decision::Create { .. } | Decision::Drop(..) => true,
        Decision::Start(instance) => never_ran(instance),
        Decision::Keep(_) | Decision::Unpause(_) | Decision::Restart(..) => false,
    })
}

/// Whether an instance was made and not started since.
pub(super) fn never_ran(instance: &Instance) -> bool {
    instance.status == Status::Created
}

/// The container of one command: as the service's, but that nothing outside reaches it, and that it ends for good.
fn specify(
    project: &Project,
    service: &Arc<Service>,
    hook: &PreStart,
    index: usize,
) -> InstanceSpec {
    let between = service.separator;
    let name = format!(
        "{}{between}{}{between}{PRE_START}{between}{index}",
        project.name, service.name
    );
    let image = hook.image.clone();
    let image = image.unwrap_or_else(|| service.image_name(&project.name));
    InstanceSpec {
        project: identity(project),
        service: Arc::new(alone(service, hook)),
        backend: BackendKind::Container,
        number: 1,
        fingerprint: Fingerprint(service.config_hash.clone()),
        image,
        ports: Vec::new(),
        environment: BTreeMap::new(),
        networks: attachments(project, service, &name, true),
        volumes: BTreeMap::new(),
        secrets: mounted(&project.secrets, &service.secrets),
        configs: mounted(&project.configs, &service.configs),
        replaces: None,
        inherits: false,
        readiness: None,
        one_off: Some(OneOff {
            slug: format!("{PRE_START}{between}{index}"),
            remove: true,
            aliases: false,
        }),
        names: Names::default(),
        name,
    }
}

/// The service as such a container is made of it.
fn alone(service: &Service, hook: &PreStart) -> Service {
    let own = &hook.hook;
    let mut alone = service.clone();
    alone.command = (!own.command.is_empty()).then(|| own.command.clone());
    // The image's own, as its author meant it for commands.
    alone.entrypoint = None;
    if own.user.is_some() {
        alone.user.clone_from(&own.user);
    }
    if own.working_dir.is_some() {
        alone.working_dir.clone_from(&own.working_dir);
    }
    for entry in &own.environment {
        if let Some((key, value)) = entry.split_once('=') {
            alone.environment.insert(key.to_owned(), value.to_owned());
        }
    }
    alone.privileged |= own.privileged;
    alone.labels.insert(HOOK.to_owned(), PRE_START.to_owned());
    alone.stop_grace_period = Some(service.stop_grace_period.unwrap_or(GRACE));
    alone.container_name = None;
    alone.restart = Restart::No;
    alone.restart_given = false;
    alone.ports.clear();
    alone.raw_ports.clear();
    alone.expose.clear();
    alone.healthcheck = None;
    alone.post_start.clear();
    alone.pre_stop.clear();
    alone.pre_start.clear();
    alone.depends_on.clear();
    alone.tty = false;
    alone.stdin_open = false;
    // It has those of the container that it prepares.
    alone.volumes.clear();
    alone.volumes_from.clear();
    alone.shared_form = None;
    // Of the one that it prepares, which takes them in a moment.
    alone.mac_address = None;
    for place in alone.networks.values_mut() {
        place.ipv4_address = None;
        place.ipv6_address = None;
        place.mac_address = None;
    }
    alone
}
