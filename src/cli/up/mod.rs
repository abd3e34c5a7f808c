//! `wharf up`

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args as _, FromArgMatches as _, ValueEnum};
use tokio::task::yield_now;

use crate::backend::process::ProjectLock;
use crate::backend::router::Backends;
use crate::cli::again::{Rounds, once_more};
use crate::cli::await_up::await_up;
use crate::cli::carry_out::{Quiet, carry_out, carry_out_part};
use crate::cli::context::{Context, Named, with_choices};
use crate::cli::foreground::{Abort, Foreground};
use crate::cli::grace::grace;
use crate::cli::hasten;
use crate::cli::provide::provide;
use crate::cli::settle::{Settled, settle};
use crate::cli::watch::Triggers;
use crate::error::{Error, Kind, Result};
use crate::plan::Plan;
use crate::plan::down::Ending;
use crate::plan::placement::{Placement, Selection, Wishes};
use crate::plan::policy::{Policy, Recreate};
use crate::plan::step::{Action, Cause, Step};
use crate::probe;
use crate::project;
use crate::project::model::{Conflict, Project, PullPolicy};
use crate::state::{BackendKind, Instance, Status};
use crate::ui::progress::already;
use crate::ui::{GOOD, NAME, Steps, WARN};

/// Create and start the services, after resolving conflicts about their ports
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to start, with what they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Return when the services are ready and leave them running
    #[arg(short, long)]
    detach: bool,
    /// Run services as local processes: these (comma-separated), or without a value all that can
    #[arg(long, value_name = "SERVICE,...", num_args = 0..=1, require_equals = false, default_missing_value = "*", value_delimiter = ',')]
    local: Vec<String>,
    /// Run services as containers: these (comma-separated), or without a value all that can
    #[arg(long, value_name = "SERVICE,...", num_args = 0..=1, default_missing_value = "*", value_delimiter = ',')]
    container: Vec<String>,
    /// What to do when a needed port is held [default: what the compose file says, else ask]
    #[arg(long, value_enum, value_name = "WHAT")]
    on_conflict: Option<OnConflict>,
    /// Stop whoever holds a needed port; the same as --on-conflict replace
    #[arg(long, conflicts_with = "on_conflict")]
    force: bool,
    /// Build images before starting, also those that exist
    #[arg(long)]
    build: bool,
    /// Never build
    #[arg(long, conflicts_with = "build")]
    no_build: bool,
    /// When to pull images
    #[arg(long, value_name = "WHEN", value_parser = ["always", "missing", "never", "policy"])]
    pull: Option<String>,
    /// Make every instance anew
    #[arg(long)]
    force_recreate: bool,
    /// Never make an existing instance anew
    #[arg(long, conflicts_with = "force_recreate")]
    no_recreate: bool,
    /// Make what the services depend on anew, too
    #[arg(long, conflicts_with = "no_recreate")]
    always_recreate_deps: bool,
    /// Do not start what the services depend on
    #[arg(long)]
    no_deps: bool,
    /// Make instances and do not start them
    #[arg(long)]
    no_start: bool,
    /// Number of replicas of a service
    #[arg(long, value_name = "SERVICE=N")]
    scale: Vec<String>,
    /// Remove instances of services that are no longer in the compose file
    #[arg(long)]
    remove_orphans: bool,
    /// Make the services anew, with new anonymous volumes
    #[arg(short = 'V', long, conflicts_with = "no_recreate")]
    renew_anon_volumes: bool,
    /// Answer yes to questions: volumes whose configuration changed are made anew, without their data. A held
    /// port is freed by --force alone
    #[arg(short, long)]
    yes: bool,
    /// Seconds that instances get to stop; -1: as many as they need
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = grace)]
    timeout: Option<Duration>,
    /// Wait until the services run, or are healthy where they have a healthcheck; implies --detach
    #[arg(long)]
    wait: bool,
    /// Seconds after which --wait gives up
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
    /// Stop everything when an instance ends
    #[arg(long)]
    abort_on_container_exit: bool,
    /// Stop everything when an instance ends with another code than 0
    #[arg(long, conflicts_with = "abort_on_container_exit")]
    abort_on_container_failure: bool,
    /// Return this service's exit code; implies --abort-on-container-exit
    #[arg(long, value_name = "SERVICE")]
    exit_code_from: Option<String>,
    /// Show the output of these services only
    #[arg(long, value_name = "SERVICE")]
    attach: Vec<String>,
    /// Do not show the output of these services
    #[arg(long, value_name = "SERVICE")]
    no_attach: Vec<String>,
    /// Show the output of what the services depend on, too
    #[arg(long, conflicts_with = "attach")]
    attach_dependencies: bool,
    /// Show the time of arrival of every line
    #[arg(long)]
    timestamps: bool,
    /// Leave the names in front of the lines out
    #[arg(long)]
    no_log_prefix: bool,
    /// No colours in front of the lines
    #[arg(long)]
    no_color: bool,
    /// Do not show how images are pulled
    #[arg(long)]
    quiet_pull: bool,
    /// Do not show the output of builds
    #[arg(long)]
    quiet_build: bool,
    /// React to changes of watched files (`develop.watch`)
    #[arg(short, long, conflicts_with = "no_build")]
    watch: bool,
    /// Take keys while attached: d detaches, w watches [default: on a terminal, unless `COMPOSE_MENU=0`]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    menu: Option<bool>,
}

