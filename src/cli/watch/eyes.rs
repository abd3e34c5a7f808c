//! The eyes of `watch`: what has changed, in batches. They look on while work is done.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::backend::process::watching;
use crate::error::{Error, Result};
use crate::project::model::Reaction;
use crate::watch::batch::{Batch, Change, Changes};
use crate::watch::contents::touched;
use crate::watch::files::{Files, Found, Queue, WatchError, keep, note};
use crate::watch::own::Own;
use crate::watch::rules::Rule;

/// How long it must have been quiet.
const QUIET: Duration = Duration::from_millis(100);

/// How long a burst may take before it is acted upon although it goes on.
const LONGEST: Duration = Duration::from_secs(2);

/// Collects changes.
pub(super) struct Eyes<'a> {
    rules: RefCell<Rc<Vec<Rule>>>,
    /// The rules as their ignore files have them by now; none where those cannot be read, which is told.
    read_again: Box<dyn Fn() -> Option<Rc<Vec<Rule>>> + 'a>,
    queue: Queue,
    began: Instant,
    seen: RefCell<Seen>,
    /// Something was added to the batch.
    more: Notify,
}

struct Seen {
    files: Files,
    batch: Batch,
    own: Own,
    /// What has changed since something is being built.
    meanwhile: Option<Found>,
}

impl<'a> Eyes<'a> {
    pub(super) fn new(
        files: Files,
        rules: Rc<Vec<Rule>>,
        read_again: impl Fn() -> Option<Rc<Vec<Rule>>> + 'a,
    ) -> Self {
        Self {
            rules: RefCell::new(rules),
            read_again: Box::new(read_again),
            queue: files.queue(),
            began: Instant::now(),
            seen: RefCell::new(Seen {
                files,
                batch: Batch::new(QUIET, LONGEST),
                own: Own::default(),
                meanwhile: None,
            }),
            more: Notify::new(),
        }
    }

    /// The rules that count now.
    pub(super) fn rules(&self) -> Rc<Vec<Rule>> {
        Rc::clone(&self.rules.borrow())
    }

    /// Collects what changes, until that fails.
    pub(super) async fn look(&self) -> Error {
        loop {
            self.queue.ready().await;
            if let Err(error) = self.collect() {
                return error;
            }
        }
    }

    /// Collects what has changed by now.
    fn collect(&self) -> Result<()> {
        let seen = &mut *self.seen.borrow_mut();
        let now = self.began.elapsed();
        let mut found = seen.files.changed(&self.rules()).map_err(unwatchable)?;
        if seen.files.take_stale() {
            if let Some(rules) = (self.read_again)() {
                seen.files.follow(&rules).map_err(unwatchable)?;
                self.rules.replace(rules);
            }
            keep(&mut found, &self.rules());
        }
        if let Some(meanwhile) = &mut seen.meanwhile {
            for (path, told) in found {
                note(meanwhile, path, told);
            }
            return Ok(());
        }
        for (path, told) in found {
            if !seen.own.is_empty() {
                let is_there = path.symlink_metadata().is_ok();
                seen.own.beside(&path, !told.is_new, is_there);
            }
            let change = Change {
                is_directory: told.is_directory,
                ..Change::default()
            };
            seen.batch.add(path, change, now);
        }
        self.more.notify_one();
        Ok(())
    }

    /// A build begins: what changes from now on may be its own.
    pub(super) fn build_begins(&self) -> Result<()> {
        self.collect()?;
        self.seen.borrow_mut().meanwhile = Some(Found::new());
        Ok(())
    }

    /// The build of a service has ended; what is to be said of what it changed. `restarts`: the service is started anew
    /// after it.
    pub(super) fn build_ended(&self, service: &str, restarts: bool) -> Result<Vec<String>> {
        self.collect()?;
        let seen = &mut *self.seen.borrow_mut();
        let meanwhile = touched(seen.meanwhile.take().unwrap_or_default());
        let rules = self.rules();
        let rebuilds = |path: &Path| {
            rules.iter().any(|rule| {
                rule.service == service
                    && rule.trigger.reaction == Reaction::Rebuild
                    && rule.counts(path, false)
            })
        };
        let verdict = seen.own.built(service, &meanwhile, rebuilds, restarts);
        let now = self.began.elapsed();
        let mut resting = BTreeMap::new();
        for (path, change) in &verdict.changed {
            let follows = |rule: &&Rule| {
                rule.service != service
                    && change.spared.contains(&rule.service)
                    && rule.trigger.reaction.renews()
                    && rule.counts(path, change.is_directory)
            };
            for rule in rules.iter().filter(follows) {
                resting.entry(&rule.service).or_insert(path.display());
            }
        }
        let mut lines: Vec<String> = resting
            .iter()
            .map(|(other, path)| {
                format!(
                    "{other}: builds keep changing what is watched, now {path}: nothing is done for it before something else changes"
                )
            })
            .collect();
        for (path, change) in verdict.changed.clone() {
            seen.batch.add(path, change, now);
        }
        self.more.notify_one();
        if let Some(paths) = some(&verdict.own) {
            lines.push(format!(
                "{service}: its build changes {paths}, which is watched: that alone has it built no more"
            ));
        }
        if let Some(paths) = some(&verdict.given_up) {
            lines.push(format!(
                "{service}: each build changes what is watched, now {paths}: not built again before something else changes"
            ));
        }
        Ok(lines)
    }

    /// What changed in one go, once it has.
    pub(super) async fn batch(&self) -> Changes {
        loop {
            let due = self.seen.borrow().batch.due_at();
            let due = due.map(|due| self.began + due);
            tokio::select! {
                () = self.more.notified() => {}
                () = sleep_until(due.unwrap_or(self.began)), if due.is_some() => {
                    let taken = self.seen.borrow_mut().batch.take(self.began.elapsed());
                    if let Some(paths) = taken {
                        return paths;
                    }
                }
            }
        }
    }
}

/// Names a path of some.
fn some(paths: &[PathBuf]) -> Option<String> {
    let (first, rest) = paths.split_first()?;
    let first = first.display();
    Some(match rest.len() {
        0 => first.to_string(),
        more => format!("{first} and {more} more"),
    })
}

pub(super) fn unwatchable(error: WatchError) -> Error {
    let hint = match &error {
        WatchError::Limit(_) => Some(watching::MORE_WATCHES),
        WatchError::System { source, .. } => {
            watching::is_at_limit(source).then_some(watching::MORE_INSTANCES)
        }
    };
    let error = Error::failed(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
