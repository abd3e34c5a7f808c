//! `wharf pause` and `wharf unpause`

use crate::cli::carry_out::carry_out;
use crate::cli::context::Context;
use crate::error::Result;
use crate::plan::Plan;
use crate::plan::down::{self, Ending};
use crate::state::Observed;

/// Freeze services: their processes stay where they are and get no time
#[derive(Debug, clap::Args)]
pub(super) struct PauseArgs {
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Let frozen services go on
#[derive(Debug, clap::Args)]
pub(super) struct UnpauseArgs {
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn pause(context: &Context, args: &PauseArgs) -> Result<()> {
    run(context, &args.services, "pause", down::pause).await
}

pub(super) async fn unpause(context: &Context, args: &UnpauseArgs) -> Result<()> {
    run(context, &args.services, "unpause", down::unpause).await
}

async fn run(
    context: &Context,
    services: &[String],
    what: &str,
    plan: impl FnOnce(&Observed, &Ending) -> Plan,
) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let _alone = context.lock_soon(&backends, named.name()).await?;
    let sight = named.sight(context.ui, &backends, services).await?;
    let (instances, rest) = sight.parts();
    named.check_services(services, &instances)?;
    let observed = Observed {
        instances,
        ..Observed::default()
    };
    let plan = plan(&observed, &context.ending(&named, services));
    if plan.steps.is_empty() {
        context
            .ui
            .status(format!("nothing to {what}: no instance runs"));
        return rest.done();
    }
    carry_out(context, &backends, &plan).await?;
    rest.done()
}
