//! Which backend runs a service: the rules of docs/architecture.md ("Which backend runs a service"), as a pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::project::model::{Project, Service};
use crate::state::BackendKind;

/// `--local` or `--container` as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// Not given.
    #[default]
    Nobody,
    /// Given without a value: every service that can.
    Everybody,
    /// These.
    Named(BTreeSet<String>),
}

impl Selection {
    /// The values of an option: names, or `*` for everybody.
    pub fn of(names: &[String]) -> Self {
        if names.is_empty() {
            Self::Nobody
        } else if names.iter().any(|name| name == "*") {
            Self::Everybody
        } else {
            Self::Named(names.iter().cloned().collect())
        }
    }

    fn names(&self, service: &str) -> bool {
        matches!(self, Self::Named(names) if names.contains(service))
    }
}

/// What the command line says about backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `--local`
    pub local: Selection,
    /// `--container`
    pub container: Selection,
    /// What an earlier command line said, by service; of no account where the service has not that form.
    pub remembered: BTreeMap<String, BackendKind>,
}

impl Wishes {
    /// What is to be remembered after these wishes were carried out: what was chosen, where the compose file
    /// would have it otherwise. Services that do not take part now keep what was chosen for them.
    pub fn choices(&self, project: &Project) -> BTreeMap<String, BackendKind> {
        let mut choices = self.remembered.clone();
        choices.retain(|name, _| {
            project.services.contains_key(name) || project.disabled.contains(name)
        });
        for (name, service) in &project.services {
            let chosen = place_one(service, self);
            let written = place_one(service, &Self::default());
            match (chosen, written) {
                (Ok(chosen), Ok(written)) if chosen != written => {
                    choices.insert(name.clone(), chosen);
                }
                _ => drop(choices.remove(name)),
            }
        }
        choices
    }
}

impl Wishes {
    /// The values of `--local` and `--container`.
    pub fn of(local: &[String], container: &[String]) -> Self {
        Self {
            local: Selection::of(local),
            container: Selection::of(container),
            ..Self::default()
        }
    }
}

/// The backend of every service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement(BTreeMap<String, BackendKind>);

impl Placement {
    /// The backend of a service; container for services it does not know (orphans).
    pub fn of(&self, service: &str) -> BackendKind {
        self.0
            .get(service)
            .copied()
            .unwrap_or(BackendKind::Container)
    }

    /// The services that run in a backend.
    pub fn services(&self, backend: BackendKind) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(_, placed)| **placed == backend)
            .map(|(name, _)| name.as_str())
    }

    /// Whether any service needs the engine.
    pub fn needs_engine(&self) -> bool {
        self.services(BackendKind::Container).next().is_some()
    }
}

/// Why a service has no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Asked for locally, and cannot.
    #[error("service `{0}` has no process form")]
    NoProcessForm(String),
    /// Asked for as a container, and cannot.
    #[error("service `{0}` has neither `image` nor `build`, so it cannot run as a container")]
    NoContainerForm(String),
    /// Named by both options.
    #[error("service `{0}` is named by both --local and --container")]
    Both(String),
    /// Asked for locally or as a container, and neither: another program provides it.
    #[error(
        "service `{name}` comes from its provider `{kind}`, so neither --local nor --container can place it"
    )]
    Provided {
        /// The service.
        name: String,
        /// `provider.type`
        kind: String,
    },
    /// Not in the project.
    #[error("no such service: {0}")]
    Unknown(String),
    /// No engine, and these cannot do without: they have no process form, or were asked for by
    /// `--container`.
    #[error("no engine answers, and {} one", subjects(.services))]
    NeedEngine {
        /// The services.
        services: Vec<String>,
        /// Whether all of them have a process form.
        could_be_local: bool,
    },
}

fn subjects(names: &[String]) -> String {
    let list = names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() == 1 {
        format!("service {list} needs")
    } else {
        format!("services {list} need")
    }
}

