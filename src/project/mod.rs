//! TEXT → PROJECT. Pure: the disk only through `Files`, the environment only through `Env`.

pub mod diagnostic;
pub mod model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use diagnostic::Diagnostic;
use model::Project;

/// The user's environment at start: the only way to variables and to the current directory.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// The variables.
    pub variables: BTreeMap<String, String>,
    /// The current directory, absolute.
    pub current_dir: PathBuf,
}

impl Env {
    /// The value of a variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

/// The disk, as far as loading needs it.
pub trait Files {
    /// The bytes of a file (`-`: standard input).
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;
    /// Whether a file or directory is there.
    fn exists(&self, path: &Path) -> bool;
    /// Whether it is a directory.
    fn is_dir(&self, path: &Path) -> bool;
}

/// What was asked on the command line, as far as loading needs it.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `-f`, in order.
    pub files: Vec<PathBuf>,
    /// `-p`.
    pub name: Option<String>,
    /// `--project-directory`.
    pub directory: Option<PathBuf>,
    /// `--env-file`, in order.
    pub env_files: Vec<PathBuf>,
    /// `--profile`.
    pub profiles: Vec<String>,
    /// `SERVICE…`: these and their dependencies; empty: all enabled ones.
    pub services: Vec<String>,
    /// `--no-deps`: without their dependencies.
    pub no_deps: bool,
}

/// A project and what was odd about its files.
#[derive(Debug)]
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// Warnings, in reading order.
    pub warnings: Vec<Diagnostic>,
}

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
#[error("the project cannot be loaded")]
pub struct LoadError {
    /// Every mistake found, and the warnings; at least one is an error.
    pub diagnostics: Vec<Diagnostic>,
    /// Exit code 3 for invalid files, 1 where no file was found or read, 2 for an unknown service.
    pub kind: LoadErrorKind,
}

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadErrorKind {
    /// A compose or env file is wrong.
    Invalid,
    /// No compose file was found, or one cannot be read.
    Unreadable,
    /// The command line names what does not exist.
    Usage,
}
