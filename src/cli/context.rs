//! What every command knows: the environment, the screen, the options, and the project that is meant.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use crate::backend::BackendError;
use crate::backend::container::Containers;
use crate::backend::process::{Dirs, Processes, ProjectLock};
use crate::backend::provider::Providers;
use crate::backend::router::Backends;
use crate::cli::global::Global;
use crate::cli::invocation::in_words_of;
use crate::cli::signals::Detour;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::plan;
use crate::plan::down::Ending;
use crate::plan::launch::Launching;
use crate::plan::placement::{Placement, PlacementError, Wishes, place, place_without_engine};
use crate::project::model::{HealthTest, Project, Service};
use crate::project::{self, Disk, Env, LoadOptions, Loaded};
use crate::ui::progress::Progress;
use crate::ui::{Ui, report};

/// What a command runs in.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) env: Env,
    pub(super) ui: Ui,
    pub(super) global: Global,
    /// Whether wharf was called by the name of Docker Compose.
    pub(super) stands_in: bool,
    /// What users type to run it.
    pub(super) program: String,
}

impl Context {
    /// The options for loading, for these services (empty: all enabled ones).
    pub(super) fn load_options(&self, services: &[String], no_deps: bool) -> LoadOptions {
        self.global.load_options(services, no_deps)
    }

    /// A text that names `wharf …` as something to type, with the name that was typed, and for the same project.
    pub(super) fn typed(&self, text: &str) -> String {
        in_words_of(&self.program, &self.global.project_words(), text)
    }

    /// What happened, in such words.
    pub(super) fn told(&self, mut event: Event) -> Event {
        if let Event::Note(line) | Event::Warning(line) = &mut event {
            *line = self.typed(line);
        }
        event
    }

    /// Has the hooks of services known that are named although their profiles are off: to name one enables it.
    pub(super) fn declare_named(&self, named: &Named, backends: &Backends, services: &[String]) {
        let disabled = named.project().map(|project| &project.disabled);
        let is_disabled = |name: &String| disabled.is_some_and(|all| all.contains(name));
        if services.iter().any(is_disabled) {
            let options = self.load_options(services, false);
            // What is wrong with it was said when it was loaded without them.
            if let Ok(Loaded { project, .. }) = project::load(&options, &self.env, &Disk) {
                backends.containers.declare(&project);
            }
        }
    }

    /// Says what a plan has to say before it is carried out.
    pub(super) fn note_all(&self, plan: &plan::Plan) {
        for note in &plan.notes {
            self.ui.note(self.typed(note));
        }
    }

    /// Whether a variable switches something on.
    pub(super) fn is_on(&self, variable: &str) -> bool {
        self.env.get(variable).is_some_and(project::is_on)
    }

    /// Loads the project and prints its warnings.
    pub(super) fn load(&self, services: &[String], no_deps: bool) -> Result<Project> {
        let options = self.load_options(services, no_deps);
        let Loaded {
            project, warnings, ..
        } = project::load(&options, &self.env, &Disk)?;
        for warning in &warnings {
            report::diagnostic(warning);
        }
        Ok(project)
    }

    /// The project's name alone, for commands that also work without a compose file.
    pub(super) fn name_or_project(&self) -> Result<Named> {
        self.name_or_project_of(&[])
    }

    /// The same, with only these services (none: all that are enabled) and what they depend on.
    pub(super) fn name_or_project_of(&self, services: &[String]) -> Result<Named> {
        match self.load(services, false) {
            Ok(project) => Ok(Named::Project(Box::new(project))),
            Err(error) => {
                let given = self.global.project_name.as_deref();
                match given.or_else(|| self.env.get("COMPOSE_PROJECT_NAME")) {
                    // Named, and no file anywhere: what runs is known by its labels and its ledger.
                    Some(name)
                        if self.global.file.is_empty()
                            && error.kind != crate::error::Kind::Invalid =>
                    {
                        Ok(Named::Name(name.to_owned()))
                    }
                    _ => Err(error),
                }
            }
        }
    }

    /// Whether the project is meant by its name alone: then all that has the name takes part, whatever a
    /// compose file in this directory says.
    pub(super) fn is_by_name(&self, named: &Named) -> bool {
        let only_named = self.global.project_name.is_some() && self.global.file.is_empty();
        only_named || named.project().is_none()
    }

