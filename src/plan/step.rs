//! The plan as data: steps, causes, edges. What backends get to see of a plan.
//!
//! One step is one effect. A step is an enum, never a struct of optionals.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::naming::{Names, Role};
use crate::port::claim::{Claim, Protocol};
use crate::port::holder::Holder;
use crate::project::model::{Hook, Network, Service, Store, Volume};
use crate::state::{BackendKind, Fingerprint, InstanceId, Readiness};

/// Names a step of one plan; steps are numbered from 1 in the order they were planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

/// One effect, why it is wanted, and what must have succeeded before it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its number.
    pub id: StepId,
    /// What to do.
    pub action: Action,
    /// Why.
    pub cause: Cause,
    /// Steps that must have succeeded before.
    pub needs: Vec<StepId>,
}

impl Step {
    /// What ends this where it was cut off, if what it made would go on elsewhere: by id, whatever has the name.
    pub fn abandoned(&self) -> Option<Action> {
        let Action::PreStart {
            instance,
            preparation,
        } = &self.action
        else {
            return None;
        };
        (instance.backend == BackendKind::Container).then(|| Action::Remove {
            instance: Target {
                name: preparation.spec.name.clone(),
                which: Which::MadeBy(self.id),
                ..instance.clone()
            },
            volumes: true,
        })
    }
}

/// The effects.
#[derive(Clone, Debug)]
pub enum Action {
    /// Stop who holds a claim, then wait until the port itself is free.
    FreePort {
        /// The project that needs it.
        project: String,
        /// What must become free.
        claim: Claim,
        /// Who has it; each was judged stoppable by the planner.
        holders: Vec<Holder>,
        /// How long a holder gets to end by itself.
        grace: Duration,
    },
    /// Publish on another port; fails if that one is taken by now.
    MovePort {
        /// What was wanted.
        claim: Claim,
        /// The port it moves to.
        to: u16,
        /// Whether it is only for others of the project.
        exposed: bool,
    },
    /// Build a service's image.
    Build {
        /// The service; its `build` is set.
        service: Arc<Service>,
        /// The tag to give it.
        image: String,
        /// Try to pull it first, and build it only if that fails.
        pull_first: bool,
        /// The project, for labels and paths.
        project: Arc<ProjectIdentity>,
    },
    /// Pull an image.
    Pull {
        /// The service that needs it first.
        service: Arc<Service>,
        /// The reference.
        image: String,
    },
    /// Give the engine the image that relays are made of.
    LoadRelay {
        /// The reference.
        image: String,
    },
    /// Make the directory in which a relay meets the forwarder, for this user alone.
    PrepareRelay {
        /// The project.
        project: String,
        /// The service whose names the relay has.
        service: String,
    },
    /// Wait until containers can reach a local service by its names.
    AwaitReachable {
        /// The project.
        project: String,
        /// The service.
        service: String,
    },
    /// Make a network.
    CreateNetwork {
        /// The network; `name` is the engine's name.
        network: Arc<Network>,
        /// The project, for labels.
        project: Arc<ProjectIdentity>,
    },
    /// Leave one of the networks that the project has of one name: no other step could say which it means.
    UniteNetwork {
        /// The engine's name.
        name: String,
        /// The project.
        project: String,
    },
    /// Make a volume.
    CreateVolume {
        /// The volume; `name` is the engine's name.
        volume: Arc<Volume>,
        /// The project, for labels.
        project: Arc<ProjectIdentity>,
    },
    /// Have the provider of a service bring it up, stop it or take it down.
    Provide {
        /// The service; its `provider` is set.
        service: Arc<Service>,
        /// The project.
        project: String,
        /// Which.
        what: Provision,
    },
    /// Make an instance, without starting it.
    Create(Box<InstanceSpec>),
    /// Write the secrets and configs that are no files of the host into an instance that exists and never ran.
    WriteStores {
        /// Which.
        instance: Target,
        /// What.
        stores: Box<Stores>,
    },
    /// Run one of the commands that come before the first start of an instance: in a container of its own with the
    /// instance's volumes, or as a process where the instance is one.
    PreStart {
        /// Before which.
        instance: Target,
        /// The command.
        preparation: Box<Preparation>,
    },
    /// Start an instance that exists or that an earlier step makes.
    Start {
        /// Which.
        instance: Target,
    },
    /// Wait until the instance answers as its readiness says; fails with its last lines if it ends or
    /// stays silent.
    AwaitReady {
        /// Which.
        instance: Target,
        /// What counts as an answer, and for how long to wait.
        readiness: Readiness,
    },
    /// Watch that a process gets the ports it was started for: fails if somebody else has one of them.
    AwaitListening {
        /// Which.
        instance: Target,
        /// Its TCP ports that nothing else waits for.
        claims: Vec<Claim>,
    },
    /// Wait for the healthcheck's verdict `healthy` (`depends_on: condition: service_healthy`).
    AwaitHealthy {
        /// Which.
        instance: Target,
    },
    /// Wait until the instance ended with code 0 (`service_completed_successfully`).
    AwaitCompleted {
        /// Which.
        instance: Target,
    },
    /// Stop an instance: its stop signal, its grace period, then SIGKILL of all that is left of it.
    Stop {
        /// Which.
        instance: Target,
        /// Overrides the instance's own grace period.
        grace: Option<Duration>,
    },
    /// Send a signal: SIGKILL to all of an instance, any other to its main process.
    Kill {
        /// Which.
        instance: Target,
        /// The signal's name or number, as given.
        signal: String,
    },
    /// Freeze every process of an instance.
    Pause {
        /// Which.
        instance: Target,
    },
    /// Let a frozen instance go on.
    Unpause {
        /// Which.
        instance: Target,
    },
    /// Remove a stopped instance and what belongs to it alone.
    Remove {
        /// Which.
        instance: Target,
        /// Its anonymous volumes too.
        volumes: bool,
    },
    /// Remove a network, all of the project's that have the name.
    RemoveNetwork {
        /// The engine's name.
        name: String,
        /// The project.
        project: String,
    },
    /// Remove a volume.
    RemoveVolume {
        /// The engine's name.
        name: String,
    },
    /// Remove an image.
    RemoveImage {
        /// The reference.
        name: String,
    },
}

