//! `wharf watch`, and watching under `up`: carries out what changed files ask for.
//!
//! One change at a time: what changes while work is done is the next batch. A failure is told and watching
//! goes on, because the next change is what mends it. Waiting for a restarted service to answer is given up
//! when the next batch comes.

mod backlog;
mod beforehand;
mod eyes;
mod git;
mod hands;
mod local;
mod reins;
mod triggers;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use self::backlog::Backlog;
pub(super) use self::beforehand::{Beforehand, Given};
use self::eyes::{Eyes, unwatchable};
use self::hands::Hands;
pub(super) use self::reins::Reins;
pub(super) use self::triggers::Triggers;
use crate::backend::router::Backends;
use crate::cli::carry_out::{Quiet, carry_out, carry_out_quietly};
use crate::cli::context::Context;
use crate::cli::provide::provide;
use crate::cli::signals::Signals;
use crate::cli::up::with_images;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Events};
use crate::plan::placement::{Placement, Wishes};
use crate::plan::policy::Policy;
use crate::project::model::{Project, Reaction};
use crate::ui::logs::LogWriter;
use crate::ui::report;
use crate::watch::files::Files;
use crate::watch::rules::{Rule, Work};

/// How long the work that heard of a second interrupt gets to say what it leaves.
const ANSWER: Duration = Duration::from_millis(100);

/// React to changed files: copy them into containers, rebuild, restart (`develop.watch`)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to watch [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Do not build and start the services first
    #[arg(long)]
    no_up: bool,
    /// Remove the images that rebuilding leaves without a name
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_name = "BOOL")]
    prune: bool,
    /// Do not show the output of builds
    #[arg(long)]
    quiet: bool,
}

/// What is watched, and how.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    pub(super) project: &'a Project,
    pub(super) placement: &'a Placement,
    pub(super) triggers: &'a Triggers,
    /// What of the output of builds is not shown.
    pub(super) quiet: Quiet,
    /// Remove nameless images after a rebuild.
    pub(super) prune: bool,
    /// The command that has the flags about held ports, where this one has not.
    pub(super) answers: Option<String>,
    /// What containers were given before they were started.
    pub(super) given: RefCell<Given>,
}

impl Watch<'_> {
    /// A failure, with the command that has the flags which would answer.
    fn answered(&self, error: Error) -> Error {
        match &self.answers {
            Some(command) => error.answered_by(command),
            None => error,
        }
    }
}

/// Watching, until it fails.
pub(super) type Watching<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

pub(super) async fn command(context: &Context, args: &Args) -> Result<()> {
    let project = context.load(&args.services, false)?;
    let backends = context.backends()?;
    let placement = context
        .place(&project, &Wishes::default(), &backends)
        .await?;
    let triggers = Triggers::read(context, &project, &placement, &args.services)?;
    triggers.some()?;
    let mut signals = Signals::new()?;
    let watch = Watch {
        project: &project,
        placement: &placement,
        triggers: &triggers,
        quiet: Quiet {
            builds: args.quiet,
            pulls: args.quiet,
        },
        prune: args.prune,
        answers: Some(
            [&["wharf up --watch".to_owned()], &*args.services]
                .concat()
                .join(" "),
        ),
        given: RefCell::default(),
    };
    let (events, mut receiver) = Events::channel();
    let names: Vec<String> = project
        .services
        .values()
        .flat_map(|service| {
            let count = service.scale.unwrap_or(1);
            (1..=count).map(|number| service.instance_name(&project.name, number))
        })
        .collect();
    let writer = LogWriter::new(&project.name, names.iter().map(String::as_str));
    let (renewed, _renewals) = tokio::sync::mpsc::unbounded_channel();
    let reins = Reins::default();
    let mut working: Watching<'_> = Box::pin(async {
        let project = if args.no_up {
            project.clone()
        } else {
            let started = start(context, &backends, &watch, &reins).await;
            started.map_err(|error| watch.answered(error))?
        };
        let watch = Watch {
            project: &project,
            answers: watch.answers.clone(),
            given: RefCell::default(),
            ..watch
        };
        Box::pin(run(context, &backends, &watch, &reins, events, renewed)).await
    });
    let mut is_interrupted = false;
    loop {
        tokio::select! {
            biased;
            () = signals.next() => {
                if is_interrupted {
                    reins.tell_cut_off(context.ui);
                    // A plan that is being carried out hears of it by itself, and answers for it.
                    return tokio::time::timeout(ANSWER, &mut working)
                        .await
                        .unwrap_or_else(|_| Err(Error::interrupted()));
                }
                is_interrupted = true;
                reins.pull();
                // Where nothing is under way, there is nothing to be said of it.
                if let Poll::Ready(result) = futures_util::poll!(&mut working) {
                    return result;
                }
                reins.tell(context.ui);
            }
            Some(event) = receiver.recv() => {
                if let Event::Log { name, stream, time, line } = &event {
                    drop(writer.line(name, *stream, *time, line));
                }
            }
            result = &mut working => return result,
        }
    }
}

