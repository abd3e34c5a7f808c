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

/// The port of an engine with TLS.
const TLS_PORT: u16 = 2376;

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A socket of this machine.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
    /// `host:port` with TLS.
    Tls {
        /// `host:port`.
        authority: String,
        /// Who may answer, and who we are.
        files: TlsFiles,
    },
    /// Through the `docker` command of another machine.
    Ssh(SshHost),
}

/// The certificates of a connection, where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// Holds `ca.pem`, `cert.pem` and `key.pem`.
    pub directory: PathBuf,
    /// Whether the engine's certificate must be signed by `ca.pem`.
    pub verify: bool,
}

/// `ssh://[user@]host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SshHost {
    /// Who to be there.
    pub user: Option<String>,
    /// The machine; may be a name of the ssh configuration.
    pub host: String,
    /// Its port.
    pub port: Option<u16>,
    /// The engine's socket there, unless it is the usual one.
    pub socket: Option<String>,
}

impl Endpoint {
    /// Whether the engine publishes its ports on this machine.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Ssh(_) => false,
            Self::Tcp(authority) | Self::Tls { authority, .. } => {
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
            Self::Tcp(authority) | Self::Tls { authority, .. } => write!(f, "tcp://{authority}"),
            Self::Ssh(ssh) => {
                f.write_str("ssh://")?;
                if let Some(user) = &ssh.user {
                    write!(f, "{user}@")?;
                }
                f.write_str(&ssh.host)?;
                if let Some(port) = ssh.port {
                    write!(f, ":{port}")?;
                }
                f.write_str(ssh.socket.as_deref().unwrap_or_default())
            }
        }
    }
}

/// Why there is no address to connect to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The scheme is one that wharf does not speak.
    #[error("an engine is reached by unix://, tcp:// or ssh://, not by `{0}`")]
    Scheme(String),
    /// A named pipe, which only Windows has.
    #[error("`{0}` is a named pipe of Windows, which this system does not have")]
    Pipe(String),
    /// An ssh address that cannot be used.
    #[error("`{0}` is not of the form ssh://[USER@]HOST[:PORT][/SOCKET]")]
    Ssh(String),
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

impl ConnectError {
    /// The context that does not exist, where that is the reason.
    pub(super) fn missing_context(&self) -> Option<&str> {
        match self {
            Self::Context { name, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some(name)
            }
            Self::Scheme(_)
            | Self::Pipe(_)
            | Self::Ssh(_)
            | Self::Context { .. }
            | Self::NoEndpoint(_) => None,
        }
    }
}

/// Finds the engine's address.
pub(super) fn endpoint(env: &Env) -> Result<Endpoint, ConnectError> {
    let configuration = directory(env);
    if let Some(host) = env.get("DOCKER_HOST") {
        let verify = env.get("DOCKER_TLS_VERIFY").is_some();
        let directory = env
            .get("DOCKER_CERT_PATH")
            .map(|path| env.current_dir.join(path))
            .or(configuration);
        let tls = directory
            .filter(|_| verify || env.get("DOCKER_TLS").is_some())
            .map(|directory| TlsFiles { directory, verify });
        return parse(host, env, tls);
    }
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
    #[serde(rename = "SkipTLSVerify", default)]
    skip_verify: bool,
}

