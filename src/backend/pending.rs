//! What an engine was asked for and has not answered yet, noted on disk: an engine finishes it also when the command
//! that asked is gone, and nothing but the note tells the next one.
//!
//! A file for each request, in the project's state directory: written before the request, removed with the answer.
//! Best effort: where nothing can be written, there are no notes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::process::Dirs;
use super::process::dirs::ProjectDir;
use super::router::Backends;
use super::{BackendError, Made};
use crate::naming::waits_for;
use crate::plan::step::{Action, Target};
use crate::state::{BackendKind, Instance, InstanceId, Status};

/// For how long a stop may be under way whose grace period is the container's own, or may take beyond another.
const LONG: Duration = Duration::from_mins(10);
const AFTERWARDS: Duration = Duration::from_mins(1);

/// For how long a container that was asked for may still come, and for how long the next command waits for it. One
/// that comes later is found as any other that was never finished.
const MAKING: Duration = Duration::from_mins(1);
const LATE: Duration = Duration::from_secs(3);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

const STOP: &str = "stop-";
const MAKE: &str = "make-";

/// Stands for a request. It stays on disk when it is dropped: whoever drops it without an answer has been cut off.
#[derive(Debug)]
#[must_use]
pub(super) struct Note(Option<PathBuf>);

impl Note {
    /// The engine has answered: nothing is under way any more.
    pub(super) fn answered(self) {
        if let Some(path) = self.0 {
            // What is left is void in a while.
            drop(fs::remove_file(path));
        }
    }
}

/// Requests of earlier commands without an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Containers that are being stopped, by id, and when they were asked to (Unix time in seconds).
    stops: BTreeMap<String, (PathBuf, i64)>,
    /// Containers that are being made, by the name they are to have, and when they were asked for.
    making: BTreeMap<String, (PathBuf, i64)>,
}

impl Pending {
    /// The notes of a project that are not void at this time.
    fn read(dir: &ProjectDir, now: SystemTime) -> Self {
        let mut pending = Self::default();
        let Ok(entries) = fs::read_dir(dir.pending()) else {
            return pending;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Some((name, noted, patience)) = read(&path) else {
                continue;
            };
            // A clock that was set back makes a note young.
            if now.duration_since(noted).unwrap_or_default() > patience {
                drop(fs::remove_file(&path));
                continue;
            }
            let since = noted.duration_since(SystemTime::UNIX_EPOCH);
            let seconds = since.map_or(0, |since| since.as_secs());
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            if let Some(id) = name.strip_prefix(STOP) {
                pending.stops.insert(id.to_owned(), (path, seconds));
            } else if let Some(name) = name.strip_prefix(MAKE) {
                pending.making.insert(name.to_owned(), (path, seconds));
            }
        }
        pending
    }

    /// Whether containers were asked for.
    pub fn is_making(&self) -> bool {
        !self.making.is_empty()
    }

    /// The names of the containers that were asked for.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.making.keys()
    }

    /// Marks what is about to end. Notes about what does not run are void, and about what was started since: whoever
    /// did that did it after the stop.
    fn mark(&self, instances: &mut [Instance]) {
        for instance in instances {
            let Some((path, noted)) = self.stops.get(&instance.id.0) else {
                continue;
            };
            if instance.started.is_some_and(|started| started > *noted) {
                drop(fs::remove_file(path));
            } else if matches!(instance.status, Status::Running | Status::Paused) {
                instance.ending = true;
            } else if instance.status != Status::Restarting {
                drop(fs::remove_file(path));
            }
        }
    }

    /// Forgets the containers that have come, finished or not; those that are still to come are left.
    fn forget_made(&mut self, instances: &[Instance]) {
        self.making.retain(|name, (path, noted)| {
            let has_come = instances.iter().any(|instance| {
                waits_for(&instance.name) == Some(name)
                    || instance.name == *name && instance.created >= *noted
            });
            if has_come {
                drop(fs::remove_file(path));
            }
            !has_come
        });
    }

    /// Forgets all that was to come.
    pub fn forget_making(&self) {
        for (path, _) in self.making.values() {
            drop(fs::remove_file(path));
        }
    }
}

/// The name of a note, when it was written and for how long it holds.
fn read(path: &Path) -> Option<(String, SystemTime, Duration)> {
    let name = path.file_name()?.to_str()?.to_owned();
    let noted = fs::metadata(path).ok()?.modified().ok()?;
    let text = fs::read_to_string(path).ok()?;
    // One that was cut off while it was written: nothing was asked for yet.
    let Some(seconds) = text.strip_suffix('\n').and_then(|text| text.parse().ok()) else {
        drop(fs::remove_file(path));
        return None;
    };
    Some((name, noted, Duration::from_secs(seconds)))
}

/// Notes a request that may take so long.
fn write(dirs: &Dirs, project: &str, name: &str, patience: Duration) -> Note {
    let Ok(dir) = dirs.project(project) else {
        return Note(None);
    };
    let path = dir.pending().join(name);
    let text = format!("{}\n", patience.as_secs());
    let mut written = fs::write(&path, &text);
    if written.is_err() && dir.create_pending().is_ok() {
        written = fs::write(&path, &text);
    }
    if written.is_err() {
        // A full disk has room for its name.
        drop(fs::remove_file(&path));
    }
    Note(written.is_ok().then_some(path))
}

/// Signals after which a container may go on: they are often for a reload, or end nothing.
fn is_deadly(signal: &str) -> bool {
    let signal = signal.to_ascii_uppercase();
    let name = signal.strip_prefix("SIG").unwrap_or(&signal);
    ["KILL", "TERM", "9", "15"].contains(&name)
}

