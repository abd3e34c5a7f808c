//! `wharf down`

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::backend::BackendError;
use crate::backend::container::Names;
use crate::backend::router::Backends;
use crate::cli::carry_out::carry_out;
use crate::cli::context::{Context, Named};
use crate::cli::grace::grace;
use crate::cli::sight::Rest;
use crate::cli::{hasten, provide};
use crate::error::{Error, Result};
use crate::observe::{self, Knowledge, Remains};
use crate::plan::down::{self, Ending};
use crate::plan::step::Provision;
use crate::project::model::{MountKind, Project, Service};
use crate::state::{BackendKind, Instance, InstanceId, Observed};

/// Stop and remove the services, their networks and what else `up` made
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Services to end [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Remove volumes too: named ones of the project and anonymous ones
    #[arg(short, long)]
    volumes: bool,
    /// Remove images too: those without a name of their own in the compose file, or all that services use
    #[arg(long, value_enum, value_name = "WHICH")]
    rmi: Option<Rmi>,
    /// Remove instances of services that are no longer in the compose file, and one-off instances
    #[arg(long)]
    remove_orphans: bool,
    /// Seconds that instances get to stop; -1: as many as they need
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = grace)]
    timeout: Option<Duration>,
}

/// `--rmi`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rmi {
    /// Images that are named after the project and the service
    Local,
    /// All images that services use
    All,
    /// As if it was not given: `--rmi "$UNSET"`
    #[value(name = "", hide = true)]
    Neither,
}

impl Args {
    /// For the whole project, with its orphans.
    pub(super) fn with_orphans() -> Self {
        Self {
            remove_orphans: true,
            ..Self::default()
        }
    }
}

/// The way around a provider that is not there any more: by its name alone, a project has none.
fn without_providers(error: Error, project: &str) -> Error {
    let reason = error.source.downcast_ref::<BackendError>();
    if matches!(reason, Some(BackendError::NoProvider { .. })) {
        error.hint(format!("wharf -p {project} down   # ends the rest"))
    } else {
        error
    }
}

