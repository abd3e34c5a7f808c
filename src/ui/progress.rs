//! Steps as they happen: one line when a step ends. Lines are only ever appended, so a terminal
//! multiplexer, a file and a CI log all read the same.

use crate::event::Event;
use crate::ui::time::took;
use crate::ui::{BAD, DIM, GOOD, NAME, Ui};

/// Prints events of the execution; log lines are not its business.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    ui: Ui,
}

impl Progress {
    /// A printer.
    pub fn new(ui: Ui) -> Self {
        Self { ui }
    }

    /// Prints one event.
    pub fn show(&self, event: &Event) {
        match event {
            Event::StepDone {
                text, took: time, ..
            } => self.ui.status(format!(
                " {GOOD}✔{GOOD:#} {text}  {DIM}{}{DIM:#}",
                took(*time)
            )),
            Event::StepFailed { text, .. } => self.ui.status(format!(" {BAD}✘{BAD:#} {text}")),
            Event::Progress { subject, line } => {
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
            Event::Exited { .. } | Event::StepStarted { .. } | Event::Log { .. } => {}
        }
    }
}
