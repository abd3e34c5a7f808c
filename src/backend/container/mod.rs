//! The container backend: services as containers of a Docker Engine (API 1.41 and newer).
//!
//! `observe` lists, `perform` runs one step, `follow` streams output; the rest of the public methods is
//! what only this backend can tell. Nothing here decides: which container is made, replaced or stopped
//! is in the steps. No engine is touched before the first question to it.

mod archive;
mod attach;
mod build;
mod buildkit;
mod configured;
mod connect;
mod context;
mod control;
mod convert;
mod create;
mod credentials;
mod elf;
mod ending;
mod engines;
mod exec;
mod fault;
mod happenings;
mod health;
mod hijack;
mod hooks;
pub(crate) mod ignore;
mod inventory;
mod labels;
mod lines;
mod list;
mod logs;
mod mounts;
mod neighbours;
mod networks;
mod observe;
mod outline;
mod output;
mod perform;
mod pre_start;
mod proxies;
mod pull;
mod push;
mod ready;
mod references;
mod registry;
mod relay_image;
mod relays;
mod replace;
mod reply;
mod resources;
mod secrets;
mod ssh;
mod start;
mod survey;
mod swarm;
mod sync;
mod tls;
mod unreached;
mod usage;
mod whereabouts;
mod wire;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::sync::OnceCell;

use self::credentials::Credentials;
use self::wire::{ApiVersion, Wire};
use super::{Backend, BackendError, LogOptions, Made};
use crate::event::Events;
use crate::plan::step::Step;
use crate::project::Env;
use crate::state::{Instance, InstanceId};

pub use archive::{Download, PathStat};
pub use attach::{Ending, Given};
pub use engines::Census;
pub use exec::{Exec, Executed};
pub use inventory::{Names, Resources};
pub(in crate::backend) use labels::dependencies;
pub use list::{ImageFacts, Listing, VolumeFacts};
pub use neighbours::{Acquaintances, Neighbour, Neighbourhood, Spot, Surface};
pub use relay_image::RelayImage;
pub use survey::{Abilities, Answer, EngineFacts, Helper, SocketFacts};
pub use unreached::Closed;
pub(super) use unreached::why_unreached;

/// How long the first answer of an engine may take.
const HELLO: Duration = Duration::from_secs(10);

/// The same where nothing but remains of the project can be in it.
const SOON: Duration = Duration::from_secs(2);

/// How long a look at what is there may take.
const LOOK: Duration = Duration::from_mins(1);

/// How long the headers of any other answer may take: creating and starting may copy whole images.
const PATIENCE: Duration = Duration::from_mins(10);

/// Services as containers. Cheap to clone; all clones share the connection and what it has learnt.
#[derive(Clone, Debug)]
pub struct Containers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    env: Env,
    engine: OnceCell<Engine>,
    /// It has had its time once, and has not answered.
    is_late: AtomicBool,
    /// What was learnt about replaced containers while they existed.
    replaced: replace::Replaced,
    /// The hooks of the compose file.
    declared: OnceLock<hooks::Declared>,
}

/// The engine that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// Its version, e.g. `20.10.24`.
    pub version: String,
    /// The API version spoken with it, e.g. `1.41`.
    pub api: String,
    /// Where it listens, e.g. `unix:///var/run/docker.sock`.
    pub endpoint: String,
    /// Whether the ports it publishes are ports of this machine.
    pub local: bool,
}

/// A connected engine.
#[derive(Debug)]
struct Engine {
    docker: Docker,
    wire: Arc<Wire>,
    api: ApiVersion,
    info: EngineInfo,
    credentials: Arc<Credentials>,
    /// Which builder was asked for.
    builder: build::Choice,
    /// `DOCKER_DEFAULT_PLATFORM`.
    platform: Option<String>,
    /// Arguments of every build.
    proxies: std::collections::BTreeMap<String, String>,
    /// `SSH_AUTH_SOCK`.
    ssh_agent: Option<std::path::PathBuf>,
    /// Whether containers' own addresses can be reached from here; asked when first needed.
    direct: OnceCell<bool>,
}

