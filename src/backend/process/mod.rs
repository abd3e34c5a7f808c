//! Instances that are processes of this machine.
//!
//! The ledger on disk says what there is; a detached supervisor for each project (`supervise`) is the parent
//! of what runs. A command reads the ledger and the logs itself and asks the supervisor, over its socket,
//! only for what changes a process. Neither keeps anything in memory that the other would need.

mod access;
mod attach;
mod attributes;
mod beginnings;
mod carried;
pub mod cgroup;
pub(crate) mod channel;
pub mod child;
mod choices;
mod client;
mod clone;
mod convert;
mod declared;
pub mod descent;
pub mod dirs;
mod environment;
mod exec;
mod feasible;
mod fleeting;
mod follow;
mod foreground;
mod foreign;
mod fresh;
mod happenings;
mod hooks;
pub mod index;
pub(crate) mod journal;
pub mod kin;
mod ledger;
mod limited;
mod linkage;
mod listening;
pub(crate) mod lock;
pub mod logs;
mod lost;
mod meeting;
mod misled;
mod names;
pub mod namespace;
pub mod namespace_probe;
pub mod notes;
mod observe;
mod output;
pub mod owned;
mod perform;
mod pipes;
pub mod protocol;
mod ready;
pub mod realm;
pub mod refusal;
pub mod regular;
pub mod remains;
pub mod run;
mod signals;
pub(crate) mod socket;
pub mod stores;
pub mod summon;
pub(crate) mod terminal;
pub mod tick;
mod traces;
pub mod tree;
mod trust;
mod turn;
pub mod unusable;
mod usage;
mod watch;
pub mod watching;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, Weak};
use std::time::Duration;

use client::Client;
use protocol::Request;

use crate::backend::{Backend, BackendError, LogOptions, Made};
use crate::event::Events;
use crate::plan::step::{Action, Cause, RESTART, Step};
use crate::port::claim::Protocol;
use crate::port::reserve::Reservations;
use crate::project::Env;
use crate::state::{Instance, InstanceId};

pub use attach::{Attachment, Feed};
pub use attributes::{Attributes, HookCommand, Limit, Pacing, Rotation};
pub use dirs::Dirs;
pub use foreground::{Aside, Face, Foreground};
pub use ledger::{
    Account, Check, FORMAT, Past, Record, RestartPolicy, Run, Spec, UNKNOWN_CODE, Unrecorded,
    names, replace,
};
pub use meeting::READY;
pub use names::{LONGEST_LINE, NAMES_PROTOCOL, NamesReply, NamesRequest, NamesWanted};
pub use observe::{Look, status, status_by};
pub use turn::ProjectLock;

/// The process backend.
#[derive(Debug)]
pub struct Processes {
    client: Client,
    /// What a process inherits.
    variables: BTreeMap<String, String>,
    /// What the command name `wharf` stands for.
    binary: PathBuf,
    /// The ports chosen by this command that nobody listens on yet.
    reservations: Reservations,
    together: names::Together,
    /// The entries that this command has written and not yet started from.
    fresh: fresh::Fresh<Record>,
    /// The turn that this command has.
    turn: Mutex<Weak<turn::Held>>,
}

impl Processes {
    /// Processes inherit the variables of `env`; supervisors are started from the running binary.
    pub fn new(dirs: Dirs, env: &Env) -> Self {
        Self::with_binary(
            dirs,
            env,
            PathBuf::from("/proc/self/exe"),
            convert::own_binary(),
        )
    }

    /// As [`Processes::new`], for a program that is not wharf itself: `binary` is.
    pub fn of_binary(dirs: Dirs, env: &Env, binary: PathBuf) -> Self {
        Self::with_binary(dirs, env, binary.clone(), binary)
    }

    fn with_binary(dirs: Dirs, env: &Env, supervisor: PathBuf, binary: PathBuf) -> Self {
        Self {
            client: Client::new(dirs, supervisor),
            variables: env.variables.clone(),
            binary,
            reservations: Reservations::default(),
            together: names::Together::default(),
            fresh: fresh::Fresh::default(),
            turn: Mutex::default(),
        }
    }

    /// Where the files are.
    pub fn dirs(&self) -> &Dirs {
        &self.client.dirs
    }

    /// What the user should know about the supervisors and no error says; each once.
    pub fn take_notes(&self) -> Vec<String> {
        self.client.take_notes()
    }

    /// Has the supervisor of a project come up, if it has none, while its command has something else to do.
    pub async fn anticipate(&self, project: &str) {
        self.client.anticipate(project).await;
    }

