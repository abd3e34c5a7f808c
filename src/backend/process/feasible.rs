//! Whether an instance that is to take another's place can be made, as far as that can be seen beforehand: else the one
//! that runs would be ended for nothing. Looks; makes and ends nothing.

use super::child::Launch;
use super::ledger::Record;
use super::refusal::shown;
use super::{Processes, convert, stores};
use crate::backend::BackendError;
use crate::plan::step::InstanceSpec;

impl Processes {
    /// Looks at what an instance is made from; at what it runs only if that has to be there by now (`has_files`).
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn foresee(&self, spec: &InstanceSpec, has_files: bool) -> Result<(), BackendError> {
        let record = convert::record(spec, &self.variables, &self.binary)?;
        stores::check(spec)?;
        if has_files {
            runs(&record)?;
        }
        Ok(())
    }
}

/// Whether there is what the instance is to run, and where.
fn runs(record: &Record) -> Result<(), BackendError> {
    let spec = &record.spec;
    let launch = Launch {
        command: &spec.command,
        program: spec.program.as_deref(),
        working_dir: &spec.working_dir,
        environment: &spec.environment,
        run_id: "",
        user: spec.user.as_ref(),
        descriptors: None,
        hosts: None,
    };
    match launch.attempt().foresee() {
        Some(source) => Err(BackendError::Command {
            command: shown(&spec.command),
            working_dir: spec.working_dir.clone(),
            source,
        }),
        None => Ok(()),
    }
}
