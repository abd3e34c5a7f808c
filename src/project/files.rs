//! The real disk and the real environment: the only files and variables that loading sees come
//! through here.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Env, Files};

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        std::fs::read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        // What may not be looked at may be there: reading it says why not.
        let is_hidden =
            |error: std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
        path.try_exists().unwrap_or_else(is_hidden)
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn link(&self, path: &Path) -> Option<PathBuf> {
        std::fs::read_link(path).ok()
    }
}

impl Env {
    /// The environment of this process. Variables that are not UTF-8 are left out. The current
    /// directory is `PWD` where that names it, so that a directory reached through a symbolic link
    /// keeps the name that the user sees.
    ///
    /// # Errors
    /// When there is no current directory any more.
    pub fn from_process() -> std::io::Result<Self> {
        let variables: std::collections::BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the edge that everybody else takes the directory from"
        )]
        let real = std::env::current_dir()?;
        let named = variables
            .get("PWD")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute() && same(path, &real));
        Ok(Self {
            variables,
            current_dir: named.unwrap_or(real),
        })
    }
}

/// Whether two paths name the same directory.
fn same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
