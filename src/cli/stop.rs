//! `wharf stop`

use std::time::Duration;

use crate::cli::carry_out::carry_out;
use crate::cli::context::Context;
use crate::cli::grace::grace;
use crate::cli::{hasten, provide};
use crate::error::Result;
use crate::plan::down::{self, Ending};
use crate::plan::step::Provision;
use crate::state::Observed;

/// Stop the services without removing them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to stop [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Seconds that instances get to stop; -1: as many as they need
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = grace)]
    timeout: Option<Duration>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    context.declare_named(&named, &backends, &args.services);
    let ending = Ending {
        timeout: args.timeout,
        ..context.ending(&named, &args.services)
    };
    let (_alone, shortened) = hasten::lock(context, &backends, &named, &ending).await?;
    let sight = named
        .sight_of_all(context.ui, &backends, &args.services)
        .await?;
    let (instances, rest) = sight.parts();
    named.check_services(&args.services, &instances)?;
    let ending = Ending {
        providers: provide::ending(context, &backends, &named, &args.services, Provision::Stop)
            .await,
        ..ending
    };
    let plan = down::stop(
        &Observed {
            instances,
            own: backends.own(named.name()).await?,
            ..Observed::default()
        },
        &ending,
    );
    if plan.steps.is_empty() {
        context.ui.status(if shortened.is_empty() {
            "nothing to stop".to_owned()
        } else {
            let names = Vec::from_iter(shortened).join(", ");
            format!(
                "another command was stopping {names}, which got no more time than asked for here"
            )
        });
        return rest.done();
    }
    carry_out(context, &backends, &plan).await?;
    rest.done()
}
