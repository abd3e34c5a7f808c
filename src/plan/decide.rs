//! The first pass: what becomes of every instance, and which instances are missing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::naming::waits_for;
use crate::plan::Inputs;
use crate::plan::diverged::{Diverged, named_volumes};
use crate::plan::ends::is_left;
use crate::plan::placement::in_form;
use crate::plan::policy::Recreate;
use crate::plan::sharing;
use crate::plan::step::Cause;
use crate::project::model::{Project, Service};
use crate::state::{BackendKind, Fingerprint, Instance, PortSpan, Status};

/// The label in which the image's id is recorded at creation.
pub(super) const IMAGE_LABEL: &str = "com.docker.compose.image";

/// What is to become of one replica, or of one instance too many.
#[derive(Clone, Debug)]
pub(super) enum Decision<'a> {
    /// It runs and is what it should be.
    Keep(&'a Instance),
    /// It is what it should be and does not run.
    Start(&'a Instance),
    /// It is what it should be and is frozen.
    Unpause(&'a Instance),
    /// It runs and must run anew because of a dependency.
    Restart(&'a Instance, Cause),
    /// It is to be made; `old` has its number and goes first.
    Create {
        /// The replica's number.
        number: u32,
        /// Instances in its place.
        old: Vec<&'a Instance>,
        /// Why.
        cause: Cause,
    },
    /// It is to go.
    Drop(&'a Instance, Cause),
}

/// A service with all decisions about it.
#[derive(Clone, Debug)]
pub(super) struct Decided<'a> {
    /// The service in the form it runs in.
    pub service: Arc<Service>,
    /// Where.
    pub backend: BackendKind,
    /// What it is made from.
    pub fingerprint: Fingerprint,
    /// Replicas by number, then instances too many.
    pub decisions: Vec<Decision<'a>>,
}

impl Decided<'_> {
    /// The ports of the host that its replicas may have.
    pub(super) fn spans(&self) -> Vec<PortSpan> {
        let ports = self.service.ports.iter();
        let spans = ports.filter_map(|port| port.published);
        spans
            .map(|(first, last)| PortSpan { first, last })
            .collect()
    }

    /// How much choice the engine has with a port of a container that it starts again: what wharf makes has one
    /// port, settled before.
    pub(super) fn choice(&self) -> u16 {
        let picks = |decision: &Decision<'_>| {
            matches!(decision, Decision::Start(_) | Decision::Restart(..))
        };
        if self.backend != BackendKind::Container || !self.decisions.iter().any(picks) {
            return 0;
        }
        let spans = self.spans().into_iter();
        spans.map(PortSpan::width).max().unwrap_or_default()
    }

    /// Whether any replica is made or runs anew.
    pub(super) fn renews(&self) -> bool {
        self.decisions.iter().any(|decision| {
            matches!(
                decision,
                Decision::Create { .. } | Decision::Start(_) | Decision::Restart(..)
            )
        })
    }
}

/// Decides about all services, by name.
pub(super) fn decide<'a>(inputs: &Inputs<'a>) -> BTreeMap<String, Decided<'a>> {
    let diverged = Diverged::of(inputs);
    let mut all: BTreeMap<String, Decided<'a>> = inputs
        .project
        .services
        .iter()
        .map(|(name, service)| (name.clone(), decide_service(inputs, &diverged, service)))
        .collect();
    sharing::follow(inputs, &mut all);
    all
}

