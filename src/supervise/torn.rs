//! The log of a run that ended with the machine: data, index and sizes of files reach a disk at different times, so what
//! was written last is there in part, or as zeros. Set right before the next run adds to it; nothing that was written is
//! taken away.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use super::capture::STREAMS;
use crate::backend::process::channel::written;
use crate::backend::process::dirs::InstanceDir;
use crate::backend::process::index::{Arrival, SIZE};
use crate::backend::process::replace;
use crate::event::Stream;

/// What there is of one stream.
struct Rest {
    stream: Stream,
    /// When it was written last.
    time: i64,
    /// How much of it was written.
    written: u64,
    /// The same, with an end for its last line.
    ended: u64,
}

/// Has the last segment end with whole lines that its index knows.
pub(super) fn mend(dir: &InstanceDir) -> io::Result<()> {
    let segments = dir.segments()?;
    let Some((segment, before)) = segments.split_last() else {
        return Ok(());
    };
    let mut rests = Vec::new();
    for stream in STREAMS {
        let is_within_line = match before.last() {
            Some(before) => is_open(&dir.log(stream, *before))?,
            None => false,
        };
        if let Some(rest) = end_line(&dir.log(stream, *segment), stream, is_within_line)? {
            rests.push(rest);
        }
    }
    let path = dir.index(*segment);
    let index = fs::read(&path)?;
    let (records, half) = index.as_chunks::<SIZE>();
    let mut arrivals: Vec<Arrival> = records.iter().copied().map(Arrival::decode).collect();
    let is_true = |arrival: &Arrival| {
        let mut same = rests.iter().filter(|rest| rest.stream == arrival.stream);
        !arrival.is_blank() && same.any(|rest| arrival.end <= rest.written)
    };
    arrivals.retain(is_true);
    let mut is_whole = half.is_empty() && arrivals.len() == records.len();
    for rest in &rests {
        let of_stream = |arrival: &&Arrival| arrival.stream == rest.stream;
        let known = arrivals.iter().rfind(of_stream);
        if rest.ended > known.map_or(0, |arrival| arrival.end) {
            is_whole = false;
            arrivals.push(Arrival {
                stream: rest.stream,
                time: rest.time,
                end: rest.ended,
            });
        }
    }
    if is_whole {
        return Ok(());
    }
    let text: Vec<u8> = arrivals.into_iter().flat_map(Arrival::encode).collect();
    replace(&path, &text)
}

/// Takes the zeros from the end of a log and ends its last line; `None` where there is no log.
fn end_line(path: &Path, stream: Stream, is_within_line: bool) -> io::Result<Option<Rest>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let facts = file.metadata()?;
    let time = facts
        .mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(facts.mtime_nsec());
    let (written, last) = end(&file, facts.len())?;
    if written < facts.len() {
        file.set_len(written)?;
    }
    let is_open = last.map_or(is_within_line, |last| last != b'\n');
    if is_open {
        file.write_all_at(b"\n", written)?;
    }
    Ok(Some(Rest {
        stream,
        time,
        written,
        ended: written + u64::from(is_open),
    }))
}

/// How long a file is without the zeros at its end, and its last byte then.
fn end(file: &fs::File, length: u64) -> io::Result<(u64, Option<u8>)> {
    let end = written(file, 0, length)?;
    let mut last = [0];
    if let Some(at) = end.checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    Ok((end, last.first().copied().filter(|_| end > 0)))
}

/// Whether the last line of a log has no end.
fn is_open(path: &Path) -> io::Result<bool> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let (_, last) = end(&file, file.metadata()?.len())?;
    Ok(last.is_some_and(|last| last != b'\n'))
}

#[cfg(test)]
mod tests {
    use Stream::{Stderr, Stdout};

    use super::*;
    use crate::backend::process::dirs::place;
    use crate::backend::process::logs::Reader;

    fn at(stream: Stream, time: i64, end: u64) -> [u8; SIZE] {
        Arrival { stream, time, end }.encode()
    }

