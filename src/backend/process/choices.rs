//! Where the services of a project run because somebody said so on a command line: remembered until somebody says
//! otherwise. A file beside the ledger; a service that runs where its compose file puts it is not in it.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use super::Processes;
use super::dirs::failed;
use super::ledger::{is_blank, replace_for_good};
use crate::backend::BackendError;
use crate::state::BackendKind;

impl Processes {
    /// The choices for a project, by service.
    ///
    /// # Errors
    /// A file that cannot be read, or was damaged.
    pub fn choices(&self, project: &str) -> Result<BTreeMap<String, BackendKind>, BackendError> {
        let path = self.dirs().project(project)?.choices();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(failed("read", &path, error)),
        };
        // Of a wharf that did not wait for the disk, before the machine went down.
        if is_blank(&text) {
            return Ok(BTreeMap::new());
        }
        serde_json::from_slice(&text).map_err(|error| {
            let why = format!("{error}: remove it, then the compose file decides again");
            failed(
                "read",
                &path,
                io::Error::new(io::ErrorKind::InvalidData, why),
            )
        })
    }

    /// Remembers choices in place of the earlier ones.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn choose(
        &self,
        project: &str,
        choices: &BTreeMap<String, BackendKind>,
    ) -> Result<(), BackendError> {
        let dir = self.dirs().project(project)?;
        let path = dir.choices();
        let cannot = |error: io::Error| failed("write", &path, error);
        if choices.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot(error)),
                _ => Ok(()),
            };
        }
        dir.create()?;
        dir.check_owner("remember where services run")?;
        let text = serde_json::to_vec(choices).map_err(|error| cannot(error.into()))?;
        // Said once, and known from nowhere else.
        replace_for_good(&path, &text).map_err(cannot)
    }
}
