//! All engines that can be found from here, and what each can do: facts for `wharf doctor`. Judges nothing.
//!
//! All are asked at the same time and for two seconds at most. A remote engine that is not the current one is
//! listed and not asked: an ssh that nobody expects may ask for a passphrase.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use futures_util::future::join_all;
use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups};

use super::connect::{self, Endpoint};
use super::credentials::Credentials;
use super::engines::{PATIENCE, contexts, leading, sockets};
use super::unreached::is_absent;
use super::{Containers, Engine, HELLO, buildkit, reply};
use crate::backend::{BackendError, in_one_line};
use crate::project::Env;
use crate::users;

/// One engine, or the place where one should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its address.
    pub endpoint: String,
    /// What leads to it: `the current one`, `context x`, `its usual socket`.
    pub found: Vec<String>,
    /// Whether it is the one that commands work with.
    pub current: bool,
    /// Whether it is reached over a unix socket of this machine.
    pub unix: bool,
    /// Whether its published ports are ports of this machine.
    pub local: bool,
    /// What it said.
    pub answer: Answer,
}

/// What an engine said when it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It works.
    Engine(Box<Abilities>),
    /// Its socket is closed to us.
    NotPermitted(SocketFacts),
    /// Nobody listens there.
    Absent,
    /// It did not answer in time.
    Silent,
    /// It is too old; in words.
    TooOld(String),
    /// It is on another machine and not the current one.
    NotAsked,
    /// Anything else; in words.
    Failed(String),
}

/// An engine that works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// `Docker` or `Podman`.
    pub product: String,
    /// For example `20.10.24`.
    pub version: String,
    /// The API version spoken with it.
    pub api: (u32, u32),
    /// As it calls it.
    pub operating_system: String,
    /// The release of its kernel.
    pub kernel: String,
    /// Whether it runs without root.
    pub rootless: bool,
    /// Whether containers' users are others than they say (`userns-remap`).
    pub remapped: bool,
    /// Its cgroup version, `1` or `2`.
    pub cgroup_version: String,
    /// `systemd`, `cgroupfs` or `none`.
    pub cgroup_driver: String,
    /// Whether its `BuildKit` can be spoken to.
    pub buildkit: bool,
    /// Whether images are kept by containerd.
    pub containerd_store: bool,
}

/// Who may use a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFacts {
    /// Where it is.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner's name or id.
    pub owner: String,
    /// Its group's name or id.
    pub group: String,
    /// Whether this process is in the group.
    pub in_group: bool,
    /// Whether the user is in the group by the system's files: a new login would be.
    pub listed: bool,
    /// Who we are.
    pub user: String,
}

/// A credential helper that the Docker configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// The program.
    pub program: String,
    /// The registries it is for; `*`: all others.
    pub registries: Vec<String>,
    /// Whether it is in `PATH`.
    pub found: bool,
}

/// An engine to ask, and the environment that leads to it.
struct Place {
    endpoint: Endpoint,
    found: Vec<String>,
    current: bool,
    env: Env,
}

impl Containers {
    /// Asks every engine. Never fails: what could not be learnt is part of the answer.
    pub async fn survey(&self) -> Vec<EngineFacts> {
        let (places, mut facts) = places(&self.shared.env);
        facts.extend(join_all(places.into_iter().map(ask)).await);
        facts.sort_by_key(|engine| !engine.current);
        facts
    }

    /// The credential helpers that the Docker configuration names.
    pub fn credential_helpers(&self) -> Vec<Helper> {
        let env = &self.shared.env;
        Credentials::load(env)
            .programs()
            .into_iter()
            .map(|(program, registries)| Helper {
                found: in_path(&program, env.get("PATH")),
                program,
                registries,
            })
            .collect()
    }

    /// The Docker configuration directory, if there is a home to look for it in.
    pub fn configuration(&self) -> Option<PathBuf> {
        connect::directory(&self.shared.env)
    }
}

