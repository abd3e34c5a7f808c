//! The foreground: shows the output of what a plan starts, and ends it on Ctrl-C.
//!
//! Where services were named, these alone end it, and are stopped at its end, as in Docker Compose: what came along as a
//! dependency may have run before, and a job that others wait for ends without ending them.

mod ending;
mod newcomers;
mod run;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::unbounded_channel;

use self::newcomers::Newcomers;
use self::run::Run;
use crate::backend::process::ProjectLock;
use crate::backend::router::Backends;
use crate::backend::{BackendError, Made, in_one_line};
use crate::cli::again;
use crate::cli::carry_out::{Quiet, forget_shown, give_up_replacements, outcome};
use crate::cli::context::Context;
use crate::cli::interrupted::listed;
use crate::cli::menu::{self, Key, Keys};
use crate::cli::signals::Signals;
use crate::cli::watch::{self, Beforehand, Reins, Watch, Watching};
use crate::cli::way::Way;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::execute::{self, Halt, Report};
use crate::plan::Plan;
use crate::plan::step::{Action, Step, StepId};
use crate::state::{Instance, ProbeKind};
use crate::ui::logs::LogWriter;
use crate::ui::progress::Progress;

/// How the foreground run ends by itself.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Foreground {
    /// When to end everything because an instance ended.
    pub(in crate::cli) abort: Abort,
    /// The service whose exit code is the command's.
    pub(in crate::cli) exit_code_from: Option<String>,
    /// `-t`
    pub(in crate::cli) timeout: Option<Duration>,
    /// Services whose output is shown; `None`: all.
    pub(in crate::cli) attach: Option<BTreeSet<String>>,
    /// With the time of arrival.
    pub(in crate::cli) timestamps: bool,
    /// Without names in front.
    pub(in crate::cli) no_prefix: bool,
    /// Without colours in front.
    pub(in crate::cli) no_colour: bool,
    /// What of the output of builds and pulls is not shown.
    pub(in crate::cli) quiet: Quiet,
    /// The services whose end is the end, or aborts; `None`: all. Others are left running then.
    pub(in crate::cli) awaited: Option<BTreeSet<String>>,
    /// The services that were named, which alone are stopped; `None`: all. What they depend on goes on.
    pub(in crate::cli) named: Option<BTreeSet<String>>,
    /// The services that take part: what others start of them while this goes on takes part, too. Empty: none do.
    pub(in crate::cli) members: BTreeSet<String>,
    /// The services that others wait for to be completed: that they are is no reason to abort.
    pub(in crate::cli) jobs: BTreeSet<String>,
    /// Take keys.
    pub(in crate::cli) menu: bool,
    /// Watch from the start.
    pub(in crate::cli) watch: bool,
    /// Once ready, say whether it is a WebSocket server.
    pub(in crate::cli) handshake: Option<ProbeKind>,
}

impl Foreground {
    /// Whether a service's end is the end.
    fn awaits(&self, service: &str) -> bool {
        let awaited = self.awaited.as_ref();
        awaited.is_none_or(|awaited| awaited.contains(service))
    }

    /// Whether the output of what others start of a service is read.
    fn joins(&self, service: &str) -> bool {
        let attach = self.attach.as_ref();
        let is_shown = attach.is_none_or(|attach| attach.contains(service));
        self.members.contains(service) && (is_shown || self.awaits(service))
    }

    /// Whether what others have started of a service is stopped at the end, too.
    fn ends(&self, service: &str) -> bool {
        let named = self.named.as_ref();
        self.members.contains(service) && named.is_none_or(|named| named.contains(service))
    }
}

/// When to end everything because an instance ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) enum Abort {
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
pub(in crate::cli) struct Scene<'a> {
    pub(in crate::cli) context: &'a Context,
    pub(in crate::cli) backends: &'a Backends,
    pub(in crate::cli) plan: &'a Plan,
    /// The project's name.
    pub(in crate::cli) project: &'a str,
    /// Instances that run already and that the plan leaves alone.
    pub(in crate::cli) kept: &'a [Instance],
    /// What of the output was shown.
    pub(in crate::cli) shown: &'a Shown,
}

