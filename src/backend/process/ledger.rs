//! The record on disk of every instance: what it was made from and how its last run went. Enough to show
//! it, to start it again and to find its processes, without anybody's memory.
//!
//! Who writes: a command, while the instance is not alive (under the project's lock); the supervisor, while
//! it is. Every write replaces the file as a whole. Must not look at processes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::attributes::Attributes;
use super::cgroup::{Group, Starved};
use super::dirs::{InstanceDir, ProjectDir, failed};
use super::environment::Environment;
use super::lock;
use super::notes::Notes;
use super::realm::Realm;
use super::regular;
use super::run::{ProcessId, boot_id, wall_clock};
use super::tree::read_run_id;
use crate::backend::BackendError;
use crate::naming::Names;
use crate::plan::step::{ProjectIdentity, SettledPort};
use crate::state::{Fingerprint, Health, Readiness, Status};

/// The version of the format that this wharf writes. Older ones are read, newer ones refused. Raised together with
/// [`PROTOCOL`](super::protocol::PROTOCOL): a supervisor that stays has to read what commands write.
pub const FORMAT: u32 = 3;

/// What an entry takes in bytes, as a rule: most of it are the variables that its command was called with.
const USUAL: usize = 8 * 1024;

/// The code of a run whose end nobody saw, because no supervisor lived: 255, which is what the shell
/// reports for a status outside its range.
pub const UNKNOWN_CODE: i32 = 255;

/// One ledger entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`] of the wharf that wrote it.
    pub format: u32,
    /// What it was made from.
    pub spec: Spec,
    /// Nanoseconds since the Unix epoch.
    pub created: i64,
    /// Its id until its first run.
    pub created_id: String,
    /// Its state as last written. `Running` is only true while the process is there.
    pub status: Status,
    /// Whether it is meant to be alive: set by start, unset by stop.
    pub wanted: bool,
    /// The signal that a user has sent to the current run last. If that has ended it, its policy does not start it
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<i32>,
    /// Starts by the restart policy since the last start by a command.
    pub restarts: u32,
    /// The verdict of its healthcheck.
    pub health: Option<Health>,
    /// What the healthcheck said when it found the present run unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ailment: Option<String>,
    /// The current run, else the last one.
    pub run: Option<Run>,
    /// Whether it goes when it has ended (`run --rm`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fleeting: bool,
    /// How the one before that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<Past>,
}

/// The end of a run that another one has followed, for who has not looked since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Its id.
    pub id: String,
    /// Nanoseconds since the Unix epoch.
    pub finished: i64,
    /// As [`Run::code`].
    pub code: Option<i32>,
    /// As [`Run::stopped`].
    pub stopped: bool,
}

/// One run of an instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Also in the environment of every process of the run, as `WHARF_RUN_ID`.
    pub id: String,
    /// Its main process; `None` between the decision to start it and its first sign of life.
    pub process: Option<ProcessId>,
    /// Its keeper: the parent of the main process, which records its output and its end.
    #[serde(default)]
    pub keeper: Option<ProcessId>,
    /// The command that starts it in its foreground, until it has noted the main process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<ProcessId>,
    /// The directory of its control group, where it has one.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// The boot it belongs to.
    pub boot_id: String,
    /// Where its process ids mean something; `None` in entries of a wharf that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<Realm>,
    /// Nanoseconds since the Unix epoch.
    pub started: i64,
    /// Nanoseconds since the Unix epoch.
    pub finished: Option<i64>,
    /// 128 + signal for a death by signal, [`UNKNOWN_CODE`] if nobody saw it.
    pub code: Option<i32>,
    /// Whether its end was asked for, and not by SIGKILL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// Whether something has outlived SIGKILL for so long that it was reported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
    /// Whether it ran out of memory, as far as its control group counts that.
    #[serde(default, skip_serializing_if = "Starved::is_none")]
    pub starved: Starved,
    /// The names of what its main process left running when it ended by itself and without an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_running: Vec<String>,
}

