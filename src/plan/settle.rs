//! The ports of an instance: which it gets, and the steps that make room for it. Steps come without needs where the
//! instance is yet to be made; `up` adds them when it knows.

use std::time::Duration;

use crate::plan::conflicts::{Verdict, judge};
use crate::plan::decide::Decided;
use crate::plan::ports::{Need, moved_variables};
use crate::plan::step::{Action, Cause, SettledPort, StepId};
use crate::plan::up::Planner;
use crate::port::claim::{Claim, Protocol};
use crate::project::model::Service;
use crate::state::{BackendKind, Instance};

/// How long a foreign holder gets to end by itself before SIGKILL, unless `-t` says otherwise.
const HOLDER_GRACE: Duration = Duration::from_secs(10);

impl Planner<'_> {
    /// Settles one port of an instance that exists: only steps matter.
    pub(super) fn port(
        &mut self,
        service: &Service,
        number: u32,
        need: &Need,
        ending: &[&Instance],
    ) -> Option<(SettledPort, Vec<StepId>)> {
        let (settled, pending) = self.settle(service, number, need, ending);
        let steps = pending
            .into_iter()
            .map(|pending| self.pend(pending, Vec::new()))
            .collect();
        settled.map(|settled| (settled, steps))
    }

    /// What becomes of a need, with what the plan ends so far.
    pub(super) fn judge<'p>(
        &'p self,
        service: &Service,
        number: u32,
        need: &Need,
        ending: &[&Instance],
    ) -> Verdict<'p> {
        let project = self.inputs.project;
        let is_ending = |instance: &Instance| {
            ending.iter().any(|other| other.id == instance.id)
                || self.removals.contains_key(&instance.id.0)
                || self.stops.contains_key(&instance.id.0)
                || !project.services.contains_key(&instance.service)
                    && !project.disabled.contains(&instance.service)
        };
        if let Some(port) = need.given() {
            return Verdict::Free(port);
        }
        judge(self.inputs, service, number, need, &self.taken, &is_ending)
    }

    pub(super) fn settle(
        &mut self,
        service: &Service,
        number: u32,
        need: &Need,
        ending: &[&Instance],
    ) -> (Option<SettledPort>, Vec<PendingStep>) {
        let verdict = self.judge(service, number, need, ending);
        let (port, pending) = match verdict {
            Verdict::Engine => return (Some(need.settle(None)), Vec::new()),
            Verdict::Free(port) => (port, Vec::new()),
            Verdict::Ours(port, instances) => {
                let others: Vec<Instance> = instances
                    .into_iter()
                    .filter(|instance| !ending.iter().any(|other| other.id == instance.id))
                    .cloned()
                    .collect();
                let stop = |instance| PendingStep::StopOwn(Box::new(instance));
                (port, others.into_iter().map(stop).collect())
            }
            Verdict::Replace {
                claim,
                holders,
                rule,
            } => {
                let grace = self.inputs.policy.timeout.unwrap_or(HOLDER_GRACE);
                let port = claim.port;
                let free = Action::FreePort {
                    project: self.inputs.project.name.clone(),
                    claim,
                    holders,
                    grace,
                };
                (
                    port,
                    vec![PendingStep::Act(Box::new(free), Cause::PortHeld(rule))],
                )
            }
            Verdict::Move { claim, to, rule } => {
                // Its neighbours find what is exposed by the service's name, where it always was.
                let exposed = need.exposed;
                let variables = moved_variables(&service.name, need.port.target, to);
                for variable in variables.into_iter().filter(|_| !exposed) {
                    self.moved
                        .entry(service.name.clone())
                        .or_default()
                        .push(variable);
                }
                (
                    to,
                    vec![PendingStep::Act(
                        Box::new(Action::MovePort { claim, to, exposed }),
                        Cause::PortHeld(rule),
                    )],
                )
            }
            Verdict::Open(question) => {
                self.plan.questions.push(question);
                return (None, Vec::new());
            }
        };
        self.taken.now.push(need.claim(&service.name, number, port));
        (Some(need.settle(Some(port))), pending)
    }

    pub(super) fn pend(&mut self, pending: PendingStep, needs: Vec<StepId>) -> StepId {
        match pending {
            PendingStep::Act(action, cause) => self.plan.add(*action, cause, needs),
            PendingStep::StopOwn(instance) => {
                let why = "an earlier instance of this project holds the port".to_owned();
                self.discard(&instance, Cause::PortHeld(why), needs)
            }
        }
    }
}

/// The port of a process that it must get: a published one that somebody counts on.
pub(super) fn watch(
    decided: &Decided<'_>,
    number: u32,
    need: &Need,
    settled: &SettledPort,
) -> Option<Claim> {
    let published = settled.published?;
    let is_counted_on = !need.anywhere && !need.exposed;
    (decided.backend == BackendKind::Process && settled.protocol == Protocol::Tcp && is_counted_on)
        .then(|| need.claim(&decided.service.name, number, published))
}

/// A step whose needs are not known yet.
pub(super) enum PendingStep {
    Act(Box<Action>, Cause),
    StopOwn(Box<Instance>),
}
