//! Ports and their holders as data for scripts: the one shape that `who`, `free`, `next-port`, `ports` and
//! the log of releases use.
//!
//! Made from a [`Holder`]; looks nothing up.

use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::port::claim::{Claim, Protocol};
use crate::port::holder::{
    ContainerFacts, Holder, OtherPort, ProcessFacts, Removal, ServiceOf, Tracer, Who,
};

/// A port and all who have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// The port.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// Where it is held; where it was looked for if nobody has it.
    pub addresses: Vec<IpAddr>,
    /// Nobody: the port is free, or no more than an outgoing connection has it.
    pub holders: Vec<HolderReport>,
    /// Stopped containers that take the port when they are started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<ContainerReport>,
}

/// One holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderReport {
    /// What it is.
    pub kind: Kind,
    /// The process, or a unit's visible process.
    pub pid: Option<u32>,
    /// The user's id.
    pub uid: Option<u32>,
    /// The user's name, where there is one.
    pub user: Option<String>,
    /// The command line, quoted for a shell.
    pub command: Option<String>,
    /// The working directory, where readable.
    pub cwd: Option<String>,
    /// The executable, where readable.
    pub exe: Option<String>,
    /// When the process started (RFC 3339).
    pub started: Option<String>,
    /// How long it has been running, in seconds.
    pub age_seconds: Option<u64>,
    /// The container.
    pub container: Option<ContainerReport>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// Whether it is never stopped, whatever the flags say.
    pub protected: bool,
    /// Why wharf would not stop it, where that is so.
    pub reason: Option<String>,
    /// How wharf would release the port.
    pub release: Means,
    /// The service of wharf's that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceOf>,
    /// What else its release means, in words: who is stopped first, what ends with it, what is removed. Where
    /// that was looked up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consequences: Vec<String>,
    /// The other ports that go with it. Where that was looked up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_listens: Vec<OtherPort>,
    /// Who traces it: a debugger decides what becomes of a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracer: Option<Tracer>,
}

/// What a holder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A process that we can see.
    Process,
    /// A container, or a Swarm service.
    Container,
    /// A systemd unit.
    Unit,
    /// The kernel itself, or another network namespace.
    Kernel,
    /// A process that we cannot see.
    Unknown,
}

/// How a port is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// Signals to the process, its supervisor and its tree.
    Signal,
    /// A stop by the engine's API.
    EngineStop,
    /// `systemctl stop`.
    Systemctl,
    /// Not by wharf.
    None,
}

/// The container of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// The full id.
    pub id: String,
    /// The name.
    pub name: String,
    /// The image.
    pub image: String,
    /// The compose project.
    pub project: Option<String>,
    /// The compose service.
    pub service: Option<String>,
    /// Where its engine listens.
    pub engine: String,
    /// Where its engine removes it when it stops (`--rm`): what it takes along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Removal>,
}

impl PortReport {
    /// The holders of a claim, with the addresses on which they have it.
    pub fn of(claim: &Claim, holders: &[Holder]) -> Self {
        let mut addresses: Vec<IpAddr> = holders
            .iter()
            .flat_map(|holder| &holder.sockets)
            .map(|socket| socket.address.ip())
            .collect();
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() {
            addresses.clone_from(&claim.addresses);
        }
        Self {
            port: claim.port,
            protocol: claim.protocol,
            addresses,
            holders: holders.iter().map(HolderReport::of).collect(),
            reserved: Vec::new(),
        }
    }
}

