//! Who has a port now. Pure data: filled by `port::sockets` and `port::owner`, judged by `plan`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::port::claim::Protocol;

/// One holder of a claimed port: everything a person needs to decide about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who it is.
    pub who: Who,
    /// The listening sockets through which it holds the claim.
    pub sockets: Vec<ListeningSocket>,
    /// Why it must never be stopped, if that is so (`--force` does not override it).
    pub protected: Option<String>,
    /// A port proxy of an engine that none of the engines which answer has a container for: the one part
    /// of an engine that may be stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub orphan: bool,
    /// The service of wharf's that it is, where its ledger knows the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceOf>,
    /// It is a project's forwarder, which has the port for these services and lets go of it when they are stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carries: Vec<ServiceOf>,
    /// All visible processes that have one of its sockets, itself included; empty where not all were searched.
    #[serde(skip)]
    pub sharing: Vec<u32>,
    /// What else a container publishes. What processes have beside the port is asked for when it is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_listens: Vec<OtherPort>,
    /// A process below it, without a socket of its own on the port, at which somebody looks in a debugger.
    #[serde(skip)]
    pub debugged_below: Option<Debugged>,
}

/// A port that goes with the release of another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OtherPort {
    /// The port.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// The process that has it; none where a container publishes it.
    pub pid: Option<u32>,
}

impl Holder {
    /// With nothing said of it but who it is, and why it is not to be stopped.
    pub(super) fn of(who: Who, sockets: Vec<ListeningSocket>, protected: Option<String>) -> Self {
        Self {
            who,
            sockets,
            protected,
            orphan: false,
            service: None,
            carries: Vec::new(),
            sharing: Vec::new(),
            also_listens: Vec::new(),
            debugged_below: None,
        }
    }

    /// A process of which nothing but its command is known.
    #[cfg(test)]
    pub(crate) fn of_words(command: &[&str]) -> Self {
        let facts = Box::new(ProcessFacts::of_words(command));
        Self::of(Who::Process(facts), Vec::new(), None)
    }

    /// Whether both are the same one, whatever else is known of it.
    pub fn is_same(&self, other: &Self) -> bool {
        self.who.is_same(&other.who)
    }

    /// Whether data that nobody else has is lost when it is stopped.
    pub fn loses_data(&self) -> bool {
        matches!(&self.who, Who::Container(facts) if facts.loses_volumes())
    }

    /// Adds a holder to others; the sockets of one that is among them go to that.
    pub(super) fn join(holders: &mut Vec<Self>, holder: Self) {
        match holders.iter_mut().find(|it| it.who.is_same(&holder.who)) {
            Some(same) => {
                same.take_in(&holder.sockets);
                same.share(&holder.sharing);
            }
            None => holders.push(holder),
        }
    }

    /// Adds processes that have one of its sockets.
    pub(super) fn share(&mut self, pids: &[u32]) {
        self.sharing.extend(pids);
        self.sharing.sort_unstable();
        self.sharing.dedup();
    }

    /// Adds sockets, each once.
    pub(super) fn take_in(&mut self, sockets: &[ListeningSocket]) {
        for socket in sockets {
            if !self.sockets.contains(socket) {
                self.sockets.push(socket.clone());
            }
        }
    }
}

/// A socket that has a port, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListeningSocket {
    /// The local address.
    pub address: SocketAddr,
    /// The transport.
    pub protocol: Protocol,
    /// `IPV6_V6ONLY`.
    pub only_v6: bool,
    /// The user id that created the socket.
    pub uid: u32,
    /// The inode of the socket; 0 when the kernel owns it.
    pub inode: u64,
    /// The cgroup v2 id (inode number of its directory) the socket was created in, if reported.
    pub cgroup_id: Option<u64>,
    /// It listens (UDP: it is bound). A TCP socket that is only bound blocks some binds and not others.
    #[serde(default = "listens")]
    pub listening: bool,
}

fn listens() -> bool {
    true
}

/// The service of wharf's that a process belongs to, of whatever project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceOf {
    /// The project.
    pub project: String,
    /// The service.
    pub service: String,
    /// The replica, from 1; none for a process beside the replicas, and for a service as a whole.
    pub number: Option<u32>,
}

/// The kinds of holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Who {
    /// A process we can see.
    Process(Box<ProcessFacts>),
    /// A container that publishes the port, or that listens on it in the host's network namespace.
    Container(Box<ContainerFacts>),
    /// A systemd unit; `main` is one of its processes where visible.
    Unit {
        /// For example `nginx.service` or `ssh.socket`.
        name: String,
        /// Its process, if visible.
        main: Option<Box<ProcessFacts>>,
    },
    /// A socket of a user whose processes we may not look into.
    Unknown {
        /// The user's id.
        uid: u32,
        /// The user's name, if there is one.
        user: Option<String>,
        /// Whether root looked: then nobody sees its process.
        to_root: bool,
    },
    /// A socket without an owner: the kernel's own (NFS, `WireGuard`) or another network namespace's.
    Kernel,
}

