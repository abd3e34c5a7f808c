//! One stream of an instance's output: takes bytes in up to where the index says and makes lines of them. Which of two
//! streams is next, and in which file, is `logs`' business.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::dirs::InstanceDir;
use super::ledger::Record;
use crate::event::Stream;

/// Longer lines are delivered in pieces of this many bytes.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// Bytes read at once.
pub(super) const PORTION: u64 = 256 * 1024;

/// A line of output without its line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it came from.
    pub stream: Stream,
    /// When its last byte arrived, in nanoseconds since the Unix epoch.
    pub time: i64,
    /// Not necessarily UTF-8.
    pub text: Vec<u8>,
}

/// One stream's log.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) dir: InstanceDir,
    pub(super) stream: Stream,
    /// Whether it is a terminal's, once somebody has asked.
    pub(super) terminal: Option<bool>,
    pub(super) log: Option<File>,
    /// Bytes of the present segment taken in so far.
    pub(super) position: u64,
    /// Nothing before this segment and place is wanted.
    pub(super) begin: (u64, u64),
    /// What comes first is the rest of a line whose beginning is no longer there.
    pub(super) skips: bool,
    /// The log of the present segment was gone before it was opened.
    pub(super) lost: bool,
    /// The beginning of a line whose end has not arrived.
    pub(super) partial: Vec<u8>,
    pub(super) partial_time: i64,
}

impl Channel {
    /// Takes in everything up to `end`; how many bytes that was.
    pub(super) fn take(
        &mut self,
        segment: u64,
        end: u64,
        time: i64,
        deliver: &mut impl FnMut(Line),
    ) -> io::Result<u64> {
        if segment < self.begin.0 {
            self.position = end;
            return Ok(0);
        }
        let begin = self.position;
        let mut buffer = Vec::new();
        while self.position < end {
            let Some(log) = &self.log else {
                self.lost = true;
                break;
            };
            let size = usize::try_from((end - self.position).min(PORTION)).unwrap_or_default();
            buffer.resize(size, 0);
            let count = log.read_at(&mut buffer, self.position)?;
            if count == 0 {
                // Somebody has shortened the log.
                break;
            }
            self.position += count as u64;
            let mut rest = buffer.get(..count).unwrap_or_default();
            while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let mut text = std::mem::take(&mut self.partial);
                text.extend_from_slice(&rest[..at]);
                rest = &rest[at + 1..];
                if std::mem::take(&mut self.skips) {
                    continue;
                }
                // A terminal ends its lines with both characters.
                if text.last() == Some(&b'\r') && self.is_on_terminal() {
                    text.pop();
                }
                deliver(Line {
                    stream: self.stream,
                    time,
                    text,
                });
            }
            if self.skips {
                continue;
            }
            self.partial.extend_from_slice(rest);
            self.partial_time = time;
            if self.partial.len() >= LONGEST_LINE {
                self.flush(deliver);
            }
        }
        Ok(self.position.saturating_sub(begin))
    }

    fn is_on_terminal(&mut self) -> bool {
        let look = || {
            let record = Record::read(&self.dir).ok().flatten();
            record.is_some_and(|record| record.spec.attributes.tty)
        };
        *self.terminal.get_or_insert_with(look)
    }

    /// Delivers a last line without its end.
    pub(super) fn flush(&mut self, deliver: &mut impl FnMut(Line)) {
        self.skips = false;
        if !self.partial.is_empty() {
            deliver(Line {
                stream: self.stream,
                time: self.partial_time,
                text: std::mem::take(&mut self.partial),
            });
        }
    }
}

/// Where a file of this length ends but for zeros behind its first `known` bytes: a machine that goes down leaves them in
/// place of what had not reached its disk.
pub(crate) fn written(file: &File, known: u64, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut buffer = Vec::new();
    while end > known {
        let start = end.saturating_sub(PORTION).max(known);
        buffer.resize(usize::try_from(end - start).unwrap_or_default(), 0);
        file.read_exact_at(&mut buffer, start)?;
        if let Some(at) = buffer.iter().rposition(|byte| *byte != 0) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(end)
}
