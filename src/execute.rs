//! Walks a plan by its edges and decides nothing.
//!
//! A step starts when all its needs have succeeded; independent steps run at the same time. The first
//! failure stops new steps from starting, lets the running ones finish but for those that may wait for ever, and is
//! returned with what was done and what was not.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use crate::backend::{Backend, BackendError, Made};
use crate::event::{Event, Events};
use crate::plan::Plan;
use crate::plan::step::{Action, Cause, Step, StepId};

/// How a plan ended.
#[derive(Debug, Default)]
pub struct Report {
    /// Steps that succeeded.
    pub done: BTreeSet<StepId>,
    /// Steps that failed, the first one first.
    pub failed: Vec<(StepId, BackendError)>,
    /// Steps that were never started, or cut off.
    pub skipped: Vec<StepId>,
}

/// Tells an execution to begin nothing any more, or nothing for a while.
#[derive(Debug, Default)]
pub struct Halt {
    is_set: watch::Sender<bool>,
    pace: watch::Sender<Pace>,
    /// Whether a step has failed: what waits without a limit waits for nothing any more.
    failed: watch::Sender<bool>,
    /// The steps that are over.
    ended: Mutex<BTreeSet<StepId>>,
}

/// What an execution is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pace {
    /// Something is being changed, or about to be.
    #[default]
    Working,
    /// All that goes on changes nothing of the project.
    Waiting,
    /// The same, and nothing is begun until it is let go.
    Held,
}

impl Halt {
    /// From now on.
    pub fn now(&self) {
        self.is_set.send_replace(true);
        self.let_go();
    }

    /// As if it had not been told.
    pub fn revoke(&self) {
        self.is_set.send_replace(false);
    }

    /// Whether it was told to.
    pub fn is_set(&self) -> bool {
        *self.is_set.borrow()
    }

    /// Waits until it is told to.
    pub async fn set(&self) {
        // The sender lives as long as `self`.
        drop(self.is_set.subscribe().wait_for(|is_set| *is_set).await);
    }

    /// Lets nothing begin until [`Self::let_go`], once the execution only waits. What waits goes on waiting.
    pub async fn hold(&self) {
        let is_waiting = |pace: &Pace| *pace == Pace::Waiting;
        let mut pace = self.pace.subscribe();
        loop {
            drop(pace.wait_for(is_waiting).await);
            // It may have gone on since.
            let held = self.pace.send_if_modified(|pace| {
                let holds = is_waiting(pace);
                if holds {
                    *pace = Pace::Held;
                }
                holds
            });
            if held {
                return;
            }
        }
    }

    /// Lets it go on.
    pub fn let_go(&self) {
        self.pace.send_if_modified(|pace| {
            let was_held = *pace == Pace::Held;
            if was_held {
                // It says by itself when something is begun; until then others may be let in again.
                *pace = Pace::Waiting;
            }
            was_held
        });
    }

    /// Whether a step is still to be done, or waited for.
    pub fn is_open(&self, step: StepId) -> bool {
        !self.over().contains(&step)
    }

    fn over(&self) -> MutexGuard<'_, BTreeSet<StepId>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn has_failed(&self) {
        drop(
            self.failed
                .subscribe()
                .wait_for(|has_failed| *has_failed)
                .await,
        );
    }

    fn is_held(&self) -> bool {
        *self.pace.borrow() == Pace::Held
    }

    async fn gone(&self) {
        let mut pace = self.pace.subscribe();
        drop(pace.wait_for(|pace| *pace != Pace::Held).await);
    }

    /// Says whether the execution only waits, unless it is held.
    fn note(&self, only_waits: bool) {
        let new = if only_waits {
            Pace::Waiting
        } else {
            Pace::Working
        };
        self.pace.send_if_modified(|pace| {
            let changes = *pace != Pace::Held && *pace != new;
            if changes {
                *pace = new;
            }
            changes
        });
    }
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
    execute_until(plan, backend, made, events, limit, &Halt::default()).await
}

