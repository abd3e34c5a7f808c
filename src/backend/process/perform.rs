//! Steps → effects. Each arm is one effect; everything was decided before.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::dirs::{self, InstanceDir, failed};
use super::ledger::{Unrecorded, unrecorded};
use super::observe::{is_ending, status};
use super::protocol::Request;
use super::remains::Remains;
use super::tree::Snapshot;
use super::{NamesWanted, Processes, Record, convert, declared, hooks, limited, lock, stores};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::naming::{PRE_START, Role, Way};
use crate::plan::step::{Action, InstanceSpec, Preparation, Target};
use crate::state::{InstanceId, Status};

/// How often, and with which pause, a keeper on its way out is waited for.
const LOOKS: u32 = 250;
const PAUSE: Duration = Duration::from_millis(20);

impl Processes {
    /// Performs an action; the id of the instance where it made or started one.
    pub(super) async fn act(
        &self,
        action: &Action,
        events: &Events,
    ) -> Result<Option<InstanceId>, BackendError> {
        match action {
            Action::Create(spec) => self.create(spec, events).await.map(Some),
            Action::PreStart {
                instance,
                preparation,
            } => {
                // Most plans have none, and all steps have one size.
                Box::pin(self.before_start(instance, preparation, events)).await?;
                Ok(None)
            }
            Action::Start { instance } => {
                let dir = self
                    .dirs()
                    .project(&instance.project)?
                    .instance(&instance.name)?;
                let record = match self.fresh.take(&dir) {
                    Some(record) => record,
                    None => self.record(&instance.project, &instance.name)?,
                };
                self.names_for_start(&instance.project, &record).await?;
                let request = Request::Start {
                    instance: instance.name.clone(),
                    before: Some(record.id().to_owned()),
                };
                let id = self.client.ask(&instance.project, &request).await?;
                let files = record.spec.attributes.files.iter();
                for stale in files.filter_map(stores::Copied::stale) {
                    self.client.note(format!("{}: {stale}", instance.name));
                }
                // The ledger says from now on who has them.
                for port in &record.spec.ports {
                    if let Some(published) = port.published {
                        self.reservations.give_back(published, port.protocol);
                    }
                }
                if !record.spec.attributes.post_start.is_empty() {
                    let record = self.record(&instance.project, &instance.name)?;
                    let hooks = &record.spec.attributes.post_start;
                    Box::pin(hooks::run(&record, "post_start", hooks, events)).await?;
                }
                Ok(id.map(InstanceId))
            }
            Action::AwaitReady {
                instance,
                readiness,
            } => self
                .await_ready(instance, readiness, events)
                .await
                .map(|()| None),
            Action::AwaitListening { instance, claims } => self
                .await_listening(instance, claims, events)
                .await
                .map(|()| None),
            Action::AwaitHealthy { instance } => self.await_healthy(instance).await.map(|()| None),
            Action::AwaitCompleted { instance } => {
                self.await_completed(instance).await.map(|()| None)
            }
            Action::Stop { instance, grace } => {
                let record = self.record(&instance.project, &instance.name);
                if let Ok(record) = record
                    && !record.spec.attributes.pre_stop.is_empty()
                {
                    self.before_stop(instance, &record, events).await?;
                }
                self.stop(&instance.project, &instance.name, *grace).await?;
                Ok(None)
            }
            Action::Kill { instance, signal } => {
                let signal = convert::signal(signal)?;
                self.kill(&instance.project, &instance.name, signal).await?;
                Ok(None)
            }
            Action::Pause { instance } => {
                let request = Request::Pause {
                    instance: instance.name.clone(),
                };
                self.client.ask(&instance.project, &request).await?;
                Ok(None)
            }
            Action::Unpause { instance } => {
                let request = Request::Unpause {
                    instance: instance.name.clone(),
                };
                self.client.ask(&instance.project, &request).await?;
                Ok(None)
            }
            Action::Remove { instance, .. } => {
                if instance.role.is_some() {
                    self.end_own(&instance.project, &instance.name).await?;
                }
                self.remove(&instance.project, &instance.name).await?;
                Ok(None)
            }
            Action::PrepareRelay { project, service } => {
                let path = self.dirs().project(project)?.relay(service)?;
                dirs::private_dir(&path).map_err(|error| failed("create", &path, error))?;
                Ok(None)
            }
            Action::AwaitReachable { project, service } => {
                let wanted = NamesWanted {
                    reachable: vec![service.clone()],
                    ..NamesWanted::default()
                };
                self.sync_names(project, wanted).await.map(|()| None)
            }
            Action::FreePort { .. }
            | Action::MovePort { .. }
            | Action::Provide { .. }
            | Action::Build { .. }
            | Action::Pull { .. }
            | Action::LoadRelay { .. }
            | Action::CreateNetwork { .. }
            | Action::UniteNetwork { .. }
            | Action::WriteStores { .. }
            | Action::CreateVolume { .. }
            | Action::RemoveNetwork { .. }
            | Action::RemoveVolume { .. }
            | Action::RemoveImage { .. } => Err(BackendError::Unsupported(
                "the step is not one of the process backend".to_owned(),
            )),
        }
    }

