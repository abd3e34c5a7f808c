//! The image of relays: wharf's own executable and nothing else but the libraries that it has loaded. It is
//! made here and handed to the engine; nothing is pulled.
//!
//! Its name is known without reading the executable, so that a plan can have it in it: the version, and a
//! digest of the executable's size and time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bollard::errors::Error;
use bollard::query_parameters::RemoveImageOptions;
use futures_util::TryStreamExt as _;
use hyper::{Method, Request};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::connect::hex;
use super::observe::{self, encoded};
use super::reply::{Info, or_default};
use super::{Containers, Engine, PATIENCE, elf, fault, wire};
use crate::backend::BackendError;
use crate::backend::parcel::{self, Stop};
use crate::naming::{ROLE, Role};

/// What the names of all relay images begin with.
const REPOSITORY: &str = "wharf-relay";

/// Where the executable is in the image.
const EXECUTABLE: &str = "/wharf";

/// Digits of the digest in the name.
const DIGITS: usize = 12;

/// The image of relays that run an executable.
#[derive(Clone, Debug)]
pub struct RelayImage {
    name: String,
    /// When the executable was built, as far as its file tells.
    created: Timestamp,
    /// Its entry in `/proc`: it can be read there even when its path leads to a newer one by now.
    process: PathBuf,
}

/// A file of the image, from one that is open.
struct Part {
    /// Absolute.
    inside: PathBuf,
    file: File,
    length: u64,
}

impl RelayImage {
    /// Of this executable.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn own() -> io::Result<Self> {
        Self::of("/proc/self".into())
    }

    /// Of the executable that a process runs.
    ///
    /// # Errors
    /// There is no such process, or it is another user's.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::of(format!("/proc/{pid}").into())
    }

    fn of(process: PathBuf) -> io::Result<Self> {
        let metadata = fs::metadata(process.join("exe"))?;
        let created = Timestamp::new(metadata.mtime(), 0).map_err(io::Error::other)?;
        Ok(Self {
            name: name(&metadata),
            created,
            process,
        })
    }

    /// `wharf-relay:VERSION-DIGEST`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files it is made of. The first is the executable.
    fn parts(&self) -> io::Result<Vec<Part>> {
        let executable = Part::open(&self.process.join("exe"), EXECUTABLE.into())?;
        let interpreter = elf::interpreter(&executable.file)?;
        let mut parts = vec![executable];
        let Some(interpreter) = interpreter else {
            return Ok(parts);
        };
        let loader = Part::open(Path::new(&interpreter), interpreter.clone().into())?;
        let known = loader.identity()?;
        parts.push(loader);
        let own = fs::read_link(self.process.join("exe"))?;
        let maps = fs::read_to_string(self.process.join("maps"))?;
        for path in libraries(&maps, &own.to_string_lossy()) {
            let mut part = Part::open(&path, path.clone())?;
            if part.identity()? == known {
                continue;
            }
            // The path is where links led to; the loader looks for the name that programs ask for.
            if let Some(name) = elf::soname(&part.file)? {
                part.inside.set_file_name(name);
            }
            parts.push(part);
        }
        Ok(parts)
    }

    /// Writes the image as `docker save` does (image specification 1.2).
    fn write(&self, architecture: &str, to: &mut dyn Write) -> io::Result<()> {
        let parts = self.parts()?;
        let mut measured = Measured::default();
        write_layer(&parts, &mut measured)?;
        let config = self.config(architecture, &parts, &measured.digest());
        let manifest = json!([{
            "Config": "config.json",
            "RepoTags": [self.name],
            "Layers": ["layer.tar"],
        }]);
        let mut archive = Builder::new(to);
        for (name, document) in [("manifest.json", manifest), ("config.json", config)] {
            let text = document.to_string();
            let mut header = header(EntryType::Regular, 0o644, text.len() as u64);
            archive.append_data(&mut header, name, text.as_bytes())?;
        }
        let mut header = header(EntryType::Regular, 0o644, measured.length);
        header.set_path("layer.tar")?;
        header.set_cksum();
        // Straight through, so that the layer is nowhere as a whole. It is an archive itself: whole blocks.
        archive.get_mut().write_all(header.as_bytes())?;
        write_layer(&parts, archive.get_mut())?;
        archive.finish()
    }

    fn config(&self, architecture: &str, parts: &[Part], layer: &str) -> Value {
        let created = self.created.to_string();
        let directories: BTreeSet<&Path> = parts
            .iter()
            .skip(1)
            .filter_map(|part| part.inside.parent())
            .collect();
        let directories: Vec<String> = directories
            .iter()
            .map(|directory| directory.display().to_string())
            .collect();
        // The machine's own list of directories (`ld.so.conf`) is not in the image.
        let environment: Vec<String> = (!directories.is_empty())
            .then(|| format!("LD_LIBRARY_PATH={}", directories.join(":")))
            .into_iter()
            .collect();
        json!({
            "architecture": architecture,
            "os": "linux",
            "created": created,
            "config": {
                "Entrypoint": [EXECUTABLE],
                "Env": environment,
                "WorkingDir": "/",
                "Labels": { ROLE: Role::Relay.word() },
            },
            "rootfs": { "type": "layers", "diff_ids": [layer] },
            "history": [{ "created": created, "created_by": "wharf" }],
        })
    }
}

