//! What was gathered about a machine. Data; a part that could not be learnt in time is `None`.

use std::path::PathBuf;

use crate::backend::container::{EngineFacts, Helper};
use crate::backend::process::namespace_probe::Ways;
use crate::port::sockets::abilities::Abilities;

/// A machine, as this user meets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `uname -r`.
    pub kernel: String,
    /// The effective user id.
    pub uid: u32,
    /// wharf's own executable.
    pub executable: Option<PathBuf>,
    /// The engines, the current one first.
    pub engines: Vec<EngineFacts>,
    /// Control groups.
    pub cgroups: Option<Cgroups>,
    /// Settings of the kernel.
    pub settings: Settings,
    /// The ways to a private `/etc/hosts`, or why they could not be tried.
    pub ways: Option<Result<Ways, String>>,
    /// The soft and the hard limit of open files; `None`: no limit.
    pub descriptors: (Option<u64>, Option<u64>),
    /// Where wharf keeps what it knows.
    pub directories: Vec<Directory>,
    /// What the kernel tells about sockets, or why it could not be asked.
    pub sockets: Option<Result<Abilities, String>>,
    /// The credential helpers that the Docker configuration names.
    pub helpers: Vec<Helper>,
    /// What `docker compose` runs.
    pub plugin: Plugin,
}

/// Control groups (`cgroups(7)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    /// Which hierarchies there are.
    pub layout: Layout,
    /// The cgroup v2 that this process is in, from the root of the hierarchy.
    pub own: String,
    /// A cgroup that we may make cgroups in: ours, or that of our service manager.
    pub delegated: Option<String>,
    /// Its controllers; without one, those of ours.
    pub controllers: Vec<String>,
}

/// Which cgroup hierarchies a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// None is mounted.
    None,
    /// Version 1 alone.
    V1,
    /// Controllers in version 1, processes in version 2 as well.
    Hybrid,
    /// Version 2 alone.
    V2,
}

/// Settings of the kernel; `None`: this kernel has no such setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `kernel.yama.ptrace_scope`.
    pub ptrace_scope: Option<u64>,
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone` (Debian's kernels).
    pub userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu 23.10).
    pub apparmor_restricts: Option<u64>,
    /// `net.ipv4.ip_local_port_range`.
    pub port_range: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`, as it is written.
    pub reserved_ports: String,
    /// The first port that this user may listen on; 0: all of them.
    pub first_port: u16,
    /// `fs.inotify.max_user_watches`.
    pub inotify_watches: Option<u64>,
    /// `fs.inotify.max_user_instances`.
    pub inotify_instances: Option<u64>,
}

/// One of wharf's directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// `state` or `runtime`.
    pub what: &'static str,
    /// Where it is or will be.
    pub path: PathBuf,
    /// Why it cannot be written to, if that is so.
    pub problem: Option<String>,
    /// Its permission bits, where it exists.
    pub mode: Option<u32>,
    /// Whether it exists and is another user's.
    pub foreign: bool,
    /// What is free in its file system, in bytes.
    pub free: Option<u64>,
}

/// What `docker compose` runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Plugin {
    /// There is no such plug-in.
    #[default]
    None,
    /// This wharf, by this link.
    Wharf(PathBuf),
    /// Something else.
    Other(PathBuf),
    /// A link to nothing.
    Broken(PathBuf),
}

impl Machine {
    /// The engine that commands work with, if it works.
    pub fn engine(&self) -> Option<(&EngineFacts, &crate::backend::container::Abilities)> {
        use crate::backend::container::Answer;
        self.engines
            .iter()
            .filter(|engine| engine.current)
            .find_map(|engine| match &engine.answer {
                Answer::Engine(abilities) => Some((engine, abilities.as_ref())),
                Answer::NotPermitted(_)
                | Answer::Absent
                | Answer::Silent
                | Answer::TooOld(_)
                | Answer::NotAsked
                | Answer::Failed(_) => None,
            })
    }
}