/// The current engine first; each socket once. What has no address at all is a fact already.
fn places(env: &Env) -> (Vec<Place>, Vec<EngineFacts>) {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let mut facts = Vec::new();
    let mut add = |endpoint: Endpoint, found: String, current: bool, env: Env| {
        let key = match &endpoint {
            Endpoint::Unix(path) => fs::canonicalize(path)
                .unwrap_or_else(|_| path.clone())
                .display()
                .to_string(),
            Endpoint::Tcp(_) | Endpoint::Tls { .. } | Endpoint::Ssh(_) => endpoint.to_string(),
        };
        let place = places.entry(key).or_insert(Place {
            endpoint,
            found: Vec::new(),
            current,
            env,
        });
        place.found.push(found);
    };
    match connect::endpoint(env) {
        Ok(endpoint) => add(endpoint, how(env), true, env.clone()),
        Err(error) => facts.push(EngineFacts {
            endpoint: env.get("DOCKER_HOST").unwrap_or("-").to_owned(),
            found: vec![how(env)],
            current: true,
            unix: false,
            local: false,
            answer: Answer::Failed(error.to_string()),
        }),
    }
    for path in sockets(env) {
        if fs::metadata(&path).is_ok_and(|file| file.file_type().is_socket()) {
            let host = format!("unix://{}", path.display());
            let leading = leading(env, "DOCKER_HOST", &host);
            if let Ok(endpoint) = connect::endpoint(&leading) {
                add(endpoint, "its usual socket".to_owned(), false, leading);
            }
        }
    }
    for name in contexts(env) {
        let leading = leading(env, "DOCKER_CONTEXT", &name);
        if let Ok(endpoint) = connect::endpoint(&leading) {
            add(endpoint, format!("context {name}"), false, leading);
        }
    }
    (places.into_values().collect(), facts)
}

/// What makes an engine the current one.
fn how(env: &Env) -> String {
    match (env.get("DOCKER_HOST"), env.get("DOCKER_CONTEXT")) {
        (Some(_), _) => "DOCKER_HOST".to_owned(),
        (None, Some(name)) => format!("DOCKER_CONTEXT={name}"),
        (None, None) => "the current context".to_owned(),
    }
}

async fn ask(place: Place) -> EngineFacts {
    let (endpoint, local) = (place.endpoint.to_string(), place.endpoint.is_local());
    let answer = if local || place.current {
        let asked = tokio::time::timeout(PATIENCE, Box::pin(answer(&place.env))).await;
        match asked {
            Err(_) => Answer::Silent,
            Ok(Ok(abilities)) => Answer::Engine(Box::new(abilities)),
            Ok(Err(BackendError::Unsupported(words))) => Answer::TooOld(words),
            Ok(Err(error)) if is_absent(&error) => Answer::Absent,
            Ok(Err(error)) => match socket_facts(&place.endpoint, &error) {
                Some(facts) => Answer::NotPermitted(facts),
                None => Answer::Failed(in_one_line(&error)),
            },
        }
    } else {
        Answer::NotAsked
    };
    EngineFacts {
        unix: matches!(place.endpoint, Endpoint::Unix(_)),
        endpoint,
        found: place.found,
        current: place.current,
        local,
        answer,
    }
}

async fn answer(env: &Env) -> Result<Abilities, BackendError> {
    let engine = Engine::connect(env, HELLO).await?;
    let (info, buildkit, product) = tokio::join!(
        engine.get::<reply::Info>("/info"),
        buildkit::reach(&engine),
        engine.product(),
    );
    let mut abilities = Abilities {
        product,
        version: engine.info.version.clone(),
        api: engine.api.numbers(),
        // One that has none refuses, and so does one that is being shut down.
        buildkit: buildkit.is_ok_and(|found| found.is_some()),
        ..Abilities::default()
    };
    if let Ok(info) = info {
        let has = |word: &str| {
            info.security_options
                .iter()
                .any(|option| option.contains(word))
        };
        abilities.rootless = has("rootless");
        abilities.remapped = has("name=userns");
        abilities.containerd_store = info
            .driver_status
            .iter()
            .any(|(_, value)| value.starts_with("io.containerd.snapshotter"));
        abilities.operating_system = info.operating_system;
        abilities.kernel = info.kernel_version;
        abilities.cgroup_version = info.cgroup_version;
        abilities.cgroup_driver = info.cgroup_driver;
    }
    Ok(abilities)
}

impl Engine {
    /// Who made it, by the name that its server has.
    async fn product(&self) -> String {
        let request = hyper::Request::builder()
            .uri("/_ping")
            .body(bollard::body_full(hyper::body::Bytes::new()));
        let Ok(request) = request else {
            return "Docker".to_owned();
        };
        let response = self.wire.checked(request).await;
        let is_podman = response.is_ok_and(|response| {
            let server = response.headers().get("Server");
            server.is_some_and(|name| name.as_bytes().starts_with(b"Libpod"))
        });
        if is_podman { "Podman" } else { "Docker" }.to_owned()
    }
}

