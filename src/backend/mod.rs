//! STEPS → EFFECTS. The trait that every backend implements; what only one backend can do is an
//! inherent method of that backend.

pub mod container;
pub mod copying;
mod ended;
pub mod fake;
pub mod freeing;
pub mod happening;
pub mod holders;
pub mod merge;
pub mod parcel;
pub mod pending;
pub mod process;
pub mod provider;
mod reachable;
pub mod router;
pub mod streams;
pub mod usage;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::event::Events;
use crate::plan::step::{Step, StepId};
use crate::project::model::Variables;
use crate::state::{Instance, InstanceId};

/// What finished steps have made: `Create` puts the instance's id here, `Start` may put a newer one.
#[derive(Debug, Default)]
pub struct Made {
    instances: ByStep<InstanceId>,
    /// What steps did in place of what was planned, in words.
    said: ByStep<String>,
    /// What providers told.
    told: ByStep<Variables>,
}

impl Made {
    /// Records what a step made.
    pub fn put(&self, step: StepId, id: InstanceId) {
        self.instances.put(step, id);
    }

    /// What a step made.
    pub fn get(&self, step: StepId) -> Option<InstanceId> {
        self.instances.get(step)
    }

    /// Records that a step did something else than was planned: `network n: kept, it is still in use`.
    pub fn say(&self, step: StepId, text: String) {
        self.said.put(step, text);
    }

    /// What a step did in place of what was planned.
    pub fn said(&self, step: StepId) -> Option<String> {
        self.said.get(step)
    }

    /// Records what a provider told.
    pub fn tell(&self, step: StepId, variables: Variables) {
        self.told.put(step, variables);
    }

    /// What the provider of a step told.
    pub fn told(&self, step: StepId) -> Variables {
        self.told.get(step).unwrap_or_default()
    }
}

/// What is known of steps that run side by side.
#[derive(Debug)]
struct ByStep<T>(Mutex<BTreeMap<StepId, T>>);

impl<T> Default for ByStep<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> ByStep<T> {
    fn put(&self, step: StepId, it: T) {
        self.known().insert(step, it);
    }

    fn get(&self, step: StepId) -> Option<T> {
        self.known().get(&step).cloned()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<StepId, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which log lines to deliver.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Go on with new lines until all instances ended; else stop at the end of what is there.
    pub follow: bool,
    /// Only the last so many lines of each instance.
    pub tail: Option<u64>,
    /// Nanoseconds since the Unix epoch: nothing earlier.
    pub since: Option<i64>,
    /// Nanoseconds since the Unix epoch: nothing later.
    pub until: Option<i64>,
    /// When following: the instances whose lines were told already, by name, and the time of the last of these lines,
    /// 0 where there was none. What comes after it is told, all of it.
    pub told: BTreeMap<String, i64>,
}

/// What a backend must be able to do.
pub trait Backend {
    /// The instances of a project, whatever their state.
    fn observe(&self, project: &str) -> impl Future<Output = Result<Vec<Instance>, BackendError>>;

    /// Performs one step and returns the instance it made, if it made one.
    fn perform(
        &self,
        step: &Step,
        made: &Made,
        events: &Events,
    ) -> impl Future<Output = Result<Option<InstanceId>, BackendError>>;

    /// Sends `Event::Log` for every line and `Event::Exited` for every end (the latter only when
    /// following), in the order of arrival per instance.
    fn follow(
        &self,
        instances: &[Instance],
        options: &LogOptions,
        events: &Events,
    ) -> impl Future<Output = Result<(), BackendError>>;
}

impl BackendError {
    /// Whether wharf's own files are on a file system that takes no writing.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::State { source, .. } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
    }
}

/// How long was waited, where that says anything.
fn after(seconds: u64) -> String {
    if seconds == 0 {
        String::new()
    } else {
        format!(" after {seconds} s")
    }
}

