//! `wharf up`

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::{Args as _, FromArgMatches as _, ValueEnum};

use crate::cli::carry_out::carry_out;
use crate::cli::context::Context;
use crate::cli::foreground::{self, Foreground, Scene};
use crate::cli::settle::settle;
use crate::error::{Error, Kind, Result};
use crate::plan::Plan;
use crate::plan::placement::{Selection, Wishes};
use crate::plan::policy::{Policy, Recreate};
use crate::plan::step::{Action, Cause, Step, Which};
use crate::probe;
use crate::project;
use crate::project::model::{Conflict, Project, PullPolicy};
use crate::state::{Instance, Status};
use crate::ui::{GOOD, NAME};

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
    /// Print the plan with its causes and do nothing
    #[arg(long)]
    dry_run: bool,
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
    /// Make anonymous volumes anew
    #[arg(short = 'V', long)]
    renew_anon_volumes: bool,
    /// Answer yes to questions: volumes whose configuration changed are made anew, without their data
    #[arg(short, long)]
    yes: bool,
    /// Seconds that instances get to stop
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Wait until the services are ready; implies --detach
    #[arg(long)]
    wait: bool,
    /// Stop everything when an instance ends
    #[arg(long)]
    abort_on_container_exit: bool,
    /// Return this service's exit code; implies --abort-on-container-exit
    #[arg(long, value_name = "SERVICE")]
    exit_code_from: Option<String>,
    /// Show the output of these services only
    #[arg(long, value_name = "SERVICE")]
    attach: Vec<String>,
    /// Do not show the output of these services
    #[arg(long, value_name = "SERVICE")]
    no_attach: Vec<String>,
    /// Show the time of arrival of every line
    #[arg(long)]
    timestamps: bool,
    /// Leave the names in front of the lines out
    #[arg(long)]
    no_log_prefix: bool,
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
    let project = context.load(&args.services, args.no_deps)?;
    let collisions = project::check_ports(&project);
    if !collisions.is_empty() {
        let heading = "two services need the same port";
        return Err(Error {
            diagnostics: collisions,
            ..Error::new(Kind::Invalid, heading)
        });
    }
    if project.services.is_empty() {
        return Err(Error::failed("no service selected").hint("wharf config --profiles"));
    }
    let mut policy = policy(context, args, &project)?;
    let options = foreground(args, &project)?;
    let backends = context.backends()?;
    let placement = context.place(&project, &wishes(args), &backends).await?;
    let alone = context.lock(&backends, &project.name).await?;
    let mut settled = settle(context, &backends, &project, &placement, &mut policy).await?;
    let diverged = &settled.plan.diverged_volumes;
    if !diverged.is_empty() && !args.dry_run && context.ui.can_ask() {
        let names = diverged.join(", ");
        let what = format!(
            "volume {names} was made from another configuration. Make it anew and lose its data?"
        );
        if context.ui.confirm(&what) {
            policy.renew_diverged = true;
            settled = settle(context, &backends, &project, &placement, &mut policy).await?;
        }
    }
    if args.dry_run {
        show(context, &settled.plan);
        return Ok(());
    }
    let is_image = |action: &Action| matches!(action, Action::Build { .. } | Action::Pull { .. });
    let renews = |step: &Step| is_image(&step.action) && step.cause != Cause::Missing;
    if policy.build || policy.pull || settled.plan.steps.iter().any(renews) {
        // Whether an instance is out of date is known only when the images are there.
        let images = settled.plan.only(is_image);
        carry_out(context, &backends, &images).await?;
        policy.images_done = true;
        settled = settle(context, &backends, &project, &placement, &mut policy).await?;
    }
    for note in &settled.plan.notes {
        context.ui.note(note);
    }
    let kept = kept(&settled.plan, &settled.observed.instances, &project);
    for instance in &kept {
        context.ui.status(format!(
            " {GOOD}✔{GOOD:#} {} {} is up to date{}",
            instance.backend,
            instance.name,
            answers_at(instance)
        ));
    }
    if args.detach || args.wait || args.no_start {
        carry_out(context, &backends, &settled.plan).await?;
        return Ok(());
    }
    let plan = &settled.plan;
    let scene = Scene {
        context,
        backends: &backends,
        plan,
        project: &project.name,
        kept: &kept,
    };
    foreground::run(scene, &options, alone).await
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
        timeout: args.timeout.map(Duration::from_secs),
        remove_orphans: args.remove_orphans || switched_on(context, "COMPOSE_REMOVE_ORPHANS"),
        ignore_orphans: switched_on(context, "COMPOSE_IGNORE_ORPHANS"),
        renew_diverged: args.yes,
        no_start: args.no_start,
        renew_volumes: args.renew_anon_volumes,
        named: args.services.iter().cloned().collect(),
        ..Policy::default()
    })
}

/// Whether a variable says yes, as Docker Compose reads it.
fn switched_on(context: &Context, variable: &str) -> bool {
    matches!(
        context.env.get(variable),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True" | "y" | "yes")
    )
}

fn wishes(args: &Args) -> Wishes {
    let selection = |names: &[String]| {
        if names.is_empty() {
            Selection::Nobody
        } else if names.iter().any(|name| name == "*") {
            Selection::Everybody
        } else {
            Selection::Named(names.iter().cloned().collect())
        }
    };
    Wishes {
        local: selection(&args.local),
        container: selection(&args.container),
    }
}

fn foreground(args: &Args, project: &Project) -> Result<Foreground> {
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
            && (args.attach.is_empty() || args.attach.contains(name))
            && (!args.attach.is_empty()
                || service.is_none_or(|service| service.attach != Some(false)))
    };
    let shown: BTreeSet<String> = project
        .services
        .keys()
        .filter(|name| wanted(name))
        .cloned()
        .collect();
    Ok(Foreground {
        abort_on_exit: args.abort_on_container_exit || args.exit_code_from.is_some(),
        exit_code_from: args.exit_code_from.clone(),
        timeout: args.timeout.map(Duration::from_secs),
        attach: (shown.len() < project.services.len()).then_some(shown),
        timestamps: args.timestamps,
        no_prefix: args.no_log_prefix,
        handshake: None,
    })
}

/// `--dry-run`: the plan is data.
fn show(context: &Context, plan: &Plan) {
    for note in &plan.notes {
        context.ui.note(note);
    }
    if plan.steps.is_empty() {
        context.ui.status("nothing to do: everything is up to date");
    }
    for step in &plan.steps {
        context.ui.data(step.to_string());
    }
}

/// Running instances that the plan leaves as they are.
fn kept(plan: &Plan, instances: &[Instance], project: &Project) -> Vec<Instance> {
    let touched = |instance: &Instance| {
        let this = Which::Existing(instance.id.clone());
        let targets = plan.steps.iter().filter_map(|step| step.action.changes());
        targets.into_iter().any(|target| target.which == this)
    };
    let running = |instance: &&Instance| {
        instance.status == Status::Running
            && !instance.one_off
            && project.services.contains_key(&instance.service)
    };
    instances
        .iter()
        .filter(running)
        .filter(|instance| !touched(instance))
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
