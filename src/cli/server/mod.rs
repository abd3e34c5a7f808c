//! `wharf server …`: one WebSocket server without a compose file, the embedded one or any command.
//!
//! A server is a process instance of a project of its own, so it is started, kept, found and stopped by
//! the same code as a service.

mod model;
mod restart;
mod start;
mod status;
mod stop;

use clap::Subcommand;

use crate::cli::context::Context;
use crate::error::Result;

/// Manage one WebSocket server without a compose file
///
/// What servers in the background write is shown by `wharf -p _server logs`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    Start(start::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Status(status::Args),
}

pub(super) async fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::Start(args) => start::run(context, args).await,
        Command::Stop(args) => stop::run(context, args).await,
        Command::Restart(args) => restart::run(context, args).await,
        Command::Status(args) => status::run(context, args).await,
    }
}
