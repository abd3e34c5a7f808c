//! `wharf server restart`

use std::time::Duration;

use crate::backend::Backend as _;
use crate::cli::carry_out::carry_out;
use crate::cli::context::Context;
use crate::cli::server::model;
use crate::error::{Error, Result};
use crate::plan::launch::{self, Launching};
use crate::state::Observed;

/// Stop the servers and start them again as they were
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only the server on this port [default: all servers]
    #[arg(long)]
    port: Option<u16>,
    /// Kill at once instead of asking the server to stop
    #[arg(long)]
    force: bool,
    /// Seconds that a server gets to stop
    #[arg(short, long, value_name = "SECONDS", conflicts_with = "force")]
    timeout: Option<u64>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let backends = context.backends()?;
    let _alone = context.lock(&backends, model::PROJECT).await?;
    let mut instances = backends.processes.observe(model::PROJECT).await?;
    instances.retain(|instance| args.port.is_none() || model::port_of(instance) == args.port);
    if instances.is_empty() {
        let port = args
            .port
            .map(|port| format!(" --port {port}"))
            .unwrap_or_default();
        return Err(Error::failed("there is no server to restart")
            .hint(format!("wharf server start --background{port}")));
    }
    let grace = if args.force { Some(0) } else { args.timeout };
    let observed = Observed {
        instances,
        ..Observed::default()
    };
    let launching = Launching {
        timeout: grace.map(Duration::from_secs),
        ..Launching::default()
    };
    let plan = launch::restart(&observed, &launching);
    carry_out(context, &backends, &plan).await.map(drop)
}
