//! From a process's output to its log. The process writes into two named pipes that it holds open for
//! reading too, so its writes neither fail nor get lost while nobody reads; here the kernel moves the bytes
//! on into the log files, so that killing whoever records cannot lose or repeat one. (What a terminal shows
//! cannot be moved so; it is copied, and so is all where the system or the log's file system moves nothing.)
//! Interprets nothing.
//!
//! A log is a sequence of segments, numbered from 0. With a limit, a new one is begun when the last is full
//! and the oldest ones are removed. A segment is there once its index is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, splice};
use rustix::process::{Resource, getrlimit};

use super::copying::{copy, is_refusal};
use crate::backend::BackendError;
use crate::backend::process::Rotation;
use crate::backend::process::dirs::{InstanceDir, failed};
use crate::backend::process::index::{Arrival, SIZE};
use crate::backend::process::run::wall_clock;
use crate::backend::process::unusable::without_pipes;
use crate::event::Stream;

/// How much a process may write while nobody reads, where the user's share of pipe memory allows it
/// (`pipe(7)`, `pipe-user-pages-soft`): a hundred services must fit in it.
const PIPE_SIZE: usize = 256 * 1024;

/// The most that is moved at once, so that one talkative process cannot hold up the others.
const PORTION: u64 = 1024 * 1024;

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

/// The named pipes of an instance, held open for whoever records: what is in them stays there even when
/// everybody else has gone. None where there are none (a terminal).
pub(super) fn hold(dir: &InstanceDir) -> Vec<File> {
    STREAMS
        .iter()
        .filter_map(|stream| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::open(dir.fifo(*stream), flags, Mode::empty()).ok()
        })
        .map(File::from)
        .collect()
}

/// Where a stream comes from.
#[derive(Debug)]
enum Source {
    /// A named pipe.
    Pipe(File),
    /// The same, of which nothing can be moved, and what was read from it and could not be written yet.
    Copied(File, Vec<u8>),
    /// The master of the process's terminal, and what was read from it and could not be written yet.
    Terminal(File, Vec<u8>),
}

impl Source {
    fn file(&self) -> &File {
        match self {
            Self::Pipe(file) | Self::Copied(file, _) | Self::Terminal(file, _) => file,
        }
    }
}

/// One stream.
#[derive(Debug)]
struct Channel {
    stream: Stream,
    source: Source,
    log: File,
    length: u64,
    /// The segment begins within a line.
    begins_open: bool,
    closed: bool,
}

/// The recorder of one instance.
#[derive(Debug)]
pub(super) struct Recorder {
    dir: InstanceDir,
    rotation: Option<Rotation>,
    segment: u64,
    channels: Vec<Channel>,
    index: File,
    index_length: u64,
}

