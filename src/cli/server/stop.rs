//! `wharf server stop`

use std::time::Duration;

use crate::backend::Backend as _;
use crate::cli::carry_out::carry_out;
use crate::cli::context::Context;
use crate::cli::server::model;
use crate::error::Result;
use crate::plan::down::{self, Ending};
use crate::state::Observed;

/// Stop the servers and all their children
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only the server on this port [default: all servers]
    #[arg(long)]
    port: Option<u16>,
    /// Kill at once
    #[arg(long)]
    force: bool,
    /// Seconds that a server gets to stop
    #[arg(short, long, value_name = "SECONDS", conflicts_with = "force")]
    timeout: Option<u64>,
    /// Print the plan with its causes before carrying it out
    #[arg(long)]
    debug: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let backends = context.backends()?;
    let _alone = context.lock(&backends, model::PROJECT).await?;
    let mut instances = backends.processes.observe(model::PROJECT).await?;
    instances.retain(|instance| args.port.is_none() || model::port_of(instance) == args.port);
    if !instances.iter().any(|instance| instance.status.is_alive()) {
        let at = args
            .port
            .map(|port| format!(" on port {port}"))
            .unwrap_or_default();
        context.ui.status(format!("no server runs{at}"));
    }
    let grace = if args.force { Some(0) } else { args.timeout };
    let ending = Ending {
        timeout: grace.map(Duration::from_secs),
        ..Ending::default()
    };
    let plan = down::down(
        &Observed {
            instances,
            ..Observed::default()
        },
        &ending,
    );
    if args.debug {
        for step in &plan.steps {
            context.ui.status(step.to_string());
        }
    }
    carry_out(context, &backends, &plan).await.map(drop)
}
