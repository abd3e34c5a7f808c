//! EVENT → SCREEN. Data goes to stdout, progress and messages to stderr; nothing here decides.

pub mod confirm;
pub mod detach;
pub mod logs;
pub mod progress;
pub mod question;
pub mod report;
pub mod table;
pub mod terminal;
pub mod time;

use std::io::{IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};

/// The two streams of the command.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    /// Nothing but errors on stderr.
    pub quiet: bool,
}

/// Colours by meaning; `anstream` removes them where the stream is not a terminal or `NO_COLOR` is set.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Something the user should look at.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// Something failed.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// A name, a flag, a command.
pub(crate) const NAME: Style = AnsiColor::Cyan.on_default();
/// Not important.
pub(crate) const DIM: Style = Style::new().dimmed();

impl Ui {
    /// One line of data.
    pub fn data(self, line: impl AsRef<str>) {
        // A reader that went away (`| head`) is its own affair.
        drop(writeln!(anstream::stdout(), "{}", line.as_ref()));
    }

    /// One line about what happened.
    pub fn status(self, line: impl AsRef<str>) {
        if !self.quiet {
            drop(writeln!(anstream::stderr(), "{}", line.as_ref()));
        }
    }

    /// One line that explains.
    pub fn note(self, line: impl AsRef<str>) {
        self.status(format!("{NAME}note:{NAME:#} {}", line.as_ref()));
    }

    /// One line about what may be wrong.
    pub fn warn(self, line: impl AsRef<str>) {
        drop(writeln!(
            anstream::stderr(),
            "{WARN}warning:{WARN:#} {}",
            line.as_ref()
        ));
    }

    /// Whether a person can be asked: the question goes to stderr, the answer comes from stdin.
    pub fn can_ask(self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }
}
