//! Whether an instance that is to take another's place can be made, as far as that can be seen beforehand: else the one
//! that runs would be ended for nothing. Looks; makes and ends nothing.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, geteuid, getrlimit};

use super::child::{Extras, Launch, Part, name_of};
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
        let launch = launch(&record);
        let attempt = launch.attempt();
        let too_high = limits(&record).map(|error| attempt.explain(&error));
        match too_high.or_else(|| attempt.foresee().filter(|_| has_files)) {
            Some(source) => Err(BackendError::Command {
                command: shown(&record.spec.command),
                working_dir: record.spec.working_dir.clone(),
                source,
            }),
            None => Ok(()),
        }
    }
}

/// Why it could not have its `ulimits` (`setrlimit(2)`).
fn limits(record: &Record) -> Option<io::Error> {
    let most_descriptors = || {
        let text = fs::read_to_string("/proc/sys/fs/nr_open").ok()?;
        text.trim().parse::<u64>().ok()
    };
    // `None` is no limit, which is above all others.
    let is_above = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    };
    let wanted = Extras::of(&record.spec.attributes, None).limits;
    wanted.into_iter().find_map(|(resource, limit)| {
        let errno = if is_above(limit.current, limit.maximum) {
            Errno::INVAL
        } else if (resource == Resource::Nofile && is_above(limit.maximum, most_descriptors()))
            || (!geteuid().is_root() && is_above(limit.maximum, getrlimit(resource).maximum))
        {
            Errno::PERM
        } else {
            return None;
        };
        Some(Part::Limit(name_of(resource)).mark(errno.into()))
    })
}

fn launch(record: &Record) -> Launch<'_> {
    let spec = &record.spec;
    Launch {
        command: &spec.command,
        program: spec.program.as_deref(),
        working_dir: &spec.working_dir,
        environment: &spec.environment,
        run_id: "",
        user: spec.user.as_ref(),
        descriptors: None,
        hosts: None,
    }
}
