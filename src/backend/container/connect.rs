//! Where the engine is: from the environment and the Docker configuration files to an address.
//!
//! The order is the Docker CLI's: `DOCKER_HOST`, `DOCKER_CONTEXT`, `currentContext` of `config.json`,
//! the default socket. Reads two small files and connects to nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::project::Env;

/// The socket of an engine that nobody said anything about.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The port of an engine without TLS.
const PLAIN_PORT: u16 = 2375;

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A socket of this machine.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
}

impl Endpoint {
    /// Whether the engine publishes its ports on this machine.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(authority) => {
                let host = authority
                    .rsplit_once(':')
                    .map_or(authority.as_str(), |(host, _)| host)
                    .trim_matches(['[', ']']);
                host == "localhost"
                    || host
                        .parse::<std::net::IpAddr>()
                        .is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
        }
    }
}

/// Why there is no address to connect to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The scheme is one that wharf does not speak.
    #[error("an engine is reached by unix:// or tcp:// without TLS, not by `{0}`")]
    Scheme(String),
    /// `DOCKER_CONTEXT` or `currentContext` names what is not there.
    #[error("the Docker context `{name}` has no readable {}", .file.display())]
    Context {
        /// The context.
        name: String,
        /// Where it should be.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file of a context says nothing about an engine.
    #[error("{} names no Docker endpoint", .0.display())]
    NoEndpoint(PathBuf),
}

/// Finds the engine's address.
pub(super) fn endpoint(env: &Env) -> Result<Endpoint, ConnectError> {
    if let Some(host) = env.get("DOCKER_HOST") {
        return parse(host, env);
    }
    let configuration = directory(env);
    let context = env.get("DOCKER_CONTEXT").map(str::to_owned).or_else(|| {
        let text = std::fs::read(configuration.as_ref()?.join("config.json")).ok()?;
        // A file that the Docker CLI cannot read either only costs a warning there.
        serde_json::from_slice::<ConfigFile>(&text)
            .ok()?
            .current_context
    });
    match (context.as_deref(), configuration) {
        (Some(name), Some(directory)) if !name.is_empty() && name != "default" => {
            of_context(name, &directory, env)
        }
        _ => Ok(Endpoint::Unix(PathBuf::from(DEFAULT_SOCKET))),
    }
}

/// The Docker configuration directory, if there is a home to look for it in.
pub(super) fn directory(env: &Env) -> Option<PathBuf> {
    env.get("DOCKER_CONFIG")
        .map(|path| env.current_dir.join(path))
        .or_else(|| env.get("HOME").map(|home| Path::new(home).join(".docker")))
}

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

#[derive(Deserialize)]
struct ContextFile {
    #[serde(rename = "Endpoints", default)]
    endpoints: std::collections::BTreeMap<String, ContextEndpoint>,
}

#[derive(Deserialize)]
struct ContextEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
}

/// The address in a context's file, whose directory is named by the SHA-256 of the context's name.
fn of_context(name: &str, directory: &Path, env: &Env) -> Result<Endpoint, ConnectError> {
    let file = directory
        .join("contexts/meta")
        .join(hex(&Sha256::digest(name)))
        .join("meta.json");
    let text = std::fs::read(&file).map_err(|source| ConnectError::Context {
        name: name.to_owned(),
        file: file.clone(),
        source,
    })?;
    let host = serde_json::from_slice::<ContextFile>(&text)
        .ok()
        .and_then(|mut context| context.endpoints.remove("docker"))
        .map(|endpoint| endpoint.host)
        .filter(|host| !host.is_empty())
        .ok_or(ConnectError::NoEndpoint(file))?;
    parse(&host, env)
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Reads `unix://PATH` and `tcp://HOST[:PORT]`.
fn parse(host: &str, env: &Env) -> Result<Endpoint, ConnectError> {
    if let Some(path) = host.strip_prefix("unix://") {
        return Ok(Endpoint::Unix(env.current_dir.join(path)));
    }
    let authority = host
        .strip_prefix("tcp://")
        .or_else(|| host.strip_prefix("http://"))
        .ok_or_else(|| ConnectError::Scheme(host.to_owned()))?
        .trim_end_matches('/');
    if env.get("DOCKER_TLS_VERIFY").is_some() {
        return Err(ConnectError::Scheme(format!("{host} with TLS")));
    }
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(Endpoint::Tcp(if has_port {
        authority.to_owned()
    } else {
        format!("{authority}:{PLAIN_PORT}")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(variables: &[(&str, &str)]) -> Env {
        Env {
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            current_dir: PathBuf::from("/"),
        }
    }

    #[test]
    fn nothing_said_means_the_default_socket() {
        assert_eq!(
            endpoint(&env(&[])).unwrap(),
            Endpoint::Unix(DEFAULT_SOCKET.into())
        );
    }

    #[test]
    fn docker_host_wins_over_every_context() {
        let found = endpoint(&env(&[
            ("DOCKER_HOST", "tcp://127.0.0.1"),
            ("DOCKER_CONTEXT", "elsewhere"),
        ]));
        let found = found.unwrap();
        assert_eq!(found, Endpoint::Tcp("127.0.0.1:2375".into()));
        assert!(found.is_local());
        assert!(!Endpoint::Tcp("192.0.2.7:2375".into()).is_local());
        assert!(Endpoint::Tcp("[::1]:2375".into()).is_local());
    }

    #[test]
    fn the_current_context_is_read_from_the_configuration() {
        let home = tempfile::tempdir().unwrap();
        let docker = home.path().join(".docker");
        let meta = docker
            .join("contexts/meta")
            .join(hex(&Sha256::digest("far")));
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(docker.join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"far","Endpoints":{"docker":{"Host":"unix:///run/far.sock"}}}"#,
        )
        .unwrap();
        let home = home.path().display().to_string();
        assert_eq!(
            endpoint(&env(&[("HOME", &home)])).unwrap(),
            Endpoint::Unix("/run/far.sock".into())
        );
        assert!(matches!(
            endpoint(&env(&[("HOME", &home), ("DOCKER_CONTEXT", "near")])),
            Err(ConnectError::Context { name, .. }) if name == "near"
        ));
        assert_eq!(
            endpoint(&env(&[("HOME", &home), ("DOCKER_CONTEXT", "default")])).unwrap(),
            Endpoint::Unix(DEFAULT_SOCKET.into())
        );
    }

    #[test]
    fn what_cannot_be_spoken_is_refused() {
        for variables in [
            &[("DOCKER_HOST", "ssh://build@example.org")][..],
            &[
                ("DOCKER_HOST", "tcp://127.0.0.1:2376"),
                ("DOCKER_TLS_VERIFY", "1"),
            ],
        ] {
            assert!(matches!(
                endpoint(&env(variables)),
                Err(ConnectError::Scheme(_))
            ));
        }
    }
}
