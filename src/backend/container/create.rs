//! Making a container: looks up what the request needs, sends it, and completes what the engine's
//! version cannot do in one request. A container that cannot be completed is taken away again; until it is
//! complete it has a temporary name, so that the next run replaces what a killed one left.

use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerCreateResponse, NetworkConnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
};
use http_body_util::BodyExt;
use hyper::{Method, Request};

use super::convert::{self, Predecessor, Security, Surroundings};
use super::fault::{NO_IMAGE, Refusal, has_status, is_missing, vanished};
use super::mounts::Inherited;
use super::observe::{self, encoded};
use super::references::References;
use super::replace::{self, Heir};
use super::{Containers, Engine, inventory, labels, secrets};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::naming::waiting_name;
use crate::plan::step::InstanceSpec;
use crate::project::model::MountKind;
use crate::state::InstanceId;

/// How often, and with which pause, a container is looked for that the engine is making for somebody else.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Makes a container from its spec and returns its id.
pub(super) async fn container(
    containers: &Containers,
    spec: &InstanceSpec,
    events: &Events,
) -> Result<InstanceId, BackendError> {
    let engine = containers.engine().await?;
    match make(containers, spec, events).await {
        Err(BackendError::Engine { source, .. }) if is_taken(&*source, &spec.name) => {
            Err(taken(engine, spec, source).await)
        }
        made => made,
    }
}

