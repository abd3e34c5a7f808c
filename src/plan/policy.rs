//! What the user decided in advance, and the answers given since: an input of every plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::plan::step::OneOff;
use crate::port::claim::Claim;
use crate::project::model::{Conflict, PullPolicy, Service};

/// The decisions that a plan may rely on.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// `--on-conflict` (or `--force`); `None`: what the service or project says, else ask.
    pub on_conflict: Option<Conflict>,
    /// Answers to questions of earlier plans.
    pub answers: BTreeMap<Claim, Choice>,
    /// When to make instances anew.
    pub recreate: Recreate,
    /// `--build`: build images that exist.
    pub build: bool,
    /// `--no-build`: never build.
    pub no_build: bool,
    /// `--pull always`: pull images that exist.
    pub pull: bool,
    /// `--pull missing` and `--pull never`: in place of what the services say.
    pub pull_policy: Option<PullPolicy>,
    /// Images were pulled and built already: what is there is up to date.
    pub images_done: bool,
    /// Services whose providers have brought them up, and said what they say to others.
    pub provided: BTreeSet<String>,
    /// Services that were made anew already, for a provider that depends on them.
    pub renewed: BTreeSet<String>,
    /// `--scale S=N`.
    pub scale: BTreeMap<String, u32>,
    /// `-t`: overrides the grace period of everything that is stopped.
    pub timeout: Option<Duration>,
    /// `--always-recreate-deps`: make services that nobody named anew, too.
    pub recreate_dependencies: bool,
    /// `--remove-orphans`.
    pub remove_orphans: bool,
    /// `COMPOSE_IGNORE_ORPHANS`: say nothing of orphans.
    pub ignore_orphans: bool,
    /// `--all-resources`: make networks and volumes that no service uses, too.
    pub all_resources: bool,
    /// Volumes that were made from another configuration are made anew, and their data is lost.
    pub renew_diverged: bool,
    /// `--no-start`: make, do not start.
    pub no_start: bool,
    /// `-V`: do not inherit anonymous volumes.
    pub renew_volumes: bool,
    /// Names that this command, or one that was cut off, has given already: an instance that is missing gets its own
    /// again.
    pub given: BTreeSet<String>,
    /// Services named on the command line: those that `recreate` is about. Empty: all.
    pub named: BTreeSet<String>,
    /// `run`: one service gets an instance for one command, and its replicas stay as they are.
    pub once: Option<Once>,
}

/// An instance for one command.
#[derive(Clone, Debug)]
pub struct Once {
    /// The service in the form it will run in, with what the command line changes; its
    /// `container_name` is the instance's name.
    pub service: Arc<Service>,
    /// What the instance is.
    pub one_off: OneOff,
}

/// When to make an instance anew that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recreate {
    /// When what it was made from differs.
    #[default]
    Diverged,
    /// Always; the word is what asked for it, e.g. `--force-recreate`.
    Always(&'static str),
    /// Never (`--no-recreate`).
    Never,
}

/// An answer to a question about a held port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// Stop the holder.
    Replace,
    /// Publish on the next free port.
    Move,
    /// Change nothing at all.
    Abort,
}
