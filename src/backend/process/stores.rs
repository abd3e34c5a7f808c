//! Secrets and configs of a service as files of the instance: a process sees the machine's file system, so it
//! is told where they are. Written when the instance is made; gone with it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use super::dirs::{InstanceDir, failed};
use super::ledger::Account;
use crate::backend::BackendError;
use crate::plan::step::InstanceSpec;
use crate::project::model::{Store, StoreMount, StoreSource};

/// The variable that names the directory of the secrets, and that directory's name.
pub(super) const SECRETS: (&str, &str) = ("WHARF_SECRETS_DIR", "secrets");
/// The same for configs.
pub(super) const CONFIGS: (&str, &str) = ("WHARF_CONFIGS_DIR", "configs");

/// Writes the files of an instance, for `user` alone.
pub(super) fn write(
    dir: &InstanceDir,
    spec: &InstanceSpec,
    user: Option<&Account>,
) -> Result<(), BackendError> {
    let service = &spec.service;
    let stranger = user.is_some_and(|user| user.uid != rustix::process::geteuid().as_raw());
    if stranger && !(service.secrets.is_empty() && service.configs.is_empty()) {
        return Err(BackendError::Unsupported(format!(
            "service {}: it runs as another user, who cannot reach its secrets and configs in {}",
            service.name,
            dir.path().display()
        )));
    }
    for (mounts, stores, kind) in [
        (&service.secrets, &spec.secrets, SECRETS.1),
        (&service.configs, &spec.configs, CONFIGS.1),
    ] {
        let root = dir.store(kind);
        for mount in mounts {
            let content = content(spec, mount, stores.get(&mount.source))?;
            let path = root.join(file_name(mount));
            put(&root, &path, &content, mount.mode, user)
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
        Some(StoreSource::File(file)) => {
            fs::read(file).map_err(|error| failed("read", file, error))
        }
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

fn put(
    root: &Path,
    path: &Path,
    content: &[u8],
    mode: Option<u32>,
    user: Option<&Account>,
) -> std::io::Result<()> {
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
    file.set_permissions(fs::Permissions::from_mode(mode.unwrap_or(0o400)))?;
    if let Some(account) = user {
        for path in [root, path] {
            std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