fn decide_service<'a>(
    inputs: &Inputs<'a>,
    diverged: &Diverged<'_>,
    service: &Arc<Service>,
) -> Decided<'a> {
    let backend = inputs.placement.of(&service.name);
    if let Some(once) = &inputs.policy.once
        && once.service.name == service.name
    {
        return Decided {
            service: Arc::clone(&once.service),
            backend,
            fingerprint: fingerprint(&once.service, backend),
            decisions: vec![Decision::Create {
                number: 0,
                old: Vec::new(),
                cause: Cause::Requested("run"),
            }],
        };
    }
    let service = in_form(service, backend);
    if service.provider.is_some() {
        // What it was before it had a provider.
        let mine = inputs.observed.instances.iter();
        let mine = mine.filter(|instance| instance.service == service.name && !instance.one_off);
        return Decided {
            fingerprint: fingerprint(&service, backend),
            backend,
            decisions: mine
                .map(|instance| Decision::Drop(instance, Cause::ConfigChanged))
                .collect(),
            service,
        };
    }
    let fingerprint = if backend == BackendKind::Container {
        sharing::hash_beside(inputs, &service)
    } else {
        fingerprint(&service, backend)
    };
    let scale = inputs.policy.scale.get(&service.name).copied();
    let replicas = scale.or(service.scale).unwrap_or(1);
    let mine: Vec<&Instance> = inputs
        .observed
        .instances
        .iter()
        .filter(|instance| instance.service == service.name && !instance.one_off)
        .collect();
    let only_containers = backend == BackendKind::Container
        && mine
            .iter()
            .all(|instance| instance.backend == BackendKind::Container);
    let resource = diverged.used_by(&service);
    let made_from = MadeFrom {
        fingerprint: (!awaits_provider(inputs, &service)).then_some(&fingerprint),
        resource: resource.as_deref(),
    };
    let decide = |number, old| decide_replica(inputs, &service, backend, &made_from, number, old);
    let decisions = if only_containers {
        let was_given = |number| {
            let name = service.instance_name(&inputs.project.name, number);
            inputs.policy.given.contains(&name)
        };
        let is_unnamed = |instance: &Instance| is_unnamed(inputs.project, &service, instance);
        let (left, mine) = mine
            .iter()
            .partition::<Vec<&Instance>, _>(|instance| is_left(instance, &mine));
        let mut decisions = by_count(&mine, replicas, decide, is_unnamed, was_given);
        clear(&mut decisions, left);
        decisions
    } else {
        by_number(&mine, replicas, decide)
    };
    Decided {
        service,
        backend,
        fingerprint,
        decisions,
    }
}

/// Replicas have the numbers from 1 on: the numbers of processes say which of a range of ports they have.
fn by_number<'a>(
    mine: &[&'a Instance],
    replicas: u32,
    decide: impl Fn(u32, Vec<&'a Instance>) -> Decision<'a>,
) -> Vec<Decision<'a>> {
    let with_number = |number| {
        let mine = mine.iter().copied();
        mine.filter(|instance| instance.number == number).collect()
    };
    let too_many = |instance: &&&Instance| instance.number > replicas || instance.number == 0;
    (1..=replicas)
        .map(|number| decide(number, with_number(number)))
        .chain(
            mine.iter()
                .filter(too_many)
                .map(|instance| Decision::Drop(instance, Cause::ScaledDown)),
        )
        .collect()
}

