//! Work that is not a plan's, in front of the user: its events are shown, and an interrupt ends it.

use std::time::Duration;

use crate::cli::signals::Signals;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::plan::step::StepId;
use crate::ui::Ui;
use crate::ui::progress::Progress;

/// Runs `work` and shows what it tells.
///
/// # Errors
/// The user interrupted.
pub(super) async fn shown<T>(ui: Ui, work: impl AsyncFnOnce(Events) -> T) -> Result<T> {
    let (events, mut receiver) = Events::channel();
    let progress = Progress::new(ui);
    let mut signals = Signals::new()?;
    let mut working = std::pin::pin!(work(events));
    let outcome = loop {
        tokio::select! {
            outcome = &mut working => break outcome,
            Some(event) = receiver.recv() => progress.show(&event),
            () = signals.next() => return Err(Error::interrupted()),
        }
    };
    while let Ok(event) = receiver.try_recv() {
        progress.show(&event);
    }
    Ok(outcome)
}

/// Tells how a piece of work ended.
pub(super) fn tell(events: &Events, text: String, succeeded: bool, took: Duration) {
    // Only the numbers of plans mean anything.
    let id = StepId(0);
    events.send(if succeeded {
        Event::StepDone { id, text, took }
    } else {
        Event::StepFailed { id, text }
    });
}
