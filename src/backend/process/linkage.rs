//! What this machine allows where local services name others: facts for the planner.

use std::fs;
use std::path::Path;

use rustix::process::{getegid, geteuid};

use super::Processes;
use super::namespace_probe::is_possible;
use crate::backend::BackendError;
use crate::naming::{Linkage, Way};

/// Where the kernel says which ports are for everybody (ip-sysctl).
const FIRST_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// What the kernel says where it does not say.
const USUAL_FIRST_PORT: u16 = 1024;

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
            first_port: if user.0 == 0 {
                0
            } else {
                first_port(Path::new(FIRST_PORT))
            },
            ..Linkage::default()
        })
    }
}

fn first_port(path: &Path) -> u16 {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(USUAL_FIRST_PORT)
}
