//! `--wait`: what is still missing until everything that was started runs, or is healthy where it has a
//! healthcheck.

use crate::plan::step::{Action, Cause};
use crate::plan::up::existing;
use crate::plan::{Plan, Problem};
use crate::project::model::{Condition, Project};
use crate::state::{Health, Observed, Status};

/// Plans the waiting for the services of a project. A service that ended is a problem, unless others wait
/// for its completion: then it may have ended well.
pub fn wait(project: &Project, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let by = Cause::Requested("--wait");
    for instance in &observed.instances {
        if instance.one_off || !project.services.contains_key(&instance.service) {
            continue;
        }
        let is_to_end = project.services.values().any(|service| {
            service
                .depends_on
                .get(&instance.service)
                .is_some_and(|dependency| dependency.condition == Condition::CompletedSuccessfully)
        });
        match (instance.status, is_to_end) {
            (Status::Exited { code: 0 }, true) => {}
            (Status::Exited { code }, _) => plan.problems.push(Problem {
                message: format!("{} exited with code {code}", instance.name),
                hint: Some(format!("wharf logs {}", instance.service)),
            }),
            (_, true) => {
                let instance = existing(instance);
                plan.add(Action::AwaitCompleted { instance }, by.clone(), Vec::new());
            }
            (_, false) if matches!(instance.health, Some(Health::Starting | Health::Unhealthy)) => {
                let instance = existing(instance);
                plan.add(Action::AwaitHealthy { instance }, by.clone(), Vec::new());
            }
            (_, false) => {}
        }
    }
    plan
}
