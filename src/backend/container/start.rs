//! Starting a container, and reading out of the engine's refusal which port was taken.

use std::net::{IpAddr, SocketAddr};

use bollard::query_parameters::StartContainerOptions;

use super::Engine;
use super::fault::Refusal;
use crate::backend::BackendError;

/// What engines say when a port cannot be bound: of another container, of a process, and since
/// Engine 28 for both; the last is Docker Desktop's.
const TAKEN: [&str; 3] = [
    "port is already allocated",
    "address already in use",
    "ports are not available",
];

/// Starts a container. One that runs already is no error.
pub(super) async fn container(engine: &Engine, id: &str, name: &str) -> Result<(), BackendError> {
    let started = engine
        .docker
        .start_container(id, None::<StartContainerOptions>)
        .await;
    let Err(error) = started else {
        return Ok(());
    };
    match Refusal::of(error) {
        Ok(refusal) if is_port_conflict(&refusal.message) => Err(BackendError::PortTaken {
            name: name.to_owned(),
            address: address(&refusal.message),
            source: Box::new(refusal),
        }),
        Ok(refusal) => Err(BackendError::Engine {
            action: format!("start {name}"),
            source: Box::new(refusal),
        }),
        Err(error) => Err(engine.refused(format!("start {name}"), error)),
    }
}

/// Whether a container that was refused can never be started: the engine was killed while it started it, and finds
/// what is left of that in its way, or the container whose namespace it was to share is gone.
pub(super) fn is_stuck(error: &BackendError, id: &str) -> bool {
    let BackendError::Engine { source, .. } = error else {
        return false;
    };
    let message = source.to_string();
    message.contains("failed to start shim: mkdir")
        || message.contains("task ") && message.ends_with(": already exists")
        || message.ends_with("id already in use")
        // It was made beside one that is gone, and knows it by its id.
        || message.contains("No such container: ") && !message.contains(id)
}

/// The refusal of a container that was removed because of it.
pub(super) fn removed(name: &str, error: BackendError) -> BackendError {
    let BackendError::Engine { source, .. } = error else {
        return error;
    };
    BackendError::Stuck {
        name: name.to_owned(),
        source,
    }
}

fn is_port_conflict(message: &str) -> bool {
    let message = message.to_lowercase();
    TAKEN.iter().any(|words| message.contains(words))
}

/// The first host address with a port in the engine's message.
fn address(message: &str) -> Option<SocketAddr> {
    message.split_whitespace().find_map(|word| {
        let word = word.trim_end_matches([':', ',', '.']);
        let word = word
            .strip_suffix("/tcp")
            .or_else(|| word.strip_suffix("/udp"))
            .unwrap_or(word);
        word.parse()
            .ok()
            .or_else(|| joined(word))
            .or_else(|| leading(word))
    })
}

/// `:::8080`: an IPv6 address without brackets and its port.
fn joined(word: &str) -> Option<SocketAddr> {
    let (ip, port) = word.rsplit_once(':')?;
    let ip: IpAddr = ip.parse().ok()?;
    Some(SocketAddr::new(ip, port.parse().ok()?))
}

/// `0.0.0.0:8080:172.18.0.2:80`: the host's side of a mapping.
fn leading(word: &str) -> Option<SocketAddr> {
    let (ip, rest) = match word.strip_prefix('[') {
        Some(rest) => rest.split_once("]:")?,
        None => word.split_once(':')?,
    };
    let port = rest.split(':').next()?;
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_s_words_name_the_address() {
        for (message, expected) in [
            (
                "driver failed programming external connectivity on endpoint p-a-1 (07f2): Bind for 127.0.0.1:42778 failed: port is already allocated",
                "127.0.0.1:42778",
            ),
            (
                "driver failed programming external connectivity on endpoint p-a-1 (07f2): Bind for :::8003 failed: port is already allocated",
                "[::]:8003",
            ),
            (
                "driver failed programming external connectivity on endpoint p-a-1 (07f2): Error starting userland proxy: listen tcp4 127.0.0.1:42777: bind: address already in use",
                "127.0.0.1:42777",
            ),
            (
                "failed to set up container networking: driver failed programming external connectivity on endpoint x (1): failed to bind host port for 0.0.0.0:8003:172.18.0.2:80/tcp: address already in use",
                "0.0.0.0:8003",
            ),
            (
                "failed to bind host port 127.0.0.1:5353/udp: address already in use",
                "127.0.0.1:5353",
            ),
            (
                "Ports are not available: exposing port TCP 0.0.0.0:8081 -> 0.0.0.0:0: listen tcp 0.0.0.0:8081: bind: Only one usage",
                "0.0.0.0:8081",
            ),
        ] {
            assert!(is_port_conflict(message), "{message}");
            assert_eq!(
                address(message),
                Some(expected.parse().unwrap()),
                "{message}"
            );
        }
    }

    #[test]
    fn a_task_that_the_engine_has_lost_is_known_by_its_words() {
        let refusal = |message: &str| BackendError::Engine {
            action: "start p-a-1".to_owned(),
            source: Box::new(Refusal {
                status: 500,
                message: message.to_owned(),
            }),
        };
        for message in [
            "task 947d6f4150b9: already exists",
            "id already in use",
            "failed to start shim: mkdir /run/containerd/moby/97369a7f9d27: file exists",
            "No such container: 93c8f31c0f2e",
            "joining network namespace of container: No such container: 93c8f31c0f2e",
        ] {
            assert!(is_stuck(&refusal(message), "p-a-1's"), "{message}");
            let told = removed("p-a-1", refusal(message)).to_string();
            assert!(told.contains("start p-a-1"), "{told}");
        }
        let message = "network p_default already exists in another form";
        assert!(!is_stuck(&refusal(message), "p-a-1's"));
        // It is gone itself.
        let message = "No such container: 93c8f31c0f2e";
        assert!(!is_stuck(&refusal(message), "93c8f31c0f2e"));
    }

    #[test]
    fn other_refusals_are_not_about_ports() {
        let message =
            "OCI runtime create failed: exec: \"nope\": executable file not found in $PATH";
        assert!(!is_port_conflict(message));
        assert_eq!(address(message), None);
    }
}
