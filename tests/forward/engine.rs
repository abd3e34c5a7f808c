//! An engine that knows networks and containers by hearsay: what the forwarder asks an engine for, answered from
//! what the test has put there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// It ends with the test's program.
#[derive(Clone, Default)]
pub(crate) struct Engine {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    gateway: String,
    /// Containers on the network: name, service, address, exposed ports, whether it is a relay.
    members: Vec<(String, String, String, Vec<u16>, bool)>,
    listeners: Vec<UnixStream>,
}

/// The only network.
pub(crate) const NETWORK: &str = "stage_default";

impl Engine {
    /// Listens on a socket. This machine has a leg in the network if `gateway` is one of its addresses.
    pub(crate) fn listen(socket: &Path, gateway: &str) -> Self {
        let engine = Self::default();
        gateway.clone_into(&mut engine.state.lock().unwrap().gateway);
        let listener = UnixListener::bind(socket).unwrap();
        let answering = engine.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { break };
                let engine = answering.clone();
                // A client that goes away in the middle is its own affair.
                std::thread::spawn(move || drop(engine.serve(stream)));
            }
        });
        engine
    }

    /// A container starts, and the engine says so.
    pub(crate) fn start(&self, service: &str, address: &str, exposed: &[u16], is_relay: bool) {
        let mut state = self.state.lock().unwrap();
        let number = state.members.len() + 1;
        let name = format!("stage-{service}-{number}");
        let member = (
            name,
            service.to_owned(),
            address.to_owned(),
            exposed.to_vec(),
            is_relay,
        );
        state.members.push(member);
        tell(&mut state, "connect");
    }

    /// The containers of a service end, and the engine says so.
    pub(crate) fn die(&self, service: &str) {
        let mut state = self.state.lock().unwrap();
        state.members.retain(|(_, other, ..)| other != service);
        tell(&mut state, "disconnect");
    }

    fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let path = match path.strip_prefix("/v1.") {
            Some(rest) => rest.split_once('/').map_or("", |(_, rest)| rest),
            None => path.trim_start_matches('/'),
        };
        let mut state = self.state.lock().unwrap();
        let head = "Api-Version: 1.41\r\nServer: Docker/20.10.24 (linux)";
        if path.starts_with("events") {
            let mut writer = stream.try_clone()?;
            write!(
                writer,
                "HTTP/1.1 200 OK\r\n{head}\r\nTransfer-Encoding: chunked\r\n\r\n"
            )?;
            state.listeners.push(stream);
            return Ok(());
        }
        let (status, body) = match state.answer(path) {
            Some(body) => ("200 OK", body),
            None => ("404 Not Found", json!({"message": "no such thing"})),
        };
        drop(state);
        let body = body.to_string();
        let mut writer = stream;
        write!(
            writer,
            "HTTP/1.1 {status}\r\n{head}\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

impl State {
    fn answer(&self, path: &str) -> Option<Value> {
        if path == "_ping" {
            return Some(json!("OK"));
        }
        if path == "info" {
            return Some(json!({"OperatingSystem": "double", "SecurityOptions": []}));
        }
        if path.strip_prefix("networks/") == Some(NETWORK) {
            let containers: serde_json::Map<String, Value> = self
                .members
                .iter()
                .map(|(name, _, address, ..)| {
                    let place = json!({
                        "Name": name, "EndpointID": format!("{name}-place"),
                        "IPv4Address": format!("{address}/8"), "IPv6Address": "",
                    });
                    (format!("{name}-id"), place)
                })
                .collect();
            return Some(json!({
                "Name": NETWORK, "Id": "0".repeat(64), "Driver": "double",
                "IPAM": {"Config": [{"Gateway": self.gateway}]}, "Containers": containers,
            }));
        }
        // Of the containers of a project, it is only asked in whose network namespace each lives: here in its own.
        if path.starts_with("containers/json?") {
            let listed = self.members.iter().map(|(name, ..)| {
                json!({"Id": format!("{name}-id"), "HostConfig": {"NetworkMode": NETWORK}})
            });
            return Some(listed.collect());
        }
        let id = path.strip_prefix("containers/")?.strip_suffix("/json")?;
        let (name, service, _, exposed, is_relay) = self
            .members
            .iter()
            .find(|(name, ..)| format!("{name}-id") == id)?;
        let mut labels = json!({
            "com.docker.compose.project": "stage", "com.docker.compose.service": service,
        });
        if *is_relay {
            labels["wharf.role"] = json!("relay");
        }
        let exposed: serde_json::Map<String, Value> = exposed
            .iter()
            .map(|port| (format!("{port}/tcp"), json!({})))
            .collect();
        Some(json!({
            "Id": id, "Name": format!("/{name}"), "Args": [],
            "Config": {"Labels": labels, "ExposedPorts": exposed},
            "NetworkSettings": {"Networks": {NETWORK: {"Aliases": [service]}}},
        }))
    }
}

fn tell(state: &mut State, action: &str) {
    let event = json!({"Type": "network", "Action": action}).to_string();
    state
        .listeners
        .retain_mut(|stream| write!(stream, "{:x}\r\n{event}\n\r\n", event.len() + 1).is_ok());
}
