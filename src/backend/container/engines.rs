//! All engines of this machine: who of them has a container on a port, and the stop of a container that
//! belongs to somebody else.
//!
//! Beside the engine that wharf works with there may be others whose containers hold ports: the system's, a
//! rootless one, Podman, those of other contexts. Each is asked for a moment only; one that is dead costs no
//! more than that. Remote engines publish on other machines and are not asked.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::query_parameters::KillContainerOptionsBuilder;
use futures_util::future::join_all;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::configured::Configured;
use super::connect;
use super::observe::{self, encoded};
use super::reply::Listed;
use super::swarm::{Service, kept_by_swarm};
use super::unreached::{Closed, is_absent, is_closed, was_there};
use super::whereabouts::{self, Whereabouts};
use super::{Containers, Engine, fault, labels, perform};
use crate::backend::BackendError;
use crate::port::attribute::Choosing;
use crate::port::holder::{ContainerFacts, Published, Removal};
use crate::port::one_line;
use crate::project::Env;

/// How long an engine gets to answer all that is asked about ports.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How long a container gets to end after a signal of the user's choice.
const GRACE: Duration = Duration::from_secs(10);

/// The pause between two looks at a container that is to end.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// On the tasks of a Swarm service: its name.
const SWARM_SERVICE: &str = "com.docker.swarm.service.name";
/// Variables that would lead a connection elsewhere than to the socket that is meant.
const LEADING: [&str; 5] = [
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_TLS_VERIFY",
    "DOCKER_TLS",
    "DOCKER_API_VERSION",
];

/// What the engines of this machine say about ports.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Every port that a running container or a Swarm service publishes here.
    pub published: Vec<Published>,
    /// Every running container.
    pub running: Vec<ContainerFacts>,
    /// Ports that stopped containers will publish when they are started; filled only where asked for.
    pub reserved: Vec<Published>,
    /// Ports of stopped containers for which the engine chooses one; filled with those.
    pub choosing: Vec<Choosing>,
    /// Where an engine should be that did not answer in time.
    pub silent: Vec<String>,
    /// Where the socket of an engine is that this user may not ask.
    pub closed: Vec<Closed>,
    /// The processes behind the engines that answered, as their sockets tell.
    pub daemons: BTreeSet<u32>,
    /// How many of Docker's engines answered.
    pub answered: usize,
    /// Engines that are not there although their socket is.
    pub dead: Vec<String>,
}

impl Census {
    /// Whether every engine that may be there has answered.
    pub fn is_complete(&self) -> bool {
        self.silent.is_empty() && self.closed.is_empty()
    }
}

impl Containers {
    /// Asks every engine of this machine; `reserved` asks for stopped containers, too. Never fails and
    /// never takes long: who does not answer is [`Census::silent`].
    pub async fn census(&self, reserved: bool) -> Census {
        let engines = everywhere(&self.shared.env);
        let answers = join_all(engines.iter().map(|(endpoint, env)| async move {
            let engine = env.as_ref().map_or_else(|| self.clone(), Self::new);
            let answer = tokio::time::timeout(PATIENCE, engine.count(reserved)).await;
            (endpoint, answer)
        }))
        .await;
        let mut census = Census::default();
        let mut seen = BTreeSet::new();
        for (endpoint, answer) in answers {
            match answer {
                Ok(Ok(one)) => census.add(one, &mut seen),
                Ok(Err(error)) if is_absent(&error) => {
                    if was_there(&error) {
                        census.dead.push(endpoint.clone());
                    }
                }
                Ok(Err(error)) if is_closed(&error) => census.closed.push(Closed::at(endpoint)),
                Ok(Err(_)) | Err(_) => census.silent.push(endpoint.clone()),
            }
        }
        census
    }

