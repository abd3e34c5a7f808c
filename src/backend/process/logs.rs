//! Reads what instances have written: the two streams of one instance put back into one sequence of lines,
//! each with its time of arrival, by the index. Needs no supervisor. Waits for nothing; `watch` does.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::time::UNIX_EPOCH;

pub use super::channel::Line;

use super::beginnings::{ends_at, existing, start_of_last, start_of_line};
use super::channel::{Channel, PORTION, written};
use super::dirs::InstanceDir;
use super::index::{Arrival, SIZE};
use crate::event::Stream;

/// What comes next of the index.
enum Next {
    Arrival(Arrival),
    /// A segment that goes on after others which have not been read as a whole, and are gone.
    Gap,
    Nothing,
}

/// A reader of one instance's output.
#[derive(Debug)]
pub struct Reader {
    dir: InstanceDir,
    /// The segment that is being read.
    segment: u64,
    /// Whether it is the first one read, or one after a gap.
    fresh: bool,
    /// Whether there was a gap since somebody last asked.
    gap: bool,
    index: Option<BufReader<File>>,
    /// The part of a record that was there at the last look.
    torn: Vec<u8>,
    channels: [Channel; 2],
}

impl Reader {
    /// From the beginning.
    pub fn open(dir: &InstanceDir) -> io::Result<Self> {
        let first = dir.segments()?.first().copied().unwrap_or_default();
        Self::at(dir, first, [(0, 0); 2])
    }

    /// From where the last `lines` lines of each stream begin: the last lines of both are among them.
    pub fn open_near_end(dir: &InstanceDir, lines: u64) -> io::Result<Self> {
        let segments = dir.segments()?;
        let out = start_of_last(dir, Stream::Stdout, &segments, lines)?;
        let err = start_of_last(dir, Stream::Stderr, &segments, lines)?;
        Self::at(dir, out.0.min(err.0), [out, err])
    }

    /// From the lines on whose last byte arrived after the last arrival of this time. Where there is none such any more,
    /// all is later.
    pub fn open_after(dir: &InstanceDir, time: i64) -> io::Result<Self> {
        let segments = dir.segments()?;
        let Some((segment, ends)) = ends_at(dir, &segments, time)? else {
            return Self::open(dir);
        };
        let there = segments.partition_point(|each| *each <= segment);
        let segments = segments.get(..there).unwrap_or_default();
        let line = |stream, end| start_of_line(dir, stream, segments, end);
        let [out, err] = ends;
        let (out, err) = (line(Stream::Stdout, out)?, line(Stream::Stderr, err)?);
        Self::at(dir, out.0.min(err.0), [out, err])
    }

    fn at(dir: &InstanceDir, segment: u64, begins: [(u64, u64); 2]) -> io::Result<Self> {
        let channel = |stream, begin: (u64, u64)| Channel {
            dir: dir.clone(),
            stream,
            terminal: None,
            log: None,
            position: if begin.0 == segment { begin.1 } else { 0 },
            begin,
            skips: false,
            lost: false,
            partial: Vec::new(),
            partial_time: 0,
        };
        let mut reader = Self {
            dir: dir.clone(),
            segment,
            fresh: true,
            gap: false,
            index: None,
            torn: Vec::new(),
            channels: [
                channel(Stream::Stdout, begins[0]),
                channel(Stream::Stderr, begins[1]),
            ],
        };
        reader.reopen()?;
        Ok(reader)
    }

    /// Files that were not there yet may be by now.
    fn reopen(&mut self) -> io::Result<()> {
        if self.index.is_none() {
            self.index = existing(&self.dir.index(self.segment))?.map(BufReader::new);
        }
        for channel in &mut self.channels {
            if channel.log.is_none() {
                channel.log = existing(&self.dir.log(channel.stream, self.segment))?;
            }
        }
        Ok(())
    }

    /// Goes on to the next segment, if there is one.
    fn advance(&mut self) -> io::Result<bool> {
        let next = self.segment + 1;
        let next = if self.dir.index(next).exists() {
            next
        } else {
            // The reader may have been slower than the rotation.
            let segments = self.dir.segments()?;
            match segments.into_iter().find(|each| *each > self.segment) {
                Some(segment) => segment,
                None => return Ok(false),
            }
        };
        let is_unread = self.index.is_none() || self.channels.iter().any(|each| each.lost);
        self.fresh = next != self.segment + 1 || is_unread;
        self.segment = next;
        self.index = None;
        self.torn.clear();
        for channel in &mut self.channels {
            channel.log = None;
            channel.lost = false;
            channel.position = if channel.begin.0 == next {
                channel.begin.1
            } else {
                0
            };
            if self.fresh {
                channel.partial.clear();
            }
        }
        self.reopen()?;
        Ok(true)
    }

    /// Whether rotation was faster than the reader since the last call, and lines are gone that were never delivered.
    pub fn take_gap(&mut self) -> bool {
        std::mem::take(&mut self.gap)
    }

