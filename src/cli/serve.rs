//! `wharf serve`: the embedded WebSocket server, in the foreground.

use std::net::IpAddr;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::backend::process::run::RUN_ID;
use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::server::{self, Options, ServerError};
use crate::state::ProbeKind;
use crate::ui::NAME;

/// Run the embedded WebSocket server: JSON-RPC 2.0 on /ws, status on /health and /healthz
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,
    /// Port to listen on; 0 takes any free one
    #[arg(long, env = "PORT", default_value_t = 8003)]
    port: u16,
    /// Name that /health shows
    #[arg(
        long,
        env = "WHARF_SERVICE",
        default_value = "wharf",
        value_name = "NAME"
    )]
    service: String,
    /// Command that `execute` may run; may be given several times
    #[arg(long, value_name = "COMMAND")]
    allow: Vec<String>,
    /// Browser origin that may connect besides loopback and this host; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Most WebSocket connections at once
    #[arg(long, default_value_t = 100, value_name = "N")]
    max_sessions: u32,
    /// Seconds that connections get to close when the server stops
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    drain: u64,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let options = Options {
        host: args.host,
        port: args.port,
        service: args.service.clone(),
        max_sessions: args.max_sessions,
        allow: args.allow.clone(),
        allow_origin: args.allow_origin.clone(),
        drain: Duration::from_secs(args.drain),
        path: context.env.get("PATH").unwrap_or_default().to_owned(),
        ..Options::default()
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::failed)?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let listening = |address| {
        let url = crate::probe::url(
            &ProbeKind::WebSocket {
                path: "/ws".to_owned(),
            },
            address,
        );
        context
            .ui
            .status(format!("listening on {NAME}{url}{NAME:#}"));
    };
    // As a service, its port is `wharf up`'s business: a server in its place would be no part of the project.
    let is_service = context.env.get(RUN_ID).is_some();
    server::run(options, listening, shutdown)
        .await
        .map_err(|error| match &error {
            ServerError::Taken { address } if is_service => {
                let hint = format!("wharf who {}", address.port());
                Error::failed(error).hint(hint)
            }
            ServerError::Taken { address } => {
                let hint = format!("wharf server start --port {} --force", address.port());
                Error::failed(error).hint(hint)
            }
            ServerError::Listen { .. } => Error::failed(error),
            ServerError::Allow { .. } | ServerError::Origin { .. } | ServerError::NoSessions => {
                Error::usage(error)
            }
        })
}
