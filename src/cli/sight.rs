//! What a command sees of a project, and how far it goes where the engine does not answer: what was asked for of local
//! services is done, and what becomes of the rest is said.

use std::collections::BTreeSet;

use crate::backend::Backend as _;
use crate::backend::router::Backends;
use crate::cli::context::{Engine, Named};
use crate::error::{Error, Kind, Result};
use crate::state::Instance;
use crate::ui::Ui;

/// What can be seen of what was asked for.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) instances: Vec<Instance>,
    rest: Rest,
}

/// What is out of sight.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Whether the engine may have something and answers.
    pub(super) in_engine: bool,
    /// Services that may have containers which cannot be seen.
    hidden: BTreeSet<String>,
    /// Why the command fails when it has done the rest: some of them were asked for.
    error: Option<Error>,
    /// Why nobody knows what else the project has there, where something was made there once.
    unseen: Option<Error>,
}

impl Rest {
    /// Whether nobody knows what a service has.
    pub(super) fn hides(&self, service: &str) -> bool {
        self.hidden.contains(service)
    }

    /// Whether an engine that may have something was asked and does not answer.
    pub(super) fn is_away(&self) -> bool {
        !self.hidden.is_empty() || self.unseen.is_some()
    }

    /// The end of a command that has done what it could.
    ///
    /// # Errors
    /// The engine does not answer, and something was asked for that it may have.
    pub(super) fn done(self) -> Result<()> {
        self.error.map_or(Ok(()), Err)
    }

    /// The same for a command that is about all that the project has, also networks and volumes.
    ///
    /// # Errors
    /// The engine does not answer, and may have something.
    pub(super) fn done_with_all(self) -> Result<()> {
        self.error.or(self.unseen).map_or(Ok(()), Err)
    }
}

impl Sight {
    /// The instances, and what is out of sight.
    pub(super) fn parts(self) -> (Vec<Instance>, Rest) {
        (self.instances, self.rest)
    }
}

impl Named {
    /// Every observed instance, from the engine too where it may have some.
    pub(super) async fn instances(&self, ui: Ui, backends: &Backends) -> Result<Vec<Instance>> {
        let processes = self.processes(ui, backends).await?;
        let in_engine = self.in_engine(ui, backends, !processes.is_empty()).await?;
        self.with_containers(backends, processes, in_engine).await
    }

    async fn processes(&self, ui: Ui, backends: &Backends) -> Result<Vec<Instance>> {
        if let Some(project) = self.project() {
            backends.containers.declare(project);
        }
        let instances = backends.processes.observe(self.name()).await?;
        ui.warn_all(backends.processes.take_notes());
        Ok(instances)
    }

    async fn with_containers(
        &self,
        backends: &Backends,
        mut instances: Vec<Instance>,
        in_engine: bool,
    ) -> Result<Vec<Instance>> {
        if in_engine {
            let mut containers = backends.containers.observe(self.name()).await?;
            backends.mark_ending(self.name(), &mut containers).await;
            instances.extend(containers);
        }
        Ok(instances)
    }

    /// As [`Named::instances`], for a command that is about these services (none: all).
    ///
    /// # Errors
    /// The engine does not answer, and nothing that was asked for runs as a process.
    pub(super) async fn sight(
        &self,
        ui: Ui,
        backends: &Backends,
        services: &[String],
    ) -> Result<Sight> {
        let processes = self.processes(ui, backends).await?;
        let rest = self.rest(ui, backends, services, &processes).await?;
        let instances = self
            .with_containers(backends, processes, rest.in_engine)
            .await?;
        Ok(Sight { instances, rest })
    }

    /// As [`Named::sight`], with what runs before its services do: for commands that end things.
    ///
    /// # Errors
    /// As [`Named::sight`].
    pub(super) async fn sight_of_all(
        &self,
        ui: Ui,
        backends: &Backends,
        services: &[String],
    ) -> Result<Sight> {
        let mut sight = self.sight(ui, backends, services).await?;
        if sight.rest.in_engine {
            let preparing = backends.containers.preparing(self.name()).await?;
            sight.instances.extend(preparing);
        }
        Ok(sight)
    }

    /// What these processes leave out of sight.
    ///
    /// # Errors
    /// As [`Named::sight`].
    pub(super) async fn rest(
        &self,
        ui: Ui,
        backends: &Backends,
        services: &[String],
        processes: &[Instance],
    ) -> Result<Rest> {
        let mut error = match self.engine(ui, backends, !processes.is_empty()).await {
            Engine::Answers => {
                return Ok(Rest {
                    in_engine: true,
                    ..Rest::default()
                });
            }
            // Where services can be processes, too, there are containers only if some were made once.
            Engine::Away(error)
                if self.needs_engine()
                    || self.project().is_some() && backends.processes.has_traces(self.name()) =>
            {
                Error::from(error)
            }
            Engine::Away(_) | Engine::Unneeded => return Ok(Rest::default()),
        };
        if error.kind != Kind::Engine {
            return Err(error);
        }
        let local: BTreeSet<&str> = processes.iter().map(|it| it.service.as_str()).collect();
        let declared = self.project().into_iter();
        let hidden: BTreeSet<String> = declared
            .flat_map(|project| project.services.values())
            .filter(|it| it.has_container_form() && !local.contains(it.name.as_str()))
            .map(|service| service.name.clone())
            .collect();
        let is_asked = |name: &str| services.is_empty() || services.iter().any(|it| it == name);
        let asked: Vec<&str> = hidden
            .iter()
            .map(String::as_str)
            .filter(|it| is_asked(it))
            .collect();
        if hidden.is_empty() {
            return Ok(Rest {
                unseen: Some(error.detail(format!(
                    "nothing is known of what it has of project {}",
                    self.name()
                ))),
                ..Rest::default()
            });
        }
        if asked.is_empty() {
            ui.note(format!(
                "{}: nothing is known of {}",
                error.source,
                listed(hidden.iter().map(String::as_str))
            ));
            return Ok(Rest {
                hidden,
                ..Rest::default()
            });
        }
        if !local.iter().any(|name| is_asked(name)) {
            return Err(error);
        }
        let unknown = listed(asked.into_iter());
        error.details.push(format!("nothing is known of {unknown}"));
        Ok(Rest {
            hidden,
            error: Some(error),
            ..Rest::default()
        })
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
