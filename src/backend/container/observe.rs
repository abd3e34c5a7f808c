//! What exists: containers of the engine as [`Instance`]s.
//!
//! Only looks. A container that vanishes between the list and its inspection was never there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bollard::errors::Error;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::reply::{Binding, Inspected, Listed, State, unix_seconds};
use super::{Containers, Engine, fault, labels};
use crate::backend::BackendError;
use crate::naming::{HOOK, PRE_START, Role};
use crate::port::claim::Protocol;
use crate::state::{
    BackendKind, Fingerprint, Health, Instance, InstanceId, PortSpan, Publisher, Readiness, Status,
};

/// Inspections under way at once.
const WIDTH: usize = 16;

/// The containers of a project, one-off ones too and relays not, as Docker Compose finds them: by its label, and
/// by having been made from a configuration.
pub(super) async fn project(
    containers: &Containers,
    project: &str,
) -> Result<Vec<Instance>, BackendError> {
    having(containers, &[&of(project), labels::CONFIG_HASH]).await
}

fn of(project: &str) -> String {
    format!("{}={project}", labels::PROJECT)
}

/// The containers that have all these labels, in order; relays left out.
async fn having(containers: &Containers, labels: &[&str]) -> Result<Vec<Instance>, BackendError> {
    let engine = containers.engine().await?;
    let listed = list(engine, labels)
        .await
        .map_err(|error| engine.refused("list containers", error))?;
    let services = listed
        .into_iter()
        .filter(|entry| Role::of(&entry.labels).is_none());
    let mut instances: Vec<Instance> = stream::iter(services)
        .map(|entry| async move { inspect(engine, &entry.id).await })
        .buffer_unordered(WIDTH)
        .try_filter_map(|inspected| async { Ok(inspected.map(instance)) })
        .try_collect()
        .await
        .map_err(|error| engine.refused("inspect containers", error))?;
    instances.sort_by(|a, b| (&a.service, a.number, &a.name).cmp(&(&b.service, b.number, &b.name)));
    Ok(instances)
}

impl Containers {
    /// The containers of a project that run what comes before a service's first start. Like Docker Compose's, they are
    /// not among its instances: they were made from no configuration.
    ///
    /// # Errors
    /// When the engine does not answer, or refuses.
    pub async fn preparing(&self, project: &str) -> Result<Vec<Instance>, BackendError> {
        let is_hook = format!("{HOOK}={PRE_START}");
        having(self, &[&of(project), &is_hook]).await
    }

    /// When the present run of a container has begun, in seconds of Unix time; `None` where the engine does not tell.
    pub(in crate::backend) async fn started(&self, id: &str) -> Option<i64> {
        let engine = self.engine().await.ok()?;
        let inspected = inspect(engine, id).await.ok().flatten()?;
        unix_seconds(&inspected.state.started_at)
    }
}

/// Lists the containers that have all these labels, whatever their state.
pub(super) async fn list(engine: &Engine, having: &[&str]) -> Result<Vec<Listed>, Error> {
    let filters = serde_json::json!({ "label": having }).to_string();
    engine
        .get(&format!(
            "/containers/json?all=true&filters={}",
            encoded(&filters)
        ))
        .await
}

