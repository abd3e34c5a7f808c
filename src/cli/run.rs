//! `wharf run`

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::sync::Arc;

use crate::backend::Backend as _;
use crate::backend::Made;
use crate::backend::container::Given;
use crate::backend::process::run::new_run_id;
use crate::backend::router::Backends;
use crate::backend::streams::Program;
use crate::cli::carry_out::{Quiet, carry_out};
use crate::cli::context::Context;
use crate::cli::exec::{face, unstarted, variables};
use crate::cli::provide;
use crate::cli::session::{self, End, OnSignal, Recipient, Session};
use crate::cli::settle::settle;
use crate::cli::up::OnConflict;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::placement::{Selection, Wishes, in_form};
use crate::plan::policy::{Once, Policy};
use crate::plan::step::{Action, OneOff, Target, Which};
use crate::project::model::{Conflict, Project, PullPolicy, Restart, Service};
use crate::project::once;
use crate::state::{BackendKind, Instance};
use crate::ui::Ui;

/// The label that carries the slug.
const SLUG_LABEL: &str = "com.docker.compose.slug";

/// How much of the slug is in the name.
const SHORT: usize = 12;

/// Run a service for one command, with what it depends on
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Leave it running and print its id
    #[arg(short, long)]
    detach: bool,
    /// Remove it, and its anonymous volumes, when it ends
    #[arg(long)]
    rm: bool,
    /// Set a variable; without a value, as it is set here
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Set the variables of a file
    #[arg(long, value_name = "FILE")]
    env_from_file: Vec<String>,
    /// Program in front of the command, in place of the service's
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Its name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Do not start what the service depends on
    #[arg(long)]
    no_deps: bool,
    /// Publish a port
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Publish the service's own ports
    #[arg(short = 'P', long)]
    service_ports: bool,
    /// No terminal for it [default: one if standard input and output are]
    #[arg(short = 'T', long = "no-TTY", alias = "no-tty")]
    no_tty: bool,
    /// Accepted as Compose accepts it; it has a terminal where there is one
    #[arg(short, long, hide = true)]
    tty: bool,
    /// Send standard input to it
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    interactive: bool,
    /// The user to run it as
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Mount a directory or volume
    #[arg(short, long, value_name = "SOURCE:TARGET")]
    volume: Vec<String>,
    /// The directory to run it in
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Build its image first
    #[arg(long)]
    build: bool,
    /// When to pull its image
    #[arg(long, value_name = "WHEN", value_parser = ["always", "missing", "never", "policy"])]
    pull: Option<String>,
    /// Pull without showing it
    #[arg(long)]
    quiet_pull: bool,
    /// Build without showing it
    #[arg(long)]
    quiet_build: bool,
    /// Show nothing but its output
    #[arg(short, long)]
    quiet: bool,
    /// Give it the service's names on its networks
    #[arg(long)]
    use_aliases: bool,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Remove instances of services that are no longer in the compose file
    #[arg(long)]
    remove_orphans: bool,
    /// What to do when a needed port is held [default: what the compose file says, else ask]
    #[arg(long, value_enum, value_name = "WHAT")]
    on_conflict: Option<OnConflict>,
    /// Stop whoever holds a needed port; the same as --on-conflict replace
    #[arg(long, conflicts_with = "on_conflict")]
    force: bool,
    /// Run it as a local process
    #[arg(long, conflicts_with = "container")]
    local: bool,
    /// Run it as a container
    #[arg(long)]
    container: bool,
    /// The service, and a command with arguments in place of the service's
    #[arg(value_names = ["SERVICE", "COMMAND"], required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// What it gets of the user's terminal.
