//! From the engine's log messages to lines. Pure.
//!
//! The engine cuts long lines into messages of 16 KiB, each with a timestamp of its own in front, and
//! sends the two outputs interleaved; a line is whole when its line end came.

use bollard::container::LogOutput;

use crate::event::Stream;

/// A longer line is cut: what never ends one must not fill the memory.
const LONGEST: usize = 16 * 1024 * 1024;

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
    untimed: bool,
}

impl Lines {
    /// For messages without timestamps (a command's output): they get the time of their arrival, and
    /// may hold several lines each.
    pub(super) fn untimed() -> Self {
        Self {
            untimed: true,
            ..Self::default()
        }
    }

    /// Takes a message; the lines that it completes come out.
    pub(super) fn push(&mut self, message: &LogOutput) -> Vec<Line> {
        let (stream, terminal, bytes) = match message {
            LogOutput::StdErr { message } => (Stream::Stderr, false, message),
            LogOutput::StdOut { message } | LogOutput::StdIn { message } => {
                (Stream::Stdout, false, message)
            }
            LogOutput::Console { message } => (Stream::Stdout, true, message),
        };
        let (time, text) = if self.untimed {
            (Some(now()), bytes.as_ref())
        } else {
            split(bytes)
        };
        let partial = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut whole = Vec::new();
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            let line = partial.get_or_insert_with(|| Line {
                stream,
                time: time.unwrap_or(0),
                bytes: Vec::new(),
            });
            let Some(end) = piece.strip_suffix(b"\n") else {
                line.bytes.extend_from_slice(piece);
                if line.bytes.len() >= LONGEST {
                    whole.extend(partial.take());
                }
                continue;
            };
            // A terminal ends its lines with both characters.
            let end = match end.strip_suffix(b"\r") {
                Some(end) if terminal => end,
                _ => end,
            };
            line.bytes.extend_from_slice(end);
            whole.extend(partial.take());
        }
        whole
    }

    /// What was left without a line end.
    pub(super) fn rest(&mut self) -> impl Iterator<Item = Line> {
        [self.stdout.take(), self.stderr.take()]
            .into_iter()
            .flatten()
    }
}

/// Nanoseconds since the Unix epoch.
fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
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
        assert!(
            lines
                .push(&out("2024-05-01T00:00:01.000000002Z one "))
                .is_empty()
        );
        let error = LogOutput::StdErr {
            message: "2024-05-01T00:00:02Z oops\n".into(),
        };
        let oops = lines.push(&error).remove(0);
        assert_eq!(
            (oops.stream, oops.bytes.as_slice()),
            (Stream::Stderr, &b"oops"[..])
        );
        let line = lines.push(&out("2024-05-01T00:00:03Z line\n")).remove(0);
        assert_eq!(line.bytes, b"one line");
        assert_eq!(line.time, 1_714_521_601_000_000_002);
    }

    #[test]
    fn bytes_are_kept_as_they_are() {
        let mut lines = Lines::default();
        let message = LogOutput::StdOut {
            message: b"2024-05-01T00:00:01Z \xff\x00 x\r\n".to_vec().into(),
        };
        assert_eq!(lines.push(&message)[0].bytes, b"\xff\x00 x\r");
        let empty = lines.push(&out("2024-05-01T00:00:01Z \n")).remove(0);
        assert_eq!(empty.bytes, b"");
    }

    #[test]
    fn a_terminal_has_one_output_and_its_own_line_ends() {
        let mut lines = Lines::default();
        let message = LogOutput::Console {
            message: "2024-05-01T00:00:01Z $ \r\n".into(),
        };
        let line = lines.push(&message).remove(0);
        assert_eq!(
            (line.stream, line.bytes.as_slice()),
            (Stream::Stdout, &b"$ "[..])
        );
    }

    #[test]
    fn the_rest_comes_out_at_the_end() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&out("2024-05-01T00:00:01Z no end")), []);
        let rest: Vec<Line> = lines.rest().collect();
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].bytes, b"no end");
    }

    #[test]
    fn a_command_s_messages_hold_several_lines() {
        let mut lines = Lines::untimed();
        let told = lines.push(&out("2024 one\ntwo\nthr"));
        let texts: Vec<&[u8]> = told.iter().map(|line| line.bytes.as_slice()).collect();
        assert_eq!(texts, [&b"2024 one"[..], b"two"]);
        assert!(told.iter().all(|line| line.time > 0));
        assert_eq!(lines.push(&out("ee\n"))[0].bytes, b"three");
    }
}
