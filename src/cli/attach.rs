//! `wharf attach`

use std::io::IsTerminal as _;

use crate::backend::container::Given;
use crate::backend::router::Backends;
use crate::backend::streams::{Program, Size};
use crate::cli::context::Context;
use crate::cli::exec::{check_terminal, recipient, running};
use crate::cli::replica::replica;
use crate::cli::session::{self, End, OnSignal, Session};
use crate::error::{Error, Result};
use crate::state::{BackendKind, Instance, Status};

/// Connect this terminal to a service's main program: its output, its input where it has one, and signals
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The keys that detach [default: those of the Docker configuration, else ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
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
    /// Do not send standard input
    #[arg(long)]
    no_stdin: bool,
    /// Send the program the signals that this command gets
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let services = std::slice::from_ref(&args.service);
    let sight = named.sight(context.ui, &backends, services).await?;
    let instances = sight.instances;
    let instance = running(&named, &instances, &args.service, args.index)?;
    match instance.backend {
        BackendKind::Container => to_container(&backends, instance, args).await,
        BackendKind::Process => to_process(&backends, instance, args).await,
    }
}

async fn to_container(backends: &Backends, instance: &Instance, args: &Args) -> Result<()> {
    let containers = &backends.containers;
    let (id, name) = (&instance.id.0, &instance.name);
    match instance.status {
        Status::Paused => {
            return Err(Error::failed(format!("{name} is paused"))
                .hint(format!("wharf unpause {}", args.service)));
        }
        Status::Restarting => {
            return Err(Error::failed(format!("{name} is being restarted"))
                .hint(format!("wharf logs {}", args.service)));
        }
        Status::Created
        | Status::Running
        | Status::Removing
        | Status::Exited { .. }
        | Status::Dead => {}
    }
    let has = containers.given(id, name).await?;
    let given = Given {
        tty: has.tty,
        stdin: has.stdin && !args.no_stdin,
    };
    if given.tty && !args.no_stdin {
        check_terminal()?;
    }
    let configured = containers.detach_keys();
    let keys = args.detach_keys.as_deref().or(configured.as_deref());
    let detach = session::keys(keys)?;
    let ending = containers.ending(id, name, "not-running").await?;
    let streams = containers.attach(id, name, given, keys).await?;
    let program = Program::Main(id.clone());
    if given.tty
        && std::io::stdout().is_terminal()
        && let Some(size) = session::size()
    {
        // A program on a terminal redraws its screen when the size changes, and only then.
        let other = Size {
            rows: size.rows.saturating_add(1),
            ..size
        };
        drop(containers.resize(&program, other).await);
    }
    let recipient = recipient(instance);
    let end = session::carry_on(
        backends,
        Session {
            streams,
            terminal: given.tty.then_some(program),
            stdin: given.stdin,
            keys: Some(detach),
            on_signal: if args.sig_proxy && !given.tty {
                OnSignal::PassOn(backends, &recipient)
            } else {
                OnSignal::Leave
            },
        },
    )
    .await?;
    match end {
        End::Output => session::result(ending.code().await?),
        End::Broken => Err(session::broken()),
        // As Compose: the program did not end, so it did not succeed.
        End::Detached => Err(Error::service(1)),
    }
}

/// The output of a process from now on, until it ends; its input, if the service has `stdin_open`.
async fn to_process(backends: &Backends, instance: &Instance, args: &Args) -> Result<()> {
    let (attachment, feed) = backends
        .processes
        .attach(&instance.project, &instance.name)?;
    let stdin = attachment.stdin && !args.no_stdin;
    if attachment.tty && stdin {
        check_terminal()?;
    }
    let configured = backends.containers.detach_keys();
    let keys = session::keys(args.detach_keys.as_deref().or(configured.as_deref()))?;
    let recipient = recipient(instance);
    let session = Session {
        streams: attachment.streams,
        terminal: attachment.terminal.map(Program::Pty),
        stdin,
        keys: Some(keys),
        on_signal: if args.sig_proxy && !attachment.tty {
            OnSignal::PassOn(backends, &recipient)
        } else {
            OnSignal::Leave
        },
    };
    let mut carried = None;
    let ended = async {
        carried = Some(Box::pin(feed.carry()).await);
    };
    match session::carry_on_until(backends, session, ended).await? {
        End::Output => session::result(carried.transpose()?.unwrap_or(0)),
        End::Broken => Err(session::broken()),
        // As with a container.
        End::Detached => Err(Error::service(1)),
    }
}
