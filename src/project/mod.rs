//! TEXT → PROJECT. Pure: the disk only through `Files`, the environment only through `Env`.
//!
//! `load` is the stages in order: `locate` the files, read each into a tree (`node`), put them on
//! top of each other (`layers`: `interpolate`, `merge`, `unique`, `validate`, `canonical`, `paths`),
//! `normalise`, `cast` every value to its type, `select` the services that take part, check their
//! `consistency`, resolve their `environment`, and build the model (`typed`). Every mistake of a
//! stage is reported before the next one runs.

mod base64;
mod build;
mod canonical;
mod cast;
mod claims;
pub mod config;
mod consistency;
pub mod diagnostic;
mod dotenv;
mod environment;
mod extends;
mod extension;
pub mod files;
mod include;
mod interpolate;
mod layers;
mod limits;
mod locate;
mod merge;
pub mod model;
mod mounts;
mod node;
mod normalise;
pub mod once;
mod outside;
mod paths;
pub mod platform;
mod published;
mod quantity;
pub mod reference;
mod render;
mod report;
mod reset;
mod resources;
mod scalar;
mod schema;
mod select;
mod shape;
pub mod shell;
mod short;
mod socket;
mod tree;
mod typed;
mod unique;
mod validate;
mod watch;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use claims::check_ports;
pub use files::Disk;

use crate::naming::normal_name;
use diagnostic::{Diagnostic, Severity};
use layers::{Layers, Scope};
use model::{Project, Separator};
use report::Report;
use select::Services;
use tree::{Map, Node, Value};

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
    /// What it names, if it is a symbolic link.
    fn link(&self, _path: &Path) -> Option<PathBuf> {
        None
    }
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
    /// `--compatibility`: names as Compose 1 made them.
    pub compatibility: bool,
    /// `--all-resources`: networks, volumes, secrets and configs that no service uses stay.
    pub all_resources: bool,
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
    /// No compose file was found, and none was named.
    NotFound,
    /// A compose file cannot be read.
    Unreadable,
    /// The command line names what does not exist.
    Usage,
}

/// Which stages run: all of them, unless `config` was asked to leave some out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one switch per stage, as the command line has them"
)]
pub(crate) struct Stages {
    pub(crate) interpolate: bool,
    pub(crate) normalise: bool,
    pub(crate) paths: bool,
    pub(crate) consistency: bool,
    pub(crate) environment: bool,
    pub(crate) container_names: bool,
    /// Files of labels stay named beside what they say: Docker Compose's hash of a container has both,
    /// and what it prints has not.
    pub(crate) label_files: bool,
}

impl Stages {
    pub(crate) const ALL: Self = Self {
        interpolate: true,
        normalise: true,
        paths: true,
        consistency: true,
        environment: true,
        container_names: true,
        label_files: true,
    };
}

/// A project as a canonical tree, before it becomes the model.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) env_files: Vec<PathBuf>,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) home: Option<String>,
    /// The sections; `services` holds those that take part.
    pub(crate) top: Map,
    pub(crate) disabled: Map,
    pub(crate) report: Report,
}

/// Loads a project.
///
/// # Errors
/// Every mistake in the files, or why there are none.
pub fn load(options: &LoadOptions, env: &Env, files: &dyn Files) -> Result<Loaded, LoadError> {
    let mut resolved = resolve(options, env, files, Stages::ALL)?;
    let context = typed::Context {
        name: &resolved.name,
        directory: &resolved.directory,
        files: &resolved.files,
        env_files: &resolved.env_files,
        variables: &resolved.variables,
        home: resolved.home.as_deref(),
        hash_form: &render::hashed,
        separator: separator(options, &resolved.variables),
    };
    let project = typed::project(
        &resolved.top,
        &resolved.disabled,
        &context,
        &mut resolved.report,
    );
    let warnings = finish(resolved.report, LoadErrorKind::Invalid)?;
    Ok(Loaded { project, warnings })
}

/// What stands between the parts of names.
fn separator(options: &LoadOptions, variables: &BTreeMap<String, String>) -> Separator {
    let asked = variables.get("COMPOSE_COMPATIBILITY");
    if options.compatibility || asked.is_some_and(|text| is_on(text)) {
        Separator::Underscore
    } else {
        Separator::Dash
    }
}

