//! `wharf relay`: what runs in the container that has the names of a local service. Started by wharf itself.

use std::path::PathBuf;

use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::relay;

/// Hold the names of a service that runs as a process (wharf starts this itself)
#[derive(Debug, clap::Args)]
#[group(required = true)]
pub(super) struct Args {
    /// Hand sockets to the forwarder that listens here
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Speak with the forwarder over standard input and output
    #[arg(long, conflicts_with = "socket")]
    stream: bool,
    /// Only wait: the forwarder runs commands beside this one
    #[arg(long, conflicts_with_all = ["socket", "stream"])]
    idle: bool,
}

pub(super) fn run(_: &Context, args: &Args) -> Result<()> {
    let outcome = match &args.socket {
        Some(path) => relay::serve(path),
        None if args.stream => relay::serve_stream(),
        None => relay::idle(),
    };
    outcome.map_err(Error::failed)
}