    /// The names of all projects that have instances here, sorted.
    pub fn projects(&self) -> Result<Vec<String>, BackendError> {
        let path = self.dirs().projects();
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(dirs::failed("read", &path, error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| dirs::failed("read", &path, error))?;
            if let Ok(name) = entry.file_name().into_string()
                && let Ok(dir) = self.dirs().project(&name)
                && !names(&dir)?.is_empty()
            {
                found.push(name);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Notes what runs of projects that have no instances here any more: whose supervisors' sockets are there.
    ///
    /// # Errors
    /// The ledgers cannot be listed.
    pub fn note_unlisted(&self) -> Result<(), BackendError> {
        let listed = self.projects()?;
        let sockets = fs::read_dir(self.dirs().runtime()).into_iter().flatten();
        for socket in sockets.flatten() {
            let name = socket.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".sock"));
            if let Some(name) = name.filter(|name| !listed.iter().any(|known| known == name))
                && let Ok(dir) = self.dirs().project(name)
                && let Some(note) = lost::unlisted(self.dirs(), &dir)
            {
                self.client.note(note);
            }
        }
        Ok(())
    }

    /// Sends a signal (by number): SIGKILL to everything of the instance, which is then gone and stays so;
    /// any other to its main process.
    pub async fn kill(&self, project: &str, name: &str, signal: i32) -> Result<(), BackendError> {
        let request = Request::Kill {
            instance: name.to_owned(),
            signal,
        };
        self.client.ask(project, &request).await.map(drop)
    }

    /// Ends an instance; returns when nothing is left of it.
    pub async fn stop(
        &self,
        project: &str,
        name: &str,
        grace: Option<Duration>,
    ) -> Result<(), BackendError> {
        self.client
            .ask(project, &Request::stop(name, grace))
            .await
            .map(drop)
    }

    /// The instance, of any project, whose present run has this id. A ledger that cannot be read knows
    /// nothing of it.
    pub async fn find_run(&self, run: &str) -> Option<Instance> {
        for project in self.projects().unwrap_or_default() {
            let instances = self.seen(&project).await.unwrap_or_default();
            let mut services = instances.into_iter().filter(|it| it.role().is_none());
            let found = services.find(|instance| instance.id.0 == run);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Whether a run id is one of this ledger's, the forwarders' included.
    pub async fn knows_run(&self, run: &str) -> bool {
        for project in self.projects().unwrap_or_default() {
            let all = self.seen(&project).await.unwrap_or_default();
            if all.iter().any(|instance| instance.id.0 == run) {
                return true;
            }
        }
        false
    }

    /// Reserves a port that a service of this command may get. `false`: another command has it.
    pub fn reserve(&self, port: u16, protocol: Protocol) -> bool {
        self.reservations.take(self.dirs().state(), port, protocol)
    }

    /// What runs of all other projects. A ledger that cannot be read knows nothing.
    pub async fn elsewhere_alive(&self, project: &str) -> Vec<Instance> {
        let mut all = Vec::new();
        let others = self.projects().unwrap_or_default().into_iter();
        for other in others.filter(|other| other != project) {
            let mut seen = self.seen(&other).await.unwrap_or_default();
            seen.retain(|instance| instance.role().is_none());
            all.extend(seen);
        }
        all
    }

    /// The instances of a project, and its forwarder.
    pub async fn everything(&self, project: &str) -> Result<Vec<Instance>, BackendError> {
        let seen = self.seen(project).await?;
        if let Err(elsewhere) = self.client.check_here(&self.dirs().project(project)?) {
            self.client
                .note(format!("{elsewhere}; shown as its ledger has it"));
        }
        Ok(seen)
    }

    /// As [`Self::everything`], without a word about those that are shown as the ledger has them.
    async fn seen(&self, project: &str) -> Result<Vec<Instance>, BackendError> {
        let all = observe::observe(&self.client, project).await?;
        Ok(self.without_fleeting(project, all).await)
    }

    /// Makes sure that the processes of a project may be judged from here, before a command changes it.
    ///
    /// # Errors
    /// Something of it is, or may be, in other namespaces.
    pub fn check_here_anew(&self, project: &str) -> Result<(), BackendError> {
        self.client.check_here_anew(&self.dirs().project(project)?)
    }

    /// That instances of a project may be made by this user.
    ///
    /// # Errors
    /// We are root, and what there is of the project is another user's.
    pub fn check_owner(&self, project: &str) -> Result<(), BackendError> {
        let dir = self.dirs().project(project)?;
        dir.check_owner(&format!("make processes of project {project}"))
    }

    /// Whether the project has a forwarder.
    fn has_forwarder(&self, project: &str) -> Result<bool, BackendError> {
        let name = crate::naming::forwarder_name(project);
        let dir = self.dirs().project(project)?.instance(&name)?;
        Ok(dir.record().is_file())
    }

    /// Whether the project has, or once had, relays.
    pub fn has_relays(&self, project: &str) -> Result<bool, BackendError> {
        Ok(self.dirs().project(project)?.relays().is_dir())
    }

    /// The ledger entry of an instance.
    fn record(&self, project: &str, name: &str) -> Result<Record, BackendError> {
        let dir = self.dirs().project(project)?.instance(name)?;
        Record::read(&dir)?
            .ok_or_else(|| BackendError::Unsupported(format!("there is no local process {name}")))
    }
}

impl Backend for Processes {
    async fn observe(&self, project: &str) -> Result<Vec<Instance>, BackendError> {
        let mut instances = self.everything(project).await?;
        instances.retain(|instance| instance.role().is_none());
        Ok(instances)
    }

    async fn perform(
        &self,
        step: &Step,
        _made: &Made,
        events: &Events,
    ) -> Result<Option<InstanceId>, BackendError> {
        let done = self.act(&step.action, events).await?;
        if let (Action::Start { instance }, Cause::Requested(RESTART)) = (&step.action, &step.cause)
        {
            let dir = self.dirs().project(&instance.project)?;
            journal::note(&dir.instance(&instance.name)?, "restart", &[]);
        }
        Ok(done)
    }

    async fn follow(
        &self,
        instances: &[Instance],
        options: &LogOptions,
        events: &Events,
    ) -> Result<(), BackendError> {
        follow::follow(&self.client, instances, options, events).await
    }
}
