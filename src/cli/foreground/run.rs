//! What a run knows while it goes on: whose output is shown, and what has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use super::{Abort, Followed, Foreground, Scene, now};
use crate::backend::{Backend as _, LogOptions, Made};
use crate::cli::carry_out::say_what_it_is;
use crate::error::Result;
use crate::event::{Event, Events, Stream, end_in_words};
use crate::execute;
use crate::plan::step::{Action, StepId};
use crate::state::{BackendKind, Instance};
use crate::ui::logs::LogWriter;
use crate::ui::progress::Progress;

/// One run of `up` in front.
pub(super) struct Run<'a> {
    pub(super) scene: Scene<'a>,
    pub(super) made: &'a Made,
    pub(super) events: Events,
    pub(super) progress: Progress,
    pub(super) writer: LogWriter,
    pub(super) options: &'a Foreground,
    pub(super) ours: Vec<Instance>,
    pub(super) code: i32,
    /// Whether the service whose code is wanted has ended; where none is, there is nothing to answer.
    pub(super) is_answered: bool,
    /// The steps under way that make, start or remove something; what is being stopped is stopped at the end, too.
    pub(super) changing: BTreeSet<StepId>,
    /// Whether anything that starts or ends an instance was begun, or that changes what one has.
    pub(super) touches: bool,
    /// How the last instance that is waited for ended: its exit code.
    pub(super) ended: Option<i32>,
    /// What ran before and is not stopped because something else failed.
    pub(super) spared: BTreeSet<String>,
    /// The instances whose output is read, and their services.
    pub(super) following: BTreeMap<String, String>,
    /// When the output of instances was over, in nanoseconds since the Unix epoch.
    pub(super) over: BTreeMap<String, i64>,
    /// Whether what others have started of its services is stopped with it.
    pub(super) ends_all: bool,
}

impl<'a> Run<'a> {
    /// Where Docker Compose says it: among the output.
    pub(super) fn say_end(&self, name: &str, service: &str, code: i32, restarts: bool) {
        let attach = self.options.attach.as_ref();
        if attach.is_none_or(|attach| attach.contains(service)) {
            let name = self.writer.short(name);
            let ui = self.scene.context.ui;
            ui.data(end_in_words(name, code, restarts));
        }
    }

    /// Shows an event; returns an instance that has just started and is to be followed.
    pub(super) async fn handle(&mut self, event: &Event) -> Result<Option<Instance>> {
        match event {
            Event::Log {
                name,
                stream,
                time,
                line,
            } => {
                self.scene.shown.note(name, *time);
                self.line(name, *stream, *time, line);
            }
            Event::Exited {
                name,
                service,
                code,
                restarts,
            } => {
                self.say_end(name, service, *code, *restarts);
                let wanted = self.options.exit_code_from.as_ref();
                let is_wanted = wanted == Some(service);
                let is_awaited = is_wanted || self.awaits(service);
                if is_wanted || (wanted.is_none() && is_awaited && self.code == 0) {
                    self.code = *code;
                    self.is_answered = true;
                }
                let is_done = *code == 0 && self.options.jobs.contains(service);
                if is_wanted || (is_awaited && !is_done) {
                    self.ended = Some(*code);
                }
            }
            Event::StepDone { id, .. } => {
                self.progress.show(event);
                self.changing.remove(id);
                return self.started(*id).await;
            }
            Event::StepStarted { id, .. } => {
                self.progress.show(event);
                let mut steps = self.scene.plan.steps.iter();
                if let Some(step) = steps.find(|step| step.id == *id) {
                    self.touches |= execute::works(&step.action) && !step.action.prepares();
                    if step.action.makes_starts_or_removes() || step.abandoned().is_some() {
                        self.changing.insert(*id);
                    }
                }
            }
            Event::StepFailed { id, .. } => {
                self.progress.show(event);
                self.changing.remove(id);
            }
            Event::Progress { .. } => self.progress.show(event),
            Event::Note(_) | Event::Warning(_) => {
                let told = self.scene.context.told(event.clone());
                self.progress.show(&told);
            }
            Event::Ready { address, .. } => {
                self.progress.show(event);
                if let Some(kind) = &self.options.handshake {
                    say_what_it_is(self.scene.context, kind, *address).await;
                }
            }
        }
        Ok(None)
    }

    pub(super) async fn started(&mut self, id: StepId) -> Result<Option<Instance>> {
        let step = self.scene.plan.steps.iter().find(|step| step.id == id);
        let Some(Action::Start { instance }) = step.map(|step| &step.action) else {
            return Ok(None);
        };
        let started = self.scene.backends.started(instance, id, self.made).await?;
        self.ours.extend(started.clone());
        Ok(started)
    }