impl Containers {
    /// Touches nothing: the engine is looked for when it is first needed.
    pub fn new(env: &Env) -> Self {
        Self {
            shared: Arc::new(Shared {
                env: env.clone(),
                engine: OnceCell::new(),
                is_late: AtomicBool::new(false),
                replaced: replace::Replaced::default(),
                declared: OnceLock::new(),
            }),
        }
    }

    /// Which engine answers. Asks once; a failure is not remembered.
    ///
    /// # Errors
    /// [`BackendError::EngineUnreachable`] when there is no engine, or none that wharf can talk to.
    pub async fn reachable(&self) -> Result<EngineInfo, BackendError> {
        Ok(self.engine().await?.info.clone())
    }

    /// Whether an engine answers without making anybody wait who could do without it.
    pub async fn answers_soon(&self) -> bool {
        let asked = tokio::time::timeout(SOON, self.engine()).await;
        asked.is_ok_and(|engine| engine.is_ok())
    }

    async fn engine(&self) -> Result<&Engine, BackendError> {
        self.shared
            .engine
            .get_or_try_init(|| async {
                let is_late = &self.shared.is_late;
                let patience = if is_late.load(Ordering::Relaxed) {
                    SOON
                } else {
                    HELLO
                };
                let begun = Instant::now();
                let engine = Engine::connect(&self.shared.env, patience).await;
                is_late.store(
                    engine.is_err() && begun.elapsed() >= patience,
                    Ordering::Relaxed,
                );
                engine
            })
            .await
    }
}

impl Engine {
    async fn connect(env: &Env, patience: Duration) -> Result<Self, BackendError> {
        let endpoint = connect::endpoint(env).map_err(|error| {
            if let Some(name) = error.missing_context() {
                let name = name.to_owned();
                return BackendError::NoContext { name };
            }
            let asked = env.get("DOCKER_HOST").map(str::to_owned).or_else(|| {
                env.get("DOCKER_CONTEXT")
                    .map(|name| format!("context {name}"))
            });
            BackendError::EngineUnreachable {
                endpoint: asked.unwrap_or_else(|| "the current context".to_owned()),
                source: Box::new(error),
            }
        })?;
        let name = endpoint.to_string();
        let local = endpoint.is_local();
        let wire = Wire::new(endpoint, env);
        let unreachable = |error| fault::unreachable_engine(&name, error);
        let (version, newest) = tokio::time::timeout(patience, wire.hello())
            .await
            .map_err(|_| unreachable(bollard::errors::Error::RequestTimeoutError))?
            .map_err(unreachable)?;
        if newest < ApiVersion::OLDEST {
            return Err(BackendError::Unsupported(format!(
                "the Docker engine at {name} speaks API {newest}; wharf needs {} (Docker Engine 20.10) \
                 or newer",
                ApiVersion::OLDEST
            )));
        }
        let asked = env.get("DOCKER_API_VERSION").and_then(ApiVersion::parse);
        if let Some(asked) = asked.filter(|asked| *asked > newest) {
            return Err(BackendError::ApiTooNew {
                asked: asked.to_string(),
                newest: newest.to_string(),
                endpoint: name,
            });
        }
        let api = asked.unwrap_or(newest).min(ApiVersion::NEWEST);
        wire.speak(api);
        let transport = {
            let wire = Arc::clone(&wire);
            move |request| {
                let wire = Arc::clone(&wire);
                async move { wire.send(request).await }
            }
        };
        let docker = Docker::connect_with_custom_transport(
            transport,
            Some("http://docker"),
            PATIENCE.as_secs(),
            API_DEFAULT_VERSION,
        )
        .map_err(unreachable)?;
        Ok(Self {
            docker,
            wire,
            api,
            credentials: Arc::new(Credentials::load(env)),
            builder: build::Choice::of(env),
            proxies: proxies::variables(env, &name),
            platform: env.get("DOCKER_DEFAULT_PLATFORM").map(str::to_owned),
            ssh_agent: env.get("SSH_AUTH_SOCK").map(Into::into),
            info: EngineInfo {
                version,
                api: api.to_string(),
                endpoint: name.clone(),
                local,
            },
            direct: OnceCell::new_with((!local).then_some(false)),
        })
    }

