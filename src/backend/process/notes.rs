//! What the keeper of a run notes about it: who it is itself, which process it started, and how that one
//! ended. Written by the keeper alone, read by the supervisor and by every command; the ledger entry stays
//! the supervisor's.
//!
//! One file of three slots of 128 bytes, each written once and ended by a line feed, so that a slot is there
//! as a whole or not at all. The file is filled with spaces before the process is started: noting its end
//! needs no more space on the disk.
//!
//! ```text
//! 1 RUN-ID KEEPER-PID KEEPER-START
//! main PID START      |  failed ERRNO MESSAGE
//! exit CODE NANOSECONDS
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::run::ProcessId;

/// Bytes of one slot.
const SLOT: usize = 128;

/// What a run's keeper has noted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The keeper itself.
    pub keeper: Option<ProcessId>,
    /// The main process.
    pub main: Option<ProcessId>,
    /// Why there is none: `errno(3)` and what the system said.
    pub failed: Option<(i32, String)>,
    /// The main process's code, and when it ended in nanoseconds since the Unix epoch.
    pub exit: Option<(i32, i64)>,
}

impl Notes {
    /// Reads the notes about the run `run_id`; those about another run are none.
    pub fn read(path: &Path, run_id: &str) -> Self {
        let last = Self::last(path).filter(|(id, _)| id == run_id);
        last.map(|(_, notes)| notes).unwrap_or_default()
    }

    /// Reads the notes, and the id of the run that they are about.
    pub fn last(path: &Path) -> Option<(String, Self)> {
        Self::of(&File::open(path).ok()?)
    }

    /// The same of a file that is open, and may have been removed since.
    pub fn of(file: &File) -> Option<(String, Self)> {
        let mut text = [b' '; 3 * SLOT];
        file.read_at(&mut text, 0).ok()?;
        let slot = |at: usize| slot(&text, at);
        let mut notes = Self::default();
        let (run_id, keeper) = slot(0)?.strip_prefix("1 ")?.split_once(' ')?;
        notes.keeper = process(keeper);
        if let Some(second) = slot(1) {
            notes.main = second.strip_prefix("main ").and_then(process);
            notes.failed = second
                .strip_prefix("failed ")
                .and_then(|text| text.split_once(' '))
                .and_then(|(errno, message)| Some((errno.parse().ok()?, message.to_owned())));
        }
        notes.exit = slot(2)
            .and_then(|text| text.strip_prefix("exit "))
            .and_then(|text| text.split_once(' '))
            .and_then(|(code, time)| Some((code.parse().ok()?, time.parse().ok()?)));
        Some((run_id.to_owned(), notes))
    }
}

/// The text of a slot that was written as a whole.
fn slot(text: &[u8], at: usize) -> Option<&str> {
    let bytes = text.get(at * SLOT..(at + 1) * SLOT)?;
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    std::str::from_utf8(&bytes[..end]).ok()
}

fn process(text: &str) -> Option<ProcessId> {
    let (pid, start_time) = text.split_once(' ')?;
    Some(ProcessId {
        pid: pid.parse().ok()?,
        start_time: start_time.parse().ok()?,
    })
}

/// The keeper's side.
#[derive(Debug)]
pub struct Notebook(File);

impl AsFd for Notebook {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Notebook {
    /// Room for the notes of a run, in place of those of the last one.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all_at(&[b' '; 3 * SLOT], 0)?;
        Ok(Self(file))
    }

    /// The keeper is at work.
    pub fn begin(&self, run_id: &str, keeper: ProcessId) -> io::Result<()> {
        let ProcessId { pid, start_time } = keeper;
        self.put(0, &format!("1 {run_id} {pid} {start_time}"))
    }

    /// The process runs.
    pub fn started(&self, main: ProcessId) -> io::Result<()> {
        self.put(1, &format!("main {} {}", main.pid, main.start_time))
    }

    /// It could not be run.
    pub fn failed(&self, error: &io::Error) -> io::Result<()> {
        let errno = error.raw_os_error().unwrap_or_default();
        self.put(1, &format!("failed {errno} {error}"))
    }

    /// It has ended.
    pub fn ended(&self, code: i32, time: i64) -> io::Result<()> {
        self.put(2, &format!("exit {code} {time}"))
    }

    fn put(&self, slot: usize, text: &str) -> io::Result<()> {
        let mut line: String = text.replace('\n', " ");
        while line.len() >= SLOT {
            line.pop();
        }
        line.push('\n');
        self.0.write_all_at(line.as_bytes(), (slot * SLOT) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ProcessId = ProcessId {
        pid: 7,
        start_time: 70,
    };

    #[test]
    fn what_was_noted_is_read_and_belongs_to_its_run() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        assert_eq!(Notes::read(&path, "r"), Notes::default());
        let notebook = Notebook::open(&path).unwrap();
        assert_eq!(Notes::last(&path), None);
        notebook.begin("r", ME).unwrap();
        notebook.started(ME).unwrap();
        notebook.ended(143, 5).unwrap();
        let notes = Notes::read(&path, "r");
        assert_eq!(notes.keeper, Some(ME));
        assert_eq!(notes.main, Some(ME));
        assert_eq!(notes.exit, Some((143, 5)));
        assert_eq!(Notes::read(&path, "other"), Notes::default());
        assert_eq!(Notes::last(&path), Some(("r".to_owned(), notes)));
    }

    #[test]
    fn a_failure_keeps_its_number_and_a_long_message_its_slot() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let notebook = Notebook::open(&path).unwrap();
        assert_eq!(Notes::last(&path), None);
        notebook.begin("r", ME).unwrap();
        notebook.failed(&io::Error::from_raw_os_error(2)).unwrap();
        assert_eq!(Notes::read(&path, "r").failed.unwrap().0, 2);
        notebook.failed(&io::Error::other("é".repeat(200))).unwrap();
        let notes = Notes::read(&path, "r");
        assert_eq!(notes.failed.unwrap().0, 0);
        assert_eq!(notes.exit, None);
    }

    #[test]
    fn half_a_slot_is_none() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        Notebook::open(&path).unwrap().begin("r", ME).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"exit 1", 2 * SLOT as u64).unwrap();
        assert_eq!(Notes::read(&path, "r").exit, None);
    }
}
