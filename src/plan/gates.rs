//! What must have happened before an instance starts: `depends_on` and its conditions.

use crate::plan::decide::Decision;
use crate::plan::step::{Action, Cause, StepId};
use crate::plan::up::Planner;
use crate::project::model::{Condition, Dependency, Service};
use crate::state::{BackendKind, Health};

impl Planner<'_> {
    /// The steps that a service's dependencies must have passed before it starts.
    pub(super) fn gates(&mut self, service: &Service, backend: BackendKind) -> Vec<StepId> {
        let mut gates = Vec::new();
        for (name, dependency) in &service.depends_on {
            if backend == BackendKind::Container {
                gates.extend(self.reachable.get(name));
            }
            gates.extend(self.provided.get(name));
            gates.extend(self.met(service, name, *dependency));
        }
        gates
    }

    /// The same for an instance that goes on as it is: nobody waits for its dependencies, but `up` has not done what it
    /// was asked for before they are what it needs, and fails if they do not get there. As Docker Compose has it, a job
    /// that is run again is stayed for, and its exit code counts.
    pub(super) fn await_beside(&mut self, service: &Service) {
        for (name, dependency) in &service.depends_on {
            let open = match dependency.condition {
                Condition::Started => false,
                Condition::Healthy | Condition::CompletedSuccessfully => {
                    let outcomes = self.outcomes.get(name);
                    let mut outcomes = outcomes.into_iter().flatten();
                    outcomes.any(|outcome| outcome.started.is_some())
                        || self.is_not_met(name, dependency.condition)
                }
            };
            if open {
                self.met(service, name, *dependency);
            }
        }
    }

    /// Whether an instance that goes on as it is does not, or not yet, meet a condition.
    fn is_not_met(&self, name: &str, condition: Condition) -> bool {
        let decided = self.decided.get(name);
        let mut decisions = decided.into_iter().flat_map(|decided| &decided.decisions);
        decisions.any(|decision| {
            let Decision::Keep(instance) = decision else {
                return false;
            };
            match condition {
                Condition::Started => false,
                Condition::Healthy => instance.health.is_some_and(|it| it != Health::Healthy),
                Condition::CompletedSuccessfully => instance.status.is_alive(),
            }
        })
    }

    /// The steps after which one dependency meets its condition.
    fn met(&mut self, service: &Service, name: &str, dependency: Dependency) -> Vec<StepId> {
        let mut steps = Vec::new();
        let mut waits = Vec::new();
        for outcome in self.outcomes.get(name).into_iter().flatten() {
            let instance = outcome.target.clone();
            let by = Cause::NeededBy(service.name.clone());
            let after: Vec<StepId> = outcome.started.into_iter().collect();
            match dependency.condition {
                Condition::Started => steps.extend(outcome.started),
                Condition::Healthy => {
                    match (outcome.has_healthcheck, &outcome.ready, &outcome.readiness) {
                        (false, Some(ready), _) => steps.push(*ready),
                        (false, None, Some(readiness)) => waits.push((
                            Action::AwaitReady {
                                instance,
                                readiness: readiness.clone(),
                            },
                            by,
                            after,
                        )),
                        _ => waits.push((Action::AwaitHealthy { instance }, by, after)),
                    }
                }
                Condition::CompletedSuccessfully => {
                    waits.push((Action::AwaitCompleted { instance }, by, after));
                }
            }
        }
        for (action, cause, after) in waits {
            steps.push(self.wait_once(action, cause, after, dependency.required));
        }
        steps
    }

    /// Two dependents of one service share one wait.
    fn wait_once(
        &mut self,
        action: Action,
        cause: Cause,
        after: Vec<StepId>,
        required: bool,
    ) -> StepId {
        let optional = &self.plan.optional;
        let same = self
            .plan
            .steps
            .iter()
            .filter(|step| optional.contains(&step.id) != required)
            .find(|step| match (&step.action, &action) {
                (Action::AwaitHealthy { instance: a }, Action::AwaitHealthy { instance: b })
                | (
                    Action::AwaitCompleted { instance: a },
                    Action::AwaitCompleted { instance: b },
                )
                | (
                    Action::AwaitReady { instance: a, .. },
                    Action::AwaitReady { instance: b, .. },
                ) => a == b,
                _ => false,
            });
        if let Some(step) = same {
            return step.id;
        }
        let step = self.plan.add(action, cause, after);
        if !required {
            self.plan.optional.insert(step);
        }
        step
    }
}
