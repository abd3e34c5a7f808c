//! The triggers of a project's services → what is to be watched, and for what there is nothing to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::context::Context;
use crate::error::{Error, Kind, Result};
use crate::plan::placement::Placement;
use crate::project::model::{BuildContext, MountKind, Project, Reaction, Service, Trigger};
use crate::state::BackendKind;
use crate::watch::rules::{IgnoreFile, Rule, Syntax};

/// What the selected services are to be watched for.
#[derive(Debug, Default)]
pub(in crate::cli) struct Triggers {
    /// The triggers that have something to do, with their patterns read.
    pub(super) rules: Vec<Rule>,
    /// The paths of services that read the files themselves.
    read: BTreeMap<String, Vec<PathBuf>>,
    /// Whether some are left out because a mount shows the files.
    is_shown: bool,
}

impl Triggers {
    /// Those of these services (none: of all).
    ///
    /// # Errors
    /// A trigger that its service cannot follow.
    pub(in crate::cli) fn read(
        context: &Context,
        project: &Project,
        placement: &Placement,
        services: &[String],
    ) -> Result<Self> {
        let mut triggers = Self::default();
        for service in project.services.values() {
            if !services.is_empty() && !services.contains(&service.name) || service.watch.is_empty()
            {
                continue;
            }
            let backend = placement.of(&service.name);
            let of_docker = ignore_files(service, backend, &project.directory);
            for trigger in &service.watch {
                match use_of(service, backend, trigger)? {
                    Use::Follows => {}
                    Use::Reads => {
                        let paths = triggers.read.entry(service.name.clone()).or_default();
                        paths.push(trigger.path.clone());
                        continue;
                    }
                    Use::IsShown => {
                        let (name, path) = (&service.name, trigger.path.display());
                        context.ui.warn(format!(
                            "{path} is not watched for service `{name}`: a bind mount already shows it to the container"
                        ));
                        triggers.is_shown = true;
                        continue;
                    }
                }
                let mut ignore_files = of_docker.clone();
                if backend == BackendKind::Process {
                    ignore_files.extend(git_files(&project.directory, &trigger.path));
                }
                let mut rule =
                    Rule::new(&service.name, trigger, &ignore_files).map_err(|error| {
                        Error::new(Kind::Invalid, error)
                            .detail(format!("watching service `{}`", service.name))
                            .hint("patterns are those of .dockerignore")
                    })?;
                if backend == BackendKind::Process {
                    add_git_files(&mut rule);
                }
                triggers.rules.push(rule);
            }
        }
        Ok(triggers)
    }

    /// Fails where no selected service has a trigger.
    ///
    /// # Errors
    /// That, with the lines to add.
    pub(in crate::cli) fn some(&self) -> Result<()> {
        if self.rules.is_empty() && self.read.is_empty() && !self.is_shown {
            return Err(Error::failed("no service selected is set up for watching")
                .hint("develop: {watch: [{action: sync, path: ./src, target: /app/src}]}"));
        }
        Ok(())
    }

    /// For which services, and which of their paths, there is nothing to do, a line each.
    pub(super) fn idle(&self) -> impl Iterator<Item = String> {
        self.read.iter().map(|(service, paths)| {
            let paths: Vec<String> = paths
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            let paths = paths.join(", ");
            format!("{service}: nothing to sync: as a local service it reads {paths} itself")
        })
    }
}

/// What a service has from a trigger.
enum Use {
    /// Something is to be done when files change.
    Follows,
    /// Nothing: a process reads the files themselves.
    Reads,
    /// Nothing: a mount shows the files to the container.
    IsShown,
}

fn use_of(service: &Service, backend: BackendKind, trigger: &Trigger) -> Result<Use> {
    let (name, path) = (&service.name, trigger.path.display());
    if trigger.reaction == Reaction::SyncExec
        && trigger
            .exec
            .as_ref()
            .is_none_or(|exec| exec.command.is_empty())
    {
        return Err(Error::new(
            Kind::Invalid,
            format!("service `{name}` cannot watch {path}: sync+exec needs a command"),
        )
        .hint("exec: {command: [...]}"));
    }
    match (backend, trigger.reaction) {
        (BackendKind::Container, Reaction::Rebuild) if service.build.is_none() => Err(Error::new(
            Kind::Invalid,
            format!(
                "service `{name}` cannot watch {path}: it has no `build`, so it cannot be rebuilt"
            ),
        )
        .hint(format!("add `build:` to service `{name}`"))),
        (BackendKind::Process, Reaction::Sync) => Ok(Use::Reads),
        (BackendKind::Container, reaction) if reaction.syncs() => {
            let mounted = service.volumes.iter().any(|mount| {
                matches!(&mount.kind, MountKind::Bind { source, .. } if trigger.path.starts_with(source))
            });
            Ok(if mounted { Use::IsShown } else { Use::Follows })
        }
        (BackendKind::Container | BackendKind::Process, _) => Ok(Use::Follows),
    }
}

/// The ignore files of a service's build; those of the project's directory where nothing is built.
fn ignore_files(service: &Service, backend: BackendKind, directory: &Path) -> Vec<IgnoreFile> {
    let of_build = ignore_file(service);
    let here = || read(Syntax::Docker, directory, ".dockerignore");
    match backend {
        BackendKind::Container => of_build.into_iter().collect(),
        BackendKind::Process => of_build.or_else(here).into_iter().collect(),
    }
}

fn read(syntax: Syntax, root: &Path, name: &str) -> Option<IgnoreFile> {
    let text = fs::read(root.join(name)).ok()?;
    Some(IgnoreFile {
        syntax,
        root: root.to_owned(),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// Git's files above a path, from the top down: a process runs from the working copy, where what is built lies beside
/// what it is built from. Without a repository, the project's directory is the top.
fn git_files(directory: &Path, path: &Path) -> Vec<IgnoreFile> {
    let repository = path.ancestors().find(|above| above.join(".git").exists());
    let top = repository.unwrap_or(directory);
    let above = path.ancestors().take_while(|above| above.starts_with(top));
    let mut files: Vec<IgnoreFile> = above
        .filter_map(|above| read(Syntax::Git, above, ".gitignore"))
        .collect();
    files.extend(read(Syntax::Git, top, ".git/info/exclude"));
    files.reverse();
    files
}

/// Adds Git's files below the path of a rule, as far as they can matter.
fn add_git_files(rule: &mut Rule) {
    let mut open = vec![rule.trigger.path.clone()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        let mut below = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                below.push(path);
            } else if entry.file_name() == ".gitignore"
                && directory != rule.trigger.path
                && let Some(file) = read(Syntax::Git, &directory, ".gitignore")
            {
                rule.add_git(&directory, &file.text);
            }
        }
        open.extend(below.into_iter().filter(|directory| !rule.skips(directory)));
    }
}

/// The ignore file of a service's build: the Dockerfile's own, else the context's.
fn ignore_file(service: &Service) -> Option<IgnoreFile> {
    let build = service.build.as_ref()?;
    let BuildContext::Directory(root) = &build.context else {
        return None;
    };
    let dockerfile = build.dockerfile.as_deref().unwrap_or("Dockerfile");
    let own = format!("{dockerfile}.dockerignore");
    read(Syntax::Docker, root, &own).or_else(|| read(Syntax::Docker, root, ".dockerignore"))
}
