//! Containers, images and volumes as the engine lists them: what the listing commands show. One request
//! for all containers, whatever their number; nothing is inspected. Only looks.

use std::collections::{BTreeMap, BTreeSet};

use bollard::errors::Error;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use super::observe::{self, encoded};
use super::reply::Listed;
use super::{Containers, fault, labels};
use crate::backend::BackendError;
use crate::naming::Role;
use crate::state::{Publisher, Readiness};

/// A container as the engine's list shows it.
#[derive(Clone, Debug)]
pub struct Listing {
    /// 64 hex digits.
    pub id: String,
    /// Without the slash.
    pub name: String,
    /// Of the label.
    pub project: String,
    /// Of the label.
    pub service: String,
    /// The replica's number; 0 for one-offs.
    pub number: u32,
    /// Made by `run`.
    pub one_off: bool,
    /// As it was asked for, or the id where the name has moved to another image.
    pub image: String,
    /// `sha256:` and 64 hex digits.
    pub image_id: String,
    /// Its command line, in the engine's way to write it.
    pub command: String,
    /// Unix time in seconds.
    pub created: i64,
    /// `running`, `exited` …
    pub state: String,
    /// In the engine's words: `Up 2 hours (healthy)`.
    pub status: String,
    /// Its ports: address (empty: not published), port, published port, protocol, in the list's order.
    pub ports: Vec<(String, u16, u16, String)>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// By the engine's name, sorted.
    pub networks: Vec<String>,
    /// Names of volumes and directories of the host.
    pub mounts: Vec<String>,
    /// How many volumes of the engine's own driver are mounted.
    pub local_volumes: usize,
    /// How to tell that it answers, as recorded with it.
    pub readiness: Option<Readiness>,
}

/// An image of the engine.
#[derive(Clone, Debug)]
pub struct ImageFacts {
    /// `sha256:` and 64 hex digits.
    pub id: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// In bytes.
    pub size: u64,
    /// When it was made, as the engine says.
    pub created: String,
    /// When it got its last name, as the engine says.
    pub tagged: String,
}

/// A volume of the engine.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeFacts {
    /// Its name.
    pub name: String,
    /// What keeps it.
    #[serde(default)]
    pub driver: String,
    /// Where on the engine's machine.
    #[serde(default)]
    pub mountpoint: String,
    /// `local` or `global`.
    #[serde(default)]
    pub scope: String,
    /// All labels.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volumes {
    volumes: Option<Vec<VolumeFacts>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    id: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    created: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    #[serde(default)]
    last_tag_time: String,
}

impl Containers {
    /// The containers of a project, or of all projects, by name, without relays; found as Docker Compose finds
    /// them.
    pub async fn listed(&self, project: Option<&str>) -> Result<Vec<Listing>, BackendError> {
        self.listed_as(project, None).await
    }

    /// The relays of a project, by name.
    ///
    /// # Errors
    /// When the engine does not answer, or refuses.
    pub async fn listed_relays(&self, project: &str) -> Result<Vec<Listing>, BackendError> {
        self.listed_as(Some(project), Some(Role::Relay)).await
    }

