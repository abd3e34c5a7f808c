//! Reads what instances have written: the two streams of one instance put back into one sequence of lines,
//! each with its time of arrival, by the index. Needs no supervisor. Waits for nothing; `watch` does.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::time::UNIX_EPOCH;

use super::dirs::InstanceDir;
use super::index::{Arrival, SIZE};
use crate::event::Stream;

/// Longer lines are delivered in pieces of this many bytes.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// Bytes read at once.
const PORTION: u64 = 256 * 1024;

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
struct Channel {
    stream: Stream,
    log: Option<File>,
    /// Bytes taken in so far.
    position: u64,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    partial_time: i64,
}

/// A reader of one instance's output.
#[derive(Debug)]
pub struct Reader {
    dir: InstanceDir,
    index: Option<BufReader<File>>,
    /// The part of a record that was there at the last look.
    torn: Vec<u8>,
    channels: [Channel; 2],
}

impl Reader {
    /// From the beginning.
    pub fn open(dir: &InstanceDir) -> io::Result<Self> {
        let channel = |stream| Channel {
            stream,
            log: None,
            position: 0,
            partial: Vec::new(),
            partial_time: 0,
        };
        let mut reader = Self {
            dir: dir.clone(),
            index: None,
            torn: Vec::new(),
            channels: [channel(Stream::Stdout), channel(Stream::Stderr)],
        };
        reader.reopen()?;
        Ok(reader)
    }

    /// From where the last `lines` lines of each stream begin: the last lines of both are among them.
    pub fn open_near_end(dir: &InstanceDir, lines: u64) -> io::Result<Self> {
        let mut reader = Self::open(dir)?;
        for channel in &mut reader.channels {
            if let Some(log) = &channel.log {
                channel.position = start_of_last(log, lines)?;
            }
        }
        Ok(reader)
    }

    /// Files that were not there yet may be by now.
    fn reopen(&mut self) -> io::Result<()> {
        if self.index.is_none() {
            self.index = existing(&self.dir.index())?.map(BufReader::new);
        }
        for channel in &mut self.channels {
            if channel.log.is_none() {
                channel.log = existing(&self.dir.log(channel.stream))?;
            }
        }
        Ok(())
    }

    /// Delivers the lines that have been completed since the last call, at most about 256 KiB of them;
    /// whether there may be more.
    pub fn read(&mut self, mut deliver: impl FnMut(Line)) -> io::Result<bool> {
        self.reopen()?;
        let mut budget = PORTION;
        while budget > 0 {
            let Some(arrival) = self.next_arrival()? else {
                return Ok(false);
            };
            let Some(channel) = self
                .channels
                .iter_mut()
                .find(|channel| channel.stream == arrival.stream)
            else {
                continue;
            };
            let taken = channel.take(arrival.end, arrival.time, &mut deliver)?;
            budget = budget.saturating_sub(taken);
        }
        Ok(true)
    }

    /// Delivers what is left when nothing will be added any more: bytes whose arrival nobody noted, with
    /// the time of the log's last change, and last lines without a line end.
    pub fn finish(&mut self, mut deliver: impl FnMut(Line)) -> io::Result<()> {
        while self.read(&mut deliver)? {}
        for channel in &mut self.channels {
            if let Some(log) = &channel.log {
                let facts = log.metadata()?;
                let time = facts
                    .modified()
                    .ok()
                    .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
                    .and_then(|time| i64::try_from(time.as_nanos()).ok())
                    .unwrap_or_default();
                channel.take(facts.len(), time, &mut deliver)?;
            }
            channel.flush(&mut deliver);
        }
        Ok(())
    }

    /// Delivers last lines without a line end: the run that wrote them is over.
    pub fn flush(&mut self, mut deliver: impl FnMut(Line)) {
        for channel in &mut self.channels {
            channel.flush(&mut deliver);
        }
    }

