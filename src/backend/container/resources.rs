//! Making and removing networks and volumes.
//!
//! Before API 1.44 the name of a network is no identity: two commands, or one that was cut off and the next, can
//! make two of one name, and nothing can be done by that name any more. What is of the project is told by its
//! label and dealt with by id.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bollard::errors::Error;
use bollard::query_parameters::RemoveVolumeOptions;
use http_body_util::BodyExt as _;
use hyper::{Method, Request};

use super::fault::{has_status, is_missing};
use super::observe::{self, encoded};
use super::perform::says;
use super::reply::{Named, unix_seconds};
use super::{ApiVersion, Engine, labels, networks};
use crate::backend::BackendError;
use crate::plan::step::ProjectIdentity;
use crate::project::model::{Network, Volume};

/// Makes a network, unless there is one of its name.
pub(super) async fn create_network(
    engine: &Engine,
    network: &Network,
    project: &ProjectIdentity,
) -> Result<(), BackendError> {
    let refused = |error| engine.refused(format!("create network {}", network.name), error);
    let existing = of_name(engine, &network.name).await.map_err(refused)?;
    if !existing.is_empty() {
        return Ok(());
    }
    if network.enable_ipv4 == Some(false) {
        let who = format!("network {}", network.name);
        let what = "enable_ipv4: false";
        engine.api.offers(ApiVersion::V1_48, "28", &who, what)?;
    }
    match ask_for_network(engine, network, project).await {
        Ok(()) => {}
        Err(error) if has_status(&error, 409) && says(&error, "already exists") => {}
        Err(error) => return Err(refused(error)),
    }
    if engine.api >= ApiVersion::V1_44 {
        return Ok(());
    }
    // The engine looks and makes in two steps: what a command asked for that was cut off may be there now.
    unite_network(engine, &network.name, &project.name).await
}

/// Asks for a network by a request of its own: before API 1.44 it has a field that bollard's type lacks.
async fn ask_for_network(
    engine: &Engine,
    network: &Network,
    project: &ProjectIdentity,
) -> Result<(), Error> {
    let mut body = serde_json::to_value(networks::network(network, project))?;
    if engine.api < ApiVersion::V1_44 {
        body["CheckDuplicate"] = true.into();
    }
    let request = Request::builder()
        .method(Method::POST)
        .uri("/networks/create")
        .header("Content-Type", "application/json")
        .body(bollard::body_full(body.to_string().into()))?;
    let reply = engine.wire.checked(request).await?;
    reply.into_body().collect().await?;
    Ok(())
}

/// Leaves one network of those that the project has of one name: the one that most of its containers know.
pub(super) async fn unite_network(
    engine: &Engine,
    name: &str,
    project: &str,
) -> Result<(), BackendError> {
    let refused = |error| engine.refused(format!("remove a second network {name}"), error);
    let mut ours = of_project(engine, name, project).await.map_err(refused)?;
    if ours.len() < 2 {
        return Ok(());
    }
    let users = users(engine, project).await.map_err(refused)?;
    ours.sort_by_key(|network| {
        let users = users.get(&network.id).copied().unwrap_or_default();
        let created = unix_seconds(&network.created);
        (Reverse(users), created, network.id.clone())
    });
    let mut left = ours.len();
    // The last one in this order is the first to go; what strangers joined by hand may be any of them.
    for network in ours.iter().rev() {
        if left > 1 && remove(engine, &network.id).await.map_err(refused)? == Removal::Done {
            left -= 1;
        }
    }
    if left > 1 {
        return Err(BackendError::Unsupported(format!(
            "there are {left} networks named {name}, and each of them is in use (`wharf down` ends them all)"
        )));
    }
    Ok(())
}

/// Removes the project's networks of a name. Whether they are gone; else one is in use.
pub(super) async fn remove_network(
    engine: &Engine,
    name: &str,
    project: &str,
) -> Result<bool, BackendError> {
    let refused = |error| engine.refused(format!("remove network {name}"), error);
    let mut in_use = false;
    match remove(engine, name).await {
        Ok(removal) => in_use = removal == Removal::InUse,
        Err(error) if says(&error, "ambiguous") => {
            for network in of_project(engine, name, project).await.map_err(refused)? {
                let removal = remove(engine, &network.id).await.map_err(refused)?;
                in_use |= removal == Removal::InUse;
            }
        }
        Err(error) => return Err(refused(error)),
    }
    Ok(!in_use)
}

/// What became of a network that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// It is gone.
    Done,
    /// Somebody is in it.
    InUse,
}

/// Removes one network, by name or id. One that is gone is fine.
async fn remove(engine: &Engine, which: &str) -> Result<Removal, Error> {
    match engine.docker.remove_network(&encoded(which)).await {
        Ok(()) => Ok(Removal::Done),
        Err(error) if is_missing(&error) => Ok(Removal::Done),
        Err(error) if has_status(&error, 403) && says(&error, "active endpoints") => {
            Ok(Removal::InUse)
        }
        Err(error) => Err(error),
    }
}

async fn of_name(engine: &Engine, name: &str) -> Result<Vec<Named>, Error> {
    let mut all: Vec<Named> = engine.get("/networks").await?;
    all.retain(|network| network.name == name);
    Ok(all)
}

async fn of_project(engine: &Engine, name: &str, project: &str) -> Result<Vec<Named>, Error> {
    let mut all = of_name(engine, name).await?;
    all.retain(|network| network.is_of(project));
    Ok(all)
}

/// How many containers of the project know each network, by the network's id; also those that do not run: they
/// remember the id.
async fn users(engine: &Engine, project: &str) -> Result<BTreeMap<String, usize>, Error> {
    let of_project = format!("{}={project}", labels::PROJECT);
    let mut users = BTreeMap::new();
    for container in observe::list(engine, &[&of_project]).await? {
        for joined in container.network_settings.networks.into_values() {
            *users.entry(joined.network_id).or_default() += 1;
        }
    }
    Ok(users)
}

/// Makes a volume; one that exists is fine.
pub(super) async fn create_volume(
    engine: &Engine,
    volume: &Volume,
    project: &ProjectIdentity,
) -> Result<(), BackendError> {
    engine
        .docker
        .create_volume(networks::volume(volume, project))
        .await
        .map(drop)
        .map_err(|error| engine.refused(format!("create volume {}", volume.name), error))
}

/// Removes a volume. Whether it is gone; else it is in use.
pub(super) async fn remove_volume(engine: &Engine, name: &str) -> Result<bool, BackendError> {
    match engine
        .docker
        .remove_volume(&encoded(name), None::<RemoveVolumeOptions>)
        .await
    {
        Ok(()) => Ok(true),
        Err(error) if is_missing(&error) => Ok(true),
        Err(error) if has_status(&error, 409) => Ok(false),
        Err(error) => Err(engine.refused(format!("remove volume {name}"), error)),
    }
}
