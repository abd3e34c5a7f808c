//! `wharf start`

use crate::cli::carry_out::carry_out;
use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::plan::down;
use crate::state::Observed;

/// Start services that were made before and do not run
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to start [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let _alone = context.lock(&backends, named.name()).await?;
    let instances = named.instances(context.ui, &backends).await?;
    named.check_services(&args.services, &instances)?;
    for name in &args.services {
        if !instances.iter().any(|instance| instance.service == *name) {
            return Err(
                Error::failed(format!("service `{name}` has no instance to start"))
                    .hint(format!("wharf up -d {name}")),
            );
        }
    }
    let services = args.services.iter().cloned().collect();
    let plan = down::start(
        &Observed {
            instances,
            ..Observed::default()
        },
        &services,
    );
    carry_out(context, &backends, &plan).await.map(drop)
}
