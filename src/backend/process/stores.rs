//! Secrets and configs of a service as files of the instance: a process sees the machine's file system, so it
//! is told where they are. Written when the instance is made; gone with it. What comes from a file is read again
//! before each run, so that a restart sees what a bind mount would show.
//!
//! A service that runs as another user cannot reach the instance's directory, which is closed to all but
//! wharf's user. For it they are copied, at each start, to where that user alone can read them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::dirs::{InstanceDir, failed};
use super::ledger::Account;
use super::refusal::Refusal;
use super::regular;
use crate::backend::BackendError;
use crate::plan::step::InstanceSpec;
use crate::project::model::{Store, StoreMount, StoreSource};

/// The variable that names the directory of the secrets, and that directory's name.
pub(super) const SECRETS: (&str, &str) = ("WHARF_SECRETS_DIR", "secrets");
/// The same for configs.
pub(super) const CONFIGS: (&str, &str) = ("WHARF_CONFIGS_DIR", "configs");

/// Where the copies for other users are. Only root can run a service as somebody else, so it is root's.
const OPEN_ROOT: &str = "/run/wharf";

/// A file of an instance that comes from another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The name of its directory.
    kind: String,
    /// Its name there.
    name: String,
    /// What it is a copy of.
    source: PathBuf,
}

impl Copied {
    /// Those of an instance that are to be read again. What was no regular file was there once, for one reader.
    pub(super) fn all(spec: &InstanceSpec) -> Vec<Self> {
        let mut all = Vec::new();
        for (mounts, stores, kind) in kinds(spec) {
            for mount in mounts {
                let store = stores.get(&mount.source).map(|store| &store.source);
                if let Some(StoreSource::File(source)) = store
                    && source.is_file()
                {
                    all.push(Self {
                        kind: kind.to_owned(),
                        name: file_name(mount).to_owned(),
                        source: source.clone(),
                    });
                }
            }
        }
        all
    }

    /// Why it stays as it is, if it has to.
    pub(super) fn stale(&self) -> Option<String> {
        let why = regular::open(&self.source).err()?;
        Some(format!(
            "{} of {} stays as it was: cannot read {}: {why}",
            self.name,
            self.kind,
            self.source.display()
        ))
    }

    /// Copies it again, in one piece, if it has changed. One whose source cannot be read stays, and is told of.
    fn refresh(&self, dir: &InstanceDir) -> io::Result<Option<String>> {
        let Ok(content) = regular::read(&self.source) else {
            return Ok(self.stale());
        };
        let path = dir.store(&self.kind).join(&self.name);
        let before = fs::read(&path);
        if before.is_ok_and(|before| before == content) {
            return Ok(None);
        }
        let mode = fs::metadata(&path).map_or(0o400, |found| found.permissions().mode());
        // Beside the directory: nobody must find half a file there, nor be given it.
        let new = dir.store(&format!("{}.new", self.kind));
        let written = remove(&new)
            .and_then(|()| put(&dir.store(&self.kind), &new, &content, Some(mode & 0o7777)))
            .and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            drop(fs::remove_file(&new));
        }
        written.map(|()| None)
    }
}

