//! `wharf start`

use std::collections::BTreeSet;
use std::time::Duration;

use crate::backend::router::Backends;
use crate::cli::again::in_rounds;
use crate::cli::await_up::await_up;
use crate::cli::carry_out::carry_out;
use crate::cli::context::{Context, Named};
use crate::cli::grace::patience;
use crate::cli::settle::unanswerable;
use crate::cli::sight::Rest;
use crate::error::{Error, Result};
use crate::plan::{Plan, claims, conflicts, launch};
use crate::port::owner::Depth;
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
    #[arg(long, value_name = "SECONDS", requires = "wait", allow_negative_numbers = true, value_parser = patience)]
    wait_timeout: Option<Duration>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project_of(&args.services)?;
    let backends = context.backends()?;
    let alone = context.lock_soon(&backends, named.name()).await?;
    let (launching, rest) = in_rounds(context, async |_| {
        let sight = named.sight(context.ui, &backends, &args.services).await?;
        let (instances, rest) = sight.parts();
        named.check_services(&args.services, &instances)?;
        check_instances(context, &named, &args.services, &instances, &rest)?;
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
        context.note_all(&plan);
        if let Some(report) = held_ports(&backends, named.name(), &plan, &observed).await? {
            return Err(report);
        }
        carry_out(context, &backends, &plan).await?;
        Ok((launching, rest))
    })
    .await?;
    drop(alone);
    if args.wait && !context.global.dry_run {
        await_up(context, &backends, &named, &launching, args.wait_timeout).await?;
    }
    rest.done()
}

/// The report where somebody else has a port that a local service which does not run is to listen on, where an engine
/// would fail for a container: its program would end at once, and nobody would be told.
///
/// # Errors
/// Nobody can look.
pub(super) async fn held_ports(
    backends: &Backends,
    project: &str,
    plan: &Plan,
    observed: &Observed,
) -> Result<Option<Error>> {
    let runs = |instance: &Instance| matches!(instance.status, Status::Running | Status::Paused);
    let idle = observed.instances.iter().filter(|it| !runs(it));
    let claims = claims::of_started(plan, idle);
    if claims.is_empty() {
        return Ok(None);
    }
    let held = backends.held(Depth::Everybody, &claims).await?;
    let held = conflicts::without(held, &observed.instances);
    // It lets go of what a service is about to take.
    let own = backends.processes.everything(project).await?;
    let questions = conflicts::unanswerable(conflicts::without(held, &own));
    if questions.is_empty() {
        return Ok(None);
    }
    let error = unanswerable(&questions);
    if questions.iter().any(|question| question.obstacle.is_some()) {
        return Ok(Some(error));
    }
    let services = questions.iter().map(|it| it.claim.service.as_str());
    let services: Vec<&str> = services.collect::<BTreeSet<_>>().into_iter().collect();
    let holders = match questions.as_slice() {
        [_] => "holder",
        _ => "holders",
    };
    Ok(Some(error.hint(format!(
        "wharf up -d --force {}   # stops the {holders} and starts {}",
        services.join(" "),
        services.join(", ")
    ))))
}

/// Says which services have nothing that could be started; fails where the project has nothing at all, or
/// where a service is known by its instances alone.
fn check_instances(
    context: &Context,
    named: &Named,
    services: &[String],
    instances: &[Instance],
    rest: &Rest,
) -> Result<()> {
    let is_replica = |instance: &&Instance| !instance.one_off && !instance.is_unfinished();
    let replicas = || instances.iter().filter(is_replica);
    let none = |service: &str| !replicas().any(|instance| instance.service == service);
    let nothing = |name: &str| format!("service `{name}` has no instance to start");
    // All that was asked for: one after the other would fail at the next.
    let made = [&["wharf up -d".to_owned()], services].concat().join(" ");
    if let Some(project) = context.declared(named) {
        // Only these services and their dependencies are in it.
        let wanted = project.services.values();
        let wanted = wanted.filter(|service| {
            // What another program provides never has one.
            let has_none = none(&service.name) && !rest.hides(&service.name);
            service.scale != Some(0) && service.provider.is_none() && has_none
        });
        for service in wanted {
            let name = &service.name;
            if replicas().next().is_none() {
                return Err(Error::failed(nothing(name)).hint(made));
            }
            let note = format!("{}: wharf up -d {name}", nothing(name));
            context.ui.note(context.typed(&note));
        }
        return Ok(());
    }
    if let Some(name) = services.iter().find(|name| none(name)) {
        return Err(Error::failed(nothing(name)).hint(made));
    }
    if instances.is_empty() {
        return Err(Error::failed(format!(
            "project {} has no instances to start",
            named.name()
        ))
        .hint("wharf ls --all"));
    }
    Ok(())
}