/// Inspects one container; `None` if there is none.
pub(super) async fn inspect(engine: &Engine, id: &str) -> Result<Option<Inspected>, Error> {
    match engine
        .get(&format!("/containers/{}/json", encoded(id)))
        .await
    {
        Ok(inspected) => Ok(Some(inspected)),
        Err(error) if fault::is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Percent-encodes a path segment or query value (RFC 3986 §2.3: everything that is not unreserved).
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn instance(inspected: Inspected) -> Instance {
    let status = status(&inspected.state);
    let alive = status.is_alive();
    let labels = inspected.config.labels;
    let label = |name: &str| labels.get(name).cloned();
    let publishers = publishers(&inspected.network_settings.ports);
    let readiness = label(labels::READY)
        .and_then(|text| serde_json::from_str::<Readiness>(&text).ok())
        .map(|ready| located(ready, &publishers));
    Instance {
        id: InstanceId(inspected.id),
        name: inspected.name.trim_start_matches('/').to_owned(),
        project: label(labels::PROJECT).unwrap_or_default(),
        service: label(labels::SERVICE).unwrap_or_default(),
        number: label(labels::NUMBER)
            .and_then(|number| number.parse().ok())
            .unwrap_or(0),
        backend: BackendKind::Container,
        fingerprint: label(labels::CONFIG_HASH).map(Fingerprint),
        status,
        health: inspected
            .state
            .health
            .as_ref()
            .filter(|_| alive)
            .and_then(|health| verdict(&health.status)),
        pid: Some(inspected.state.pid).filter(|pid| *pid != 0),
        image: inspected.config.image,
        command: std::iter::once(inspected.path)
            .chain(inspected.args)
            .collect(),
        created: unix_seconds(&inspected.created).unwrap_or(0),
        started: unix_seconds(&inspected.state.started_at),
        finished: unix_seconds(&inspected.state.finished_at),
        publishers,
        asked_ports: asked_ports(&inspected.host_config.port_bindings),
        last_code: None,
        survivors: None,
        ending: false,
        networks: inspected.network_settings.networks.into_keys().collect(),
        shares_network_of: home(&inspected.host_config.network_mode),
        volumes: inspected
            .mounts
            .into_iter()
            .filter(|mount| mount.kind == "volume")
            .map(|mount| mount.name)
            .collect(),
        one_off: label(labels::ONE_OFF).is_some_and(|value| value == "True")
            || label(HOOK).is_some(),
        stop_grace: inspected
            .config
            .stop_timeout
            .and_then(|seconds| u64::try_from(seconds).ok()),
        readiness,
        labels,
    }
}

/// The container in whose network another one is, by that one's network mode.
pub(super) fn home(mode: &str) -> Option<InstanceId> {
    let id = mode.strip_prefix("container:")?;
    // What was made with a name has the id: an engine looks it up at once.
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| InstanceId(id.to_owned()))
}

/// The engine's word for a state, Podman's among them.
pub(super) fn status(state: &State) -> Status {
    match state.status.as_str() {
        "created" | "configured" | "initialized" => Status::Created,
        "running" | "stopping" => Status::Running,
        "paused" => Status::Paused,
        "restarting" => Status::Restarting,
        "removing" => Status::Removing,
        "dead" => Status::Dead,
        _ if state.running => Status::Running,
        _ => Status::Exited {
            code: exit_code(state),
        },
    }
}

/// The exit code; the engine's type is wider than any code.
pub(super) fn exit_code(state: &State) -> i32 {
    i32::try_from(state.exit_code).unwrap_or(i32::MAX)
}

/// The engine's word for a healthcheck's verdict; `None` when there is no check.
pub(super) fn verdict(word: &str) -> Option<Health> {
    match word {
        "starting" => Some(Health::Starting),
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        _ => None,
    }
}

pub(super) fn publishers(ports: &BTreeMap<String, Option<Vec<Binding>>>) -> Vec<Publisher> {
    let mut publishers: Vec<Publisher> = ports
        .iter()
        .filter_map(|(key, bindings)| {
            let (target, protocol) = target(key)?;
            Some((target, protocol, bindings.as_deref().unwrap_or_default()))
        })
        .flat_map(|(target, protocol, bindings)| {
            let unpublished = bindings.is_empty().then_some(Publisher {
                ip: None,
                target,
                published: 0,
                protocol,
            });
            let published = bindings.iter().filter_map(move |binding| {
                Some(Publisher {
                    ip: Some(address(&binding.host_ip)?),
                    target,
                    published: binding.host_port.parse().ok()?,
                    protocol,
                })
            });
            published.chain(unpublished)
        })
        .collect();
    publishers.sort();
    publishers.dedup();
    publishers
}

/// The ports of the host that a container is to have: a range, or none named, is left to the engine.
fn asked_ports(bindings: &BTreeMap<String, Option<Vec<Binding>>>) -> Vec<PortSpan> {
    let span = |port: &str| {
        let (first, last) = port.split_once('-').unwrap_or((port, port));
        Some(PortSpan {
            first: first.parse().ok().filter(|port| *port != 0)?,
            last: last.parse().ok()?,
        })
    };
    let all = bindings.values().flatten().flatten();
    all.map(|binding| span(&binding.host_port).unwrap_or(PortSpan::ANY))
        .collect()
}

/// Reads `80/tcp`.
fn target(key: &str) -> Option<(u16, Protocol)> {
    let (port, word) = key.split_once('/').unwrap_or((key, "tcp"));
    Some((port.parse().ok()?, protocol(word)?))
}

/// The engine's word for a transport; `None` for one that wharf has no claims on (SCTP).
pub(super) fn protocol(word: &str) -> Option<Protocol> {
    match word {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// A binding's host address; the engine leaves it empty for the wildcard.
pub(super) fn address(text: &str) -> Option<std::net::IpAddr> {
    if text.is_empty() {
        return Some(std::net::Ipv4Addr::UNSPECIFIED.into());
    }
    text.parse().ok()
}

/// Puts in the host's port where the engine chose it.
pub(super) fn located(mut ready: Readiness, publishers: &[Publisher]) -> Readiness {
    if ready.address.port() == 0
        && let Some(found) = publishers
            .iter()
            .find(|port| port.target == ready.target && port.published != 0)
    {
        ready.address = concrete(found);
    }
    ready
}

/// Where a published port can be connected to: a wildcard is reached by its loopback address.
pub(super) fn concrete(port: &Publisher) -> SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let ip = match port.ip {
        Some(ip) if !ip.is_unspecified() => ip,
        Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
        Some(IpAddr::V4(_)) | None => Ipv4Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, port.published)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = r#"{
        "Id": "f00d", "Name": "/p-web-1", "Created": "2024-05-01T00:00:00.5Z",
        "Path": "httpd", "Args": ["-f"],
        "State": {"Status": "running", "Running": true, "Pid": 42, "ExitCode": 0,
                  "StartedAt": "2024-05-01T00:00:01Z", "FinishedAt": "0001-01-01T00:00:00Z",
                  "Health": {"Status": "starting", "FailingStreak": 0, "Log": null}},
        "Config": {"Image": "busy", "StopTimeout": 3, "Labels": {
            "com.docker.compose.project": "p", "com.docker.compose.service": "web",
            "com.docker.compose.container-number": "1", "com.docker.compose.oneoff": "False",
            "com.docker.compose.config-hash": "abc"}},
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
                      "53/udp": null, "9/sctp": null},
            "Networks": {"p_default": {"IPAddress": "172.18.0.2"}}}
    }"#;

    #[test]
    fn an_inspected_container_becomes_an_instance() {
        let instance = instance(serde_json::from_str(RUNNING).unwrap());
        assert_eq!(instance.name, "p-web-1");
        assert_eq!((instance.service.as_str(), instance.number), ("web", 1));
        assert_eq!(instance.status, Status::Running);
        assert_eq!(instance.health, Some(Health::Starting));
        assert_eq!(instance.fingerprint, Some(Fingerprint("abc".into())));
        assert_eq!(instance.command, ["httpd", "-f"]);
        assert_eq!(instance.finished, None);
        assert_eq!(instance.stop_grace, Some(3));
        assert_eq!(instance.networks, ["p_default"]);
        let ports: Vec<_> = instance
            .publishers
            .iter()
            .map(|port| {
                (
                    port.ip.map(|ip| ip.to_string()),
                    port.target,
                    port.published,
                )
            })
            .collect();
        assert_eq!(
            ports,
            [
                (None, 53, 0),
                (Some("0.0.0.0".to_owned()), 80, 8080),
                (Some("::".to_owned()), 80, 8080),
            ]
        );
    }

    #[test]
    fn a_range_or_no_port_is_left_to_the_engine() {
        let picks = |port: &str| {
            let asked = format!(r#""HostIp": "", "HostPort": "{port}""#);
            let text = RUNNING.replace(r#""HostIp": "", "HostPort": "8080""#, &asked);
            instance(serde_json::from_str(&text).unwrap()).picks_ports()
        };
        assert!(!picks("8080"));
        assert!(picks("8080-8082"));
        assert!(picks(""));
    }

    #[test]
    fn an_unknown_state_is_read_by_what_it_means() {
        let text = RUNNING.replace("\"running\"", "\"pondering\"");
        assert_eq!(
            instance(serde_json::from_str(&text).unwrap()).status,
            Status::Running
        );
        let text = RUNNING
            .replace("\"running\"", "\"stopped\"")
            .replace("\"Running\": true", "\"Running\": false")
            .replace("\"ExitCode\": 0", "\"ExitCode\": 137");
        assert_eq!(
            instance(serde_json::from_str(&text).unwrap()).status,
            Status::Exited { code: 137 }
        );
    }

    #[test]
    fn a_query_value_is_encoded() {
        assert_eq!(
            encoded(r#"{"a":["b=c"]}"#),
            "%7B%22a%22%3A%5B%22b%3Dc%22%5D%7D"
        );
    }
}
