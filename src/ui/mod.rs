//! EVENT → SCREEN. Data goes to stdout, progress and messages to stderr; nothing here decides.

pub mod confirm;
pub mod detach;
pub mod graph;
pub mod logs;
pub mod progress;
pub mod question;
pub mod report;
pub mod size;
pub mod table;
pub mod template;
pub mod terminal;
pub mod time;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;

use anstyle::{AnsiColor, Style};

/// The two streams of the command.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ui {
    /// Nothing but errors on stderr.
    pub quiet: bool,
    /// How steps are told.
    pub steps: Steps,
    /// What happened goes to stdout (`COMPOSE_STATUS_STDOUT`).
    pub status_to_stdout: bool,
    /// Nobody is to be asked (`--yes`).
    pub unattended: bool,
}

/// How steps are told (`--progress`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steps {
    /// A line for people when a step ends.
    #[default]
    Lines,
    /// An object with `id` and `status` a line, when a step begins and when it ends.
    Json,
}

/// The first failure of standard output. Commands print data in many places and none of them could do
/// anything about it, so it is looked at once, when the command ends.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Why standard output takes nothing more; `None` while it does. A command that goes on for ever ends when
/// this is set; a reader that has gone (`| head`) is no failure.
pub fn lost() -> Option<&'static io::Error> {
    LOST.get()
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
    /// One line of data. What cannot be written is remembered for the end of the command, see [`lost`].
    pub fn data(self, line: impl AsRef<str>) {
        if LOST.get().is_none() {
            self.wrote(writeln!(anstream::stdout(), "{}", line.as_ref()));
        }
    }

    /// Lines of data, written at once.
    pub fn lines<T: AsRef<str>>(self, lines: impl IntoIterator<Item = T>) {
        if LOST.get().is_none() {
            self.wrote(write_at_once(&mut io::stdout(), &joined(lines)));
        }
    }

    /// Takes note of how writing to stdout went.
    pub fn wrote(self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            drop(LOST.set(error));
        }
    }

    /// One object about what happened (`--progress json`).
    pub fn object(self, object: &serde_json::Value) {
        self.wrote_status(&[object.to_string()]);
    }

    /// One line about what happened.
    pub fn status(self, line: impl AsRef<str>) {
        self.statuses([line]);
    }

    /// Lines about what happened, written at once.
    pub fn statuses<T: AsRef<str>>(self, lines: impl IntoIterator<Item = T>) {
        if self.steps == Steps::Json {
            for line in lines {
                self.told("Info", line.as_ref());
            }
        } else {
            self.wrote_status(lines);
        }
    }

    /// A line for people, where only objects are told.
    fn told(self, status: &str, line: &str) {
        let line = anstream::adapter::strip_str(line).to_string();
        self.object(&serde_json::json!({ "id": "", "status": status, "text": line.trim() }));
    }

    fn wrote_status<T: AsRef<str>>(self, lines: impl IntoIterator<Item = T>) {
        if self.quiet {
            return;
        }
        if self.status_to_stdout {
            self.lines(lines);
        } else {
            drop(write_at_once(&mut io::stderr(), &joined(lines)));
        }
    }

    /// One line that explains.
    pub fn note(self, line: impl AsRef<str>) {
        if self.steps == Steps::Json {
            return self.told("Note", line.as_ref());
        }
        self.status(format!("{NAME}note:{NAME:#} {}", line.as_ref()));
    }

    /// One line about what may be wrong.
    pub fn warn(self, line: impl AsRef<str>) {
        if self.steps == Steps::Json {
            return self.told("Warning", line.as_ref());
        }
        drop(writeln!(
            anstream::stderr(),
            "{WARN}warning:{WARN:#} {}",
            line.as_ref()
        ));
    }

    /// Each as [`Self::warn`] does.
    pub fn warn_all(self, lines: impl IntoIterator<Item = String>) {
        for line in lines {
            self.warn(line);
        }
    }

    /// Whether a person can be asked: the question goes to stderr, the answer comes from stdin.
    pub fn can_ask(self) -> bool {
        !self.unattended && io::stdin().is_terminal() && io::stderr().is_terminal()
    }
}

fn joined<T: AsRef<str>>(lines: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.as_ref());
        text.push('\n');
    }
    text
}

/// Writes text in one piece, without its colours where the stream shows none. (A stream of anstream's writes
/// what stands between two changes of colour each by itself.)
fn write_at_once<S>(stream: &mut S, text: &str) -> io::Result<()>
where
    S: io::Write + anstream::stream::RawStream,
{
    let text = match anstream::AutoStream::choice(stream) {
        anstream::ColorChoice::Never => anstream::adapter::strip_str(text).to_string(),
        anstream::ColorChoice::Auto
        | anstream::ColorChoice::AlwaysAnsi
        | anstream::ColorChoice::Always => text.to_owned(),
    };
    stream.write_all(text.as_bytes())?;
    stream.flush()
}
