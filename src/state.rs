//! What exists: the answer of `observe`, the input of `plan`.
//!
//! A snapshot, never edited: if reality moved, observe and plan again. No I/O here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::naming::{HOOK, Linkage, PRE_START, Role, waits_for};
use crate::port::claim::{Claim, Protocol};
use crate::port::holder::Holder;

/// The project in which `wharf server` keeps its servers: nobody's compose file.
pub const SERVERS: &str = "_server";

/// Where instances live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// A container of the Docker Engine.
    Container,
    /// A process of this machine, kept by wharf's supervisor.
    Process,
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Container => "container",
            Self::Process => "process",
        })
    }
}

/// Names one instance for good: the engine's container id (64 hex digits), or the run id of a process
/// instance (a new one at every start).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub String);

impl InstanceId {
    /// The first twelve characters, as the engine prints ids.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The configuration an instance was made from: lower-case hex SHA-256, the label
/// `com.docker.compose.config-hash`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

/// The state of an instance, in the engine's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Status {
    /// Made, never started.
    Created,
    /// Alive.
    Running,
    /// Alive, frozen.
    Paused,
    /// Ended and about to be started again by its restart policy.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended. `code` follows the shell: 128 + signal number for a death by signal.
    Exited {
        /// The exit code.
        code: i32,
    },
    /// Ended in a way that the engine cannot restart from.
    Dead,
}

impl Status {
    /// The word of `docker compose ps --format json`, field `State`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited { .. } => "exited",
            Self::Dead => "dead",
        }
    }

    /// Whether processes of the instance may exist and ports may be held.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// The verdict of the instance's healthcheck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Inside the start period, no verdict yet.
    Starting,
    /// The last check passed.
    Healthy,
    /// `retries` checks in a row failed.
    Unhealthy,
}

/// One port of an instance as `ps` shows it: `URL:PublishedPort -> TargetPort/Protocol`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publisher {
    /// The address on the host; `None` when the port is not published. A process that is told where to listen for its
    /// neighbours alone has a port of the host all the same.
    pub ip: Option<IpAddr>,
    /// The port inside the container, or the port the process was declared with.
    pub target: u16,
    /// The port on the host; 0 when not published.
    pub published: u16,
    /// The transport.
    pub protocol: Protocol,
}

/// What counts as an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The protocol spoken.
    pub probe: ProbeKind,
    /// Where to connect on the host: a concrete address (127.0.0.1 for the wildcard). Port 0 for a
    /// container's port that the engine chooses: ask the engine, by `target`.
    pub address: SocketAddr,
    /// The declared port behind it.
    pub target: u16,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
}

/// The protocols wharf can probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum ProbeKind {
    /// RFC 6455 §4: upgrade with a correct `Sec-WebSocket-Accept`, then ping and pong.
    WebSocket {
        /// The request target.
        path: String,
    },
    /// Any status below 500.
    Http {
        /// The request target.
        path: String,
    },
    /// An accepted connection.
    Tcp,
}

/// One instance of a service (or of a service that the project no longer has).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its identity.
    pub id: InstanceId,
    /// `P-service-N`, or the service's `container_name`.
    pub name: String,
    /// The project's name.
    pub project: String,
    /// The service's name.
    pub service: String,
    /// The replica's number, from 1. 0 for one-off instances.
    pub number: u32,
    /// Where it lives.
    pub backend: BackendKind,
    /// What it was made from; `None` where it cannot be known.
    pub fingerprint: Option<Fingerprint>,
    /// Its state.
    pub status: Status,
    /// Its health, if it has a healthcheck.
    pub health: Option<Health>,
    /// Its main process in the host's pid namespace, while it lives (0 and `None` both mean unknown).
    pub pid: Option<u32>,
    /// The image of a container, as written in the compose file; empty for a process.
    pub image: String,
    /// The command line.
    pub command: Vec<String>,
    /// Unix time in seconds.
    pub created: i64,
    /// Unix time in seconds of the current run's start.
    pub started: Option<i64>,
    /// Unix time in seconds of the end of the last run.
    pub finished: Option<i64>,
    /// The exit code of the last run of a process that has ended; a container's is with its status.
    pub last_code: Option<i32>,
    /// Its ports.
    pub publishers: Vec<Publisher>,
    /// The ports of the host that it was made with, first and last of each range.
    pub asked_ports: Vec<PortSpan>,
    /// Whether it is alive and on its way to its end: asked to end, or its main process has.
    pub ending: bool,
    /// What SIGKILL has not ended of it, in words, where that was given up on.
    pub survivors: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its networks, by the engine's name.
    pub networks: Vec<String>,
    /// The container in whose network it is instead.
    pub shares_network_of: Option<InstanceId>,
    /// Its volumes, by the engine's name.
    pub volumes: Vec<String>,
    /// Whether it is a one-off (`run`).
    pub one_off: bool,
    /// Seconds it gets to end after its stop signal, as it was created with.
    pub stop_grace: Option<u64>,
    /// How to tell that it answers, as recorded with it; lets `ps` say whether it is ready.
    pub readiness: Option<Readiness>,
}

