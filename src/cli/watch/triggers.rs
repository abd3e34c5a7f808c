//! The triggers of a project's services → what is to be watched, and for what there is nothing to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::context::Context;
use crate::error::{Error, Kind, Result};
use crate::plan::placement::Placement;
use crate::project::model::{BuildContext, MountKind, Project, Reaction, Service, Trigger};
use crate::state::BackendKind;
use crate::watch::gitignore::as_dockerignore;
use crate::watch::rules::{IgnoreFile, Rule};

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
            let ignore_files = ignore_files(service, backend, &project.directory);
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
                let rule = Rule::new(&service.name, trigger, &ignore_files).map_err(|error| {
                    Error::new(Kind::Invalid, error)
                        .detail(format!("watching service `{}`", service.name))
                        .hint("patterns are those of .dockerignore")
                })?;
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

/// The ignore files that count for a service. A process runs from the working copy, where what is built lies beside
/// what it is built from: so Git's file counts for it, too.
fn ignore_files(service: &Service, backend: BackendKind, directory: &Path) -> Vec<IgnoreFile> {
    let here = |name: &str, meaning: fn(&str) -> String| {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        Some(IgnoreFile {
            root: directory.to_owned(),
            text: meaning(&text),
        })
    };
    let of_build = || ignore_file(service);
    match backend {
        BackendKind::Container => of_build().into_iter().collect(),
        BackendKind::Process => of_build()
            .or_else(|| here(".dockerignore", str::to_owned))
            .into_iter()
            .chain(here(".gitignore", as_dockerignore))
            .collect(),
    }
}

/// The ignore file of a service's build: the Dockerfile's own, else the context's.
fn ignore_file(service: &Service) -> Option<IgnoreFile> {
    let build = service.build.as_ref()?;
    let BuildContext::Directory(root) = &build.context else {
        return None;
    };
    let dockerfile = build.dockerfile.as_deref().unwrap_or("Dockerfile");
    let own = root.join(format!("{dockerfile}.dockerignore"));
    let text = fs::read_to_string(own)
        .or_else(|_| fs::read_to_string(root.join(".dockerignore")))
        .ok()?;
    Some(IgnoreFile {
        root: root.clone(),
        text,
    })
}