    /// What one engine says.
    async fn count(&self, reserved: bool) -> Result<Census, BackendError> {
        let engine = self.engine().await?;
        let refused = |error| engine.refused("list containers", error);
        // First what does not run: what begins to run in between is in both lists, and in neither the other way round.
        let (mut kept_for, mut choosing) = (Vec::new(), Vec::new());
        if reserved {
            (kept_for, choosing) = engine.reserved().await.map_err(refused)?;
        }
        let running: Vec<Listed> = engine.get("/containers/json").await.map_err(refused)?;
        let publishes = |port: &Published| {
            let mut same = running.iter().filter(|it| it.id == port.container.id);
            same.any(|it| it.ports.iter().any(|it| it.public_port == port.port))
        };
        kept_for.retain(|port| !publishes(port));
        let daemon = daemon(&engine.info.endpoint).await;
        let place = whereabouts::of(daemon);
        let mut census = Census {
            // Podman has no proxies, and knows nothing of those that Docker has left.
            answered: usize::from(!engine.info.endpoint.contains("podman")),
            daemons: daemon.into_iter().collect(),
            ..Census::default()
        };
        for entry in running {
            let facts = facts(&entry, &engine.info.endpoint);
            let kept = entry
                .labels
                .get(SWARM_SERVICE)
                .map(|service| kept_by_swarm(service));
            census
                .published
                .extend(entry.ports.iter().filter_map(|port| {
                    Some(Published {
                        container: facts.clone(),
                        ip: observe::address(&port.ip)?,
                        port: Some(port.public_port).filter(|port| *port != 0)?,
                        protocol: observe::protocol(&port.protocol)?,
                        kept: kept.clone(),
                        forwarded: place == Whereabouts::Forwarded,
                    })
                }));
            census.running.push(facts);
        }
        // An engine that is no manager of a swarm refuses, and has no services to tell of.
        let services: Vec<Service> = engine.get("/services").await.unwrap_or_default();
        for service in services {
            census
                .published
                .extend(service.published(&engine.info.endpoint));
        }
        (census.reserved, census.choosing) = (kept_for, choosing);
        if place == Whereabouts::Elsewhere {
            census.published.clear();
            census.reserved.clear();
            census.choosing.clear();
        }
        Ok(census)
    }

    /// The backend of the engine at `endpoint`, which a census named.
    #[must_use]
    pub fn at(&self, endpoint: &str) -> Self {
        everywhere(&self.shared.env)
            .into_iter()
            .find(|(other, _)| *other == endpoint)
            .and_then(|(_, env)| env)
            .map_or_else(|| self.clone(), |env| Self::new(&env))
    }

    /// What a stop of a container takes along, where its engine then removes it; `None` where it stays, and where
    /// the engine does not tell.
    pub async fn removal(&self, id: &str) -> Option<Removal> {
        let engine = self.engine().await.ok()?;
        let path = format!("/containers/{}/json", encoded(id));
        let found: Configured = engine.get(&path).await.ok()?;
        found.removal()
    }

    /// Stops a container that is not of this project, as `docker stop` does: its stop signal, its grace
    /// period (or `grace`), SIGKILL. With `signal`, that one comes first and has the grace period for itself.
    /// One that is gone or stopped already is no error.
    pub async fn stop_foreign(
        &self,
        id: &str,
        signal: Option<i32>,
        grace: Option<Duration>,
    ) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        if let Some(signal) = signal
            && engine.signal(id, signal, grace.unwrap_or(GRACE)).await?
        {
            return Ok(());
        }
        perform::stop(engine, id, id, grace).await
    }
}

impl Census {
    fn add(&mut self, one: Self, seen: &mut BTreeSet<String>) {
        // The same engine may listen in several places.
        let ids: BTreeSet<String> = one
            .published
            .iter()
            .chain(&one.reserved)
            .map(|port| &port.container.id)
            .chain(one.running.iter().map(|container| &container.id))
            .cloned()
            .collect();
        let is_new = |container: &ContainerFacts| !seen.contains(&container.id);
        let new = |port: &Published| is_new(&port.container);
        self.published
            .extend(one.published.into_iter().filter(&new));
        self.reserved.extend(one.reserved.into_iter().filter(&new));
        self.running.extend(one.running.into_iter().filter(is_new));
        let waiting = one.choosing.into_iter();
        self.choosing
            .extend(waiting.filter(|it| is_new(&it.container)));
        seen.extend(ids);
        self.daemons.extend(one.daemons);
        self.answered += one.answered;
    }
}

