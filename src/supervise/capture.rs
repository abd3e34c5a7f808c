//! From a process's output to its log. The process writes into two named pipes that it holds open for
//! reading too, so its writes neither fail nor get lost while nobody reads; here the kernel moves the bytes
//! on into the log files, so that killing the supervisor cannot lose or repeat one. Interprets nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, splice};

use crate::backend::BackendError;
use crate::backend::process::dirs::{InstanceDir, failed};
use crate::backend::process::index::{Arrival, SIZE};
use crate::backend::process::run::wall_clock;
use crate::event::Stream;

/// How much a process may write while nobody reads, where the user's share of pipe memory allows it
/// (`pipe(7)`, `pipe-user-pages-soft`): a hundred services must fit in it.
const PIPE_SIZE: usize = 256 * 1024;

/// The most that is moved at once, so that one talkative process cannot hold up the others.
const PORTION: usize = 1024 * 1024;

/// Both streams, in the order that the rest of this file counts them.
pub(super) const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// What became of a portion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Some bytes; there may be more.
    Some,
    /// There were none.
    Nothing,
    /// There were none, and nobody holds the pipe open any more.
    Closed,
}

/// One stream.
#[derive(Debug)]
struct Channel {
    stream: Stream,
    pipe: File,
    log: File,
    length: u64,
    closed: bool,
}

/// The recorder of one instance.
#[derive(Debug)]
pub(super) struct Recorder {
    channels: [Channel; 2],
    index: File,
    index_length: u64,
}

impl Recorder {
    /// Opens what is there and makes what is missing. Bytes that an earlier supervisor moved without
    /// noting their arrival are noted now. `owner`: who may open the pipes by name (`/dev/stdout`).
    pub(super) fn open(dir: &InstanceDir, owner: Option<(u32, u32)>) -> Result<Self, BackendError> {
        let path = dir.index();
        let index = log_file(&path).map_err(|error| failed("open", &path, error))?;
        let size = index
            .metadata()
            .map_err(|error| failed("read", &path, error))?
            .len();
        let index_length = size - size % SIZE as u64;
        let noted = noted(&index, index_length).map_err(|error| failed("read", &path, error))?;
        let channel = |stream| -> Result<Channel, BackendError> {
            let path = dir.fifo(stream);
            let pipe = fifo(&path, owner).map_err(|error| failed("open", &path, error))?;
            // Refused when the user's share is used up: the pipe then keeps its default size.
            if stream == Stream::Stdout {
                let _ = fcntl_setpipe_size(&pipe, PIPE_SIZE);
            }
            let path = dir.log(stream);
            let log = log_file(&path).map_err(|error| failed("open", &path, error))?;
            let length = log
                .metadata()
                .map_err(|error| failed("read", &path, error))?
                .len();
            Ok(Channel {
                stream,
                pipe,
                log,
                length,
                closed: false,
            })
        };
        let mut recorder = Self {
            channels: [channel(Stream::Stdout)?, channel(Stream::Stderr)?],
            index,
            index_length,
        };
        for (at, noted) in noted.into_iter().enumerate() {
            if recorder.channels[at].length > noted {
                recorder
                    .note(at)
                    .map_err(|error| failed("write", &path, error))?;
            }
        }
        Ok(recorder)
    }

    /// The ends for a new process: open for reading too, so that the pipe lives as long as the process.
    pub(super) fn ends(&mut self, dir: &InstanceDir) -> Result<[File; 2], BackendError> {
        let end = |stream| {
            let path = dir.fifo(stream);
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .map_err(|error| failed("open", &path, error))
        };
        let ends = [end(Stream::Stdout)?, end(Stream::Stderr)?];
        for channel in &mut self.channels {
            channel.closed = false;
        }
        Ok(ends)
    }

    /// The pipes to wait on, with their place in [`STREAMS`]; those that nobody can write to are left out.
    pub(super) fn pipes(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.channels
            .iter()
            .enumerate()
            .filter(|(_, channel)| !channel.closed)
            .map(|(at, channel)| (at, channel.pipe.as_fd()))
    }

