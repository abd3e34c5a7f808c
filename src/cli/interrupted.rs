//! What an interrupted command answers for: what it did, what it did not, and what an engine or a supervisor still is at.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::context::Context;
use crate::error::Error;
use crate::event::Event;
use crate::execute;
use crate::plan::Plan;
use crate::plan::step::{Action, Step, StepId};

/// How many steps are named one by one while they are finished.
const NAMED: usize = 3;

/// How far a plan has come, by its events.
pub(super) struct Account<'a> {
    plan: &'a Plan,
    /// What is under way and is finished in any case, in its words.
    texts: BTreeMap<StepId, String>,
    done: BTreeSet<StepId>,
    failed: BTreeSet<StepId>,
}

impl<'a> Account<'a> {
    pub(super) fn of(plan: &'a Plan) -> Self {
        Self {
            plan,
            texts: BTreeMap::new(),
            done: BTreeSet::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Notes what is begun and ended.
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::StepStarted { id, text } => {
                let mut steps = self.plan.steps.iter();
                if steps.any(|step| step.id == *id && !execute::can_be_cut_off(step)) {
                    self.texts.insert(*id, text.clone());
                }
            }
            Event::StepDone { id, .. } => {
                self.texts.remove(id);
                self.done.insert(*id);
            }
            Event::StepFailed { id, .. } => {
                self.texts.remove(id);
                self.failed.insert(*id);
            }
            Event::Progress { .. }
            | Event::Ready { .. }
            | Event::Exited { .. }
            | Event::Note(_)
            | Event::Warning(_)
            | Event::Log { .. } => {}
        }
    }

    /// What is finished before the command ends.
    pub(super) fn under_way(&self) -> String {
        abridged(self.texts.values().cloned().collect())
    }

    /// All that has not ended.
    pub(super) fn left(&self) -> String {
        let is_left = |step: &&Step| {
            let has_ended = self.done.contains(&step.id) || self.failed.contains(&step.id);
            !step.action.is_own() && !has_ended
        };
        abridged(listed(self.plan.steps.iter().filter(is_left)))
    }

    /// Says how the command ends that was interrupted.
    pub(super) fn tell(&self, context: &Context) -> Error {
        let lines = self.lines();
        context
            .ui
            .statuses(lines.iter().map(|line| context.typed(line)));
        Error::interrupted()
    }

    fn lines(&self) -> Vec<String> {
        // Waits change nothing, and nobody knows what wharf does for its own sake.
        let is_told = |step: &&Step| execute::works(&step.action) && !step.action.is_own();
        let all = || self.plan.steps.iter().filter(is_told);
        let is_open = |step: &&Step| {
            let id = &step.id;
            !self.done.contains(id) && !self.failed.contains(id) && !self.texts.contains_key(id)
        };
        let started = all().any(|step| {
            self.done.contains(&step.id) && matches!(step.action, Action::Start { .. })
        });
        let concerns = |step: &Step| {
            step.action.changes().is_some() || step.action.makes_or_starts().is_some()
        };
        let first = if started {
            "interrupted: what was started goes on; `wharf ps` shows it"
        } else if all().any(concerns) {
            "interrupted: `wharf ps` shows what runs"
        } else {
            "interrupted"
        };
        let mut lines = vec![first.to_owned()];
        let done = listed(all().filter(|step| self.done.contains(&step.id)));
        let mut under_way: Vec<String> = self.texts.values().cloned().collect();
        let goes_on = |step: &&Step| execute::is_anothers(step);
        under_way.extend(listed(all().filter(is_open).filter(goes_on)));
        let open = listed(all().filter(is_open).filter(|step| !goes_on(step)));
        for (what, steps) in [
            ("done", done),
            ("still under way", under_way),
            ("not done", open),
        ] {
            if !steps.is_empty() {
                lines.push(format!("  {what}: {}", steps.join("; ")));
            }
        }
        let is_start = |step: &&Step| is_open(step) && matches!(step.action, Action::Start { .. });
        let starts: BTreeSet<&str> = all()
            .filter(is_start)
            .filter_map(|step| step.action.changes())
            .map(|target| target.service.as_str())
            .collect();
        if all().any(|step| matches!(step.action, Action::Create(_)) && is_told(&step)) {
            if !starts.is_empty() {
                lines.push("  to go on: `wharf up -d`".to_owned());
            }
        } else if !starts.is_empty() {
            let services = Vec::from_iter(starts).join(" ");
            lines.push(format!("  to go on: `wharf start {services}`"));
        }
        lines
    }
}

fn abridged(all: Vec<String>) -> String {
    let total = all.len();
    let mut names: Vec<String> = all.into_iter().take(NAMED).collect();
    match total.saturating_sub(NAMED) {
        0 if names.is_empty() => return "what is under way".to_owned(),
        0 => {}
        more => names.push(format!("{more} more")),
    }
    names.join("; ")
}

/// Steps in their words.
pub(super) fn listed<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<String> {
    steps.map(|step| step.action.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::step::{Cause, Target, Which};
    use crate::state::{BackendKind, InstanceId};

    fn target() -> Target {
        Target {
            backend: BackendKind::Container,
            project: "p".to_owned(),
            service: "a".to_owned(),
            name: "p-a-1".to_owned(),
            which: Which::Existing(InstanceId("1".to_owned())),
            role: None,
        }
    }

    fn restart() -> Plan {
        let step = |id, action, needs: &[u32]| Step {
            id: StepId(id),
            action,
            cause: Cause::Requested("restart"),
            needs: needs.iter().copied().map(StepId).collect(),
        };
        let stop = Action::Stop {
            instance: target(),
            grace: None,
        };
        let start = Action::Start { instance: target() };
        Plan {
            steps: vec![step(1, stop, &[]), step(2, start, &[1])],
            ..Plan::default()
        }
    }

    fn began(account: &mut Account<'_>, step: usize) {
        let step = &account.plan.steps[step];
        let (id, text) = (step.id, step.action.to_string());
        account.note(&Event::StepStarted { id, text });
    }

    fn ended(account: &mut Account<'_>, step: usize) {
        let step = &account.plan.steps[step];
        let (id, text, took) = (step.id, step.action.to_string(), Duration::ZERO);
        account.note(&Event::StepDone { id, text, took });
    }

    #[test]
    fn a_restart_that_only_stopped_says_what_it_left_out() {
        let plan = restart();
        let mut account = Account::of(&plan);
        began(&mut account, 0);
        assert_eq!(account.under_way(), "container p-a-1: stop");
        assert_eq!(
            account.lines(),
            [
                "interrupted: `wharf ps` shows what runs",
                "  still under way: container p-a-1: stop",
                "  not done: container p-a-1: start",
                "  to go on: `wharf start a`",
            ]
        );
        ended(&mut account, 0);
        assert_eq!(
            account.lines(),
            [
                "interrupted: `wharf ps` shows what runs",
                "  done: container p-a-1: stop",
                "  not done: container p-a-1: start",
                "  to go on: `wharf start a`",
            ]
        );
    }

    #[test]
    fn only_what_was_started_goes_on() {
        let plan = restart();
        let mut account = Account::of(&plan);
        for step in 0..2 {
            began(&mut account, step);
            ended(&mut account, step);
        }
        assert_eq!(
            account.lines(),
            [
                "interrupted: what was started goes on; `wharf ps` shows it",
                "  done: container p-a-1: stop; container p-a-1: start",
            ]
        );
    }
}
