//! inotify(7) → what happened at which path. Nothing here knows a rule.
//!
//! One queue that is read without a thread between: whatever had happened when it is read is in what was read. A
//! directory may be watched by several names (links lead to it), but has one watch; each name is told.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

/// Room for what is read in one go; an event has a head and the name.
const ROOM: usize = 64 * 1024;

/// `struct inotify_event`: watch, flags, cookie and the length of the name, 4 bytes each.
const HEAD: usize = 16;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The system lost events: anything may have happened.
    Lost,
    /// The name is new.
    Made,
    /// Something was renamed to it, perhaps over what had the name before.
    Arrived,
    /// Contents or attributes changed.
    Changed,
    /// Somebody who could have written into the file has closed it. Only what is written through a mapping is told
    /// by nothing else.
    Closed,
    /// It has another name now.
    Left,
    /// It was removed.
    Gone,
    /// A watched directory itself was removed or renamed.
    Ended,
}

/// Something that happened to a path.
#[derive(Debug)]
pub(super) struct Happening {
    /// What.
    pub(super) kind: Kind,
    /// Where, by the name that the directory was watched by.
    pub(super) path: PathBuf,
    /// Whether that is, or was, a directory.
    pub(super) is_directory: bool,
}

/// An event as the system tells it.
#[derive(Debug)]
pub(super) struct Raw {
    watch: i32,
    flags: ReadFlags,
    name: Option<OsString>,
}

impl Raw {
    /// The first event of a message, and the rest of it.
    fn first(message: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = message.split_at_checked(HEAD)?;
        let number = |at: usize| Some(u32::from_ne_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let (name, rest) = rest.split_at_checked(usize::try_from(number(12)?).ok()?)?;
        // It is padded with zeros.
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let event = Self {
            watch: number(0)?.cast_signed(),
            flags: ReadFlags::from_bits_retain(number(4)?),
            name: (!name.is_empty()).then(|| OsStr::from_bytes(name).to_owned()),
        };
        Some((event, rest))
    }
}

/// The queue, for whoever waits for it.
#[derive(Clone, Debug)]
pub struct Queue(Rc<Receiver>);

impl Queue {
    /// Returns when there may be something to be read; then it must be.
    pub async fn ready(&self) {
        if self.0.readable().await.is_err() {
            // Only where the runtime ends.
            std::future::pending::<()>().await;
        }
    }

    /// What there is, or nothing. Asks the system itself: a readiness that was not noticed yet must not hide events.
    fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match rustix::io::read(&*self.0, &mut *room).map_err(io::Error::from) {
                // Nothing; and it is noted that there is nothing, unless something came in between.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.0.try_read(room),
                read => read,
            };
            match read {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

/// The watches.
#[derive(Debug)]
pub(super) struct Inotify {
    queue: Queue,
    watches: BTreeMap<PathBuf, i32>,
    names: BTreeMap<i32, BTreeSet<PathBuf>>,
}

impl Inotify {
    pub(super) fn new() -> io::Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self {
            // Like a pipe, it is readable and read in whole messages.
            queue: Queue(Rc::new(Receiver::from_file_unchecked(File::from(queue))?)),
            watches: BTreeMap::new(),
            names: BTreeMap::new(),
        })
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// How many names are watched.
    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    /// Watches a directory, or what a link of this name leads to.
    pub(super) fn watch(&mut self, directory: &Path) -> io::Result<()> {
        let flags = WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::EXCL_UNLINK
            | WatchFlags::MODIFY
            | WatchFlags::MOVE
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let watch = inotify::add_watch(&*self.queue.0, directory, flags)?;
        if let Some(before) = self.watches.insert(directory.to_owned(), watch)
            && before != watch
        {
            self.release(before, directory);
        }
        let names = self.names.entry(watch).or_default();
        names.insert(directory.to_owned());
        Ok(())
    }

    /// Watches nothing any more by this name or one below it.
    pub(super) fn forget(&mut self, path: &Path) {
        let gone: Vec<(PathBuf, i32)> = below(&self.watches, path)
            .map(|(directory, watch)| (directory.clone(), *watch))
            .collect();
        for (directory, watch) in gone {
            self.watches.remove(&directory);
            self.release(watch, &directory);
        }
    }

    fn release(&mut self, watch: i32, directory: &Path) {
        let Some(names) = self.names.get_mut(&watch) else {
            return;
        };
        names.remove(directory);
        if names.is_empty() {
            self.names.remove(&watch);
            // A watch goes with its directory; only one that was moved has one left.
            inotify::remove_watch(&*self.queue.0, watch).ok();
        }
    }

    /// All that has happened by now, to be [resolved](Self::resolve) one after the other.
    pub(super) fn read(&mut self) -> io::Result<Vec<Raw>> {
        let mut found = Vec::new();
        let mut room = vec![0; ROOM];
        loop {
            let length = self.queue.read(&mut room)?;
            if length == 0 {
                return Ok(found);
            }
            let mut rest = &room[..length];
            while let Some((event, after)) = Raw::first(rest) {
                found.push(event);
                rest = after;
            }
        }
    }

    /// What a happening is by the names that are watched now: an earlier one may have changed them.
    pub(super) fn resolve(&mut self, raw: &Raw) -> Vec<Happening> {
        let Raw { watch, flags, name } = raw;
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return vec![Happening {
                kind: Kind::Lost,
                path: PathBuf::new(),
                is_directory: true,
            }];
        }
        if flags.contains(ReadFlags::IGNORED) {
            for directory in self.names.remove(watch).unwrap_or_default() {
                if self.watches.get(&directory) == Some(watch) {
                    self.watches.remove(&directory);
                }
            }
            return Vec::new();
        }
        let kinds = [
            (ReadFlags::CREATE, Kind::Made),
            (ReadFlags::MOVED_TO, Kind::Arrived),
            (ReadFlags::MODIFY, Kind::Changed),
            (ReadFlags::ATTRIB, Kind::Changed),
            (ReadFlags::CLOSE_WRITE, Kind::Closed),
            (ReadFlags::MOVED_FROM, Kind::Left),
            (ReadFlags::DELETE, Kind::Gone),
            (ReadFlags::DELETE_SELF, Kind::Ended),
            (ReadFlags::MOVE_SELF, Kind::Ended),
            (ReadFlags::UNMOUNT, Kind::Ended),
        ];
        let kind = kinds.iter().find(|(flag, _)| flags.contains(*flag));
        let (Some((_, kind)), Some(directories)) = (kind, self.names.get(watch)) else {
            return Vec::new();
        };
        let happening = |directory: &PathBuf| Happening {
            kind: *kind,
            path: match name {
                Some(name) => directory.join(name),
                None => directory.clone(),
            },
            is_directory: name.is_none() || flags.contains(ReadFlags::ISDIR),
        };
        directories.iter().map(happening).collect()
    }
}

/// What is kept for a path and for those below it.
pub(super) fn below<'a, T>(
    all: &'a BTreeMap<PathBuf, T>,
    path: &'a Path,
) -> impl Iterator<Item = (&'a PathBuf, &'a T)> {
    all.range(path.to_owned()..)
        .take_while(move |(other, _)| other.starts_with(path))
}