/// How far the output of instances was shown, also by an earlier run of the same command.
#[derive(Debug)]
pub(in crate::cli) struct Shown {
    /// When the command began, in nanoseconds since the Unix epoch.
    began: i64,
    /// The time of the last line of each instance.
    lines: RefCell<BTreeMap<String, i64>>,
    /// Whether it was said whose output is shown.
    is_said: Cell<bool>,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            began: now(),
            lines: RefCell::default(),
            is_said: Cell::default(),
        }
    }
}

impl Shown {
    fn note(&self, name: &str, time: i64) {
        self.lines.borrow_mut().insert(name.to_owned(), time);
    }

    /// From when on the output of an instance was not shown yet.
    fn since(&self, name: &str) -> i64 {
        let lines = self.lines.borrow();
        lines.get(name).map_or(self.began, |last| last + 1)
    }
}

/// Executes a plan in the foreground: shows output until every instance ended or the user interrupts,
/// then stops what was asked for. The project is locked until the plan is carried out. Where another command has done a
/// part of the plan, the lock stays, all goes on, and the error says that a new plan leads further.
///
/// Everything that is waited for is polled by one loop; nothing in it waits for the project's lock by
/// itself, because watching needs the lock now and then.
pub(in crate::cli) async fn run(
    scene: Scene<'_>,
    options: &Foreground,
    alone: &mut Option<ProjectLock>,
    watcher: Option<Watch<'_>>,
) -> Result<()> {
    let Scene {
        context,
        backends,
        plan,
        project,
        kept,
        shown,
    } = scene;
    let (events, mut receiver) = Events::channel();
    let (renewed, mut renewals) = unbounded_channel();
    let made = Made::default();
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
        is_answered: options.exit_code_from.is_none(),
        changing: BTreeSet::new(),
        touches: false,
        ended: None,
        spared: BTreeSet::new(),
        following: BTreeMap::new(),
        over: BTreeMap::new(),
        ends_all: false,
    };
    let mut newcomers = Newcomers::new(scene, options);
    // A server without a file has no names.
    if options.handshake.is_none() && !shown.is_said.replace(true) {
        let attached: Vec<&str> = run.writer.names(|name| is_shown(plan, kept, options, name));
        if !attached.is_empty() {
            let ui = context.ui;
            ui.data(format!("Attaching to {}", attached.join(", ")));
        }
    }
    let mut signals = Signals::new()?;
    let mut keys = options.menu.then(Keys::take).flatten();
    let watchable = watcher
        .as_ref()
        .is_some_and(|watch| watch.triggers.some().is_ok());
    if keys.is_some() {
        context.ui.status(menu::line(watchable));
    }
    let mut followed: FuturesUnordered<Followed<'_>> = FuturesUnordered::new();
    for instance in kept {
        followed.extend(run.follow(instance.clone(), shown.since(&instance.name)));
    }
    let halt = Halt::default();
    let beforehand = Beforehand {
        context,
        backends,
        watch: watcher.as_ref().filter(|_| options.watch),
    };
    let mut executing = std::pin::pin!(execute::execute_until(
        plan,
        &beforehand,
        &made,
        &events,
        context.global.limit(),
        &halt
    ));
    let way = Way::default();
    // Gone with the plan: the turn is not to be taken back then.
    let mut making_way: Option<Pin<Box<dyn Future<Output = Error> + '_>>> =
        Some(Box::pin(way.make(backends, plan, &halt)));
    let mut report: Option<Report> = None;
    let mut wants_watch = options.watch;
    let reins = Reins::default();
    let mut detaches = false;
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
                &reins,
                events.clone(),
                renewed.clone(),
            )));
        }
        if finished {
            newcomers.attend(&run);
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
                Key::Detach if watching.is_some() && reins.renews() => {
                    // What is started anew is not left stopped.
                    detaches = true;
                    reins.pull();
                }
                Key::Detach => break End::Detached,
                Key::Watch if !watchable => context.ui.note("no service has a `develop.watch` section"),
                Key::Watch => {
                    wants_watch = !wants_watch;
                    if watching.is_some() && reins.renews() {
                        // It is off when that is done.
                        reins.pull();
                    } else if watching.take().is_some() {
                        context.ui.status("watch: off");
                    }
                }
            },
            Some(event) = receiver.recv() => {
                match run.handle(&event).await {
                    Ok(Some(instance)) => followed.extend(run.follow(instance, shown.began)),
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
                making_way = None;
                // What is up may be stopped or changed by other commands from here on.
                drop(alone.take());
                if failed {
                    break End::Failed;
                }
            }
            error = poll(&mut making_way) => {
                making_way = None;
                let error = way.explain(error);
                break if again::leads_further(&error) {
                    End::Overtaken(error)
                } else {
                    End::Lost(error)
                };
            }
            Some((name, result)) = followed.next() => {
                run.unfollow(&name);
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
                            let since = shown.since(&instance.name);
                            followed.extend(run.follow(instance, since));
                        }
                        if conclusive && !run.goes_on() && watching.is_none() && receiver.is_empty() {
                            break End::AllExited;
                        }
                    }
                    Err(error) => break End::Lost(error),
                }
            }
            found = newcomers.next(&run.over) => {
                for instance in run.not_followed(found) {
                    let since = shown.since(&instance.name);
                    followed.extend(run.follow(instance, since));
                }
            }
            Some(()) = renewals.recv() => {
                conclusive = false;
                again = Some(Box::pin(run.running_again()));
            }
            result = poll(&mut watching) => {
                watching = None;
                let was_pulled = reins.is_pulled();
                reins.slacken();
                if detaches {
                    break End::Detached;
                }
                if was_pulled {
                    context.ui.status("watch: off");
                    continue;
                }
                wants_watch = false;
                if let Err(error) = result {
                    context.ui.warn(format!("watch: off: {error}"));
                }
            }
        }
    };
    drop(making_way);
    reins.pull();
    // What is copied at this moment comes whole.
    if let Some(mut watching) = watching
        && reins.is_busy()
    {
        reins.tell(context.ui);
        tokio::select! {
            biased;
            () = signals.next() => reins.tell_cut_off(context.ui),
            // It is over, well or not.
            _ = &mut watching => {}
        }
    }
    drop(again);
    // Lines that were read before the end are shown before the end. What cannot be followed any more is
    // stopped all the same.
    while let Ok(event) = receiver.try_recv() {
        if let Ok(Some(instance)) = run.handle(&event).await {
            followed.extend(run.follow(instance, shown.began));
        }
    }
    // What is being started at this moment is ours too: its end is heard only by those who follow it. And what an
    // engine still makes or removes would be a surprise for the next command.
    halt.now();
    while report.is_none() && run.is_changing() {
        tokio::select! {
            biased;
            () = signals.next() => break,
            Some(event) = receiver.recv() => {
                if let Ok(Some(instance)) = run.handle(&event).await {
                    followed.extend(run.follow(instance, shown.began));
                }
            }
            done = &mut executing => {
                report = Some(done);
                while let Ok(event) = receiver.try_recv() {
                    if let Ok(Some(instance)) = run.handle(&event).await {
                        followed.extend(run.follow(instance, shown.began));
                    }
                }
            }
        }
    }
    drop(keys);
    give_up_replacements(context, backends, report.as_ref()).await;
    let is_open = |step: StepId| match &report {
        Some(report) => {
            let mut failed = report.failed.iter();
            report.skipped.contains(&step) || failed.any(|(other, _)| *other == step)
        }
        None => halt.is_open(step) && !run.changing.contains(&step),
    };
    if matches!(end, End::Detached) {
        context.ui.status(context.typed(
            "detached: the services go on; `wharf logs -f` shows their output, `wharf down` ends them",
        ));
        let is_left = |step: &&Step| {
            let is_told = execute::works(&step.action) && !step.action.is_own();
            is_told && is_open(step.id)
        };
        let left = listed(plan.steps.iter().filter(is_left));
        if !left.is_empty() {
            context.ui.status(context.typed(&format!(
                "  not done: {}; `wharf up -d` goes on with it",
                left.join("; ")
            )));
        }
        return Ok(());
    }
    let left_alone = match end {
        End::Interrupted | End::Failed => run.left_alone(is_open),
        End::AllExited | End::Aborted | End::Detached | End::Lost(_) | End::Overtaken(_) => None,
    };
    if matches!(end, End::Failed) {
        run.spared = kept.iter().map(|instance| instance.name.clone()).collect();
    }
    run.ends_all = matches!(end, End::Interrupted | End::Aborted);
    let mut stopped = Ok(());
    if left_alone.is_none() && !matches!(end, End::AllExited | End::Overtaken(_)) {
        let is_interrupted = matches!(end, End::Interrupted);
        stopped = run
            .stop_all(&mut receiver, &mut followed, &mut signals, is_interrupted)
            .await;
    }
    match (end, report) {
        (End::Interrupted, report) => {
            for (_, error) in report.iter().flat_map(|report| &report.failed) {
                context.ui.warn(in_one_line(error));
            }
            if let Some(names) = left_alone {
                let ran = goes_on(&names).map(|ran| format!("; {ran}"));
                let ran = ran.unwrap_or_default();
                context
                    .ui
                    .status(format!("interrupted: nothing was started{ran}"));
            }
            stopped.and(Err(Error::interrupted()))
        }
        (End::Overtaken(error), _) => Err(error),
        (End::Lost(error), _) => Err(run.with_what_is_left(error, stopped)),
        (End::Failed, Some(mut report)) => {
            forget_shown(&mut report, context.ui, options.quiet);
            outcome(plan, report).map_err(|error| {
                let error = run.with_what_is_left(way.explain(error), stopped);
                match goes_on(left_alone.as_ref().unwrap_or(&run.spared)) {
                    Some(ran) => error.detail(ran),
                    None => error,
                }
            })
        }
        _ if stopped.is_err() => stopped,
        _ if options.exit_code_from.is_some() && run.code != 0 => Err(Error::service(run.code)),
        (End::Aborted, _) if !run.is_answered => {
            let service = options.exit_code_from.as_deref().unwrap_or_default();
            let message = format!("service `{service}` did not run: another one ended before");
            Err(Error::failed(message))
        }
        (End::Aborted, _) if run.code != 0 => Err(Error::service(run.code)),
        _ => Ok(()),
    }
}

/// Says that what ran before goes on.
fn goes_on(names: &BTreeSet<String>) -> Option<String> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| format!("what ran goes on: {}", names.join(", ")))
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
    /// Another command has done a part of it.
    Overtaken(Error),
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

/// Whether an instance's output is shown.
fn is_shown(plan: &Plan, kept: &[Instance], options: &Foreground, name: &str) -> bool {
    let Some(attach) = &options.attach else {
        return true;
    };
    let made = plan.steps.iter().filter_map(|step| {
        if let Action::Create(spec) = &step.action {
            return Some((spec.name.as_str(), spec.service.name.as_str()));
        }
        let target = step.action.changes()?;
        Some((target.name.as_str(), target.service.as_str()))
    });
    kept.iter()
        .map(|instance| (instance.name.as_str(), instance.service.as_str()))
        .chain(made)
        .any(|(other, service)| other == name && attach.contains(service))
}

/// Nanoseconds since the Unix epoch.
fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
