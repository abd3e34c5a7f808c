//! Gathers what the planner needs to know: instances, resources, and who holds the claimed ports.

mod remains;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::yield_now;

use crate::backend::BackendError;
use crate::backend::container::Names;
use crate::backend::router::Backends;
use crate::naming::Linkage;
use crate::plan::placement::Placement;
use crate::plan::policy::Policy;
use crate::plan::{self, Inputs};
use crate::port::claim::{Claim, Protocol};
use crate::port::holder::{Holder, Who};
use crate::port::owner::Depth;
use crate::port::release;
use crate::project::model::{MountKind, Project, PullPolicy};
use crate::project::platform::fits;
use crate::state::{BackendKind, Held, Instance, Observed, Status};

pub use remains::{Knowledge, Remains, remains};

/// How many free ports to offer for each held one.
const OFFERS: usize = 8;

/// Observes all that a plan for this project depends on.
///
/// The engine is asked only where a service lives or may live in it, or where it must name the holder
/// of a port.
pub async fn observe(
    backends: &Backends,
    project: &Project,
    placement: &Placement,
    policy: &Policy,
) -> Result<Observed, BackendError> {
    backends.containers.declare(project);
    let may_name = plan::links::may_name(project, placement);
    let mut linkage = if may_name {
        Box::pin(linkage(backends, project, placement)).await?
    } else {
        Linkage::default()
    };
    let (mut observed, ports_are_here) = if placement.needs_engine() {
        let local = backends.containers.reachable().await?.local;
        let (instances, found) = tokio::try_join!(
            Box::pin(everything(backends, project, placement, false)),
            Box::pin(async {
                // The list of containers takes the engine longest: it is asked for before anything else.
                yield_now().await;
                let asked = Box::pin(resources(backends, project, placement, policy, &linkage));
                let (found, first_port) = tokio::join!(asked, async { release::first_permitted() });
                found.map(|found| Observed {
                    first_port,
                    ..found
                })
            })
        )?;
        (Observed { instances, ..found }, local)
    } else {
        let remains = policy.remove_orphans;
        let instances = everything(backends, project, placement, remains).await?;
        // Containers that this command leaves as they are reach local services through relays all the same.
        let is_container = |instance: &Instance| instance.backend == BackendKind::Container;
        let found = if may_name && instances.iter().any(is_container) {
            in_engine(backends, &mut linkage).await?;
            Box::pin(resources(backends, project, placement, policy, &linkage)).await?
        } else {
            Observed::default()
        };
        let first_port = release::first_permitted();
        let observed = Observed {
            instances,
            first_port,
            ..found
        };
        (observed, true)
    };
    (observed.own, observed.instances) = observed
        .instances
        .into_iter()
        .partition(|instance| instance.role().is_some());
    observed.linkage = linkage;
    let claims = plan::claims(&Inputs {
        project,
        placement,
        observed: &observed,
        policy,
    });
    // On a remote engine a published port is a port of another machine.
    let claims: Vec<Claim> = claims
        .into_iter()
        .filter(|claim| ports_are_here || placement.of(&claim.service) == BackendKind::Process)
        .collect();
    if !claims.is_empty() {
        observed.held = held(backends, &claims, &observed).await?;
        observed.reserved = reserved(backends, project, placement, &claims).await;
        observed.free_ports = free_ports(&observed, &claims);
        let reserve = |port: &u16, protocol| backends.processes.reserve(*port, protocol);
        for ((_, protocol), ports) in &mut observed.free_ports {
            ports.retain(|port| reserve(port, *protocol));
        }
    }
    Ok(observed)
}

/// Who has the claims. Of those that others have than this project's instances, all holders: they are asked about,
/// and stopped, together.
async fn held(
    backends: &Backends,
    claims: &[Claim],
    observed: &Observed,
) -> Result<Vec<Held>, BackendError> {
    let held = backends.held(Depth::Excluding, claims).await?;
    // The project's own forwarder lets go of what a service is about to take.
    let mut held = plan::without(held, &observed.own);
    let is_process = |holder: &Holder| !matches!(holder.who, Who::Container(_));
    let foreign: Vec<Claim> = plan::without(held.clone(), &observed.instances)
        .into_iter()
        .filter(|held| held.holders.iter().any(is_process))
        .map(|held| held.claim)
        .collect();
    if !foreign.is_empty() {
        let all = backends.held(Depth::Everybody, &foreign).await?;
        held.retain(|held| !foreign.contains(&held.claim));
        held.extend(plan::without(all, &observed.own));
    }
    // What happens to the project's own is known.
    let is_foreign = |holder: &Holder| !plan::has(&observed.instances, holder);
    backends.tell_removals(&mut held, is_foreign).await;
    Ok(held)
}

