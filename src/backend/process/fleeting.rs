//! `run --rm`: an instance that goes when it has ended, as a container does whose engine was told so.
//!
//! As a rule the command in whose foreground it ran takes it away. Where that was killed, or there was none (`-d`),
//! whoever looks next does: until then it is not shown.

use super::{Processes, Record};
use crate::state::{Instance, Status};

impl Processes {
    /// Without what was to go at its end and has ended.
    pub(super) async fn without_fleeting(
        &self,
        project: &str,
        all: Vec<Instance>,
    ) -> Vec<Instance> {
        let mut left = Vec::with_capacity(all.len());
        for instance in all {
            if !self.is_over(project, &instance) || !self.goes(project, &instance.name).await {
                left.push(instance);
            }
        }
        left
    }

    fn is_over(&self, project: &str, instance: &Instance) -> bool {
        let is_fleeting = || {
            let dir = self.dirs().project(project).ok()?;
            let is_here = self.client.is_here(&dir);
            let record = Record::read(&dir.instance(&instance.name).ok()?).ok()??;
            // Another one may have the name by now.
            Some(is_here && record.fleeting && record.id() == instance.id.0)
        };
        let has_ended = matches!(instance.status, Status::Exited { .. });
        instance.one_off && has_ended && is_fleeting().unwrap_or_default()
    }

    /// Removes it, unless somebody else changes the project; then it is left to the next look. Whether it is gone for
    /// who looks.
    async fn goes(&self, project: &str, name: &str) -> bool {
        match self.borrowed(project) {
            Some(_borrowed) => self.remove(project, name).await.is_ok(),
            None => true,
        }
    }
}