/// What an instance is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The project.
    pub project: ProjectIdentity,
    /// The service.
    pub service: String,
    /// `P-service-N`.
    pub name: String,
    /// The replica's number; 0 for one-off instances.
    pub number: u32,
    /// Made from this configuration.
    pub fingerprint: Fingerprint,
    /// argv; never empty.
    pub command: Vec<String>,
    /// The file to run instead of looking `command[0]` up.
    pub program: Option<PathBuf>,
    /// Absolute.
    pub working_dir: PathBuf,
    /// The whole environment but for `WHARF_RUN_ID`.
    pub environment: Environment,
    /// Run as somebody else.
    pub user: Option<Account>,
    /// The number of the signal that asks it to end.
    pub stop_signal: i32,
    /// Between that and SIGKILL.
    pub stop_grace: Duration,
    /// What to do when it ends.
    pub restart: RestartPolicy,
    /// How to tell whether it is well.
    pub healthcheck: Option<Check>,
    /// Its ports.
    pub ports: Vec<SettledPort>,
    /// How to tell that it answers.
    pub readiness: Option<Readiness>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What else the service says about its process.
    #[serde(default)]
    pub attributes: Attributes,
    /// How it finds other services by name, and they it.
    #[serde(default)]
    pub names: Names,
}

/// Another user's identity, looked up when the instance was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// All further groups.
    pub groups: Vec<u32>,
}

/// What to do when an instance ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "policy")]
pub enum RestartPolicy {
    /// Leave it.
    No,
    /// Start it again.
    Always,
    /// Start it again unless its code was 0.
    OnFailure {
        /// At most so many times.
        max: Option<u32>,
    },
    /// Start it again.
    UnlessStopped,
}

/// A healthcheck with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// argv.
    pub command: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// Of one check.
    pub timeout: Duration,
    /// Failures in a row until unhealthy.
    pub retries: u64,
    /// Failures do not count until then.
    pub start_period: Duration,
    /// Between two checks in the start period.
    pub start_interval: Duration,
}

impl Run {
    /// One that is about to start, here and now.
    pub fn planned(id: String, group: Option<&Group>) -> Self {
        Self {
            id,
            process: None,
            keeper: None,
            launcher: None,
            cgroup: group.map(|group| group.path().to_owned()),
            boot_id: boot_id().to_owned(),
            realm: Realm::ours().cloned(),
            started: wall_clock(),
            finished: None,
            code: None,
            stopped: false,
            given_up: false,
            starved: Starved::default(),
            left_running: Vec::new(),
        }
    }

    /// What is kept of it when another one follows.
    pub fn past(&self) -> Option<Past> {
        Some(Past {
            id: self.id.clone(),
            finished: self.finished?,
            code: self.code,
            stopped: self.stopped,
        })
    }
}

impl Record {
    /// The current id: of its run, else the one it was made with.
    pub fn id(&self) -> &str {
        self.run.as_ref().map_or(&self.created_id, |run| &run.id)
    }

    /// The main process of a run that has not ended as far as the ledger knows.
    pub fn process(&self) -> Option<ProcessId> {
        self.run
            .as_ref()
            .filter(|run| run.finished.is_none())
            .and_then(|run| run.process)
    }

    /// The control group of the current run, else of the last one.
    pub fn group(&self) -> Option<Group> {
        let run = self.run.as_ref()?;
        Group::of_run(run.cgroup.as_deref()?, &run.id)
    }

    /// The keeper of the current run, else of the last one.
    pub fn keeper(&self) -> Option<ProcessId> {
        self.run.as_ref().and_then(|run| run.keeper)
    }

    /// That its last run went to the background, which is its end, in words; `None` if it did not, or goes on.
    pub(super) fn abandonment(&self) -> Option<String> {
        let run = self.run.as_ref()?;
        let left = &run.left_running;
        (run.finished.is_some() && !left.is_empty()).then(|| {
            format!(
                "{} has ended with its first process, as a container does, and what that left running was killed ({}): \
                 have it stay in the foreground",
                self.spec.name,
                left.join(", ")
            )
        })
    }