    /// The error of a request that failed; `action` completes "the engine refused to …".
    fn refused(&self, action: impl Into<String>, error: bollard::errors::Error) -> BackendError {
        fault::refused(&self.info.endpoint, action, error)
    }

    /// Decodes the reply to a GET request.
    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<T, bollard::errors::Error> {
        let body = tokio::time::timeout(LOOK, self.wire.get(path))
            .await
            .map_err(|_| bollard::errors::Error::RequestTimeoutError)??;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Whether images are kept by containerd, which knows several platforms and attestations.
    async fn has_containerd_store(&self) -> bool {
        let info = self.get::<reply::Info>("/info").await;
        info.is_ok_and(|info| {
            info.driver_status
                .iter()
                .any(|(_, value)| value.starts_with("io.containerd.snapshotter"))
        })
    }

    /// Whether containers' own addresses can be reached from this machine: a local engine that is not
    /// rootless (whose network is behind a user-mode stack) and not in a virtual machine.
    async fn is_direct(&self) -> bool {
        *self
            .direct
            .get_or_init(|| async {
                cfg!(target_os = "linux")
                    && self.get::<reply::Info>("/info").await.is_ok_and(|info| {
                        !info.operating_system.contains("Docker Desktop")
                            && !info
                                .security_options
                                .iter()
                                .any(|option| option.contains("rootless"))
                    })
            })
            .await
    }
}

impl Backend for Containers {
    fn observe(&self, project: &str) -> impl Future<Output = Result<Vec<Instance>, BackendError>> {
        observe::project(self, project)
    }

    fn perform(
        &self,
        step: &Step,
        made: &Made,
        events: &Events,
    ) -> impl Future<Output = Result<Option<InstanceId>, BackendError>> {
        perform::step(self, step, made, events)
    }

    fn follow(
        &self,
        instances: &[Instance],
        options: &LogOptions,
        events: &Events,
    ) -> impl Future<Output = Result<(), BackendError>> {
        logs::follow(self, instances, options, events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_said_where() {
        let mut env = Env::default();
        let host = "unix:///nonexistent/engine.sock";
        env.variables
            .insert("DOCKER_HOST".to_owned(), host.to_owned());
        let error = Containers::new(&env).reachable().await.unwrap_err();
        let BackendError::EngineUnreachable { endpoint, source } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(endpoint, host);
        let kind = source
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        assert_eq!(kind, Some(std::io::ErrorKind::NotFound));
    }

    /// What a backend makes of a server whose replies have these headers.
    async fn met(headers: &'static str) -> Result<EngineInfo, BackendError> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut env = Env::default();
        env.variables
            .insert("DOCKER_HOST".to_owned(), format!("tcp://{address}"));
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            let reply = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nOK");
            stream.write_all(reply.as_bytes()).await.unwrap();
        });
        let met = Containers::new(&env).reachable().await;
        server.await.unwrap();
        met
    }

    #[tokio::test]
    async fn what_answers_must_be_an_engine_of_our_time() {
        let info = met("Api-Version: 1.60\r\nServer: Docker/30.1 (linux)\r\n")
            .await
            .unwrap();
        assert_eq!((info.version.as_str(), info.api.as_str()), ("30.1", "1.53"));
        assert!(info.local);
        let error = met("").await.unwrap_err();
        assert!(
            matches!(error, BackendError::EngineUnreachable { .. }),
            "{error:?}"
        );
        let error = met("Api-Version: 1.40\r\n").await.unwrap_err();
        assert!(error.to_string().contains("needs 1.41"), "{error}");
    }

    #[test]
    fn its_futures_can_move_between_threads() {
        fn check<T: Send>(_: &T) {}
        let containers = Containers::new(&Env::default());
        let (events, _received) = Events::channel();
        let made = Made::default();
        let step = Step {
            id: crate::plan::step::StepId(1),
            action: crate::plan::step::Action::RemoveNetwork {
                name: String::new(),
                project: String::new(),
            },
            cause: crate::plan::step::Cause::Missing,
            needs: Vec::new(),
        };
        check(&containers.observe("p"));
        check(&containers.perform(&step, &made, &events));
        check(&containers.follow(&[], &LogOptions::default(), &events));
    }
}
