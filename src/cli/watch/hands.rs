//! The hands of `watch`: what is done to services because files changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::beforehand::pairs;
use super::eyes::Eyes;
use super::{Reins, Watch};
use crate::backend::router::Backends;
use crate::cli::carry_out::carry_out_whole;
use crate::cli::context::Context;
use crate::cli::up::with_images;
use crate::error::{Kind, Result};
use crate::event::Events;
use crate::observe;
use crate::plan::Plan;
use crate::plan::launch::{self, Launching};
use crate::plan::policy::{Policy, Recreate};
use crate::plan::step::{Action, Step};
use crate::project::model::{Hook, Reaction, Service};
use crate::state::{BackendKind, Instance, Observed, Status};
use crate::ui::{NAME, report};
use crate::watch::rules::{Pair, Work};

/// Files here, and their paths in a container.
type Paths = Vec<(PathBuf, String)>;

/// Does what changed files ask for.
pub(super) struct Hands<'a> {
    pub(super) context: &'a Context,
    pub(super) backends: &'a Backends,
    pub(super) watch: &'a Watch<'a>,
    pub(super) reins: &'a Reins,
    pub(super) eyes: &'a Eyes<'a>,
    pub(super) events: Events,
}

impl Hands<'_> {
    pub(super) fn tell(&self, text: &str) {
        self.context
            .ui
            .status(format!("{NAME}watch:{NAME:#} {text}"));
    }

    /// Brings containers up to date whose triggers ask for it. Those that have been started without these files are
    /// restarted where that is what the files are for, and where one has failed meanwhile.
    pub(super) async fn first_sync(&self) -> Result<()> {
        let mut restart = BTreeSet::new();
        for rule in self.eyes.rules().iter() {
            let (service, reaction) = (&rule.service, rule.trigger.reaction);
            let is_container = self.watch.placement.of(service) == BackendKind::Container;
            if !(rule.trigger.initial_sync && reaction.syncs() && is_container) {
                continue;
            }
            let containers = self.containers(service).await?;
            let left = self.watch.given.borrow().left(rule, &containers);
            let has_nothing = left.as_ref().is_some_and(Vec::is_empty);
            if has_nothing {
                continue;
            }
            let pairs = left.unwrap_or_else(|| pairs(rule));
            self.sync(service, &pairs).await?;
            let containers = self.containers(service).await?;
            let failed = |it: &Instance| matches!(it.status, Status::Exited { code } if code != 0);
            if reaction == Reaction::SyncRestart || containers.iter().any(failed) {
                restart.insert(service.clone());
            }
        }
        if !restart.is_empty() {
            let work = Work {
                restart,
                ..Work::default()
            };
            // What answers is not waited for.
            self.act(work).await?;
        }
        Ok(())
    }

    /// Does the work; what is left is to wait for answers. What fails of one service is told, and keeps nothing from being
    /// done for the others.
    ///
    /// # Errors
    /// Nothing more is to be done.
    pub(super) async fn act(&self, work: Work) -> Result<Plan> {
        let project = self.watch.project;
        let locking = self.context.lock(self.backends, &project.name);
        let _alone = self.reins.unless_pulled(locking).await?;
        let mut waits = Plan::default();
        let mut restart = work.restart;
        let mut failed = BTreeSet::new();
        let mut stays = Vec::new();
        for name in &work.rebuild {
            let Some(service) = project.services.get(name) else {
                continue;
            };
            self.tell(&format!("{name}: rebuilding"));
            let rebuilt = if self.watch.placement.of(name) == BackendKind::Process {
                restart.insert(name.clone());
                self.build_process(service).await
            } else {
                self.rebuild(service).await
            };
            self.settle(name, rebuilt, &mut failed)?;
        }
        for (name, pairs) in &work.sync {
            if self.watch.placement.of(name) == BackendKind::Container {
                let pairs: Vec<Pair> = pairs.iter().cloned().collect();
                let synced = self.sync(name, &pairs).await;
                let synced = synced.map(|stay| stays.extend(stay));
                self.settle(name, synced, &mut failed)?;
            }
        }
        // It is left as it was.
        restart.retain(|name| !failed.contains(name));
        let observed = Observed {
            instances: if restart.is_empty() {
                Vec::new()
            } else {
                self.instances().await?
            },
            ..Observed::default()
        };
        restart.retain(|name| {
            let mut instances = observed.instances.iter();
            let has_some = instances.any(|it| it.service == *name && !it.one_off);
            if !has_some {
                // Another command has removed it.
                self.tell(&self.context.typed(&format!(
                    "{name}: has no instance to restart; `wharf up -d {name}` makes one"
                )));
            }
            has_some
        });
        if !restart.is_empty() {
            let names: Vec<&str> = restart.iter().map(String::as_str).collect();
            self.tell(&format!("{}: restarting", names.join(", ")));
            let launching = Launching {
                services: restart.clone(),
                ..Launching::default()
            };
            let mut plan = launch::restart(&observed, &launching);
            let is_wait = |step: &Step| matches!(step.action, Action::AwaitReady { .. });
            waits.steps = plan
                .steps
                .iter()
                .filter(|step| is_wait(step))
                .cloned()
                .collect();
            for step in &mut waits.steps {
                step.needs.clear();
            }
            plan.steps.retain(|step| !is_wait(step));
            self.reins.check()?;
            let quiet = self.watch.quiet;
            let restarting = carry_out_whole(self.context, self.backends, &plan, quiet);
            self.reins.wholly(restarting).await?;
        }
        for (container, paths) in stays {
            let name = &container.service;
            if restart.contains(name) {
                let removed = self.copy(&container, paths).await;
                self.settle(name, removed, &mut failed)?;
            } else {
                let count = paths.len();
                let (files, stay) = if count == 1 {
                    ("file is", "stays")
                } else {
                    ("files are", "stay")
                };
                self.tell(&format!(
                    "{name}: {count} {files} gone, and {stay} in {}, which does not run",
                    container.name
                ));
            }
        }
        for (name, hooks) in &work.exec {
            for hook in hooks {
                if !failed.contains(name) {
                    let executed = self.exec(name, hook).await;
                    self.settle(name, executed, &mut failed)?;
                }
            }
        }
        Ok(waits)
    }

    /// Tells what failed for a service.
    ///
    /// # Errors
    /// Nothing more is to be done.
    fn settle(
        &self,
        service: &str,
        outcome: Result<()>,
        failed: &mut BTreeSet<String>,
    ) -> Result<()> {
        match outcome {
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => {
                failed.insert(service.to_owned());
                report::error(&self.watch.answered(error));
            }
            Ok(()) => {}
        }
        Ok(())
    }

    async fn instances(&self) -> Result<Vec<Instance>> {
        let (project, placement) = (self.watch.project, self.watch.placement);
        Ok(observe::instances(self.backends, project, placement).await?)
    }

    /// The containers of a service, also those that have ended: it may be for want of what is copied.
    async fn containers(&self, service: &str) -> Result<Vec<Instance>> {
        let mut instances = self.instances().await?;
        instances.retain(|instance| {
            instance.service == service
                && !instance.one_off
                && instance.backend == BackendKind::Container
                && !matches!(instance.status, Status::Removing | Status::Dead)
        });
        Ok(instances)
    }

    /// Copies files into the containers of a service, and removes there what is gone; what could not be removed, because
    /// a container does not run.
    async fn sync(&self, service: &str, pairs: &[Pair]) -> Result<Vec<(Instance, Paths)>> {
        let mut stays = Vec::new();
        if pairs.is_empty() {
            return Ok(stays);
        }
        let files = if pairs.len() == 1 { "file" } else { "files" };
        self.tell(&format!("{service}: syncing {} {files}", pairs.len()));
        // What is mounted below a path would go with it.
        let mounts = self.watch.project.services.get(service);
        let holds_mount = |inside: &str| {
            let mut targets = mounts.iter().flat_map(|service| &service.volumes);
            targets.any(|mount| Path::new(&mount.target).starts_with(inside))
        };
        let spared = |pair: &&Pair| {
            let gone = fs::symlink_metadata(&pair.host).is_err();
            let keep = gone && (pair.inside.is_empty() || holds_mount(&pair.inside));
            if keep {
                let path = pair.host.display();
                self.tell(&format!(
                    "{service}: {path} is gone; {} stays in the container, because something is mounted in it",
                    pair.inside
                ));
            }
            !keep
        };
        let (gone, there): (Paths, Paths) = pairs
            .iter()
            .filter(spared)
            .map(|pair| (pair.host.clone(), pair.inside.clone()))
            .partition(|(host, _)| fs::symlink_metadata(host).is_err());
        for container in self.containers(service).await? {
            let mut paths = there.clone();
            if container.status == Status::Running {
                paths.extend(gone.iter().cloned());
            } else if !gone.is_empty() {
                stays.push((container.clone(), gone.clone()));
            }
            self.copy(&container, paths).await?;
        }
        Ok(stays)
    }

    async fn copy(&self, container: &Instance, paths: Paths) -> Result<()> {
        if paths.is_empty() {
            return Ok(());
        }
        let (id, name) = (&container.id.0, &container.name);
        let containers = &self.backends.containers;
        let syncing = containers.sync(id, name, &paths, &self.events);
        self.reins
            .finishing(format!("the copies into {name}"), syncing)
            .await
    }

    /// `up` for one service, with its image built.
    async fn rebuild(&self, service: &Service) -> Result<()> {
        let all = self.watch.project;
        let mut alone = all.clone();
        alone.services.retain(|name, _| *name == service.name);
        // The others are no orphans.
        let others = all.services.keys().filter(|name| **name != service.name);
        alone.disabled.extend(others.cloned());
        let policy = Policy {
            build: true,
            recreate: Recreate::Always("watch"),
            ignore_orphans: true,
            ..Policy::default()
        };
        let (context, backends) = (self.context, self.backends);
        let (placement, quiet) = (self.watch.placement, self.watch.quiet);
        let settling = Box::pin(with_images(
            context, backends, &alone, placement, policy, quiet,
        ));
        let settled = self.reins.unless_pulled(settling).await;
        let settled = settled.inspect_err(|error| {
            if error.kind == Kind::Interrupted {
                let name = &service.name;
                self.tell(&format!(
                    "{name}: interrupted: its image was not rebuilt, and it was not started anew"
                ));
            }
        })?;
        self.reins.check()?;
        let renewing = carry_out_whole(context, backends, &settled.plan, quiet);
        self.reins.wholly(renewing).await?;
        if self.watch.prune {
            backends.containers.prune_images(&all.name).await?;
        }
        Ok(())
    }

    /// Runs `x-wharf.process.build`, where there is one.
    async fn build_process(&self, service: &Service) -> Result<()> {
        let form = service.wharf.process.as_ref();
        match form.and_then(|form| form.build.as_ref()) {
            Some(argv) => {
                self.eyes.build_begins()?;
                let built = self.run_here(service, argv, None, "build").await;
                for line in self.eyes.build_ended(&service.name, built.is_ok())? {
                    self.tell(&line);
                }
                built
            }
            None => Ok(()),
        }
    }

    async fn exec(&self, service: &str, hook: &Hook) -> Result<()> {
        if self.watch.placement.of(service) == BackendKind::Process {
            return match self.watch.project.services.get(service) {
                Some(service) => {
                    self.run_here(service, &hook.command, Some(hook), "exec")
                        .await
                }
                None => Ok(()),
            };
        }
        let mut running = self.containers(service).await?;
        running.retain(|container| container.status == Status::Running);
        for container in running {
            let (id, name) = (&container.id.0, &container.name);
            let containers = &self.backends.containers;
            let running = containers.run_hook(id, name, "watch", hook, &self.events);
            let command = format!("`{}` in {name}", hook.command.join(" "));
            self.reins.finishing(command, running).await?;
        }
        Ok(())
    }
}