    /// That its last run ran out of memory, in words; `None` if it did not.
    pub(super) fn starvation(&self) -> Option<String> {
        let starved = self.run.as_ref()?.starved;
        let limit = self.spec.attributes.resources.memory;
        let why = match limit.and_then(|limit| u64::try_from(limit).ok()) {
            _ if starved.is_none() => return None,
            Some(limit) if starved.by_limit => {
                format!("it had reached its memory limit of {}", amount(limit))
            }
            _ => "no memory was left on this machine, or for the control group it is in".to_owned(),
        };
        let whom = match starved.kills {
            1 => "a process",
            _ => "processes",
        };
        Some(format!(
            "the kernel killed {whom} of {}: {why}",
            self.spec.name
        ))
    }

    /// What the keeper of the present run knows and nobody has written here yet.
    pub fn learn(&mut self, notes: &Notes) {
        let Some(run) = &mut self.run else { return };
        run.keeper = run.keeper.or(notes.keeper);
        run.process = run.process.or(notes.main);
        if let Some((code, time)) = notes.exit {
            run.code = Some(code);
            run.finished = Some(time);
        }
    }

    /// Where an end by SIGKILL is known from the notes alone, what its control group counts may not be written here yet.
    fn learn_starvation(&mut self) {
        if self.run.as_ref().and_then(|run| run.code) != Some(128 + Signal::KILL.as_raw()) {
            return;
        }
        let starved = self.group().and_then(|group| group.starved());
        if let (Some(starved), Some(run)) = (starved, &mut self.run)
            && starved.kills > run.starved.kills
        {
            run.starved = starved;
        }
    }

    /// Where its end could not be written; its keeper may have been killed before it noted anything.
    fn end_for_good(&mut self, dir: &InstanceDir) {
        if !self.status.is_alive() {
            return;
        }
        let Some(run) = &mut self.run else { return };
        let Ok(mark) = fs::metadata(dir.over(&run.id)) else {
            return;
        };
        let made = Duration::new(
            u64::try_from(mark.mtime()).unwrap_or_default(),
            u32::try_from(mark.mtime_nsec()).unwrap_or_default(),
        );
        run.finished
            .get_or_insert(i64::try_from(made.as_nanos()).unwrap_or_default());
        let code = *run.code.get_or_insert(UNKNOWN_CODE);
        self.wanted = false;
        self.health = None;
        self.status = Status::Exited { code };
    }

    /// Whether there is an entry of which nothing has reached the disk.
    pub(super) fn is_lost(dir: &InstanceDir) -> bool {
        regular::read(&dir.record()).is_ok_and(|bytes| is_blank(&bytes))
    }