/// The socket's facts if it is closed to us.
fn socket_facts(endpoint: &Endpoint, error: &BackendError) -> Option<SocketFacts> {
    let (Endpoint::Unix(path), BackendError::EngineUnreachable { source, .. }) = (endpoint, error)
    else {
        return None;
    };
    let refused = source
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    if !refused {
        return None;
    }
    let uid = geteuid();
    let user = users::user_with_id(uid);
    let name = user.map_or_else(|| uid.to_string(), |user| user.name);
    // A directory on the way may be closed as well: then there is nothing to be learnt about the socket.
    let file = fs::metadata(path).ok();
    let gid = file.as_ref().map(|file| Gid::from_raw(file.gid()));
    let group = gid.and_then(users::group_with_id);
    let owner = file.as_ref().map(|file| {
        let uid = Uid::from_raw(file.uid());
        let owner = users::user_with_id(uid);
        owner.map_or_else(|| uid.to_string(), |owner| owner.name)
    });
    Some(SocketFacts {
        path: path.clone(),
        mode: file.as_ref().map_or(0, |file| file.mode() & 0o777),
        owner: owner.unwrap_or_else(|| "?".to_owned()),
        in_group: gid.is_some_and(|gid| {
            gid == getegid() || getgroups().is_ok_and(|groups| groups.contains(&gid))
        }),
        listed: group
            .as_ref()
            .is_some_and(|group| group.mem.contains(&name)),
        group: group.map_or_else(
            || gid.map_or_else(|| "?".to_owned(), |gid| gid.to_string()),
            |group| group.name,
        ),
        user: name,
    })
}

/// Whether a program is in `PATH` and may be run.
fn in_path(program: &str, path: Option<&str>) -> bool {
    let Some(path) = path else { return false };
    std::env::split_paths(path).any(|directory| {
        let file = fs::metadata(directory.join(program));
        file.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn env(home: &Path, variables: &[(&str, &str)]) -> Env {
        let mut env = Env {
            current_dir: home.to_owned(),
            ..Env::default()
        };
        env.variables
            .insert("HOME".to_owned(), home.display().to_string());
        for (name, value) in variables {
            env.variables
                .insert((*name).to_owned(), (*value).to_owned());
        }
        env
    }

    #[tokio::test]
    async fn a_socket_that_two_ways_lead_to_is_asked_once() {
        let home = tempfile::tempdir().unwrap();
        let real = home.path().join(".docker/run/docker.sock");
        fs::create_dir_all(real.parent().unwrap()).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&real).unwrap();
        let link = home.path().join("link.sock");
        symlink(&real, &link).unwrap();
        let host = format!("unix://{}", link.display());
        let found = places(&env(home.path(), &[("DOCKER_HOST", &host)])).0;
        let own: Vec<&Place> = found
            .iter()
            .filter(|place| {
                place
                    .endpoint
                    .to_string()
                    .contains(&*home.path().to_string_lossy())
            })
            .collect();
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].found, ["DOCKER_HOST", "its usual socket"]);
        assert!(own[0].current);
    }

    #[tokio::test]
    async fn what_is_no_engine_is_said_to_be_so() {
        let home = tempfile::tempdir().unwrap();
        let host = format!("unix://{}/none.sock", home.path().display());
        let containers = Containers::new(&env(home.path(), &[("DOCKER_HOST", &host)]));
        let facts = containers.survey().await;
        assert_eq!(
            (facts[0].current, &facts[0].answer),
            (true, &Answer::Absent)
        );
        let containers = Containers::new(&env(home.path(), &[("DOCKER_HOST", "fax://1")]));
        let facts = containers.survey().await;
        assert!(
            matches!(&facts[0].answer, Answer::Failed(why) if why.contains("fax")),
            "{facts:?}"
        );
    }

    #[test]
    fn helpers_are_looked_for_in_the_path() {
        let home = tempfile::tempdir().unwrap();
        let configuration = home.path().join(".docker");
        fs::create_dir_all(&configuration).unwrap();
        let text = r#"{"credsStore":"here","credHelpers":{"r.example":"gone","s.example":"gone"}}"#;
        fs::write(configuration.join("config.json"), text).unwrap();
        let program = home.path().join("docker-credential-here");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let path = home.path().display().to_string();
        let helpers = Containers::new(&env(home.path(), &[("PATH", &path)])).credential_helpers();
        let found: Vec<(&str, bool, usize)> = helpers
            .iter()
            .map(|helper| {
                (
                    helper.program.as_str(),
                    helper.found,
                    helper.registries.len(),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("docker-credential-gone", false, 2),
                ("docker-credential-here", true, 1)
            ]
        );
    }
}
