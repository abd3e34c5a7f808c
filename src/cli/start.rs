//! `wharf start`

use std::time::Duration;

use crate::cli::await_up::await_up;
use crate::cli::carry_out::carry_out;
use crate::cli::context::{Context, Named};
use crate::error::{Error, Result};
use crate::plan::launch;
use crate::state::{Instance, Observed, Status};

/// Start services that were made before and do not run
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to start, with what they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Wait until they run, and are healthy where they have a healthcheck
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    wait_timeout: Option<u64>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project_of(&args.services)?;
    let backends = context.backends()?;
    let alone = context.lock(&backends, named.name()).await?;
    let instances = named.instances(context.ui, &backends).await?;
    named.check_services(&args.services, &instances)?;
    check_instances(context, &named, &args.services, &instances)?;
    let launching = context.launching(&named, &args.services);
    let observed = Observed {
        instances,
        own: backends.own(named.name()).await?,
        ..Observed::default()
    };
    let is_paused = |instance: &&&Instance| instance.status == Status::Paused;
    if let Some(paused) = launching.instances(&observed).iter().find(is_paused) {
        let message = format!("cannot start {}: it is paused", paused.name);
        return Err(Error::failed(message).hint(format!("wharf unpause {}", paused.service)));
    }
    let plan = launch::start(&observed, &launching);
    carry_out(context, &backends, &plan).await?;
    drop(alone);
    if args.wait && !context.global.dry_run {
        let limit = args.wait_timeout.map(Duration::from_secs);
        await_up(context, &backends, &named, &launching, limit).await?;
    }
    Ok(())
}

/// Fails where a service has nothing that could be started.
fn check_instances(
    context: &Context,
    named: &Named,
    services: &[String],
    instances: &[Instance],
) -> Result<()> {
    let none = |service: &str| {
        let mut replicas = instances.iter().filter(|instance| !instance.one_off);
        !replicas.any(|instance| instance.service == service)
    };
    let project = named.project().filter(|_| !context.is_by_name(named));
    let missing = match project {
        // Only these services and their dependencies are in it.
        Some(project) => project
            .services
            .values()
            .find(|service| service.scale != Some(0) && none(&service.name))
            .map(|service| service.name.as_str()),
        None => services.iter().map(String::as_str).find(|name| none(name)),
    };
    if let Some(name) = missing {
        let message = format!("service `{name}` has no instance to start");
        return Err(Error::failed(message).hint(format!("wharf up -d {name}")));
    }
    if project.is_none() && instances.is_empty() {
        return Err(Error::failed(format!(
            "project {} has no instances to start",
            named.name()
        ))
        .hint("wharf ls --all"));
    }
    Ok(())
}