#[derive(Clone, Copy)]
struct Wanted {
    tty: bool,
    stdin: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let mut context = context.clone();
    context.ui = Ui {
        quiet: context.ui.quiet || args.quiet,
        ..context.ui
    };
    let context = &context;
    if args.service_ports && !args.publish.is_empty() {
        return Err(
            Error::usage("--service-ports and --publish are incompatible")
                .hint("leave one of them out"),
        );
    }
    let Some((name, command)) = args.words.split_first() else {
        return Err(Error::usage("run needs a service").hint("wharf config --services"));
    };
    let project = context.load(std::slice::from_ref(name), args.no_deps)?;
    let Some(service) = project.services.get(name) else {
        return Err(
            Error::usage(format!("no such service: {name}")).hint("wharf config --services")
        );
    };
    if let Some(provider) = &service.provider {
        let kind = &provider.kind;
        return Err(Error::usage(format!(
            "service `{name}` is provided by `{kind}`: there is nothing to run a command in"
        ))
        .hint(format!("wharf up -d {name}")));
    }
    let wanted = Wanted {
        tty: !args.no_tty
            && !args.detach
            && std::io::stdin().is_terminal()
            && std::io::stdout().is_terminal(),
        stdin: args.interactive,
    };
    let backends = context.backends()?;
    let wishes = wishes(&backends, &project, name, args).await?;
    let placement = context.place(&project, &wishes, &backends).await?;
    let backend = placement.of(name);
    let service = changed(context, &project, service, backend, command, wanted, args)?;
    let slug = slug()?;
    let short = slug.get(..SHORT).unwrap_or(&slug);
    let called = args
        .name
        .clone()
        .unwrap_or_else(|| format!("{}-{name}-run-{short}", project.name));
    let mut policy = Policy {
        on_conflict: if args.force {
            Some(Conflict::Replace)
        } else {
            args.on_conflict.map(Into::into)
        },
        remove_orphans: args.remove_orphans,
        once: Some(Once {
            service: Arc::new(Service {
                container_name: Some(called.clone()),
                ..service
            }),
            one_off: OneOff {
                slug: slug.clone(),
                remove: args.rm,
                aliases: args.use_aliases,
            },
        }),
        ..Policy::default()
    };
    let alone = context.lock_soon(&backends, &project.name).await?;
    let provided = provide::provide(
        context,
        &backends,
        project.clone(),
        &placement,
        &mut policy,
        Quiet::default(),
    );
    let project = provided.await?;
    let mut settled = settle(context, &backends, &project, &placement, &mut policy).await?;
    let mut instances = settled.observed.instances.iter();
    if let Some(holder) = instances.find(|instance| instance.name == called) {
        return Err(is_there(holder));
    }
    let is_image = |action: &Action| {
        matches!(action, Action::Build { .. } if args.quiet_build)
            || matches!(action, Action::Pull { .. } if args.quiet_pull)
    };
    let images = settled.plan.only(is_image);
    if !images.steps.is_empty() {
        let quietly = Context {
            ui: Ui {
                quiet: true,
                ..context.ui
            },
            ..context.clone()
        };
        carry_out(&quietly, &backends, &images).await?;
        settled
            .plan
            .steps
            .retain(|step| !images.steps.iter().any(|done| done.id == step.id));
        let left: BTreeSet<_> = settled.plan.steps.iter().map(|step| step.id).collect();
        for step in &mut settled.plan.steps {
            step.needs.retain(|need| left.contains(need));
        }
    }
    context.note_all(&settled.plan);
    let (plan, target) = without_start(settled.plan)
        .ok_or_else(|| Error::failed("the plan makes no instance for this command"))?;
    let made = match carry_out(context, &backends, &plan).await {
        Ok(made) => made,
        Err(error) => {
            take_back(&backends, &target, &slug).await;
            return Err(error);
        }
    };
    let once = Ready {
        context,
        backends: &backends,
        target,
        wanted,
        remove: args.rm,
    };
    match backend {
        BackendKind::Container => once.container(&made, args.detach, alone).await,
        BackendKind::Process => once.process(&made, args.detach, alone).await,
    }
}

/// Somebody has the name that was asked for. `rm` takes no one-offs.
fn is_there(holder: &Instance) -> Error {
    let name = &holder.name;
    let (what, hint) = match (holder.one_off, holder.backend) {
        (false, _) => (
            format!("an instance of service {}", holder.service),
            format!("wharf rm -sf {}, or another --name", holder.service),
        ),
        (true, BackendKind::Container) => (
            "of another `run`".to_owned(),
            format!("docker rm -f {name}, or another --name"),
        ),
        (true, BackendKind::Process) => {
            ("of another `run`".to_owned(), "another --name".to_owned())
        }
    };
    Error::failed(format!("there is an instance {name} already"))
        .detail(format!("it is {what}, and {}", holder.status.word()))
        .hint(hint)
}

