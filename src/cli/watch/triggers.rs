//! The triggers of a project's services → what is to be watched, and for what there is nothing to do.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::git;
use crate::cli::context::Context;
use crate::error::{Error, Kind, Result};
use crate::plan::placement::Placement;
use crate::project::Env;
use crate::project::model::{BuildContext, MountKind, Project, Reaction, Service, Trigger};
use crate::state::BackendKind;
use crate::watch::files::Sources;
use crate::watch::rules::{IgnoreFile, Rule, Syntax};

/// What the selected services are to be watched for.
#[derive(Debug, Default)]
pub(in crate::cli) struct Triggers {
    /// The triggers that have something to do, with their patterns read.
    pub(super) rules: Rc<Vec<Rule>>,
    /// The same, and where their patterns come from.
    watched: Vec<Watched>,
    /// The users' own files, by the top of the repository: Git is asked when watching begins, and once.
    users: OnceCell<BTreeMap<PathBuf, PathBuf>>,
    env: Env,
    /// The paths of services that read the files themselves.
    read: BTreeMap<String, Vec<PathBuf>>,
    /// Whether some are left out because a mount shows the files.
    is_shown: bool,
}

/// A trigger that has something to do, and the ignore files that count for it, there or not.
#[derive(Debug)]
struct Watched {
    service: String,
    trigger: Trigger,
    /// Of these, the first that is there.
    of_docker: Vec<Place>,
    /// Of these, all, from the top down; none for a container.
    of_git: Vec<Place>,
    /// The top of the repository that it is in.
    repository: Option<PathBuf>,
}

/// Where an ignore file may be.
#[derive(Clone, Debug)]
struct Place {
    /// The directory that its patterns are relative to.
    root: PathBuf,
    file: PathBuf,
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
        let mut triggers = Self {
            env: context.env.clone(),
            ..Self::default()
        };
        for service in project.services.values() {
            if !services.is_empty() && !services.contains(&service.name) || service.watch.is_empty()
            {
                continue;
            }
            let backend = placement.of(&service.name);
            let of_docker = of_docker(service, backend, &project.directory);
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
                let is_process = backend == BackendKind::Process;
                let ancestors = trigger.path.ancestors();
                let repository = ancestors
                    .filter(|_| is_process)
                    .find(|above| above.join(".git").exists())
                    .map(Path::to_owned);
                let of_git = if is_process {
                    of_git(repository.as_deref(), &project.directory, &trigger.path)
                } else {
                    Vec::new()
                };
                triggers.watched.push(Watched {
                    service: service.name.clone(),
                    trigger: trigger.clone(),
                    of_docker: of_docker.clone(),
                    of_git,
                    repository,
                });
            }
        }
        let rules: Result<Vec<Rule>> = triggers.watched.iter().map(|it| it.rule(None)).collect();
        triggers.rules = Rc::new(rules?);
        Ok(triggers)
    }

    /// The same rules with their patterns as they are by now.
    ///
    /// # Errors
    /// A pattern that is none.
    pub(super) fn read_again(&self) -> Result<Rc<Vec<Rule>>> {
        let rule = |watched: &Watched| watched.rule(self.users_file(watched).as_ref());
        let rules: Result<Vec<Rule>> = self.watched.iter().map(rule).collect();
        Ok(Rc::new(rules?))
    }

    fn users_file(&self, watched: &Watched) -> Option<Place> {
        let ask = || {
            let tops: BTreeSet<&PathBuf> = self
                .watched
                .iter()
                .filter_map(|each| each.repository.as_ref())
                .collect();
            tops.into_iter()
                .filter_map(|top| Some((top.clone(), git::excludes_file(&self.env, top)?)))
                .collect()
        };
        let root = watched.repository.as_ref()?;
        let file = self.users.get_or_init(ask).get(root)?;
        Some(Place {
            root: root.clone(),
            file: file.clone(),
        })
    }

    /// Where their patterns come from.
    pub(super) fn sources(&self) -> Sources {
        let watched = self.watched.iter();
        let places = watched.flat_map(|watched| {
            let known = watched.of_docker.iter().chain(&watched.of_git).cloned();
            known.chain(self.users_file(watched))
        });
        let by_git = self.watched.iter().filter(|each| !each.of_git.is_empty());
        Sources {
            files: places.map(|place| place.file).collect(),
            by_git: by_git
                .map(|each| each.trigger.path.clone())
                .collect::<BTreeSet<_>>(),
        }
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

impl Watched {
    /// With the patterns of a file of the user's, which come before all others of Git's.
    fn rule(&self, users: Option<&Place>) -> Result<Rule> {
        let of_docker = self.of_docker.iter();
        let mut files: Vec<IgnoreFile> = of_docker
            .filter_map(|place| place.read(Syntax::Docker))
            .take(1)
            .collect();
        let of_git = users.into_iter().chain(&self.of_git);
        files.extend(of_git.filter_map(|place| place.read(Syntax::Git)));
        let mut rule = Rule::new(&self.service, &self.trigger, &files).map_err(|error| {
            Error::new(Kind::Invalid, error)
                .detail(format!("watching service `{}`", self.service))
                .hint("patterns are those of .dockerignore")
        })?;
        if !self.of_git.is_empty() {
            add_git_files(&mut rule);
        }
        Ok(rule)
    }
}

impl Place {
    fn new(root: &Path, name: &str) -> Self {
        Self {
            root: root.to_owned(),
            file: root.join(name),
        }
    }

    fn read(&self, syntax: Syntax) -> Option<IgnoreFile> {
        let text = fs::read(&self.file).ok()?;
        Some(IgnoreFile {
            syntax,
            root: self.root.clone(),
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }
}

/// Where the ignore file of a service's build may be; that of the project's directory where nothing is built.
fn of_docker(service: &Service, backend: BackendKind, directory: &Path) -> Vec<Place> {
    let mut places = of_build(service);
    if backend == BackendKind::Process {
        places.push(Place::new(directory, ".dockerignore"));
    }
    places
}

/// Where Git's files above a path may be, from the top down: a process runs from the working copy, where what is built
/// lies beside what it is built from. Without a repository, the project's directory is the top.
fn of_git(repository: Option<&Path>, directory: &Path, path: &Path) -> Vec<Place> {
    let top = repository.unwrap_or(directory);
    let above = path.ancestors().take_while(|above| above.starts_with(top));
    let mut places: Vec<Place> = above.map(|above| Place::new(above, ".gitignore")).collect();
    places.extend(repository.map(|top| Place {
        root: top.to_owned(),
        file: git::exclude(top),
    }));
    if places.is_empty() {
        // Outside the project, too, those below the path count.
        places.push(Place::new(path, ".gitignore"));
    }
    places.reverse();
    places
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
                && let Some(file) = Place::new(&directory, ".gitignore").read(Syntax::Git)
            {
                rule.add_git(&directory, &file.text);
            }
        }
        open.extend(below.into_iter().filter(|directory| !rule.skips(directory)));
    }
}

/// Where the ignore file of a service's build may be: the Dockerfile's own, else the context's.
fn of_build(service: &Service) -> Vec<Place> {
    let Some(build) = &service.build else {
        return Vec::new();
    };
    let BuildContext::Directory(root) = &build.context else {
        return Vec::new();
    };
    let dockerfile = build.dockerfile.as_deref().unwrap_or("Dockerfile");
    let own = format!("{dockerfile}.dockerignore");
    [&own, ".dockerignore"]
        .map(|name| Place::new(root, name))
        .into()
}
