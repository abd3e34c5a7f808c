//! What must have happened before an instance starts: `depends_on` and its conditions.

use crate::plan::step::{Action, Cause, StepId};
use crate::plan::up::Planner;
use crate::project::model::{Condition, Service};
use crate::state::BackendKind;

impl Planner<'_> {
    /// The steps that a service's dependencies must have passed before it starts.
    pub(super) fn gates(&mut self, service: &Service, backend: BackendKind) -> Vec<StepId> {
        let mut gates = Vec::new();
        for (name, dependency) in &service.depends_on {
            if backend == BackendKind::Container {
                gates.extend(self.reachable.get(name));
            }
            gates.extend(self.provided.get(name));
            let Some(outcomes) = self.outcomes.get(name) else {
                continue;
            };
            let mut waits = Vec::new();
            for outcome in outcomes {
                let instance = outcome.target.clone();
                let by = Cause::NeededBy(service.name.clone());
                let after: Vec<StepId> = outcome.started.into_iter().collect();
                match dependency.condition {
                    Condition::Started => gates.extend(outcome.started),
                    Condition::Healthy => {
                        match (outcome.has_healthcheck, &outcome.ready, &outcome.readiness) {
                            (false, Some(ready), _) => gates.push(*ready),
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
                let wait = self.wait_once(action, cause, after, dependency.required);
                gates.push(wait);
            }
        }
        gates
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
