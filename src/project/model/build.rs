//! `services.*.build` (compose build specification).

use std::collections::BTreeMap;
use std::path::PathBuf;

/// How to build a service's image.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Pull newer base images.
    pub pull: bool,
    /// The network of `RUN` steps.
    pub network: Option<String>,
    /// More `/etc/hosts` entries during the build, `host=address`.
    pub extra_hosts: Vec<String>,
    /// `/dev/shm` size in bytes.
    pub shm_size: Option<i64>,
}

/// Where a build's files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildContext {
    /// A directory of this machine, absolute.
    Directory(PathBuf),
    /// A URL or Git reference that the engine fetches.
    Remote(String),
}