/// Whether the text of a variable switches something on, by Compose's reading.
pub fn is_on(text: &str) -> bool {
    matches!(
        text.trim().to_ascii_lowercase().as_str(),
        "1" | "t" | "true" | "y" | "yes" | "on"
    )
}

/// The settings of the command itself (`COMPOSE_*`) that env files make and the environment does not.
///
/// Files that are missing or wrong make none here: loading the project reports them.
pub fn settings(options: &LoadOptions, env: &Env, files: &dyn Files) -> BTreeMap<String, String> {
    let mut report = Report::default();
    let found = locate::variables(options, env, files, &mut report).unwrap_or_default();
    found
        .into_iter()
        .filter(|(name, _)| name.starts_with("COMPOSE_") && !env.variables.contains_key(name))
        .collect()
}

/// The warnings, or all findings where one is an error.
fn finish(report: Report, kind: LoadErrorKind) -> Result<Vec<Diagnostic>, LoadError> {
    let failed = report.errors() > 0;
    let diagnostics = report.into_sorted();
    if failed {
        Err(LoadError { diagnostics, kind })
    } else {
        Ok(diagnostics
            .into_iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Warning)
            .collect())
    }
}

fn failure(mut report: Report, kind: LoadErrorKind, diagnostic: Diagnostic) -> LoadError {
    report.add(diagnostic);
    LoadError {
        diagnostics: report.into_sorted(),
        kind,
    }
}

/// Fails with what was found so far, when an error is among it.
fn stop_on_errors(report: Report, kind: LoadErrorKind) -> Result<Report, LoadError> {
    if report.errors() > 0 {
        return Err(LoadError {
            diagnostics: report.into_sorted(),
            kind,
        });
    }
    Ok(report)
}

/// Loads a project as far as its canonical tree.
pub(crate) fn resolve(
    options: &LoadOptions,
    env: &Env,
    files: &dyn Files,
    stages: Stages,
) -> Result<Resolved, LoadError> {
    let (tree, located, name, report) = merged(options, env, files, stages)?;
    let home = env.get("HOME").map(str::to_owned);
    let mut resolved = Resolved {
        name,
        directory: located.directory,
        files: located.files,
        env_files: located.env_files,
        variables: located.variables,
        home,
        top: Map::new(),
        disabled: Map::new(),
        report,
    };
    let mut tree = tree;
    cast::cast(&mut tree, &mut resolved.report);
    resolved.report = stop_on_errors(resolved.report, LoadErrorKind::Invalid)?;
    let Value::Map(mut top) = tree.value else {
        return Ok(resolved);
    };
    let all = match top.remove("services").map(|node| node.value) {
        Some(Value::Map(services)) => services,
        _ => Map::new(),
    };
    let mut services = Services::by_profiles(all, &located.profiles);
    if stages.consistency {
        consistency::check(
            &mut services,
            &top,
            stages.container_names,
            &mut resolved.report,
        );
    }
    resolve_contents(
        &mut services.enabled,
        &resolved.variables,
        files,
        stages,
        &mut resolved.report,
    );
    resolved.report = stop_on_errors(resolved.report, LoadErrorKind::Invalid)?;
    if !options.services.is_empty() {
        services = services.enable(&options.services, &located.profiles, &mut resolved.report);
        resolved.report = stop_on_errors(resolved.report, LoadErrorKind::Usage)?;
        resolve_contents(
            &mut services.enabled,
            &resolved.variables,
            files,
            stages,
            &mut resolved.report,
        );
        services.select(&options.services, options.no_deps, &mut resolved.report);
        resolved.report = stop_on_errors(resolved.report, LoadErrorKind::Invalid)?;
    }
    if !options.all_resources {
        select::drop_unused(&mut top, &services.enabled);
    }
    top.insert("services".to_owned(), Node::new(services.enabled));
    top.insert("name".to_owned(), Node::new(resolved.name.as_str()));
    resolved.top = top;
    resolved.disabled = services.disabled;
    Ok(resolved)
}

