//! What this machine allows where local services name others: facts for the planner.

use rustix::process::{getegid, geteuid};

use super::Processes;
use super::namespace_probe::is_possible;
use crate::backend::BackendError;
use crate::naming::{Linkage, Way};

impl Processes {
    /// What is possible for a project's local services, as far as this machine goes.
    pub fn linkage(&self, project: &str) -> Result<Linkage, BackendError> {
        let user = (geteuid().as_raw(), getegid().as_raw());
        Ok(Linkage {
            way: if is_possible() {
                Way::Hosts
            } else {
                Way::Environment
            },
            relays: self.dirs().project(project)?.relays(),
            user,
            ..Linkage::default()
        })
    }
}