impl Args {
    /// Whether the command returns and leaves the services running.
    fn detaches(&self) -> bool {
        self.detach || self.wait
    }

    /// Whether it is not for all that another `up` of the project is at: it does not wait for what that one waits for.
    fn is_for_some(&self) -> bool {
        !self.services.is_empty() || self.no_start
    }

    fn quiet(&self) -> Quiet {
        Quiet {
            builds: self.quiet_build,
            pulls: self.quiet_pull,
        }
    }

    /// What the parser cannot check by itself.
    fn check(&self, context: &Context) -> Result<()> {
        let attached = [
            (self.abort_on_container_exit, "--abort-on-container-exit"),
            (self.exit_code_from.is_some(), "--exit-code-from"),
            (
                self.abort_on_container_failure,
                "--abort-on-container-failure",
            ),
            (!self.attach.is_empty(), "--attach"),
            (self.attach_dependencies, "--attach-dependencies"),
            (self.watch, "--watch"),
        ];
        let detaching = if self.wait { "--wait" } else { "--detach" };
        if self.detaches()
            && let Some((_, flag)) = attached.iter().find(|(given, _)| *given)
        {
            return Err(
                Error::usage(format!("{detaching} cannot be combined with {flag}"))
                    .hint(format!("leave {detaching} out")),
            );
        }
        if self.remove_orphans && context.is_on("COMPOSE_IGNORE_ORPHANS") {
            return Err(Error::usage(
                "COMPOSE_IGNORE_ORPHANS and --remove-orphans exclude each other",
            )
            .hint("COMPOSE_IGNORE_ORPHANS=0"));
        }
        Ok(())
    }
}

impl Args {
    /// As the command line would give them: for commands that are `up` with other words.
    pub(super) fn of_words(words: &[String]) -> Result<Self> {
        let command = Self::augment_args(clap::Command::new("up").no_binary_name(true));
        command
            .try_get_matches_from(words)
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(Error::usage)
    }
}

/// `--on-conflict`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum OnConflict {
    /// Ask on a terminal, else fail
    Ask,
    /// Stop the holder
    Replace,
    /// Publish on the next free port
    Move,
    /// Fail
    Fail,
}