/// Where things run: a dependency, and the service itself, where it is now; else as usual.
async fn wishes(backends: &Backends, project: &Project, name: &str, args: &Args) -> Result<Wishes> {
    let running = backends.processes.observe(&project.name).await?;
    let mut local: BTreeSet<String> = running
        .iter()
        .filter(|instance| instance.status.is_alive() && !instance.one_off)
        .map(|instance| instance.service.clone())
        .filter(|service| {
            project
                .services
                .get(service)
                .is_some_and(|service| service.has_process_form())
        })
        .collect();
    let mut container = BTreeSet::new();
    if args.local {
        local.insert(name.to_owned());
    } else if args.container {
        local.remove(name);
        container.insert(name.to_owned());
    }
    Ok(Wishes {
        local: Selection::Named(local),
        container: Selection::Named(container),
        ..Wishes::default()
    })
}

/// The service with what the command line says.
fn changed(
    context: &Context,
    project: &Project,
    service: &Arc<Service>,
    backend: BackendKind,
    command: &[String],
    wanted: Wanted,
    args: &Args,
) -> Result<Service> {
    let mut service = Service::clone(&in_form(service, backend));
    let wrong =
        |option: &str, text: &str, why: &str| Error::usage(format!("{option} {text}: {why}"));
    if let Some(entrypoint) = &args.entrypoint {
        let words = shell_words::split(entrypoint)
            .map_err(|error| wrong("--entrypoint", entrypoint, &error.to_string()))?;
        service.entrypoint = Some(words);
        service.command = Some(Vec::new());
    }
    if !command.is_empty() {
        // After its entrypoint, as in a container: a process form with a command of its own has none.
        service.command = Some(command.to_vec());
    }
    for path in &args.env_from_file {
        let text = std::fs::read_to_string(context.env.current_dir.join(path))
            .map_err(|error| wrong("--env-from-file", path, &error.to_string()))?;
        let found = once::variables(&text, &context.env.variables)
            .map_err(|why| wrong("--env-from-file", path, &why))?;
        service.environment.extend(found);
    }
    for entry in variables(context, &args.env) {
        if let Some((key, value)) = entry.split_once('=') {
            service.environment.insert(key.to_owned(), value.to_owned());
        }
    }
    for entry in &args.label {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        service.labels.insert(key.to_owned(), value.to_owned());
    }
    if !args.service_ports {
        service.ports.clear();
    }
    for text in &args.publish {
        let ports = once::ports(text).map_err(|why| wrong("--publish", text, &why))?;
        service.ports.extend(ports);
    }
    for text in &args.volume {
        let mount = once::mount(text, &context.env.current_dir, context.env.get("HOME"))
            .map_err(|why| wrong("--volume", text, &why))?;
        service.volumes.retain(|other| other.target != mount.target);
        service.volumes.push(mount);
    }
    if let Some(user) = &args.user {
        service.user = Some(user.clone());
    }
    if let Some(dir) = &args.workdir {
        let from_here = backend == BackendKind::Process;
        service.working_dir = Some(if from_here {
            let base = service.working_dir.as_ref().map_or_else(
                || project.directory.clone(),
                |base| project.directory.join(base),
            );
            base.join(dir).to_string_lossy().into_owned()
        } else {
            dir.clone()
        });
    }
    service.cap_add.extend(args.cap_add.iter().cloned());
    service.cap_drop.extend(args.cap_drop.iter().cloned());
    if args.build {
        service.pull_policy = Some(PullPolicy::Build);
    }
    match args.pull.as_deref() {
        Some("always") => service.pull_policy = Some(PullPolicy::Always),
        Some("missing") => service.pull_policy = Some(PullPolicy::Missing),
        Some("never") => service.pull_policy = Some(PullPolicy::Never),
        _ => {}
    }
    service.tty = wanted.tty;
    service.stdin_open = wanted.stdin;
    service.restart = Restart::No;
    service.restart_given = false;
    service.scale = Some(1);
    Ok(service)
}

/// 64 random hexadecimal digits.
fn slug() -> Result<String> {
    let part = || new_run_id().map_err(Error::failed);
    Ok(part()? + &part()?)
}

/// The plan up to the instance, without its start, and the instance.
fn without_start(mut plan: Plan) -> Option<(Plan, Target)> {
    let makes = |action: &Action| matches!(action, Action::Create(spec) if spec.one_off.is_some());
    let made = plan.steps.iter().find(|step| makes(&step.action))?.id;
    let which = Which::MadeBy(made);
    let target = plan.steps.iter().find_map(|step| {
        let target = step.action.changes()?;
        (target.which == which).then(|| target.clone())
    })?;
    let starts = |action: &Action| {
        matches!(action, Action::Start { instance } | Action::AwaitReady { instance, .. }
            if instance.which == which)
    };
    plan.steps.retain(|step| !starts(&step.action));
    Some((plan, target))
}