impl Instance {
    /// What it is for, when it is wharf's own and no service's.
    pub fn role(&self) -> Option<Role> {
        Role::of(&self.labels)
    }

    /// Whether it runs one of the `pre_start` commands of its service, which it belongs to.
    pub fn is_preparing(&self) -> bool {
        self.labels.get(HOOK).is_some_and(|what| what == PRE_START)
    }

    /// Whether a port is for its neighbours alone: where a process listens for what it exposes.
    pub fn keeps(&self, port: &Publisher) -> bool {
        self.backend == BackendKind::Process && port.ip.is_none()
    }

    /// The ports that it has for everybody.
    pub fn published(&self) -> impl Iterator<Item = &Publisher> {
        self.publishers.iter().filter(|port| !self.keeps(port))
    }

    /// Whether the engine picks a port of the host for it at every start, out of a range or any that is free.
    pub fn picks_ports(&self) -> bool {
        self.asked_ports.iter().any(|span| span.is_choice())
    }

    /// Whether it is a container that whoever made it did not finish: it never ran, and still has the name under
    /// which it waits for its files, its networks or its place.
    pub fn is_unfinished(&self) -> bool {
        self.backend == BackendKind::Container
            && self.status == Status::Created
            && waits_for(&self.name).is_some()
    }
}

/// Ports of the host of which one will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSpan {
    /// The first one.
    pub first: u16,
    /// The last one, which may be the first.
    pub last: u16,
}

impl PortSpan {
    /// Where engines look for a port when none is named, or about there.
    pub const ANY: Self = Self {
        first: 32768,
        last: u16::MAX,
    };

    /// Whether there is more than one.
    pub fn is_choice(self) -> bool {
        self.first != self.last
    }

    /// How many more than one.
    pub fn width(self) -> u16 {
        self.last.saturating_sub(self.first)
    }

    /// Whether both have a port.
    pub fn meets(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Everything the planner needs to know about the world.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Instances that belong to the project, of all backends.
    pub instances: Vec<Instance>,
    /// The project's relays and its forwarder.
    pub own: Vec<Instance>,
    /// What is possible where services name each other across backends.
    pub linkage: Linkage,
    /// Names of the engine's networks that belong to the project or that it names.
    pub networks: BTreeSet<String>,
    /// Of those that the project made, the configuration's hash as the label has it; empty where it has none.
    pub network_hashes: BTreeMap<String, String>,
    /// Names of networks that several have, and the ids of those that others made.
    pub doubled_networks: BTreeMap<String, Vec<String>>,
    /// Names of the engine's volumes that belong to the project or that it names.
    pub volumes: BTreeSet<String>,
    /// Of those that the project made, the configuration's hash as the label has it.
    pub volume_hashes: BTreeMap<String, String>,
    /// Images (by reference) that the engine has, among those the project names; value: image id.
    pub images: BTreeMap<String, String>,
    /// Images that the engine has for another platform than a service asks for, and for which: they count as
    /// missing.
    pub misfits: BTreeMap<String, String>,
    /// Images whose last pull or build is longer ago than their service allows (`pull_policy: daily`).
    pub stale: BTreeSet<String>,
    /// Who holds what the plan may claim. Claims that are free are absent.
    pub held: Vec<Held>,
    /// Ports that others of this user's projects have been given, listened on or not: not for whoever may have
    /// another one.
    pub reserved: BTreeSet<(u16, Protocol)>,
    /// The first port that this user may listen on (`ip_unprivileged_port_start`); 0: any.
    pub first_port: u16,
    /// For each held port, free ports above it, the nearest first.
    pub free_ports: BTreeMap<(u16, Protocol), Vec<u16>>,
}

/// A claim and its holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What is needed.
    pub claim: Claim,
    /// All who have it. Empty: an outgoing connection has the port as its own end; nobody is to be stopped.
    pub holders: Vec<Holder>,
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WebSocket { path } => write!(f, "a WebSocket handshake on {path}"),
            Self::Http { path } => write!(f, "an HTTP answer on {path}"),
            Self::Tcp => f.write_str("an accepted connection"),
        }
    }
}
