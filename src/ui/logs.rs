//! Log lines with their instance's name in front, padded to the longest, as Compose prints them.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::event::Stream;

const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
];

/// Writes log lines.
#[derive(Debug)]
pub struct LogWriter {
    project: String,
    prefixes: BTreeMap<String, (String, Style)>,
    width: usize,
    timestamps: bool,
    prefix: bool,
    colours: bool,
    merged: bool,
}

/// Whether what follows the project's name is a service and a number, or a one-off's: a `container_name` that
/// begins with the project's stays as it was given.
fn is_made_up(rest: &str) -> bool {
    let mut parts = rest.rsplit(['-', '_']);
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.next().is_some_and(is_number) || parts.next() == Some("run")
}

/// The name of an instance without its project's part.
fn shortened<'a>(project: &str, name: &'a str) -> &'a str {
    let rest = name.strip_prefix(project);
    rest.and_then(|rest| rest.strip_prefix(['-', '_']))
        .filter(|rest| is_made_up(rest))
        .unwrap_or(name)
}

impl LogWriter {
    /// A writer for the instances of a project; their names lose the project's part, as in Compose.
    pub fn new<'a>(project: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut writer = Self {
            project: project.to_owned(),
            prefixes: BTreeMap::new(),
            width: 0,
            timestamps: false,
            prefix: true,
            colours: true,
            merged: false,
        };
        for name in names {
            writer.add(name);
        }
        writer
    }

    /// One more instance. From here on, all names have the width of the longest.
    pub fn add(&mut self, name: &str) {
        if self.prefixes.contains_key(name) {
            return;
        }
        let short = shortened(&self.project, name).to_owned();
        self.width = self.width.max(short.chars().count());
        let colour = COLOURS[self.prefixes.len() % COLOURS.len()];
        let prefix = (short, colour.on_default());
        self.prefixes.insert(name.to_owned(), prefix);
    }

    /// With the time of arrival.
    #[must_use]
    pub fn timestamps(mut self, on: bool) -> Self {
        self.timestamps = on;
        self
    }

    /// With or without the names.
    #[must_use]
    pub fn prefix(mut self, on: bool) -> Self {
        self.prefix = on;
        self
    }

    /// With or without colours, whatever the stream takes.
    #[must_use]
    pub fn colours(mut self, on: bool) -> Self {
        self.colours = on;
        self
    }

    /// All lines on standard output, as data, and in the order in which they came.
    #[must_use]
    pub fn merged(mut self) -> Self {
        self.merged = true;
        self
    }

    fn goes_to(&self, stream: Stream) -> Stream {
        if self.merged { Stream::Stdout } else { stream }
    }

    /// The names of these instances as they are shown, in order.
    pub fn names(&self, which: impl Fn(&str) -> bool) -> Vec<&str> {
        let chosen = self.prefixes.iter().filter(|(name, _)| which(name));
        chosen.map(|(_, (short, _))| short.as_str()).collect()
    }

    /// The name of an instance as it is shown.
    pub fn short<'a>(&'a self, name: &'a str) -> &'a str {
        match self.prefixes.get(name) {
            Some((short, _)) => short,
            // It came later.
            None => shortened(&self.project, name),
        }
    }

    /// Writes one line to the stream it came from, byte for byte: only what wharf puts in front of it
    /// depends on whether the stream takes colours.
    ///
    /// # Errors
    /// The stream takes nothing more; `BrokenPipe` where its reader has gone.
    pub fn line(&self, name: &str, stream: Stream, time: i64, line: &[u8]) -> io::Result<()> {
        match self.goes_to(stream) {
            Stream::Stdout => {
                let choice = AutoStream::choice(&io::stdout());
                io::stdout().write_all(&self.composed(choice, name, time, line))
            }
            Stream::Stderr => {
                let choice = AutoStream::choice(&io::stderr());
                io::stderr().write_all(&self.composed(choice, name, time, line))
            }
        }
    }

    /// For lines that are there already and many: see [`Batch`].
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            writer: self,
            stream: Stream::Stdout,
            choice: None,
            text: Vec::new(),
        }
    }

    fn composed(&self, choice: ColorChoice, name: &str, time: i64, line: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(line.len() + self.width + 48);
        self.compose(&mut text, choice, name, time, line);
        text
    }

    fn compose(&self, text: &mut Vec<u8>, choice: ColorChoice, name: &str, time: i64, line: &[u8]) {
        // Writing to a vector cannot fail.
        if self.prefix {
            let (short, style) = self
                .prefixes
                .get(name)
                .map_or((self.short(name), Style::new()), |(short, style)| {
                    (short.as_str(), *style)
                });
            let style = if choice == ColorChoice::Never || !self.colours {
                Style::new()
            } else {
                style
            };
            let width = self.width;
            drop(write!(text, "{style}{short:width$}  | {style:#}"));
        }
        if self.timestamps {
            drop(write!(text, "{} ", timestamp(time)));
        }
        text.extend_from_slice(line);
        text.push(b'\n');
    }
}

