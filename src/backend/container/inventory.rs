//! What only the engine knows and others ask for: named resources, exit codes, last lines.

use std::collections::{BTreeMap, BTreeSet};

use bollard::errors::Error;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::observe::{self, encoded};
use super::reply::{Image, Named, Volumes, unix_seconds};
use super::{Containers, Engine, fault, labels, logs};
use crate::backend::BackendError;

/// What a project names outside itself.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Networks, by the engine's name.
    pub networks: BTreeSet<String>,
    /// Volumes, by the engine's name.
    pub volumes: BTreeSet<String>,
    /// Images, by reference.
    pub images: BTreeSet<String>,
    /// Whether what has the project's label is asked for where nothing is named.
    pub labelled: bool,
}

/// What exists of a project besides its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Networks that have the project's label or that it names.
    pub networks: BTreeSet<String>,
    /// The configuration's hash of those with the project's label.
    pub network_hashes: BTreeMap<String, String>,
    /// Networks whose name is not the only one of its kind, and the ids of those that others made.
    pub doubled: BTreeMap<String, Vec<String>>,
    /// Volumes that have the project's label or that it names.
    pub volumes: BTreeSet<String>,
    /// The configuration's hash of those with the project's label.
    pub volume_hashes: BTreeMap<String, String>,
    /// Images it names: reference and id.
    pub images: BTreeMap<String, String>,
    /// When they were last pulled, built or tagged: reference and Unix seconds.
    pub tagged: BTreeMap<String, i64>,
    /// What they are for: reference and `os/architecture/variant`.
    pub platforms: BTreeMap<String, String>,
}

impl Containers {
    /// What exists among what the project names or has labelled.
    pub async fn resources(&self, project: &str, names: &Names) -> Result<Resources, BackendError> {
        let engine = self.engine().await?;
        let ((networks, network_hashes, doubled), (volumes, volume_hashes, _), images) = tokio::try_join!(
            async {
                if names.networks.is_empty() && !names.labelled {
                    return Ok(Chosen::default());
                }
                let all = engine.get::<Vec<Named>>("/networks");
                all.await
                    .map(|all| chosen(all, project, &names.networks))
                    .map_err(|error| engine.refused("list networks", error))
            },
            async {
                if names.volumes.is_empty() && !names.labelled {
                    return Ok(Chosen::default());
                }
                let all = engine.get::<Volumes>("/volumes");
                all.await
                    .map(|all| chosen(all.volumes, project, &names.volumes))
                    .map_err(|error| engine.refused("list volumes", error))
            },
            async {
                images(engine, &names.images)
                    .await
                    .map_err(|error| engine.refused("look images up", error))
            },
        )?;
        let tagged = images
            .iter()
            .map(|(reference, image)| {
                let time = unix_seconds(&image.metadata.last_tag_time);
                (reference.clone(), time.unwrap_or_default())
            })
            .collect();
        let platforms = images
            .iter()
            .map(|(reference, image)| {
                let mut platform = format!("{}/{}", image.os, image.architecture);
                if !image.variant.is_empty() {
                    platform = format!("{platform}/{}", image.variant);
                }
                (reference.clone(), platform)
            })
            .collect();
        let images = images
            .into_iter()
            .map(|(reference, image)| (reference, image.id))
            .collect();
        Ok(Resources {
            networks,
            network_hashes,
            doubled,
            volumes,
            volume_hashes,
            images,
            tagged,
            platforms,
        })
    }

    /// The exit code of a container that has ended; `None` while it lives or if there is none.
    pub async fn exit_code(&self, id: &str) -> Result<Option<i32>, BackendError> {
        let engine = self.engine().await?;
        let inspected = observe::inspect(engine, id)
            .await
            .map_err(|error| engine.refused(format!("inspect {id}"), error))?;
        Ok(inspected
            .filter(|container| !container.state.running)
            .map(|container| observe::exit_code(&container.state)))
    }

    /// The last `n` lines of a container's output, both streams.
    pub async fn last_lines(&self, id: &str, n: u64) -> Result<Vec<String>, BackendError> {
        let engine = self.engine().await?;
        logs::last_lines(engine, id, n)
            .await
            .map_err(|error| engine.refused(format!("read the output of {id}"), error))
    }
}

/// Names, recorded hashes by name, and by the names that occur more than once the ids of what is not ours.
type Chosen = (
    BTreeSet<String>,
    BTreeMap<String, String>,
    BTreeMap<String, Vec<String>>,
);

/// The names that are asked for or of the project, the recorded hashes of the project's own, and doubles.
fn chosen(all: Vec<Named>, project: &str, named: &BTreeSet<String>) -> Chosen {
    let (mut names, mut hashes) = (BTreeSet::new(), BTreeMap::new());
    let mut seen: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    for mut entry in all {
        let is_ours = entry.is_of(project);
        let (count, foreign) = seen.entry(entry.name.clone()).or_default();
        *count += 1;
        if !is_ours {
            foreign.push(entry.id.clone());
        }
        if is_ours {
            // Old versions of Docker Compose recorded none.
            let hash = entry.labels.remove(labels::CONFIG_HASH);
            hashes.insert(entry.name.clone(), hash.unwrap_or_default());
        }
        if is_ours || named.contains(&entry.name) {
            names.insert(entry.name);
        }
    }
    let doubled = seen
        .into_iter()
        .filter(|(name, (count, _))| *count > 1 && names.contains(name))
        .map(|(name, (_, foreign))| (name, foreign))
        .collect();
    (names, hashes, doubled)
}

async fn images(
    engine: &Engine,
    references: &BTreeSet<String>,
) -> Result<BTreeMap<String, Image>, Error> {
    stream::iter(references)
        .map(|reference| async move {
            let found = image(engine, reference).await?;
            Ok(found.map(|image| (reference.clone(), image)))
        })
        .buffer_unordered(8)
        .try_filter_map(|found| async { Ok(found) })
        .try_collect()
        .await
}

/// Looks an image up by reference or id.
pub(super) async fn image(engine: &Engine, reference: &str) -> Result<Option<Image>, Error> {
    let path = format!(
        "/images/{}/json",
        reference
            .split('/')
            .map(encoded)
            .collect::<Vec<_>>()
            .join("/")
    );
    match engine.get(&path).await {
        Ok(image) => Ok(Some(image)),
        Err(error) if fault::is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