impl From<OnConflict> for Conflict {
    fn from(word: OnConflict) -> Self {
        match word {
            OnConflict::Ask => Self::Ask,
            OnConflict::Replace => Self::Replace,
            OnConflict::Move => Self::Move,
            OnConflict::Fail => Self::Fail,
        }
    }
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    args.check(context)?;
    let mut context = context.clone();
    context.ui.unattended |= args.yes;
    let context = &context;
    let project = context.load(&args.services, args.no_deps)?;
    let collisions = project::check_ports(&project);
    if !collisions.is_empty() {
        let heading = "two services need the same port";
        return Err(Error {
            diagnostics: collisions,
            ..Error::new(Kind::Invalid, heading)
        });
    }
    if project.services.is_empty() && !context.global.all_resources {
        return Err(Error::failed("no service selected").hint("wharf config --profiles"));
    }
    let mut policy = policy(context, args, &project)?;
    let options = foreground(context, args, &project)?;
    let backends = context.backends()?;
    let wishes = Wishes::of(&args.local, &args.container);
    let ((placement, triggers), alone) = tokio::try_join!(
        Box::pin(placed(context, args, &project, &wishes, &backends)),
        Box::pin(async {
            // The engine answers its greeting while the lock is taken: one turn to connect, one to send.
            yield_now().await;
            yield_now().await;
            locked(context, args, &project, &backends).await
        })
    )?;
    if !context.global.dry_run {
        remember(&backends, &project, &wishes)?;
    }
    let quiet = args.quiet();
    let project = provide(context, &backends, project, &placement, &mut policy, quiet).await?;
    let rounds = Rounds {
        context,
        backends: &backends,
        project: &project,
        placement: &placement,
        policy: once_more(&policy),
        quiet,
    };
    let ((), settled) = tokio::join!(
        async {
            // The supervisor comes up while the plan is made.
            let is_local = placement.services(BackendKind::Process).next().is_some();
            if is_local && !context.global.dry_run && !args.no_start {
                backends.processes.anticipate(&project.name).await;
            }
        },
        with_images(context, &backends, &project, &placement, policy, quiet)
    );
    let settled = settled?;
    context.note_all(&settled.plan);
    let kept = kept(&settled.plan, &settled.observed.instances, &project);
    if context.ui.steps == Steps::Json {
        for instance in &kept {
            let subject = format!("{} {}", instance.backend, instance.name);
            context.ui.object(&already(&subject));
        }
    }
    let lines = kept.iter().filter(|_| context.ui.steps == Steps::Lines);
    context.ui.statuses(lines.map(|instance| {
        let (backend, name) = (instance.backend, &instance.name);
        if instance.status == Status::Restarting {
            return format!(
                " {WARN}!{WARN:#} {backend} {name} ended, and waits to be started again"
            );
        }
        let answers = answers_at(instance);
        format!(" {GOOD}✔{GOOD:#} {backend} {name} is up to date{answers}")
    }));
    if context.global.dry_run {
        if settled.plan.steps.is_empty() {
            context.ui.status("nothing to do: everything is up to date");
        }
        return carry_out(context, &backends, &settled.plan).await.map(drop);
    }
    if args.detaches() || args.no_start {
        let started = async {
            Box::pin(rounds.detached(&settled.plan)).await?;
            let services = &settled.plan.reachable;
            Box::pin(backends.await_reachable(&project.name, services)).await?;
            if args.wait && !args.no_start {
                wait(context, &backends, &project).await?;
            }
            Ok(())
        };
        return Box::pin(within(args.wait_timeout.filter(|_| args.wait), started)).await;
    }
    Box::pin(rounds.in_front(settled, &options, &triggers, alone)).await
}

/// The project's lock. What another command is stopping meanwhile gets no more time than is given here.
async fn locked(
    context: &Context,
    args: &Args,
    project: &Project,
    backends: &Backends,
) -> Result<ProjectLock> {
    let locking = async {
        if args.is_for_some() {
            context.lock_soon(backends, &project.name).await
        } else {
            context.lock(backends, &project.name).await
        }
    };
    if args.timeout.is_none() {
        return locking.await;
    }
    let named = Named::Project(Box::new(project.clone()));
    let ending = Ending {
        timeout: args.timeout,
        ..context.ending(&named, &args.services)
    };
    let locking = hasten::meanwhile(context, backends, &named, &ending, locking);
    locking.await.map(|(lock, _)| lock)
}

/// Where every service is to run, and what is to be watched for.
async fn placed(
    context: &Context,
    args: &Args,
    project: &Project,
    wishes: &Wishes,
    backends: &Backends,
) -> Result<(Placement, Triggers)> {
    let placement = context.place(project, wishes, backends).await?;
    let triggers = match Triggers::read(context, project, &placement, &args.services) {
        Ok(triggers) => triggers,
        Err(error) if args.watch => return Err(error),
        Err(_) => Triggers::default(),
    };
    if args.watch {
        triggers.some()?;
    }
    Ok((placement, triggers))
}

