//! Carries a plan out in front of the user, and says what was done and what was not.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::backend::router::Backends;
use crate::backend::{BackendError, Made};
use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::execute::{self, Report};
use crate::plan::Plan;
use crate::plan::step::{Action, Step, StepId};
use crate::probe;
use crate::state::ProbeKind;
use crate::ui::progress::Progress;
use crate::ui::{GOOD, NAME};

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
    /// The services of a plan whose images come without a word.
    pub(super) fn subjects(self, plan: &Plan) -> BTreeSet<String> {
        let subject = |step: &Step| {
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
    let report = {
        let mut executing = std::pin::pin!(execute::execute_at_most(
            plan,
            backends,
            &made,
            &events,
            context.global.limit()
        ));
        loop {
            tokio::select! {
                report = &mut executing => break report,
                Some(event) = receiver.recv() => progress.show(&event),
                () = signals.next() => {
                    context.ui.status("interrupted: what was started so far goes on; `wharf ps` shows it");
                    return Err(Error::interrupted());
                }
            }
        }
    };
    while let Ok(event) = receiver.try_recv() {
        progress.show(&event);
    }
    let silent =
        |(_, error): &(StepId, BackendError)| matches!(error, BackendError::NotReady { .. });
    let runs_on = report.failed.iter().any(silent);
    outcome(plan, report).map_err(|error| {
        if runs_on {
            error.detail("it is left running, to be looked at and stopped")
        } else {
            error
        }
    })?;
    Ok(made)
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
    let told = first.to_string();
    let mut error = Error::from(first);
    let others: BTreeSet<String> = failed
        .map(|(_, other)| other.to_string())
        .filter(|other| *other != told)
        .collect();
    let others = others.into_iter().map(|other| format!("also: {other}"));
    error.details.extend(others);
    let list = |ids: &mut dyn Iterator<Item = StepId>| -> Vec<String> {
        ids.filter_map(|id| plan.steps.iter().find(|step| step.id == id))
            .map(|step| step.action.to_string())
            .collect()
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
    Err(error)
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

/// SIGINT, SIGTERM and SIGHUP: the three ways a terminal or a person ends a command.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(Error::failed);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
