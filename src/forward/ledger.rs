//! The project's ledger, followed by inotify: what has not changed is not read again. What cannot be watched is
//! looked at again and again.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;

use crate::backend::process::dirs::ProjectDir;
use crate::backend::process::notes::Notes;
use crate::backend::process::{Record, names};

/// How often the ledger is read where it cannot be watched.
const REGULARLY: Duration = Duration::from_millis(500);

/// The entries of a project.
#[derive(Debug)]
pub(super) struct Ledger {
    dir: ProjectDir,
    /// The inotify descriptor: like a pipe, it is readable and read in whole messages.
    changes: Option<Receiver>,
    /// The watch over the directory of all instances.
    top: Option<i32>,
    /// The instances by the watches over their directories.
    watches: BTreeMap<i32, String>,
    /// Instances may have come or gone.
    is_listed: bool,
    /// Instances whose entry may say something else by now.
    stale: BTreeSet<String>,
    /// As last read, by name. One that cannot be read stays as it was.
    records: BTreeMap<String, Arc<Record>>,
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
            top: None,
            watches: BTreeMap::new(),
            is_listed: false,
            stale: BTreeSet::new(),
            records: BTreeMap::new(),
        }
    }

    /// Returns when something may have changed since the last reading.
    pub(super) async fn changed(&mut self) {
        let readable = match &self.changes {
            Some(changes) => changes.readable().await.is_ok(),
            None => false,
        };
        if !readable {
            tokio::time::sleep(REGULARLY).await;
        }
        self.hear();
        // Nothing is left, which the runtime has to see for itself. What came in between is not lost.
        if let Some(changes) = &self.changes
            && changes.try_read(&mut [0; 4096]).is_ok()
        {
            self.is_listed = false;
        }
    }

    /// The entries as they are now.
    pub(super) fn read(&mut self) -> Vec<Arc<Record>> {
        self.hear();
        self.list();
        let watched: BTreeSet<&String> = self.watches.values().collect();
        // The notes of a run are not watched: its process may be known by now.
        let is_open = |record: &Record| {
            let run = record.run.as_ref();
            run.is_some_and(|run| run.finished.is_none() && run.process.is_none())
        };
        let unwatched = self.records.keys().filter(|name| !watched.contains(name));
        let mut stale: BTreeSet<String> = unwatched.cloned().collect();
        stale.append(&mut self.stale);
        for (name, record) in &mut self.records {
            if stale.contains(name) || !is_open(record) {
                continue;
            }
            if let Ok(instance) = self.dir.instance(name) {
                let notes = Notes::read(&instance.notes(), record.id());
                if notes != Notes::default() {
                    Arc::make_mut(record).learn(&notes);
                }
            }
        }
        for name in stale {
            let Ok(instance) = self.dir.instance(&name) else {
                continue;
            };
            // One that was made again under its name has to be watched again, which is harmless for one that is
            // watched; before it is read.
            let flags = WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
            if let Some(watch) = self.watch(instance.path(), flags) {
                self.watches.insert(watch, name.clone());
            }
            match Record::read(&instance) {
                Ok(Some(record)) => drop(self.records.insert(name, Arc::new(record))),
                Ok(None) => drop(self.records.remove(&name)),
                Err(_) => {}
            }
        }
        self.records.values().cloned().collect()
    }

    /// Takes note of who has come and gone, if anybody has.
    fn list(&mut self) {
        if self.top.is_none() {
            let moved = WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
            let new = WatchFlags::CREATE | WatchFlags::DELETE | moved;
            self.top = self.watch(&self.dir.instances(), new);
            self.is_listed = false;
        }
        if self.is_listed {
            return;
        }
        let Ok(names) = names(&self.dir) else { return };
        self.records.retain(|name, _| names.contains(name));
        self.watches.retain(|_, name| names.contains(name));
        self.stale.extend(names);
        self.is_listed = self.top.is_some();
    }

    /// Reads what inotify has to say.
    fn hear(&mut self) {
        let Some(changes) = &self.changes else {
            self.is_listed = false;
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(changes, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            let watch = event.wd();
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.is_listed = false;
            } else if event.events().contains(ReadFlags::IGNORED) {
                self.watches.remove(&watch);
                self.top = self.top.filter(|top| *top != watch);
            } else if self.top == Some(watch) {
                // What is on its way out has a name that is no instance's.
                let name = event.file_name().map(CStr::to_string_lossy);
                let name = name.filter(|name| !name.starts_with('.'));
                self.stale.extend(name.map(Cow::into_owned));
            } else if let Some(name) = self.watches.get(&watch) {
                self.stale.insert(name.clone());
            }
        }
    }

    /// One that is not there will be seen when it comes.
    fn watch(&self, path: &std::path::Path, flags: WatchFlags) -> Option<i32> {
        inotify::add_watch(self.changes.as_ref()?, path, flags).ok()
    }
}