/// Removes the instance if it was made before something else failed: it was never started.
async fn take_back(backends: &Backends, target: &Target, slug: &str) {
    // The failure is what the user must see; what cannot be removed, `down` finds.
    match target.backend {
        BackendKind::Container => {
            let found = backends.containers.observe(&target.project).await;
            let made = found
                .unwrap_or_default()
                .into_iter()
                .find(|instance| instance.labels.get(SLUG_LABEL).map(String::as_str) == Some(slug));
            if let Some(made) = made {
                drop(backends.containers.discard(&made.id.0, &made.name).await);
            }
        }
        BackendKind::Process => {
            let (project, name) = (&target.project, &target.name);
            drop(backends.processes.end_one_off(project, name, 0, true).await);
        }
    }
}

/// An instance that is made and waits to be started.
struct Ready<'a> {
    context: &'a Context,
    backends: &'a Backends,
    target: Target,
    wanted: Wanted,
    remove: bool,
}

impl Ready<'_> {
    async fn container(
        &self,
        made: &Made,
        detach: bool,
        alone: crate::backend::process::ProjectLock,
    ) -> Result<()> {
        let containers = &self.backends.containers;
        let name = &self.target.name;
        let id = Backends::resolve(&self.target, made)
            .ok_or_else(|| Error::failed(format!("{name} was not made")))?
            .0;
        if detach {
            self.started(containers.start_one_off(&id, name).await, &id)
                .await?;
            self.context.ui.data(&id);
            return Ok(());
        }
        let given = Given {
            tty: self.wanted.tty,
            stdin: self.wanted.stdin,
        };
        let configured = containers.detach_keys();
        let keys = session::keys(configured.as_deref())?;
        let condition = if self.remove { "removed" } else { "next-exit" };
        let attached = async {
            let streams = containers
                .attach(&id, name, given, configured.as_deref())
                .await?;
            let ending = containers.ending(&id, name, condition).await?;
            containers.start_one_off(&id, name).await?;
            Ok((streams, ending))
        };
        let (streams, ending) = self.started(attached.await, &id).await?;
        drop(alone);
        let recipient = Recipient::Container {
            id: id.clone(),
            name: name.clone(),
        };
        let end = session::carry_on(
            self.backends,
            Session {
                streams,
                terminal: given.tty.then(|| Program::Main(id.clone())),
                stdin: given.stdin,
                keys: Some(keys),
                on_signal: OnSignal::PassOn(self.backends, &recipient),
            },
        )
        .await?;
        match end {
            End::Output => session::result(ending.code().await?),
            End::Broken => Err(session::broken()),
            End::Detached => Ok(()),
        }
    }

    /// An instance that could not be started is of no use to anybody.
    async fn started<T>(
        &self,
        outcome: Result<T, crate::backend::BackendError>,
        id: &str,
    ) -> Result<T> {
        match outcome {
            Ok(done) => Ok(done),
            Err(error) => {
                let discarded = self.backends.containers.discard(id, &self.target.name);
                drop(discarded.await);
                Err(error.into())
            }
        }
    }

    async fn process(
        &self,
        made: &Made,
        detach: bool,
        alone: crate::backend::process::ProjectLock,
    ) -> Result<()> {
        let processes = &self.backends.processes;
        let (project, name) = (&self.target.project, &self.target.name);
        if detach {
            let start = Action::Start {
                instance: self.target.clone(),
            };
            let id = self.backends.perform_alone(start, made).await?;
            self.context
                .ui
                .data(id.map_or_else(|| name.clone(), |id| id.0));
            return Ok(());
        }
        let face = face(self.context, self.wanted.tty, self.wanted.stdin);
        let named = processes.await_names(project, name).await;
        let started = match named.and_then(|()| processes.start_one_off(project, name, &face)) {
            Ok(started) => started,
            Err(error) => {
                processes.end_one_off(project, name, 127, true).await?;
                return Err(unstarted(error));
            }
        };
        drop(alone);
        let code = session::foreground(self.backends, started).await;
        let noted = match &code {
            Ok(code) => *code,
            Err(error) => i32::from(error.kind.code()),
        };
        processes
            .end_one_off(project, name, noted, self.remove)
            .await?;
        session::result(code?)
    }
}