/// As [`execute_at_most`], until `halt`: then no step begins any more. Those that change something are finished, so
/// that nothing goes on elsewhere afterwards; what waits, builds or pulls is cut off.
pub async fn execute_until<B: Backend>(
    plan: &Plan,
    backend: &B,
    made: &Made,
    events: &Events,
    limit: Option<NonZeroUsize>,
    halt: &Halt,
) -> Report {
    let mut at_work = 0;
    let mut changing = 0;
    let mut report = Report::default();
    let mut waiting: Vec<&Step> = plan.steps.iter().collect();
    let mut running = FuturesUnordered::new();
    // What others wait for begins at once, also where many steps of a moment each are due: those follow while it
    // comes up. And what can start does so before all others are made.
    let mut own = FuturesUnordered::new();
    let mut making = FuturesUnordered::new();
    loop {
        let goes_on = report.failed.is_empty() && !halt.is_set();
        if goes_on && !halt.is_held() {
            waiting.retain(|step| {
                let works = works(&step.action);
                let room = !works || limit.is_none_or(|limit| at_work < limit.get());
                let due = room && step.needs.iter().all(|need| report.done.contains(need));
                if due {
                    at_work += usize::from(works);
                    changing += usize::from(!can_be_cut_off(step));
                    let all = if step.action.is_own() {
                        &own
                    } else if matches!(step.action, Action::Create(_)) {
                        &making
                    } else {
                        &running
                    };
                    all.push(perform(step, backend, made, events, halt));
                }
                !due
            });
        }
        // Steps that never wait would leave no time for what others wait for. Not over before the runtime has looked for
        // news, whatever else polls us until then: what shows the steps does after each of them.
        let turn = FuturesUnordered::from_iter([tokio::task::yield_now()]);
        drop(turn.into_future().await);
        halt.note(changing == 0);
        let ended = tokio::select! {
            biased;
            Some(ended) = own.next() => Some(ended),
            Some(ended) = running.next() => Some(ended),
            Some(ended) = making.next() => Some(ended),
            () = halt.gone(), if goes_on && halt.is_held() => continue,
            else => None,
        };
        match ended {
            Some((step, result)) => {
                at_work -= usize::from(works(&step.action));
                changing -= usize::from(!can_be_cut_off(step));
                halt.over().insert(step.id);
                match result {
                    Ok(Performed::Wholly) => drop(report.done.insert(step.id)),
                    Ok(Performed::CutOff) => report.skipped.push(step.id),
                    Err(error) if plan.optional.contains(&step.id) => {
                        events.send(Event::Warning(format!("{error}; it is not required")));
                        report.done.insert(step.id);
                    }
                    Err(error) => {
                        report.failed.push((step.id, error));
                        halt.failed.send_replace(true);
                    }
                }
            }
            None => break,
        }
    }
    report.skipped.extend(waiting.iter().map(|step| step.id));
    report.skipped.sort_unstable();
    report
}

/// Whether a step does something, in contrast to waiting for something.
pub fn works(action: &Action) -> bool {
    !matches!(
        action,
        Action::AwaitReady { .. }
            | Action::AwaitHealthy { .. }
            | Action::AwaitCompleted { .. }
            | Action::AwaitReachable { .. }
    )
}

/// Whether a step may wait for ever.
fn is_unlimited(action: &Action) -> bool {
    matches!(
        action,
        Action::AwaitHealthy { .. } | Action::AwaitCompleted { .. }
    )
}

/// Whether what a step has asked for ends when nobody waits for it any more, or changes nothing.
pub fn can_be_cut_off(step: &Step) -> bool {
    let action = &step.action;
    !works(action)
        || is_anothers(step)
        || matches!(
            action,
            Action::Build { .. }
                | Action::Pull { .. }
                | Action::PreStart { .. }
                | Action::AwaitListening { .. }
        )
}

/// Whether a step only waits for a stop that somebody else has asked for, and which goes on without it.
pub fn is_anothers(step: &Step) -> bool {
    matches!(step.action, Action::Stop { .. }) && step.cause == Cause::Ending
}

/// How far a step came that did not fail.
enum Performed {
    Wholly,
    CutOff,
}

/// Ends what a step that was cut off has begun and would go on without it.
async fn abandon<B: Backend>(
    step: &Step,
    backend: &B,
    made: &Made,
    events: &Events,
) -> Result<Performed, BackendError> {
    if let Some(action) = step.abandoned().filter(|_| made.get(step.id).is_some()) {
        let end = Step {
            action,
            needs: Vec::new(),
            ..step.clone()
        };
        backend.perform(&end, made, events).await?;
    }
    Ok(Performed::CutOff)
}

async fn perform<'a, B: Backend>(
    step: &'a Step,
    backend: &B,
    made: &Made,
    events: &Events,
    halt: &Halt,
) -> (&'a Step, Result<Performed, BackendError>) {
    let began = Instant::now();
    let text = step.action.to_string();
    let is_told = !step.action.is_own();
    if is_told {
        events.send(Event::StepStarted {
            id: step.id,
            text: text.clone(),
        });
    }
    let result = if can_be_cut_off(step) {
        tokio::select! {
            biased;
            result = backend.perform(step, made, events) => result,
            () = halt.set() => return (step, Box::pin(abandon(step, backend, made, events)).await),
            () = halt.has_failed(), if is_unlimited(&step.action) => return (step, Ok(Performed::CutOff)),
        }
    } else {
        backend.perform(step, made, events).await
    };
    match result {
        Ok(instance) => {
            if let Some(instance) = instance {
                made.put(step.id, instance);
            }
            // An answer has an event of its own, which says more.
            if is_told && !matches!(step.action, Action::AwaitReady { .. }) {
                events.send(Event::StepDone {
                    id: step.id,
                    text: made.said(step.id).unwrap_or(text),
                    took: began.elapsed(),
                });
            }
            (step, Ok(Performed::Wholly))
        }
        Err(error) => {
            events.send(Event::StepFailed { id: step.id, text });
            (step, Err(error))
        }
    }
}
