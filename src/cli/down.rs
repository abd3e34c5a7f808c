//! `wharf down`

use std::time::Duration;

use crate::backend::container::Names;
use crate::cli::carry_out::carry_out;
use crate::cli::context::{Context, Named};
use crate::error::Result;
use crate::plan::down::{self, Ending};
use crate::state::{BackendKind, Observed};

/// Stop and remove the services, their networks and what else `up` made
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to end [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Remove volumes too: named ones of the project and anonymous ones
    #[arg(short, long)]
    volumes: bool,
    /// Remove instances of services that are no longer in the compose file
    #[arg(long)]
    remove_orphans: bool,
    /// Seconds that instances get to stop
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let _alone = context.lock(&backends, named.name()).await?;
    let instances = named.instances(context.ui, &backends).await?;
    named.check_services(&args.services, &instances)?;
    let mut observed = Observed {
        instances,
        ..Observed::default()
    };
    let remove_orphans = args.remove_orphans || context.is_on("COMPOSE_REMOVE_ORPHANS");
    let mut ending = ending(&named, args, remove_orphans);
    let uses_engine = observed
        .instances
        .iter()
        .any(|instance| instance.backend == BackendKind::Container)
        || named.project().is_none_or(|project| {
            project
                .services
                .values()
                .any(|service| service.has_container_form())
        });
    if uses_engine && backends.containers.reachable().await.is_ok() {
        let names = Names {
            networks: ending.networks.iter().cloned().collect(),
            volumes: ending.volumes.iter().cloned().collect(),
            ..Names::default()
        };
        let found = backends.containers.resources(named.name(), &names).await?;
        if named.project().is_none() {
            ending.networks = found.networks.iter().cloned().collect();
            if args.volumes {
                ending.volumes = found.volumes.iter().cloned().collect();
            }
        }
        observed.networks = found.networks;
        observed.volumes = found.volumes;
    }
    let plan = down::down(&observed, &ending);
    for note in &plan.notes {
        context.ui.note(note);
    }
    if plan.steps.is_empty() {
        context.ui.status(format!(
            "nothing to end: project {} has no instances",
            named.name()
        ));
        return Ok(());
    }
    carry_out(context, &backends, &plan).await.map(drop)
}

fn ending(named: &Named, args: &Args, remove_orphans: bool) -> Ending {
    let mut ending = Ending {
        timeout: args.timeout.map(Duration::from_secs),
        remove_orphans,
        anonymous_volumes: args.volumes,
        ..named.ending(&args.services)
    };
    if let Some(project) = named.project() {
        let own = |external: bool, name: &String| (!external).then(|| name.clone());
        ending.networks = project
            .networks
            .values()
            .filter_map(|network| own(network.external, &network.name))
            .collect();
        if args.volumes {
            ending.volumes = project
                .volumes
                .values()
                .filter_map(|volume| own(volume.external, &volume.name))
                .collect();
        }
    }
    ending
}
