//! `wharf exec`

use std::io::IsTerminal as _;

use crate::backend::BackendError;
use crate::backend::container::Exec;
use crate::backend::process::{Aside, Face};
use crate::backend::router::Backends;
use crate::backend::streams::Program;
use crate::cli::context::{Context, Named};
use crate::cli::replica::replica;
use crate::cli::session::{self, End, OnSignal, Recipient, Session};
use crate::error::{Error, Result};
use crate::state::{BackendKind, Instance};
use crate::ui::report;

/// Run a command in a service that runs: in its container, or in its process's environment and directory
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Do not wait for the command and show nothing of it
    #[arg(short, long)]
    detach: bool,
    /// Set a variable for the command; without a value, as it is set here
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Which replica, where there are several
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true,
        value_parser = replica
    )]
    index: u32,
    /// No terminal for the command [default: one if standard output is one]
    #[arg(short = 'T', long = "no-tty", alias = "no-TTY")]
    no_tty: bool,
    /// Accepted as Compose accepts it; the command has a terminal unless -T says otherwise
    #[arg(short, long, hide = true)]
    tty: bool,
    /// Send standard input to the command
    #[arg(short, long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    interactive: bool,
    /// All privileges for the command
    #[arg(long)]
    privileged: bool,
    /// The user to run it as
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The directory to run it in
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The service, the command and its arguments
    #[arg(value_names = ["SERVICE", "COMMAND"], required = true, num_args = 2.., trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let Some((service, command)) = args
        .words
        .split_first()
        .filter(|(_, rest)| !rest.is_empty())
    else {
        return Err(Error::usage("exec needs a service and a command")
            .hint("wharf exec SERVICE COMMAND [ARGS...]"));
    };
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let services = std::slice::from_ref(service);
    let sight = named.sight(context.ui, &backends, services).await?;
    let instance = running(&named, &sight.instances, service, args.index)?;
    let environment = variables(context, &args.env);
    let tty = !args.no_tty && std::io::stdout().is_terminal();
    let stdin = args.interactive;
    if tty && stdin && !args.detach {
        check_terminal()?;
    }
    match instance.backend {
        BackendKind::Container => {
            let exec = Exec {
                command: command.to_vec(),
                environment,
                user: args.user.clone(),
                working_dir: args.workdir.clone(),
                privileged: args.privileged,
                tty,
                stdin: stdin && !args.detach,
                detach_keys: backends.containers.detach_keys(),
            };
            in_container(&backends, instance, &exec, args.detach).await
        }
        BackendKind::Process => {
            if args.privileged {
                context.ui.note(
                    "--privileged means nothing for a process: it has the privileges of its user",
                );
            }
            let aside = Aside {
                command: command.to_vec(),
                environment,
                user: args.user.clone(),
                working_dir: args.workdir.clone(),
            };
            let (processes, project, name) =
                (&backends.processes, &instance.project, &instance.name);
            processes.catch_up(project, name).await;
            if args.detach {
                return Ok(processes.exec_detached(project, name, &aside)?);
            }
            let face = face(context, tty, stdin);
            let started = processes
                .exec(project, name, &aside, &face)
                .map_err(unstarted)?;
            session::result(session::foreground(&backends, started).await?)
        }
    }
}

async fn in_container(
    backends: &Backends,
    instance: &Instance,
    exec: &Exec,
    detach: bool,
) -> Result<()> {
    let containers = &backends.containers;
    let (id, name) = (&instance.id.0, &instance.name);
    let keys = session::keys(exec.detach_keys.as_deref())?;
    if detach {
        return Ok(containers.exec_detached(id, name, exec).await?);
    }
    let executed = containers.exec(id, name, exec, session::size()).await?;
    let end = session::carry_on(
        backends,
        Session {
            streams: executed.streams,
            terminal: exec.tty.then(|| Program::Exec(executed.id.clone())),
            stdin: exec.stdin,
            keys: Some(keys),
            on_signal: OnSignal::Leave,
        },
    )
    .await?;
    match end {
        End::Output => session::result(containers.exec_code(&executed.id, name).await?),
        End::Broken => Err(session::broken()),
        // As Compose: the command did not end, so it did not succeed.
        End::Detached => Err(Error::service(1)),
    }
}

/// What a process in the foreground gets of the user's terminal.
pub(super) fn face(context: &Context, tty: bool, stdin: bool) -> Face {
    Face {
        tty,
        stdin,
        term: context.env.get("TERM").map(str::to_owned),
        size: session::size(),
    }
}

/// A command that cannot be run has the shell's codes: 127 where there is none, 126 where it is no program.
pub(super) fn unstarted(error: BackendError) -> Error {
    let code = if let BackendError::Command { source, .. } = &error {
        let missing = source.kind() == std::io::ErrorKind::NotFound;
        Some(if missing { 127 } else { 126 })
    } else {
        None
    };
    let error = Error::from(error);
    match code {
        Some(code) => {
            report::error(&error);
            Error::service(code)
        }
        None => error,
    }
}

/// A program that is to have a terminal gets the user's.
pub(super) fn check_terminal() -> Result<()> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Error::failed("standard input is not a terminal").hint("-T runs the command without one"))
}

/// `-e`: a name without a value has the one it has here; one that is not set here is left out.
pub(super) fn variables(context: &Context, given: &[String]) -> Vec<String> {
    given
        .iter()
        .filter_map(|entry| {
            if entry.contains('=') {
                return Some(entry.clone());
            }
            let value = context.env.variables.get(entry)?;
            Some(format!("{entry}={value}"))
        })
        .collect()
}

/// The instance of a service to talk to: a replica before a one-off, the lowest number first.
///
/// # Errors
/// There is no such service, or none (or not that one) of its instances runs.
pub(super) fn running<'a>(
    named: &Named,
    instances: &'a [Instance],
    service: &str,
    index: u32,
) -> Result<&'a Instance> {
    named.check_services(&[service.to_owned()], instances)?;
    let mut candidates: Vec<&Instance> = instances
        .iter()
        .filter(|instance| instance.service == service && instance.status.is_alive())
        .filter(|instance| index == 0 || (instance.number == index && !instance.one_off))
        .collect();
    candidates.sort_by_key(|instance| (instance.one_off, instance.number));
    candidates.into_iter().next().ok_or_else(|| {
        if index == 0 {
            Error::failed(format!("service `{service}` is not running"))
                .hint(format!("wharf up -d {service}"))
        } else {
            Error::failed(format!(
                "service `{service}` is not running replica {index}"
            ))
            .hint(format!("wharf ps {service}"))
        }
    })
}

/// Who gets the signals meant for an instance.
pub(super) fn recipient(instance: &Instance) -> Recipient {
    match instance.backend {
        BackendKind::Container => Recipient::Container {
            id: instance.id.0.clone(),
            name: instance.name.clone(),
        },
        BackendKind::Process => Recipient::Instance {
            project: instance.project.clone(),
            name: instance.name.clone(),
        },
    }
}
