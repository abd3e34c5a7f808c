//! Files of this machine into containers that run, for `develop.watch`: what is there is sent through the
//! archive API, what is gone is removed by the container's own `rm`, because that API cannot remove.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bollard::query_parameters::{
    ListImagesOptionsBuilder, RemoveImageOptions, UploadToContainerOptionsBuilder,
};
use tar::{Builder, EntryType, Header};

use super::hooks::{self, Hook};
use super::{Containers, Engine};
use crate::backend::BackendError;
use crate::event::Events;
use crate::project::model;

/// Bytes of files sent in one request.
const PORTION: u64 = 16 * 1024 * 1024;

/// Paths removed by one command.
const REMOVED_AT_ONCE: usize = 500;

impl Containers {
    /// Makes files inside a container (absolute paths) as those of this machine are: copies them, or removes
    /// them where there is none. They belong to root, as in an image.
    pub async fn sync(
        &self,
        id: &str,
        name: &str,
        pairs: &[(PathBuf, String)],
        events: &Events,
    ) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        let mut gone = Vec::new();
        let mut portion = Vec::new();
        let mut size = 0;
        for (host, inside) in pairs {
            match fs::symlink_metadata(host) {
                Ok(data) => {
                    size += data.len();
                    portion.push((host.clone(), inside.clone()));
                }
                Err(error) if absent(&error) => gone.push(inside.clone()),
                Err(source) => return Err(unreadable(host, source)),
            }
            if size >= PORTION {
                send(engine, id, name, std::mem::take(&mut portion)).await?;
                size = 0;
            }
        }
        for paths in gone.chunks(REMOVED_AT_ONCE) {
            let words = ["rm", "-rf", "--"].map(str::to_owned);
            let hook = model::Hook {
                command: [words.as_slice(), paths].concat(),
                user: Some("0".to_owned()),
                privileged: false,
                working_dir: Some("/".to_owned()),
                environment: Vec::new(),
            };
            self.run_hook(id, name, "sync", &hook, events).await?;
        }
        send(engine, id, name, portion).await
    }

    /// Runs a command in a container; its output is the instance's.
    ///
    /// # Errors
    /// [`BackendError::Hook`] where it ends with another code than 0.
    pub async fn run_hook(
        &self,
        id: &str,
        name: &str,
        what: &str,
        hook: &model::Hook,
        events: &Events,
    ) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        let command = hook.command.first().cloned().unwrap_or_default();
        let (code, last_lines) = hooks::execute(engine, id, name, Hook::of(hook), events)
            .await
            .map_err(|error| engine.refused(format!("run `{command}` in {name}"), error))?;
        if code == 0 {
            return Ok(());
        }
        Err(BackendError::Hook {
            name: name.to_owned(),
            what: what.to_owned(),
            service: None,
            command,
            code,
            last_lines,
        })
    }

    /// Removes images of a project that have no name any more. What is in use stays.
    pub async fn prune_images(&self, project: &str) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        let filters = std::collections::HashMap::from([
            ("dangling", vec!["true".to_owned()]),
            (
                "label",
                vec![format!("{}={project}", super::labels::PROJECT)],
            ),
        ]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let images = engine
            .docker
            .list_images(Some(options))
            .await
            .map_err(|error| engine.refused("list images", error))?;
        for image in images {
            let removed = engine
                .docker
                .remove_image(&image.id, None::<RemoveImageOptions>, None)
                .await;
            // In use, or gone: either is well.
            drop(removed);
        }
        Ok(())
    }
}

async fn send(
    engine: &Engine,
    id: &str,
    name: &str,
    portion: Vec<(PathBuf, String)>,
) -> Result<(), BackendError> {
    if portion.is_empty() {
        return Ok(());
    }
    let packed = tokio::task::spawn_blocking(move || archive(&portion)).await;
    let packed = packed.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    let packed = packed.map_err(|source| BackendError::State {
        action: format!("cannot pack files for {name}"),
        source,
    })?;
    let options = UploadToContainerOptionsBuilder::new()
        .path("/")
        .copy_uidgid("true")
        .build();
    engine
        .docker
        .upload_to_container(id, Some(options), bollard::body_full(packed.into()))
        .await
        .map_err(|error| engine.refused(format!("write files into {name}"), error))
}

fn archive(files: &[(PathBuf, String)]) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (host, inside) in files {
        match add(&mut archive, host, inside.trim_start_matches('/')) {
            // Gone since: that is a change of its own.
            Err(error) if absent(&error) => {}
            other => other?,
        }
    }
    archive.into_inner()
}

fn add(archive: &mut Builder<Vec<u8>>, host: &Path, inside: &str) -> io::Result<()> {
    let data = fs::symlink_metadata(host)?;
    if data.is_symlink() {
        let mut header = header(EntryType::Symlink, &data, 0);
        return archive.append_link(&mut header, inside, fs::read_link(host)?);
    }
    if data.is_dir() {
        let mut header = header(EntryType::Directory, &data, 0);
        return archive.append_data(&mut header, inside, io::empty());
    }
    if !data.is_file() {
        // Sockets and pipes mean nothing elsewhere.
        return Ok(());
    }
    // What is written to at this moment may be shorter than it was: read it first.
    let mut content = Vec::new();
    io::Read::read_to_end(&mut File::open(host)?, &mut content)?;
    let mut header = header(EntryType::Regular, &data, content.len() as u64);
    archive.append_data(&mut header, inside, content.as_slice())
}

fn header(kind: EntryType, data: &Metadata, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(data.permissions().mode() & 0o7777);
    header.set_mtime(u64::try_from(data.mtime()).unwrap_or(0));
    header
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn unreadable(path: &Path, source: io::Error) -> BackendError {
    BackendError::State {
        action: format!("cannot read {}", path.display()),
        source,
    }
}
