//! `wharf forward`: the forwarder of one project. Started by wharf itself, as an instance of the project.

use std::path::PathBuf;

use crate::backend::container::Containers;
use crate::backend::process::Dirs;
use crate::cli::context::Context;
use crate::error::Result;
use crate::forward;
use crate::naming;

/// Carry connections between the services of one project (wharf starts this itself)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The project's name
    #[arg(long)]
    project: String,
    /// The project has containers: follow the engine
    #[arg(long)]
    engine: bool,
    /// How relays are reached
    #[arg(long, value_enum, default_value_t = Reach::Socket)]
    reach: Reach,
    /// Where the ledger is [default: as the environment says]
    #[arg(long, requires = "runtime_dir")]
    state_dir: Option<PathBuf>,
    /// Where the socket is [default: as the environment says]
    #[arg(long, requires = "state_dir")]
    runtime_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Reach {
    /// Over a socket that is mounted into them
    Socket,
    /// Through the engine
    Stream,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let dirs = match (&args.state_dir, &args.runtime_dir) {
        (Some(state), Some(runtime)) => Dirs::new(state.clone(), runtime.clone()),
        _ => Dirs::from_env(&context.env)?,
    };
    let containers = args.engine.then(|| Containers::new(&context.env));
    let means = match args.reach {
        Reach::Socket => naming::Reach::Socket,
        Reach::Stream => naming::Reach::Stream,
    };
    Ok(forward::run(&dirs, &args.project, containers, means).await?)
}