impl Action {
    /// The backend and the name of the service's instance that this makes or starts.
    pub fn makes_or_starts(&self) -> Option<(BackendKind, &str)> {
        if let Self::Create(spec) = self {
            Role::of(&spec.service.labels)
                .is_none()
                .then_some((spec.backend, &spec.name))
        } else if let Self::Start { instance } = self {
            instance
                .role
                .is_none()
                .then_some((instance.backend, &instance.name))
        } else {
            None
        }
    }

    /// Whether something is there, runs or is gone afterwards, and neither before.
    pub fn makes_starts_or_removes(&self) -> bool {
        matches!(
            self,
            Self::CreateNetwork { .. }
                | Self::UniteNetwork { .. }
                | Self::CreateVolume { .. }
                | Self::Create(_)
                | Self::Start { .. }
                | Self::Remove { .. }
                | Self::RemoveNetwork { .. }
                | Self::RemoveVolume { .. }
        )
    }

    /// The service of which this makes or starts an instance, with its backend.
    pub fn renews(&self) -> Option<(&str, BackendKind)> {
        if let Self::Create(spec) = self {
            Some((&spec.service.name, spec.backend))
        } else if let Self::Start { instance } = self {
            Some((&instance.service, instance.backend))
        } else {
            None
        }
    }

