//! The log of releases: what was stopped for a port, when, and by whose word.
//!
//! One JSON object a line, appended in one write under the file's lock, so that commands that run at the same
//! time and one that is killed cost no line but their own. Two files of bounded size; nothing is decided here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::port::claim::{Claim, Protocol};
use crate::port::holder::Holder;
use crate::port::report::{HolderReport, Means};

/// A file that has grown beyond this many bytes becomes the older one.
const FULL: u64 = 1 << 20;

/// No command line takes more characters in the log.
const LONGEST_COMMAND: usize = 4096;

/// How often a file that another command has just put aside is opened again.
const TRIES: usize = 16;

/// One release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was over (RFC 3339).
    pub time: String,
    /// The port that was to become free.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// The addresses it was needed on.
    pub addresses: Vec<IpAddr>,
    /// The project that needed it; `None` for `wharf free`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The service that needed it; `None` for `wharf free`.
    pub service: Option<String>,
    /// Who had it: command line, directory, age, container.
    pub holder: HolderReport,
    /// What kept it running and was stopped before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<String>,
    /// How it was released.
    pub release: Means,
    /// What became of it.
    pub outcome: Outcome,
    /// All processes that were signalled, in that order.
    pub pids: Vec<u32>,
    /// From the first look to the proof that all are gone, in milliseconds.
    pub took_ms: u64,
    /// The command that did it, quoted for a shell.
    pub by: String,
    /// The directory in which that command ran.
    pub directory: Option<String>,
    /// The answer or the rule that allowed it.
    pub answer: String,
}

impl Entry {
    /// The other project than `project` for which one of these holders was stopped, at this port, since a moment (in
    /// seconds of Unix time).
    pub fn another_project(
        &self,
        project: &str,
        claim: &Claim,
        holders: &[Holder],
        since: i64,
    ) -> Option<&str> {
        let other = self.project.as_deref().filter(|other| *other != project)?;
        let time: jiff::Timestamp = self.time.parse().ok()?;
        // Both are cut to seconds, or derived from such.
        let is_since = time.as_second() + 1 >= since;
        let is_it = (self.port, self.protocol) == (claim.port, claim.protocol)
            && self.outcome != Outcome::Failed
            && holders.iter().any(|it| self.holder.is_of(it));
        (is_since && is_it).then_some(other)
    }
}

/// What became of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It ended when it was told to.
    Stopped,
    /// It had to be killed.
    Killed,
    /// It had gone, or let go of the port, by itself.
    Gone,
    /// It is still there.
    Failed,
}

impl Outcome {
    /// The word in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }
}

/// The log of one state directory.
#[derive(Clone, Debug)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// The log in `state`, the root of wharf's state.
    pub fn of(state: &Path) -> Self {
        Self {
            path: state.join("releases.jsonl"),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("1.jsonl")
    }

    /// Adds an entry; when this returns, it is in the file.
    pub fn append(&self, entry: &Entry) -> io::Result<()> {
        let mut entry = entry.clone();
        cut(&mut entry.by);
        if let Some(command) = &mut entry.holder.command {
            cut(command);
        }
        let mut line = serde_json::to_vec(&entry).map_err(io::Error::other)?;
        line.push(b'\n');
        if let Some(directory) = self.path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        for _ in 0..TRIES {
            let mut file = self.open()?;
            flock(&file, FlockOperation::LockExclusive)?;
            // Whoever had the lock before may have put the file aside.
            let found = file.metadata()?;
            let is_it = fs::metadata(&self.path)
                .is_ok_and(|now| now.ino() == found.ino() && now.dev() == found.dev());
            if !is_it {
                continue;
            }
            if found.len() >= FULL {
                fs::rename(&self.path, self.older())?;
                continue;
            }
            if !ends_a_line(&mut file, found.len())? {
                line.insert(0, b'\n');
            }
            return file.write_all(&line);
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
    }

    /// All entries, the oldest first. Lines that a crash has cut are left out.
    pub fn read(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for path in [self.older(), self.path.clone()] {
            match fs::read(&path) {
                Ok(bytes) => entries.extend(
                    bytes
                        .split(|byte| *byte == b'\n')
                        .filter_map(|line| serde_json::from_slice(line).ok()),
                ),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }
}

/// Whether the file is empty or its last line is whole: a writer may have been killed within one.
fn ends_a_line(file: &mut File, length: u64) -> io::Result<bool> {
    if length == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::Start(length - 1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == [b'\n'])
}

fn cut(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(LONGEST_COMMAND) {
        text.truncate(at);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::report::Kind;

    fn entry(port: u16, command: &str) -> Entry {
        Entry {
            time: "2026-11-23T00:00:00Z".into(),
            port,
            protocol: Protocol::Tcp,
            addresses: Vec::new(),
            project: None,
            service: None,
            holder: HolderReport {
                kind: Kind::Process,
                pid: Some(4711),
                uid: Some(1000),
                user: None,
                command: Some(command.into()),
                cwd: Some("/srv".into()),
                exe: None,
                started: None,
                age_seconds: Some(60),
                container: None,
                unit: None,
                protected: false,
                reason: None,
                release: Means::Signal,
                service: None,
                consequences: Vec::new(),
                also_listens: Vec::new(),
                tracer: None,
            },
            supervisor: None,
            release: Means::Signal,
            outcome: Outcome::Stopped,
            pids: vec![4711],
            took_ms: 3,
            by: "wharf free 8003".into(),
            directory: None,
            answer: "--force".into(),
        }
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let root = tempfile::tempdir().unwrap();
        let log = Log::of(&root.path().join("state"));
        assert_eq!(log.read().unwrap(), []);
        std::thread::scope(|scope| {
            for writer in 0..8_u16 {
                let log = log.clone();
                scope.spawn(move || {
                    for line in 0..50 {
                        log.append(&entry(writer * 100 + line, "ws")).unwrap();
                    }
                });
            }
        });
        let mut ports: Vec<u16> = log.read().unwrap().iter().map(|entry| entry.port).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 400);
    }

    #[test]
    fn a_line_that_was_cut_costs_that_line_alone() {
        let root = tempfile::tempdir().unwrap();
        let log = Log::of(root.path());
        log.append(&entry(1, "ws")).unwrap();
        let mut file = log.open().unwrap();
        file.write_all(br#"{"time":"2026-11"#).unwrap();
        log.append(&entry(2, "ws")).unwrap();
        let ports: Vec<u16> = log.read().unwrap().iter().map(|entry| entry.port).collect();
        assert_eq!(ports, [1, 2]);
    }

    #[test]
    fn its_size_is_bounded_and_the_newest_stay() {
        let root = tempfile::tempdir().unwrap();
        let log = Log::of(root.path());
        let long = "x".repeat(10 * LONGEST_COMMAND);
        for port in 1..=1000 {
            log.append(&entry(port, &long)).unwrap();
        }
        let size: u64 = fs::read_dir(root.path())
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(size < 2 * FULL + 20_000, "{size}");
        let entries = log.read().unwrap();
        assert!(entries.len() > 200, "{}", entries.len());
        assert_eq!(entries.last().map(|entry| entry.port), Some(1000));
        let command = entries
            .first()
            .and_then(|entry| entry.holder.command.clone());
        assert_eq!(
            command.map(|command| command.chars().count()),
            Some(LONGEST_COMMAND + 1)
        );
    }
}
