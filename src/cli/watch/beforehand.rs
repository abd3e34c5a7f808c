//! `initial_sync` under `up --watch`: the files are in a container before it starts for the first time, as with Docker
//! Compose. What changes until watching begins is copied then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::Watch;
use crate::backend::router::Backends;
use crate::backend::{Backend, BackendError, LogOptions, Made};
use crate::cli::context::Context;
use crate::event::Events;
use crate::plan::step::{Action, Step, Target};
use crate::state::{BackendKind, Instance, InstanceId};
use crate::ui::NAME;
use crate::watch::files::at_first;
use crate::watch::rules::{Pair, Rule};

/// What containers were given before they were started, by the container's name.
#[derive(Debug, Default)]
pub(in crate::cli) struct Given(BTreeMap<String, Gift>);

/// What one was given: each file as it was just before.
type Gift = BTreeMap<Pair, Option<Stamp>>;

/// Which file it was, and when it was changed last: inode, seconds and nanoseconds.
type Stamp = (u64, i64, i64);

fn stamp(pair: &Pair) -> Option<Stamp> {
    let data = fs::symlink_metadata(&pair.host).ok()?;
    Some((data.ino(), data.ctime(), data.ctime_nsec()))
}

impl Given {
    /// Of the files of a rule, what one of these containers has not got as it is now; `None` where one was given nothing.
    pub(super) fn left(&self, rule: &Rule, containers: &[Instance]) -> Option<Vec<Pair>> {
        let gifts = containers.iter().map(|it| self.0.get(&it.name));
        let gifts: Vec<&Gift> = gifts.collect::<Option<_>>()?;
        // What has gone since is to go there, too.
        let before = gifts.iter().flat_map(|gift| gift.keys());
        let before = before.filter(|pair| rule.pair(&pair.host).as_ref() == Some(pair));
        let all: BTreeSet<Pair> = pairs(rule).into_iter().chain(before.cloned()).collect();
        let is_left = |pair: &Pair| {
            let now = stamp(pair);
            gifts.iter().any(|gift| gift.get(pair) != Some(&now))
        };
        Some(all.into_iter().filter(is_left).collect())
    }
}

/// The files of a rule, and where they go.
pub(super) fn pairs(rule: &Rule) -> Vec<Pair> {
    let files = at_first(rule);
    files.iter().filter_map(|path| rule.pair(path)).collect()
}

/// All backends, where containers are given their first files.
#[derive(Debug)]
pub(in crate::cli) struct Beforehand<'a> {
    pub(in crate::cli) context: &'a Context,
    pub(in crate::cli) backends: &'a Backends,
    /// `None`: nobody watches.
    pub(in crate::cli) watch: Option<&'a Watch<'a>>,
}

impl Beforehand<'_> {
    /// Gives a container its files. What goes wrong is told when it is tried again, once it runs.
    async fn give(&self, target: &Target, made: &Made, events: &Events) {
        let Some(watch) = self.watch else { return };
        let Some(id) = Backends::resolve(target, made) else {
            return;
        };
        let rules = watch.triggers.rules.iter().filter(|rule| {
            let trigger = &rule.trigger;
            rule.service == target.service && trigger.initial_sync && trigger.reaction.syncs()
        });
        let gift: Gift = rules
            .flat_map(pairs)
            .map(|pair| {
                let stamp = stamp(&pair);
                (pair, stamp)
            })
            .collect();
        if gift.is_empty() {
            return;
        }
        let files = if gift.len() == 1 { "file" } else { "files" };
        let (service, count) = (&target.service, gift.len());
        self.context.ui.status(format!(
            "{NAME}watch:{NAME:#} {service}: syncing {count} {files}"
        ));
        let paths = gift.keys();
        let paths = paths.map(|pair| (pair.host.clone(), pair.inside.clone()));
        let paths: Vec<(PathBuf, String)> = paths.collect();
        let containers = &self.backends.containers;
        let synced = containers.sync(&id.0, &target.name, &paths, events).await;
        if synced.is_ok() {
            let mut given = watch.given.borrow_mut();
            given.0.insert(target.name.clone(), gift);
        }
    }
}

impl Backend for Beforehand<'_> {
    async fn observe(&self, project: &str) -> Result<Vec<Instance>, BackendError> {
        self.backends.observe(project).await
    }

    async fn perform(
        &self,
        step: &Step,
        made: &Made,
        events: &Events,
    ) -> Result<Option<InstanceId>, BackendError> {
        if let Action::Start { instance } = &step.action
            && instance.backend == BackendKind::Container
            && self.watch.is_some()
        {
            Box::pin(self.give(instance, made, events)).await;
        }
        self.backends.perform(step, made, events).await
    }

    async fn follow(
        &self,
        instances: &[Instance],
        options: &LogOptions,
        events: &Events,
    ) -> Result<(), BackendError> {
        self.backends.follow(instances, options, events).await
    }
}
