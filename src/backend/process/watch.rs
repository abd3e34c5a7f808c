//! Waits until the ledger or the output of instances changes, by inotify and by the connection to the
//! supervisor: if that one is killed, another takes over and the ledger goes on changing. Never polls.

use std::fs::File;
use std::io;
use std::path::Path;

use futures_util::future::OptionFuture;
use rustix::fs::inotify::WatchFlags;
use tokio::net::unix::pipe::Receiver;

use super::client::Client;
use super::dirs::{InstanceDir, failed};
use super::meeting::Connection;
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
            self.connection = Some(self.client.attend(&self.project).await?);
        }
        let closed: OptionFuture<_> = self.connection.as_mut().map(Connection::closed).into();
        tokio::select! {
            biased;
            ready = self.changes.readable() => ready.map_err(cannot)?,
            Some(()) = closed => {
                self.connection = None;
                return Ok(());
            }
        }
        watching::drain(&self.changes).map_err(cannot)?;
        self.add_indices()
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

fn cannot(source: io::Error) -> BackendError {
    BackendError::State {
        action: "cannot watch the ledger".to_owned(),
        source,
    }
}