/// Places every service as asked, assuming that an engine answers.
///
/// # Errors
/// A wish that names an unknown service or one without the form asked for.
pub fn place(project: &Project, wishes: &Wishes) -> Result<Placement, PlacementError> {
    for selection in [&wishes.local, &wishes.container] {
        if let Selection::Named(names) = selection {
            for name in names {
                if !project.services.contains_key(name) && !project.disabled.contains(name) {
                    return Err(PlacementError::Unknown(name.clone()));
                }
                let service = project.services.get(name);
                if let Some(provider) = service.and_then(|service| service.provider.as_ref()) {
                    return Err(PlacementError::Provided {
                        name: name.clone(),
                        kind: provider.kind.clone(),
                    });
                }
            }
        }
    }
    let mut placed = BTreeMap::new();
    let own = |(_, service): &(&String, &Arc<Service>)| service.provider.is_none();
    for (name, service) in project.services.iter().filter(own) {
        placed.insert(name.clone(), place_one(service, wishes)?);
    }
    Ok(Placement(placed))
}

fn place_one(service: &Service, wishes: &Wishes) -> Result<BackendKind, PlacementError> {
    let name = &service.name;
    let (local, container) = (service.has_process_form(), service.has_container_form());
    match (wishes.local.names(name), wishes.container.names(name)) {
        (true, true) => return Err(PlacementError::Both(name.clone())),
        (true, false) if local => return Ok(BackendKind::Process),
        (true, false) => return Err(PlacementError::NoProcessForm(name.clone())),
        (false, true) if container => return Ok(BackendKind::Container),
        (false, true) => return Err(PlacementError::NoContainerForm(name.clone())),
        (false, false) => {}
    }
    if wishes.local == Selection::Everybody && local {
        return Ok(BackendKind::Process);
    }
    if wishes.container == Selection::Everybody && container {
        return Ok(BackendKind::Container);
    }
    match wishes.remembered.get(name) {
        Some(BackendKind::Process) if local => return Ok(BackendKind::Process),
        Some(BackendKind::Container) if container => return Ok(BackendKind::Container),
        _ => {}
    }
    Ok(match service.wharf.backend {
        Some(BackendKind::Process) if local => BackendKind::Process,
        Some(BackendKind::Container) if container => BackendKind::Container,
        _ if container || !local => BackendKind::Container,
        _ => BackendKind::Process,
    })
}

/// Places every service as a process because no engine answers.
///
/// # Errors
/// Names the services that cannot do without: no process form, or asked for by `--container`.
pub fn place_without_engine(
    project: &Project,
    wishes: &Wishes,
) -> Result<Placement, PlacementError> {
    let wished = place(project, wishes)?;
    let asked =
        |name: &str| wishes.container.names(name) || wishes.container == Selection::Everybody;
    let stuck: Vec<&Service> = project
        .services
        .values()
        .filter(|service| wished.0.get(&service.name) == Some(&BackendKind::Container))
        .filter(|service| !service.has_process_form() || asked(&service.name))
        .map(AsRef::as_ref)
        .collect();
    if stuck.is_empty() {
        let all = wished.0.into_keys();
        return Ok(Placement(
            all.map(|name| (name, BackendKind::Process)).collect(),
        ));
    }
    Err(PlacementError::NeedEngine {
        services: stuck.iter().map(|service| service.name.clone()).collect(),
        could_be_local: stuck.iter().all(|service| service.has_process_form()),
    })
}

/// The service as it runs in a backend: for a process, `x-wharf.process` put on top.
pub fn in_form(service: &Arc<Service>, backend: BackendKind) -> Arc<Service> {
    let (BackendKind::Process, Some(form)) = (backend, &service.wharf.process) else {
        return Arc::clone(service);
    };
    let mut local = Service::clone(service);
    if let Some(command) = &form.command {
        local.command = Some(command.clone());
        local.entrypoint = None;
    }
    // A path inside an image means nothing here; without an image it can only be meant for here.
    if service.has_container_form() || form.working_dir.is_some() {
        local.wharf.working_dir_of_image = local
            .working_dir
            .take()
            .filter(|_| form.working_dir.is_none());
        local.working_dir = form
            .working_dir
            .as_ref()
            .map(|dir| dir.to_string_lossy().into_owned());
    }
    for (name, value) in &form.environment {
        match value {
            Some(value) => drop(local.environment.insert(name.clone(), value.clone())),
            None => drop(local.environment.remove(name)),
        }
    }
    if form.user.is_some() {
        local.user.clone_from(&form.user);
    }
    if form.healthcheck.is_some() {
        local.healthcheck.clone_from(&form.healthcheck);
    }
    Arc::new(local)
}
