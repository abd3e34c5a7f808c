//! The foreground: shows the output of what a plan starts, and ends it on Ctrl-C.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::backend::process::ProjectLock;
use crate::backend::router::Backends;
use crate::backend::{Backend as _, BackendError, LogOptions, Made};
use crate::cli::carry_out::{Quiet, Signals, outcome, say_what_it_is};
use crate::cli::context::Context;
use crate::cli::menu::{self, Key, Keys};
use crate::cli::watch::{self, Watch, Watching};
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
    /// When to end everything because an instance ended.
    pub(super) abort: Abort,
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
    /// Without colours in front.
    pub(super) no_colour: bool,
    /// What of the output of builds and pulls is not shown.
    pub(super) quiet: Quiet,
    /// The services whose end is the end; `None`: all. Others are left running then.
    pub(super) awaited: Option<BTreeSet<String>>,
    /// Take keys.
    pub(super) menu: bool,
    /// Watch from the start.
    pub(super) watch: bool,
    /// Once ready, say whether it is a WebSocket server.
    pub(super) handshake: Option<ProbeKind>,
}

/// When to end everything because an instance ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Abort {
    /// Never.
    #[default]
    Never,
    /// However it ended (`--abort-on-container-exit`).
    OnExit,
    /// When its code is not 0 (`--abort-on-container-failure`).
    OnFailure,
}

/// The output of one instance: its name once it is over.
type Followed<'a> = Pin<Box<dyn Future<Output = (String, Result<(), BackendError>)> + 'a>>;