impl Engine {
    /// The ports that stopped containers are configured to publish, and those for which the engine chooses one.
    async fn reserved(&self) -> Result<(Vec<Published>, Vec<Choosing>), bollard::errors::Error> {
        // One that is restarted is listed among those that run, without its ports.
        let stopped = match self.in_state(&["created", "exited", "restarting"]).await {
            // Podman 4 refuses a state that it does not have.
            Err(bollard::errors::Error::DockerResponseServerError { .. }) => {
                self.in_state(&["created", "exited"]).await?
            }
            answer => answer?,
        };
        let found = join_all(stopped.iter().map(|entry| async {
            let path = format!("/containers/{}/json", encoded(&entry.id));
            // One that was removed meanwhile reserves nothing.
            let configured = self.get::<Configured>(&path).await.ok()?;
            let facts = facts(entry, &self.info.endpoint);
            let choosing = configured.choosing(&facts);
            Some((configured.published(&facts), choosing))
        }))
        .await;
        let (fixed, chosen): (Vec<_>, Vec<_>) = found.into_iter().flatten().unzip();
        Ok((fixed.concat(), chosen.concat()))
    }

    /// The containers in one of these states.
    async fn in_state(&self, states: &[&str]) -> Result<Vec<Listed>, bollard::errors::Error> {
        let filters = serde_json::json!({ "status": states }).to_string();
        let filters = encoded(&filters);
        self.get(&format!("/containers/json?all=true&filters={filters}"))
            .await
    }

    /// Sends a signal and waits until the container has ended, for `patience` at most; whether it has.
    async fn signal(
        &self,
        id: &str,
        signal: i32,
        patience: Duration,
    ) -> Result<bool, BackendError> {
        let options = KillContainerOptionsBuilder::new()
            .signal(&signal.to_string())
            .build();
        match self.docker.kill_container(id, Some(options)).await {
            Ok(()) => {}
            Err(error) if fault::is_missing(&error) || fault::has_status(&error, 409) => {
                return Ok(true);
            }
            Err(error) => return Err(self.refused(format!("signal {id}"), error)),
        }
        // Asked again and again: not every engine answers `wait` once the container has ended.
        let end = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < end {
            let now = observe::inspect(self, id)
                .await
                .map_err(|error| self.refused(format!("inspect {id}"), error))?;
            if now.is_none_or(|container| !container.state.running) {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(false)
    }
}

/// Who listens on an engine's socket: the process that made it listen.
async fn daemon(endpoint: &str) -> Option<u32> {
    let path = endpoint.strip_prefix("unix://")?;
    let stream = UnixStream::connect(path).await.ok()?;
    u32::try_from(stream.peer_cred().ok()?.pid()?).ok()
}

pub(super) fn facts(entry: &Listed, endpoint: &str) -> ContainerFacts {
    let label = |name: &str| entry.labels.get(name).map(String::as_str).map(one_line);
    ContainerFacts {
        id: entry.id.clone(),
        // Links add further names with a slash inside.
        name: entry
            .names
            .iter()
            .map(|name| name.trim_start_matches('/'))
            .find(|name| !name.contains('/'))
            .map(one_line)
            .unwrap_or_default(),
        image: one_line(&entry.image),
        command: one_line(&entry.command),
        project: label(labels::PROJECT),
        service: label(labels::SERVICE),
        created: entry.created,
        engine: endpoint.to_owned(),
        removal: None,
    }
}

/// Where engines of this machine may be: the address, and the environment that leads there where it is not
/// `env` itself. The one that wharf works with is the first; each socket is there once.
fn everywhere(env: &Env) -> Vec<(String, Option<Env>)> {
    let mut found: Vec<(String, Option<Env>)> = Vec::new();
    let mut known = BTreeSet::new();
    let mut add = |other: Option<Env>| {
        let Ok(endpoint) = connect::endpoint(other.as_ref().unwrap_or(env)) else {
            return;
        };
        let address = endpoint.to_string();
        let socket = address
            .strip_prefix("unix://")
            .map(|path| fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path)));
        let place = socket.map_or_else(|| address.clone(), |path| path.display().to_string());
        if endpoint.is_local() && known.insert(place) {
            found.push((address, other));
        }
    };
    add(None);
    for path in sockets(env) {
        if fs::metadata(&path).is_ok_and(|file| file.file_type().is_socket()) {
            let host = format!("unix://{}", path.display());
            add(Some(leading(env, "DOCKER_HOST", &host)));
        }
    }
    for name in contexts(env) {
        add(Some(leading(env, "DOCKER_CONTEXT", &name)));
    }
    found
}

