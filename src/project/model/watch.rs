//! `services.*.develop.watch` (compose specification, 16-develop).

use std::path::PathBuf;

use super::Hook;

/// What is to happen when files below a path change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The file or directory, absolute.
    pub path: PathBuf,
    /// What to do.
    pub reaction: Reaction,
    /// Where the path's files go in the container.
    pub target: Option<String>,
    /// The command of `sync+exec`.
    pub exec: Option<Hook>,
    /// Patterns, relative to the path, of which a file must match one; empty: every file counts.
    pub include: Vec<String>,
    /// Patterns, relative to the path, of files that do not count.
    pub ignore: Vec<String>,
    /// Bring the container up to date before the first change.
    pub initial_sync: bool,
}

/// `action` of a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reaction {
    /// Build the image and make the instances anew.
    Rebuild,
    /// Restart the instances.
    Restart,
    /// Copy what changed into the containers.
    Sync,
    /// Copy, then restart.
    SyncRestart,
    /// Copy, then run a command in the containers.
    SyncExec,
}

impl Reaction {
    /// Whether instances are started anew.
    pub fn renews(self) -> bool {
        matches!(self, Self::Rebuild | Self::Restart | Self::SyncRestart)
    }

    /// Whether files are copied.
    pub fn syncs(self) -> bool {
        matches!(self, Self::Sync | Self::SyncRestart | Self::SyncExec)
    }
}
