//! Waits until the ledger or the output of instances changes, by inotify and by the connection to the
//! supervisor: if that one is killed, another takes over and the ledger goes on changing. Never polls.

use std::fs::File;
use std::io;
use std::path::Path;

use futures_util::future::{OptionFuture, select_all};
use rustix::fs::inotify::WatchFlags;
use tokio::net::unix::pipe::Receiver;

use super::client::Client;
use super::dirs::{InstanceDir, failed};
use super::ledger::Record;
use super::meeting::Connection;
use super::observe;
use super::run::ProcessId;
use super::watching;
use crate::backend::BackendError;

/// A watch over some instances of one project.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    client: &'a Client,
    project: String,
    dirs: Vec<InstanceDir>,
    /// Whether changes of the logs count too; then which segment's index of each instance is to be
    /// watched next.
    segments: Option<Vec<u64>>,
    /// The inotify descriptor: like a pipe, it is readable and read in whole messages.
    changes: Receiver,
    connection: Option<Connection>,
    /// The keepers of the runs, where no supervisor is there and none may come up: nobody but them tells of ends.
    unattended: Option<Vec<Receiver>>,
}

impl<'a> Watch<'a> {
    /// From now on no change is missed. `output`: changes of the logs count too.
    pub(super) fn new(
        client: &'a Client,
        project: &str,
        dirs: &[InstanceDir],
        output: bool,
    ) -> Result<Self, BackendError> {
        let inotify = watching::queue().map_err(cannot)?;
        let changes = Receiver::from_file_unchecked(File::from(inotify)).map_err(cannot)?;
        let mut watch = Self {
            client,
            project: project.to_owned(),
            dirs: dirs.to_vec(),
            segments: output.then(|| vec![0; dirs.len()]),
            changes,
            connection: None,
            unattended: None,
        };
        for dir in &watch.dirs {
            // The ledger entry is replaced by renames; the index is made with the first output.
            let mut flags = WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR;
            if output {
                flags |= WatchFlags::CREATE;
            }
            // One that was removed in the meantime has no entry, which the caller will find.
            watch.add(dir.path(), flags)?;
        }
        watch.add_indices()?;
        Ok(watch)
    }

    /// Returns when something has changed. `alive`: something is running, so a supervisor must be there to
    /// note its end.
    pub(super) async fn changed(&mut self, alive: bool) -> Result<(), BackendError> {
        if alive && self.connection.is_none() {
            // A new supervisor may have changed the ledger on its way up; the events tell.
            self.connection = if self.segments.is_some() {
                self.client.look_on(&self.project).await?
            } else {
                Some(self.client.attend(&self.project).await?)
            };
            if self.connection.is_some() {
                self.unattended = None;
            } else if self.unattended.is_none() {
                self.unattended = Some(self.keepers()?);
                // What has ended by now is seen by another look.
                return Ok(());
            }
        }
        let closed: OptionFuture<_> = self.connection.as_mut().map(Connection::closed).into();
        tokio::select! {
            biased;
            ready = self.changes.readable() => ready.map_err(cannot)?,
            Some(()) = closed => {
                self.connection = None;
                return Ok(());
            }
            () = first_end(self.unattended.as_mut()) => return Ok(()),
        }
        watching::drain(&self.changes).map_err(cannot)?;
        self.add_indices()
    }

    /// Reads an entry. Where no supervisor notes ends in it, its state is what is seen of the run.
    pub(super) fn read(&self, dir: &InstanceDir) -> Result<Option<Record>, BackendError> {
        let mut record = Record::read(dir)?;
        if let Some(record) = record.as_mut().filter(|_| self.unattended.is_some()) {
            record.status = observe::status(record);
        }
        Ok(record)
    }

    fn keepers(&self) -> Result<Vec<Receiver>, BackendError> {
        let mut keepers = Vec::new();
        for dir in &self.dirs {
            let keeper = Record::read(dir)?.and_then(|record| record.keeper());
            if let Some(descriptor) = keeper.and_then(ProcessId::open) {
                // Readable from its end on.
                let descriptor = File::from(descriptor);
                keepers.push(Receiver::from_file_unchecked(descriptor).map_err(cannot)?);
            }
        }
        Ok(keepers)
    }

    /// Watches the indices that have been made by now.
    fn add_indices(&mut self) -> Result<(), BackendError> {
        let Some(mut segments) = self.segments.take() else {
            return Ok(());
        };
        for (dir, next) in self.dirs.iter().zip(&mut segments) {
            // Nothing is added to any but the last.
            let last = dir.segments().ok().and_then(|all| all.last().copied());
            if let Some(last) = last.filter(|last| *last >= *next)
                && self.add(&dir.index(last), WatchFlags::MODIFY)?
            {
                *next = last + 1;
            }
        }
        self.segments = Some(segments);
        Ok(())
    }

    /// Whether the file was there.
    fn add(&self, path: &Path, flags: WatchFlags) -> Result<bool, BackendError> {
        watching::add(&self.changes, path, flags).map_err(|error| failed("watch", path, error))
    }
}

/// Waits for the end of one of them, which is told once.
async fn first_end(keepers: Option<&mut Vec<Receiver>>) {
    let Some(keepers) = keepers.filter(|keepers| !keepers.is_empty()) else {
        return std::future::pending().await;
    };
    let ends = keepers.iter().map(|keeper| Box::pin(keeper.readable()));
    let (_, which, _) = select_all(ends).await;
    keepers.swap_remove(which);
}

fn cannot(source: io::Error) -> BackendError {
    BackendError::State {
        action: "cannot watch the ledger".to_owned(),
        source,
    }
}