/// The environment with one variable that says where the engine is.
pub(super) fn leading(env: &Env, name: &str, value: &str) -> Env {
    let mut env = env.clone();
    for name in LEADING {
        env.variables.remove(name);
    }
    env.variables.insert(name.to_owned(), value.to_owned());
    env
}

/// The usual places of engines' sockets. For root, those of every user's rootless engines.
pub(super) fn sockets(env: &Env) -> Vec<PathBuf> {
    let mut paths = vec![
        PathBuf::from("/var/run/docker.sock"),
        PathBuf::from("/run/podman/podman.sock"),
    ];
    let mut runtime: Vec<PathBuf> = env
        .get("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    runtime.extend(
        fs::read_dir("/run/user")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path())),
    );
    for directory in runtime {
        paths.push(directory.join("docker.sock"));
        paths.push(directory.join("podman/podman.sock"));
    }
    if let Some(home) = env.get("HOME").map(Path::new) {
        for place in [
            ".docker/run/docker.sock",
            ".docker/desktop/docker.sock",
            ".colima/default/docker.sock",
            ".rd/docker.sock",
            ".orbstack/run/docker.sock",
        ] {
            paths.push(home.join(place));
        }
    }
    // Podman's own variable.
    paths.extend(
        env.get("CONTAINER_HOST")
            .and_then(|host| host.strip_prefix("unix://"))
            .map(PathBuf::from),
    );
    paths
}

/// The names of all contexts of the Docker CLI, sorted.
pub(super) fn contexts(env: &Env) -> Vec<String> {
    #[derive(Deserialize)]
    struct Context {
        #[serde(rename = "Name")]
        name: String,
    }
    let Some(directory) = connect::directory(env) else {
        return Vec::new();
    };
    let mut names: Vec<String> = fs::read_dir(directory.join("contexts/meta"))
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let file = fs::read(entry.ok()?.path().join("meta.json")).ok()?;
            Some(serde_json::from_slice::<Context>(&file).ok()?.name)
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_asked_once_however_often_it_is_named() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("docker.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut env = Env {
            current_dir: "/".into(),
            ..Env::default()
        };
        let mut set = |name: &str, value: String| drop(env.variables.insert(name.into(), value));
        set("HOME", home.path().display().to_string());
        set("XDG_RUNTIME_DIR", home.path().display().to_string());
        set("DOCKER_HOST", format!("unix://{}", socket.display()));
        let found = everywhere(&env);
        let here: Vec<&String> = found
            .iter()
            .map(|(address, _)| address)
            .filter(|address| address.contains(&home.path().display().to_string()))
            .collect();
        assert_eq!(here, [&format!("unix://{}", socket.display())]);
        assert!(found.first().is_some_and(|(_, first)| first.is_none()));
    }

    #[test]
    fn labels_and_commands_are_one_line() {
        let listed: Listed = serde_json::from_str(
            r#"{"Id":"a","Names":["/web"],"Image":"nginx","Command":"sh -c 'a\nb'",
               "Labels":{"com.docker.compose.project":"p\u001b[31m\nport 2/tcp is free"}}"#,
        )
        .unwrap();
        let facts = facts(&listed, "unix:///x");
        assert_eq!(facts.command, "sh -c 'a b'");
        let project = facts.project.unwrap();
        assert_eq!(project, "p [31m port 2/tcp is free");
    }

    #[test]
    fn what_a_stopped_container_publishes_is_read() {
        let configured: Configured = serde_json::from_str(
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}],"53/udp":[{"HostIp":"127.0.0.1","HostPort":"53"}],"81/tcp":null}}}"#,
        )
        .unwrap();
        let facts = ContainerFacts::named("web");
        let ports: Vec<(String, u16)> = configured
            .published(&facts)
            .iter()
            .map(|port| (port.ip.to_string(), port.port))
            .collect();
        assert_eq!(
            ports,
            [("127.0.0.1".to_owned(), 53), ("0.0.0.0".to_owned(), 8080)]
        );
    }
}