/// What is possible where services name each other across backends.
pub async fn linkage(
    backends: &Backends,
    project: &Project,
    placement: &Placement,
) -> Result<Linkage, BackendError> {
    let mut linkage = backends.processes.linkage(&project.name)?;
    if placement.needs_engine() {
        in_engine(backends, &mut linkage).await?;
    }
    Ok(linkage)
}

/// Adds what only the engine knows.
async fn in_engine(backends: &Backends, linkage: &mut Linkage) -> Result<(), BackendError> {
    let relays = backends.containers.relays().await?;
    linkage.reach = Some(relays.reach);
    linkage.endpoint = relays.endpoint;
    linkage.relay_image = relays.image;
    Ok(())
}

/// The project's instances in all backends that may have some.
pub async fn instances(
    backends: &Backends,
    project: &Project,
    placement: &Placement,
) -> Result<Vec<Instance>, BackendError> {
    let mut instances = everything(backends, project, placement, false).await?;
    instances.retain(|instance| instance.role().is_none());
    Ok(instances)
}

/// The same, with relays and the forwarder. `remains`: containers of services that are no longer there are wanted
/// from any engine, also where nothing is known of some.
async fn everything(
    backends: &Backends,
    project: &Project,
    placement: &Placement,
    remains: bool,
) -> Result<Vec<Instance>, BackendError> {
    let processes = &backends.processes;
    let may_have_containers = project
        .services
        .values()
        .any(|service| service.has_container_form());
    // An engine that does not answer has no running containers that could be in the way.
    let containers = &backends.containers;
    let asks = placement.needs_engine()
        || (may_have_containers && containers.reachable().await.is_ok())
        || ((remains || processes.has_traces(&project.name)) && containers.answers_soon().await);
    if !asks {
        return processes.everything(&project.name).await;
    }
    // The list takes the engine some milliseconds, in which it can tell the rest and the processes can be looked at.
    let (mut found, (ending, mut instances)) = tokio::try_join!(
        containers.outlines(&project.name),
        Box::pin(async {
            yield_now().await;
            tokio::try_join!(
                containers.about_to_end(&project.name),
                processes.everything(&project.name)
            )
        })
    )?;
    for instance in &mut found {
        instance.ending |=
            instance.status == Status::Running && ending.contains(instance.id.0.as_str());
    }
    backends.mark_ending(&project.name, &mut found).await;
    instances.extend(found);
    Ok(instances)
}

