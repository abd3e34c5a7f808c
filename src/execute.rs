//! Walks a plan by its edges and decides nothing.
//!
//! A step starts when all its needs have succeeded; independent steps run at the same time. The first
//! failure stops new steps from starting, lets the running ones finish, and is returned with what was
//! done and what was not.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::backend::{Backend, BackendError, Made};
use crate::event::{Event, Events};
use crate::plan::Plan;
use crate::plan::step::{Action, Step, StepId};

/// How a plan ended.
#[derive(Debug, Default)]
pub struct Report {
    /// Steps that succeeded.
    pub done: BTreeSet<StepId>,
    /// Steps that failed, the first one first.
    pub failed: Vec<(StepId, BackendError)>,
    /// Steps that were never started.
    pub skipped: Vec<StepId>,
}

/// Executes a plan.
///
/// Dropping the future abandons the steps that are running: what they asked an engine or a supervisor
/// to do goes on there, and the next observation shows it.
pub async fn execute<B: Backend>(plan: &Plan, backend: &B, made: &Made, events: &Events) -> Report {
    execute_at_most(plan, backend, made, events, None).await
}

/// As [`execute`], with at most `limit` steps at work at the same time. Steps that only wait do not count:
/// they would keep those from running that they wait for.
pub async fn execute_at_most<B: Backend>(
    plan: &Plan,
    backend: &B,
    made: &Made,
    events: &Events,
    limit: Option<NonZeroUsize>,
) -> Report {
    execute_until(plan, backend, made, events, limit, &AtomicBool::new(false)).await
}

/// As [`execute_at_most`], until `halted`: then no step begins any more, and those that run are finished.
pub async fn execute_until<B: Backend>(
    plan: &Plan,
    backend: &B,
    made: &Made,
    events: &Events,
    limit: Option<NonZeroUsize>,
    halted: &AtomicBool,
) -> Report {
    let mut at_work = 0;
    let mut report = Report::default();
    let mut waiting: Vec<&Step> = plan.steps.iter().collect();
    let mut running = FuturesUnordered::new();
    loop {
        if report.failed.is_empty() && !halted.load(Ordering::Relaxed) {
            waiting.retain(|step| {
                let works = works(&step.action);
                let room = !works || limit.is_none_or(|limit| at_work < limit.get());
                let due = room && step.needs.iter().all(|need| report.done.contains(need));
                if due {
                    at_work += usize::from(works);
                    running.push(perform(step, backend, made, events));
                }
                !due
            });
        }
        match running.next().await {
            Some((step, result)) => {
                at_work -= usize::from(works(&step.action));
                match result {
                    Ok(()) => drop(report.done.insert(step.id)),
                    Err(error) if plan.optional.contains(&step.id) => {
                        events.send(Event::Warning(format!("{error}; it is not required")));
                        report.done.insert(step.id);
                    }
                    Err(error) => report.failed.push((step.id, error)),
                }
            }
            None => break,
        }
    }
    report.skipped = waiting.iter().map(|step| step.id).collect();
    report
}

/// Whether a step does something, in contrast to waiting for something.
fn works(action: &Action) -> bool {
    !matches!(
        action,
        Action::AwaitReady { .. }
            | Action::AwaitHealthy { .. }
            | Action::AwaitCompleted { .. }
            | Action::AwaitReachable { .. }
    )
}

async fn perform<'a, B: Backend>(
    step: &'a Step,
    backend: &B,
    made: &Made,
    events: &Events,
) -> (&'a Step, Result<(), BackendError>) {
    let began = Instant::now();
    let text = step.action.to_string();
    let is_told = !step.action.is_own();
    if is_told {
        events.send(Event::StepStarted {
            id: step.id,
            text: text.clone(),
        });
    }
    match backend.perform(step, made, events).await {
        Ok(instance) => {
            if let Some(instance) = instance {
                made.put(step.id, instance);
            }
            // An answer has an event of its own, which says more.
            if is_told && !matches!(step.action, Action::AwaitReady { .. }) {
                events.send(Event::StepDone {
                    id: step.id,
                    text,
                    took: began.elapsed(),
                });
            }
            (step, Ok(()))
        }
        Err(error) => {
            events.send(Event::StepFailed { id: step.id, text });
            (step, Err(error))
        }
    }
}