    fn next_arrival(&mut self) -> io::Result<Option<Arrival>> {
        let Some(index) = &mut self.index else {
            return Ok(None);
        };
        let missing = SIZE.saturating_sub(self.torn.len());
        index
            .by_ref()
            .take(missing as u64)
            .read_to_end(&mut self.torn)?;
        let Ok(record) = <[u8; SIZE]>::try_from(self.torn.as_slice()) else {
            return Ok(None);
        };
        self.torn.clear();
        Ok(Some(Arrival::decode(record)))
    }
}

impl Channel {
    /// Takes in everything up to `end`; how many bytes that was.
    fn take(&mut self, end: u64, time: i64, deliver: &mut impl FnMut(Line)) -> io::Result<u64> {
        let begin = self.position;
        let mut buffer = Vec::new();
        while self.position < end {
            let Some(log) = &self.log else { break };
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
                if text.last() == Some(&b'\r') {
                    text.pop();
                }
                deliver(Line {
                    stream: self.stream,
                    time,
                    text,
                });
                rest = &rest[at + 1..];
            }
            self.partial.extend_from_slice(rest);
            self.partial_time = time;
            if self.partial.len() >= LONGEST_LINE {
                self.flush(deliver);
            }
        }
        Ok(self.position - begin)
    }

    fn flush(&mut self, deliver: &mut impl FnMut(Line)) {
        if !self.partial.is_empty() {
            deliver(Line {
                stream: self.stream,
                time: self.partial_time,
                text: std::mem::take(&mut self.partial),
            });
        }
    }
}

/// The last lines of an instance that arrived at or after `since`, oldest first.
pub fn last(dir: &InstanceDir, lines: u64, since: i64) -> io::Result<VecDeque<Line>> {
    let mut found = VecDeque::new();
    let limit = usize::try_from(lines).unwrap_or(usize::MAX);
    if limit == 0 {
        return Ok(found);
    }
    Reader::open_near_end(dir, lines)?.finish(|line| {
        if line.time >= since {
            if found.len() == limit {
                found.pop_front();
            }
            found.push_back(line);
        }
    })?;
    Ok(found)
}