/// Observes and plans; where images are to be built or pulled anew, does that first: whether an instance is
/// out of date is known only when the images are there.
pub(super) async fn with_images(
    context: &Context,
    backends: &Backends,
    project: &Project,
    placement: &Placement,
    mut policy: Policy,
    quiet: Quiet,
) -> Result<Settled> {
    let pending = backends.pending(&project.name);
    policy.given.extend(pending.names().cloned());
    let may_come = pending.is_making()
        && (placement.needs_engine() || backends.containers.answers_soon().await);
    if may_come && !context.global.dry_run {
        backends.await_made(&project.name).await?;
    }
    let mut settled = settle(context, backends, project, placement, &mut policy).await?;
    let diverged = &settled.plan.diverged_volumes;
    if !diverged.is_empty() && !context.global.dry_run && context.ui.can_ask() {
        let names = diverged.join(", ");
        let what = format!(
            "volume {names} was made from another configuration. Make it anew and lose its data?"
        );
        if context.ui.confirm(&what) {
            policy.renew_diverged = true;
            settled = settle(context, backends, project, placement, &mut policy).await?;
        }
    }
    let is_image = |action: &Action| matches!(action, Action::Build { .. } | Action::Pull { .. });
    let renews = |step: &Step| is_image(&step.action) && step.cause != Cause::Missing;
    let due = policy.build || policy.pull || settled.plan.steps.iter().any(renews);
    if context.global.dry_run || !due {
        return Ok(settled);
    }
    let images = settled.plan.only(is_image);
    carry_out_part(context, backends, &images, &settled.plan, quiet).await?;
    policy.images_done = true;
    settle(context, backends, project, placement, &mut policy).await
}

/// How long a container without a healthcheck is looked at: one that ends sooner did not come up.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// `--wait`
async fn wait(context: &Context, backends: &Backends, project: &Project) -> Result<()> {
    tokio::time::sleep(FIRST_LOOK).await;
    let named = Named::Project(Box::new(project.clone()));
    let launching = context.launching(&named, &[]);
    await_up(context, backends, &named, &launching, None).await
}

/// Gives up after so many seconds.
async fn within(seconds: Option<u64>, work: impl Future<Output = Result<()>>) -> Result<()> {
    let Some(seconds) = seconds.filter(|seconds| *seconds > 0) else {
        return work.await;
    };
    tokio::time::timeout(Duration::from_secs(seconds), work)
        .await
        .unwrap_or_else(|_| {
            Err(
                Error::failed(format!("not everything is ready after {seconds} s"))
                    .detail("what was started goes on")
                    .hint("wharf ps"),
            )
        })
}

fn policy(context: &Context, args: &Args, project: &Project) -> Result<Policy> {
    let mut scale = BTreeMap::new();
    for entry in &args.scale {
        let parsed = entry
            .split_once('=')
            .and_then(|(name, count)| Some((name, count.parse().ok()?)));
        let Some((name, count)) = parsed else {
            return Err(
                Error::usage(format!("--scale {entry}: not of the form SERVICE=N"))
                    .hint("--scale web=3"),
            );
        };
        if !project.services.contains_key(name) {
            return Err(
                Error::usage(format!("no such service: {name}")).hint("wharf config --services")
            );
        }
        scale.insert(name.to_owned(), count);
    }
    let on_conflict = if args.force {
        Some(Conflict::Replace)
    } else {
        args.on_conflict.map(Into::into)
    };
    Ok(Policy {
        on_conflict,
        recreate: match (args.force_recreate, args.no_recreate) {
            (true, _) => Recreate::Always("--force-recreate"),
            (_, true) => Recreate::Never,
            // Who asks for new ones wants them now.
            _ if args.renew_anon_volumes => Recreate::Always("--renew-anon-volumes"),
            _ => Recreate::Diverged,
        },
        build: args.build,
        no_build: args.no_build,
        pull: args.pull.as_deref() == Some("always"),
        pull_policy: match args.pull.as_deref() {
            Some("missing") => Some(PullPolicy::Missing),
            Some("never") => Some(PullPolicy::Never),
            _ => None,
        },
        scale,
        timeout: args.timeout,
        recreate_dependencies: args.always_recreate_deps,
        remove_orphans: args.remove_orphans || context.is_on("COMPOSE_REMOVE_ORPHANS"),
        ignore_orphans: context.is_on("COMPOSE_IGNORE_ORPHANS"),
        all_resources: context.global.all_resources,
        renew_diverged: args.yes,
        no_start: args.no_start,
        renew_volumes: args.renew_anon_volumes,
        named: args.services.iter().cloned().collect(),
        ..Policy::default()
    })
}