    /// Whether this is about wharf's own instances alone, which nobody asked for. What may take its time is not.
    pub fn is_own(&self) -> bool {
        if let Self::Create(spec) = self {
            return Role::of(&spec.service.labels).is_some();
        }
        let waits_or_prepares = matches!(
            self,
            Self::PrepareRelay { .. } | Self::AwaitReachable { .. }
        );
        waits_or_prepares || self.changes().is_some_and(|target| target.role.is_some())
    }

    /// The instance that this works on or waits for.
    pub fn subject(&self) -> Option<(BackendKind, &str)> {
        if let Self::Create(spec) = self {
            Some((spec.backend, &spec.name))
        } else if let Self::AwaitReady { instance, .. }
        | Self::AwaitHealthy { instance }
        | Self::AwaitCompleted { instance } = self
        {
            Some((instance.backend, &instance.name))
        } else {
            let target = self.changes()?;
            Some((target.backend, &target.name))
        }
    }

    /// The instance whose state this changes.
    pub fn changes(&self) -> Option<&Target> {
        if let Self::Start { instance }
        | Self::Stop { instance, .. }
        | Self::Kill { instance, .. }
        | Self::Pause { instance }
        | Self::Unpause { instance }
        | Self::Remove { instance, .. } = self
        {
            Some(instance)
        } else {
            None
        }
    }
}

/// What a provider is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provision {
    /// To bring its service up; nothing happens where it is.
    Up,
    /// To stop it, so that it can be brought up again.
    Stop,
    /// To give up all that belongs to it.
    Down,
}

impl Provision {
    /// The word of the protocol.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Stop => "stop",
            Self::Down => "down",
        }
    }

    /// What happens to the service.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Up => "create",
            Self::Stop => "stop",
            Self::Down => "remove",
        }
    }
}

/// An instance, named so that a person, a backend and the executor each find what they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it lives.
    pub backend: BackendKind,
    /// Its project.
    pub project: String,
    /// Its service.
    pub service: String,
    /// `P-service-N`.
    pub name: String,
    /// Which one exactly.
    pub which: Which,
    /// What it is for, when it is wharf's own.
    pub role: Option<Role>,
}

/// An instance that exists, or the one that an earlier step makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// It exists.
    Existing(InstanceId),
    /// This `Create` step makes it.
    MadeBy(StepId),
}

/// What is written on everything a project makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectIdentity {
    /// The project's name.
    pub name: String,
    /// Its directory, absolute.
    pub working_dir: PathBuf,
    /// Its compose files, absolute, in the order given.
    pub config_files: Vec<PathBuf>,
    /// The env files that were asked for, absolute.
    #[serde(default)]
    pub env_files: Vec<PathBuf>,
}

/// Everything needed to make one instance; nothing is left to choose.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    /// The project.
    pub project: Arc<ProjectIdentity>,
    /// The service in the form it will run in (the process form's keys already put on top).
    pub service: Arc<Service>,
    /// Where it will live.
    pub backend: BackendKind,
    /// `P-service-N`, or `container_name`.
    pub name: String,
    /// The replica's number, from 1.
    pub number: u32,
    /// What it is made from.
    pub fingerprint: Fingerprint,
    /// The image to make a container of; empty for a process.
    pub image: String,
    /// The ports, settled: published ports are the ones to use now.
    pub ports: Vec<SettledPort>,
    /// Variables on top of the service's own environment (`PORT`, `PORT_<target>`, moved ports of
    /// dependencies).
    pub environment: BTreeMap<String, String>,
    /// The networks to join: the engine's name and the aliases there; the first is the primary one.
    pub networks: Vec<Attachment>,
    /// Named volumes: the compose file's key and the engine's name.
    pub volumes: BTreeMap<String, String>,
    /// The secrets that the service mounts, by key.
    pub secrets: BTreeMap<String, Arc<Store>>,
    /// The configs that the service mounts, by key.
    pub configs: BTreeMap<String, Arc<Store>>,
    /// The instance it replaces.
    pub replaces: Option<InstanceId>,
    /// Whether the anonymous volumes of that one go over to it.
    pub inherits: bool,
    /// How to tell that it answers, recorded with the instance.
    pub readiness: Option<Readiness>,
    /// What makes it an instance for one command (`run`); `None`: a replica.
    pub one_off: Option<OneOff>,
    /// How a process finds other services by name, and they it; nothing for a container.
    pub names: Names,
}