/// Docker Compose counts containers and keeps whatever numbers they have: those that are out of date go
/// first, then the highest numbers; a new one gets the number after the highest, unless its own was given to it before.
fn by_count<'a>(
    mine: &[&'a Instance],
    replicas: u32,
    decide: impl Fn(u32, Vec<&'a Instance>) -> Decision<'a>,
    is_unnamed: impl Fn(&Instance) -> bool,
    was_given: impl Fn(u32) -> bool,
) -> Vec<Decision<'a>> {
    let mut all: Vec<(bool, &Instance, Decision<'a>)> = mine
        .iter()
        .map(|instance| {
            let decision = if is_unnamed(instance) {
                Decision::Create {
                    number: instance.number,
                    old: vec![instance],
                    cause: Cause::ConfigChanged,
                }
            } else {
                decide(instance.number, vec![instance])
            };
            let outdated = matches!(decision, Decision::Create { .. });
            (outdated, *instance, decision)
        })
        .collect();
    all.sort_by_key(|(outdated, instance, _)| (*outdated, instance.number));
    let keep = usize::try_from(replicas).unwrap_or(usize::MAX);
    let mut decisions = Vec::new();
    for (place, (_, instance, decision)) in all.into_iter().enumerate() {
        decisions.push(if place < keep {
            decision
        } else {
            Decision::Drop(instance, Cause::ScaledDown)
        });
    }
    let highest = mine.iter().map(|instance| instance.number).max();
    let there = u32::try_from(mine.len()).unwrap_or(u32::MAX);
    let missing = usize::try_from(replicas.saturating_sub(there)).unwrap_or(usize::MAX);
    let first = highest.unwrap_or(0).saturating_add(1);
    let is_taken = |number: u32| mine.iter().any(|instance| instance.number == number);
    let again = (1..first).filter(|number| was_given(*number) && !is_taken(*number));
    let numbers = again.chain(first..u32::MAX).take(missing);
    decisions.extend(numbers.map(|number| decide(number, Vec::new())));
    decisions
}

/// Whether a container still has the name under which it waited for another one's place: the tool that
/// made it was interrupted.
fn is_unnamed(project: &Project, service: &Service, instance: &Instance) -> bool {
    let name = service.instance_name(&project.name, instance.number);
    waits_for(&instance.name) == Some(&name)
}

/// Puts the ends of those that wait for a name into the decisions about those that have it.
fn clear<'a>(decisions: &mut Vec<Decision<'a>>, left: Vec<&'a Instance>) {
    for instance in left {
        let has_name = |old: &&Instance| waits_for(&instance.name) == Some(old.name.as_str());
        let replacement = decisions.iter_mut().find_map(|decision| {
            let Decision::Create { old, .. } = decision else {
                return None;
            };
            old.iter().any(has_name).then_some(old)
        });
        match replacement {
            Some(old) => old.push(instance),
            None => decisions.push(Decision::Drop(instance, Cause::Leftover)),
        }
    }
}

/// Whether what the service is made from is not known yet: a provider has still to tell.
fn awaits_provider(inputs: &Inputs<'_>, service: &Service) -> bool {
    service.depends_on.keys().any(|name| {
        let dependency = inputs.project.services.get(name);
        dependency.is_some_and(|dependency| dependency.provider.is_some())
            && !inputs.policy.provided.contains(name)
    })
}

/// What tells whether an instance is still what its service says.
struct MadeFrom<'a> {
    /// `None`: not known yet.
    fingerprint: Option<&'a Fingerprint>,
    /// A network or volume of the service that is made anew, and why.
    resource: Option<&'a str>,
}

fn decide_replica<'a>(
    inputs: &Inputs<'a>,
    service: &Service,
    backend: BackendKind,
    made_from: &MadeFrom<'_>,
    number: u32,
    old: Vec<&'a Instance>,
) -> Decision<'a> {
    let create = |old, cause| Decision::Create { number, old, cause };
    let [instance] = old.as_slice() else {
        let cause = if old.is_empty() {
            Cause::Missing
        } else {
            Cause::BackendChanged
        };
        return create(old, cause);
    };
    let instance = *instance;
    if instance.backend != backend {
        return create(old, Cause::BackendChanged);
    }
    match recreate(inputs, &service.name) {
        Recreate::Always(what) => return create(old, Cause::Requested(what)),
        Recreate::Diverged
            if made_from
                .fingerprint
                .is_some_and(|now| instance.fingerprint.as_ref() != Some(now)) =>
        {
            return create(old, Cause::ConfigChanged);
        }
        Recreate::Diverged if image_changed(inputs, service, instance) => {
            return create(old, Cause::ImageChanged);
        }
        Recreate::Diverged if backend == BackendKind::Container => {
            if let Some(what) = made_from.resource {
                return create(old, Cause::NeededBy(what.to_owned()));
            }
            if let Some(network) = missing_network(inputs, service, instance) {
                let what = format!("network {network}, which it is not in");
                return create(old, Cause::NeededBy(what));
            }
            if let Some(volume) = missing_volume(inputs, service, instance) {
                let what = format!("volume {volume}, which it does not have");
                return create(old, Cause::NeededBy(what));
            }
            if let Some(name) = sharing::lost_home(inputs, service, instance) {
                let what = format!("{name}, whose network it is not in any more");
                return create(old, Cause::NeededBy(what));
            }
        }
        Recreate::Diverged | Recreate::Never => {}
    }
    match instance.status {
        // Alive for another moment: what is left of it ends first.
        Status::Running | Status::Paused if instance.ending => {
            Decision::Restart(instance, Cause::Ending)
        }
        Status::Running | Status::Restarting => Decision::Keep(instance),
        Status::Created | Status::Exited { .. } => Decision::Start(instance),
        Status::Paused => Decision::Unpause(instance),
        Status::Removing | Status::Dead => create(old, Cause::NotRunning),
    }
}