impl Who {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Process(a), Self::Process(b)) => a.pid == b.pid,
            (Self::Container(a), Self::Container(b)) => a.id == b.id && a.engine == b.engine,
            (Self::Unit { name: a, .. }, Self::Unit { name: b, .. }) => a == b,
            (Self::Unknown { uid: a, .. }, Self::Unknown { uid: b, .. }) => a == b,
            (Self::Kernel, Self::Kernel) => true,
            _ => false,
        }
    }
}

/// What is known about a process. Identity is (pid, `start_time`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// The pid in our pid namespace.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat` (`proc_pid_stat(5)`): clock ticks since boot.
    pub start_time: u64,
    /// The real user id.
    pub uid: u32,
    /// The user's name, if there is one.
    pub user: Option<String>,
    /// The kernel's short name (`/proc/PID/comm`).
    pub name: String,
    /// argv; empty for kernel threads and zombies.
    pub command: Vec<String>,
    /// The executable, where readable.
    pub exe: Option<PathBuf>,
    /// The working directory, where readable.
    pub cwd: Option<PathBuf>,
    /// Unix time in seconds at which it started.
    pub started: i64,
    /// Seconds it has been running when it was looked at.
    pub age_seconds: u64,
    /// Its parent, its parent's parent, … up to pid 1, each with its short name.
    pub ancestors: Vec<(u32, String)>,
    /// `WHARF_RUN_ID` from its environment, where readable: a process instance of wharf.
    pub run_id: Option<String>,
    /// Whether we may signal it (same user or privileged).
    pub signalable: bool,
    /// Whether it is the first process of another pid namespace: the kernel keeps signals from it that it does not
    /// ask for, and with its end all others in there are killed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub heads_namespace: bool,
    /// Who traces it (`ptrace(2)`), and so decides what becomes of a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracer: Option<Tracer>,
}

/// A process that traces another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracer {
    /// Its pid.
    pub pid: u32,
    /// The kernel's short name.
    pub name: String,
}

/// A process that somebody debugs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debugged {
    /// Its pid.
    pub pid: u32,
    /// The kernel's short name.
    pub name: String,
    /// The debugger.
    pub tracer: Tracer,
}

#[cfg(test)]
impl ProcessFacts {
    /// A process of which nothing but its command is known.
    pub(crate) fn of_words(command: &[&str]) -> Self {
        Self {
            pid: 4711,
            start_time: 1,
            uid: 1000,
            user: None,
            name: "x".into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            exe: None,
            cwd: None,
            started: 0,
            age_seconds: 0,
            ancestors: Vec::new(),
            run_id: None,
            signalable: true,
            heads_namespace: false,
            tracer: None,
        }
    }
}

/// What is known about a container that holds a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerFacts {
    /// The full id.
    pub id: String,
    /// The name without its leading slash.
    pub name: String,
    /// The image as the engine lists it.
    pub image: String,
    /// The command the engine lists.
    pub command: String,
    /// Label `com.docker.compose.project`.
    pub project: Option<String>,
    /// Label `com.docker.compose.service`.
    pub service: Option<String>,
    /// Unix time in seconds.
    pub created: i64,
    /// Where its engine listens, e.g. `unix:///var/run/docker.sock`.
    pub engine: String,
    /// Where its engine removes it when it stops (`--rm`): what it takes along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Removal>,
}

#[cfg(test)]
impl ContainerFacts {
    /// A container of which nothing but its name is known.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            id: "a".into(),
            name: name.into(),
            image: String::new(),
            command: String::new(),
            project: None,
            service: None,
            created: 0,
            engine: String::new(),
            removal: None,
        }
    }
}

/// What is lost with a container that is removed when it stops.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Removal {
    /// Its anonymous volumes.
    pub volumes: Vec<AnonymousVolume>,
}

/// A volume without a name of its own: it is removed with its container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AnonymousVolume {
    /// Where it is mounted in the container.
    pub target: String,
    /// What the engine calls it.
    pub name: String,
}

impl ContainerFacts {
    /// Whether data that nobody else has is lost with its stop.
    pub fn loses_volumes(&self) -> bool {
        let removal = self.removal.as_ref();
        removal.is_some_and(|removal| !removal.volumes.is_empty())
    }
}

/// A port that a container or a Swarm service publishes, as the engine reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The container.
    pub container: ContainerFacts,
    /// The address on the host.
    pub ip: std::net::IpAddr,
    /// The port on the host.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// Why stopping the container would not release the port, if that is so: Swarm starts another one.
    pub kept: Option<String>,
    /// Its engine has a network namespace of its own, from which a process here forwards: without a socket it is not
    /// published here.
    pub forwarded: bool,
}
