//! `wharf supervise`: the detached supervisor of one project. Started by wharf itself.

use std::path::PathBuf;

use crate::backend::process::Dirs;
use crate::cli::context::Context;
use crate::error::Result;
use crate::supervise::daemon;

/// Keep the processes of one project (wharf starts this itself)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The project's name
    #[arg(long)]
    project: String,
    /// Where the ledger is
    #[arg(long)]
    state_dir: PathBuf,
    /// Where the socket is
    #[arg(long)]
    runtime_dir: PathBuf,
}

pub(super) fn run(_: &Context, args: &Args) -> Result<()> {
    let dirs = Dirs::new(args.state_dir.clone(), args.runtime_dir.clone());
    Ok(daemon::run(&dirs, &args.project)?)
}
