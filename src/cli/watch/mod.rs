//! `wharf watch`, and watching under `up`: carries out what changed files ask for.
//!
//! One change at a time: what changes while work is done is the next batch. A failure is told and watching
//! goes on, because the next change is what mends it. Waiting for a restarted service to answer is given up
//! when the next batch comes.

mod hands;
mod reins;

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep_until};

use self::hands::Hands;
pub(super) use self::reins::Reins;
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
use crate::project::model::{BuildContext, MountKind, Project, Reaction, Service, Trigger};
use crate::state::BackendKind;
use crate::ui::logs::LogWriter;
use crate::ui::report;
use crate::watch::batch::Batch;
use crate::watch::files::{Files, WatchError};
use crate::watch::gitignore::as_dockerignore;
use crate::watch::rules::{IgnoreFile, Rule, work};

/// How long it must have been quiet.
const QUIET: Duration = Duration::from_millis(100);

/// How long a burst may take before it is acted upon although it goes on.
const LONGEST: Duration = Duration::from_secs(2);

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
    pub(super) rules: Vec<Rule>,
    /// What of the output of builds is not shown.
    pub(super) quiet: Quiet,
    /// Remove nameless images after a rebuild.
    pub(super) prune: bool,
}

/// Watching, until it fails.
pub(super) type Watching<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

