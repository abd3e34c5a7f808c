//! `wharf watch`, and watching under `up`: carries out what changed files ask for.
//!
//! One change at a time: what changes while work is done is the next batch. A failure is told and watching
//! goes on, because the next change is what mends it. Waiting for a restarted service to answer is given up
//! when the next batch comes.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep_until};

use crate::backend::router::Backends;
use crate::cli::carry_out::{Quiet, carry_out, carry_out_quietly};
use crate::cli::context::Context;
use crate::cli::provide::provide;
use crate::cli::signals::Signals;
use crate::cli::up::with_images;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Events};
use crate::observe;
use crate::plan::Plan;
use crate::plan::launch::{self, Launching};
use crate::plan::placement::{Placement, Wishes, in_form};
use crate::plan::policy::{Policy, Recreate};
use crate::plan::step::{Action, Step};
use crate::project::model::{BuildContext, Hook, MountKind, Project, Reaction, Service, Trigger};
use crate::state::{BackendKind, Instance, Observed, Status};
use crate::ui::logs::LogWriter;
use crate::ui::{NAME, report};
use crate::watch::batch::Batch;
use crate::watch::files::{Files, WatchError, at_first};
use crate::watch::gitignore::as_dockerignore;
use crate::watch::rules::{IgnoreFile, Pair, Rule, Work, work};

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
    let mut working: Watching<'_> = Box::pin(async {
        let project = if args.no_up {
            project.clone()
        } else {
            start(context, &backends, &watch).await?
        };
        let watch = Watch {
            project: &project,
            ..watch
        };
        run(context, &backends, &watch, events, renewed).await
    });
    loop {
        tokio::select! {
            biased;
            () = signals.next() => return Err(Error::interrupted()),
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
async fn start(context: &Context, backends: &Backends, watch: &Watch<'_>) -> Result<Project> {
    let is_rebuilt = |rule: &Rule| rule.trigger.reaction == Reaction::Rebuild;
    let mut policy = Policy {
        build: watch.rules.iter().any(is_rebuilt),
        remove_orphans: context.is_on("COMPOSE_REMOVE_ORPHANS"),
        ignore_orphans: context.is_on("COMPOSE_IGNORE_ORPHANS"),
        ..Policy::default()
    };
    let _alone = context.lock(backends, &watch.project.name).await?;
    let (project, placement, quiet) = (watch.project.clone(), watch.placement, watch.quiet);
    let project = provide(context, backends, project, placement, &mut policy, quiet).await?;
    let settled = with_images(context, backends, &project, placement, policy, quiet).await?;
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

/// Watches until it fails. `renewed` hears when instances may have started anew.
pub(super) async fn run(
    context: &Context,
    backends: &Backends,
    watch: &Watch<'_>,
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

/// Does what changed files ask for.
struct Hands<'a> {
    context: &'a Context,
    backends: &'a Backends,
    watch: &'a Watch<'a>,
    events: Events,
}

impl Hands<'_> {
    fn tell(&self, text: &str) {
        self.context
            .ui
            .status(format!("{NAME}watch:{NAME:#} {text}"));
    }

    /// Brings containers up to date whose triggers ask for it.
    async fn first_sync(&self) -> Result<()> {
        for rule in &self.watch.rules {
            let is_container = self.watch.placement.of(&rule.service) == BackendKind::Container;
            if !(rule.trigger.initial_sync && rule.trigger.reaction.syncs() && is_container) {
                continue;
            }
            let pairs: Vec<Pair> = at_first(rule)
                .iter()
                .filter_map(|path| rule.pair(path))
                .collect();
            self.sync(&rule.service, &pairs).await?;
        }
        Ok(())
    }

    /// Does the work; what is left is to wait for answers.
    async fn act(&self, work: Work) -> Result<Plan> {
        let project = self.watch.project;
        let _alone = self.context.lock(self.backends, &project.name).await?;
        let mut waits = Plan::default();
        let mut restart = work.restart;
        for name in &work.rebuild {
            let Some(service) = project.services.get(name) else {
                continue;
            };
            if self.watch.placement.of(name) == BackendKind::Process {
                self.tell(&format!("{name}: rebuilding"));
                self.build_process(service).await?;
                restart.insert(name.clone());
            } else {
                self.tell(&format!("{name}: rebuilding"));
                self.rebuild(service).await?;
            }
        }
        for (name, pairs) in &work.sync {
            if self.watch.placement.of(name) == BackendKind::Container {
                let pairs: Vec<Pair> = pairs.iter().cloned().collect();
                self.sync(name, &pairs).await?;
            }
        }
        if !restart.is_empty() {
            let names: Vec<&str> = restart.iter().map(String::as_str).collect();
            self.tell(&format!("{}: restarting", names.join(", ")));
            let observed = Observed {
                instances: self.instances().await?,
                ..Observed::default()
            };
            let launching = Launching {
                services: restart,
                ..Launching::default()
            };
            let mut plan = launch::restart(&observed, &launching);
            let is_wait = |step: &Step| matches!(step.action, Action::AwaitReady { .. });
            waits.steps = plan
                .steps
                .iter()
                .filter(|step| is_wait(step))
                .cloned()
                .collect();
            for step in &mut waits.steps {
                step.needs.clear();
            }
            plan.steps.retain(|step| !is_wait(step));
            carry_out(self.context, self.backends, &plan).await?;
        }
        for (name, hooks) in &work.exec {
            for hook in hooks {
                self.exec(name, hook).await?;
            }
        }
        Ok(waits)
    }

    async fn instances(&self) -> Result<Vec<Instance>> {
        let (project, placement) = (self.watch.project, self.watch.placement);
        Ok(observe::instances(self.backends, project, placement).await?)
    }

    /// The running containers of a service.
    async fn containers(&self, service: &str) -> Result<Vec<Instance>> {
        let mut instances = self.instances().await?;
        instances.retain(|instance| {
            instance.service == service
                && !instance.one_off
                && instance.backend == BackendKind::Container
                && instance.status == Status::Running
        });
        Ok(instances)
    }

    async fn sync(&self, service: &str, pairs: &[Pair]) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let files = if pairs.len() == 1 { "file" } else { "files" };
        self.tell(&format!("{service}: syncing {} {files}", pairs.len()));
        // What is mounted below a path would go with it.
        let mounts = self.watch.project.services.get(service);
        let holds_mount = |inside: &str| {
            let mut targets = mounts.iter().flat_map(|service| &service.volumes);
            targets.any(|mount| Path::new(&mount.target).starts_with(inside))
        };
        let spared = |pair: &&Pair| {
            let gone = fs::symlink_metadata(&pair.host).is_err();
            let keep = gone && (pair.inside.is_empty() || holds_mount(&pair.inside));
            if keep {
                let path = pair.host.display();
                self.tell(&format!(
                    "{service}: {path} is gone; {} stays in the container, because something is mounted in it",
                    pair.inside
                ));
            }
            !keep
        };
        let pairs: Vec<(PathBuf, String)> = pairs
            .iter()
            .filter(spared)
            .map(|pair| (pair.host.clone(), pair.inside.clone()))
            .collect();
        for container in self.containers(service).await? {
            let (id, name) = (&container.id.0, &container.name);
            self.backends
                .containers
                .sync(id, name, &pairs, &self.events)
                .await?;
        }
        Ok(())
    }

    /// `up` for one service, with its image built.
    async fn rebuild(&self, service: &Service) -> Result<()> {
        let all = self.watch.project;
        let mut alone = all.clone();
        alone.services.retain(|name, _| *name == service.name);
        // The others are no orphans.
        let others = all.services.keys().filter(|name| **name != service.name);
        alone.disabled.extend(others.cloned());
        let policy = Policy {
            build: true,
            recreate: Recreate::Always("watch"),
            ignore_orphans: true,
            ..Policy::default()
        };
        let (context, backends) = (self.context, self.backends);
        let (placement, quiet) = (self.watch.placement, self.watch.quiet);
        let settled = with_images(context, backends, &alone, placement, policy, quiet).await?;
        carry_out_quietly(context, backends, &settled.plan, quiet).await?;
        if self.watch.prune {
            backends.containers.prune_images(&all.name).await?;
        }
        Ok(())
    }

    /// Runs `x-wharf.process.build`, where there is one.
    async fn build_process(&self, service: &Service) -> Result<()> {
        let form = service.wharf.process.as_ref();
        match form.and_then(|form| form.build.as_ref()) {
            Some(argv) => self.run_here(service, argv, None, "build").await,
            None => Ok(()),
        }
    }

    async fn exec(&self, service: &str, hook: &Hook) -> Result<()> {
        if self.watch.placement.of(service) == BackendKind::Process {
            return match self.watch.project.services.get(service) {
                Some(service) => {
                    self.run_here(service, &hook.command, Some(hook), "exec")
                        .await
                }
                None => Ok(()),
            };
        }
        for container in self.containers(service).await? {
            let (id, name) = (&container.id.0, &container.name);
            self.backends
                .containers
                .run_hook(id, name, "watch", hook, &self.events)
                .await?;
        }
        Ok(())
    }

    /// Runs a command of a process service as the service itself would be run.
    async fn run_here(
        &self,
        service: &Service,
        argv: &[String],
        hook: Option<&Hook>,
        what: &str,
    ) -> Result<()> {
        let form = in_form(&std::sync::Arc::new(service.clone()), BackendKind::Process);
        let Some((program, arguments)) = argv.split_first() else {
            return Ok(());
        };
        let mut directory: PathBuf = self.watch.project.directory.clone();
        for path in [
            form.working_dir.as_deref(),
            hook.and_then(|hook| hook.working_dir.as_deref()),
        ]
        .into_iter()
        .flatten()
        {
            directory = directory.join(Path::new(path));
        }
        let more = hook.iter().flat_map(|hook| &hook.environment);
        let more = more.filter_map(|entry| entry.split_once('='));
        self.tell(&format!("{}: {}", service.name, argv.join(" ")));
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .current_dir(&directory)
            .env_clear()
            .envs(&self.context.env.variables)
            .envs(&form.environment)
            .envs(more)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if self.watch.quiet.builds {
            command.stdout(Stdio::null());
        } else {
            command.stdout(std::io::stderr());
        }
        let ended = command.status().await.map_err(|error| {
            Error::failed(error)
                .detail(format!("running `{program}` in {}", directory.display()))
                .hint(format!("check that `{program}` is installed and on PATH"))
        })?;
        if ended.success() {
            return Ok(());
        }
        Err(Error::failed(format!(
            "service `{}`: its {what} command ended with {ended}; it is left as it was",
            service.name
        ))
        .hint("save a file again to repeat it"))
    }
}
