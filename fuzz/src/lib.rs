//! What the fuzz targets share: files that live in memory, one way to load them, and what must hold
//! of every load besides that it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use wharf::project::config::{self, Request};
use wharf::project::diagnostic::Severity;
use wharf::project::model::Project;
use wharf::project::{Env, Files, LoadError, LoadOptions, load};

/// Where the files of a load are.
const DIRECTORY: &str = "/srv/project";

/// Files by path; nothing else exists.
#[derive(Debug, Default)]
pub struct Memory {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Memory {
    /// With one more file in the project's directory.
    #[must_use]
    pub fn with(mut self, name: &str, bytes: &[u8]) -> Self {
        self.files
            .insert(Path::new(DIRECTORY).join(name), bytes.to_vec());
        self
    }

    fn directories(&self) -> BTreeSet<&Path> {
        self.files
            .keys()
            .flat_map(|file| file.ancestors().skip(1))
            .collect()
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path) || self.is_dir(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.directories().contains(path)
    }
}

/// An environment with set, empty and odd variables.
fn env() -> Env {
    let variables = [
        ("HOME", "/home/someone"),
        ("A", "1"),
        ("EMPTY", ""),
        ("TEXT", "two words"),
        ("DOLLAR", "$A ${A}"),
    ];
    Env {
        variables: variables
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        current_dir: PathBuf::from(DIRECTORY),
    }
}

/// Loads `compose.yaml` as every command does, and shows it as `config` does.
///
/// # Panics
/// When a load fails without an error that says why.
pub fn check(files: &Memory) -> Option<Project> {
    shown(files);
    match load(&LoadOptions::default(), &env(), files) {
        Ok(loaded) => Some(loaded.project),
        Err(error) => {
            explained(&error);
            None
        }
    }
}

/// As [`check`], and what `config` writes is a fixed point. Not for any file at all: what Compose
/// writes of a device without a source, say, or of an optional dependency on nothing, it refuses.
///
/// # Panics
/// As `check`, and when `config` of what `config` wrote differs.
pub fn check_again(files: &Memory) -> Option<Project> {
    if let Some(first) = shown(files) {
        // What is shown stands alone: no other file, no variable.
        let alone = Memory::default().with("compose.yaml", first.as_bytes());
        let second = shown(&alone).map(|text| single_dollars(&text));
        assert_eq!(Some(single_dollars(&first)), second);
    }
    check(files)
}

fn shown(files: &Memory) -> Option<String> {
    match config::show(&Request::default(), &env(), files) {
        Ok(shown) => Some(shown.text),
        Err(error) => {
            explained(&error);
            None
        }
    }
}

fn explained(error: &LoadError) {
    assert!(
        error
            .diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error),
        "a load failed without an error: {error:?}"
    );
}

/// A text as a YAML scalar that means exactly it. Only ASCII is written as it is: YAML refuses some
/// of the rest where it is not escaped.
pub fn quoted(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out += &format!("\\U{:08x}", u32::from(c)),
        }
    }
    out + "\""
}

/// Runs of `$` as one: `config` doubles them in keys too, as Compose does, but loading halves them in
/// values only.
fn single_dollars(text: &str) -> String {
    let mut out = text.to_owned();
    while out.contains("$$") {
        out = out.replace("$$", "$");
    }
    out
}
