//! Containers of the project that no service of its files explains.

use crate::plan::step::Cause;
use crate::plan::up::Planner;
use crate::state::{Instance, Status};

impl Planner<'_> {
    /// Removes orphans, or names them.
    pub(super) fn orphans(&mut self) {
        let inputs = self.inputs;
        let orphans: Vec<&Instance> = inputs
            .observed
            .instances
            .iter()
            .filter(|instance| self.is_orphan(instance))
            .collect();
        if inputs.policy.remove_orphans {
            for instance in orphans {
                self.discard(instance, Cause::Orphan, Vec::new());
            }
        } else if !orphans.is_empty() && !inputs.policy.ignore_orphans {
            let names = orphans
                .iter()
                .map(|instance| instance.name.as_str())
                .collect::<Vec<_>>();
            self.plan.notes.push(format!(
                "orphans of this project: {} (ended one-offs, or services that are not in the compose file; --remove-orphans removes them)",
                names.join(", ")
            ));
        }
    }

    /// As Docker Compose has it: a one-off that has ended, or an instance of a service that the files do
    /// not declare. A one-off that runs is somebody's work.
    fn is_orphan(&self, instance: &Instance) -> bool {
        let project = self.inputs.project;
        if self.removals.contains_key(&instance.id.0) {
            return false;
        }
        if instance.one_off {
            return matches!(instance.status, Status::Exited { .. } | Status::Dead);
        }
        !project.services.contains_key(&instance.service)
            && !project.disabled.contains(&instance.service)
    }
}
