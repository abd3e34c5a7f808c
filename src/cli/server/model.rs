//! The project that servers live in: made here, not loaded from a file.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::port::claim::{Claim, Protocol};
use crate::project::model::{Port, ProcessForm, Project, ReadySetting, Service, ServiceExtension};
use crate::state::{Instance, ProbeKind};

/// The name of the servers' project. No compose project can have it: theirs start with a letter or a
/// digit.
pub(super) use crate::state::SERVERS as PROJECT;

/// The path of the embedded server's WebSocket.
pub(super) const EMBEDDED_PATH: &str = "/ws";

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) host: IpAddr,
    pub(super) command: Vec<String>,
    pub(super) directory: PathBuf,
    pub(super) path: Option<String>,
    pub(super) timeout: Duration,
}

impl Wanted {
    /// Whether it is the embedded server.
    pub(super) fn is_embedded(&self) -> bool {
        self.command.is_empty()
    }

    /// How the server is asked whether it is a WebSocket server.
    pub(super) fn handshake(&self) -> ProbeKind {
        let default = if self.is_embedded() {
            EMBEDDED_PATH
        } else {
            "/"
        };
        ProbeKind::WebSocket {
            path: self.path.clone().unwrap_or_else(|| default.to_owned()),
        }
    }

    /// The project with this server on a port.
    pub(super) fn project(&self, port: u16) -> Project {
        let (command, app_protocol) = if self.is_embedded() {
            let host = self.host.to_string();
            // The port comes in `PORT`.
            let embedded = ["wharf", "serve", "--host", &host].map(str::to_owned);
            (embedded.to_vec(), "ws")
        } else {
            (self.command.clone(), "tcp")
        };
        let service = Service {
            name: service_name(port),
            container_name: Some(service_name(port)),
            ports: vec![Port {
                target: port,
                published: Some((port, port)),
                host_ip: Some(self.host),
                protocol: Protocol::Tcp,
                app_protocol: Some(app_protocol.to_owned()),
                mode: None,
                name: None,
            }],
            wharf: ServiceExtension {
                process: Some(ProcessForm {
                    command: Some(command),
                    working_dir: Some(self.directory.clone()),
                    ..ProcessForm::default()
                }),
                ready: ReadySetting {
                    path: self.is_embedded().then(|| EMBEDDED_PATH.to_owned()),
                    timeout: Some(self.timeout),
                },
                ..ServiceExtension::default()
            },
            ..Service::default()
        };
        Project::of_services(PROJECT, self.directory.clone(), [service])
    }
}

/// A server is named by its port.
pub(super) fn service_name(port: u16) -> String {
    format!("server-{port}")
}

/// The port of a server's instance.
pub(super) fn port_of(instance: &Instance) -> Option<u16> {
    instance
        .publishers
        .iter()
        .map(|publisher| publisher.published)
        .find(|port| *port != 0)
}

/// The claim of a server.
pub(super) fn claim(host: IpAddr, port: u16) -> Claim {
    Claim {
        service: service_name(port),
        number: 1,
        addresses: vec![host],
        port,
        protocol: Protocol::Tcp,
    }
}