    /// Moves one portion of the stream at this place in [`STREAMS`].
    pub(super) fn move_portion(&mut self, at: usize) -> io::Result<Moved> {
        let Some(channel) = self.channels.get_mut(at) else {
            return Ok(Moved::Closed);
        };
        let mut offset = channel.length;
        let moved = splice(
            &channel.pipe,
            None,
            &channel.log,
            Some(&mut offset),
            PORTION,
            SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
        );
        match moved {
            Ok(0) => {
                channel.closed = true;
                Ok(Moved::Closed)
            }
            Ok(count) => {
                channel.length += count as u64;
                self.note(at)?;
                Ok(Moved::Some)
            }
            Err(Errno::AGAIN) => Ok(Moved::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves all that has been written so far.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        for at in 0..STREAMS.len() {
            while self.move_portion(at)? == Moved::Some {}
        }
        Ok(())
    }

    /// Ends last lines that have no line end: what the next run writes begins lines of its own.
    pub(super) fn end_lines(&mut self) -> io::Result<()> {
        for at in 0..STREAMS.len() {
            let channel = &mut self.channels[at];
            let Some(last) = channel.length.checked_sub(1) else {
                continue;
            };
            let mut byte = [0];
            channel.log.read_exact_at(&mut byte, last)?;
            if byte != *b"\n" {
                channel.log.write_all_at(b"\n", channel.length)?;
                channel.length += 1;
                self.note(at)?;
            }
        }
        Ok(())
    }

    /// Notes that the stream's log has grown up to now.
    fn note(&mut self, at: usize) -> io::Result<()> {
        let arrival = Arrival {
            stream: self.channels[at].stream,
            time: wall_clock(),
            end: self.channels[at].length,
        };
        self.index
            .write_all_at(&arrival.encode(), self.index_length)?;
        self.index_length += SIZE as u64;
        Ok(())
    }
}

/// Opens a log for writing at explicit places: `splice(2)` refuses files opened for appending.
fn log_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Opens the reading end of a named pipe, made if it is missing.
fn fifo(path: &Path, owner: Option<(u32, u32)>) -> io::Result<File> {
    match rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR) {
        Ok(()) => {
            if let Some((uid, gid)) = owner {
                std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
            }
        }
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// How far the index knows each stream: the last record of each counts. Read backwards, since the last
/// records are nearly always among the last few.
fn noted(index: &File, length: u64) -> io::Result<[u64; 2]> {
    const RECORDS: u64 = 4096;
    let mut found = [None; 2];
    let mut end = length;
    let mut buffer = Vec::new();
    while end > 0 && found.contains(&None) {
        let start = end.saturating_sub(RECORDS * SIZE as u64);
        buffer.resize(usize::try_from(end - start).unwrap_or_default(), 0);
        index.read_exact_at(&mut buffer, start)?;
        let (records, _) = buffer.as_chunks::<SIZE>();
        for record in records.iter().rev() {
            let arrival = Arrival::decode(*record);
            let place = match arrival.stream {
                Stream::Stdout => 0,
                Stream::Stderr => 1,
            };
            found[place].get_or_insert(arrival.end);
        }
        end = start;
    }
    Ok(found.map(Option::unwrap_or_default))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::backend::process::dirs::Dirs;

    fn place() -> (tempfile::TempDir, InstanceDir) {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path().join("s"), root.path().join("r"));
        let dir = dirs.project("p").unwrap().instance("p-web-1").unwrap();
        dir.create().unwrap();
        (root, dir)
    }

    #[test]
    fn bytes_arrive_once_whoever_moves_them() {
        let (_root, dir) = place();
        let mut recorder = Recorder::open(&dir, None).unwrap();
        let [mut stdout, _stderr] = recorder.ends(&dir).unwrap();
        stdout.write_all(b"one\n").unwrap();
        recorder.drain().unwrap();
        drop(recorder);
        stdout.write_all(b"two\n").unwrap();
        let mut recorder = Recorder::open(&dir, None).unwrap();
        recorder.drain().unwrap();
        assert_eq!(
            std::fs::read(dir.log(Stream::Stdout)).unwrap(),
            b"one\ntwo\n"
        );
        assert_eq!(recorder.index_length, 2 * SIZE as u64);
    }

    #[test]
    fn a_last_line_without_end_is_ended_once() {
        let (_root, dir) = place();
        let mut recorder = Recorder::open(&dir, None).unwrap();
        let [mut stdout, mut stderr] = recorder.ends(&dir).unwrap();
        stdout.write_all(b"one\ntwo").unwrap();
        stderr.write_all(b"three\n").unwrap();
        recorder.drain().unwrap();
        recorder.end_lines().unwrap();
        recorder.end_lines().unwrap();
        stdout.write_all(b"four\n").unwrap();
        recorder.drain().unwrap();
        let text = |stream| std::fs::read(dir.log(stream)).unwrap();
        assert_eq!(text(Stream::Stdout), b"one\ntwo\nfour\n");
        assert_eq!(text(Stream::Stderr), b"three\n");
    }

    #[test]
    fn bytes_without_a_record_get_one_and_half_a_record_is_overwritten() {
        let (_root, dir) = place();
        std::fs::write(dir.log(Stream::Stderr), b"lost and found\n").unwrap();
        std::fs::write(dir.index(), [7; SIZE - 3]).unwrap();
        let recorder = Recorder::open(&dir, None).unwrap();
        assert_eq!(recorder.index_length, SIZE as u64);
        assert_eq!(noted(&recorder.index, SIZE as u64).unwrap(), [0, 15]);
    }

    #[test]
    fn a_pipe_nobody_holds_is_closed_until_the_next_process() {
        let (_root, dir) = place();
        let mut recorder = Recorder::open(&dir, None).unwrap();
        let ends = recorder.ends(&dir).unwrap();
        assert_eq!(recorder.move_portion(0).unwrap(), Moved::Nothing);
        drop(ends);
        assert_eq!(recorder.move_portion(0).unwrap(), Moved::Closed);
        assert_eq!(recorder.pipes().count(), 1);
        let _ends = recorder.ends(&dir).unwrap();
        assert_eq!(recorder.pipes().count(), 2);
        assert_eq!(recorder.move_portion(0).unwrap(), Moved::Nothing);
    }
}
