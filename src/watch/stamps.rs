//! Whether a file that was closed by somebody who could write has been written into.
//!
//! A database or a lock is opened for writing by whoever only reads it. All that changes a file is told by itself, but
//! for what is written through a mapping (inotify(7), BUGS); that changes its times, and the file is closed afterwards.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::inotify::below;

/// A tick of the clock that files are stamped with, which may be behind ours by that much.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// What changes with each change of a file: whose contents these are, and since when.
type Stamp = (u64, u64, u64, i64, i64);

/// The files that have told something.
#[derive(Debug)]
pub(super) struct Stamps {
    began: SystemTime,
    known: BTreeMap<PathBuf, Stamp>,
}

impl Stamps {
    /// What changes from now on is a change.
    pub(super) fn new() -> Self {
        Self {
            began: SystemTime::now(),
            known: BTreeMap::new(),
        }
    }

    /// The file is known as it is now. Whether it had changed since it was known.
    pub(super) fn note(&mut self, path: &Path, data: &Metadata) -> bool {
        let stamp = (
            data.dev(),
            data.ino(),
            data.size(),
            data.ctime(),
            data.ctime_nsec(),
        );
        match self.known.insert(path.to_owned(), stamp) {
            Some(before) => before != stamp,
            None => self.is_recent(data),
        }
    }

    /// Whether a file of which nothing was told has changed since it is watched. Where the clock was set back, it may
    /// have.
    fn is_recent(&self, data: &Metadata) -> bool {
        let seconds = Duration::from_secs(data.ctime().try_into().unwrap_or(0));
        let rest = Duration::from_nanos(data.ctime_nsec().try_into().unwrap_or(0));
        UNIX_EPOCH + seconds + rest + TICK >= self.began || SystemTime::now() < self.began
    }

    /// Nothing is known of the path, nor of those below it.
    pub(super) fn forget(&mut self, path: &Path) {
        let gone: Vec<PathBuf> = below(&self.known, path)
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.known.remove(&path);
        }
    }
}