    fn lines(dir: &InstanceDir) -> Vec<(i64, String)> {
        let mut found = Vec::new();
        let deliver = |line: crate::backend::process::logs::Line| {
            found.push((line.time, String::from_utf8(line.text).unwrap()));
        };
        Reader::open(dir).unwrap().finish(deliver).unwrap();
        found
    }

    fn line(time: i64, text: &str) -> (i64, String) {
        (time, text.to_owned())
    }

    #[test]
    fn zeros_in_place_of_what_was_lost_are_no_output() {
        let (_root, dir) = place();
        fs::write(dir.log(Stdout, 0), b"one\ntwo\nth\0\0\0\0\0\0").unwrap();
        fs::write(dir.log(Stderr, 0), b"").unwrap();
        let index = [
            at(Stdout, 1, 4),
            at(Stdout, 2, 8),
            at(Stdout, 3, 10),
            [0; SIZE],
        ];
        fs::write(dir.index(0), index.concat()).unwrap();
        let before = [line(1, "one"), line(2, "two")];
        let seen = lines(&dir);
        assert_eq!(seen[..2], before);
        assert_eq!(seen[2].1, "th");
        assert_eq!(seen.len(), 3);
        mend(&dir).unwrap();
        assert_eq!(fs::read(dir.log(Stdout, 0)).unwrap(), b"one\ntwo\nth\n");
        assert_eq!(fs::read(dir.log(Stderr, 0)).unwrap(), b"");
        let seen = lines(&dir);
        assert_eq!(seen[..2], before);
        assert_eq!(seen[2].1, "th");
        assert_eq!(seen.len(), 3);
        let mended = fs::read(dir.index(0)).unwrap();
        mend(&dir).unwrap();
        assert_eq!(fs::read(dir.index(0)).unwrap(), mended);
    }

    #[test]
    fn zeros_that_were_written_are_output() {
        let (_root, dir) = place();
        fs::write(dir.log(Stdout, 0), b"one\n\0\0").unwrap();
        fs::write(dir.log(Stderr, 0), b"").unwrap();
        fs::write(dir.index(0), at(Stdout, 1, 6)).unwrap();
        assert_eq!(lines(&dir), [line(1, "one"), line(1, "\0\0")]);
    }

    #[test]
    fn an_index_that_knows_more_than_there_is_learns_what_there_is() {
        let (_root, dir) = place();
        fs::write(dir.log(Stdout, 0), b"one\n").unwrap();
        fs::write(dir.log(Stderr, 0), b"two\n").unwrap();
        let index = [at(Stdout, 1, 4), at(Stdout, 2, 8), at(Stderr, 3, 4)];
        fs::write(dir.index(0), index.concat()).unwrap();
        mend(&dir).unwrap();
        let left = [at(Stdout, 1, 4), at(Stderr, 3, 4)].concat();
        assert_eq!(fs::read(dir.index(0)).unwrap(), left);
    }

    #[test]
    fn a_line_that_was_cut_with_its_segment_ends_in_the_next() {
        let (_root, dir) = place();
        fs::write(dir.log(Stdout, 3), b"one\ntw").unwrap();
        fs::write(dir.index(3), at(Stdout, 1, 6)).unwrap();
        for stream in STREAMS {
            fs::write(dir.log(stream, 4), b"").unwrap();
        }
        fs::write(dir.index(4), b"").unwrap();
        mend(&dir).unwrap();
        assert_eq!(fs::read(dir.log(Stdout, 4)).unwrap(), b"\n");
        let texts: Vec<String> = lines(&dir).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["one", "tw"]);
    }

    #[test]
    fn what_is_whole_stays_as_it_is() {
        let (_root, dir) = place();
        mend(&dir).unwrap();
        fs::write(dir.log(Stdout, 0), b"one\n").unwrap();
        fs::write(dir.index(0), at(Stdout, 1, 4)).unwrap();
        let facts = || fs::metadata(dir.index(0)).unwrap().ino();
        let before = facts();
        mend(&dir).unwrap();
        assert_eq!(facts(), before);
        assert_eq!(lines(&dir), [line(1, "one")]);
    }
}
