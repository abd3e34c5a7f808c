//! Carries a plan out in front of the user, and says what was done and what was not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use crate::backend::router::Backends;
use crate::backend::{BackendError, Made, in_one_line};
use crate::cli::context::Context;
use crate::cli::interrupted::{Account, listed};
use crate::cli::signals::Signals;
use crate::cli::way::Way;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::execute::{self, Halt, Report};
use crate::plan::Plan;
use crate::plan::step::{Action, Step, StepId};
use crate::probe;
use crate::state::{ProbeKind, SERVERS};
use crate::ui::progress::Progress;
use crate::ui::{GOOD, NAME, Ui};

/// Executes a plan and prints what happens; with `--dry-run` prints the plan.
///
/// # Errors
/// The first failed step, with what was done and what was not.
pub(super) async fn carry_out(context: &Context, backends: &Backends, plan: &Plan) -> Result<Made> {
    carry_out_quietly(context, backends, plan, Quiet::default()).await
}

/// What of the output of images on their way is not shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiet {
    /// `--quiet-build`
    pub(super) builds: bool,
    /// `--quiet-pull`
    pub(super) pulls: bool,
}

impl Quiet {
    /// What of a plan comes without a word: the images of services, and what is made for one command, as with Docker
    /// Compose.
    pub(super) fn subjects(self, plan: &Plan) -> BTreeSet<String> {
        let subject = |step: &Step| {
            if let Action::Create(spec) = &step.action {
                let text = step.action.to_string();
                let (thing, _) = text.split_once(": ")?;
                return spec.one_off.is_some().then(|| thing.to_owned());
            }
            let (service, hidden) = if let Action::Build { service, .. } = &step.action {
                (service, self.builds)
            } else if let Action::Pull { service, .. } = &step.action {
                (service, self.pulls)
            } else {
                return None;
            };
            hidden.then(|| service.name.clone())
        };
        plan.steps.iter().filter_map(subject).collect()
    }
}

/// As [`carry_out`], without some of the output.
pub(super) async fn carry_out_quietly(
    context: &Context,
    backends: &Backends,
    plan: &Plan,
    quiet: Quiet,
) -> Result<Made> {
    carry(context, backends, plan, plan, quiet, First::Halts).await
}

/// As [`carry_out_quietly`], for a part of a plan: the whole of it is what was not done when this is not.
pub(super) async fn carry_out_part(
    context: &Context,
    backends: &Backends,
    part: &Plan,
    whole: &Plan,
    quiet: Quiet,
) -> Result<Made> {
    carry(context, backends, part, whole, quiet, First::Halts).await
}

/// As [`carry_out_quietly`], for what is not to be left half done: the first interrupt waits for the whole plan.
pub(super) async fn carry_out_whole(
    context: &Context,
    backends: &Backends,
    plan: &Plan,
    quiet: Quiet,
) -> Result<Made> {
    Box::pin(carry(context, backends, plan, plan, quiet, First::Waits)).await
}

/// What the first interrupt does; the second leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// Nothing more is begun.
    Halts,
    /// All is finished.
    Waits,
}

async fn carry(
    context: &Context,
    backends: &Backends,
    plan: &Plan,
    whole: &Plan,
    quiet: Quiet,
    first: First,
) -> Result<Made> {
    if context.global.dry_run {
        for step in &plan.steps {
            context.ui.data(step.to_string());
        }
        return Ok(Made::default());
    }
    let (events, mut receiver) = Events::channel();
    let made = Made::default();
    let progress = Progress::new(context.ui).without(quiet.subjects(plan));
    let mut signals = Signals::new()?;
    let halt = Halt::default();
    let mut account = Account::of(whole);
    let mut is_interrupted = false;
    let way = Way::default();
    let mut void = None;
    let mut report = {
        let mut making_way = std::pin::pin!(way.make(backends, plan, &halt));
        let mut executing = std::pin::pin!(execute::execute_until(
            plan,
            backends,
            &made,
            &events,
            context.global.limit(),
            &halt
        ));
        loop {
            tokio::select! {
                report = &mut executing => break report,
                error = &mut making_way, if void.is_none() => {
                    void = Some(error);
                    halt.now();
                }
                Some(event) = receiver.recv() => {
                    account.note(&event);
                    progress.show(&context.told(event));
                }
                () = signals.next() => {
                    if is_interrupted {
                        return Err(account.tell(context));
                    }
                    is_interrupted = true;
                    if first == First::Halts {
                        halt.now();
                        // Where nothing is under way, there is nothing to be said of it.
                        if let Poll::Ready(report) = futures_util::poll!(&mut executing) {
                            break report;
                        }
                    }
                    while let Ok(event) = receiver.try_recv() {
                        account.note(&event);
                        progress.show(&context.told(event));
                    }
                    let finished = match first {
                        First::Halts => account.under_way(),
                        First::Waits => account.left(),
                    };
                    context.ui.status(format!(
                        "interrupted: finishing {finished}; press Ctrl-C again to leave at once"
                    ));
                }
            }
        }
    };
    while let Ok(event) = receiver.try_recv() {
        account.note(&event);
        progress.show(&context.told(event));
    }
    give_up_replacements(context, backends, Some(&report)).await;
    let notes = backends.processes.take_notes().into_iter();
    context.ui.warn_all(notes.map(|note| context.typed(&note)));
    if is_interrupted {
        for (_, error) in &report.failed {
            context.ui.warn(error.to_string());
        }
        if first == First::Waits {
            // It is as it would be without the interrupt.
            return Err(Error::interrupted());
        }
        return Err(account.tell(context));
    }
    if let Some(error) = void.filter(|_| !report.skipped.is_empty()) {
        return Err(way.explain(told(plan, error, report)));
    }
    forget_shown(&mut report, context.ui, quiet);
    let is_of_the_rest = |id: &StepId| !plan.steps.iter().any(|step| step.id == *id);
    let all = whole.steps.iter().map(|step| step.id);
    report.skipped.extend(all.filter(is_of_the_rest));
    let silent =
        |(_, error): &&(StepId, BackendError)| matches!(error, BackendError::NotReady { .. });
    let of = |(id, _): &(StepId, BackendError)| plan.steps.iter().find(|step| step.id == *id);
    let run_on = report.failed.iter().filter(silent).filter_map(of);
    let run_on: Vec<Option<String>> = run_on.map(its_logs).collect();
    outcome(whole, report).map_err(|error| {
        let error = if run_on.is_empty() {
            error
        } else {
            error.detail("it is left running, to be looked at and stopped")
        };
        way.explain(run_on.into_iter().flatten().fold(error, Error::hint))
    })?;
    tokio::select! {
        regained = way.end(backends) => regained?,
        () = signals.next() => return Err(account.tell(context)),
    }
    catch_up(context, backends, plan).await;
    Ok(made)
}

