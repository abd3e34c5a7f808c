//! Whether an instance that is to take another's place can be made, as far as that can be seen beforehand: else the one
//! that runs would be ended for nothing. Looks; makes and ends nothing.

use std::collections::BTreeSet;

use super::child::Launch;
use super::ledger::Record;
use super::refusal::shown;
use super::{Processes, convert, stores};
use crate::backend::BackendError;
use crate::plan::step::{Action, InstanceSpec, Step};
use crate::state::BackendKind;

/// Why one cannot be made.
#[derive(Debug)]
pub struct Infeasible {
    /// Its service.
    pub service: String,
    /// Why.
    pub error: Box<BackendError>,
}

impl Processes {
    /// Looks at every instance that these steps stop another one of its service for.
    ///
    /// # Errors
    /// The first that cannot be made.
    pub fn check_replacements(&self, steps: &[Step]) -> Result<(), Infeasible> {
        let stopped: BTreeSet<&str> = steps
            .iter()
            .filter_map(|step| {
                let Action::Stop { instance, .. } = &step.action else {
                    return None;
                };
                Some(instance.service.as_str())
            })
            .collect();
        if stopped.is_empty() {
            return Ok(());
        }
        // What is run may be made by a step before.
        let may_make_files = steps.iter().any(|step| {
            matches!(
                step.action,
                Action::Build { .. } | Action::AwaitCompleted { .. }
            )
        });
        for step in steps {
            let Action::Create(spec) = &step.action else {
                continue;
            };
            if spec.backend != BackendKind::Process || !stopped.contains(&*spec.service.name) {
                continue;
            }
            self.check(spec, !may_make_files)
                .map_err(|error| Infeasible {
                    service: spec.service.name.clone(),
                    error: Box::new(error),
                })?;
        }
        Ok(())
    }

    fn check(&self, spec: &InstanceSpec, has_files: bool) -> Result<(), BackendError> {
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