pub(super) async fn command(context: &Context, args: &Args) -> Result<()> {
    let project = context.load(&args.services, false)?;
    let backends = context.backends()?;
    let placement = context
        .place(&project, &Wishes::default(), &backends)
        .await?;
    let rules = rules(context, &project, &placement, &args.services)?;
    if rules.is_empty() {
        return Err(Error::failed("no service selected is set up for watching")
            .hint("develop: {watch: [{action: sync, path: ./src, target: /app/src}]}"));
    }
    let mut signals = Signals::new()?;
    let watch = Watch {
        project: &project,
        placement: &placement,
        rules,
        quiet: Quiet {
            builds: args.quiet,
            pulls: args.quiet,
        },
        prune: args.prune,
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
            start(context, &backends, &watch, &reins).await?
        };
        let watch = Watch {
            project: &project,
            ..watch
        };
        run(context, &backends, &watch, &reins, events, renewed).await
    });
    let mut is_interrupted = false;
    loop {
        tokio::select! {
            biased;
            () = signals.next() => {
                // A plan that is finished as a whole hears of it by itself, and says what is not done.
                if is_interrupted && (reins.is_busy() || !reins.renews()) {
                    return Err(Error::interrupted());
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
        build: watch.rules.iter().any(is_rebuilt),
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
    for note in &settled.plan.notes {
        context.ui.note(note);
    }
    carry_out_quietly(context, backends, &settled.plan, quiet).await?;
    Ok(project)
}

/// The triggers of these services (none: of all) that have something to do, with their patterns read.
///
/// # Errors
/// A trigger that its service cannot follow.
pub(super) fn rules(
    context: &Context,
    project: &Project,
    placement: &Placement,
    services: &[String],
) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for service in project.services.values() {
        if !services.is_empty() && !services.contains(&service.name) || service.watch.is_empty() {
            continue;
        }
        let backend = placement.of(&service.name);
        let ignore_files = ignore_files(service, backend, &project.directory);
        for trigger in &service.watch {
            if !applies(context, service, backend, trigger)? {
                continue;
            }
            let rule = Rule::new(&service.name, trigger, &ignore_files).map_err(|error| {
                Error::new(Kind::Invalid, error)
                    .detail(format!("watching service `{}`", service.name))
                    .hint("patterns are those of .dockerignore")
            })?;
            rules.push(rule);
        }
    }
    Ok(rules)
}

fn applies(
    context: &Context,
    service: &Service,
    backend: BackendKind,
    trigger: &Trigger,
) -> Result<bool> {
    let (name, path) = (&service.name, trigger.path.display());
    if trigger.reaction == Reaction::SyncExec
        && trigger
            .exec
            .as_ref()
            .is_none_or(|exec| exec.command.is_empty())
    {
        return Err(Error::new(
            Kind::Invalid,
            format!("service `{name}` cannot watch {path}: sync+exec needs a command"),
        )
        .hint("exec: {command: [...]}"));
    }
    match (backend, trigger.reaction) {
        (BackendKind::Container, Reaction::Rebuild) if service.build.is_none() => Err(Error::new(
            Kind::Invalid,
            format!(
                "service `{name}` cannot watch {path}: it has no `build`, so it cannot be rebuilt"
            ),
        )
        .hint(format!("add `build:` to service `{name}`"))),
        // A process reads the files themselves.
        (BackendKind::Process, Reaction::Sync) => Ok(false),
        (BackendKind::Container, reaction) if reaction.syncs() => {
            let mounted = service.volumes.iter().any(|mount| {
                matches!(&mount.kind, MountKind::Bind { source, .. } if trigger.path.starts_with(source))
            });
            if mounted {
                context.ui.warn(format!(
                    "{path} is not watched for service `{name}`: a bind mount already shows it to the container"
                ));
            }
            Ok(!mounted)
        }
        (BackendKind::Container | BackendKind::Process, _) => Ok(true),
    }
}

/// The ignore files that count for a service. A process runs from the working copy, where what is built lies beside
/// what it is built from: so Git's file counts for it, too.
fn ignore_files(service: &Service, backend: BackendKind, directory: &Path) -> Vec<IgnoreFile> {
    let here = |name: &str, meaning: fn(&str) -> String| {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        Some(IgnoreFile {
            root: directory.to_owned(),
            text: meaning(&text),
        })
    };
    let of_build = || ignore_file(service);
    match backend {
        BackendKind::Container => of_build().into_iter().collect(),
        BackendKind::Process => of_build()
            .or_else(|| here(".dockerignore", str::to_owned))
            .into_iter()
            .chain(here(".gitignore", as_dockerignore))
            .collect(),
    }
}

/// The ignore file of a service's build: the Dockerfile's own, else the context's.
fn ignore_file(service: &Service) -> Option<IgnoreFile> {
    let build = service.build.as_ref()?;
    let BuildContext::Directory(root) = &build.context else {
        return None;
    };
    let dockerfile = build.dockerfile.as_deref().unwrap_or("Dockerfile");
    let own = root.join(format!("{dockerfile}.dockerignore"));
    let text = fs::read_to_string(own)
        .or_else(|_| fs::read_to_string(root.join(".dockerignore")))
        .ok()?;
    Some(IgnoreFile {
        root: root.clone(),
        text,
    })
}

/// Watches until it fails, or the reins are pulled. `renewed` hears when instances may have started anew.
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
    let hands = Hands {
        context: &context,
        backends,
        watch,
        reins,
        events,
    };
    let mut files = Files::watch(&watch.rules).map_err(unwatchable)?;
    hands.first_sync().await?;
    let paths: Vec<String> = watch
        .rules
        .iter()
        .map(|rule| rule.trigger.path.display().to_string())
        .collect();
    hands.tell(&format!("on: {}", paths.join(", ")));
    let began = Instant::now();
    let mut batch = Batch::new(QUIET, LONGEST);
    let mut answering: Option<Watching<'_>> = None;
    loop {
        let due = batch.due_at().map(|due| began + due);
        tokio::select! {
            () = reins.pulled() => return Err(Error::interrupted()),
            changed = files.changed(&watch.rules) => {
                let now = began.elapsed();
                for path in changed.map_err(unwatchable)? {
                    batch.add(path, now);
                }
            }
            () = sleep_until(due.unwrap_or(began)), if due.is_some() => {
                let Some(paths) = batch.take(began.elapsed()) else { continue };
                answering = None;
                match hands.act(work(&watch.rules, &paths)).await {
                    Ok(waits) if waits.steps.is_empty() => {}
                    Ok(waits) => {
                        let hands = &hands;
                        answering = Some(Box::pin(async move {
                            carry_out(hands.context, hands.backends, &waits).await.map(drop)
                        }));
                    }
                    Err(error) if error.kind == Kind::Interrupted => return Err(error),
                    Err(error) => report::error(&error),
                }
                // Nobody listens where no output is shown.
                renewed.send(()).ok();
            }
            result = async { match &mut answering {
                Some(answering) => answering.await,
                None => std::future::pending().await,
            } } => {
                answering = None;
                if let Err(error) = result {
                    report::error(&error);
                }
            }
        }
    }
}

fn unwatchable(error: WatchError) -> Error {
    let at_limit = matches!(error, WatchError::Limit(_));
    let error = Error::failed(error);
    if at_limit {
        error.hint("sudo sysctl fs.inotify.max_user_watches=524288")
    } else {
        error
    }
}