fn existing(path: &std::path::Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the last `lines` lines of a file begin. A line end at the very end closes the last line, it does
/// not begin another one.
fn start_of_last(file: &File, lines: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(length);
    }
    let mut end = length;
    let mut left = lines;
    let mut buffer = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(PORTION);
        buffer.resize(usize::try_from(end - start).unwrap_or_default(), 0);
        file.read_exact_at(&mut buffer, start)?;
        for (at, _) in buffer
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            let after = start + at as u64 + 1;
            if after == length {
                continue;
            }
            left = left.saturating_sub(1);
            if left == 0 {
                return Ok(after);
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use Stream::{Stderr, Stdout};

    use super::*;
    use crate::backend::process::dirs::Dirs;

    fn place() -> (tempfile::TempDir, InstanceDir) {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path().join("s"), root.path().join("r"));
        let dir = dirs.project("p").unwrap().instance("p-web-1").unwrap();
        dir.create().unwrap();
        (root, dir)
    }

    /// Writes logs from arrivals `(stream, time, text)`.
    fn write(dir: &InstanceDir, arrivals: &[(Stream, i64, &str)]) {
        let mut ends = [Vec::new(), Vec::new()];
        let mut index = Vec::new();
        for (stream, time, text) in arrivals {
            let log: &mut Vec<u8> = match stream {
                Stdout => &mut ends[0],
                Stderr => &mut ends[1],
            };
            log.extend_from_slice(text.as_bytes());
            index.extend(
                Arrival {
                    stream: *stream,
                    time: *time,
                    end: log.len() as u64,
                }
                .encode(),
            );
        }
        std::fs::write(dir.log(Stdout), &ends[0]).unwrap();
        std::fs::write(dir.log(Stderr), &ends[1]).unwrap();
        std::fs::write(dir.index(), index).unwrap();
    }

    fn all(dir: &InstanceDir) -> Vec<(Stream, i64, String)> {
        let mut found = Vec::new();
        Reader::open(dir)
            .unwrap()
            .finish(|line| found.push(seen(&line)))
            .unwrap();
        found
    }

    fn seen(line: &Line) -> (Stream, i64, String) {
        (
            line.stream,
            line.time,
            String::from_utf8(line.text.clone()).unwrap(),
        )
    }

    #[test]
    fn both_streams_come_in_the_order_of_arrival() {
        let (_root, dir) = place();
        write(
            &dir,
            &[
                (Stdout, 1, "a\nb"),
                (Stderr, 2, "oops\n"),
                (Stdout, 3, "c\r\nlast"),
            ],
        );
        assert_eq!(
            all(&dir),
            [
                (Stdout, 1, "a".into()),
                (Stderr, 2, "oops".into()),
                (Stdout, 3, "bc".into()),
                (Stdout, 3, "last".into()),
            ]
        );
    }

    #[test]
    fn bytes_that_nobody_noted_are_delivered_at_the_end() {
        let (_root, dir) = place();
        write(&dir, &[(Stdout, 1, "a\n")]);
        std::fs::write(dir.log(Stdout), "a\nb\n").unwrap();
        let lines = all(&dir);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1].2, "b");
        assert!(lines[1].1 > 1);
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let (_root, dir) = place();
        let mut reader = Reader::open(&dir).unwrap();
        let mut found = Vec::new();
        assert!(!reader.read(|line| found.push(seen(&line))).unwrap());
        write(&dir, &[(Stdout, 1, "a\npart")]);
        reader.read(|line| found.push(seen(&line))).unwrap();
        assert_eq!(found.len(), 1);
        let index = std::fs::read(dir.index()).unwrap();
        write(&dir, &[(Stdout, 1, "a\npart"), (Stdout, 2, "ial\n")]);
        // A record of which only a part has been written is not there yet.
        let full = std::fs::read(dir.index()).unwrap();
        std::fs::write(dir.index(), &full[..index.len() + 5]).unwrap();
        reader.read(|line| found.push(seen(&line))).unwrap();
        assert_eq!(found.len(), 1);
        std::fs::write(dir.index(), &full).unwrap();
        reader.read(|line| found.push(seen(&line))).unwrap();
        assert_eq!(found[1], (Stdout, 2, "partial".into()));
    }

    #[test]
    fn the_last_lines_are_the_last_of_both_streams_together() {
        let (_root, dir) = place();
        write(
            &dir,
            &[
                (Stderr, 1, "old\n"),
                (Stdout, 2, "a\n"),
                (Stdout, 3, "b\nc\n"),
                (Stderr, 4, "err"),
            ],
        );
        let text = |lines: VecDeque<Line>| -> Vec<String> {
            lines.iter().map(|line| seen(line).2).collect()
        };
        assert_eq!(text(last(&dir, 3, 0).unwrap()), ["b", "c", "err"]);
        assert_eq!(text(last(&dir, 0, 0).unwrap()), Vec::<String>::new());
        assert_eq!(
            text(last(&dir, 99, 0).unwrap()),
            ["old", "a", "b", "c", "err"]
        );
        assert_eq!(text(last(&dir, 99, 3).unwrap()), ["b", "c", "err"]);
    }

    #[test]
    fn the_start_of_the_last_lines_is_found_across_portions() {
        let (root, _dir) = place();
        let path = root.path().join("log");
        let line = "x".repeat(1000);
        let text = format!("{line}\n").repeat(1000);
        std::fs::write(&path, &text).unwrap();
        let file = File::open(&path).unwrap();
        for lines in [1_u64, 2, 700, 999] {
            let start = start_of_last(&file, lines).unwrap();
            assert_eq!(text.len() as u64 - start, lines * 1001, "{lines}");
        }
        assert_eq!(start_of_last(&file, 1000).unwrap(), 0);
        assert_eq!(start_of_last(&file, 0).unwrap(), text.len() as u64);
    }

    #[test]
    fn an_instance_without_output_has_no_lines() {
        let (_root, dir) = place();
        assert_eq!(all(&dir), []);
    }
}
