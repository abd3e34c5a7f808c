//! What other commands start while a run goes on: one more replica, a service that did not run, an instance that was made
//! anew. As in Docker Compose its output is shown, and its end counts, as if the run had started it. Says what there is;
//! decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;

use futures_util::stream::SelectAll;
use futures_util::{Stream, StreamExt as _, stream};

use super::run::{Run, observe};
use super::{Foreground, Scene, poll};
use crate::backend::BackendError;
use crate::backend::happening::{Happening, Span};
use crate::error::Result;
use crate::state::{BackendKind, Instance};

/// What a backend tells: that it is heard from now on, then each start.
type Starts<'a> = Pin<Box<dyn Stream<Item = Result<Option<Happening>, BackendError>> + 'a>>;

/// The instances that there are.
type Looking<'a> = Pin<Box<dyn Future<Output = Result<Vec<Instance>>> + 'a>>;

/// Listens for what others start.
pub(super) struct Newcomers<'a> {
    scene: Scene<'a>,
    options: &'a Foreground,
    starts: SelectAll<Starts<'a>>,
    /// The backends that are listened to.
    heard: BTreeSet<BackendKind>,
    /// The instances that are the run's, for the next look, and how many it knew of then.
    ours: BTreeMap<String, BackendKind>,
    known: Option<usize>,
    /// What was started since the last look was begun, and when.
    fresh: BTreeMap<String, i64>,
    /// Whether another look is due.
    is_due: bool,
    looking: Option<Looking<'a>>,
    /// What was started before the look under way was begun.
    sought: BTreeMap<String, i64>,
}

impl<'a> Newcomers<'a> {
    pub(super) fn new(scene: Scene<'a>, options: &'a Foreground) -> Self {
        Self {
            scene,
            options,
            starts: SelectAll::new(),
            heard: BTreeSet::new(),
            ours: BTreeMap::new(),
            known: None,
            fresh: BTreeMap::new(),
            is_due: false,
            looking: None,
            sought: BTreeMap::new(),
        }
    }

    /// Listens to the backends that a run has something in.
    pub(super) fn attend(&mut self, run: &Run<'a>) {
        let known = Some(run.ours.len());
        if self.options.members.is_empty() || self.known == known {
            return;
        }
        self.known = known;
        self.ours = run.names();
        let backends = self.ours.values().copied();
        for backend in backends.collect::<BTreeSet<_>>() {
            if self.heard.insert(backend) {
                self.starts.push(starts(self.scene, backend));
            }
        }
    }

    /// What there is after something was started: all that lives, and what has ended since, but for what was seen to its
    /// end (`over`). May be dropped and asked again. Where a backend tells nothing more, nothing more comes from there:
    /// what it has is followed, and fails for the same reason.
    pub(super) async fn next(&mut self, over: &BTreeMap<String, i64>) -> Vec<Instance> {
        loop {
            if self.is_due && self.looking.is_none() {
                self.is_due = false;
                self.sought = std::mem::take(&mut self.fresh);
                let (scene, options, ours) = (self.scene, self.options, self.ours.clone());
                self.looking = Some(Box::pin(async move {
                    observe(scene, &ours, |service| options.joins(service)).await
                }));
            }
            tokio::select! {
                biased;
                Some(start) = self.starts.next() => match start {
                    Ok(Some(start)) => {
                        if !start.one_off && self.options.joins(&start.service) {
                            self.fresh.insert(start.name, start.time);
                            self.is_due = true;
                        }
                    }
                    Ok(None) => self.is_due = true,
                    Err(_) => {}
                },
                found = poll(&mut self.looking) => {
                    self.looking = None;
                    let mut found = found.unwrap_or_default();
                    found.retain(|instance| {
                        let name = &instance.name;
                        instance.status.is_alive() || self.sought.get(name) > over.get(name)
                    });
                    return found;
                }
            }
        }
    }
}

/// What a backend tells of starts, once it is listened to.
fn starts(scene: Scene<'_>, backend: BackendKind) -> Starts<'_> {
    let Scene {
        backends, project, ..
    } = scene;
    let begun = async move {
        let told: Starts<'_> = match backend {
            BackendKind::Container => {
                let containers = &backends.containers;
                let span = Span::default();
                let told = containers.happenings_of(project, span, &["start"]).await?;
                Box::pin(told.map(|start| start.map(Some)))
            }
            BackendKind::Process => {
                let told = backends.processes.happenings(project, None, false).await?;
                let told = stream::unfold(told, |told| async move {
                    let mut told = told?;
                    match told.next().await {
                        Ok(happening) => Some((Ok(Some(happening)), Some(told))),
                        Err(error) => Some((Err(error), None)),
                    }
                });
                let is_start = |told: &Result<Option<Happening>, BackendError>| {
                    let happening = told.as_ref().ok().and_then(Option::as_ref);
                    happening.is_none_or(|happening| happening.action == "start")
                };
                Box::pin(told.filter(move |told| std::future::ready(is_start(told))))
            }
        };
        let begins = stream::iter([Ok(None)]);
        Ok::<Starts<'_>, BackendError>(Box::pin(begins.chain(told)))
    };
    Box::pin(stream::once(begun).flat_map(|told| match told {
        Ok(told) => told,
        Err(error) => Box::pin(stream::iter([Err(error)])) as Starts<'_>,
    }))
}