/// Instances that run although their output was over.
type Again<'a> = Pin<Box<dyn Future<Output = Result<Vec<Instance>>> + 'a>>;

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
///
/// Everything that is waited for is polled by one loop; nothing in it waits for the project's lock by
/// itself, because watching needs the lock now and then.
pub(super) async fn run(
    scene: Scene<'_>,
    options: &Foreground,
    alone: ProjectLock,
    watcher: Option<Watch<'_>>,
) -> Result<()> {
    let Scene {
        context,
        backends,
        plan,
        project,
        kept,
    } = scene;
    let mut alone = Some(alone);
    let (events, mut receiver) = Events::channel();
    let (renewed, mut renewals) = unbounded_channel();
    let made = Made::default();
    let began = now();
    let mut run = Run {
        scene,
        made: &made,
        events: events.clone(),
        progress: Progress::new(context.ui).without(options.quiet.subjects(plan)),
        writer: LogWriter::new(project, names(plan, kept).iter().map(String::as_str))
            .timestamps(options.timestamps)
            .prefix(!options.no_prefix)
            .colours(!options.no_colour),
        options,
        ours: kept.to_vec(),
        code: 0,
        ended: None,
        seen: BTreeMap::new(),
        following: BTreeMap::new(),
    };
    let mut signals = Signals::new()?;
    let mut keys = options.menu.then(Keys::take).flatten();
    let watchable = watcher
        .as_ref()
        .is_some_and(|watch| !watch.rules.is_empty());
    if keys.is_some() {
        context.ui.status(menu::line(watchable));
    }
    let mut followed: FuturesUnordered<Followed<'_>> = FuturesUnordered::new();
    for instance in kept {
        followed.extend(run.follow(instance.clone(), began));
    }
    let mut executing = std::pin::pin!(execute::execute_at_most(
        plan,
        backends,
        &made,
        &events,
        context.global.limit()
    ));
    let mut report: Option<Report> = None;
    let mut wants_watch = options.watch;
    let mut watching: Option<Watching<'_>> = None;
    let mut again: Option<Again<'_>> = None;
    // Whether what is being looked for now was begun after everything was over.
    let mut conclusive = false;
    let end = loop {
        let finished = report.is_some();
        if finished
            && wants_watch
            && watching.is_none()
            && let Some(watcher) = &watcher
        {
            watching = Some(Box::pin(watch::run(
                context,
                backends,
                watcher,
                events.clone(),
                renewed.clone(),
            )));
        }
        let over = finished && !run.goes_on() && receiver.is_empty();
        if over && watching.is_none() && again.is_none() {
            conclusive = true;
            again = Some(Box::pin(run.running_again()));
        }
        tokio::select! {
            biased;
            () = signals.next() => break End::Interrupted,
            Some(key) = menu::next(&mut keys) => match key {
                Key::Detach => break End::Detached,
                Key::Watch if !watchable => context.ui.note("no service has a `develop.watch` section"),
                Key::Watch => {
                    wants_watch = !wants_watch;
                    if watching.take().is_some() {
                        context.ui.status("watch: off");
                    }
                }
            },
            Some(event) = receiver.recv() => {
                match run.handle(&event).await {
                    Ok(Some(instance)) => followed.extend(run.follow(instance, began)),
                    Ok(None) => {}
                    Err(error) => break End::Lost(error),
                }
                if run.aborts() {
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
            Some((name, result)) = followed.next() => {
                run.following.remove(&name);
                if let Err(error) = result {
                    break End::Lost(error.into());
                }
                // It may be back already, or coming back.
                if finished && again.is_none() {
                    conclusive = false;
                    again = Some(Box::pin(run.running_again()));
                }
            }
            result = poll(&mut again) => {
                again = None;
                match result {
                    Ok(instances) => {
                        let instances = run.not_followed(instances);
                        for instance in instances {
                            let since = run.seen.get(&instance.name).map_or(began, |last| last + 1);
                            followed.extend(run.follow(instance, since));
                        }
                        if conclusive && !run.goes_on() && watching.is_none() && receiver.is_empty() {
                            break End::AllExited;
                        }
                    }
                    Err(error) => break End::Lost(error),
                }
            }
            Some(()) = renewals.recv() => {
                conclusive = false;
                again = Some(Box::pin(run.running_again()));
            }
            result = poll(&mut watching) => {
                watching = None;
                wants_watch = false;
                if let Err(error) = result {
                    context.ui.warn(format!("watch: off: {error}"));
                }
            }
        }
    };
    drop((watching, again));
    // Lines that were read before the end are shown before the end. What cannot be followed any more is
    // stopped all the same.
    while let Ok(event) = receiver.try_recv() {
        drop(run.handle(&event).await);
    }
    drop(keys);
    if matches!(end, End::Detached) {
        context.ui.status(
            "detached: the services go on; `wharf logs -f` shows their output, `wharf down` ends them",
        );
        return Ok(());
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

/// The result of a future that may not be there: then there is never one.
async fn poll<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + '_>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

enum End {
    AllExited,
    Aborted,
    Detached,
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
    /// How the last instance that ended did so: its exit code.
    ended: Option<i32>,
    /// The time of the last line of each instance, in nanoseconds since the Unix epoch: where to go on
    /// with one that another command has started again.
    seen: BTreeMap<String, i64>,
    /// The instances whose output is read, and their services.
    following: BTreeMap<String, String>,
}

impl<'a> Run<'a> {
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
                self.ended = Some(*code);
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

    /// Whether everything is to end because of what ended.
    fn aborts(&self) -> bool {
        match (self.options.abort, self.ended) {
            (Abort::Never, _) | (_, None) => false,
            (Abort::OnExit, Some(_)) => true,
            (Abort::OnFailure, Some(code)) => code != 0,
        }
    }

    /// Whether anything runs that is waited for.
    fn goes_on(&self) -> bool {
        self.following.values().any(|service| {
            let awaited = self.options.awaited.as_ref();
            awaited.is_none_or(|awaited| awaited.contains(service))
        })
    }

    /// Follows an instance, unless it is followed; what it wrote before `since` was shown before.
    fn follow(&mut self, instance: Instance, since: i64) -> Option<Followed<'a>> {
        let (name, service) = (instance.name.clone(), instance.service.clone());
        if self.following.insert(name, service).is_some() {
            return None;
        }
        let (backends, events) = (self.scene.backends, self.events.clone());
        Some(Box::pin(async move {
            let options = LogOptions {
                follow: true,
                since: Some(since),
                ..LogOptions::default()
            };
            let name = instance.name.clone();
            let result = backends.follow(&[instance], &options, &events).await;
            (name, result)
        }))
    }

    /// Those whose output is not shown, made ours.
    fn not_followed(&mut self, mut instances: Vec<Instance>) -> Vec<Instance> {
        instances.retain(|instance| !self.following.contains_key(&instance.name));
        self.ours.extend(instances.iter().cloned());
        instances
    }

    /// What another command, or watching, has started again by now: a command that is at work is waited
    /// for, as what it has stopped it may be about to start.
    fn running_again(&self) -> impl Future<Output = Result<Vec<Instance>>> + use<'a> {
        let scene = self.scene;
        let ours = self.names();
        async move {
            let (unheard, _) = Events::channel();
            let _alone = scene
                .backends
                .processes
                .lock(scene.project, &unheard)
                .await?;
            let mut instances = observe(scene, &ours).await?;
            instances.retain(|instance| instance.status.is_alive());
            Ok(instances)
        }
    }

    /// The names of the instances of this run, and where each lives. What the plan names is ours even if it
    /// started a moment ago and was not announced yet.
    fn names(&self) -> BTreeMap<String, BackendKind> {
        let made = self
            .scene
            .plan
            .steps
            .iter()
            .filter_map(|step| step.action.makes_or_starts())
            .map(|(backend, name)| (name.to_owned(), backend));
        self.ours
            .iter()
            .map(|instance| (instance.name.clone(), instance.backend))
            .chain(made)
            .collect()
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
            instances: observe(self.scene, &self.names()).await?,
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
}

/// The instances of a run as they are now, by their names.
async fn observe(scene: Scene<'_>, ours: &BTreeMap<String, BackendKind>) -> Result<Vec<Instance>> {
    let Scene {
        backends, project, ..
    } = scene;
    let mut instances = backends.processes.observe(project).await?;
    if ours
        .values()
        .any(|backend| *backend == BackendKind::Container)
    {
        instances.extend(backends.containers.observe(project).await?);
    }
    instances.retain(|instance| ours.contains_key(&instance.name));
    Ok(instances)
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

/// Nanoseconds since the Unix epoch.
fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