/// The secrets and configs of a service, by key.
#[derive(Clone, Debug)]
pub struct Stores {
    /// The service.
    pub service: Arc<Service>,
    /// Its secrets.
    pub secrets: BTreeMap<String, Arc<Store>>,
    /// Its configs.
    pub configs: BTreeMap<String, Arc<Store>>,
}

/// One of the commands of `pre_start`.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// Its place in the list, from 0.
    pub index: usize,
    /// Whether it is run for each replica.
    pub per_replica: bool,
    /// Whether it has an image of its own.
    pub own_image: bool,
    /// The command, for a process.
    pub hook: Hook,
    /// The container that it runs in, but for the volumes.
    pub spec: InstanceSpec,
}

impl Preparation {
    /// Whether it is run before an instance of this backend: what is written for another image finds other files and
    /// programs on the host.
    pub fn runs_as(&self, backend: BackendKind) -> bool {
        backend == BackendKind::Container || !self.own_image
    }

    /// The same for one replica, if it is run for each: no two containers have one name.
    #[must_use]
    pub fn of_replica(&self, number: u32) -> Self {
        let mut own = self.clone();
        if self.per_replica {
            let between = self.spec.service.separator;
            own.spec.name = format!("{}{between}{number}", self.spec.name);
            own.spec.number = number;
        }
        own
    }
}

/// What an instance for one command has in place of a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneOff {
    /// 64 random hexadecimal digits; the first twelve are in its name.
    pub slug: String,
    /// It goes away when it ends.
    pub remove: bool,
    /// It has the service's names on its networks (`--use-aliases`).
    pub aliases: bool,
}

/// One network of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The key in the compose file.
    pub key: String,
    /// The engine's name.
    pub network: String,
    /// Names the instance has there besides its own: the service's name, container name, declared ones.
    pub aliases: Vec<String>,
}

/// A port mapping with nothing left open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledPort {
    /// The port in the container, or the port the compose file gives a process.
    pub target: u16,
    /// The port on the host; `None`: the engine chooses.
    pub published: Option<u16>,
    /// The addresses on the host.
    pub addresses: Vec<std::net::IpAddr>,
    /// The transport.
    pub protocol: Protocol,
    /// `app_protocol` of the compose file.
    pub app_protocol: Option<String>,
}

/// What [`Cause::Requested`] names where instances stop to be started again.
pub const RESTART: &str = "restart";

/// Why a step is in the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is no such instance (network, volume, image) yet.
    Missing,
    /// It exists and is not running.
    NotRunning,
    /// It was told to end, or has ended but for a part of it.
    Ending,
    /// It exists and is frozen.
    Paused,
    /// It was made from another configuration.
    ConfigChanged,
    /// Its name is not its own.
    Doubled,
    /// Its image changed.
    ImageChanged,
    /// It lives in the other backend than the one chosen.
    BackendChanged,
    /// `--force-recreate`, `--build` and the like.
    Requested(&'static str),
    /// The step exists for another one's sake.
    NeededBy(String),
    /// A holder is in the way; the text says who and which rule or answer decided.
    PortHeld(String),
    /// Somebody counts on its ports.
    PortNeeded,
    /// No container is left that could name its service.
    Unneeded,
    /// Its service is no longer in the project.
    Orphan,
    /// There are more replicas than asked for.
    ScaledDown,
    /// It was to replace another one, and whoever made it for that was cut off.
    Leftover,
    /// The service's protocol or a dependency asks for it.
    ReadyWhenAnswered,
}
