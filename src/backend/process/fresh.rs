//! The entries that this command has just written, until their instances start: what is still in its file need not be
//! read from there. Holds nothing that matters: what is not here is read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::dirs::InstanceDir;

/// Entries by the directories of their instances, each with the file that it is in.
#[derive(Debug)]
pub(super) struct Fresh<Entry>(RefCell<BTreeMap<PathBuf, (Written, Entry)>>);

/// Which file it is, and when it was last changed. An entry is never written to: another file takes its place.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl<Entry> Default for Fresh<Entry> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<Entry> Fresh<Entry> {
    /// Keeps an entry that was written a moment ago, by nobody else yet: its instance has not been started.
    pub(super) fn keep(&self, dir: &InstanceDir, entry: Entry) {
        if let Some(written) = written(dir) {
            let path = dir.path().to_owned();
            self.0.borrow_mut().insert(path, (written, entry));
        }
    }

    /// Gives an entry away, if its file is still the one that it was written to.
    pub(super) fn take(&self, dir: &InstanceDir) -> Option<Entry> {
        let (before, entry) = self.0.borrow_mut().remove(dir.path())?;
        (written(dir)? == before).then_some(entry)
    }
}

fn written(dir: &InstanceDir) -> Option<Written> {
    let facts = std::fs::symlink_metadata(dir.record()).ok()?;
    Some(Written {
        device: facts.dev(),
        inode: facts.ino(),
        changed: (facts.ctime(), facts.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::process::dirs::Dirs;
    use crate::backend::process::replace;

    #[test]
    fn an_entry_that_was_replaced_or_removed_is_not_given_away() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path().join("s"), root.path().join("r"));
        let dir = dirs.project("p").unwrap().instance("p-a-1").unwrap();
        dir.create().unwrap();
        let fresh = Fresh::default();
        let keep = || {
            replace(&dir.record(), b"one").unwrap();
            fresh.keep(&dir, "one");
        };
        keep();
        assert_eq!(fresh.take(&dir), Some("one"));
        assert_eq!(fresh.take(&dir), None);
        keep();
        replace(&dir.record(), b"two").unwrap();
        assert_eq!(fresh.take(&dir), None);
        keep();
        std::fs::remove_file(dir.record()).unwrap();
        assert_eq!(fresh.take(&dir), None);
    }
}