    /// Runs a command that comes before the first start of an instance.
    async fn before_start(
        &self,
        instance: &Target,
        preparation: &Preparation,
        events: &Events,
    ) -> Result<(), BackendError> {
        let record = self.record(&instance.project, &instance.name)?;
        self.names_for_start(&instance.project, &record).await?;
        let (service, hook) = (&preparation.spec.service, &preparation.hook);
        let hook = declared::hook_command(service, hook, &record.spec.working_dir)?;
        hooks::run(&record, PRE_START, &[hook], events).await
    }

    /// Runs the hooks of a service that is to be stopped. One that is paused goes on first: its hook may well
    /// want an answer from it.
    async fn before_stop(
        &self,
        target: &Target,
        record: &Record,
        events: &Events,
    ) -> Result<(), BackendError> {
        match status(record) {
            // The hooks of a stop that is under way have run.
            Status::Running | Status::Paused if is_ending(record) => return Ok(()),
            Status::Running => {}
            Status::Paused => {
                let request = Request::Unpause {
                    instance: target.name.clone(),
                };
                self.client.ask(&target.project, &request).await?;
            }
            Status::Created
            | Status::Restarting
            | Status::Removing
            | Status::Exited { .. }
            | Status::Dead => return Ok(()),
        }
        let hooks = &record.spec.attributes.pre_stop;
        hooks::run(record, "pre_stop", hooks, events).await
    }

    /// Sees to it that what is about to start finds others by their names.
    async fn names_for_start(&self, project: &str, record: &Record) -> Result<(), BackendError> {
        let names = &record.spec.names;
        if let Some(path) = names.hosts.as_deref().filter(|it| !it.exists()) {
            own_hosts(path)?;
        }
        if names.way != Way::Off && self.has_forwarder(project)? {
            // What it depends on may have come up a moment ago.
            self.sync_for_start(project, &record.spec.name).await?;
        }
        Ok(())
    }

    /// Sees to it that an instance that its command starts by itself finds others by their names.
    ///
    /// # Errors
    /// There is no such instance, or its names cannot be had.
    pub async fn await_names(&self, project: &str, name: &str) -> Result<(), BackendError> {
        let record = self.record(project, name)?;
        self.names_for_start(project, &record).await
    }

    /// Writes the ledger entry, in place of one of the same name that has ended; its output goes with it.
    async fn create(
        &self,
        spec: &InstanceSpec,
        events: &Events,
    ) -> Result<InstanceId, BackendError> {
        let project = self.dirs().project(&spec.project.name)?;
        let dir = project.instance(&spec.name)?;
        let mut record = convert::record(spec, &self.variables, &self.binary)?;
        for (mounts, (variable, kind)) in [
            (&spec.service.secrets, stores::SECRETS),
            (&spec.service.configs, stores::CONFIGS),
        ] {
            if !mounts.is_empty() {
                let path = stores::place(&dir, kind, record.spec.user.as_ref());
                let path = path.display().to_string();
                let environment = &mut record.spec.environment;
                *environment = environment.with([(variable.to_owned(), path)]);
            }
        }
        project.check_owner(&format!("make process {}", spec.name))?;
        if !project.is_made() {
            project.create()?;
        }
        // Nobody knows of what is wharf's own.
        if Role::of(&record.spec.labels).is_none() && Record::is_lost(&dir) {
            events.send(Event::Note(format!(
                "of {} only an empty entry is left, as after a power failure: it is made anew",
                spec.name
            )));
        }
        Box::pin(make_room(&dir, &spec.name)).await?;
        if let Err(error) = fill(&dir, spec, &mut record) {
            // Half of an instance is none; what is wrong with it the error says.
            drop(dir.remove());
            return Err(error);
        }
        let resources = &record.spec.attributes.resources;
        if spec.number <= 1
            && let Some(lost) = limited::without_effect(resources, &project)
        {
            events.send(Event::Note(format!(
                "{} runs as a local process, for which {lost}",
                spec.service.name
            )));
        }
        let without_effect = declared::without_effect(&spec.service, &spec.names);
        if spec.number <= 1 && !without_effect.is_empty() {
            events.send(Event::Note(format!(
                "{} runs as a local process, for which these have no effect: {}",
                spec.service.name,
                without_effect.join(", ")
            )));
        }
        let id = record.created_id.clone();
        self.fresh.keep(&dir, record);
        Ok(InstanceId(id))
    }