/// Why a backend could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The engine does not answer, or may not be asked.
    #[error("the Docker engine at {endpoint} {}", container::why_unreached(source.as_ref()))]
    EngineUnreachable {
        /// Where it was looked for.
        endpoint: String,
        /// What the connection said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// `DOCKER_CONTEXT`, `--context` or the configuration names a context that does not exist.
    #[error("there is no Docker context `{name}`")]
    NoContext {
        /// Its name.
        name: String,
    },
    /// The engine refused.
    #[error("the engine refused to {action}")]
    Engine {
        /// What was asked, e.g. `create container web-1`.
        action: String,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another container has the name of one that was to be made.
    #[error("the engine refused to create {name}")]
    NameTaken {
        /// The name.
        name: String,
        /// The project and the service that the other one belongs to, if any.
        owner: Option<(String, String)>,
        /// Whether the other one runs.
        runs: bool,
        /// Whether the compose file gives the name, in `container_name`.
        is_chosen: bool,
        /// What the engine said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine can never start a container: it was killed while it started it, or what the container shares is
    /// gone. It is removed.
    #[error(
        "the engine refused to start {name}, which it can never start any more: it is removed, the same command again \
         makes it anew"
    )]
    Stuck {
        /// The container.
        name: String,
        /// What the engine said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What a step was planned with was removed since: a container, a network or an image. A new look leads further.
    #[error("the engine refused to {action}: something was removed since this was planned")]
    Vanished {
        /// What was asked, e.g. `start web-1`.
        action: String,
        /// What the engine said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A registry refused, or the engine cannot reach it.
    #[error("{action}")]
    Registry {
        /// What failed, e.g. `cannot pull image web:1`.
        action: String,
        /// The registry, e.g. `docker.io`.
        registry: String,
        /// What the engine passed on.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A container cannot start because one of its ports is taken.
    #[error("{name} cannot start: {} is taken", .address.map_or_else(|| "one of its ports".to_owned(), |address| address.to_string()))]
    PortTaken {
        /// The instance.
        name: String,
        /// The address and port that the engine could not bind, as it says; `None` where it does not.
        address: Option<std::net::SocketAddr>,
        /// What the engine said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A build failed.
    #[error("building image {image} failed{}", .step.as_ref().map(|s| format!(" at `{s}`")).unwrap_or_default())]
    Build {
        /// The image.
        image: String,
        /// The failing instruction, where known.
        step: Option<String>,
        /// What the builder said.
        message: String,
        /// The last lines of its output.
        last_lines: Vec<String>,
    },
    /// A command was not found or cannot be run.
    #[error("cannot run `{command}`")]
    Command {
        /// What was to be run.
        command: String,
        /// The directory it was to be run in.
        working_dir: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The instance ended while it was being waited for.
    #[error("{name} exited with code {code} before it was ready")]
    ExitedEarly {
        /// The instance.
        name: String,
        /// Its exit code.
        code: i32,
        /// Its last lines of output.
        last_lines: Vec<String>,
    },
    /// The instance ended because somebody else has its port by now.
    #[error("{name} could not have its port and exited with code {code}")]
    PortLost {
        /// The instance.
        name: String,
        /// Its exit code.
        code: i32,
        /// Who has the port.
        #[source]
        source: Box<crate::port::PortError>,
        /// Its last lines of output.
        last_lines: Vec<String>,
    },
    /// The instance ended, and its port is one that this user may not listen on.
    #[error(
        "{name} may not listen on port {port}, which needs a privilege that you do not have, and exited with code {code}"
    )]
    PortForbidden {
        /// The instance.
        name: String,
        /// Its exit code.
        code: i32,
        /// The port.
        port: u16,
        /// Its last lines of output.
        last_lines: Vec<String>,
    },
    /// A hook of the service failed.
    #[error("{name}: its {what} hook `{command}` exited with code {code}")]
    Hook {
        /// The instance.
        name: String,
        /// `post_start` or `pre_stop`.
        what: String,
        /// Its service, where that is known.
        service: Option<String>,
        /// The hook's command.
        command: String,
        /// Its exit code.
        code: i32,
        /// Its last lines of output.
        last_lines: Vec<String>,
    },
    /// A hook was not found or cannot be run.
    #[error("{name}: its {what} hook `{command}` cannot be run")]
    HookCommand {
        /// The instance.
        name: String,
        /// `post_start` or `pre_stop`.
        what: String,
        /// The hook's command.
        command: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The instance lives and does not answer.
    #[error("{name} is not ready{}: {last}", after(*seconds))]
    NotReady {
        /// The instance.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// What the last probe found, e.g. `listening, but no WebSocket handshake`.
        last: String,
        /// Its last lines of output.
        last_lines: Vec<String>,
    },
    /// Something else answered on the instance's port.
    #[error("{name}: {address} was answered by {who}, not by the instance just started")]
    AnsweredByOther {
        /// The instance.
        name: String,
        /// The address.
        address: std::net::SocketAddr,
        /// Who answered.
        who: String,
    },
    /// A port could not be freed or is taken again.
    #[error(transparent)]
    Port(#[from] crate::port::PortError),
    /// The state directory, the supervisor or a file of theirs.
    #[error("{action}")]
    State {
        /// What was tried, e.g. `cannot write /x/y`.
        action: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// An entry of the ledger cannot be made out.
    #[error("cannot read {}: {cause}", path.display())]
    Damaged {
        /// The entry.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
        /// Who of the instance's last run lives, if anybody does.
        alive: Option<process::Unrecorded>,
    },
    /// The local services of a project run where process ids mean something else.
    #[error(
        "project {project} runs in another {kind} namespace{}: what lives of it cannot be told from here",
        .host.as_ref().map(|host| format!(", on host `{host}`")).unwrap_or_default()
    )]
    Elsewhere {
        /// The project.
        project: String,
        /// `pid` or `time`.
        kind: &'static str,
        /// What the host is called there, if not as here.
        host: Option<String>,
        /// A process there that is seen from here.
        inside: Option<u32>,
    },
    /// A process of an instance runs that the ledger knows nothing of.
    #[error("{name}: its {alive} still runs, and its entry in the ledger is gone")]
    Unrecorded {
        /// The instance.
        name: String,
        /// The process.
        alive: process::Unrecorded,
    },
    /// Processes of an instance survived SIGKILL, or may not be sent it.
    #[error("{name}: {}", process::remains::unended(.left, None))]
    Unkillable {
        /// The instance.
        name: String,
        /// What is left of it.
        left: Vec<process::run::Survivor>,
    },
    /// Something of an instance's last run is alive, and keeps it from being started or forgotten.
    #[error("{name}: something of an earlier run is still alive: {}", process::remains::list(.left, .group.as_deref()))]
    Remains {
        /// The instance.
        name: String,
        /// What is left of it.
        left: Vec<process::run::Survivor>,
        /// The control group that holds what cannot be seen from here.
        group: Option<PathBuf>,
    },
    /// The program that provides a service failed.
    #[error("the provider `{kind}` could not {action} service `{service}`: {message}")]
    Provider {
        /// The service.
        service: String,
        /// The provider's type.
        kind: String,
        /// What it was asked for.
        action: &'static str,
        /// Why, in its own words where it has some.
        message: String,
        /// Its last lines of standard error.
        last_lines: Vec<String>,
    },
    /// There is no program that could provide a service.
    #[error("service `{service}` needs the provider `{kind}`, which is not installed")]
    NoProvider {
        /// The service.
        service: String,
        /// The provider's type.
        kind: String,
    },
    /// `DOCKER_API_VERSION` asks for more than the engine has.
    #[error(
        "DOCKER_API_VERSION={asked} is too new: the Docker engine at {endpoint} speaks {newest} at most"
    )]
    ApiTooNew {
        /// What the variable says.
        asked: String,
        /// What the engine says.
        newest: String,
        /// Where the engine is.
        endpoint: String,
    },
    /// The step is not one of this backend.
    #[error("{0}")]
    Unsupported(String),
}

/// An error and its causes in one line.
pub fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
