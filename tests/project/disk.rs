//! A disk that is a table.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use wharf::project::{Env, Files, LoadError, LoadOptions, Loaded, load};

/// Files by absolute path.
#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<PathBuf, Vec<u8>>);

impl Table {
    /// Files below `/p`.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        Self(
            files
                .iter()
                .map(|(path, text)| (Path::new("/p").join(path), text.as_bytes().to_vec()))
                .collect(),
        )
    }

    /// One more file, of any bytes.
    pub(crate) fn with(mut self, path: &str, bytes: &[u8]) -> Self {
        self.0.insert(Path::new("/p").join(path), bytes.to_vec());
        self
    }
}

impl Files for Table {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.0
            .get(path)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no such file"))
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.contains_key(path) || self.is_dir(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.0
            .keys()
            .any(|file| file != path && file.starts_with(path))
    }
}

/// An environment in `/p`.
pub(crate) fn env(variables: &[(&str, &str)]) -> Env {
    Env {
        variables: variables
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        current_dir: PathBuf::from("/p"),
    }
}

/// Loads one file called `compose.yaml`.
pub(crate) fn one(text: &str) -> Result<Loaded, LoadError> {
    load(
        &LoadOptions::default(),
        &env(&[]),
        &Table::new(&[("compose.yaml", text)]),
    )
}