    /// Ends an instance of wharf's own that is to be removed: where it was killed, or its supervisor was, it may have
    /// been brought back since somebody looked whether it has to be stopped.
    async fn end_own(&self, project: &str, name: &str) -> Result<(), BackendError> {
        let dir = self.dirs().project(project)?.instance(name)?;
        let Some(record) = Record::read(&dir)? else {
            return Ok(());
        };
        if status(&record).is_alive() {
            return self.stop(project, name, None).await;
        }
        // Nobody is started for it alone.
        let request = Request::stop(name, None);
        self.client.ask_if_there(project, &request).await.map(drop)
    }

    /// Forgets an instance that is not alive, and its output. One that is not there is none.
    pub(super) async fn remove(&self, project: &str, name: &str) -> Result<(), BackendError> {
        let dir = self.dirs().project(project)?.instance(name)?;
        let Some(record) = Record::read(&dir)? else {
            return Ok(());
        };
        if status(&record).is_alive() {
            return Err(BackendError::Unsupported(format!(
                "{name} is running: stop it first"
            )));
        }
        forget(&dir, &record).await?;
        let request = Request::Remove {
            instance: name.to_owned(),
        };
        if !self.client.ask_if_there(project, &request).await? {
            dir.remove()?;
        }
        Ok(())
    }
}

/// Takes an instance of the same name away, which has ended.
async fn make_room(dir: &InstanceDir, name: &str) -> Result<(), BackendError> {
    if let Some(old) = Record::read(dir)? {
        if status(&old).is_alive() {
            return Err(BackendError::Unsupported(format!(
                "{name} is running: stop it first"
            )));
        }
        forget(dir, &old).await?;
    } else if let Some(alive) = unrecorded(dir)
        && (matches!(alive, Unrecorded::Main(_)) || !keeper_is_gone(dir).await)
    {
        return Err(BackendError::Unrecorded {
            name: name.to_owned(),
            alive,
        });
    }
    // Also what is left of one whose making was cut off.
    dir.remove()
}

/// Writes all that an instance has before its first run, its entry last.
fn fill(dir: &InstanceDir, spec: &InstanceSpec, record: &mut Record) -> Result<(), BackendError> {
    dir.create()?;
    stores::write(dir, spec)?;
    record.spec.attributes.files = stores::Copied::all(spec);
    if record.spec.names.way == Way::Hosts {
        let path = dir.hosts();
        own_hosts(&path)?;
        record.spec.names.hosts = Some(path);
    }
    record.write(dir)
}

/// Writes an instance's hosts file: what this machine has, until the forwarder adds the names of services.
fn own_hosts(path: &Path) -> Result<(), BackendError> {
    let cannot = |error| failed("write", path, error);
    let text = match fs::read("/etc/hosts") {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed("read", Path::new("/etc/hosts"), error)),
    };
    fs::write(path, text).map_err(cannot)?;
    // Whoever the service runs as reads it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(cannot)
}

/// Waits for a keeper that has just seen the end of its run: it records the last output and goes.
async fn keeper_is_gone(dir: &InstanceDir) -> bool {
    for _ in 0..LOOKS {
        if !lock::is_held(&dir.keeper_lock()) {
            return true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    false
}

/// Takes away what an instance that has ended has outside of its own directory. Refused while something of it
/// is alive that SIGKILL could not end: nobody would know of it any more.
async fn forget(dir: &InstanceDir, record: &Record) -> Result<(), BackendError> {
    if !keeper_is_gone(dir).await {
        return Err(Remains::kept(dir, record).into_error(&record.spec.name));
    }
    if let Some(group) = record.group() {
        if group.is_populated() {
            let left = Snapshot::take().map(|all| Remains::of(record, &all));
            return Err(left.unwrap_or_default().into_error(&record.spec.name));
        }
        drop(group.remove());
    }
    stores::conceal(dir)
}
