//! Routes each step to the backend it names, and is itself a backend. Steps about ports are done here,
//! because a holder may live in either world.

use crate::backend::container::Containers;
use crate::backend::freeing::{Freeing, blocking};
use crate::backend::process::Processes;
use crate::backend::process::terminal::resize;
use crate::backend::provider::Providers;
use crate::backend::streams::{Program, Size};
use crate::backend::{Backend, BackendError, LogOptions, Made};
use crate::event::{Event, Events};
use crate::plan::step::{Action, Cause, Step, StepId, Target, Which};
use crate::port::claim::{Claim, Protocol};
use crate::port::{PortError, release};
use crate::state::{BackendKind, Instance, InstanceId, Readiness};

/// All backends. Making one costs nothing; the engine is reached only when something needs it.
#[derive(Debug)]
pub struct Backends {
    /// Containers.
    pub containers: Containers,
    /// Processes.
    pub processes: Processes,
    /// Programs that provide services.
    pub providers: Providers,
}

impl Backend for Backends {
    async fn observe(&self, project: &str) -> Result<Vec<Instance>, BackendError> {
        let mut instances = self.processes.observe(project).await?;
        instances.extend(self.containers.observe(project).await?);
        Ok(instances)
    }

    async fn perform(
        &self,
        step: &Step,
        made: &Made,
        events: &Events,
    ) -> Result<Option<InstanceId>, BackendError> {
        match &step.action {
            Action::FreePort {
                project,
                claim,
                holders,
                grace,
            } => {
                let freeing = Freeing {
                    project: Some(project.clone()),
                    claim: claim.clone(),
                    holders: holders.clone(),
                    grace: *grace,
                    signal: None,
                    answer: step.cause.to_string(),
                    // The instance takes it, and is watched until it has.
                    left_free: false,
                };
                Box::pin(self.free(&freeing, events)).await?;
                return Ok(None);
            }
            Action::MovePort { claim, to, exposed } => {
                let moved = Claim {
                    port: *to,
                    ..claim.clone()
                };
                if release::is_free(&moved)? {
                    let (service, port) = (&claim.service, claim.port);
                    // Whether a program looks at the variable is its own matter.
                    let said = if *exposed {
                        format!(
                            "service `{service}` is told to listen on port {to} instead of {port} (PORT_{port})"
                        )
                    } else {
                        format!("service `{service}` is published on port {to} instead of {port}")
                    };
                    events.send(Event::Note(said));
                    return Ok(None);
                }
                return Err(PortError::TakenAgain {
                    again: false,
                    claim: moved,
                    who: "somebody who was faster".to_owned(),
                    hint: Some("run the same command again".to_owned()),
                }
                .into());
            }
            Action::Provide {
                service,
                project,
                what,
            } => {
                let providers = &self.providers;
                let provided = providers.perform(service, project, *what, events);
                let variables = Box::pin(provided).await?;
                made.tell(step.id, variables);
                return Ok(None);
            }
            Action::AwaitReachable { project, service } => {
                let services = std::slice::from_ref(service);
                Box::pin(self.await_reachable(project, services)).await?;
                return Ok(None);
            }
            Action::Build { .. }
            | Action::Pull { .. }
            | Action::LoadRelay { .. }
            | Action::PrepareRelay { .. }
            | Action::CreateNetwork { .. }
            | Action::UniteNetwork { .. }
            | Action::CreateVolume { .. }
            | Action::Create(_)
            | Action::WriteStores { .. }
            | Action::PreStart { .. }
            | Action::Start { .. }
            | Action::AwaitReady { .. }
            | Action::AwaitListening { .. }
            | Action::AwaitHealthy { .. }
            | Action::AwaitCompleted { .. }
            | Action::Stop { .. }
            | Action::Kill { .. }
            | Action::Pause { .. }
            | Action::Unpause { .. }
            | Action::Remove { .. }
            | Action::RemoveNetwork { .. }
            | Action::RemoveVolume { .. }
            | Action::RemoveImage { .. } => {}
        }
        if let Some(project) = leaves_traces(&step.action) {
            self.processes.leave_traces(project)?;
        }
        // All steps have one size, and are moved about before they begin: what is done is elsewhere.
        let done = match backend_of(&step.action) {
            BackendKind::Container => {
                let note = self.note(&step.action, made);
                let done = Box::pin(self.containers.perform(step, made, events)).await;
                if !matches!(done, Err(BackendError::EngineUnreachable { .. })) {
                    note.answered();
                }
                done
            }
            BackendKind::Process => Box::pin(self.processes.perform(step, made, events)).await,
        };
        match (done, &step.action) {
            (
                Err(error),
                Action::AwaitReady {
                    readiness,
                    instance,
                },
            ) => Err(Box::pin(explained(error, readiness, instance)).await),
            (Err(error), Action::Start { .. }) => Err(Box::pin(self.with_holder(error)).await),
            (done, _) => done,
        }
    }

    async fn follow(
        &self,
        instances: &[Instance],
        options: &LogOptions,
        events: &Events,
    ) -> Result<(), BackendError> {
        let of = |backend| -> Vec<Instance> {
            instances
                .iter()
                .filter(|instance| instance.backend == backend)
                .cloned()
                .collect()
        };
        let (containers, processes) = (of(BackendKind::Container), of(BackendKind::Process));
        let both = futures_util::future::join(
            async {
                if containers.is_empty() {
                    Ok(())
                } else {
                    self.containers.follow(&containers, options, events).await
                }
            },
            async {
                if processes.is_empty() {
                    Ok(())
                } else {
                    self.processes.follow(&processes, options, events).await
                }
            },
        );
        let (containers, processes) = both.await;
        containers.and(processes)
    }
}

