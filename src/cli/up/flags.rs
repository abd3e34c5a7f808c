//! The flags of `wharf up`, and what they ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args as _, FromArgMatches as _, ValueEnum};

use crate::cli::carry_out::Quiet;
use crate::cli::context::Context;
use crate::cli::foreground::{Abort, Foreground};
use crate::cli::grace::{grace, patience};
use crate::error::{Error, Result};
use crate::plan::policy::{Policy, Recreate};
use crate::project::model::{Condition, Conflict, Project, PullPolicy};

/// Create and start the services, after resolving conflicts about their ports
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Services to start, with what they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    pub(super) services: Vec<String>,
    /// Return when the services are ready and leave them running
    #[arg(short, long)]
    detach: bool,
    /// Run services as local processes: these (comma-separated), or without a value all that can; kept for the
    /// project until `--container` says otherwise
    #[arg(long, value_name = "SERVICE,...", num_args = 0..=1, default_missing_value = "*", value_delimiter = ',', value_parser = placed_name)]
    pub(super) local: Vec<String>,
    /// Run services as containers: these (comma-separated), or without a value all that can; kept in the same way
    #[arg(long, value_name = "SERVICE,...", num_args = 0..=1, default_missing_value = "*", value_delimiter = ',', value_parser = placed_name)]
    pub(super) container: Vec<String>,
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
    pub(super) no_deps: bool,
    /// Make instances and do not start them
    #[arg(long)]
    pub(super) no_start: bool,
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
    pub(super) yes: bool,
    /// Seconds that instances get to stop; -1: as many as they need
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = grace)]
    pub(super) timeout: Option<Duration>,
    /// Wait until the services run, or are healthy where they have a healthcheck; implies --detach
    #[arg(long)]
    pub(super) wait: bool,
    /// Seconds after which --wait gives up
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = patience)]
    pub(super) wait_timeout: Option<Duration>,
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
    pub(super) watch: bool,
    /// Take keys while attached: d detaches, w watches [default: on a terminal, unless `COMPOSE_MENU=0`]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    menu: Option<bool>,
}

impl Args {
    /// Whether the command returns and leaves the services running.
    pub(super) fn detaches(&self) -> bool {
        self.detach || self.wait
    }

    /// Whether it is not for all that another `up` of the project is at: it does not wait for what that one waits for.
    pub(super) fn is_for_some(&self) -> bool {
        !self.services.is_empty() || self.no_start
    }

    /// Nobody's where the name is empty, as in Docker Compose: `--exit-code-from "$UNSET"`.
    fn exit_code_from(&self) -> Option<&String> {
        let name = self.exit_code_from.as_ref();
        name.filter(|name| !name.is_empty())
    }

    pub(super) fn quiet(&self) -> Quiet {
        Quiet {
            builds: self.quiet_build,
            pulls: self.quiet_pull,
        }
    }

    /// What the parser cannot check by itself.
    pub(super) fn check(&self, context: &Context) -> Result<()> {
        let attached = [
            (self.abort_on_container_exit, "--abort-on-container-exit"),
            (self.exit_code_from().is_some(), "--exit-code-from"),
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

/// Reads one of the names of `--local` and `--container`.
pub(in crate::cli) fn placed_name(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err(
            "the name of a service is missing (without `=` and value, all that can are meant)"
                .to_owned(),
        ),
        name => Ok(name.to_owned()),
    }
}

impl Args {
    /// Says where a place was chosen for a service that does not take part. A name after `--local` is its value: who
    /// writes `--local api web` may mean both.
    pub(super) fn check_placed(&self, context: &Context, project: &Project) -> Result<()> {
        for (option, names) in [("--local", &self.local), ("--container", &self.container)] {
            let idle = |name: &&String| project.disabled.contains(name);
            let Some(first) = names.iter().find(idle) else {
                continue;
            };
            if self.services.is_empty() {
                context.ui.note(format!(
                    "{option}: `{first}` is not started, since none of its profiles is enabled"
                ));
                continue;
            }
            let (named, chosen) = (self.services.join(" "), names.join(","));
            let mut both = names.clone();
            both.extend(
                self.services
                    .iter()
                    .filter(|name| !names.contains(name))
                    .cloned(),
            );
            return Err(Error::usage(format!(
                "{option} is for `{first}`, which is not started: only `{named}` was asked for"
            ))
            .hint(format!(
                "wharf up {option}={} {}",
                both.join(","),
                both.join(" ")
            ))
            .hint(format!("wharf up {option}={chosen}")));
        }
        Ok(())
    }

    /// As the command line would give them: for commands that are `up` with other words.
    pub(in crate::cli) fn of_words(words: &[String]) -> Result<Self> {
        let command = Self::augment_args(clap::Command::new("up").no_binary_name(true));
        command
            .try_get_matches_from(words)
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(Error::usage)
    }
}

/// `--on-conflict`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum OnConflict {
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

pub(super) fn policy(context: &Context, args: &Args, project: &Project) -> Result<Policy> {
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

pub(super) fn foreground(context: &Context, args: &Args, project: &Project) -> Result<Foreground> {
    // What is not there has no output anyway, so `--no-attach` may name it: a service whose profile is off, say.
    for name in args.exit_code_from().into_iter().chain(&args.attach) {
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
    let names = || project.services.keys();
    let mut shown: BTreeSet<String> = names().filter(|name| wanted(name)).cloned().collect();
    if shown.is_empty() && args.no_attach.is_empty() {
        // `attach: false` is for what runs beside others: who is alone is shown, as in Docker Compose.
        let is_named = |name: &&String| args.services.is_empty() || args.services.contains(name);
        shown = names().filter(is_named).cloned().collect();
    }
    let attach = (shown.len() < project.services.len()).then_some(shown);
    let named: Option<BTreeSet<String>> =
        (!args.services.is_empty()).then(|| args.services.iter().cloned().collect());
    // As Docker Compose has it: what was named, or else whose output is seen, if any is.
    let awaited = match (&named, &attach) {
        (None, Some(shown)) if shown.is_empty() => None,
        (None, shown) => shown.clone(),
        (named, _) => named.clone(),
    };
    let services = project.services.values();
    let dependencies = services.flat_map(|service| &service.depends_on);
    let jobs = dependencies.filter(|(_, it)| it.condition == Condition::CompletedSuccessfully);
    Ok(Foreground {
        abort: if args.abort_on_container_failure {
            Abort::OnFailure
        } else if args.abort_on_container_exit || args.exit_code_from().is_some() {
            Abort::OnExit
        } else {
            Abort::Never
        },
        exit_code_from: args.exit_code_from().cloned(),
        timeout: args.timeout,
        attach,
        timestamps: args.timestamps,
        no_prefix: args.no_log_prefix,
        no_colour: args.no_color,
        quiet: args.quiet(),
        awaited,
        named,
        members: names().cloned().collect(),
        jobs: jobs.map(|(name, _)| name.clone()).collect(),
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