impl Recorder {
    /// Opens what is there and makes what is missing. Bytes that somebody before us moved without noting
    /// their arrival are noted now. `owner`: who may open the pipes by name (`/dev/stdout`).
    pub(super) fn open(
        dir: &InstanceDir,
        rotation: Option<Rotation>,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, BackendError> {
        let mut sources = Vec::new();
        for stream in STREAMS {
            let path = dir.fifo(stream);
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let pipe = fifo(&path, owner, flags).map_err(|error| failed("open", &path, error))?;
            // Refused when the user's share is used up: the pipe then keeps its default size.
            if stream == Stream::Stdout {
                let _ = fcntl_setpipe_size(&pipe, PIPE_SIZE);
            }
            sources.push((stream, Source::Pipe(pipe)));
        }
        Self::of(dir, rotation, sources)
    }

    /// The recorder of pipes that are open already, in the order of [`STREAMS`]; reading them must not block.
    pub(super) fn of_pipes(
        dir: &InstanceDir,
        rotation: Option<Rotation>,
        pipes: [&File; 2],
    ) -> Result<Self, BackendError> {
        let mut sources = Vec::new();
        for (stream, pipe) in STREAMS.into_iter().zip(pipes) {
            let pipe = pipe.try_clone();
            let pipe = pipe.map_err(|error| failed("open", &dir.fifo(stream), error))?;
            sources.push((stream, Source::Pipe(pipe)));
        }
        Self::of(dir, rotation, sources)
    }

    /// The recorder of what a terminal shows, given its master; reading it must not block.
    pub(super) fn of_terminal(
        dir: &InstanceDir,
        rotation: Option<Rotation>,
        master: File,
    ) -> Result<Self, BackendError> {
        Self::of(
            dir,
            rotation,
            vec![(Stream::Stdout, Source::Terminal(master, Vec::new()))],
        )
    }

    fn of(
        dir: &InstanceDir,
        rotation: Option<Rotation>,
        sources: Vec<(Stream, Source)>,
    ) -> Result<Self, BackendError> {
        let segment = dir
            .segments()
            .map_err(|error| failed("read", dir.path(), error))?
            .last()
            .copied()
            .unwrap_or_default();
        let mut channels = Vec::new();
        for (stream, source) in sources {
            let path = dir.log(stream, segment);
            let log = log_file(&path).map_err(|error| failed("open", &path, error))?;
            let length = log
                .metadata()
                .map_err(|error| failed("read", &path, error))?
                .len();
            channels.push(Channel {
                stream,
                source,
                log,
                length,
                begins_open: false,
                closed: false,
            });
        }
        let path = dir.index(segment);
        let unreadable = |error| failed("read", &path, error);
        let index = log_file(&path).map_err(|error| failed("open", &path, error))?;
        let size = index.metadata().map_err(unreadable)?.len();
        let mut recorder = Self {
            dir: dir.clone(),
            rotation: Rotation::within(getrlimit(Resource::Fsize).current, rotation),
            segment,
            channels,
            index_length: size - size % SIZE as u64,
            index,
        };
        let noted = noted(&recorder.index, recorder.index_length).map_err(unreadable)?;
        let open = open_lines(&recorder.index, recorder.index_length).map_err(unreadable)?;
        for at in 0..recorder.channels.len() {
            recorder.channels[at].begins_open = open[at];
            if recorder.channels[at].length > noted[at] {
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

    /// The reading ends of its pipes: see [`hold`].
    pub(super) fn into_pipes(self) -> Vec<File> {
        let sources = self.channels.into_iter().map(|channel| channel.source);
        sources
            .filter_map(|source| match source {
                Source::Pipe(file) | Source::Copied(file, _) => Some(file),
                Source::Terminal(..) => None,
            })
            .collect()
    }

    /// All that is open for it.
    pub(super) fn descriptors(&self) -> Vec<i32> {
        let mut all = vec![self.index.as_raw_fd()];
        for channel in &self.channels {
            all.extend([channel.source.file().as_raw_fd(), channel.log.as_raw_fd()]);
        }
        all
    }

    /// What to wait on, with its place in [`STREAMS`]; what nobody can write to is left out.
    pub(super) fn pipes(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.channels
            .iter()
            .enumerate()
            .filter(|(_, channel)| !channel.closed)
            .map(|(at, channel)| (at, channel.source.file().as_fd()))
    }

    /// Moves one portion of the stream at this place in [`STREAMS`].
    pub(super) fn move_portion(&mut self, at: usize) -> io::Result<Moved> {
        let portion = self.room()?;
        let Some(channel) = self.channels.get_mut(at) else {
            return Ok(Moved::Closed);
        };
        let moved = match &mut channel.source {
            Source::Pipe(pipe) => {
                let mut offset = channel.length;
                let moved = splice(
                    &*pipe,
                    None,
                    &channel.log,
                    Some(&mut offset),
                    portion,
                    SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
                );
                match moved {
                    Err(error) if is_refusal(error) => {
                        let copied = Source::Copied(pipe.try_clone()?, Vec::new());
                        channel.source = copied;
                        return self.move_portion(at);
                    }
                    moved => moved.map_err(io::Error::from),
                }
            }
            Source::Copied(from, pending) | Source::Terminal(from, pending) => {
                copy(from, pending, &channel.log, channel.length, portion)
            }
        };
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
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Moved::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Moves all that has been written so far.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        for at in 0..self.channels.len() {
            while self.move_portion(at)? == Moved::Some {}
        }
        Ok(())
    }

    /// Ends last lines that have no line end: what the next run writes begins lines of its own.
    pub(super) fn end_lines(&mut self) -> io::Result<()> {
        for at in 0..self.channels.len() {
            let channel = &mut self.channels[at];
            if channel.is_open()? {
                channel.log.write_all_at(b"\n", channel.length)?;
                channel.length += 1;
                self.note(at)?;
            }
        }
        Ok(())
    }

    /// How much may be moved at once; begins a new segment when the present one is full.
    fn room(&mut self) -> io::Result<usize> {
        let Some(rotation) = self.rotation else {
            return Ok(usize::try_from(PORTION).unwrap_or(usize::MAX));
        };
        let used = |recorder: &Self| -> u64 {
            recorder
                .channels
                .iter()
                .map(|channel| channel.length)
                .fold(0, u64::saturating_add)
        };
        if used(self) >= rotation.size {
            self.rotate(rotation.files)?;
        }
        let left = rotation.size.saturating_sub(used(self)).clamp(1, PORTION);
        Ok(usize::try_from(left).unwrap_or(usize::MAX))
    }

    fn rotate(&mut self, files: u64) -> io::Result<()> {
        let next = self.segment + 1;
        let mut logs = Vec::new();
        let mut open = Vec::new();
        for channel in &self.channels {
            let path = self.dir.log(channel.stream, next);
            let log = log_file(&path)?;
            // Of an attempt that was killed half-way: nothing was moved into it yet.
            log.set_len(0)?;
            logs.push(log);
            open.push(channel.is_open()?);
        }
        // The index appears with its first records in it: a reader must not miss them.
        let path = self.dir.index(next);
        let temporary = path.with_extension("new");
        let index = log_file(&temporary)?;
        index.set_len(0)?;
        let mut records = Vec::new();
        for (channel, open) in self.channels.iter().zip(&open) {
            if *open {
                let arrival = Arrival {
                    stream: channel.stream,
                    time: wall_clock(),
                    end: 0,
                };
                records.extend(arrival.encode());
            }
        }
        index.write_all_at(&records, 0)?;
        std::fs::rename(&temporary, &path)?;
        self.index = index;
        self.index_length = records.len() as u64;
        self.segment = next;
        for ((channel, log), open) in self.channels.iter_mut().zip(logs).zip(open) {
            channel.log = log;
            channel.length = 0;
            channel.begins_open = open;
        }
        for old in self.dir.segments()? {
            if old.saturating_add(files.max(1)) <= self.segment {
                for stream in STREAMS {
                    drop(std::fs::remove_file(self.dir.log(stream, old)));
                }
                // Last: without it nobody would look for the rest.
                drop(std::fs::remove_file(self.dir.index(old)));
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

impl Channel {
    /// Whether the last line has no end.
    fn is_open(&self) -> io::Result<bool> {
        let Some(last) = self.length.checked_sub(1) else {
            return Ok(self.begins_open);
        };
        let mut byte = [0];
        self.log.read_exact_at(&mut byte, last)?;
        Ok(byte != *b"\n")
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

/// Opens a named pipe, made if it is missing.
pub(super) fn fifo(path: &Path, owner: Option<(u32, u32)>, flags: OFlags) -> io::Result<File> {
    match rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR) {
        Ok(()) => {
            if let Some((uid, gid)) = owner {
                std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
            }
        }
        Err(Errno::EXIST) => {}
        Err(error) => return Err(without_pipes(error.into())),
    }
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Which streams go on with a line of the segment before: the first records say so.
fn open_lines(index: &File, length: u64) -> io::Result<[bool; 2]> {
    let mut open = [false; 2];
    for at in 0..STREAMS.len() as u64 {
        if (at + 1) * SIZE as u64 > length {
            break;
        }
        let mut record = [0; SIZE];
        index.read_exact_at(&mut record, at * SIZE as u64)?;
        let arrival = Arrival::decode(record);
        if arrival.end == 0 {
            open[place(arrival.stream)] = true;
        }
    }
    Ok(open)
}

fn place(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
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
            found[place(arrival.stream)].get_or_insert(arrival.end);
        }
        end = start;
    }
    Ok(found.map(Option::unwrap_or_default))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::backend::process::dirs::place;

    #[test]
    fn bytes_arrive_once_whoever_moves_them() {
        let (_root, dir) = place();
        let mut recorder = Recorder::open(&dir, None, None).unwrap();
        let [mut stdout, _stderr] = recorder.ends(&dir).unwrap();
        stdout.write_all(b"one\n").unwrap();
        recorder.drain().unwrap();
        drop(recorder);
        stdout.write_all(b"two\n").unwrap();
        let mut recorder = Recorder::open(&dir, None, None).unwrap();
        recorder.drain().unwrap();
        assert_eq!(
            std::fs::read(dir.log(Stream::Stdout, 0)).unwrap(),
            b"one\ntwo\n"
        );
        assert_eq!(recorder.index_length, 2 * SIZE as u64);
    }

    #[test]
    fn a_last_line_without_end_is_ended_once() {
        let (_root, dir) = place();
        let mut recorder = Recorder::open(&dir, None, None).unwrap();
        let [mut stdout, mut stderr] = recorder.ends(&dir).unwrap();
        stdout.write_all(b"one\ntwo").unwrap();
        stderr.write_all(b"three\n").unwrap();
        recorder.drain().unwrap();
        recorder.end_lines().unwrap();
        recorder.end_lines().unwrap();
        stdout.write_all(b"four\n").unwrap();
        recorder.drain().unwrap();
        let text = |stream| std::fs::read(dir.log(stream, 0)).unwrap();
        assert_eq!(text(Stream::Stdout), b"one\ntwo\nfour\n");
        assert_eq!(text(Stream::Stderr), b"three\n");
    }

    #[test]
    fn bytes_without_a_record_get_one_and_half_a_record_is_overwritten() {
        let (_root, dir) = place();
        std::fs::write(dir.log(Stream::Stderr, 0), b"lost and found\n").unwrap();
        std::fs::write(dir.index(0), [7; SIZE - 3]).unwrap();
        let recorder = Recorder::open(&dir, None, None).unwrap();
        assert_eq!(recorder.index_length, SIZE as u64);
        assert_eq!(noted(&recorder.index, SIZE as u64).unwrap(), [0, 15]);
    }

    #[test]
    fn a_pipe_nobody_holds_is_closed_until_the_next_process() {
        let (_root, dir) = place();
        let mut recorder = Recorder::open(&dir, None, None).unwrap();
        let ends = recorder.ends(&dir).unwrap();
        assert_eq!(recorder.move_portion(0).unwrap(), Moved::Nothing);
        drop(ends);
        assert_eq!(recorder.move_portion(0).unwrap(), Moved::Closed);
        assert_eq!(recorder.pipes().count(), 1);
        let _ends = recorder.ends(&dir).unwrap();
        assert_eq!(recorder.pipes().count(), 2);
        assert_eq!(recorder.move_portion(0).unwrap(), Moved::Nothing);
    }

    #[test]
    fn a_full_log_goes_on_in_the_next_segment_and_the_oldest_go() {
        let (_root, dir) = place();
        let rotation = Some(Rotation { size: 10, files: 2 });
        let mut recorder = Recorder::open(&dir, rotation, None).unwrap();
        let [mut stdout, _stderr] = recorder.ends(&dir).unwrap();
        for line in 0..9 {
            writeln!(stdout, "line {line}").unwrap();
        }
        recorder.drain().unwrap();
        assert_eq!(dir.segments().unwrap(), [5, 6]);
        let text = |segment| std::fs::read(dir.log(Stream::Stdout, segment)).unwrap();
        assert_eq!(
            [text(5), text(6)],
            [b"ine 7\nline".to_vec(), b" 8\n".to_vec()]
        );
        // Whoever goes on knows where the lines stand.
        drop(recorder);
        let mut recorder = Recorder::open(&dir, rotation, None).unwrap();
        stdout.write_all(b"0123456789").unwrap();
        recorder.drain().unwrap();
        assert_eq!(dir.segments().unwrap(), [6, 7]);
        recorder.end_lines().unwrap();
        assert_eq!(text(7), b"789\n");
    }
}