impl Backends {
    /// Tells a program's terminal its size.
    ///
    /// # Errors
    /// The engine's or the terminal's refusal.
    pub async fn resize(&self, program: &Program, size: Size) -> Result<(), BackendError> {
        match program {
            Program::Pty(terminal) => {
                resize(terminal, size).map_err(|source| BackendError::State {
                    action: "cannot resize a terminal".to_owned(),
                    source,
                })
            }
            Program::Main(_) | Program::Exec(_) => self.containers.resize(program, size).await,
        }
    }

    /// Performs one action outside any plan, for a command that does only this.
    ///
    /// # Errors
    /// As [`Backend::perform`].
    pub async fn perform_alone(
        &self,
        action: Action,
        made: &Made,
    ) -> Result<Option<InstanceId>, BackendError> {
        let (events, _nobody) = Events::channel();
        let step = Step {
            id: StepId(0),
            action,
            cause: Cause::Requested("run"),
            needs: Vec::new(),
        };
        self.perform(&step, made, &events).await
    }

    /// The relays and the forwarder of a project. The engine is only asked where there may be relays.
    ///
    /// # Errors
    /// As [`Backend::observe`].
    pub async fn own(&self, project: &str) -> Result<Vec<Instance>, BackendError> {
        let mut own = self.processes.everything(project).await?;
        own.retain(|instance| instance.role().is_some());
        if self.processes.has_relays(project)? && self.containers.reachable().await.is_ok() {
            let containers = self.containers.outlines(project).await?;
            own.extend(
                containers
                    .into_iter()
                    .filter(|instance| instance.role().is_some()),
            );
        }
        Ok(own)
    }

    /// The instance that a target names, after the steps so far.
    pub fn resolve(target: &Target, made: &Made) -> Option<InstanceId> {
        match &target.which {
            Which::Existing(id) => Some(id.clone()),
            Which::MadeBy(step) => made.get(*step),
        }
    }

    /// The instance that a `Start` step started, as the backends know it now.
    pub async fn started(
        &self,
        target: &Target,
        start: StepId,
        made: &Made,
    ) -> Result<Option<Instance>, BackendError> {
        let instances = match target.backend {
            BackendKind::Container => self.containers.observe(&target.project).await?,
            BackendKind::Process => self.processes.observe(&target.project).await?,
        };
        let id = made.get(start).or_else(|| Self::resolve(target, made));
        Ok(instances.into_iter().find(|instance| {
            id.as_ref() == Some(&instance.id) || (id.is_none() && instance.name == target.name)
        }))
    }
}

impl Backends {
    /// Says who has the port, where an engine could not have it.
    async fn with_holder(&self, error: BackendError) -> BackendError {
        let BackendError::PortTaken {
            name,
            address: Some(address),
            source,
        } = error
        else {
            return error;
        };
        let source = match self.who_has(address).await {
            Some(who) => format!("it is held by {who}; the engine says: {source}").into(),
            None => source,
        };
        BackendError::PortTaken {
            name,
            address: Some(address),
            source,
        }
    }
}

/// Says who has the port, where an instance ended because it could not have it.
async fn explained(error: BackendError, readiness: &Readiness, instance: &Target) -> BackendError {
    let BackendError::ExitedEarly {
        name,
        code,
        last_lines,
    } = error
    else {
        return error;
    };
    let address = readiness.address;
    let claim = Claim {
        service: instance.service.clone(),
        number: 1,
        addresses: vec![address.ip()],
        port: address.port(),
        protocol: Protocol::Tcp,
    };
    match blocking(move || release::taken_again(&claim, &[])).await {
        Ok(Some(thief)) => BackendError::PortLost {
            name,
            code,
            source: Box::new(thief),
            last_lines,
        },
        // Whoever it was is gone, or the end had another reason.
        Ok(None) | Err(_) => BackendError::ExitedEarly {
            name,
            code,
            last_lines,
        },
    }
}

/// The project of which an action makes something in an engine.
fn leaves_traces(action: &Action) -> Option<&str> {
    if let Action::Create(spec) = action {
        let is_container = spec.backend == BackendKind::Container;
        return is_container.then_some(spec.project.name.as_str());
    }
    if let Action::CreateNetwork { project, .. } | Action::CreateVolume { project, .. } = action {
        return Some(project.name.as_str());
    }
    None
}

/// The backend that performs an action that is not about ports.
fn backend_of(action: &Action) -> BackendKind {
    match action {
        Action::Create(spec) => spec.backend,
        Action::Start { instance }
        | Action::WriteStores { instance, .. }
        | Action::PreStart { instance, .. }
        | Action::AwaitReady { instance, .. }
        | Action::AwaitListening { instance, .. }
        | Action::AwaitHealthy { instance }
        | Action::AwaitCompleted { instance }
        | Action::Stop { instance, .. }
        | Action::Kill { instance, .. }
        | Action::Pause { instance }
        | Action::Unpause { instance }
        | Action::Remove { instance, .. } => instance.backend,
        Action::Build { .. }
        | Action::Pull { .. }
        | Action::Provide { .. }
        | Action::LoadRelay { .. }
        | Action::CreateNetwork { .. }
        | Action::UniteNetwork { .. }
        | Action::CreateVolume { .. }
        | Action::RemoveNetwork { .. }
        | Action::RemoveVolume { .. }
        | Action::RemoveImage { .. }
        | Action::FreePort { .. }
        | Action::MovePort { .. } => BackendKind::Container,
        Action::PrepareRelay { .. } | Action::AwaitReachable { .. } => BackendKind::Process,
    }
}
