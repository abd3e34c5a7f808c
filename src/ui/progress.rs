//! Steps as they happen: one line when a step ends. Lines are only ever appended, so a terminal
//! multiplexer, a file and a CI log all read the same. As JSON (`--progress json`), Docker Compose's objects.

use std::collections::BTreeSet;

use crate::event::Event;
use crate::ui::time::took;
use crate::ui::{BAD, DIM, GOOD, NAME, Steps, Ui, WARN};

/// Prints events of the execution; log lines are not its business.
#[derive(Clone, Debug)]
pub struct Progress {
    ui: Ui,
    hidden: BTreeSet<String>,
}

impl Progress {
    /// A printer.
    pub fn new(ui: Ui) -> Self {
        Self {
            ui,
            hidden: BTreeSet::new(),
        }
    }

    /// Without what builds and pulls of these subjects write themselves, and without steps on these subjects that do
    /// not fail.
    #[must_use]
    pub fn without(mut self, subjects: BTreeSet<String>) -> Self {
        self.hidden = subjects;
        self
    }

    /// Prints one event.
    pub fn show(&self, event: &Event) {
        if self.ui.steps == Steps::Json {
            return self.show_json(event);
        }
        match event {
            Event::StepDone { text, .. } if self.hides(text) => {}
            Event::StepDone { text, .. } if is_kept(text) => {
                self.ui.status(format!(" {WARN}!{WARN:#} {text}"));
            }
            Event::StepDone {
                text, took: time, ..
            } => self.ui.status(format!(
                " {GOOD}✔{GOOD:#} {text}  {DIM}{}{DIM:#}",
                took(*time)
            )),
            Event::StepFailed { text, .. } => self.ui.status(format!(" {BAD}✘{BAD:#} {text}")),
            Event::Progress { subject, line } if !self.hidden.contains(subject) => {
                self.ui.status(format!("   {DIM}{subject}  {line}{DIM:#}"));
            }
            Event::Note(line) => self.ui.note(line),
            Event::Warning(line) => self.ui.warn(line),
            Event::Ready {
                name,
                url,
                how,
                took: time,
                ..
            } => self.ui.status(format!(
                " {GOOD}●{GOOD:#} {name} is ready: {NAME}{url}{NAME:#}  {DIM}{how}, {}{DIM:#}",
                took(*time)
            )),
            Event::Progress { .. }
            | Event::Exited { .. }
            | Event::StepStarted { .. }
            | Event::Log { .. } => {}
        }
    }

    fn hides(&self, text: &str) -> bool {
        let thing = text.split_once(": ").map(|(thing, _)| thing);
        thing.is_some_and(|thing| self.hidden.contains(thing))
    }

    fn show_json(&self, event: &Event) {
        let tell = |id: &str, status: &str, text: Option<&str>| {
            let mut object = serde_json::json!({ "id": id, "status": status });
            if let Some(text) = text {
                object["text"] = text.into();
            }
            self.ui.object(&object);
        };
        match event {
            Event::StepStarted { text, .. } | Event::StepDone { text, .. } if self.hides(text) => {}
            Event::StepStarted { text, .. } => {
                let (id, verb) = subject(text);
                tell(&id, words(verb).0, None);
            }
            Event::StepDone { text, .. } => {
                let (id, verb) = subject(text);
                tell(&id, words(verb).1, None);
            }
            Event::StepFailed { text, .. } => tell(&subject(text).0, "Error", None),
            Event::Progress { subject, line } if !self.hidden.contains(subject) => {
                tell(subject, "Working", Some(line));
            }
            Event::Ready { name, url, .. } => tell(name, "Ready", Some(url)),
            Event::Note(line) => self.ui.note(line),
            Event::Warning(line) => self.ui.warn(line),
            Event::Progress { .. } | Event::Exited { .. } | Event::Log { .. } => {}
        }
    }
}

/// The object for an instance that runs as it should: `container p-web-1`.
pub fn already(instance: &str) -> serde_json::Value {
    serde_json::json!({ "id": subject(instance).0, "status": "Running" })
}

/// Whether a step left something in place, against its word.
fn is_kept(text: &str) -> bool {
    subject(text).1.starts_with("kept,")
}

/// `container web-1: start` in two: the thing with a capital, and what becomes of it.
fn subject(text: &str) -> (String, &str) {
    let (thing, verb) = text.split_once(": ").unwrap_or((text, ""));
    // Docker Compose calls what a provider provides by the service's name alone.
    if let Some(service) = thing.strip_prefix("provider ") {
        return (service.to_owned(), verb);
    }
    let mut letters = thing.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    (first.into_iter().chain(letters).collect(), verb)
}

/// While it is done, and afterwards.
fn words(verb: &str) -> (&'static str, &'static str) {
    match verb.split(' ').next().unwrap_or_default() {
        "create" => ("Creating", "Created"),
        "start" => ("Starting", "Started"),
        "stop" => ("Stopping", "Stopped"),
        "remove" => ("Removing", "Removed"),
        "build" => ("Building", "Built"),
        "pull" => ("Pulling", "Pulled"),
        "kept," => ("Removing", "Resource is still in use"),
        "wait" if verb.ends_with("healthy") => ("Waiting", "Healthy"),
        "wait" if verb.ends_with("completed") => ("Waiting", "Exited"),
        "wait" => ("Waiting", "Ready"),
        _ => ("Working", "Done"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_the_words_of_compose() {
        assert_eq!(
            subject("container p-a-1: start"),
            ("Container p-a-1".to_owned(), "start")
        );
        assert_eq!(words("wait until healthy"), ("Waiting", "Healthy"));
        assert_eq!(words("build for web"), ("Building", "Built"));
        assert_eq!(subject("provider db: create"), ("db".to_owned(), "create"));
        assert!(is_kept("volume p_data: kept, it is still in use"));
    }
}
