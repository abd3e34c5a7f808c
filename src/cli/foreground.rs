//! The foreground: shows the output of what a plan starts, and ends it on Ctrl-C.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::backend::process::ProjectLock;
use crate::backend::router::Backends;
use crate::backend::{Backend as _, BackendError, LogOptions, Made};
use crate::cli::carry_out::{Signals, outcome, say_what_it_is};
use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::execute::{self, Report};
use crate::plan::Plan;
use crate::plan::down::{self, Ending};
use crate::plan::step::{Action, StepId};
use crate::state::{BackendKind, Instance, Observed, ProbeKind};
use crate::ui::logs::LogWriter;
use crate::ui::progress::Progress;

/// How the foreground run ends by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Foreground {
    /// End everything when an instance ends (`--abort-on-container-exit`).
    pub(super) abort_on_exit: bool,
    /// The service whose exit code is the command's.
    pub(super) exit_code_from: Option<String>,
    /// `-t`
    pub(super) timeout: Option<Duration>,
    /// Services whose output is shown; `None`: all.
    pub(super) attach: Option<BTreeSet<String>>,
    /// With the time of arrival.
    pub(super) timestamps: bool,
    /// Without names in front.
    pub(super) no_prefix: bool,
    /// Once ready, say whether it is a WebSocket server.
    pub(super) handshake: Option<ProbeKind>,
}

type Followed<'a> = Pin<Box<dyn Future<Output = Result<(), BackendError>> + 'a>>;

/// What is carried out in front of the user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    pub(super) context: &'a Context,
    pub(super) backends: &'a Backends,
    pub(super) plan: &'a Plan,
    /// The project's name.
    pub(super) project: &'a str,
    /// Instances that run already and that the plan leaves alone.
    pub(super) kept: &'a [Instance],
}

/// Executes a plan in the foreground: shows output until every instance ended or the user interrupts,
/// then leaves nothing running. The project is locked until the plan is carried out.
pub(super) async fn run(scene: Scene<'_>, options: &Foreground, alone: ProjectLock) -> Result<()> {
    let Scene {
        context,
        backends,
        plan,
        project,
        kept,
    } = scene;
    let mut alone = Some(alone);
    let (events, mut receiver) = Events::channel();
    let made = Made::default();
    let began = now();
    let mut run = Run {
        scene,
        made: &made,
        events: events.clone(),
        progress: Progress::new(context.ui),
        writer: LogWriter::new(project, names(plan, kept).iter().map(String::as_str))
            .timestamps(options.timestamps)
            .prefix(!options.no_prefix),
        options,
        ours: kept.to_vec(),
        code: 0,
        exited: false,
        seen: BTreeMap::new(),
    };
    let mut signals = Signals::new()?;
    let mut followed: FuturesUnordered<Followed<'_>> = FuturesUnordered::new();
    if !kept.is_empty() {
        followed.push(follow(backends, kept.to_vec(), began, events.clone()));
    }
    let mut executing = std::pin::pin!(execute::execute(plan, backends, &made, &events));
    let mut report: Option<Report> = None;
    let end = loop {
        let finished = report.is_some();
        if finished && followed.is_empty() && receiver.is_empty() {
            let again = tokio::select! {
                biased;
                () = signals.next() => break End::Interrupted,
                again = run.started_again() => again,
            };
            match again {
                Ok(again) if again.is_empty() => break End::AllExited,
                Ok(again) => {
                    for instance in again {
                        let since = run.seen.get(&instance.name).map_or(began, |last| last + 1);
                        followed.push(follow(backends, vec![instance], since, events.clone()));
                    }
                }
                Err(error) => break End::Lost(error),
            }
        }
        tokio::select! {
            biased;
            () = signals.next() => break End::Interrupted,
            Some(event) = receiver.recv() => {
                match run.handle(&event).await {
                    Ok(Some(instance)) => {
                        followed.push(follow(backends, vec![instance], began, events.clone()));
                    }
                    Ok(None) => {}
                    Err(error) => break End::Lost(error),
                }
                if run.exited && options.abort_on_exit {
                    break End::Aborted;
                }
            }
            done = &mut executing, if !finished => {
                let failed = !done.failed.is_empty();
                report = Some(done);
                // What is up may be stopped or changed by other commands from here on.
                drop(alone.take());
                if failed {
                    break End::Failed;
                }
            }
            Some(result) = followed.next() => if let Err(error) = result {
                break End::Lost(error.into());
            },
        }
    };
    // Lines that were read before the end are shown before the end. What cannot be followed any more is
    // stopped all the same.
    while let Ok(event) = receiver.try_recv() {
        drop(run.handle(&event).await);
    }
    if !matches!(end, End::AllExited) {
        run.stop_all(
            &mut receiver,
            &mut followed,
            &mut signals,
            matches!(end, End::Interrupted),
        )
        .await?;
    }
    match (end, report) {
        (End::Interrupted, _) => Err(Error::interrupted()),
        (End::Lost(error), _) => Err(error),
        (End::Failed, Some(report)) => outcome(plan, report),
        _ if options.exit_code_from.is_some() && run.code != 0 => Err(Error::service(run.code)),
        (End::Aborted, _) if run.code != 0 => Err(Error::service(run.code)),
        _ => Ok(()),
    }
}

