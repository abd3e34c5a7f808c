//! Observe, plan, ask, and plan again, until nothing is open.

use crate::backend::router::Backends;
use crate::cli::context::Context;
use crate::error::{Answer, Error, Kind, Result};
use crate::observe::observe;
use crate::plan::placement::Placement;
use crate::plan::policy::{Choice, Policy};
use crate::plan::replacing::Replacement;
use crate::plan::step::{Action, Step};
use crate::plan::{self, Inputs, Plan, Question};
use crate::port::holder::{Holder, Who};
use crate::port::release::{consequences, how_released};
use crate::project::model::Project;
use crate::state::{BackendKind, Observed};
use crate::ui::question;

/// A plan with nothing left open, and what it was made from.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) plan: Plan,
    pub(super) observed: Observed,
}

/// Observes, plans and asks until the plan has no question.
///
/// # Errors
/// Exit 5 where a question stays open, exit 130 where the person aborts.
pub(super) async fn settle(
    context: &Context,
    backends: &Backends,
    project: &Project,
    placement: &Placement,
    policy: &mut Policy,
) -> Result<Settled> {
    let observed = observe(backends, project, placement, policy).await?;
    let notes = backends.processes.take_notes().into_iter();
    context.ui.warn_all(notes.map(|note| context.typed(&note)));
    loop {
        let plan = plan::up(&Inputs {
            project,
            placement,
            observed: &observed,
            policy,
        });
        if let Some(problem) = plan.problems.first() {
            let mut error = Error::failed(problem.message.clone());
            error.hints.extend(problem.hint.clone());
            return Err(error);
        }
        // One at a time: what is open to the next one depends on the answer.
        let Some(question) = plan.questions.first() else {
            // Before any step of it.
            let is_made_here = |step: &Step| matches!(&step.action, Action::Create(spec) if spec.backend == BackendKind::Process);
            if plan.steps.iter().any(is_made_here) {
                backends.processes.check_owner(&project.name)?;
            }
            for Replacement { spec, has_files } in plan.replacements() {
                let foreseen = backends.processes.foresee(spec, has_files);
                foreseen.map_err(|error| {
                    Error::from(error).detail(format!(
                        "nothing was changed: what runs of service {} goes on",
                        spec.service.name
                    ))
                })?;
            }
            return Ok(Settled { plan, observed });
        };
        let choice = answer_one(context, question, &plan.questions)?;
        policy.answers.insert(question.claim.clone(), choice);
    }
}

/// An answer from the person at the terminal, or an error that names the flags that would answer.
pub(super) fn answer(context: &Context, question: &Question) -> Result<Choice> {
    answer_one(context, question, std::slice::from_ref(question))
}

/// As [`answer`]; an error tells of all the `open` questions at once, so that nobody meets them one by one.
fn answer_one(context: &Context, question: &Question, open: &[Question]) -> Result<Choice> {
    let can_change = question
        .choices
        .iter()
        .any(|choice| *choice != Choice::Abort);
    if question.settled.is_some() || !can_change || !context.ui.can_ask() {
        return Err(unanswered(open));
    }
    let notes = consequences(&question.holders, &question.claim);
    match context.ui.ask(question, &notes) {
        Choice::Abort => {
            context.ui.status("aborted: nothing was changed");
            Err(Error::interrupted())
        }
        choice @ (Choice::Replace | Choice::Move) => Ok(choice),
    }
}

/// The report of held ports that nobody may decide about.
pub(super) fn unanswered(questions: &[Question]) -> Error {
    reported(Kind::Question, questions, answers(questions))
}

/// The same for a command that asks nothing and has no flag that would answer.
pub(super) fn unanswerable(questions: &[Question]) -> Error {
    reported(Kind::Failed, questions, Vec::new())
}

fn reported(kind: Kind, questions: &[Question], answers: Vec<Answer>) -> Error {
    let taken = |question: &Question| {
        let claim = &question.claim;
        format!(
            "port {claim}, which service `{}` needs, is taken",
            claim.service
        )
    };
    let mut error = match questions {
        [question] => Error::new(kind, taken(question)),
        _ => Error::new(
            kind,
            format!(
                "{} ports that this project needs are taken",
                questions.len()
            ),
        ),
    };
    for question in questions {
        if questions.len() > 1 {
            error.details.push(taken(question));
        }
        error.details.extend(question::plain(&question.holders));
        if question.obstacle.is_none() {
            let notes = consequences(&question.holders, &question.claim);
            error.details.extend(notes);
        }
        error.details.extend(question::refusal(question));
    }
    let mut rules: Vec<&String> = questions
        .iter()
        .filter_map(|question| question.settled.as_ref())
        .collect();
    rules.dedup();
    for rule in rules {
        error
            .details
            .push(format!("nothing was changed, as {rule} says"));
    }
    error.answers = answers;
    for question in questions {
        for holder in &question.holders {
            let command = how_released(holder);
            if !question.own
                && question.obstacle.is_some()
                && holder.protected.is_none()
                && !command.is_empty()
                && !error.hints.contains(&command)
            {
                error.hints.push(command);
            }
        }
    }
    error
}

/// The flags that would answer all of them, and what each does.
fn answers(questions: &[Question]) -> Vec<Answer> {
    let mut answers = Vec::new();
    let all = |choice: Choice| {
        questions
            .iter()
            .all(|question| question.choices.contains(&choice))
    };
    if all(Choice::Replace) {
        let does = "stops the holder and starts a fresh instance";
        answers.push(Answer::force(does));
    }
    // What needs a person's word is no answer among others, and yet one way out.
    let needs_consent = |question: &Question| {
        question.holders.iter().any(Holder::needs_flag)
            && question
                .holders
                .iter()
                .all(|holder| holder.obstacle(true).is_none())
    };
    if questions.iter().any(needs_consent)
        && questions
            .iter()
            .all(|question| question.settled.is_none() && !question.own)
    {
        let is_unit = |holder: &Holder| matches!(holder.who, Who::Unit { .. });
        let all = || questions.iter().flat_map(|question| &question.holders);
        let (what, how) = match (
            all().any(is_unit),
            all().all(|it| is_unit(it) || !it.needs_flag()),
        ) {
            (true, true) => ("the unit", " by systemctl"),
            _ => ("it", ", and what ends with it"),
        };
        answers.push(Answer::force(format!("stops {what}{how}")));
    }
    match questions {
        [question] => {
            if let Some(next) = question.next {
                let does = format!("publishes on port {next} instead");
                answers.push(Answer::moving(does));
            }
        }
        _ if all(Choice::Move) => {
            answers.push(Answer::moving("publishes on other ports instead"));
        }
        _ => {}
    }
    answers
}