/// Bytes that are written together.
const BATCH: usize = 64 * 1024;

/// Lines on their way to a stream, written together as long as they go to the same one.
#[derive(Debug)]
pub struct Batch<'a> {
    writer: &'a LogWriter,
    stream: Stream,
    choice: Option<ColorChoice>,
    text: Vec<u8>,
}

impl Batch<'_> {
    /// Takes a line, see [`LogWriter::line`].
    ///
    /// # Errors
    /// The stream takes nothing more; `BrokenPipe` where its reader has gone.
    pub fn line(&mut self, name: &str, stream: Stream, time: i64, line: &[u8]) -> io::Result<()> {
        let stream = self.writer.goes_to(stream);
        if stream != self.stream || self.text.len() >= BATCH {
            self.flush()?;
            self.stream = stream;
        }
        let choice = *self.choice.get_or_insert_with(|| match stream {
            Stream::Stdout => AutoStream::choice(&io::stdout()),
            Stream::Stderr => AutoStream::choice(&io::stderr()),
        });
        self.writer
            .compose(&mut self.text, choice, name, time, line);
        Ok(())
    }

    /// Writes what was taken.
    ///
    /// # Errors
    /// As [`Batch::line`].
    pub fn flush(&mut self) -> io::Result<()> {
        let text = std::mem::take(&mut self.text);
        self.choice = None;
        match self.stream {
            Stream::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(&text)?;
                out.flush()
            }
            Stream::Stderr => io::stderr().write_all(&text),
        }
    }
}

/// RFC 3339 with nanoseconds, UTC, as the engine prints it.
fn timestamp(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds))
        .map(|time| format!("{time:.9}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_a_service_is_not_changed() {
        let writer = LogWriter::new("p", ["p-web-1"]);
        let line = b"a\0b\r\x1b[31mred\x1b[0m \xff";
        for choice in [ColorChoice::Never, ColorChoice::AlwaysAnsi] {
            let text = writer.composed(choice, "p-web-1", 0, line);
            assert!(text.ends_with(&[&line[..], b"\n"].concat()), "{text:?}");
        }
        let plain = writer.composed(ColorChoice::Never, "p-web-1", 0, b"x");
        assert_eq!(plain, b"web-1  | x\n");
        let later = writer.composed(ColorChoice::Never, "p-web-2", 0, b"x");
        assert_eq!(later, b"web-2  | x\n");
        let mut writer = writer;
        writer.add("p-web-10");
        let wider = writer.composed(ColorChoice::Never, "p-web-1", 0, b"x");
        assert_eq!(wider, b"web-1   | x\n");
        let coloured = writer.composed(ColorChoice::AlwaysAnsi, "p-web-1", 0, b"x");
        assert!(coloured.starts_with(b"\x1b["), "{coloured:?}");
    }
}
