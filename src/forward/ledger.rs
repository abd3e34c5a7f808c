//! The project's ledger, followed by inotify. What cannot be watched is looked at again and again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

use crate::backend::process::dirs::ProjectDir;
use crate::backend::process::{Record, names};

/// How often the ledger is read where it cannot be watched.
const REGULARLY: Duration = Duration::from_millis(500);

/// The entries of a project.
#[derive(Debug)]
pub(super) struct Ledger {
    dir: ProjectDir,
    changes: Option<Receiver>,
    /// As last read, by name. One that cannot be read stays as it was.
    records: BTreeMap<String, Record>,
}

impl Ledger {
    pub(super) fn open(dir: ProjectDir) -> Self {
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(io::Error::from)
            .and_then(|inotify| Receiver::from_file_unchecked(File::from(inotify)))
            .ok();
        Self {
            dir,
            changes,
            records: BTreeMap::new(),
        }
    }

    /// Returns when something may have changed since the last reading.
    pub(super) async fn changed(&self) {
        let Some(changes) = &self.changes else {
            tokio::time::sleep(REGULARLY).await;
            return;
        };
        if changes.readable().await.is_err() {
            tokio::time::sleep(REGULARLY).await;
        }
        // What happened is read from the ledger; here it only matters that something did.
        let mut buffer = [0; 4096];
        while changes.try_read(&mut buffer).is_ok() {}
    }

    /// Reads all entries, each watched before it is read.
    pub(super) fn read(&mut self) -> Vec<Record> {
        let new = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_TO;
        self.watch(&self.dir.instances(), new);
        let Ok(names) = names(&self.dir) else {
            return self.records.values().cloned().collect();
        };
        self.records.retain(|name, _| names.contains(name));
        for name in names {
            let Ok(instance) = self.dir.instance(&name) else {
                continue;
            };
            self.watch(instance.path(), WatchFlags::MOVED_TO | WatchFlags::ONLYDIR);
            match Record::read(&instance) {
                Ok(Some(record)) => drop(self.records.insert(name, record)),
                Ok(None) => drop(self.records.remove(&name)),
                Err(_) => {}
            }
        }
        self.records.values().cloned().collect()
    }

    /// A directory that was made again under its name has to be watched again, which is harmless for one that
    /// is watched. One that is not there will be seen when it comes.
    fn watch(&self, path: &std::path::Path, flags: WatchFlags) {
        if let Some(changes) = &self.changes {
            let _ = inotify::add_watch(changes, path, flags);
        }
    }
}
