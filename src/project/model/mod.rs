//! The compose model, resolved: what the rest of wharf reads. Built once by `project::load`, never
//! changed afterwards.

mod build;
mod extension;
mod hash;
mod limits;
mod mount;
mod network;
mod port;
mod provider;
mod service;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use build::{Build, BuildContext, NamedContext};
pub use extension::{Conflict, ProcessForm, ReadySetting, ServiceExtension};
pub use hash::volumes_of;
pub(crate) use hash::{digest, escaped};
pub use limits::{Blkio, DeviceRequest, Limits};
pub use mount::{Mount, MountKind, SOCKET_CONFIG, StoreMount};
pub use network::{Network, NetworkAttachment, Store, StoreSource, Volume};
pub use port::{Port, RawPort};
pub(crate) use provider::NO_VARIABLE;
pub use provider::{Provider, Variables};
pub use service::{
    Condition, Dependency, HealthTest, Healthcheck, Hook, Logging, PreStart, PullPolicy, Restart,
    RestartPacing, Separator, Service, Ulimit,
};
pub use watch::{Reaction, Trigger};

/// A loaded project.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its normalised name.
    pub name: String,
    /// Its directory, absolute: relative paths were resolved against it.
    pub directory: PathBuf,
    /// Its compose files, absolute, in the order given. Empty for a project that has none (`wharf server`).
    pub files: Vec<PathBuf>,
    /// The env files that were asked for (`--env-file`, `COMPOSE_ENV_FILES`), absolute.
    pub env_files: Vec<PathBuf>,
    /// The services that take part: profiles and `SERVICE…` arguments were applied.
    pub services: BTreeMap<String, Arc<Service>>,
    /// Names of services that the files declare and that do not take part (their profile is off).
    pub disabled: Vec<String>,
    /// Whether one of those may be a container.
    pub disabled_containers: bool,
    /// The networks that some service uses, by key.
    pub networks: BTreeMap<String, Arc<Network>>,
    /// The volumes, by key.
    pub volumes: BTreeMap<String, Arc<Volume>>,
    /// The secrets, by key.
    pub secrets: BTreeMap<String, Arc<Store>>,
    /// The configs, by key.
    pub configs: BTreeMap<String, Arc<Store>>,
    /// `x-wharf.conflict` of the project.
    pub conflict: Option<Conflict>,
}

impl Project {
    /// One that no file declares, of these services alone.
    pub fn of_services(
        name: &str,
        directory: PathBuf,
        services: impl IntoIterator<Item = Service>,
    ) -> Self {
        let named = |service: Service| (service.name.clone(), Arc::new(service));
        Self {
            name: name.to_owned(),
            directory,
            files: Vec::new(),
            env_files: Vec::new(),
            services: services.into_iter().map(named).collect(),
            disabled: Vec::new(),
            disabled_containers: false,
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            conflict: None,
        }
    }
}
