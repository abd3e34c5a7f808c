//! `x-wharf`: what wharf adds to a service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::naming::Way;
use crate::state::BackendKind;

/// `services.*.x-wharf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceExtension {
    /// The form it runs in by default.
    pub backend: Option<BackendKind>,
    /// Its process form; also set from `provider: {type: wharf}`.
    pub process: Option<ProcessForm>,
    /// When it counts as ready.
    pub ready: ReadySetting,
    /// What to do about a held port.
    pub conflict: Option<Conflict>,
    /// The service's `working_dir`, where it is a path in an image that the process form leaves out.
    pub working_dir_of_image: Option<String>,
}

/// `x-wharf.process`: keys as in the service, put on top of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessForm {
    /// argv.
    pub command: Option<Vec<String>>,
    /// Absolute; `None`: the project's directory.
    pub working_dir: Option<PathBuf>,
    /// What to run before it starts anew because watched files changed (`rebuild`); argv.
    pub build: Option<Vec<String>>,
    /// Put on top of the service's environment.
    pub environment: BTreeMap<String, Option<String>>,
    /// Run as.
    pub user: Option<String>,
    /// How it finds other services by name; `None`: in the best way that the machine allows.
    pub names: Option<Way>,
    /// Instead of the service's.
    pub healthcheck: Option<super::Healthcheck>,
}

/// `x-wharf.ready`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadySetting {
    /// The request target of the probe.
    pub path: Option<String>,
    /// How long it may take; `None`: 30 s.
    pub timeout: Option<Duration>,
}

/// What to do about a held port (`x-wharf.conflict`, `--on-conflict`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Conflict {
    /// Ask on a terminal, else fail.
    #[default]
    Ask,
    /// Stop the holder.
    Replace,
    /// Publish on the next free port.
    Move,
    /// Fail.
    Fail,
}
