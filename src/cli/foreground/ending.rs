//! The end of a run: what it started is stopped, and what it still writes is shown.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedReceiver;

use super::run::{Run, observe};
use super::{Followed, Scene};
use crate::backend::{Backend as _, Made, in_one_line};
use crate::cli::carry_out::outcome;
use crate::cli::signals::Signals;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::execute;
use crate::plan::Plan;
use crate::plan::down::{self, Ending};
use crate::plan::step::{Action, StepId};
use crate::state::{BackendKind, Instance, Observed};

impl Run<'_> {
    /// The instances that go on: those that ran before, where the end came before anything but preparing was begun.
    /// `None`: there is something to be stopped.
    pub(super) fn left_alone(&self, is_open: impl Fn(StepId) -> bool) -> Option<BTreeSet<String>> {
        let Scene { plan, kept, .. } = self.scene;
        let mut steps = plan.steps.iter();
        let is_preparing = steps.any(|step| step.action.prepares() && is_open(step.id));
        if self.touches || !is_preparing {
            return None;
        }
        let replaced = plan.steps.iter().filter_map(|step| {
            let Action::Stop { instance, .. } = &step.action else {
                return None;
            };
            Some(&instance.name)
        });
        let kept = kept.iter().map(|instance| &instance.name);
        Some(kept.chain(replaced).cloned().collect())
    }

    /// Stops what this run started or attached to, of what was named, and what others have started of that, but for what
    /// is spared. The first signal asks, a second one kills.
    pub(super) async fn stop_all(
        &mut self,
        receiver: &mut UnboundedReceiver<Event>,
        followed: &mut FuturesUnordered<Followed<'_>>,
        signals: &mut Signals,
        interrupted: bool,
    ) -> Result<()> {
        if interrupted {
            self.scene
                .context
                .ui
                .status("stopping gracefully; press Ctrl-C again to kill");
        }
        let mut timeout = self.options.timeout;
        loop {
            let (plan, left, lost) = self.stop_plan(timeout).await?;
            let made = Made::default();
            let events = self.events.clone();
            let mut stopping =
                std::pin::pin!(execute::execute(&plan, self.scene.backends, &made, &events));
            let killed = loop {
                tokio::select! {
                    biased;
                    () = signals.next() => break true,
                    Some(event) = receiver.recv() => self.handle_late(&event),
                    report = &mut stopping => {
                        let left_names = left.iter().map(|instance| instance.name.clone());
                        let going_on = left_names.chain(self.spared.iter().cloned()).collect();
                        self.drain(receiver, followed, &going_on).await;
                        self.say_left(&left);
                        return outcome(&plan, report).and(lost);
                    }
                    Some((name, _)) = followed.next() => self.unfollow(&name),
                }
            };
            if killed {
                self.scene.context.ui.status("killing");
                timeout = Some(Duration::ZERO);
            }
        }
    }

    /// The last lines arrive while instances end; those that go on have none.
    async fn drain(
        &mut self,
        receiver: &mut UnboundedReceiver<Event>,
        followed: &mut FuturesUnordered<Followed<'_>>,
        going_on: &BTreeSet<String>,
    ) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        while !followed.is_empty() && self.following.keys().any(|name| !going_on.contains(name)) {
            tokio::select! {
                Some(event) = receiver.recv() => self.handle_late(&event),
                Some((name, _)) = followed.next() => self.unfollow(&name),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        while let Ok(event) = receiver.try_recv() {
            self.handle_late(&event);
        }
    }

    /// Shows what happens while instances are stopped; nothing new is followed.
    pub(super) fn handle_late(&mut self, event: &Event) {
        match event {
            Event::Log {
                name,
                stream,
                time,
                line,
            } => self.line(name, *stream, *time, line),
            Event::Exited {
                name,
                service,
                code,
                restarts,
            } => {
                self.say_end(name, service, *code, *restarts);
                if self.options.exit_code_from.as_ref() == Some(service) {
                    self.code = *code;
                    self.is_answered = true;
                }
            }
            Event::StepStarted { .. }
            | Event::StepDone { .. }
            | Event::StepFailed { .. }
            | Event::Progress { .. }
            | Event::Ready { .. } => self.progress.show(event),
            Event::Note(_) | Event::Warning(_) => {
                let told = self.scene.context.told(event.clone());
                self.progress.show(&told);
            }
        }
    }

    /// A failure, and what of this run goes on because it could not be stopped.
    pub(super) fn with_what_is_left(&self, error: Error, stopped: Result<()>) -> Error {
        let Err(reason) = stopped else {
            return error;
        };
        if reason.kind != Kind::Engine {
            return error.detail(format!("also: {}", in_one_line(&reason)));
        }
        let ours = self.ours.iter();
        let containers = ours.filter(|instance| instance.backend == BackendKind::Container);
        let names: BTreeSet<&str> = containers.map(|instance| instance.name.as_str()).collect();
        let error = if names.is_empty() {
            error
        } else {
            let names = Vec::from_iter(names).join(", ");
            error.detail(format!("not stopped, the engine decides: {names}"))
        };
        error.hint("wharf up   # once it answers: takes on what runs, starts the rest")
    }

    /// Says what goes on because it was not named.
    fn say_left(&self, left: &[Instance]) {
        let names: Vec<&str> = left.iter().map(|instance| instance.name.as_str()).collect();
        let services: BTreeSet<&str> = left.iter().map(|it| it.service.as_str()).collect();
        if !names.is_empty() {
            let context = self.scene.context;
            context.ui.status(context.typed(&format!(
                "not stopped, as only what was named is: {}; `wharf stop {}` does it",
                names.join(", "),
                Vec::from_iter(services).join(" ")
            )));
        }
    }

    /// How what this run started or attached to is stopped, and what of it goes on because it was not named. Where the
    /// engine is gone, what can be is stopped, and the last value is the failure.
    async fn stop_plan(
        &self,
        timeout: Option<Duration>,
    ) -> Result<(Plan, Vec<Instance>, Result<()>)> {
        let Scene {
            backends, project, ..
        } = self.scene;
        let names = self.names();
        let mut lost = Ok(());
        let mut own;
        // After a failure, only what this run has started is its to stop.
        let ends = |service: &str| self.ends_all && self.options.ends(service);
        let mut instances = match observe(self.scene, &names, ends).await {
            Ok(instances) => {
                // Others of the project may go on, and then need the forwarder, which otherwise ends by itself.
                own = backends.own(project).await?;
                instances
            }
            Err(error) if error.kind == Kind::Engine => {
                lost = Err(error);
                own = backends.processes.everything(project).await?;
                own.retain(|instance| instance.role().is_some());
                let mut processes = backends.processes.observe(project).await?;
                processes.retain(|instance| {
                    names.contains_key(&instance.name)
                        || !instance.one_off && ends(&instance.service)
                });
                processes
            }
            Err(error) => return Err(error),
        };
        let named = self.options.named.as_ref();
        let is_named =
            |instance: &Instance| named.is_none_or(|named| named.contains(&instance.service));
        instances.retain(|instance| !self.spared.contains(&instance.name));
        let (instances, mut left): (Vec<_>, Vec<_>) = instances.into_iter().partition(is_named);
        left.retain(|instance| instance.status.is_alive());
        own.retain(|own| {
            let of_service = |instance: &Instance| instance.service == own.service;
            instances.iter().any(of_service)
        });
        let observed = Observed {
            instances,
            own,
            ..Observed::default()
        };
        let ending = Ending {
            timeout,
            ..Ending::default()
        };
        Ok((down::stop(&observed, &ending), left, lost))
    }
}
