//! A command once more, where an engine that was killed has left a container that it can never start: that one was
//! removed, and the same again makes it anew. What depends on it can be the next. Or where something was removed between
//! the look and the deed: by an engine that takes back what it was making for a killed command, or by somebody who does
//! not ask for the project's lock. Or where another command has done a part of it while this one waited.

use std::cell::RefCell;

use crate::backend::process::ProjectLock;
use crate::backend::router::Backends;
use crate::backend::{BackendError, in_one_line};
use crate::cli::carry_out::{Quiet, carry_out_quietly};
use crate::cli::context::Context;
use crate::cli::foreground::{self, Foreground, Scene, Shown};
use crate::cli::settle::Settled;
use crate::cli::up::{kept, with_images};
use crate::cli::watch::{Triggers, Watch};
use crate::cli::way::Voided;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::placement::Placement;
use crate::plan::policy::{Policy, Recreate};
use crate::project::model::Project;

/// How often.
const AGAIN: usize = 3;

/// What `up` is planned from.
pub(super) struct Rounds<'a> {
    pub(super) context: &'a Context,
    pub(super) backends: &'a Backends,
    pub(super) project: &'a Project,
    pub(super) placement: &'a Placement,
    pub(super) policy: Policy,
    pub(super) quiet: Quiet,
}

/// A policy that has been carried out in part: what it asked to be renewed is not renewed twice.
pub(super) fn once_more(policy: &Policy) -> Policy {
    Policy {
        recreate: match policy.recreate {
            Recreate::Never => Recreate::Never,
            Recreate::Diverged | Recreate::Always(_) => Recreate::Diverged,
        },
        build: false,
        pull: false,
        ..policy.clone()
    }
}

impl Rounds<'_> {
    /// Carries a plan out, and what is left of it.
    ///
    /// # Errors
    /// The first failed step of the last round.
    pub(super) async fn detached(&self, plan: &Plan) -> Result<()> {
        let mut done = carry_out_quietly(self.context, self.backends, plan, self.quiet).await;
        let mut told = None;
        for _ in 0..AGAIN {
            let Err(error) = &done else { break };
            if !says_why(self.context, error, &mut told) && !leads_further(error) {
                break;
            }
            let rest = Box::pin(self.replan(plan)).await?;
            done = carry_out_quietly(self.context, self.backends, &rest.plan, self.quiet).await;
        }
        done.map(drop)
    }

    /// As [`Self::detached`] in front of the user. What was started for a round that failed has been stopped since, and
    /// is started again; what others were faster with goes on.
    ///
    /// # Errors
    /// As [`foreground::run`].
    pub(super) async fn in_front(
        &self,
        mut settled: Settled,
        options: &Foreground,
        triggers: &Triggers,
        alone: ProjectLock,
    ) -> Result<()> {
        let mut rounds = AGAIN;
        let mut told = None;
        let mut alone = Some(alone);
        let shown = Shown::default();
        loop {
            let scene = Scene {
                context: self.context,
                backends: self.backends,
                plan: &settled.plan,
                project: &self.project.name,
                kept: &kept(&settled.plan, &settled.observed.instances, self.project),
                shown: &shown,
            };
            let watcher = Watch {
                project: self.project,
                placement: self.placement,
                triggers,
                quiet: self.quiet,
                prune: true,
                answers: None,
                given: RefCell::default(),
            };
            let running = foreground::run(scene, options, &mut alone, Some(watcher));
            let done = Box::pin(running).await;
            let Err(error) = &done else { return done };
            if rounds == 0 || !says_why(self.context, error, &mut told) && !leads_further(error) {
                return done;
            }
            rounds -= 1;
            if alone.is_none() {
                alone = Some(self.context.lock(self.backends, &self.project.name).await?);
            }
            settled = Box::pin(self.replan(&settled.plan)).await?;
        }
    }

    async fn replan(&self, before: &Plan) -> Result<Settled> {
        let mut policy = self.policy.clone();
        let started = before.steps.iter();
        let started = started.filter_map(|step| step.action.makes_or_starts());
        policy
            .given
            .extend(started.map(|(_, name)| name.to_owned()));
        let Self {
            context,
            backends,
            project,
            placement,
            quiet,
            ..
        } = *self;
        with_images(context, backends, project, placement, policy, quiet).await
    }
}

/// Why there is one more round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// There is none before it.
    First,
    /// Others have done a part of it, while this command waited.
    AfterOthers,
    /// Something was removed since the last round was planned, which may have done a part.
    AfterLoss,
}

/// Plans and carries out, in rounds: once more where others have done a part of it meanwhile, or have removed something.
///
/// # Errors
/// Those of the last round.
pub(super) async fn in_rounds<T>(
    context: &Context,
    mut round: impl AsyncFnMut(Round) -> Result<T>,
) -> Result<T> {
    let mut done = round(Round::First).await;
    let mut told = None;
    for _ in 0..AGAIN {
        let Err(error) = &done else { break };
        let next = if leads_further(error) {
            Round::AfterOthers
        } else if says_why(context, error, &mut told) {
            Round::AfterLoss
        } else {
            break;
        };
        done = round(next).await;
    }
    done
}

/// Whether a plan failed because somebody else has done a part of it, so that a new one leads further.
pub(super) fn leads_further(error: &Error) -> bool {
    let reason = error.source.downcast_ref::<Voided>();
    reason.is_some_and(|reason| reason.leads_further)
}

/// Says the reason of a failure where the same again leads further, and whether it does. Who gets the same answer twice
/// (`told`) has it to blame on something else.
fn says_why(context: &Context, error: &Error, told: &mut Option<String>) -> bool {
    let Some(reason) = error.source.downcast_ref::<BackendError>() else {
        return false;
    };
    let text = in_one_line(reason);
    if matches!(reason, BackendError::Stuck { .. }) {
        context.ui.warn(text);
        return true;
    }
    let is_news = told.as_ref() != Some(&text);
    if !matches!(reason, BackendError::Vanished { .. }) || !is_news {
        return false;
    }
    context
        .ui
        .warn(format!("{text}; what is left to do is planned anew"));
    *told = Some(text);
    true
}