impl Part {
    fn open(path: &Path, inside: PathBuf) -> io::Result<Self> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        Ok(Self {
            inside,
            file,
            length,
        })
    }

    /// Tells files apart, whatever their names.
    fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

impl Containers {
    /// Makes sure that the engine has this image, and removes those of older builds that no container uses.
    ///
    /// # Errors
    /// The engine's refusal; it runs on another architecture; the executable cannot be read.
    pub async fn load_relay_image(&self, image: &RelayImage) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        let refused = |error| engine.refused(format!("load image {}", image.name), error);
        let path = format!("/images/{}/json", encoded(&image.name));
        match engine.get::<Value>(&path).await {
            Ok(_) => return Ok(()),
            Err(error) if fault::is_missing(&error) => {}
            Err(error) => return Err(refused(error)),
        }
        let info: Info = engine.get("/info").await.map_err(refused)?;
        let (own, theirs) = (std::env::consts::ARCH, info.architecture.as_str());
        if go_architecture(own) != go_architecture(theirs) {
            return Err(BackendError::Unsupported(format!(
                "the Docker engine at {} runs on {theirs}, and this wharf was built for {own}: its \
                 containers cannot reach local processes by name",
                engine.info.endpoint
            )));
        }
        load(engine, image).await.map_err(refused)?;
        remove_older(engine, image)
            .await
            .map_err(|error| engine.refused("remove older relay images", error))
    }
}

async fn load(engine: &Engine, image: &RelayImage) -> Result<(), Error> {
    let written = image.clone();
    let (pieces, writing) = parcel::produce(Stop::default(), move |to| {
        written.write(go_architecture(std::env::consts::ARCH), to)
    });
    let request = Request::builder()
        .method(Method::POST)
        .uri("/images/load?quiet=1")
        .header("Content-Type", "application/x-tar")
        .body(bollard::body_try_stream(parcel::body(pieces)))
        .map_err(|err| Error::HttpClientError { err })?;
    let sent = async {
        let response = tokio::time::timeout(PATIENCE, engine.wire.checked(request))
            .await
            .map_err(|_| Error::RequestTimeoutError)??;
        let mut lines = std::pin::pin!(wire::json_lines(response.into_body()));
        while let Some(message) = lines.try_next().await? {
            if let Some(error) = message["error"].as_str() {
                let error = error.to_owned();
                return Err(Error::DockerStreamError { error });
            }
        }
        Ok(())
    };
    let sent = sent.await;
    // Why the image was cut short says more than that it was.
    match writing
        .await
        .map_err(io::Error::other)
        .and_then(|done| done)
    {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => Err(Error::IOError { err }),
        _ => sent,
    }
}

/// An entry of `GET /images/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    id: String,
    #[serde(default)]
    created: i64,
    #[serde(default, deserialize_with = "or_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

