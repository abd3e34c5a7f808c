//! The hands of `watch`: what is done to services because files changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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
use crate::project::model::{Hook, Service};
use crate::state::{BackendKind, Instance, Observed, Status};
use crate::ui::{NAME, report};
use crate::watch::files::at_first;
use crate::watch::rules::{Pair, Work};

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

    /// Brings containers up to date whose triggers ask for it.
    pub(super) async fn first_sync(&self) -> Result<()> {
        for rule in self.eyes.rules().iter() {
            let is_container = self.watch.placement.of(&rule.service) == BackendKind::Container;
            if !(rule.trigger.initial_sync && rule.trigger.reaction.syncs() && is_container) {
                continue;
            }
            let pairs: Vec<Pair> = at_first(rule)
                .iter()
                .filter_map(|path| rule.pair(path))
                .collect();
            self.sync(&rule.service, &pairs).await?;
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
                self.settle(name, synced, &mut failed)?;
            }
        }
        // It is left as it was.
        restart.retain(|name| !failed.contains(name));
        let observed = Observed {
            instances: match restart.is_empty() {
                true => Vec::new(),
                false => self.instances().await?,
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
                services: restart,
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

    /// The running containers of a service.
    async fn containers(&self, service: &str) -> Result<Vec<Instance>> {
        let mut instances = self.instances().await?;
        instances.retain(|instance| {
            instance.service == service
                && !instance.one_off
                && instance.backend == BackendKind::Container
                && instance.status == Status::Running
        });
        Ok(instances)
    }

    async fn sync(&self, service: &str, pairs: &[Pair]) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
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
        let pairs: Vec<(PathBuf, String)> = pairs
            .iter()
            .filter(spared)
            .map(|pair| (pair.host.clone(), pair.inside.clone()))
            .collect();
        for container in self.containers(service).await? {
            let (id, name) = (&container.id.0, &container.name);
            let syncing = self
                .backends
                .containers
                .sync(id, name, &pairs, &self.events);
            self.reins
                .finishing(format!("the copies into {name}"), syncing)
                .await?;
        }
        Ok(())
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
        for container in self.containers(service).await? {
            let (id, name) = (&container.id.0, &container.name);
            let containers = &self.backends.containers;
            let running = containers.run_hook(id, name, "watch", hook, &self.events);
            let command = format!("`{}` in {name}", hook.command.join(" "));
            self.reins.finishing(command, running).await?;
        }
        Ok(())
    }
}
