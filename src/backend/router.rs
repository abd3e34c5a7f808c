//! Routes each step to the backend it names, and is itself a backend. Steps about ports are done here,
//! because a holder may live in either world.

use std::time::Duration;

use crate::backend::container::Containers;
use crate::backend::process::Processes;
use crate::backend::process::terminal::resize;
use crate::backend::streams::{Program, Size};
use crate::backend::{Backend, BackendError, LogOptions, Made};
use crate::event::{Event, Events};
use crate::plan::step::{Action, Cause, Step, StepId, Target, Which};
use crate::port::claim::{Claim, Protocol};
use crate::port::holder::{Holder, Who};
use crate::port::{PortError, release};
use crate::state::{BackendKind, Instance, InstanceId, Readiness};

/// How long the port itself may take to become free after its holders ended.
const SETTLE: Duration = Duration::from_secs(5);

/// All backends. Making one costs nothing; the engine is reached only when something needs it.
#[derive(Debug)]
pub struct Backends {
    /// Containers.
    pub containers: Containers,
    /// Processes.
    pub processes: Processes,
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
                claim,
                holders,
                grace,
            } => {
                self.free(claim, holders, *grace, events).await?;
                return Ok(None);
            }
            Action::MovePort { claim, to } => {
                let moved = Claim {
                    port: *to,
                    ..claim.clone()
                };
                if release::is_free(&moved)? {
                    events.send(Event::Note(format!(
                        "service `{}` is published on port {to} instead of {}",
                        claim.service, claim.port
                    )));
                    return Ok(None);
                }
                return Err(PortError::TakenAgain {
                    claim: moved,
                    who: "somebody who was faster".to_owned(),
                    hint: Some("run the same command again".to_owned()),
                }
                .into());
            }
            Action::Build { .. }
            | Action::Pull { .. }
            | Action::CreateNetwork { .. }
            | Action::CreateVolume { .. }
            | Action::Create(_)
            | Action::Start { .. }
            | Action::AwaitReady { .. }
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
        let done = match backend_of(&step.action) {
            BackendKind::Container => self.containers.perform(step, made, events).await,
            BackendKind::Process => self.processes.perform(step, made, events).await,
        };
        match (done, &step.action) {
            (
                Err(error),
                Action::AwaitReady {
                    readiness,
                    instance,
                },
            ) => Err(explained(error, readiness, instance).await),
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

    async fn free(
        &self,
        claim: &Claim,
        holders: &[Holder],
        grace: Duration,
        events: &Events,
    ) -> Result<(), BackendError> {
        for holder in holders {
            let said = self.release(claim, holder, grace).await?;
            events.send(Event::Note(said));
        }
        let (claim, holders) = (claim.clone(), holders.to_vec());
        blocking(move || release::await_free(&claim, &holders, SETTLE)).await
    }

    async fn release(
        &self,
        claim: &Claim,
        holder: &Holder,
        grace: Duration,
    ) -> Result<String, BackendError> {
        match &holder.who {
            Who::Container(facts) => {
                self.containers.stop_foreign(&facts.id, None).await?;
                let project = facts
                    .project
                    .as_ref()
                    .map(|project| {
                        format!(
                            " of project {project}; `docker start {}` brings it back",
                            facts.name
                        )
                    })
                    .unwrap_or_default();
                Ok(format!("stopped container {}{project}", facts.name))
            }
            Who::Unit { name, .. } => {
                let holder = holder.clone();
                blocking(move || release::stop_unit(&holder)).await?;
                Ok(format!(
                    "stopped {name}; `systemctl start {name}` brings it back"
                ))
            }
            Who::Process(facts) => {
                if let Some(run) = &facts.run_id
                    && let Some(instance) = self.processes.find_run(run).await
                {
                    let (project, name) = (&instance.project, &instance.name);
                    self.processes.stop(project, name, Some(grace)).await?;
                    return Ok(format!(
                        "stopped {name} of project {project}, a service of wharf's"
                    ));
                }
                let (claim, holder) = (claim.clone(), holder.clone());
                let stopped =
                    blocking(move || release::stop_process(&holder, &claim, grace)).await?;
                let how = match (stopped.pids.is_empty(), stopped.killed) {
                    (true, _) => "gone by itself:",
                    (false, true) => "killed (it ignored SIGTERM)",
                    (false, false) => "stopped",
                };
                Ok(format!("{how} {}", stopped.who))
            }
            Who::Unknown { .. } | Who::Kernel => Err(PortError::NotPermitted {
                who: holder.describe(),
                command: release::how_released(holder),
            }
            .into()),
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, BackendError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(panic) => Err(BackendError::State {
            action: "a worker thread failed".to_owned(),
            source: std::io::Error::other(panic),
        }),
    }
}

/// The backend that performs an action that is not about ports.
fn backend_of(action: &Action) -> BackendKind {
    match action {
        Action::Create(spec) => spec.backend,
        Action::Start { instance }
        | Action::AwaitReady { instance, .. }
        | Action::AwaitHealthy { instance }
        | Action::AwaitCompleted { instance }
        | Action::Stop { instance, .. }
        | Action::Kill { instance, .. }
        | Action::Pause { instance }
        | Action::Unpause { instance }
        | Action::Remove { instance, .. } => instance.backend,
        Action::Build { .. }
        | Action::Pull { .. }
        | Action::CreateNetwork { .. }
        | Action::CreateVolume { .. }
        | Action::RemoveNetwork { .. }
        | Action::RemoveVolume { .. }
        | Action::RemoveImage { .. }
        | Action::FreePort { .. }
        | Action::MovePort { .. } => BackendKind::Container,
    }
}