    /// Delivers the lines that have been completed since the last call, at most about 256 KiB of them, and none
    /// after a gap; whether there may be more.
    pub fn read(&mut self, mut deliver: impl FnMut(Line)) -> io::Result<bool> {
        self.reopen()?;
        let mut budget = PORTION;
        while budget > 0 {
            let arrival = match self.next_arrival()? {
                Next::Arrival(arrival) => arrival,
                Next::Gap => {
                    self.gap = true;
                    return Ok(true);
                }
                Next::Nothing => return Ok(false),
            };
            let (segment, fresh) = (self.segment, self.fresh);
            let Some(channel) = self
                .channels
                .iter_mut()
                .find(|channel| channel.stream == arrival.stream)
            else {
                continue;
            };
            if arrival.end == 0 {
                channel.skips = fresh && channel.position == 0 && segment >= channel.begin.0;
            }
            let taken = channel.take(segment, arrival.end, arrival.time, &mut deliver)?;
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
                let end = written(log, channel.position, facts.len())?;
                channel.take(self.segment, end, time, &mut deliver)?;
            }
            channel.flush(&mut deliver);
        }
        Ok(())
    }

    /// Delivers what is left in files that are open and were removed; those of others that may be in their place by now
    /// are not opened.
    pub fn finish_removed(&mut self, deliver: impl FnMut(Line)) -> io::Result<()> {
        let is_open = self.index.is_some() && self.channels.iter().all(|each| each.log.is_some());
        if is_open {
            self.finish(deliver)?;
        }
        Ok(())
    }

    /// Delivers last lines without a line end: the run that wrote them is over.
    pub fn flush(&mut self, mut deliver: impl FnMut(Line)) {
        for channel in &mut self.channels {
            channel.flush(&mut deliver);
        }
    }

    fn next_arrival(&mut self) -> io::Result<Next> {
        loop {
            if let Some(arrival) = self.record()? {
                return Ok(Next::Arrival(arrival));
            }
            // Once the next segment is there, nothing is added to this one: what had been added before is
            // read before going on.
            if !self.has_next()? {
                return Ok(Next::Nothing);
            }
            if let Some(arrival) = self.record()? {
                return Ok(Next::Arrival(arrival));
            }
            if !self.advance()? {
                return Ok(Next::Nothing);
            }
            if self.fresh {
                return Ok(Next::Gap);
            }
        }
    }

    fn has_next(&self) -> io::Result<bool> {
        if self.dir.index(self.segment + 1).exists() {
            return Ok(true);
        }
        // Only when its own file has gone can the next one have gone as well.
        if self.index.is_some() && self.dir.index(self.segment).exists() {
            return Ok(false);
        }
        let segments = self.dir.segments()?;
        Ok(segments.last().is_some_and(|last| *last > self.segment))
    }

    fn record(&mut self) -> io::Result<Option<Arrival>> {
        let Some(index) = &mut self.index else {
            return Ok(None);
        };
        loop {
            let missing = SIZE.saturating_sub(self.torn.len());
            index
                .by_ref()
                .take(missing as u64)
                .read_to_end(&mut self.torn)?;
            let Ok(record) = <[u8; SIZE]>::try_from(self.torn.as_slice()) else {
                return Ok(None);
            };
            self.torn.clear();
            let arrival = Arrival::decode(record);
            if !arrival.is_blank() {
                return Ok(Some(arrival));
            }
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

#[cfg(test)]
mod tests {
    use Stream::{Stderr, Stdout};

    use super::*;
    use crate::backend::process::dirs::place;

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
        std::fs::write(dir.log(Stdout, 0), &ends[0]).unwrap();
        std::fs::write(dir.log(Stderr, 0), &ends[1]).unwrap();
        std::fs::write(dir.index(0), index).unwrap();
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
                (Stdout, 3, "bc\r".into()),
                (Stdout, 3, "last".into()),
            ]
        );
    }

    #[test]
    fn bytes_that_nobody_noted_are_delivered_at_the_end() {
        let (_root, dir) = place();
        write(&dir, &[(Stdout, 1, "a\n")]);
        std::fs::write(dir.log(Stdout, 0), "a\nb\n").unwrap();
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
        let index = std::fs::read(dir.index(0)).unwrap();
        write(&dir, &[(Stdout, 1, "a\npart"), (Stdout, 2, "ial\n")]);
        // A record of which only a part has been written is not there yet.
        let full = std::fs::read(dir.index(0)).unwrap();
        std::fs::write(dir.index(0), &full[..index.len() + 5]).unwrap();
        reader.read(|line| found.push(seen(&line))).unwrap();
        assert_eq!(found.len(), 1);
        std::fs::write(dir.index(0), &full).unwrap();
        reader.read(|line| found.push(seen(&line))).unwrap();
        assert_eq!(found[1], (Stdout, 2, "partial".into()));
    }

    #[test]
    fn reading_goes_on_after_a_line_that_was_told() {
        let (_root, dir) = place();
        write(
            &dir,
            &[
                (Stdout, 1, "a\nb"),
                (Stderr, 2, "oops\nand"),
                (Stdout, 3, "c\nd\ne"),
                // The clock was set back.
                (Stderr, 2, " more\n"),
                (Stdout, 2, "f\n"),
            ],
        );
        let after = |time| {
            let mut found = Vec::new();
            let mut reader = Reader::open_after(&dir, time).unwrap();
            while reader.read(|line| found.push(seen(&line).2)).unwrap() {}
            found
        };
        assert_eq!(after(1), ["oops", "bc", "d", "and more", "ef"]);
        assert_eq!(after(3), ["and more", "ef"]);
        // There is no such line any more: all came later.
        assert_eq!(after(0), ["a", "oops", "bc", "d", "and more", "ef"]);
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
    fn the_start_of_the_last_lines_is_found_across_portions_and_segments() {
        let (_root, dir) = place();
        let line = format!("{}\n", "x".repeat(1000));
        std::fs::write(dir.log(Stdout, 3), line.repeat(1000)).unwrap();
        std::fs::write(dir.log(Stdout, 4), line.repeat(500)).unwrap();
        std::fs::write(dir.log(Stdout, 5), "").unwrap();
        let start = |lines| start_of_last(&dir, Stdout, &[3, 4, 5], lines).unwrap();
        assert_eq!(start(1), (4, 499 * 1001));
        assert_eq!(start(499), (4, 1001));
        // The end of one segment is the beginning of the next.
        assert_eq!(start(500), (3, 1000 * 1001));
        assert_eq!(start(1200), (3, 300 * 1001));
        assert_eq!(start(1500), (3, 0));
        assert_eq!(start(0), (5, 0));
    }

    /// Writes one segment; `open`: it goes on with a line of the segment before.
    fn write_segment(dir: &InstanceDir, segment: u64, open: bool, text: &str) {
        let arrival = |end| Arrival {
            stream: Stdout,
            time: 1,
            end,
        };
        let mut index = Vec::new();
        if open {
            index.extend(arrival(0).encode());
        }
        index.extend(arrival(text.len() as u64).encode());
        std::fs::write(dir.log(Stdout, segment), text).unwrap();
        std::fs::write(dir.index(segment), index).unwrap();
    }

    fn texts(dir: &InstanceDir) -> Vec<String> {
        all(dir).into_iter().map(|(_, _, text)| text).collect()
    }

    #[test]
    fn a_line_across_segments_is_one_line_and_without_its_beginning_none() {
        let (_root, dir) = place();
        write_segment(&dir, 4, false, "a\nb");
        write_segment(&dir, 5, true, "b\nc\n");
        write_segment(&dir, 6, false, "d\n");
        assert_eq!(texts(&dir), ["a", "bb", "c", "d"]);
        let text = |lines: VecDeque<Line>| -> Vec<String> {
            lines.iter().map(|line| seen(line).2).collect()
        };
        assert_eq!(text(last(&dir, 3, 0).unwrap()), ["bb", "c", "d"]);
        std::fs::remove_file(dir.index(4)).unwrap();
        std::fs::remove_file(dir.log(Stdout, 4)).unwrap();
        assert_eq!(texts(&dir), ["c", "d"]);
        assert_eq!(text(last(&dir, 9, 0).unwrap()), ["c", "d"]);
    }

    #[test]
    fn a_reader_that_rotation_has_overtaken_goes_on_with_what_there_is() {
        let (_root, dir) = place();
        write_segment(&dir, 0, false, "a\nb");
        let mut reader = Reader::open(&dir).unwrap();
        let mut found = Vec::new();
        while reader.read(|line| found.push(seen(&line).2)).unwrap() {}
        write_segment(&dir, 3, true, "x\nc\n");
        std::fs::remove_file(dir.index(0)).unwrap();
        std::fs::remove_file(dir.log(Stdout, 0)).unwrap();
        let mut before = 0;
        while reader.read(|line| found.push(seen(&line).2)).unwrap() {
            assert!(reader.take_gap());
            before = found.len();
        }
        // The gap is told where it is.
        assert_eq!((found, before), (vec!["a".into(), "c".into()], 1));
        assert!(!reader.take_gap());
    }

    #[test]
    fn a_segment_that_goes_before_it_is_opened_is_a_gap() {
        let (_root, dir) = place();
        write_segment(&dir, 0, false, "a\nb");
        write_segment(&dir, 1, true, "x\ny");
        std::fs::remove_file(dir.log(Stdout, 1)).unwrap();
        write_segment(&dir, 2, true, "z\nc\n");
        let mut reader = Reader::open(&dir).unwrap();
        let mut found = Vec::new();
        let mut gaps = 0;
        while reader.read(|line| found.push(seen(&line).2)).unwrap() {
            gaps += u32::from(reader.take_gap());
        }
        assert_eq!((found, gaps), (vec!["a".into(), "c".into()], 1));
    }

    #[test]
    fn an_instance_without_output_has_no_lines() {
        let (_root, dir) = place();
        assert_eq!(all(&dir), []);
    }
}
