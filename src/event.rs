//! What happens while steps run. The only way from the engine room to the screen.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::plan::step::StepId;

/// Which of an instance's outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A step began.
    StepStarted {
        /// Which.
        id: StepId,
        /// What it does, e.g. `service ws-1  start process`.
        text: String,
    },
    /// A step succeeded.
    StepDone {
        /// Which.
        id: StepId,
        /// What it did.
        text: String,
        /// How long it took.
        took: Duration,
    },
    /// A step failed; the error itself is returned by `execute`.
    StepFailed {
        /// Which.
        id: StepId,
        /// What it should have done.
        text: String,
    },
    /// A line of a step's own output (build, pull).
    Progress {
        /// The service or image it belongs to.
        subject: String,
        /// The line, without its line end.
        line: String,
    },
    /// Something the user should know; one line.
    Note(String),
    /// Something that may be wrong; one line.
    Warning(String),
    /// A server answered for the first time.
    Ready {
        /// The instance's name.
        name: String,
        /// Where it answers, e.g. `ws://127.0.0.1:8003/ws`.
        url: String,
        /// The address in it.
        address: std::net::SocketAddr,
        /// What answered, e.g. `WebSocket handshake`.
        how: String,
        /// Time from the start of the instance.
        took: Duration,
    },
    /// A line of a service's output.
    Log {
        /// The instance's name.
        name: String,
        /// Which output.
        stream: Stream,
        /// Arrival time, nanoseconds since the Unix epoch.
        time: i64,
        /// The line without its line end; not necessarily UTF-8.
        line: Vec<u8>,
    },
    /// An instance ended.
    Exited {
        /// The instance's name.
        name: String,
        /// The service's name.
        service: String,
        /// The exit code, 128 + signal for a death by signal.
        code: i32,
        /// Whether its restart policy starts it again.
        restarts: bool,
    },
}

/// How the end of an instance is told, in the words of Docker Compose.
pub fn end_in_words(name: &str, code: i32, restarts: bool) -> String {
    let again = if restarts { " (restarting)" } else { "" };
    format!("{name} exited with code {code}{again}")
}

/// The sending side; cheap to clone. A closed receiver is not an error: nobody is watching.
#[derive(Clone, Debug)]
pub struct Events(UnboundedSender<Event>);

impl Events {
    /// A channel for events.
    pub fn channel() -> (Self, UnboundedReceiver<Event>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    /// Tells that something happened.
    pub fn send(&self, event: Event) {
        // A closed channel means that the screen is gone; work goes on.
        drop(self.0.send(event));
    }
}
