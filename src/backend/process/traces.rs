//! Whether a project may have left anything in an engine: a mark beside the ledger, made before the first container,
//! network or volume and taken away when a `down` has seen that nothing is left. A project whose services have no
//! container form asks no engine without it.

use std::fs;
use std::io;

use super::Processes;
use super::dirs::failed;
use crate::backend::BackendError;

impl Processes {
    /// Whether something was made in an engine for the project. A place that cannot be looked at has no mark.
    pub fn has_traces(&self, project: &str) -> bool {
        let dir = self.dirs().project(project);
        dir.is_ok_and(|dir| dir.traces().exists() || dir.relays().is_dir())
    }

    /// Something is about to be made there.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn leave_traces(&self, project: &str) -> Result<(), BackendError> {
        let dir = self.dirs().project(project)?;
        let path = dir.traces();
        if path.exists() {
            return Ok(());
        }
        let written = dir
            .create()
            .and_then(|()| fs::write(&path, "").map_err(|error| failed("write", &path, error)));
        match written {
            // Without it, only the services that have a container form now are looked for there.
            Err(error) if error.is_read_only() => Ok(()),
            written => written,
        }
    }

    /// Nothing is left there.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn forget_traces(&self, project: &str) -> Result<(), BackendError> {
        let dir = self.dirs().project(project)?;
        for (path, removed) in [
            (dir.traces(), fs::remove_file(dir.traces())),
            (dir.relays(), fs::remove_dir_all(dir.relays())),
        ] {
            match removed {
                Err(error)
                    if ![io::ErrorKind::NotFound, io::ErrorKind::ReadOnlyFilesystem]
                        .contains(&error.kind()) =>
                {
                    return Err(failed("remove", &path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