    /// What the compose file says, unless the project is meant by its name alone.
    pub(super) fn declared<'a>(&self, named: &'a Named) -> Option<&'a Project> {
        named.project().filter(|_| !self.is_by_name(named))
    }

    /// What a command ends that names these services (none: all that take part).
    pub(super) fn ending(&self, named: &Named, services: &[String]) -> Ending {
        let mut ending = Ending {
            project: named.name().to_owned(),
            services: services.iter().cloned().collect(),
            leave_one_offs: true,
            ..Ending::default()
        };
        if let Some(project) = self.declared(named) {
            ending.enabled = Some(project.services.keys().cloned().collect());
            ending.disabled = project.disabled.iter().cloned().collect();
        }
        ending
    }

    /// What a command starts or restarts that names these services (none: all that take part).
    pub(super) fn launching(&self, named: &Named, services: &[String]) -> Launching {
        let mut launching = Launching {
            services: services.iter().cloned().collect(),
            ..Launching::default()
        };
        if let Some(project) = named.project() {
            let is_checked = |service: &&Arc<Service>| {
                let check = service.healthcheck.as_ref();
                check.is_some_and(|check| check.test != Some(HealthTest::None))
            };
            let checked = project.services.values().filter(is_checked);
            launching.checked = checked.map(|service| service.name.clone()).collect();
            let services = project.services.values();
            let optional = services.flat_map(|service| {
                let all = service.depends_on.iter();
                let optional = all.filter(|(_, dependency)| !dependency.required);
                optional.map(|(on, _)| (service.name.clone(), on.clone()))
            });
            launching.optional = optional.collect();
            if !self.is_by_name(named) {
                let services = project.services.values();
                let written = services.filter_map(|service| {
                    Some((service.name.clone(), plan::stores(project, service)?))
                });
                launching.stores = written.collect();
                let services = project.services.values();
                let prepared = services.map(|service| {
                    let all = plan::preparations(project, service);
                    (service.name.clone(), all)
                });
                launching.preparations = prepared.collect();
                launching.enabled = Some(project.services.keys().cloned().collect());
            }
        }
        launching
    }

    /// The backends; nothing is connected yet.
    pub(super) fn backends(&self) -> Result<Backends> {
        let dirs = Dirs::from_env(&self.env).map_err(Error::from)?;
        if let Some(home) = self.env.get("XDG_STATE_HOME")
            && !home.is_empty()
            && !Path::new(home).is_absolute()
        {
            self.ui.note(format!(
                "XDG_STATE_HOME is {home}, which is no absolute path: the state is kept in {}",
                dirs.state().display()
            ));
        }
        Ok(Backends {
            containers: Containers::new(&self.env),
            processes: Processes::new(dirs, &self.env),
            providers: Providers::new(&self.env),
        })
    }

    /// Waits until no other command changes the project, and says so if there is one.
    pub(super) async fn lock(&self, backends: &Backends, project: &str) -> Result<ProjectLock> {
        self.locked(backends, project, false).await
    }

    /// As [`Self::lock`], for what is not to wait for a command that only waits.
    pub(super) async fn lock_soon(
        &self,
        backends: &Backends,
        project: &str,
    ) -> Result<ProjectLock> {
        self.locked(backends, project, !self.global.dry_run).await
    }

    async fn locked(&self, backends: &Backends, project: &str, asks: bool) -> Result<ProjectLock> {
        let (events, mut receiver) = Events::channel();
        let processes = &backends.processes;
        let is_ours = Cell::new(false);
        let mut locking = std::pin::pin!(async {
            let lock = if asks {
                processes.lock_soon(project, &events).await?
            } else {
                processes.lock(project, &events).await?
            };
            is_ours.set(true);
            // No second copy beside what cannot be judged from here, or runs without its ledger.
            if !self.global.dry_run {
                processes.check_here_anew(project)?;
                let begins = lock.may_have_lost();
                processes.end_lost(project, begins, &events).await?;
            }
            Ok::<_, BackendError>(lock)
        });
        let progress = Progress::new(self.ui);
        let signals = Detour::new()?;
        loop {
            tokio::select! {
                biased;
                Some(event) = receiver.recv() => progress.show(&event),
                () = signals.next() => {
                    self.ui.status(if is_ours.get() {
                        "interrupted: of what runs without an entry, some may have been stopped; nothing else was done"
                    } else {
                        "interrupted: nothing was done, as it was another command's turn"
                    });
                    return Err(Error::interrupted());
                }
                lock = &mut locking => {
                    while let Ok(event) = receiver.try_recv() {
                        progress.show(&event);
                    }
                    return Ok(lock?);
                }
            }
        }
    }

    /// Places every service, with or without an engine, and says so when there is none.
    pub(super) async fn place(
        &self,
        project: &Project,
        wishes: &Wishes,
        backends: &Backends,
    ) -> Result<Placement> {
        let wishes = &with_choices(project, wishes, backends)?;
        let wished = place(project, wishes)?;
        if !wished.needs_engine() {
            return Ok(wished);
        }
        let Err(unreachable) = backends.containers.reachable().await else {
            return Ok(wished);
        };
        // It is there.
        if matches!(unreachable, BackendError::ApiTooNew { .. }) {
            return Err(unreachable.into());
        }
        match place_without_engine(project, wishes) {
            Ok(placement) => {
                let names: Vec<&str> = wished
                    .services(crate::state::BackendKind::Container)
                    .collect();
                let why = match unreachable.closed_socket() {
                    Some(_) => unreachable.to_string(),
                    None => "no Docker engine answers".to_owned(),
                };
                self.ui.note(format!(
                    "{why}, so {} as a local process",
                    match names.as_slice() {
                        [name] => format!("`{name}` runs"),
                        _ => format!("`{}` run", names.join("`, `")),
                    }
                ));
                Ok(placement)
            }
            Err(need @ PlacementError::NeedEngine { .. }) => {
                let mut error = Error::from(need);
                if let Some(closed) = unreachable.closed_socket() {
                    error.hints = vec![closed.opened_by()];
                }
                error.details.push(unreachable.to_string());
                if let Some(cause) = std::error::Error::source(&unreachable) {
                    error.details.push(cause.to_string());
                }
                Err(error)
            }
            Err(other) => Err(other.into()),
        }
    }
}