async fn remove_older(engine: &Engine, image: &RelayImage) -> Result<(), Error> {
    let filters = json!({ "reference": [REPOSITORY] }).to_string();
    let images: Vec<Kept> = engine
        .get(&format!("/images/json?filters={}", encoded(&filters)))
        .await?;
    let used: BTreeSet<String> = observe::list(engine, &[])
        .await?
        .into_iter()
        .flat_map(|container| [container.image, container.image_id])
        .collect();
    for name in outdated(&images, &used, image) {
        let removed = engine
            .docker
            .remove_image(&name, None::<RemoveImageOptions>, None)
            .await;
        match removed {
            Ok(_) => {}
            // Somebody else was quicker, to remove it or to use it.
            Err(error) if fault::is_missing(&error) || fault::has_status(&error, 409) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The names of relay images that were built before this one and are used by none of the containers.
fn outdated(images: &[Kept], used: &BTreeSet<String>, image: &RelayImage) -> Vec<String> {
    let prefix = format!("{REPOSITORY}:");
    images
        .iter()
        .filter(|kept| kept.labels.get(ROLE).map(String::as_str) == Some(Role::Relay.word()))
        .filter(|kept| kept.created < image.created.as_second() && !used.contains(&kept.id))
        .flat_map(|kept| &kept.repo_tags)
        .filter(|name| name.starts_with(&prefix) && !used.contains(*name))
        .cloned()
        .collect()
}

fn name(executable: &Metadata) -> String {
    let mut hash = Sha256::new();
    hash.update(executable.len().to_be_bytes());
    hash.update(executable.mtime().to_be_bytes());
    hash.update(executable.mtime_nsec().to_be_bytes());
    let digest = hex(&hash.finalize());
    let digest = digest.get(..DIGITS).unwrap_or_default();
    format!("{REPOSITORY}:{}-{digest}", env!("CARGO_PKG_VERSION"))
}

/// The files that a process has loaded code from, besides its own executable (`proc_pid_maps(5)`).
fn libraries(maps: &str, own: &str) -> BTreeSet<PathBuf> {
    let code = maps.lines().filter_map(|line| {
        let mut words = line.splitn(6, ' ');
        let (_, rights) = (words.next()?, words.next()?);
        let path = words.nth(3)?.trim_start();
        // Not `[vdso]`, not a piece of memory.
        (rights.contains('x') && path.starts_with('/') && path != own).then_some(path)
    });
    // One that was replaced since is taken as it is now.
    code.map(|path| PathBuf::from(path.strip_suffix(" (deleted)").unwrap_or(path)))
        .collect()
}

/// The layer: all directories, then all files, as root's and without times.
fn write_layer(parts: &[Part], to: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(to);
    let directories: BTreeSet<&Path> = parts
        .iter()
        .flat_map(|part| part.inside.ancestors().skip(1))
        .filter(|directory| directory.parent().is_some())
        .collect();
    for directory in directories {
        let mut header = header(EntryType::Directory, 0o755, 0);
        archive.append_data(&mut header, relative(directory), io::empty())?;
    }
    for part in parts {
        let mut header = header(EntryType::Regular, 0o755, part.length);
        let mut content = Whole {
            file: &part.file,
            at: 0,
            length: part.length,
        };
        archive.append_data(&mut header, relative(&part.inside), &mut content)?;
    }
    archive.finish()
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// A file from its beginning, wherever others read it.
struct Whole<'a> {
    file: &'a File,
    at: u64,
    length: u64,
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let left = usize::try_from(self.length - self.at).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        let Some(buffer) = buffer.get_mut(..count).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let count = self.file.read_at(buffer, self.at)?;
        if count == 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.at += count as u64;
        Ok(count)
    }
}

/// Counts and digests what is written.
#[derive(Default)]
struct Measured {
    hash: Sha256,
    length: u64,
}

impl Measured {
    fn digest(&self) -> String {
        format!("sha256:{}", hex(&self.hash.clone().finalize()))
    }
}

impl Write for Measured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What images call an architecture, from the words of `uname -m` and of Rust.
fn go_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv6l" | "armv7l" => "arm",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}