fn is_taken(error: &(dyn std::error::Error + 'static), name: &str) -> bool {
    let words = format!("container name \"/{name}\" is already in use");
    error.to_string().contains(&words)
}

/// Says whose container has the name.
async fn taken(
    engine: &Engine,
    spec: &InstanceSpec,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> BackendError {
    let holder = observe::inspect(engine, &spec.name).await.ok().flatten();
    let label = |name: &str| holder.as_ref()?.config.labels.get(name).cloned();
    BackendError::NameTaken {
        name: spec.name.clone(),
        owner: label(labels::PROJECT).zip(label(labels::SERVICE)),
        runs: holder.as_ref().is_some_and(|holder| holder.state.running),
        is_chosen: spec.service.container_name.as_ref() == Some(&spec.name),
        source,
    }
}

async fn make(
    containers: &Containers,
    spec: &InstanceSpec,
    events: &Events,
) -> Result<InstanceId, BackendError> {
    let engine = containers.engine().await?;
    let stores = secrets::of(engine, secrets::Wanted::of(spec)).await?;
    let around = surroundings(containers, engine, spec, &stores).await?;
    let request = convert::request(spec, &around)?;
    let platform = spec.service.platform.as_deref().unwrap_or_default();
    let refused = |error| engine.refused(format!("create {}", spec.name), error);
    let is_complete = request.connect.is_empty() && stores.files.is_empty();
    // While the old one still has the name, this one waits for it under a temporary one.
    let old = spec.replaces.as_ref().filter(|_| around.replaced.is_some());
    let waits = around.replaced == Some(Predecessor::HasName);
    let name = match old {
        Some(old) if waits => waiting_name(&old.0, &spec.name),
        _ if is_complete => spec.name.clone(),
        _ => waiting_name(&around.fingerprint.0, &spec.name),
    };
    let told = |created: ContainerCreateResponse| {
        for warning in &created.warnings {
            events.send(Event::Warning(format!("{}: {warning}", spec.name)));
        }
        created.id
    };
    let id = if name == spec.name {
        match create(engine, &name, platform, &request).await {
            Ok(created) => told(created),
            Err(error) if has_status(&error, 409) => {
                let other = made_before(engine, &name, &request).await;
                other.ok_or_else(|| refused(error))?
            }
            Err(error) => return Err(refused(error)),
        }
    } else {
        let created = create_anew(engine, &name, platform, &request).await;
        told(created.map_err(refused)?)
    };
    let heir = Heir {
        id: id.clone(),
        name: spec.name.clone(),
        waits,
    };
    let completed = async {
        for (network, settings) in &request.connect {
            let body = NetworkConnectRequest {
                container: id.clone(),
                endpoint_config: Some(settings.clone()),
            };
            engine
                .docker
                .connect_network(network, body)
                .await
                .map_err(|error| {
                    let is_missing = is_missing(&error);
                    let refused =
                        engine.refused(format!("connect {} to {network}", spec.name), error);
                    if is_missing {
                        vanished(refused)
                    } else {
                        refused
                    }
                })?;
        }
        secrets::write(engine, &id, &spec.name, &stores.files).await?;
        if !is_complete && !waits {
            match take_name(engine, &heir).await {
                Ok(()) => {}
                Err(error) if has_status(&error, 409) => {
                    // The name is the last thing that a container gets.
                    let other = made_before(engine, &spec.name, &request).await;
                    return other.map(Some).ok_or_else(|| refused(error));
                }
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(None)
    };
    match completed.await {
        Ok(None) => {}
        Ok(Some(other)) => {
            remove(engine, &id).await;
            return Ok(InstanceId(other));
        }
        Err(error) => {
            // The first error is the one to report.
            remove(engine, &id).await;
            return Err(error);
        }
    }
    if let Some(old) = old {
        containers.shared.replaced.remember_heir(&old.0, heir);
    }
    Ok(InstanceId(id))
}

/// Makes a container under a name that nobody else would give one. What has it is half made: what it was still to get
/// is not known.
async fn create_anew(
    engine: &Engine,
    name: &str,
    platform: &str,
    request: &convert::Request,
) -> Result<ContainerCreateResponse, Error> {
    match create(engine, name, platform, request).await {
        Err(error) if has_status(&error, 409) => {
            let Some(half_made) = made_before(engine, name, request).await else {
                return Err(error);
            };
            remove(engine, &half_made).await;
            create(engine, name, platform, request).await
        }
        result => result,
    }
}

/// Removes a container that never ran, with the volumes that the engine made for it. What cannot be removed is found
/// by the next run.
pub(super) async fn remove(engine: &Engine, id: &str) {
    drop(try_remove(engine, id).await);
}

/// As [`remove`], and says whether it is gone.
pub(super) async fn try_remove(engine: &Engine, id: &str) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    engine.docker.remove_container(id, Some(options)).await
}

/// The container that has the name, if it is exactly what was to be made: a command that was cut off a moment ago
/// had asked for it, and the engine was still at it. A container's name is taken before there is a container.
async fn made_before(engine: &Engine, name: &str, request: &convert::Request) -> Option<String> {
    for _ in 0..LOOKS {
        match observe::inspect(engine, name).await {
            Ok(None) => tokio::time::sleep(PAUSE).await,
            Ok(Some(found)) => {
                let wanted = request.body.labels.as_ref()?;
                let has = |(label, value)| found.config.labels.get(label) == Some(value);
                let is_it = found.state.status == "created" && wanted.iter().all(has);
                return is_it.then_some(found.id);
            }
            Err(_) => return None,
        }
    }
    None
}

/// Gives a container that waited under a temporary name the name it was made for.
pub(super) async fn rename(engine: &Engine, heir: &Heir) -> Result<(), BackendError> {
    take_name(engine, heir)
        .await
        .map_err(|error| engine.refused(format!("rename a container to {}", heir.name), error))
}

async fn take_name(engine: &Engine, heir: &Heir) -> Result<(), Error> {
    let options = RenameContainerOptionsBuilder::new()
        .name(&heir.name)
        .build();
    engine.docker.rename_container(&heir.id, options).await
}

async fn create(
    engine: &Engine,
    name: &str,
    platform: &str,
    request: &convert::Request,
) -> Result<ContainerCreateResponse, Error> {
    if let Some(mac) = &request.mac_address {
        return create_with_mac(engine, name, platform, &request.body, mac).await;
    }
    let options = CreateContainerOptionsBuilder::new()
        .name(name)
        .platform(platform)
        .build();
    let created = engine
        .docker
        .create_container(Some(options), request.body.clone());
    created.await
}

/// Before API 1.44 the hardware address is a field of the body that bollard's type no longer has.
async fn create_with_mac(
    engine: &Engine,
    name: &str,
    platform: &str,
    body: &ContainerCreateBody,
    mac: &str,
) -> Result<ContainerCreateResponse, Error> {
    let mut body = serde_json::to_value(body)?;
    body["MacAddress"] = mac.into();
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!(
            "/containers/create?name={}&platform={}",
            encoded(name),
            encoded(platform)
        ))
        .header("Content-Type", "application/json")
        .body(bollard::body_full(body.to_string().into()))?;
    let reply = engine.wire.checked(request).await?;
    let reply = reply.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&reply)?)
}