    /// Reads an entry, with what the keeper of its run has noted; `None` when there is none. One of which nothing has
    /// reached the disk is none, unless something of its run lives.
    pub fn read(dir: &InstanceDir) -> Result<Option<Self>, BackendError> {
        let path = dir.record();
        let damaged = |cause| BackendError::Damaged {
            path: path.clone(),
            cause,
            alive: unrecorded(dir),
        };
        let bytes = match regular::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged(error.to_string()));
            }
            Err(error) => return Err(failed("read", &path, error)),
        };
        if is_blank(&bytes) && unrecorded(dir).is_none() {
            return Ok(None);
        }
        let mut record = Self::parse(&bytes).map_err(damaged)?;
        if let Some(run) = record.run.as_ref().filter(|run| run.finished.is_none()) {
            let notes = Notes::read(&dir.notes(), &run.id);
            record.learn(&notes);
            record.learn_starvation();
        }
        record.end_for_good(dir);
        Ok(Some(record))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let parsed = serde_json::from_slice::<Self>(bytes);
        // What a newer wharf wrote may not even parse; its version does.
        let format = match &parsed {
            Ok(record) => record.format,
            Err(_) => serde_json::from_slice::<Version>(bytes).map_or(0, |version| version.format),
        };
        if format > FORMAT {
            return Err(format!(
                "it is of format {format}, this wharf knows up to {FORMAT}: a newer wharf wrote it, use that one"
            ));
        }
        parsed.map_err(|error| error.to_string())
    }

    /// Writes the entry in place of the old one, as a whole or not at all.
    pub fn write(&self, dir: &InstanceDir) -> Result<(), BackendError> {
        let path = dir.record();
        let mut text = Vec::with_capacity(USUAL);
        serde_json::to_writer(&mut text, self)
            .map_err(|error| failed("write", &path, error.into()))?;
        replace(&path, &text).map_err(|error| failed("write", &path, error))
    }

    /// All entries of a project, by name.
    pub fn read_all(project: &ProjectDir) -> Result<Vec<Self>, BackendError> {
        let mut records = Vec::new();
        for name in names(project)? {
            records.extend(Self::read(&project.instance(&name)?)?);
        }
        Ok(records)
    }
}

/// What a machine that went down may leave of a file that was written a moment before; nobody writes such a one.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// An amount of memory as it is written in compose files, as a rule whole MiB.
fn amount(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// The names of a project's instances, sorted.
pub fn names(project: &ProjectDir) -> Result<Vec<String>, BackendError> {
    let path = project.instances();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", &path, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed("read", &path, error))?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Replaces a file by a rename, so that a reader sees the old text or the new one. A machine that goes down in the next
/// half a minute may leave an empty one, where there was none before or on some file systems: readers take that for none.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    replace_by(path, text, |_| Ok(()))
}

/// The same, and waits for the disk: a file that nobody could write a second time.
pub(super) fn replace_for_good(path: &Path, text: &[u8]) -> io::Result<()> {
    replace_by(path, text, File::sync_data)
}

fn replace_by(
    path: &Path,
    text: &[u8],
    settle: impl Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file.write_all(text).and_then(|()| settle(&file));
    drop(file);
    let outcome = written.and_then(|()| fs::rename(&temporary, path));
    if outcome.is_err() {
        // Best effort: the error that matters is the first one.
        drop(fs::remove_file(&temporary));
    }
    outcome
}

/// Who lives of a run that its entry does not tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrecorded {
    /// The main process, by its pid.
    Main(u32),
    /// That has ended, and its keeper, with this pid, is still there: something else is left, or the end is being noted.
    Keeper(u32),
    /// Neither is seen here.
    Elsewhere,
}

impl fmt::Display for Unrecorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main(pid) => write!(f, "process {pid}"),
            Self::Keeper(pid) => write!(f, "run (keeper {pid})"),
            Self::Elsewhere => f.write_str("process in another pid namespace"),
        }
    }
}

/// Who of a run lives, by what its keeper has noted: where the entry does not tell.
pub(super) fn unrecorded(dir: &InstanceDir) -> Option<Unrecorded> {
    let (run_id, notes) = Notes::last(&dir.notes())?;
    notes.main.or(notes.keeper)?;
    if lock::is_held(&dir.keeper_lock()) {
        let living = |noted: Option<ProcessId>| noted.filter(|process| process.is_alive());
        return Some(match (living(notes.main), living(notes.keeper)) {
            (Some(main), _) => Unrecorded::Main(main.pid),
            (None, Some(keeper)) => Unrecorded::Keeper(keeper.pid),
            (None, None) => Unrecorded::Elsewhere,
        });
    }
    // Its keeper was killed. The notes do not tell the boot; the run's id does, which nobody else has.
    let is_it = |main: &ProcessId| {
        main.is_alive() && read_run_id(main.pid).as_deref() == Some(run_id.as_str())
    };
    let main = notes.main.filter(is_it);
    main.map(|main| Unrecorded::Main(main.pid))
}
