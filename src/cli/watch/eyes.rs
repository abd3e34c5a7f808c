//! The eyes of `watch`: what has changed, in batches. They look on while work is done.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, Result};
use crate::watch::batch::Batch;
use crate::watch::files::{Files, Queue, WatchError};
use crate::watch::rules::Rule;

/// How long it must have been quiet.
const QUIET: Duration = Duration::from_millis(100);

/// How long a burst may take before it is acted upon although it goes on.
const LONGEST: Duration = Duration::from_secs(2);

/// Collects changes.
pub(super) struct Eyes<'a> {
    rules: &'a [Rule],
    queue: Queue,
    began: Instant,
    seen: RefCell<Seen>,
    /// Something was added to the batch.
    more: Notify,
}

struct Seen {
    files: Files,
    batch: Batch,
}

impl<'a> Eyes<'a> {
    pub(super) fn new(files: Files, rules: &'a [Rule]) -> Self {
        Self {
            rules,
            queue: files.queue(),
            began: Instant::now(),
            seen: RefCell::new(Seen {
                files,
                batch: Batch::new(QUIET, LONGEST),
            }),
            more: Notify::new(),
        }
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
        let mut seen = self.seen.borrow_mut();
        let now = self.began.elapsed();
        for path in seen.files.changed(self.rules).map_err(unwatchable)? {
            seen.batch.add(path, now);
        }
        self.more.notify_one();
        Ok(())
    }

    /// What changed in one go, once it has.
    pub(super) async fn batch(&self) -> BTreeSet<PathBuf> {
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

pub(super) fn unwatchable(error: WatchError) -> Error {
    let at_limit = matches!(error, WatchError::Limit(_));
    let error = Error::failed(error);
    if at_limit {
        error.hint("sudo sysctl fs.inotify.max_user_watches=524288")
    } else {
        error
    }
}
