//! `wharf restart`

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cli::again::{Round, in_rounds};
use crate::cli::carry_out::carry_out;
use crate::cli::context::Context;
use crate::cli::grace::grace;
use crate::cli::hasten;
use crate::cli::start::held_ports;
use crate::error::Result;
use crate::plan::down::Ending;
use crate::plan::launch::{self, Launching};
use crate::plan::step::{Action, Step};
use crate::state::{Instance, InstanceId, Observed};

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
    let launching = Launching {
        timeout: args.timeout,
        no_deps: args.no_deps,
        ..context.launching(&named, &args.services)
    };
    let mut before = BTreeMap::new();
    let rest = in_rounds(context, async |round| {
        let sight = named.sight(context.ui, &backends, &args.services).await?;
        let (instances, rest) = sight.parts();
        let mut observed = Observed {
            instances,
            own: backends.own(named.name()).await?,
            ..Observed::default()
        };
        let plan = if round == Round::AfterOthers {
            // All had been stopped before anything was waited for.
            launch::rest_of_restart(&observed, &launching)
        } else {
            if round == Round::First {
                named.check_services(&args.services, &observed.instances)?;
                let runs = observed.instances.iter().map(run_of);
                before = runs.map(|(id, began)| (id.clone(), began)).collect();
            } else {
                // None of them twice.
                let is_same = |instance: &Instance| {
                    let (id, began) = run_of(instance);
                    before.get(id) == Some(&began)
                };
                let instances = &mut observed.instances;
                instances.retain(|instance| !instance.status.is_alive() || is_same(instance));
            }
            let plan = launch::restart(&observed, &launching);
            context.note_all(&plan);
            if plan.steps.is_empty() && round == Round::First {
                context.ui.status("nothing to restart");
            }
            plan
        };
        if !plan.steps.is_empty() {
            let held = held_ports(&backends, named.name(), &plan, &observed).await?;
            let stops = |step: &Step| matches!(step.action, Action::Stop { .. });
            // What runs is restarted all the same, as with containers.
            if held.is_none() || plan.steps.iter().any(stops) {
                carry_out(context, &backends, &plan).await?;
            }
            if let Some(report) = held {
                return Err(report);
            }
        }
        Ok(rest)
    })
    .await?;
    rest.done()
}

/// What tells a run of an instance from the next.
fn run_of(instance: &Instance) -> (&InstanceId, Option<i64>) {
    (&instance.id, instance.started)
}