/// After a command that was killed, for how long and how often the engine is looked at for what that command had
/// asked for.
const LATE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    context.declare_named(&named, &backends, &args.services);
    let (alone, _) =
        hasten::lock(context, &backends, &named, &ending(context, &named, args)).await?;
    let pending = backends.pending(named.name());
    let patience = if alone.follows_a_killed_command() || pending.is_making() {
        LATE
    } else {
        Duration::ZERO
    };
    let mut last = Instant::now() + patience;
    let mut seen = Seen::default();
    let mut has_ended = false;
    let mut has_others;
    let rest = loop {
        let Look {
            mut observed,
            ending,
            in_engine,
            is_clean,
            rest,
        } = look(context, &backends, &named, args, &seen).await?;
        let is_first = seen.looks == 0;
        has_others = !observed.instances.is_empty();
        seen.leave_new(&mut observed);
        let plan = down::down(&observed, &ending);
        if is_first {
            context.note_all(&plan);
        }
        if !plan.steps.is_empty() {
            carry_out(context, &backends, &plan)
                .await
                .map_err(|error| without_providers(error, named.name()))?;
            has_ended = true;
            last = Instant::now() + patience;
        }
        if context.global.dry_run || !in_engine {
            break rest;
        }
        if plan.steps.is_empty() {
            if Instant::now() >= last {
                if is_clean {
                    backends.processes.forget_traces(named.name())?;
                }
                break rest;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    if !context.global.dry_run {
        pending.forget_making();
        backends.processes.forget_supervisor(named.name());
    }
    if args.services.is_empty() {
        rest.done_with_all()?;
    } else {
        rest.done()?;
    }
    if !has_ended {
        let name = named.name();
        let services = args.services.join(", ");
        context.ui.status(if !services.is_empty() {
            format!("nothing to end: project {name} has no instances of {services}")
        } else if has_others {
            format!("nothing to end in project {name}")
        } else {
            format!("nothing to end: project {name} has no instances")
        });
    }
    Ok(())
}

/// What earlier looks have shown: what of it is still there stays, and the reason was said.
#[derive(Debug, Default)]
struct Seen {
    looks: usize,
    instances: BTreeSet<InstanceId>,
    resources: BTreeSet<String>,
}

impl Seen {
    /// Leaves what no look has shown; with an instance also what it kept in use.
    fn leave_new(&mut self, observed: &mut Observed) {
        self.looks += 1;
        let ids = &mut self.instances;
        let mut is_new = |instance: &Instance| ids.insert(instance.id.clone());
        observed.instances.retain(&mut is_new);
        observed.own.retain(&mut is_new);
        let has_more = !observed.instances.is_empty();
        let names = &mut self.resources;
        let mut is_new = |name: &String| names.insert(name.clone()) || has_more;
        observed.networks.retain(&mut is_new);
        observed.volumes.retain(&mut is_new);
        observed.images.retain(|name, _| is_new(name));
    }
}

/// What there is, and what of it goes.
struct Look {
    observed: Observed,
    ending: Ending,
    /// Whether any of it may be in an engine that answers.
    in_engine: bool,
    /// Whether nothing is left there that a later command could find.
    is_clean: bool,
    /// What is out of sight, as the engine does not answer.
    rest: Rest,
}

async fn look(
    context: &Context,
    backends: &Backends,
    named: &Named,
    args: &Args,
    seen: &Seen,
) -> Result<Look> {
    let sight = named
        .sight_of_all(context.ui, backends, &args.services)
        .await?;
    let (mut instances, rest) = sight.parts();
    let mut ending = ending(context, named, args);
    let mut own = backends.own(named.name()).await?;
    let is_container = |instance: &Instance| instance.backend == BackendKind::Container;
    let known = Knowledge {
        project: named.name(),
        may_have_containers: !named.is_local(),
        has_containers: instances.iter().chain(&own).any(is_container),
        // Whatever else is wharf's own is a process.
        has_relays: own.iter().any(is_container),
        thoroughly: ending.remove_orphans,
    };
    let remains = if rest.is_away() {
        None
    } else {
        observe::remains(backends, known).await?
    };
    let in_engine = remains.is_some();
    let Remains {
        instances: unknown,
        relays,
    } = remains.unwrap_or_default();
    instances.extend(unknown);
    own.extend(relays);
    if seen.looks == 0 {
        named.check_services(&args.services, &instances)?;
    }
    if seen.looks == 0 {
        let services = &args.services;
        ending.providers =
            provide::ending(context, backends, named, services, Provision::Down).await;
    }
    if named.project().is_none() && args.rmi == Some(Rmi::All) {
        ending.images = used_images(&instances, &ending);
    }
    let mut observed = Observed {
        instances,
        own,
        ..Observed::default()
    };
    if in_engine {
        let names = Names {
            networks: ending.networks.iter().cloned().collect(),
            volumes: ending.volumes.iter().cloned().collect(),
            images: ending.images.iter().cloned().collect(),
            labelled: true,
        };
        let found = backends.containers.resources(named.name(), &names).await?;
        if context.is_by_name(named) {
            ending.networks = found.networks.iter().cloned().collect();
            if args.volumes && args.services.is_empty() {
                ending.volumes = found.volumes.iter().cloned().collect();
            }
        }
        // One of the same name that somebody else made is theirs.
        observed.networks = found.network_hashes.into_keys().collect();
        observed.volumes = found.volumes;
        observed.images = found.images;
    }
    // Volumes that were not asked for are not seen.
    let sees_all = args.services.is_empty()
        && (args.volumes
            || named.project().is_some_and(|project| {
                let mut volumes = project.volumes.values();
                volumes.all(|volume| volume.external)
            }));
    let is_clean = in_engine
        && sees_all
        && observed.networks.is_empty()
        && observed.volumes.is_empty()
        && !observed
            .instances
            .iter()
            .chain(&observed.own)
            .any(is_container);
    Ok(Look {
        observed,
        ending,
        in_engine,
        is_clean,
        rest,
    })
}

fn ending(context: &Context, named: &Named, args: &Args) -> Ending {
    let mut ending = Ending {
        timeout: args.timeout,
        remove_orphans: args.remove_orphans || context.is_on("COMPOSE_REMOVE_ORPHANS"),
        anonymous_volumes: args.volumes,
        ..context.ending(named, &args.services)
    };
    if let Some(project) = named.project() {
        let networks = project.networks.values();
        ending.networks = networks
            .filter(|network| !network.external)
            .map(|network| network.name.clone())
            .collect();
        if args.volumes {
            ending.volumes = own_volumes(project, &args.services);
        }
        ending.images = images(project, args);
    }
    ending
}

/// The names of the volumes that go with these services (none: all): not those that others mount, too.
fn own_volumes(project: &Project, services: &[String]) -> Vec<String> {
    let mounted = |named: bool| -> BTreeSet<&str> {
        project
            .services
            .values()
            .filter(|service| services.contains(&service.name) == named)
            .flat_map(|service| &service.volumes)
            .filter_map(|mount| match &mount.kind {
                MountKind::Volume { source, .. } => source.as_deref(),
                MountKind::Bind { .. } | MountKind::Image { .. } | MountKind::Tmpfs { .. } => None,
            })
            .collect()
    };
    let (own, others) = (mounted(true), mounted(false));
    let goes = |key: &str| services.is_empty() || own.contains(key) && !others.contains(key);
    project
        .volumes
        .iter()
        .filter(|(key, volume)| !volume.external && goes(key))
        .map(|(_, volume)| volume.name.clone())
        .collect()
}

/// The references of the images that `--rmi` removes.
fn images(project: &Project, args: &Args) -> Vec<String> {
    let goes = |service: &&Arc<Service>| {
        let is_local = service.image.is_none() && service.build.is_some();
        let wanted = args.rmi == Some(Rmi::All) || args.rmi == Some(Rmi::Local) && is_local;
        let named = args.services.is_empty() || args.services.contains(&service.name);
        wanted && named && service.has_container_form()
    };
    let services = project.services.values().filter(goes);
    let images: BTreeSet<String> = services
        .map(|service| service.image_name(&project.name))
        .collect();
    images.into_iter().collect()
}

/// What the containers that end were made of.
fn used_images(instances: &[Instance], ending: &Ending) -> Vec<String> {
    let named = |instance: &&Instance| {
        ending.services.is_empty() || ending.services.contains(&instance.service)
    };
    let images: BTreeSet<String> = instances
        .iter()
        .filter(named)
        .map(|instance| instance.image.clone())
        .filter(|image| !image.is_empty())
        .collect();
    images.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(networks: &[&str]) -> Observed {
        Observed {
            networks: networks.iter().copied().map(str::to_owned).collect(),
            ..Observed::default()
        }
    }

    #[test]
    fn a_second_look_shows_what_is_new() {
        let mut seen = Seen::default();
        let mut looks = |networks: &[&str]| {
            let mut observed = observed(networks);
            seen.leave_new(&mut observed);
            observed.networks
        };
        assert_eq!(looks(&["in_use"]), BTreeSet::from(["in_use".to_owned()]));
        assert_eq!(looks(&["in_use"]), BTreeSet::new());
        let late = looks(&["in_use", "late"]);
        assert_eq!(late, BTreeSet::from(["late".to_owned()]));
    }
}
