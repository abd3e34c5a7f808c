//! The one dialogue of wharf: what to do about a held port.

use std::io::Write as _;

use crate::plan::Question;
use crate::plan::policy::Choice;
use crate::port::claim::Claim;
use crate::port::holder::Holder;
use crate::ui::{BAD, DIM, NAME, Ui, WARN};

impl Ui {
    /// Asks whether these may be stopped; no answer (end of input) means no.
    pub fn ask_to_stop(self, claim: &Claim, holders: &[Holder], notes: &[String]) -> bool {
        self.status(format!(
            "{WARN}port {claim} is taken{WARN:#}. It is held by"
        ));
        for line in described(holders).into_iter().chain(indented(notes)) {
            self.status(line);
        }
        loop {
            drop(write!(
                anstream::stderr(),
                "  stop it? {NAME}[y]{NAME:#}es, {NAME}[n]{NAME:#}o: "
            ));
            drop(anstream::stderr().flush());
            let answer = read_line().unwrap_or_else(|| "no".to_owned());
            match answer.trim().to_ascii_lowercase().as_str() {
                "y" | "yes" => return true,
                "n" | "no" => return false,
                _ => self.status(format!("  {BAD}not an answer{BAD:#}: type y or n")),
            }
        }
    }

    /// Puts a question and returns the answer; no answer (end of input) aborts.
    /// `notes` say what else an answer means.
    pub fn ask(self, question: &Question, notes: &[String]) -> Choice {
        // What needs a person's word is said as the reason for that.
        let notes: Vec<String> = notes
            .iter()
            .filter(|note| Some(*note) != question.obstacle.as_ref())
            .cloned()
            .collect();
        for line in heading(question).into_iter().chain(indented(&notes)) {
            self.status(line);
        }
        let mut open: Vec<String> = Vec::new();
        for choice in &question.choices {
            open.push(match choice {
                Choice::Replace => {
                    format!("{NAME}[r]{NAME:#}eplace it: stop it and start a fresh instance")
                }
                Choice::Move => format!(
                    "{NAME}[m]{NAME:#}ove: use port {} instead",
                    question.next.unwrap_or_default()
                ),
                Choice::Abort => format!("{NAME}[a]{NAME:#}bort: change nothing"),
            });
        }
        for line in &open {
            self.status(format!("    {line}"));
        }
        loop {
            drop(write!(anstream::stderr(), "  your choice: "));
            drop(anstream::stderr().flush());
            let Some(answer) = read_line() else {
                self.status("");
                return Choice::Abort;
            };
            if let Some(choice) = understand(&answer, &question.choices) {
                return choice;
            }
            let letters: Vec<&str> = question
                .choices
                .iter()
                .map(|choice| letter(*choice))
                .collect();
            self.status(format!(
                "  {BAD}not an answer{BAD:#}: type {}",
                letters.join(", ")
            ));
        }
    }
}

/// A line from standard input. `None` at its end, and when a signal comes in between: where signals are
/// listened for, Ctrl-C does not end the program by itself, and the standard library would read on.
pub(super) fn read_line() -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match rustix::io::read(rustix::stdio::stdin(), &mut byte) {
            Ok(1) if byte[0] == b'\n' => return Some(String::from_utf8_lossy(&line).into_owned()),
            Ok(1) => line.push(byte[0]),
            Ok(_) | Err(_) => return None,
        }
    }
}

/// What is held, by whom, and why that cannot be changed where it cannot.
pub fn heading(question: &Question) -> Vec<String> {
    let claim = &question.claim;
    let mut lines = vec![format!(
        "{WARN}port {claim} is taken{WARN:#}, and service `{}` needs it.{}",
        claim.service,
        if question.holders.is_empty() {
            ""
        } else {
            " It is held by"
        }
    )];
    lines.extend(described(&question.holders));
    lines.extend(refusal(question).map(|line| format!("  {line}")));
    lines
}

/// Why the holders are not stopped, or what it takes; nothing where an answer is enough.
pub fn refusal(question: &Question) -> Option<String> {
    let obstacle = question.obstacle.as_ref()?;
    let takes_a_word = !question.own
        && question.settled.is_none()
        && question.holders.iter().any(Holder::needs_flag)
        && question
            .holders
            .iter()
            .all(|holder| holder.obstacle(true).is_none());
    Some(if takes_a_word {
        format!("it takes --force to stop it: {obstacle}")
    } else {
        format!("wharf will not stop it: {obstacle}")
    })
}

fn indented(notes: &[String]) -> impl Iterator<Item = String> {
    notes.iter().map(|note| format!("    {note}"))
}

/// Holders with their facts, indented.
fn described(holders: &[Holder]) -> Vec<String> {
    let mut lines = Vec::new();
    for (holder, facts) in Holder::told(holders) {
        lines.push(format!("    {}", holder.describe()));
        lines.extend(facts.iter().map(|fact| format!("      {DIM}{fact}{DIM:#}")));
    }
    lines
}

fn letter(choice: Choice) -> &'static str {
    match choice {
        Choice::Replace => "r",
        Choice::Move => "m",
        Choice::Abort => "a",
    }
}

fn understand(answer: &str, choices: &[Choice]) -> Option<Choice> {
    let answer = answer.trim().to_ascii_lowercase();
    choices.iter().copied().find(|choice| {
        let word = match choice {
            Choice::Replace => "replace",
            Choice::Move => "move",
            Choice::Abort => "abort",
        };
        answer == letter(*choice) || answer == word
    })
}

/// The same in plain lines, for a report without a terminal.
pub fn plain(holders: &[Holder]) -> Vec<String> {
    let mut lines = Vec::new();
    for (holder, facts) in Holder::told(holders) {
        lines.push(format!("held by {}", holder.describe()));
        lines.extend(facts.iter().map(|fact| format!("  {fact}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::claim::Protocol;
    use crate::port::holder::{Debugged, Tracer};

    #[test]
    fn what_takes_a_word_is_not_said_to_be_refused() {
        let holder = |protected: Option<&str>| Holder {
            debugged_below: Some(Debugged {
                pid: 2,
                name: "worker".into(),
                tracer: Tracer {
                    pid: 3,
                    name: "gdb".into(),
                },
            }),
            protected: protected.map(Into::into),
            ..Holder::of_words(&["ws", "8003"])
        };
        let question = |holder: Holder| Question {
            claim: Claim::anywhere(8003, Protocol::Tcp),
            obstacle: holder.obstacle(false),
            holders: vec![holder],
            choices: vec![Choice::Abort],
            next: None,
            settled: None,
            own: false,
        };
        let said = refusal(&question(holder(None))).unwrap();
        assert!(
            said.starts_with("it takes --force to stop it: gdb "),
            "{said}"
        );
        let said = refusal(&question(holder(Some("no")))).unwrap();
        assert_eq!(said, "wharf will not stop it: no");
    }

    #[test]
    fn an_answer_is_a_letter_or_a_word_that_is_open() {
        let open = [Choice::Move, Choice::Abort];
        assert_eq!(understand("m\n", &open), Some(Choice::Move));
        assert_eq!(understand(" ABORT ", &open), Some(Choice::Abort));
        assert_eq!(understand("r", &open), None);
        assert_eq!(understand("", &open), None);
    }
}
