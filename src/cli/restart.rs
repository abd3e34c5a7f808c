//! `wharf restart`

use std::time::Duration;

use crate::cli::again::{AGAIN, leads_further};
use crate::cli::carry_out::carry_out;
use crate::cli::context::Context;
use crate::cli::grace::grace;
use crate::cli::hasten;
use crate::error::Result;
use crate::plan::down::Ending;
use crate::plan::launch::{self, Launching};
use crate::state::Observed;

/// Stop services and start them again as they are
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to restart, with those that depend on them with `restart: true` [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Do not restart what depends on the services
    #[arg(long)]
    no_deps: bool,
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
    let (_alone, _) = hasten::lock(context, &backends, &named, &ending).await?;
    let sight = named.sight(context.ui, &backends, &args.services).await?;
    let (instances, rest) = sight.parts();
    named.check_services(&args.services, &instances)?;
    let observed = Observed {
        instances,
        own: backends.own(named.name()).await?,
        ..Observed::default()
    };
    let launching = Launching {
        timeout: args.timeout,
        no_deps: args.no_deps,
        ..context.launching(&named, &args.services)
    };
    let plan = launch::restart(&observed, &launching);
    context.note_all(&plan);
    if plan.steps.is_empty() {
        context.ui.status("nothing to restart");
        return rest.done();
    }
    let mut done = carry_out(context, &backends, &plan).await;
    for _ in 0..AGAIN {
        if !done.as_ref().is_err_and(leads_further) {
            break;
        }
        // All had been stopped before anything was waited for, and others have started a part of it.
        let (instances, _) = named
            .sight(context.ui, &backends, &args.services)
            .await?
            .parts();
        let observed = Observed {
            instances,
            own: backends.own(named.name()).await?,
            ..Observed::default()
        };
        let plan = launch::rest_of_restart(&observed, &launching);
        done = carry_out(context, &backends, &plan).await;
    }
    done?;
    rest.done()
}