/// As `up` would place the services, and whether their state can be known.
pub(super) fn without_engine(
    project: &Project,
    wishes: &Wishes,
    wished: Placement,
) -> Result<(Placement, bool)> {
    match place_without_engine(project, wishes) {
        Ok(placement) => Ok((placement, true)),
        Err(PlacementError::NeedEngine { .. }) => Ok((wished, false)),
        Err(other) => Err(other.into()),
    }
}

/// Wishes, on top of what earlier command lines chose for the project.
pub(super) fn with_choices(
    project: &Project,
    wishes: &Wishes,
    backends: &Backends,
) -> Result<Wishes> {
    Ok(Wishes {
        remembered: backends.processes.choices(&project.name)?,
        ..wishes.clone()
    })
}

/// A project, or just its name.
#[derive(Debug)]
pub(super) enum Named {
    /// Loaded from its files.
    Project(Box<Project>),
    /// No file; `-p` named it.
    Name(String),
}

/// The engine, as far as a project may have something there.
#[derive(Debug)]
pub(super) enum Engine {
    /// Nothing of the project can be there, or it is not worth waiting for.
    Unneeded,
    /// It answers.
    Answers,
    /// It does not, for this reason.
    Away(BackendError),
}

impl Named {
    /// The project's name.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Project(project) => &project.name,
            Self::Name(name) => name,
        }
    }

    /// The project's services, if files name some.
    pub(super) fn project(&self) -> Option<&Project> {
        match self {
            Self::Project(project) => Some(project),
            Self::Name(_) => None,
        }
    }

    /// Whether no service that the files name can be a container.
    pub(super) fn is_local(&self) -> bool {
        self.project().is_some_and(|project| {
            let mut services = project.services.values();
            // What is named although its profile is off is there, too.
            !project.disabled_containers && services.all(|service| !service.has_container_form())
        })
    }

    /// Whether the project may have containers that can be seen: the engine answers. `others`: it has
    /// processes.
    ///
    /// # Errors
    /// The engine does not answer, and a service can only be a container.
    pub(super) async fn in_engine(
        &self,
        ui: Ui,
        backends: &Backends,
        others: bool,
    ) -> Result<bool> {
        match self.engine(ui, backends, others).await {
            Engine::Answers => Ok(true),
            Engine::Away(error) if self.needs_engine() => Err(error.into()),
            Engine::Away(_) | Engine::Unneeded => Ok(false),
        }
    }

    /// What is to be had of the engine. `others`: the project has processes.
    pub(super) async fn engine(&self, ui: Ui, backends: &Backends, others: bool) -> Engine {
        if self.is_local() {
            // What an earlier version of the files had made there.
            let has_traces = backends.processes.has_traces(self.name());
            return if has_traces && backends.containers.answers_soon().await {
                Engine::Answers
            } else {
                Engine::Unneeded
            };
        }
        let Err(error) = backends.containers.reachable().await else {
            return Engine::Answers;
        };
        if self.project().is_none() && !others {
            // No file says whether there should be any.
            ui.note(format!(
                "{error}: containers of project {} are not seen, if there are any",
                self.name()
            ));
        }
        Engine::Away(error)
    }

    /// Whether some services can only be containers, which cannot be seen without the engine.
    pub(super) fn needs_engine(&self) -> bool {
        self.project().is_some_and(|project| {
            let without = |service: &Arc<Service>| {
                service.has_container_form() && !service.has_process_form()
            };
            project.services.values().any(without)
        })
    }

    /// Fails on a service that neither the files nor the instances know.
    pub(super) fn check_services(
        &self,
        services: &[String],
        instances: &[crate::state::Instance],
    ) -> Result<()> {
        for name in services {
            let declared = self.project().is_some_and(|project| {
                project.services.contains_key(name) || project.disabled.contains(name)
            });
            if !declared && !instances.iter().any(|instance| instance.service == *name) {
                return Err(Error::usage(format!("no such service: {name}"))
                    .hint("wharf config --services"));
            }
        }
        Ok(())
    }
}
