//! Files of a container, which need not run, as tar streams (Engine API, `ContainerArchive`).

use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bollard::BollardRequest;
use bollard::errors::Error;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use serde::Deserialize;

use super::Containers;
use super::fault::is_missing;
use super::observe::encoded;
use crate::backend::BackendError;
use crate::backend::parcel::{self, Pieces};

/// What a path in a container is. The mode is that of Go's `os.FileMode`.
const DIRECTORY: u32 = 1 << 31;

/// As [`DIRECTORY`].
const SYMLINK: u32 = 1 << 27;

/// As [`DIRECTORY`]: named pipe, socket, device, irregular.
const SPECIAL: u32 = (1 << 26) | (1 << 25) | (1 << 24) | (1 << 21) | (1 << 19);

/// The header with what is known about a path.
const STAT: &str = "X-Docker-Container-Path-Stat";

/// What is at a path of a container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PathStat {
    mode: u32,
    #[serde(rename = "linkTarget", default)]
    link_target: String,
}

impl PathStat {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & DIRECTORY != 0
    }

    /// Whether it is neither file nor directory nor link.
    pub fn is_special(&self) -> bool {
        self.mode & SPECIAL != 0
    }

    /// Where it leads, if it is a symbolic link.
    pub fn link(&self) -> Option<&str> {
        (self.mode & SYMLINK != 0 && !self.link_target.is_empty())
            .then_some(self.link_target.as_str())
    }

    fn of<T>(response: &Response<T>) -> Result<Self, Error> {
        let missing = || Error::HttpHeaderNotFoundError(STAT.to_owned());
        let header = response.headers().get(STAT).ok_or_else(missing)?;
        let text = BASE64_STANDARD.decode(header.as_bytes());
        Ok(serde_json::from_slice(&text.map_err(|_| missing())?)?)
    }
}

/// A tar stream that the engine sends.
#[derive(Debug)]
pub struct Download(Incoming);

impl Download {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

impl Containers {
    /// What is at a path of a container; `None` where there is nothing.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn stat_path(
        &self,
        id: &str,
        name: &str,
        path: &str,
    ) -> Result<Option<PathStat>, BackendError> {
        let engine = self.engine().await?;
        let found = async {
            let request = request(Method::HEAD, id, &format!("path={}", encoded(path)))?;
            PathStat::of(&engine.wire.checked(request).await?)
        };
        match found.await {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(engine.refused(format!("look at {name}:{path}"), error)),
        }
    }

    /// A file or directory of a container, under its own last name.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn read_archive(
        &self,
        id: &str,
        name: &str,
        path: &str,
    ) -> Result<(PathStat, Download), BackendError> {
        let engine = self.engine().await?;
        let found = async {
            let request = request(Method::GET, id, &format!("path={}", encoded(path)))?;
            let response = engine.wire.checked(request).await?;
            let stat = PathStat::of(&response)?;
            Ok((stat, Download(response.into_body())))
        };
        found
            .await
            .map_err(|error| engine.refused(format!("read {name}:{path}"), error))
    }

    /// Unpacks a tar stream into a directory of a container. `own_ids`: with the owners that it names,
    /// else as root's.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn write_archive(
        &self,
        id: &str,
        name: &str,
        dir: &str,
        pieces: Pieces,
        own_ids: bool,
    ) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        let done = async {
            let query = format!(
                "path={}&noOverwriteDirNonDir=true{}",
                encoded(dir),
                if own_ids { "&copyUIDGID=true" } else { "" }
            );
            let mut request = request(Method::PUT, id, &query)?;
            *request.body_mut() = bollard::body_try_stream(parcel::body(pieces));
            engine.wire.checked(request).await.map(drop)
        };
        done.await
            .map_err(|error| engine.refused(format!("write to {name}:{dir}"), error))
    }
}

fn request(method: Method, id: &str, query: &str) -> Result<BollardRequest, Error> {
    Ok(Request::builder()
        .method(method)
        .uri(format!("/containers/{}/archive?{query}", encoded(id)))
        .header("Content-Type", "application/x-tar")
        .body(bollard::body_full(Bytes::new()))?)
}
