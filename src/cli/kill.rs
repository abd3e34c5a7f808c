//! `wharf kill`

use crate::cli::carry_out::carry_out;
use crate::cli::context::Context;
use crate::error::Result;
use crate::plan::down::{self, Ending};
use crate::state::Observed;

/// Send a signal to services, by default the one that ends them at once
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// The signal, by name or number
    #[arg(
        short,
        long,
        value_name = "SIGNAL",
        default_value = "SIGKILL",
        allow_negative_numbers = true
    )]
    signal: String,
    /// Instances of services that are no longer in the compose file too
    #[arg(long)]
    remove_orphans: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    // Not in turn: it is for what does not come to an end, which may be what another command waits for. A signal is
    // one effect on one instance, and makes and removes nothing.
    let sight = named
        .sight_of_all(context.ui, &backends, &args.services)
        .await?;
    let (instances, rest) = sight.parts();
    named.check_services(&args.services, &instances)?;
    let observed = Observed {
        instances,
        ..Observed::default()
    };
    let ending = Ending {
        remove_orphans: args.remove_orphans,
        leave_one_offs: false,
        ..context.ending(&named, &args.services)
    };
    let plan = down::kill(&observed, &ending, &args.signal);
    if plan.steps.is_empty() {
        context.ui.status("nothing to kill: no instance runs");
        return rest.done();
    }
    carry_out(context, &backends, &plan).await?;
    rest.done()
}