/// The address in a context's file, whose directory is named by the SHA-256 of the context's name.
fn of_context(name: &str, directory: &Path, env: &Env) -> Result<Endpoint, ConnectError> {
    let digest = hex(&Sha256::digest(name));
    let file = directory
        .join("contexts/meta")
        .join(&digest)
        .join("meta.json");
    let text = std::fs::read(&file).map_err(|source| ConnectError::Context {
        name: name.to_owned(),
        file: file.clone(),
        source,
    })?;
    let endpoint = serde_json::from_slice::<ContextFile>(&text)
        .ok()
        .and_then(|mut context| context.endpoints.remove("docker"))
        .filter(|endpoint| !endpoint.host.is_empty())
        .ok_or(ConnectError::NoEndpoint(file))?;
    let certificates = directory.join("contexts/tls").join(digest).join("docker");
    let tls = (endpoint.skip_verify || certificates.is_dir()).then_some(TlsFiles {
        directory: certificates,
        verify: !endpoint.skip_verify,
    });
    parse(&endpoint.host, env, tls)
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

/// Reads `unix://PATH`, `tcp://HOST[:PORT]` and `ssh://[USER@]HOST[:PORT][/SOCKET]`.
fn parse(host: &str, env: &Env, tls: Option<TlsFiles>) -> Result<Endpoint, ConnectError> {
    if let Some(path) = host.strip_prefix("unix://") {
        return Ok(Endpoint::Unix(env.current_dir.join(path)));
    }
    if let Some(rest) = host.strip_prefix("ssh://") {
        return ssh(rest).ok_or_else(|| ConnectError::Ssh(host.to_owned()));
    }
    if host.starts_with("npipe:") {
        return Err(ConnectError::Pipe(host.to_owned()));
    }
    let secure = host.strip_prefix("https://");
    let authority = secure
        .or_else(|| host.strip_prefix("tcp://"))
        .or_else(|| host.strip_prefix("http://"))
        .ok_or_else(|| ConnectError::Scheme(host.to_owned()))?
        .trim_end_matches('/');
    let with_port = |default: u16| {
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:{default}")
        }
    };
    let tls = tls.or_else(|| {
        let directory = directory(env).filter(|_| secure.is_some())?;
        let verify = true;
        Some(TlsFiles { directory, verify })
    });
    Ok(match tls {
        Some(files) => Endpoint::Tls {
            authority: with_port(TLS_PORT),
            files,
        },
        None => Endpoint::Tcp(with_port(PLAIN_PORT)),
    })
}

/// Reads what follows `ssh://`.
fn ssh(rest: &str) -> Option<Endpoint> {
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, authority),
    };
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
        _ => (host, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // ssh would take it for one of its options. A password cannot be given to ssh.
    let usable = !host.is_empty()
        && !host.starts_with('-')
        && user
            .as_deref()
            .is_none_or(|user| !user.is_empty() && !user.starts_with('-') && !user.contains(':'));
    usable.then(|| {
        Endpoint::Ssh(SshHost {
            user,
            host: host.to_owned(),
            port,
            socket: Some(path.to_owned()).filter(|path| path.len() > 1),
        })
    })
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
    fn ssh_addresses_are_taken_apart() {
        let read = |host: &str| endpoint(&env(&[("DOCKER_HOST", host)]));
        let found = read("ssh://me@build.example:2222/run/user/docker.sock").unwrap();
        assert_eq!(
            found,
            Endpoint::Ssh(SshHost {
                user: Some("me".to_owned()),
                host: "build.example".to_owned(),
                port: Some(2222),
                socket: Some("/run/user/docker.sock".to_owned()),
            })
        );
        assert!(!found.is_local());
        assert_eq!(
            found.to_string(),
            "ssh://me@build.example:2222/run/user/docker.sock"
        );
        assert_eq!(
            read("ssh://build").unwrap(),
            Endpoint::Ssh(SshHost {
                user: None,
                host: "build".to_owned(),
                port: None,
                socket: None,
            })
        );
        for host in [
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://a:b@c",
            "ssh://-l@c",
        ] {
            assert!(matches!(read(host), Err(ConnectError::Ssh(_))), "{host}");
        }
    }

    #[test]
    fn tls_is_spoken_where_it_is_asked_for() {
        let found = endpoint(&env(&[
            ("DOCKER_HOST", "tcp://127.0.0.1"),
            ("DOCKER_TLS_VERIFY", "1"),
            ("DOCKER_CERT_PATH", "/certs"),
        ]));
        let files = TlsFiles {
            directory: "/certs".into(),
            verify: true,
        };
        let authority = "127.0.0.1:2376".to_owned();
        assert_eq!(found.unwrap(), Endpoint::Tls { authority, files });
        let plain = endpoint(&env(&[
            ("DOCKER_HOST", "tcp://127.0.0.1"),
            ("DOCKER_CERT_PATH", "/certs"),
        ]));
        assert!(matches!(plain, Ok(Endpoint::Tcp(_))));
    }

    #[test]
    fn what_cannot_be_spoken_is_refused() {
        let read = |host: &str| endpoint(&env(&[("DOCKER_HOST", host)]));
        assert!(matches!(
            read("npipe:////./pipe/docker_engine"),
            Err(ConnectError::Pipe(_))
        ));
        assert!(matches!(read("fd://3"), Err(ConnectError::Scheme(_))));
    }
}
