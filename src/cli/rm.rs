//! `wharf rm`

use crate::cli::carry_out::carry_out;
use crate::cli::context::Context;
use crate::error::Result;
use crate::plan::Plan;
use crate::plan::down::{self, Ending};
use crate::plan::step::Action;
use crate::state::Observed;

/// Remove instances that do not run
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Remove without asking
    #[arg(short, long)]
    force: bool,
    /// Stop those that run, and remove them too
    #[arg(short, long)]
    stop: bool,
    /// Accepted as by Compose, where it has no effect
    #[arg(short, long, hide = true)]
    all: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    context.declare_named(&named, &backends, &args.services);
    let _alone = context.lock_soon(&backends, named.name()).await?;
    let sight = named
        .sight_of_all(context.ui, &backends, &args.services)
        .await?;
    let (instances, rest) = sight.parts();
    named.check_services(&args.services, &instances)?;
    let observed = Observed {
        instances,
        own: backends.own(named.name()).await?,
        ..Observed::default()
    };
    let ending = Ending {
        anonymous_volumes: args.volumes,
        ..context.ending(&named, &args.services)
    };
    let plan = down::remove(&observed, &ending, args.stop);
    if plan.steps.is_empty() {
        context.ui.status("nothing to remove: no stopped instances");
        return rest.done();
    }
    let what = format!("Going to remove {}", removed(&plan).join(", "));
    if context.global.dry_run {
        // The plan says it.
    } else if args.force {
        context.ui.data(what);
    } else if !context.ui.confirm(&what) {
        return Ok(());
    }
    carry_out(context, &backends, &plan).await?;
    rest.done()
}

fn removed(plan: &Plan) -> Vec<&str> {
    // wharf's own instances are no business of the user's.
    let steps = plan.steps.iter().filter(|step| !step.action.is_own());
    steps
        .filter_map(|step| {
            let Action::Remove { instance, .. } = &step.action else {
                return None;
            };
            Some(instance.name.as_str())
        })
        .collect()
}