    async fn listed_as(
        &self,
        project: Option<&str>,
        role: Option<Role>,
    ) -> Result<Vec<Listing>, BackendError> {
        let engine = self.engine().await?;
        let of_project = match project {
            Some(project) => format!("{}={project}", labels::PROJECT),
            None => labels::PROJECT.to_owned(),
        };
        let listed = observe::list(engine, &[&of_project, labels::CONFIG_HASH])
            .await
            .map_err(|error| engine.refused("list containers", error))?;
        let asked = listed
            .into_iter()
            .filter(|entry| Role::of(&entry.labels) == role);
        let mut listings: Vec<Listing> = asked.map(listing).collect();
        listings.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listings)
    }

    /// The main processes of containers, by container: as the host numbers them.
    pub async fn pids(&self, ids: &[&str]) -> Result<BTreeMap<String, u32>, BackendError> {
        let engine = self.engine().await?;
        stream::iter(ids)
            .map(|id| async move { observe::inspect(engine, id).await })
            .buffer_unordered(16)
            .try_filter_map(|found| async {
                Ok(found.map(|container| (container.id, container.state.pid)))
            })
            .try_collect()
            .await
            .map_err(|error| engine.refused("inspect containers", error))
    }

    /// What is known of these images, by id. One that is gone is left out.
    pub async fn images(
        &self,
        ids: &BTreeSet<&str>,
    ) -> Result<BTreeMap<String, ImageFacts>, BackendError> {
        let engine = self.engine().await?;
        stream::iter(ids)
            .map(|id| async move {
                match engine
                    .get::<Image>(&format!("/images/{}/json", encoded(id)))
                    .await
                {
                    Ok(image) => Ok(Some(((*id).to_owned(), image_facts(image)))),
                    Err(error) if fault::is_missing(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .buffer_unordered(8)
            .try_filter_map(|found| async { Ok::<_, Error>(found) })
            .try_collect()
            .await
            .map_err(|error| engine.refused("look images up", error))
    }

    /// The volumes of a project, by name.
    pub async fn volumes(&self, project: &str) -> Result<Vec<VolumeFacts>, BackendError> {
        let engine = self.engine().await?;
        let label = format!("{}={project}", labels::PROJECT);
        let filters = serde_json::json!({ "label": [label] }).to_string();
        let reply: Volumes = engine
            .get(&format!("/volumes?filters={}", encoded(&filters)))
            .await
            .map_err(|error| engine.refused("list volumes", error))?;
        let mut volumes = reply.volumes.unwrap_or_default();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }
}

fn image_facts(image: Image) -> ImageFacts {
    let parts = [image.os, image.architecture, image.variant];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    ImageFacts {
        id: image.id,
        platform: parts.join("/"),
        size: image.size,
        created: image.created,
        tagged: image.metadata.last_tag_time,
    }
}

fn listing(entry: Listed) -> Listing {
    let label = |name: &str| entry.labels.get(name).cloned().unwrap_or_default();
    let publishers: Vec<Publisher> = entry
        .ports
        .iter()
        .filter_map(|port| {
            Some(Publisher {
                ip: Some(observe::address(&port.ip)?),
                target: port.private_port,
                published: port.public_port,
                protocol: observe::protocol(&port.protocol)?,
            })
        })
        .collect();
    let readiness = entry
        .labels
        .get(labels::READY)
        .and_then(|text| serde_json::from_str::<Readiness>(text).ok())
        .map(|ready| observe::located(ready, &publishers));
    // A container that others are linked to has several names; its own has one slash.
    let mut own = entry.names.iter().map(|name| name.trim_start_matches('/'));
    let name = own
        .clone()
        .find(|name| !name.contains('/'))
        .or(own.next_back());
    let mut ports: Vec<(String, u16, u16, String)> = entry
        .ports
        .iter()
        .map(|port| {
            let protocol = port.protocol.clone();
            (
                port.ip.clone(),
                port.private_port,
                port.public_port,
                protocol,
            )
        })
        .collect();
    ports.sort_by_key(|(_, target, ..)| *target);
    Listing {
        name: name.unwrap_or_default().to_owned(),
        project: label(labels::PROJECT),
        service: label(labels::SERVICE),
        number: label(labels::NUMBER).parse().unwrap_or(0),
        one_off: label(labels::ONE_OFF) == "True",
        ports,
        networks: entry.network_settings.networks.into_keys().collect(),
        local_volumes: entry
            .mounts
            .iter()
            .filter(|mount| mount.driver == "local")
            .count(),
        mounts: entry
            .mounts
            .into_iter()
            .map(|mount| {
                if mount.name.is_empty() {
                    mount.source
                } else {
                    mount.name
                }
            })
            .collect(),
        readiness,
        id: entry.id,
        image: entry.image,
        image_id: entry.image_id,
        command: entry.command,
        created: entry.created,
        state: entry.state,
        status: entry.status,
        labels: entry.labels,
    }
}