/// When a service is made anew: what was asked for holds for the services that were named, and never for
/// what they depend on unless that was asked for, too.
fn recreate(inputs: &Inputs<'_>, service: &str) -> Recreate {
    let policy = inputs.policy;
    if policy.renewed.contains(service) && policy.recreate != Recreate::Never {
        return Recreate::Diverged;
    }
    if policy.named.is_empty() || policy.named.contains(service) {
        return policy.recreate;
    }
    match policy.recreate {
        Recreate::Never => Recreate::Never,
        Recreate::Diverged | Recreate::Always(_) if policy.recreate_dependencies => {
            Recreate::Always("--always-recreate-deps")
        }
        Recreate::Diverged | Recreate::Always(_) => Recreate::Diverged,
    }
}

/// A network that the container should be in and is not; also one that is about to be made, because the
/// container knows the one that is gone.
fn missing_network(inputs: &Inputs<'_>, service: &Service, instance: &Instance) -> Option<String> {
    let mut networks = service
        .networks
        .keys()
        .filter_map(|key| inputs.project.networks.get(key));
    networks
        .find(|network| {
            let gone = !inputs.observed.networks.contains(&network.name);
            let left =
                instance.status == Status::Running && !instance.networks.contains(&network.name);
            gone || left
        })
        .map(|network| network.name.clone())
}

/// A volume that the container should have and has not: its name changed.
fn missing_volume(inputs: &Inputs<'_>, service: &Service, instance: &Instance) -> Option<String> {
    let mut volumes = named_volumes(service).filter_map(|key| inputs.project.volumes.get(key));
    volumes
        .find(|volume| !instance.volumes.contains(&volume.name))
        .map(|volume| volume.name.clone())
}

fn image_changed(inputs: &Inputs<'_>, service: &Service, instance: &Instance) -> bool {
    let made_from = instance.labels.get(IMAGE_LABEL);
    let current = inputs
        .observed
        .images
        .get(&service.image_name(&inputs.project.name));
    instance.backend == BackendKind::Container
        && matches!((made_from, current), (Some(made), Some(now)) if made != now)
}

/// What an instance is made from. For a container it is Compose's hash; a process adds its own form.
pub fn fingerprint(service: &Service, backend: BackendKind) -> Fingerprint {
    if backend == BackendKind::Container {
        return Fingerprint(service.config_hash.clone());
    }
    let argv = service.entrypoint.iter().chain(&service.command).flatten();
    let variables = service
        .environment
        .iter()
        .flat_map(|(name, value)| [name, value]);
    let form = format!("{:?} {:?}", service.healthcheck, service.restart);
    let asked = service.wharf.process.as_ref().and_then(|form| form.names);
    let names = asked.map(|way| format!("{way:?}"));
    let mut parts: Vec<&str> = vec![&service.config_hash];
    parts.extend(argv.chain(variables).map(String::as_str));
    parts.extend([
        service.working_dir.as_deref().unwrap_or_default(),
        service.user.as_deref().unwrap_or_default(),
        service.stop_signal.as_deref().unwrap_or_default(),
        &form,
    ]);
    parts.extend(names.as_deref());
    digest(parts)
}

/// What stands for all these parts.
pub(super) fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        // It cannot stand in an argument or a variable, so it keeps the parts apart.
        hash.update([0]);
    }
    let mut hex = String::new();
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _: std::fmt::Result = write!(hex, "{byte:02x}");
    }
    Fingerprint(hex)
}
