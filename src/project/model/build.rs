//! `services.*.build` (compose build specification).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{StoreSource, Ulimit};

/// How to build a service's image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// Where the files come from.
    pub context: BuildContext,
    /// The Dockerfile, relative to the context or absolute; `None`: `Dockerfile`.
    pub dockerfile: Option<String>,
    /// The Dockerfile's text, in place of a file.
    pub dockerfile_inline: Option<String>,
    /// `ARG` values; `None`: as the builder's environment has it.
    pub args: BTreeMap<String, Option<String>>,
    /// The stage to build.
    pub target: Option<String>,
    /// More tags for the image.
    pub tags: Vec<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Platforms to build for.
    pub platforms: Vec<String>,
    /// Images to take layers from.
    pub cache_from: Vec<String>,
    /// Build without cache.
    pub no_cache: bool,
    /// Stages to build without cache.
    pub no_cache_filter: Vec<String>,
    /// Pull newer base images.
    pub pull: bool,
    /// The network of `RUN` steps.
    pub network: Option<String>,
    /// More `/etc/hosts` entries during the build, `host=address`.
    pub extra_hosts: Vec<String>,
    /// `/dev/shm` size in bytes.
    pub shm_size: Option<i64>,
    /// Where to put the cache for others.
    pub cache_to: Vec<String>,
    /// Named contexts that the Dockerfile may copy from or start with.
    pub additional_contexts: BTreeMap<String, NamedContext>,
    /// What `RUN --mount=type=secret` may read, by id.
    pub secrets: BTreeMap<String, StoreSource>,
    /// What `RUN --mount=type=ssh` may use: id and key file or socket; `None`: the user's agent.
    pub ssh: BTreeMap<String, Option<String>>,
    /// Limits of `RUN` steps by name.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// How `RUN` steps are isolated (Windows).
    pub isolation: Option<String>,
    /// Let `RUN` steps have all privileges.
    pub privileged: bool,
    /// What else `RUN` steps may have.
    pub entitlements: Vec<String>,
    /// The provenance attestation: `true`, `false` or its parameters.
    pub provenance: Option<String>,
    /// The bill of materials: `true`, `false` or its parameters.
    pub sbom: Option<String>,
    /// Memory of the build in bytes (`build --memory`).
    pub memory: Option<i64>,
    /// Build for its warnings, and keep no image (`build --check`).
    pub check: bool,
}

impl Build {
    /// The services whose images it starts from.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.additional_contexts
            .values()
            .filter_map(|context| match context {
                NamedContext::Service { name, .. } => Some(name.as_str()),
                NamedContext::Directory(_) | NamedContext::Other(_) => None,
            })
    }
}

/// A context beside the main one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of this machine, absolute.
    Directory(PathBuf),
    /// The image of another service, which is built first.
    Service {
        /// The service.
        name: String,
        /// Its image.
        image: String,
    },
    /// A URL, a Git reference or `docker-image://…`, as the builder understands it.
    Other(String),
}

/// Where a build's files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildContext {
    /// A directory of this machine, absolute.
    Directory(PathBuf),
    /// A URL or Git reference that the engine fetches.
    Remote(String),
}

impl Default for BuildContext {
    fn default() -> Self {
        Self::Directory(PathBuf::from("."))
    }
}
