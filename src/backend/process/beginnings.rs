//! Where in the logs of an instance reading begins: at its last lines, or after a time. Looks into files only.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::dirs::InstanceDir;
use super::index::{Arrival, SIZE};
use crate::event::Stream;

/// Bytes read at once.
const PORTION: u64 = 256 * 1024;

/// A file that need not be there yet, or any more.
pub(super) fn existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last arrival of this time: its segment, and how long the two streams there were after it.
pub(super) fn ends_at(
    dir: &InstanceDir,
    segments: &[u64],
    time: i64,
) -> io::Result<Option<(u64, [u64; 2])>> {
    let mut found = None;
    for segment in segments {
        let Some(index) = existing(&dir.index(*segment))? else {
            continue;
        };
        let mut index = BufReader::new(index);
        let mut ends = [0; 2];
        let mut record = [0; SIZE];
        // A torn record is none yet.
        while index.read_exact(&mut record).is_ok() {
            let arrival = Arrival::decode(record);
            if arrival.is_blank() {
                continue;
            }
            let [out, err] = &mut ends;
            match arrival.stream {
                Stream::Stdout => *out = arrival.end,
                Stream::Stderr => *err = arrival.end,
            }
            if arrival.time == time {
                found = Some((*segment, ends));
            }
        }
    }
    Ok(found)
}

/// Where the line begins that goes on at `end` of the last of these segments.
pub(super) fn start_of_line(
    dir: &InstanceDir,
    stream: Stream,
    segments: &[u64],
    end: u64,
) -> io::Result<(u64, u64)> {
    let mut bound = Some(end);
    let mut buffer = Vec::new();
    for segment in segments.iter().rev() {
        let Some(file) = existing(&dir.log(stream, *segment))? else {
            continue;
        };
        let length = file.metadata()?.len();
        let mut end = bound.take().unwrap_or(length).min(length);
        while end > 0 {
            let start = end.saturating_sub(PORTION);
            buffer.resize(usize::try_from(end - start).unwrap_or_default(), 0);
            file.read_exact_at(&mut buffer, start)?;
            if let Some(at) = buffer.iter().rposition(|byte| *byte == b'\n') {
                return Ok((*segment, start + at as u64 + 1));
            }
            end = start;
        }
    }
    Ok((segments.first().copied().unwrap_or_default(), 0))
}

/// Where the last `lines` lines of a stream begin: the segment and the place in it. A line end at the very
/// end closes the last line, it does not begin another one.
pub(super) fn start_of_last(
    dir: &InstanceDir,
    stream: Stream,
    segments: &[u64],
    lines: u64,
) -> io::Result<(u64, u64)> {
    let mut left = lines;
    let mut is_last = true;
    let mut buffer = Vec::new();
    for segment in segments.iter().rev() {
        let Some(file) = existing(&dir.log(stream, *segment))? else {
            continue;
        };
        let length = file.metadata()?.len();
        if lines == 0 {
            return Ok((*segment, length));
        }
        let mut end = length;
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
                if is_last && after == length {
                    continue;
                }
                left = left.saturating_sub(1);
                if left == 0 {
                    return Ok((*segment, after));
                }
            }
            end = start;
        }
        is_last &= length == 0;
    }
    Ok((segments.first().copied().unwrap_or_default(), 0))
}