fn resolve_contents(
    services: &mut Map,
    variables: &BTreeMap<String, String>,
    files: &dyn Files,
    stages: Stages,
    report: &mut Report,
) {
    for (name, service) in services {
        if let Some(service) = service.as_map_mut() {
            if stages.environment {
                environment::resolve_environment(name, service, variables, files, report);
            }
            let label_files = service.get("label_file").cloned();
            environment::resolve_labels(name, service, variables, files, report);
            if let Some(label_files) = label_files.filter(|_| stages.label_files) {
                service.insert("label_file".to_owned(), label_files);
            }
        }
    }
}

/// All files as one canonical tree, normalised; with where they are and the project's name.
pub(crate) fn merged(
    options: &LoadOptions,
    env: &Env,
    files: &dyn Files,
    stages: Stages,
) -> Result<(Node, locate::Located, String, Report), LoadError> {
    let mut report = Report::default();
    let mut located = match locate::locate(options, env, files, &mut report) {
        Ok(located) => located,
        Err(found) => {
            let (kind, diagnostic) = *found;
            return Err(failure(report, kind, diagnostic));
        }
    };
    let mut layers = Layers {
        files,
        stages,
        home: env.get("HOME").map(str::to_owned),
        report,
        cache: BTreeMap::new(),
        includes: 0,
    };
    for file in &located.files {
        if file != Path::new("-") && !files.exists(file) {
            let diagnostic = locate::absent("the compose file", file, files);
            return Err(failure(
                layers.report,
                LoadErrorKind::Unreadable,
                diagnostic,
            ));
        }
        if let Some(inner) = locate::in_directory(file, files) {
            let diagnostic =
                Diagnostic::error(format!("`{}` is a directory, and no file", file.display()))
                    .hint(format!("-f {}", shell::word(&inner)));
            return Err(failure(
                layers.report,
                LoadErrorKind::Unreadable,
                diagnostic,
            ));
        }
        layers.documents(file);
    }
    layers.report = stop_on_errors(layers.report, LoadErrorKind::Invalid)?;
    let name = project_name(&located, &mut layers, stages);
    if name.is_empty() {
        let diagnostic = Diagnostic::error("the project has no name")
            .note("its directory's name has no letter or digit that a project name can have")
            .hint("give it one with -p, or with `name:` in the compose file");
        return Err(failure(layers.report, LoadErrorKind::Invalid, diagnostic));
    }
    located
        .variables
        .insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
    if !stages.interpolate {
        // Where variables stay as they are written, only the name is filled in.
        located
            .variables
            .retain(|key, _| key == "COMPOSE_PROJECT_NAME");
    }
    let scope = Scope {
        directory: located.directory.clone(),
        variables: located.variables.clone(),
    };
    let directory = located.directory.clone();
    let mut tree = layers.model(&located.files, &scope, &directory, &[]);
    let report = stop_on_errors(layers.report, LoadErrorKind::Invalid)?;
    if stages.normalise {
        normalise::normalise(&mut tree, &name, &located.variables);
    }
    Ok((tree, located, name, report))
}

/// `-p`, `COMPOSE_PROJECT_NAME`, the last `name:`, or the directory's name.
fn project_name(located: &locate::Located, layers: &mut Layers<'_>, stages: Stages) -> String {
    if let Some(name) = &located.name {
        return name.clone();
    }
    let mut written: Option<Node> = None;
    for file in &located.files {
        for document in layers.documents(file).into_iter().flatten() {
            if let Some(name) = document.get("name")
                && name.as_text().is_some_and(|text| !text.is_empty())
            {
                written = Some(name.clone());
            }
        }
    }
    match written {
        None => {
            let directory = located.directory.file_name().unwrap_or_default();
            normal_name(&directory.to_string_lossy())
        }
        Some(mut name) => {
            if stages.interpolate {
                let lookup = |variable: &str| located.variables.get(variable).cloned();
                let mut quiet = Report::default();
                interpolate::interpolate(&mut name, &lookup, &mut quiet);
            }
            if stages.normalise {
                normal_name(&name.display())
            } else {
                name.display()
            }
        }
    }
}