impl HolderReport {
    /// A holder as data.
    pub fn of(holder: &Holder) -> Self {
        let nothing = Self {
            kind: Kind::Kernel,
            pid: None,
            uid: None,
            user: None,
            command: None,
            cwd: None,
            exe: None,
            started: None,
            age_seconds: None,
            container: None,
            unit: None,
            protected: holder.protected.is_some(),
            reason: holder.obstacle(true),
            release: Means::of(holder),
            service: holder.service.as_ref().or(holder.carries.first()).cloned(),
            consequences: Vec::new(),
            also_listens: Vec::new(),
            tracer: None,
        };
        match &holder.who {
            Who::Process(facts) => Self {
                kind: Kind::Process,
                ..nothing.with(facts)
            },
            Who::Unit { name, main } => Self {
                kind: Kind::Unit,
                unit: Some(name.clone()),
                ..match main {
                    Some(facts) => nothing.with(facts),
                    None => nothing,
                }
            },
            Who::Container(facts) => Self {
                kind: Kind::Container,
                command: Some(facts.command.clone()).filter(|command| !command.is_empty()),
                container: Some(facts.as_ref().into()),
                ..nothing
            },
            Who::Unknown { uid, user, .. } => Self {
                kind: Kind::Unknown,
                uid: Some(*uid),
                user: user.clone(),
                ..nothing
            },
            Who::Kernel => nothing,
        }
    }

    /// Whether it tells of this very holder: the same process, container or unit.
    pub fn is_of(&self, holder: &Holder) -> bool {
        let other = Self::of(holder);
        let id = |it: &Self| it.container.as_ref().map(|container| container.id.clone());
        self.kind == other.kind
            && (self.pid, &self.started, &self.unit) == (other.pid, &other.started, &other.unit)
            && id(self) == id(&other)
    }

    fn with(self, facts: &ProcessFacts) -> Self {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Self {
            pid: Some(facts.pid),
            uid: Some(facts.uid),
            user: facts.user.clone(),
            command: (!facts.command.is_empty()).then(|| shell_words::join(&facts.command)),
            cwd: facts.cwd.as_deref().map(text),
            exe: facts.exe.as_deref().map(text),
            started: jiff::Timestamp::from_second(facts.started)
                .ok()
                .map(|time| time.to_string()),
            age_seconds: Some(facts.age_seconds),
            tracer: facts.tracer.clone(),
            ..self
        }
    }
}

impl Means {
    /// How a holder would be released, with a person's consent.
    pub fn of(holder: &Holder) -> Self {
        if holder.obstacle(true).is_some() {
            return Self::None;
        }
        match &holder.who {
            Who::Process(_) => Self::Signal,
            Who::Container(_) => Self::EngineStop,
            Who::Unit { .. } => Self::Systemctl,
            Who::Unknown { .. } | Who::Kernel => Self::None,
        }
    }
}

impl From<&ContainerFacts> for ContainerReport {
    fn from(facts: &ContainerFacts) -> Self {
        Self {
            id: facts.id.clone(),
            name: facts.name.clone(),
            image: facts.image.clone(),
            project: facts.project.clone(),
            service: facts.service.clone(),
            engine: facts.engine.clone(),
            removal: facts.removal.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_the_documented_one() {
        let claim = Claim::anywhere(8003, Protocol::Tcp);
        let free = serde_json::to_string(&PortReport::of(&claim, &[])).unwrap();
        assert_eq!(
            free,
            r#"{"port":8003,"protocol":"tcp","addresses":["0.0.0.0","::"],"holders":[]}"#
        );
        let who = Who::Unknown {
            uid: 0,
            user: Some("root".into()),
            to_root: false,
        };
        let unseen = Holder::of(who, Vec::new(), None);
        let held = serde_json::to_value(PortReport::of(&claim, &[unseen])).unwrap();
        let holder = &held["holders"][0];
        let keys: Vec<&String> = holder.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "kind",
                "pid",
                "uid",
                "user",
                "command",
                "cwd",
                "exe",
                "started",
                "age_seconds",
                "container",
                "unit",
                "protected",
                "reason",
                "release"
            ]
        );
        assert_eq!(
            (&holder["kind"], &holder["release"], &holder["uid"]),
            (&"unknown".into(), &"none".into(), &0.into())
        );
        assert_eq!(holder["pid"], serde_json::Value::Null);
        assert!(holder["reason"].as_str().unwrap().contains("not visible"));
    }
}