impl Backends {
    /// Notes what is about to be asked of an engine, where it is something that it finishes by itself.
    pub(super) fn note(&self, action: &Action, made: &Made) -> Note {
        let dirs = self.processes.dirs();
        let stop = |instance: &Target, patience| {
            let Some(InstanceId(id)) = Self::resolve(instance, made) else {
                return Note(None);
            };
            write(dirs, &instance.project, &format!("{STOP}{id}"), patience)
        };
        let is_container = |instance: &Target| instance.backend == BackendKind::Container;
        if let Action::Stop { instance, grace } = action
            && is_container(instance)
        {
            stop(instance, grace.unwrap_or(LONG).saturating_add(AFTERWARDS))
        } else if let Action::Kill { instance, signal } = action
            && is_container(instance)
            && is_deadly(signal)
        {
            stop(instance, AFTERWARDS)
        } else if let Action::Create(spec) = action
            && spec.backend == BackendKind::Container
        {
            let name = format!("{MAKE}{}", spec.name);
            write(dirs, &spec.project.name, &name, MAKING)
        } else {
            Note(None)
        }
    }

    /// What earlier commands have asked for and nobody has heard an answer to.
    pub fn pending(&self, project: &str) -> Pending {
        let dir = self.processes.dirs().project(project);
        dir.map(|dir| Pending::read(&dir, SystemTime::now()))
            .unwrap_or_default()
    }

    /// Marks those instances as ending that an earlier command has asked to end.
    pub async fn mark_ending(&self, project: &str, instances: &mut [Instance]) {
        let pending = self.pending(project);
        for instance in instances.iter_mut() {
            // A list does not tell. Whom the engine does not answer about is taken at the note's word.
            if instance.started.is_none() && pending.stops.contains_key(&instance.id.0) {
                instance.started = self.containers.started(&instance.id.0).await;
            }
        }
        pending.mark(instances);
    }

    /// Waits for the containers that an earlier command has asked for, as long as they may still come.
    ///
    /// # Errors
    /// When the engine does not answer, or refuses.
    pub async fn await_made(&self, project: &str) -> Result<(), BackendError> {
        let mut pending = self.pending(project);
        let end = Instant::now() + LATE;
        while pending.is_making() {
            pending.forget_made(&self.containers.outlines(project).await?);
            if Instant::now() >= end {
                pending.forget_making();
                break;
            }
            if pending.is_making() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn dirs(root: &Path) -> Dirs {
        Dirs::new(root.join("state"), root.join("run"))
    }

    fn pending(dirs: &Dirs, now: SystemTime) -> Pending {
        Pending::read(&dirs.project("p").unwrap(), now)
    }

    fn running(id: &str, started: i64) -> Instance {
        Instance {
            id: InstanceId(id.to_owned()),
            name: "p-a-1".to_owned(),
            project: "p".to_owned(),
            service: "a".to_owned(),
            number: 1,
            backend: BackendKind::Container,
            fingerprint: None,
            status: Status::Running,
            health: None,
            pid: None,
            image: String::new(),
            command: Vec::new(),
            created: 0,
            started: Some(started),
            finished: None,
            publishers: Vec::new(),
            asked_ports: Vec::new(),
            last_code: None,
            survivors: None,
            ending: false,
            labels: BTreeMap::new(),
            networks: Vec::new(),
            shares_network_of: None,
            volumes: Vec::new(),
            one_off: false,
            stop_grace: None,
            readiness: None,
        }
    }

    #[test]
    fn what_was_not_answered_is_left_for_as_long_as_it_may_take() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        let now = SystemTime::now();
        assert_eq!(pending(&dirs, now), Pending::default());
        write(&dirs, "p", "stop-a", HOUR).answered();
        drop(write(&dirs, "p", "stop-b", HOUR));
        drop(write(&dirs, "p", "make-p-c-1", HOUR / 2));
        let left = pending(&dirs, now);
        assert_eq!(left.stops.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(left.making.keys().collect::<Vec<_>>(), ["p-c-1"]);
        let later = pending(&dirs, now + HOUR * 3 / 4);
        assert!(later.stops.contains_key("b") && !later.is_making());
        // It is void for good.
        assert!(!pending(&dirs, now).is_making());
    }

    #[test]
    fn a_note_that_was_cut_off_says_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        let dir = dirs.project("p").unwrap();
        dir.create_pending().unwrap();
        for text in ["", "1", "x\n"] {
            fs::write(dir.pending().join("stop-a"), text).unwrap();
            assert_eq!(pending(&dirs, SystemTime::now()), Pending::default());
            assert!(!dir.pending().join("stop-a").exists());
        }
    }

    #[test]
    fn what_was_started_after_it_was_to_stop_is_not_ending() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        drop(write(&dirs, "p", "stop-a", HOUR));
        let now = jiff::Timestamp::now().as_second();
        let is_ending = |started| {
            let mut instances = [running("a", started)];
            pending(&dirs, SystemTime::now()).mark(&mut instances);
            instances[0].ending
        };
        assert!(is_ending(now - 60));
        assert!(!is_ending(now + 60));
        // The note has gone with it.
        assert!(!is_ending(now - 60));
    }

    #[test]
    fn where_nothing_can_be_written_there_are_no_notes() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("state"), "").unwrap();
        let dirs = dirs(root.path());
        write(&dirs, "p", "stop-a", HOUR).answered();
        assert_eq!(pending(&dirs, SystemTime::now()), Pending::default());
    }

    #[test]
    fn signals_that_end_are_known_by_name_and_number() {
        for signal in ["SIGTERM", "term", "9"] {
            assert!(is_deadly(signal), "{signal}");
        }
        for signal in ["HUP", "SIGUSR1", "1", "QUIT"] {
            assert!(!is_deadly(signal), "{signal}");
        }
    }
}
