//! Secrets and configs of a service: files are bound into the container, values are copied into it
//! before it starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::models::{Mount, MountBindOptions, MountType};
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use tar::{Builder, Header};

use super::Engine;
use crate::backend::BackendError;
use crate::plan::step::{InstanceSpec, Stores};
use crate::project::model::{SOCKET_CONFIG, Service, Store, StoreMount, StoreSource};

/// Readable by all, as Docker Compose sets it.
const DEFAULT_MODE: u32 = 0o444;

/// What becomes of the secrets and configs of one instance.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// Files of the host, read-only.
    pub mounts: Vec<Mount>,
    /// Files to write into the container.
    pub files: Vec<Written>,
}

/// A file to write.
#[derive(Debug)]
pub(super) struct Written {
    path: String,
    content: String,
    uid: u64,
    gid: u64,
    mode: u32,
    /// Whether it names an owner: then the engine is told to give it to the container's own user, as Docker Compose
    /// does; without one of its own the file keeps the owner that it names.
    is_owned: bool,
}

/// Whose secrets and configs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    name: &'a str,
    service: &'a Service,
    secrets: &'a BTreeMap<String, Arc<Store>>,
    configs: &'a BTreeMap<String, Arc<Store>>,
}

impl<'a> Wanted<'a> {
    /// Of an instance that is to be made.
    pub(super) fn of(spec: &'a InstanceSpec) -> Self {
        Self {
            name: &spec.name,
            service: &spec.service,
            secrets: &spec.secrets,
            configs: &spec.configs,
        }
    }

    /// Of an instance that exists.
    pub(super) fn existing(name: &'a str, stores: &'a Stores) -> Self {
        Self {
            name,
            service: &stores.service,
            secrets: &stores.secrets,
            configs: &stores.configs,
        }
    }
}

/// Sorts out where each secret and config comes from and goes to.
///
/// # Errors
/// [`BackendError::Unsupported`] for external ones, unset variables, and values for a container whose
/// file system is read-only.
pub(super) async fn of(engine: &Engine, wanted: Wanted<'_>) -> Result<Placed, BackendError> {
    let mut placed = Placed::default();
    let mut credentials = None;
    if wanted
        .service
        .configs
        .iter()
        .any(|mount| mount.source == SOCKET_CONFIG)
    {
        credentials = Some(Arc::new(Store {
            key: SOCKET_CONFIG.to_owned(),
            name: SOCKET_CONFIG.to_owned(),
            source: StoreSource::Content(engine.credentials.as_configuration().await),
        }));
    }
    let secrets = wanted.service.secrets.iter().map(|mount| {
        let target = mount.target.as_deref().unwrap_or(&mount.source);
        let path = if target.starts_with('/') {
            target.to_owned()
        } else {
            format!("/run/secrets/{target}")
        };
        ("secret", mount, wanted.secrets.get(&mount.source), path)
    });
    let configs = wanted.service.configs.iter().map(|mount| {
        let target = mount.target.as_deref().unwrap_or(&mount.source);
        let path = format!("/{}", target.trim_start_matches('/'));
        let store = wanted.configs.get(&mount.source);
        let store = store.or(credentials
            .as_ref()
            .filter(|_| mount.source == SOCKET_CONFIG));
        ("config", mount, store, path)
    });
    for (what, mount, store, path) in secrets.chain(configs) {
        place(wanted, what, mount, store, path, &mut placed)?;
    }
    Ok(placed)
}

fn place(
    wanted: Wanted<'_>,
    what: &str,
    mount: &StoreMount,
    store: Option<&Arc<Store>>,
    path: String,
    placed: &mut Placed,
) -> Result<(), BackendError> {
    let key = &mount.source;
    let refuse = |why: String| Err(BackendError::Unsupported(format!("{}: {why}", wanted.name)));
    let content = match store.map(|store| &store.source) {
        Some(StoreSource::File(file)) => {
            placed.mounts.push(Mount {
                typ: Some(MountType::BIND),
                source: Some(file.display().to_string()),
                target: Some(path),
                read_only: Some(true),
                // As Docker Compose writes them.
                bind_options: (what == "secret").then(MountBindOptions::default),
                ..Mount::default()
            });
            return Ok(());
        }
        Some(StoreSource::Content(text) | StoreSource::Environment(_, Some(text))) => text,
        Some(StoreSource::Environment(variable, None)) => {
            return refuse(format!(
                "{what} `{key}` takes its value from {variable}, which is not set"
            ));
        }
        Some(StoreSource::External) => {
            return refuse(format!(
                "{what} `{key}` is external, and only a swarm keeps such things"
            ));
        }
        None => return refuse(format!("there is no {what} `{key}`")),
    };
    if wanted.service.read_only {
        return refuse(format!(
            "{what} `{key}` cannot be written into a read-only container; give it as a file"
        ));
    }
    let number = |text: &Option<String>, name: &str| match text.as_deref().map(str::parse::<u64>) {
        None => Ok(0),
        Some(Ok(id)) => Ok(id),
        Some(Err(_)) => Err(BackendError::Unsupported(format!(
            "{}: {name} of {what} `{key}` is not a number",
            wanted.name
        ))),
    };
    placed.files.push(Written {
        path,
        content: content.clone(),
        uid: number(&mount.uid, "uid")?,
        gid: number(&mount.gid, "gid")?,
        mode: mount.mode.unwrap_or(DEFAULT_MODE),
        is_owned: mount.uid.is_some() || mount.gid.is_some(),
    });
    Ok(())
}

/// Writes the files into a container that was created and not started yet.
pub(super) async fn write(
    engine: &Engine,
    id: &str,
    name: &str,
    files: &[Written],
) -> Result<(), BackendError> {
    let modified = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    for is_owned in [false, true] {
        let files: Vec<&Written> = files
            .iter()
            .filter(|file| file.is_owned == is_owned)
            .collect();
        if files.is_empty() {
            continue;
        }
        let archive = archive(&files, modified).map_err(|source| BackendError::State {
            action: format!("cannot pack secrets and configs of {name}"),
            source,
        })?;
        let mut options = UploadToContainerOptionsBuilder::new().path("/");
        if is_owned {
            options = options.copy_uidgid("true");
        }
        let body = bollard::body_full(archive.into());
        engine
            .docker
            .upload_to_container(id, Some(options.build()), body)
            .await
            .map_err(|error| {
                engine.refused(format!("write secrets and configs into {name}"), error)
            })?;
    }
    Ok(())
}

fn archive(files: &[&Written], modified: u64) -> std::io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for file in files {
        let mut header = Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_uid(file.uid);
        header.set_gid(file.gid);
        header.set_mode(file.mode);
        header.set_mtime(modified);
        let path = file.path.trim_start_matches('/');
        archive.append_data(&mut header, path, file.content.as_bytes())?;
    }
    archive.into_inner()
}