/// Keeps what the command line says of where services run, for the commands to come.
fn remember(backends: &Backends, project: &Project, wishes: &Wishes) -> Result<()> {
    if wishes.local == Selection::Nobody && wishes.container == Selection::Nobody {
        return Ok(());
    }
    let wishes = with_choices(project, wishes, backends)?;
    let choices = wishes.choices(project);
    if choices != wishes.remembered {
        backends.processes.choose(&project.name, &choices)?;
    }
    Ok(())
}

fn foreground(context: &Context, args: &Args, project: &Project) -> Result<Foreground> {
    for name in args
        .exit_code_from
        .iter()
        .chain(&args.attach)
        .chain(&args.no_attach)
    {
        if !project.services.contains_key(name) {
            return Err(
                Error::usage(format!("no such service: {name}")).hint("wharf config --services")
            );
        }
    }
    let wanted = |name: &String| {
        let service = project.services.get(name);
        !args.no_attach.contains(name)
            && if args.attach.is_empty() {
                // What was not named came along as a dependency.
                args.services.is_empty() || args.attach_dependencies || args.services.contains(name)
            } else {
                args.attach.contains(name)
            }
            && (!args.attach.is_empty()
                || service.is_none_or(|service| service.attach != Some(false)))
    };
    let shown: BTreeSet<String> = project
        .services
        .keys()
        .filter(|name| wanted(name))
        .cloned()
        .collect();
    let attach = (shown.len() < project.services.len()).then_some(shown);
    // As Docker Compose has it: whose output nobody sees is not stayed for.
    let awaited = match &attach {
        Some(shown) if shown.is_empty() => {
            (!args.services.is_empty()).then(|| args.services.iter().cloned().collect())
        }
        shown => shown.clone(),
    };
    Ok(Foreground {
        abort: if args.abort_on_container_failure {
            Abort::OnFailure
        } else if args.abort_on_container_exit || args.exit_code_from.is_some() {
            Abort::OnExit
        } else {
            Abort::Never
        },
        exit_code_from: args.exit_code_from.clone(),
        timeout: args.timeout,
        attach,
        timestamps: args.timestamps,
        no_prefix: args.no_log_prefix,
        no_colour: args.no_color,
        quiet: args.quiet(),
        awaited,
        menu: menu(context, args.menu),
        watch: args.watch,
        handshake: None,
    })
}

/// Whether keys are taken: where somebody sees the output, unless that was switched off.
fn menu(context: &Context, asked: Option<bool>) -> bool {
    std::io::stdout().is_terminal()
        && asked.unwrap_or_else(|| {
            context.env.get("COMPOSE_MENU").is_none() || context.is_on("COMPOSE_MENU")
        })
}

/// Instances that the plan leaves as they are: they run, or will again when their pause is over.
pub(super) fn kept(plan: &Plan, instances: &[Instance], project: &Project) -> Vec<Instance> {
    let running = |instance: &&Instance| {
        matches!(instance.status, Status::Running | Status::Restarting)
            && !instance.one_off
            && project.services.contains_key(&instance.service)
    };
    instances
        .iter()
        .filter(running)
        .filter(|instance| !plan.changes(instance))
        .cloned()
        .collect()
}

fn answers_at(instance: &Instance) -> String {
    instance
        .readiness
        .as_ref()
        .filter(|readiness| readiness.address.port() != 0)
        .map(|readiness| {
            format!(
                ": {NAME}{}{NAME:#}",
                probe::url(&readiness.probe, readiness.address)
            )
        })
        .unwrap_or_default()
}