async fn surroundings(
    containers: &Containers,
    engine: &Engine,
    spec: &InstanceSpec,
    stores: &secrets::Placed,
) -> Result<Surroundings, BackendError> {
    let refused = |error| engine.refused(format!("create {}", spec.name), error);
    let Some(image) = inventory::image(engine, &spec.image)
        .await
        .map_err(refused)?
    else {
        return Err(BackendError::Engine {
            action: format!("create {}", spec.name),
            source: Box::new(Refusal {
                status: 404,
                message: format!("{NO_IMAGE}{}", spec.image),
            }),
        });
    };
    let service = &*spec.service;
    let old = match &spec.replaces {
        Some(old) => observe::inspect(engine, &old.0).await.map_err(refused)?,
        None => None,
    };
    let replaced = old.as_ref().map(|old| {
        if old.name.trim_start_matches('/') == spec.name {
            Predecessor::HasName
        } else {
            Predecessor::HasAnother
        }
    });
    let mut inherited = match (&spec.replaces, &old) {
        (Some(_), Some(container)) if spec.inherits => replace::anonymous_volumes(container),
        (Some(old), None) if spec.inherits => containers
            .shared
            .replaced
            .volumes(&old.0)
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    inherited.retain(|volume: &Inherited| {
        let declared = service
            .volumes
            .iter()
            .find(|mount| mount.target == volume.target);
        match declared {
            Some(mount) => matches!(mount.kind, MountKind::Volume { source: None, .. }),
            None => image.config.volumes.contains_key(&volume.target),
        }
    });
    let references = References::look_up(engine, spec).await?;
    Ok(Surroundings {
        api: engine.api,
        replaced,
        image_id: image.id,
        network_mode: references.mode(service.network_mode.as_deref())?,
        ipc: references.mode(service.ipc.as_deref())?,
        pid: references.mode(service.pid.as_deref())?,
        volumes_from: references.volumes_from()?,
        links: references.links(),
        fingerprint: references.fingerprint(),
        security: security(spec)?,
        inherited,
        stores: stores.mounts.clone(),
    })
}

/// Reads seccomp profiles, which the engine takes as text.
fn security(spec: &InstanceSpec) -> Result<Security, BackendError> {
    let mut security = Security::default();
    for option in &spec.service.security_opt {
        let (key, value) = option
            .split_once('=')
            .or_else(|| option.split_once(':'))
            .unwrap_or((option, ""));
        match (key, value) {
            ("systempaths", "unconfined") => security.unconfined_paths = true,
            ("seccomp", profile) if !["unconfined", "builtin", ""].contains(&profile) => {
                let path = spec.project.working_dir.join(profile);
                let text =
                    std::fs::read_to_string(&path).map_err(|source| BackendError::State {
                        action: format!(
                            "{}: cannot read the seccomp profile {}",
                            spec.name,
                            path.display()
                        ),
                        source,
                    })?;
                security.options.push(format!("seccomp={text}"));
            }
            _ => security.options.push(option.clone()),
        }
    }
    Ok(security)
}