/// Copies the files of an instance again, before a run; what cannot be read, in words.
///
/// # Errors
/// A file cannot be written.
pub fn refresh(dir: &InstanceDir, files: &[Copied]) -> Result<Vec<String>, BackendError> {
    let mut stale = Vec::new();
    for file in files {
        let path = dir.store(&file.kind).join(&file.name);
        let refreshed = file.refresh(dir);
        stale.extend(refreshed.map_err(|error| failed("write", &path, error))?);
    }
    Ok(stale)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The directory in which a process of this user finds the files.
pub(super) fn place(dir: &InstanceDir, kind: &str, user: Option<&Account>) -> PathBuf {
    match user.filter(|user| is_stranger(user)) {
        Some(_) => copies(dir).join(kind),
        None => dir.store(kind),
    }
}

/// Copies the files to where this user can read them, and nobody else; nothing where our user is meant.
///
/// # Errors
/// A file cannot be read or written.
pub fn expose(dir: &InstanceDir, user: Option<&Account>) -> Result<(), BackendError> {
    let Some(user) = user.filter(|user| is_stranger(user)) else {
        return Ok(());
    };
    let kinds: Vec<&str> = [SECRETS.1, CONFIGS.1]
        .into_iter()
        .filter(|kind| dir.store(kind).is_dir())
        .collect();
    if kinds.is_empty() {
        return Ok(());
    }
    conceal(dir)?;
    let root = copies(dir);
    let copied = open_root(Path::new(OPEN_ROOT))
        .and_then(|()| fs::DirBuilder::new().mode(0o700).create(&root))
        .and_then(|()| {
            for kind in kinds {
                copy(&dir.store(kind), &root.join(kind), user)?;
            }
            // Last: until then nobody else can get in.
            chown(&root, Some(user.uid), Some(user.gid))
        });
    copied.map_err(|error| failed("write", &root, error))
}

/// Takes the copies away.
pub(super) fn conceal(dir: &InstanceDir) -> Result<(), BackendError> {
    let root = copies(dir);
    match fs::remove_dir_all(&root) {
        Ok(()) => Ok(()),
        Err(error) if is_none(&error, rustix::process::geteuid().is_root()) => Ok(()),
        Err(error) => Err(failed("remove", &root, error)),
    }
}

/// Whether there are no copies. Only root makes any: where root's directory is closed to us, none of them are ours.
fn is_none(error: &io::Error, is_root: bool) -> bool {
    let is_closed = error.kind() == io::ErrorKind::PermissionDenied;
    error.kind() == io::ErrorKind::NotFound || is_closed && !is_root
}

fn is_stranger(user: &Account) -> bool {
    user.uid != rustix::process::geteuid().as_raw()
}

fn copies(dir: &InstanceDir) -> PathBuf {
    let hash = Sha256::digest(dir.path().as_os_str().as_bytes());
    let hash = hash
        .iter()
        .take(8)
        .fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    Path::new(OPEN_ROOT).join(format!("{hash:016x}"))
}

/// Makes the directory above the copies, through which everybody may pass; one that somebody else could
/// change is refused.
fn open_root(root: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o711).create(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(root)?;
    let is_ours = found.uid() == rustix::process::geteuid().as_raw();
    if !found.is_dir() || !is_ours || found.mode() & 0o022 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is not this user's alone", root.display()),
        ));
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, user: &Account) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to.join(entry.file_name()))?;
        file.write_all(&fs::read(entry.path())?)?;
        file.set_permissions(entry.metadata()?.permissions())?;
        std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    chown(to, Some(user.uid), Some(user.gid))
}

/// What a service mounts of secrets and configs, where each comes from, and the name of its directory.
type Kinds<'a> = [(
    &'a [StoreMount],
    &'a BTreeMap<String, Arc<Store>>,
    &'static str,
); 2];

fn kinds(spec: &InstanceSpec) -> Kinds<'_> {
    let service = &spec.service;
    [
        (&service.secrets, &spec.secrets, SECRETS.1),
        (&service.configs, &spec.configs, CONFIGS.1),
    ]
}

/// Whether the files of an instance can be written, as far as their contents and names go.
pub(super) fn check(spec: &InstanceSpec) -> Result<(), BackendError> {
    for (mounts, stores, kind) in kinds(spec) {
        check_names(&spec.service.name, kind, mounts)?;
        for mount in mounts {
            content(spec, mount, stores.get(&mount.source))?;
        }
    }
    Ok(())
}

/// Two targets that are different paths in a container may have one name here; one of them would be lost.
fn check_names(service: &str, kind: &str, mounts: &[StoreMount]) -> Result<(), BackendError> {
    let mut seen: BTreeMap<&str, &StoreMount> = BTreeMap::new();
    for mount in mounts {
        let name = file_name(mount);
        if let Some(other) = seen.insert(name, mount)
            && other.source != mount.source
        {
            let target = |it: &StoreMount| it.target.clone().unwrap_or_else(|| it.source.clone());
            return Err(BackendError::Unsupported(format!(
                "service {service}: {kind} {} and {} would both be the file {name} of a local process, at {} and {}: \
                 give one of the targets another last part",
                other.source,
                mount.source,
                target(other),
                target(mount),
            )));
        }
    }
    Ok(())
}

