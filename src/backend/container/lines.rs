//! From the engine's log messages to lines. Pure.
//!
//! The engine cuts long lines into messages of 16 KiB, each with a timestamp of its own in front, and
//! sends the two outputs interleaved; a line is whole when its line end came.

use bollard::container::LogOutput;

use crate::event::Stream;

/// A line of a container's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Which output; a terminal has only one.
    pub stream: Stream,
    /// When its first part reached the engine, nanoseconds since the Unix epoch.
    pub time: i64,
    /// Without its line end.
    pub bytes: Vec<u8>,
}

/// Puts messages of one container together.
#[derive(Debug, Default)]
pub(super) struct Lines {
    stdout: Option<Line>,
    stderr: Option<Line>,
}

impl Lines {
    /// Takes a message; a line that it completes comes out.
    pub(super) fn push(&mut self, message: &LogOutput) -> Option<Line> {
        let (stream, terminal, bytes) = match message {
            LogOutput::StdErr { message } => (Stream::Stderr, false, message),
            LogOutput::StdOut { message } | LogOutput::StdIn { message } => {
                (Stream::Stdout, false, message)
            }
            LogOutput::Console { message } => (Stream::Stdout, true, message),
        };
        let (time, text) = split(bytes);
        let (text, whole) = match text.strip_suffix(b"\n") {
            // A terminal ends its lines with both characters.
            Some(text) if terminal => (text.strip_suffix(b"\r").unwrap_or(text), true),
            Some(text) => (text, true),
            None => (text, false),
        };
        let partial = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let line = partial.get_or_insert_with(|| Line {
            stream,
            time: time.unwrap_or(0),
            bytes: Vec::new(),
        });
        line.bytes.extend_from_slice(text);
        if whole { partial.take() } else { None }
    }

    /// What was left without a line end.
    pub(super) fn rest(&mut self) -> impl Iterator<Item = Line> {
        [self.stdout.take(), self.stderr.take()]
            .into_iter()
            .flatten()
    }
}

/// Splits `2024-05-01T00:00:00.000000001Z text`.
fn split(bytes: &[u8]) -> (Option<i64>, &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b' ') else {
        return (None, bytes);
    };
    let time = std::str::from_utf8(&bytes[..end])
        .ok()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok())
        .and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    match time {
        Some(time) => (Some(time), &bytes[end + 1..]),
        None => (None, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &str) -> LogOutput {
        LogOutput::StdOut {
            message: text.to_owned().into(),
        }
    }

    #[test]
    fn a_long_line_is_one_line() {
        let mut lines = Lines::default();
        assert_eq!(
            lines.push(&out("2024-05-01T00:00:01.000000002Z one ")),
            None
        );
        let error = LogOutput::StdErr {
            message: "2024-05-01T00:00:02Z oops\n".into(),
        };
        let oops = lines.push(&error).unwrap();
        assert_eq!(
            (oops.stream, oops.bytes.as_slice()),
            (Stream::Stderr, &b"oops"[..])
        );
        let line = lines.push(&out("2024-05-01T00:00:03Z line\n")).unwrap();
        assert_eq!(line.bytes, b"one line");
        assert_eq!(line.time, 1_714_521_601_000_000_002);
    }

    #[test]
    fn bytes_are_kept_as_they_are() {
        let mut lines = Lines::default();
        let message = LogOutput::StdOut {
            message: b"2024-05-01T00:00:01Z \xff\x00 x\r\n".to_vec().into(),
        };
        assert_eq!(lines.push(&message).unwrap().bytes, b"\xff\x00 x\r");
        let empty = lines.push(&out("2024-05-01T00:00:01Z \n")).unwrap();
        assert_eq!(empty.bytes, b"");
    }

    #[test]
    fn a_terminal_has_one_output_and_its_own_line_ends() {
        let mut lines = Lines::default();
        let message = LogOutput::Console {
            message: "2024-05-01T00:00:01Z $ \r\n".into(),
        };
        let line = lines.push(&message).unwrap();
        assert_eq!(
            (line.stream, line.bytes.as_slice()),
            (Stream::Stdout, &b"$ "[..])
        );
    }

    #[test]
    fn the_rest_comes_out_at_the_end() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&out("2024-05-01T00:00:01Z no end")), None);
        let rest: Vec<Line> = lines.rest().collect();
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].bytes, b"no end");
    }
}