/// Builds and starts everything, as `up -d --build` where something is rebuilt; the project as it is then.
async fn start(
    context: &Context,
    backends: &Backends,
    watch: &Watch<'_>,
    reins: &Reins,
) -> Result<Project> {
    let is_rebuilt = |rule: &Rule| rule.trigger.reaction == Reaction::Rebuild;
    let mut policy = Policy {
        build: watch.triggers.rules.iter().any(is_rebuilt),
        remove_orphans: context.is_on("COMPOSE_REMOVE_ORPHANS"),
        ignore_orphans: context.is_on("COMPOSE_IGNORE_ORPHANS"),
        ..Policy::default()
    };
    let locking = context.lock(backends, &watch.project.name);
    let _alone = reins.unless_pulled(locking).await?;
    let (project, placement, quiet) = (watch.project.clone(), watch.placement, watch.quiet);
    let project = provide(context, backends, project, placement, &mut policy, quiet).await?;
    let settling = Box::pin(with_images(
        context, backends, &project, placement, policy, quiet,
    ));
    let settled = reins.unless_pulled(settling).await?;
    context.note_all(&settled.plan);
    carry_out_quietly(context, backends, &settled.plan, quiet).await?;
    Ok(project)
}

/// Watches until it fails, or the reins are pulled; not at all where nothing is to be done for any file. `renewed` hears when instances may have started anew.
pub(super) async fn run(
    context: &Context,
    backends: &Backends,
    watch: &Watch<'_>,
    reins: &Reins,
    events: Events,
    renewed: UnboundedSender<()>,
) -> Result<()> {
    let mut context = context.clone();
    // Nobody sits at a question while files change.
    context.ui.unattended = true;
    let triggers = watch.triggers;
    let files = Files::watch(&triggers.rules, triggers.sources()).map_err(unwatchable)?;
    // Starting took its time.
    let rules = triggers.read_again()?;
    let ui = context.ui;
    let eyes = Eyes::new(files, Rc::clone(&rules), move || {
        match triggers.read_again() {
            Ok(rules) => Some(rules),
            Err(error) => {
                ui.warn(format!("the ignore files are not read again: {error}"));
                None
            }
        }
    });
    let hands = Hands {
        context: &context,
        backends,
        watch,
        reins,
        eyes: &eyes,
        events,
    };
    hands.first_sync().await?;
    for line in watch.triggers.idle() {
        hands.tell(&line);
    }
    if rules.is_empty() {
        return Ok(());
    }
    let mut paths: Vec<String> = Vec::new();
    for rule in rules.iter() {
        let path = rule.trigger.path.display().to_string();
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    hands.tell(&format!("on: {}", paths.join(", ")));
    let mut answering: Option<Watching<'_>> = None;
    let mut backlog = Backlog::new();
    loop {
        let todo = tokio::select! {
            () = reins.pulled() => return Err(Error::interrupted()),
            error = eyes.look() => return Err(error),
            paths = eyes.batch() => {
                let (todo, lines) = backlog.sift(&eyes.rules(), &paths);
                for line in lines {
                    hands.tell(&line);
                }
                todo
            }
            todo = backlog.due() => todo,
            result = async { match &mut answering {
                Some(answering) => answering.await,
                None => std::future::pending().await,
            } } => {
                answering = None;
                if let Err(error) = result {
                    report::error(&watch.answered(error));
                }
                continue;
            }
        };
        if todo == Work::default() {
            continue;
        }
        answering = None;
        let renewing: Vec<String> = todo.restart.union(&todo.rebuild).cloned().collect();
        let acted = tokio::select! {
            biased;
            acted = hands.act(todo) => acted,
            // What changes meanwhile would be more than the system keeps.
            error = eyes.look() => return Err(error),
        };
        backlog.done(&renewing);
        match acted {
            Ok(waits) if waits.steps.is_empty() => {}
            Ok(waits) => {
                let hands = &hands;
                answering = Some(Box::pin(async move {
                    carry_out(hands.context, hands.backends, &waits)
                        .await
                        .map(drop)
                }));
            }
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => report::error(&watch.answered(error)),
        }
        // Nobody listens where no output is shown.
        renewed.send(()).ok();
    }
}