/// What shows the output of an instance that a step waits for.
fn its_logs(step: &Step) -> Option<String> {
    let (Action::AwaitReady { instance, .. } | Action::AwaitHealthy { instance }) = &step.action
    else {
        return None;
    };
    Some(if instance.project == SERVERS {
        format!("wharf -p {SERVERS} logs {}", instance.service)
    } else {
        format!("wharf logs {}", instance.service)
    })
}

/// After a plan that was not carried out as a whole: what was made for the place of something that keeps it goes.
/// Without a report, it is not all done.
pub(super) async fn give_up_replacements(
    context: &Context,
    backends: &Backends,
    report: Option<&Report>,
) {
    if report.is_some_and(|report| report.failed.is_empty() && report.skipped.is_empty()) {
        return;
    }
    for name in backends.containers.give_up_replacements().await {
        context.ui.note(format!(
            "{name} is not replaced: the container that was made for it is removed again"
        ));
    }
}

/// Lets the neighbours of what was started have its names before the command returns.
async fn catch_up(context: &Context, backends: &Backends, plan: &Plan) {
    let started = plan.steps.iter().filter_map(|step| {
        let Action::Start { instance } = &step.action else {
            return None;
        };
        Some(instance.project.as_str())
    });
    for project in started.collect::<BTreeSet<_>>() {
        backends.processes.catch_up_all(project).await;
        context
            .ui
            .warn_all(backends.processes.misled_soon(project).await);
    }
}

/// Drops what builds wrote from their errors, where it was on the screen a moment ago.
pub(super) fn forget_shown(report: &mut Report, ui: Ui, quiet: Quiet) {
    if ui.quiet || quiet.builds {
        return;
    }
    for (_, error) in &mut report.failed {
        if let BackendError::Build { last_lines, .. } = error {
            last_lines.clear();
        }
    }
}

/// Turns a report into a result that says what was done and what was not.
pub(super) fn outcome(plan: &Plan, report: Report) -> Result<()> {
    let Report {
        done,
        failed,
        skipped,
    } = report;
    let mut failed = failed.into_iter();
    let Some((_, first)) = failed.next() else {
        return Ok(());
    };
    let told = in_one_line(&first);
    let mut error = Error::from(first);
    let mut others = BTreeMap::new();
    for (_, other) in failed {
        let text = in_one_line(&other);
        if text != told {
            others.insert(text, Error::from(other));
        }
    }
    for (text, other) in others {
        error.details.push(format!("also: {text}"));
        let details = other.details.iter().map(|line| format!("  {line}"));
        error.details.extend(details);
        let known = error.hints.clone();
        let new = other.hints.into_iter().filter(|hint| !known.contains(hint));
        error.hints.extend(new);
        for answer in other.answers {
            if !error.answers.contains(&answer) {
                error.answers.push(answer);
            }
        }
    }
    Err(with_steps(plan, error, done, skipped))
}

/// A reason to go on no further, with what was done and what was not.
pub(super) fn told(plan: &Plan, error: Error, report: Report) -> Error {
    with_steps(plan, error, report.done, report.skipped)
}

fn with_steps(
    plan: &Plan,
    mut error: Error,
    done: BTreeSet<StepId>,
    skipped: Vec<StepId>,
) -> Error {
    let list = |ids: &mut dyn Iterator<Item = StepId>| -> Vec<String> {
        let steps = ids.filter_map(|id| plan.steps.iter().find(|step| step.id == id));
        listed(steps.filter(|step| !step.action.is_own()))
    };
    let done = list(&mut done.into_iter());
    if !done.is_empty() {
        error.details.push(format!("done: {}", done.join("; ")));
    }
    let skipped = list(&mut skipped.into_iter());
    if !skipped.is_empty() {
        error
            .details
            .push(format!("not done: {}", skipped.join("; ")));
    }
    error
}

/// How long the handshake may take that tells what kind of server a command is.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Says whether a server is a WebSocket server.
pub(super) async fn say_what_it_is(context: &Context, kind: &ProbeKind, address: SocketAddr) {
    match probe::attempt(kind, address, HANDSHAKE).await {
        Ok(answer) => context.ui.status(format!(
            " {GOOD}●{GOOD:#} {NAME}{}{NAME:#}: {}",
            probe::url(kind, address),
            answer.what
        )),
        Err(miss) => context.ui.note(format!("{address}: {miss}")),
    }
}