    /// Shows a line, unless its service is not to be shown.
    pub(super) fn line(&self, name: &str, stream: Stream, time: i64, line: &[u8]) {
        let service = self.ours.iter().find(|instance| instance.name == name);
        let shown = match (&self.options.attach, service) {
            (Some(attach), Some(instance)) => attach.contains(&instance.service),
            _ => true,
        };
        if shown {
            // A reader that went away ends what it reads, not the services.
            drop(self.writer.line(name, stream, time, line));
        }
    }

    /// Whether everything is to end because of what ended.
    pub(super) fn aborts(&self) -> bool {
        match (self.options.abort, self.ended) {
            (Abort::Never, _) | (_, None) => false,
            (Abort::OnExit, Some(_)) => true,
            (Abort::OnFailure, Some(code)) => code != 0,
        }
    }

    /// Whether anything is being made, started or removed.
    pub(super) fn is_changing(&self) -> bool {
        !self.changing.is_empty()
    }

    /// Whether a service's end is the end.
    fn awaits(&self, service: &str) -> bool {
        self.options.awaits(service)
    }

    /// Whether anything runs that is waited for.
    pub(super) fn goes_on(&self) -> bool {
        self.following.values().any(|service| self.awaits(service))
    }

    /// Follows an instance, unless it is followed; what it wrote before `since` was shown before.
    pub(super) fn follow(&mut self, instance: Instance, since: i64) -> Option<Followed<'a>> {
        let (name, service) = (instance.name.clone(), instance.service.clone());
        if self.following.insert(name, service).is_some() {
            return None;
        }
        let (backends, events) = (self.scene.backends, self.events.clone());
        Some(Box::pin(async move {
            let options = LogOptions {
                follow: true,
                since: Some(since),
                ..LogOptions::default()
            };
            let name = instance.name.clone();
            let result = backends.follow(&[instance], &options, &events).await;
            (name, result)
        }))
    }

    /// The output of an instance is over.
    pub(super) fn unfollow(&mut self, name: &str) {
        self.following.remove(name);
        self.over.insert(name.to_owned(), now());
    }

    /// Those whose output is not shown, made ours.
    pub(super) fn not_followed(&mut self, mut instances: Vec<Instance>) -> Vec<Instance> {
        instances.retain(|instance| !self.following.contains_key(&instance.name));
        self.ours.extend(instances.iter().cloned());
        for instance in &instances {
            self.writer.add(&instance.name);
        }
        instances
    }

    /// What another command, or watching, has started by now: a command that is at work is waited
    /// for, as what it has stopped it may be about to start.
    pub(super) fn running_again(&self) -> impl Future<Output = Result<Vec<Instance>>> + use<'a> {
        let (scene, options) = (self.scene, self.options);
        let ours = self.names();
        async move {
            let (unheard, _) = Events::channel();
            let _alone = scene
                .backends
                .processes
                .lock(scene.project, &unheard)
                .await?;
            let joins = |service: &str| options.joins(service);
            let mut instances = observe(scene, &ours, joins).await?;
            instances.retain(|instance| instance.status.is_alive());
            Ok(instances)
        }
    }

    /// The names of the instances of this run, and where each lives, as far as is known. What the plan names is ours even
    /// if it started a moment ago and was not announced yet.
    pub(super) fn names(&self) -> BTreeMap<String, BackendKind> {
        let made = self
            .scene
            .plan
            .steps
            .iter()
            .filter_map(|step| step.action.makes_or_starts())
            .map(|(backend, name)| (name.to_owned(), backend));
        let ours = self.ours.iter();
        // What was seen last is how it is.
        made.chain(ours.map(|instance| (instance.name.clone(), instance.backend)))
            .collect()
    }
}

/// The instances of a run as they are now: by their names, and those of the services that `joins` names, whoever made
/// them.
pub(super) async fn observe(
    scene: Scene<'_>,
    ours: &BTreeMap<String, BackendKind>,
    joins: impl Fn(&str) -> bool,
) -> Result<Vec<Instance>> {
    let Scene {
        backends, project, ..
    } = scene;
    let mut instances = backends.processes.observe(project).await?;
    let is_container = |backend: &BackendKind| *backend == BackendKind::Container;
    if ours.values().any(is_container) {
        instances.extend(backends.containers.observe(project).await?);
    } else if backends.processes.has_traces(project) && backends.containers.answers_soon().await {
        // What another command has made a container is looked for, and nothing fails for it.
        let containers = backends.containers.observe(project).await;
        instances.extend(containers.unwrap_or_default());
    }
    let is_meant = |instance: &Instance| !instance.one_off && joins(&instance.service);
    instances.retain(|instance| ours.contains_key(&instance.name) || is_meant(instance));
    Ok(instances)
}