/// What the project names beside its instances, as far as it exists.
async fn resources(
    backends: &Backends,
    project: &Project,
    placement: &Placement,
    policy: &Policy,
    linkage: &Linkage,
) -> Result<Observed, BackendError> {
    let placed = || {
        placement
            .services(BackendKind::Container)
            .filter_map(|name| project.services.get(name))
    };
    let mounted = placed()
        .flat_map(|service| &service.volumes)
        .filter_map(|mount| match &mount.kind {
            MountKind::Image { source, .. } => Some(source.clone()),
            MountKind::Volume { .. } | MountKind::Bind { .. } | MountKind::Tmpfs { .. } => None,
        });
    let before = placed()
        .flat_map(|service| &service.pre_start)
        .filter_map(|hook| hook.image.clone());
    let images = placed()
        .map(|service| service.image_name(&project.name))
        .chain(before)
        .chain(mounted)
        .chain(Some(linkage.relay_image.clone()).filter(|image| !image.is_empty()))
        .collect();
    // Relays of local services are on networks, too.
    let mut networks: BTreeSet<String> = project
        .services
        .values()
        .flat_map(|service| service.networks.keys())
        .filter_map(|key| project.networks.get(key))
        .map(|network| network.name.clone())
        .collect();
    let mut volumes: BTreeSet<String> = placed()
        .flat_map(|service| &service.volumes)
        .filter_map(|mount| match &mount.kind {
            MountKind::Volume {
                source: Some(key), ..
            } => project.volumes.get(key),
            MountKind::Volume { .. }
            | MountKind::Bind { .. }
            | MountKind::Tmpfs { .. }
            | MountKind::Image { .. } => None,
        })
        .map(|volume| volume.name.clone())
        .collect();
    if policy.all_resources {
        networks.extend(
            project
                .networks
                .values()
                .map(|network| network.name.clone()),
        );
        volumes.extend(project.volumes.values().map(|volume| volume.name.clone()));
    }
    let names = Names {
        networks,
        volumes,
        images,
        labelled: false,
    };
    let mut found = backends.containers.resources(&project.name, &names).await?;
    // As if it was not there: what is there is for another platform.
    let misfits: BTreeMap<String, String> = placed()
        .filter_map(|service| {
            let asked = service.platform.as_deref()?;
            let image = service.image_name(&project.name);
            let platform = found.platforms.get(&image)?;
            (!fits(asked, platform)).then(|| (image, platform.clone()))
        })
        .collect();
    found.images.retain(|image, _| !misfits.contains_key(image));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    let stale = placed()
        .filter_map(|service| {
            let Some(PullPolicy::Every(age)) = service.pull_policy else {
                return None;
            };
            let image = service.image_name(&project.name);
            let tagged = found.tagged.get(&image).copied().unwrap_or_default();
            let age = i64::try_from(age).unwrap_or(i64::MAX);
            (now > tagged.saturating_add(age)).then_some(image)
        })
        .collect();
    Ok(Observed {
        networks: found.networks,
        network_hashes: found.network_hashes,
        doubled_networks: found.doubled,
        volumes: found.volumes,
        volume_hashes: found.volume_hashes,
        images: found.images,
        misfits,
        stale,
        ..Observed::default()
    })
}

/// The claimed ports that other projects' commands have chosen, or their processes were given; what nobody has is
/// this command's until the process that gets it is in the ledger, or the command ends.
async fn reserved(
    backends: &Backends,
    project: &Project,
    placement: &Placement,
    claims: &[Claim],
) -> BTreeSet<(u16, Protocol)> {
    let has_choice = |name: &str| {
        let service = project.services.get(name);
        placement.of(name) == BackendKind::Process
            && service.is_some_and(|it| plan::may_listen_anywhere(it, BackendKind::Process))
    };
    let mut reserved = BTreeSet::new();
    let choosing = claims.iter().filter(|claim| has_choice(&claim.service));
    for claim in choosing {
        if !backends.processes.reserve(claim.port, claim.protocol) {
            reserved.insert((claim.port, claim.protocol));
        }
    }
    if claims.iter().any(|claim| has_choice(&claim.service)) {
        // After the locks: who gave one back is in the ledger by then.
        let others = backends.processes.elsewhere_alive(&project.name).await;
        let given = plan::given(&others).into_iter().map(|wanted| wanted.claim);
        reserved.extend(given.map(|claim| (claim.port, claim.protocol)));
    }
    reserved
}

/// What there is instead of ports that somebody has, or that several ask for.
fn free_ports(observed: &Observed, claims: &[Claim]) -> BTreeMap<(u16, Protocol), Vec<u16>> {
    let given: Vec<Claim> = plan::given(&observed.instances)
        .into_iter()
        .map(|wanted| wanted.claim)
        .collect();
    let taken: BTreeSet<u16> = claims
        .iter()
        .chain(&given)
        .map(|claim| claim.port)
        .chain(observed.reserved.iter().map(|(port, _)| *port))
        .collect();
    let is_rival = |claim: &Claim, other: &Claim| {
        let same = (&claim.service, claim.number) == (&other.service, other.number);
        !same && claim.collides_with(other)
    };
    let rivalling = claims.iter().filter(|claim| {
        let mut others = claims.iter().chain(&given);
        others.any(|other| is_rival(claim, other))
    });
    let held = observed.held.iter().map(|held| &held.claim);
    let mut offers = BTreeMap::new();
    let reserved = claims.iter().filter(|claim| {
        let key = (claim.port, claim.protocol);
        observed.reserved.contains(&key)
    });
    for claim in held.chain(rivalling).chain(reserved) {
        offers
            .entry((claim.port, claim.protocol))
            .or_insert_with(|| {
                release::next_free(
                    claim.port.saturating_add(1),
                    &claim.addresses,
                    claim.protocol,
                    OFFERS.max(claims.len()),
                    &taken,
                )
                .unwrap_or_default()
            });
    }
    offers
}
