//! Which processes `up` makes in the place of what runs. What runs ends before they are made, so whether they can be is
//! to be asked before the plan is carried out.

use std::collections::BTreeSet;

use crate::plan::Plan;
use crate::plan::step::{Action, InstanceSpec};
use crate::state::BackendKind;

/// A process in the place of an instance that is stopped for it.
#[derive(Clone, Copy, Debug)]
pub struct Replacement<'a> {
    /// What it is to be.
    pub spec: &'a InstanceSpec,
    /// Whether what it runs is there by now, if ever: no step makes files before.
    pub has_files: bool,
}

impl Plan {
    /// The processes that take the place of what runs of their service.
    pub fn replacements(&self) -> impl Iterator<Item = Replacement<'_>> {
        let stopped: BTreeSet<&str> = self
            .steps
            .iter()
            .filter_map(|step| {
                let Action::Stop { instance, .. } = &step.action else {
                    return None;
                };
                Some(instance.service.as_str())
            })
            .collect();
        let has_files = !self.steps.iter().any(|step| {
            matches!(
                step.action,
                Action::Build { .. } | Action::AwaitCompleted { .. }
            )
        });
        self.steps.iter().filter_map(move |step| {
            let Action::Create(spec) = &step.action else {
                return None;
            };
            let replaces = spec.backend == BackendKind::Process
                && stopped.contains(spec.service.name.as_str());
            replaces.then_some(Replacement { spec, has_files })
        })
    }
}