enum End {
    AllExited,
    Aborted,
    Interrupted,
    Failed,
    /// What runs cannot be seen any more.
    Lost(Error),
}

struct Run<'a> {
    scene: Scene<'a>,
    made: &'a Made,
    events: Events,
    progress: Progress,
    writer: LogWriter,
    options: &'a Foreground,
    ours: Vec<Instance>,
    code: i32,
    exited: bool,
    /// The time of the last line of each instance, in nanoseconds since the Unix epoch: where to go on
    /// with one that another command has started again.
    seen: BTreeMap<String, i64>,
}

impl Run<'_> {
    /// Shows an event; returns an instance that has just started and is to be followed.
    async fn handle(&mut self, event: &Event) -> Result<Option<Instance>> {
        match event {
            Event::Log {
                name,
                stream,
                time,
                line,
            } => {
                self.seen.insert(name.clone(), *time);
                let service = self.ours.iter().find(|instance| instance.name == *name);
                let shown = match (&self.options.attach, service) {
                    (Some(attach), Some(instance)) => attach.contains(&instance.service),
                    _ => true,
                };
                if shown {
                    // A reader that went away ends what it reads, not the services.
                    drop(self.writer.line(name, *stream, *time, line));
                }
            }
            Event::Exited {
                name,
                service,
                code,
            } => {
                self.scene.context.ui.status(format!(
                    "{} exited with code {code}",
                    self.writer.short(name)
                ));
                let counts = match &self.options.exit_code_from {
                    Some(wanted) => wanted == service,
                    None => self.code == 0,
                };
                if counts {
                    self.code = *code;
                }
                self.exited = true;
            }
            Event::StepDone { id, .. } => {
                self.progress.show(event);
                return self.started(*id).await;
            }
            Event::StepStarted { .. }
            | Event::StepFailed { .. }
            | Event::Progress { .. }
            | Event::Note(_)
            | Event::Warning(_) => self.progress.show(event),
            Event::Ready { address, .. } => {
                self.progress.show(event);
                if let Some(kind) = &self.options.handshake {
                    say_what_it_is(self.scene.context, kind, *address).await;
                }
            }
        }
        Ok(None)
    }

    async fn started(&mut self, id: StepId) -> Result<Option<Instance>> {
        let step = self.scene.plan.steps.iter().find(|step| step.id == id);
        let Some(Action::Start { instance }) = step.map(|step| &step.action) else {
            return Ok(None);
        };
        let started = self.scene.backends.started(instance, id, self.made).await?;
        self.ours.extend(started.clone());
        Ok(started)
    }

    /// What another command has started again by now, `wharf restart` as a rule: a command that is at work
    /// is waited for, as what it has stopped it may be about to start.
    async fn started_again(&self) -> Result<Vec<Instance>> {
        let Scene {
            backends, project, ..
        } = self.scene;
        let (unheard, _) = Events::channel();
        let _alone = backends.processes.lock(project, &unheard).await?;
        let mut instances = self.observe_ours().await?;
        instances.retain(|instance| instance.status.is_alive());
        Ok(instances)
    }

    /// Stops what this run started or attached to. The first signal asks, a second one kills.
    async fn stop_all(
        &mut self,
        receiver: &mut UnboundedReceiver<Event>,
        followed: &mut FuturesUnordered<Followed<'_>>,
        signals: &mut Signals,
        interrupted: bool,
    ) -> Result<()> {
        if interrupted {
            self.scene
                .context
                .ui
                .status("stopping gracefully; press Ctrl-C again to kill");
        }
        let mut timeout = self.options.timeout;
        loop {
            let plan = self.stop_plan(timeout).await?;
            let made = Made::default();
            let events = self.events.clone();
            let mut stopping =
                std::pin::pin!(execute::execute(&plan, self.scene.backends, &made, &events));
            let killed = loop {
                tokio::select! {
                    biased;
                    () = signals.next() => break true,
                    Some(event) = receiver.recv() => self.handle_late(&event),
                    report = &mut stopping => {
                        self.drain(receiver, followed).await;
                        return outcome(&plan, report);
                    }
                    Some(_) = followed.next() => {}
                }
            };
            if killed {
                self.scene.context.ui.status("killing");
                timeout = Some(Duration::ZERO);
            }
        }
    }

    /// The last lines arrive while instances end.
    async fn drain(
        &mut self,
        receiver: &mut UnboundedReceiver<Event>,
        followed: &mut FuturesUnordered<Followed<'_>>,
    ) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        while !followed.is_empty() {
            tokio::select! {
                Some(event) = receiver.recv() => self.handle_late(&event),
                Some(_) = followed.next() => {}
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        while let Ok(event) = receiver.try_recv() {
            self.handle_late(&event);
        }
    }

    /// Shows what happens while instances are stopped; nothing new is followed.
    fn handle_late(&mut self, event: &Event) {
        match event {
            Event::Log {
                name,
                stream,
                time,
                line,
            } => drop(self.writer.line(name, *stream, *time, line)),
            Event::Exited {
                name,
                service,
                code,
            } => {
                self.scene.context.ui.status(format!(
                    "{} exited with code {code}",
                    self.writer.short(name)
                ));
                if self.options.exit_code_from.as_ref() == Some(service) {
                    self.code = *code;
                }
            }
            Event::StepStarted { .. }
            | Event::StepDone { .. }
            | Event::StepFailed { .. }
            | Event::Progress { .. }
            | Event::Note(_)
            | Event::Warning(_)
            | Event::Ready { .. } => self.progress.show(event),
        }
    }

    async fn stop_plan(&self, timeout: Option<Duration>) -> Result<Plan> {
        let observed = Observed {
            instances: self.observe_ours().await?,
            ..Observed::default()
        };
        Ok(down::stop(
            &observed,
            &Ending {
                timeout,
                ..Ending::default()
            },
        ))
    }

    /// The instances of this run as they are now, by their names.
    async fn observe_ours(&self) -> Result<Vec<Instance>> {
        let Scene {
            backends,
            plan,
            project,
            ..
        } = self.scene;
        let made = || {
            plan.steps
                .iter()
                .filter_map(|step| step.action.makes_or_starts())
        };
        let in_engine = made().any(|(backend, _)| backend == BackendKind::Container)
            || self
                .ours
                .iter()
                .any(|instance| instance.backend == BackendKind::Container);
        let mut instances = backends.processes.observe(project).await?;
        if in_engine {
            instances.extend(backends.containers.observe(project).await?);
        }
        // What the plan names is ours even if it started a moment ago and was not announced yet.
        instances.retain(|instance| {
            self.ours.iter().any(|ours| ours.name == instance.name)
                || made().any(|(_, name)| name == instance.name)
        });
        Ok(instances)
    }
}

/// The names of all instances whose output may be shown, for the width of the prefix.
fn names(plan: &Plan, kept: &[Instance]) -> BTreeSet<String> {
    let made = plan
        .steps
        .iter()
        .filter_map(|step| step.action.makes_or_starts());
    let made = made.map(|(_, name)| name.to_owned());
    kept.iter()
        .map(|instance| instance.name.clone())
        .chain(made)
        .collect()
}

/// Follows instances; what they wrote before `since` was shown before.
fn follow(
    backends: &Backends,
    instances: Vec<Instance>,
    since: i64,
    events: Events,
) -> Followed<'_> {
    Box::pin(async move {
        let options = LogOptions {
            follow: true,
            since: Some(since),
            ..LogOptions::default()
        };
        backends.follow(&instances, &options, &events).await
    })
}

/// Nanoseconds since the Unix epoch.
fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