/// Writes the files of an instance.
pub(super) fn write(dir: &InstanceDir, spec: &InstanceSpec) -> Result<(), BackendError> {
    for (mounts, stores, kind) in kinds(spec) {
        check_names(&spec.service.name, kind, mounts)?;
        let root = dir.store(kind);
        for mount in mounts {
            let store = stores.get(&mount.source);
            let content = content(spec, mount, store)?;
            let path = root.join(file_name(mount));
            // It may be there, for another target with this last part, and closed to all but root.
            remove(&path)
                .and_then(|()| put(&root, &path, &content, mount.mode))
                .and_then(|()| match store.map(|store| &store.source) {
                    Some(StoreSource::File(_)) => Ok(()),
                    // It is not read again before a run: an empty one after a power failure would stay.
                    _ => File::open(&path)?.sync_data(),
                })
                .map_err(|error| failed("write", &path, error))?;
        }
    }
    Ok(())
}

/// A target that is a path in a container is named by its last part here.
fn file_name(mount: &StoreMount) -> &str {
    let target = mount.target.as_deref().unwrap_or(&mount.source);
    target
        .rsplit('/')
        .find(|part| !matches!(*part, "" | "." | ".."))
        .unwrap_or(&mount.source)
}

fn content(
    spec: &InstanceSpec,
    mount: &StoreMount,
    store: Option<&Arc<Store>>,
) -> Result<Vec<u8>, BackendError> {
    let refuse = |why: &str| {
        BackendError::Unsupported(format!(
            "service {}: {} {why}",
            spec.service.name, mount.source
        ))
    };
    match store.map(|store| &store.source) {
        Some(StoreSource::File(file)) => fs::read(file).map_err(|source| BackendError::State {
            action: format!(
                "service {}: cannot read {}, which {} is to come from",
                spec.service.name,
                file.display(),
                mount.source
            ),
            source: Refusal {
                errno: source.raw_os_error(),
                message: source.to_string(),
                hint: format!(
                    "{}, or correct `file` of `{}`",
                    if source.kind() == io::ErrorKind::PermissionDenied {
                        "let this user read it"
                    } else if source.kind() == io::ErrorKind::IsADirectory {
                        "put a file there"
                    } else {
                        "make it"
                    },
                    mount.source
                ),
            }
            .into(),
        }),
        Some(StoreSource::Environment(_, Some(value))) => Ok(value.clone().into_bytes()),
        Some(StoreSource::Environment(name, None)) => Err(refuse(&format!(
            "comes from the variable {name}, which is not set"
        ))),
        Some(StoreSource::Content(text)) => Ok(text.clone().into_bytes()),
        Some(StoreSource::External) => {
            Err(refuse("is external: there is no platform to ask for it"))
        }
        None => Err(refuse("is not defined")),
    }
}

fn put(root: &Path, path: &Path, content: &[u8], mode: Option<u32>) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.set_permissions(fs::Permissions::from_mode(mode.unwrap_or(0o400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_targets_of_one_name_are_refused_unless_they_are_the_same() {
        let mount = |source: &str, target: Option<&str>| StoreMount {
            source: source.into(),
            target: target.map(str::to_owned),
            uid: None,
            gid: None,
            mode: None,
        };
        let check = |one, other| check_names("api", "secrets", &[one, other]);
        let refused = check(
            mount("one", Some("/a/key.pem")),
            mount("two", Some("/b/key.pem")),
        );
        let refused = refused.unwrap_err().to_string();
        for word in ["service api", "one and two", "/a/key.pem and /b/key.pem"] {
            assert!(refused.contains(word), "{refused}");
        }
        assert!(check(mount("one", None), mount("two", Some("/b/one"))).is_err());
        assert!(check(mount("one", None), mount("one", Some("/b/one"))).is_ok());
        assert!(check(mount("one", None), mount("two", None)).is_ok());
    }

    #[test]
    fn where_only_root_may_look_nobody_else_has_copies() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(is_none(&denied, false));
        assert!(!is_none(&denied, true));
        assert!(is_none(&io::ErrorKind::NotFound.into(), true));
        assert!(!is_none(&io::ErrorKind::StorageFull.into(), false));
    }

    #[test]
    fn a_path_in_a_container_becomes_a_name() {
        let named = |source: &str, target: Option<&str>| {
            let mount = StoreMount {
                source: source.into(),
                target: target.map(str::to_owned),
                uid: None,
                gid: None,
                mode: None,
            };
            file_name(&mount).to_owned()
        };
        assert_eq!(named("key", None), "key");
        assert_eq!(named("key", Some("/etc/app/tls.pem")), "tls.pem");
        assert_eq!(named("key", Some("../..")), "key");
    }
}
