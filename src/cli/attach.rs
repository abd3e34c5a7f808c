//! `wharf attach`

use std::io::IsTerminal as _;

use crate::backend::container::Given;
use crate::backend::router::Backends;
use crate::backend::streams::{Program, Size};
use crate::backend::{Backend as _, LogOptions};
use crate::cli::context::Context;
use crate::cli::exec::{check_terminal, recipient, running};
use crate::cli::session::{self, End, OnSignal, Session};
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::state::{BackendKind, Instance, Status};
use crate::ui::terminal::Screen;

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
        hide_default_value = true
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
    let instances = named.instances(context.ui, &backends).await?;
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

/// The output of a process from now on, until it ends.
async fn to_process(backends: &Backends, instance: &Instance, args: &Args) -> Result<()> {
    let recipient = recipient(instance);
    let on_signal = if args.sig_proxy {
        OnSignal::PassOn(backends, &recipient)
    } else {
        OnSignal::Leave
    };
    let options = LogOptions {
        follow: true,
        tail: Some(0),
        ..LogOptions::default()
    };
    let (events, mut receiver) = Events::channel();
    let screen = Screen::open().map_err(Error::failed)?;
    let mut code = 0;
    let followed = {
        let instances = [instance.clone()];
        let mut following = std::pin::pin!(backends.follow(&instances, &options, &events));
        let mut heard = std::pin::pin!(session::listen(on_signal));
        loop {
            tokio::select! {
                Some(event) = receiver.recv() => if !show(&screen, event, &mut code).await {
                    break Err(session::broken());
                },
                done = &mut following => break done.map_err(Error::from),
                error = &mut heard => break Err(error),
            }
        }
    };
    followed?;
    while let Ok(event) = receiver.try_recv() {
        show(&screen, event, &mut code).await;
    }
    drop(screen.close().await);
    session::result(code)
}

/// Shows a line as the process wrote it, and notes its end; false when nobody reads.
async fn show(screen: &Screen, event: Event, code: &mut i32) -> bool {
    match event {
        Event::Log {
            stream, mut line, ..
        } => {
            line.push(b'\n');
            screen.write(stream, line).await
        }
        Event::Exited { code: ended, .. } => {
            *code = ended;
            true
        }
        Event::StepStarted { .. }
        | Event::StepDone { .. }
        | Event::StepFailed { .. }
        | Event::Progress { .. }
        | Event::Note(_)
        | Event::Warning(_)
        | Event::Ready { .. } => true,
    }
}
