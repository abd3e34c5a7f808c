//! The first pass: what becomes of every instance, and which instances are missing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::plan::Inputs;
use crate::plan::placement::in_form;
use crate::plan::policy::Recreate;
use crate::plan::step::Cause;
use crate::project::model::Service;
use crate::state::{BackendKind, Fingerprint, Instance, Status};

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
    let mut all: BTreeMap<String, Decided<'a>> = inputs
        .project
        .services
        .iter()
        .map(|(name, service)| (name.clone(), decide_service(inputs, service)))
        .collect();
    restart_dependents(&mut all);
    all
}

fn decide_service<'a>(inputs: &Inputs<'a>, service: &Arc<Service>) -> Decided<'a> {
    let backend = inputs.placement.of(&service.name);
    let service = in_form(service, backend);
    let fingerprint = fingerprint(&service, backend);
    let scale = inputs.policy.scale.get(&service.name).copied();
    let replicas = scale.or(service.scale).unwrap_or(1);
    let mine: Vec<&Instance> = inputs
        .observed
        .instances
        .iter()
        .filter(|instance| instance.service == service.name && !instance.one_off)
        .collect();
    let mut decisions = Vec::new();
    for number in 1..=replicas {
        let old: Vec<&Instance> = mine
            .iter()
            .copied()
            .filter(|instance| instance.number == number)
            .collect();
        decisions.push(decide_replica(
            inputs,
            &service,
            backend,
            &fingerprint,
            number,
            old,
        ));
    }
    for instance in mine {
        if instance.number > replicas || instance.number == 0 {
            decisions.push(Decision::Drop(instance, Cause::ScaledDown));
        }
    }
    Decided {
        service,
        backend,
        fingerprint,
        decisions,
    }
}

fn decide_replica<'a>(
    inputs: &Inputs<'a>,
    service: &Service,
    backend: BackendKind,
    fingerprint: &Fingerprint,
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
    match inputs.policy.recreate {
        Recreate::Always(what) => return create(old, Cause::Requested(what)),
        Recreate::Diverged if instance.fingerprint.as_ref() != Some(fingerprint) => {
            return create(old, Cause::ConfigChanged);
        }
        Recreate::Diverged if image_changed(inputs, service, instance) => {
            return create(old, Cause::ImageChanged);
        }
        Recreate::Diverged | Recreate::Never => {}
    }
    match instance.status {
        Status::Running | Status::Restarting => Decision::Keep(instance),
        Status::Created | Status::Exited { .. } => Decision::Start(instance),
        Status::Paused => Decision::Unpause(instance),
        Status::Removing | Status::Dead => create(old, Cause::NotRunning),
    }
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

/// `depends_on.*.restart: true`: who depends on something renewed runs anew.
fn restart_dependents(all: &mut BTreeMap<String, Decided<'_>>) {
    loop {
        let renewed: Vec<String> = all
            .iter()
            .filter(|(_, decided)| decided.renews())
            .map(|(name, _)| name.clone())
            .collect();
        let mut changed = false;
        for decided in all.values_mut() {
            let cause = decided
                .service
                .depends_on
                .iter()
                .find(|(name, dependency)| dependency.restart && renewed.contains(name))
                .map(|(name, _)| Cause::NeededBy(format!("{name} runs anew")));
            let Some(cause) = cause else { continue };
            for decision in &mut decided.decisions {
                if let Decision::Keep(instance) | Decision::Unpause(instance) = decision {
                    *decision = Decision::Restart(instance, cause.clone());
                    changed = true;
                }
            }
        }
        if !changed {
            return;
        }
    }
}

/// What an instance is made from. For a container it is Compose's hash; a process adds its own form.
pub fn fingerprint(service: &Service, backend: BackendKind) -> Fingerprint {
    if backend == BackendKind::Container {
        return Fingerprint(service.config_hash.clone());
    }
    let mut hash = Sha256::new();
    // A separator that cannot stand in an argument or a variable keeps the parts apart.
    let mut add = |part: &str| {
        hash.update(part);
        hash.update([0]);
    };
    add(&service.config_hash);
    for part in service.entrypoint.iter().chain(&service.command).flatten() {
        add(part);
    }
    for (name, value) in &service.environment {
        add(name);
        add(value);
    }
    add(service.working_dir.as_deref().unwrap_or_default());
    add(service.user.as_deref().unwrap_or_default());
    add(service.stop_signal.as_deref().unwrap_or_default());
    add(&format!("{:?} {:?}", service.healthcheck, service.restart));
    let mut hex = String::new();
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _: std::fmt::Result = write!(hex, "{byte:02x}");
    }
    Fingerprint(hex)
}
