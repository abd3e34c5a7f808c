//! What happens to the processes of a project, in the engine's words, told by the ledger: each of its entries
//! is compared with what it said before. Follows the entries by inotify; changes nothing.
//!
//! The ledger has the present and the last run of an instance. What was before is not told by `since`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io;

use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::net::unix::pipe::Receiver;

use super::dirs::{ProjectDir, failed};
use super::journal::Line;
use super::observe::{catch_up, needs_supervisor};
use super::run::wall_clock;
use super::{Processes, Record, journal, names, watching};
use crate::backend::BackendError;
use crate::backend::happening::Happening;
use crate::naming::Role;
use crate::state::{BackendKind, Health, Status};

/// The happenings of a project from a certain moment on.
#[derive(Debug)]
pub struct Happenings {
    dir: ProjectDir,
    changes: Receiver,
    watched: BTreeSet<String>,
    seen: BTreeMap<String, Record>,
    /// How much of each journal was read.
    told: BTreeMap<String, u64>,
    /// What journals said after the entries were read: what goes before is in the entries by the next look.
    later: BTreeMap<String, Vec<Line>>,
    untold: VecDeque<Happening>,
}

impl Processes {
    /// What happens to the processes of a project. Nothing is missed from the moment that this returns;
    /// `since` (nanoseconds since the Unix epoch) tells what the ledger knows from before. `None` when the
    /// project has never had a process, unless it `may` have one.
    pub async fn happenings(
        &self,
        project: &str,
        since: Option<i64>,
        may: bool,
    ) -> Result<Option<Happenings>, BackendError> {
        let dir = self.dirs().project(project)?;
        if !dir.exists() {
            if !may {
                return Ok(None);
            }
            dir.create()?;
        }
        let inotify = watching::queue().map_err(cannot)?;
        let changes = Receiver::from_file_unchecked(File::from(inotify)).map_err(cannot)?;
        let path = dir.instances();
        std::fs::create_dir_all(&path).map_err(|error| failed("create", &path, error))?;
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_TO;
        watching::add(&changes, &path, flags).map_err(|error| failed("watch", &path, error))?;
        let mut happenings = Happenings {
            dir,
            changes,
            watched: BTreeSet::new(),
            seen: BTreeMap::new(),
            told: BTreeMap::new(),
            later: BTreeMap::new(),
            untold: VecDeque::new(),
        };
        if happenings.read()?.values().any(needs_supervisor) {
            catch_up(&self.client, project).await;
        }
        happenings.look()?;
        // What was there at the first look has not just happened.
        happenings
            .untold
            .retain(|each| since.is_some_and(|since| each.time >= since));
        Ok(Some(happenings))
    }
}

impl Happenings {
    /// The next thing that happens.
    pub async fn next(&mut self) -> Result<Happening, BackendError> {
        loop {
            if let Some(happening) = self.past() {
                return Ok(happening);
            }
            self.changes.readable().await.map_err(cannot)?;
            watching::drain(&self.changes).map_err(cannot)?;
            self.look()?;
        }
    }

    /// The next thing that has happened already, if there is one.
    pub fn past(&mut self) -> Option<Happening> {
        self.untold.pop_front()
    }

    /// All entries, each watched before it is read.
    fn read(&mut self) -> Result<BTreeMap<String, Record>, BackendError> {
        let mut records = BTreeMap::new();
        let names = names(&self.dir)?;
        self.watched.retain(|name| names.contains(name));
        for name in names {
            let instance = self.dir.instance(&name)?;
            // A directory that was made again under its name has to be watched again, which is harmless
            // for one that is watched.
            match inotify::add_watch(
                &self.changes,
                instance.path(),
                WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::ONLYDIR,
            ) {
                Ok(_) => drop(self.watched.insert(name.clone())),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed("watch", instance.path(), error.into())),
            }
            // That a run has come to life is in the keeper's notes alone; they are made with the first one.
            let _ = inotify::add_watch(&self.changes, instance.notes(), WatchFlags::MODIFY);
            let _ = inotify::add_watch(&self.changes, instance.journal(), WatchFlags::MODIFY);
            if let Some(record) = Record::read(&instance)?
                && Role::of(&record.spec.labels).is_none()
            {
                records.insert(name, record);
            }
        }
        Ok(records)
    }

    /// What happens is in the order in which an instance tells it: what a command notes of a run (`restart`) comes after
    /// the start that it knows of, whenever which of both is read.
    fn look(&mut self) -> Result<(), BackendError> {
        loop {
            let noted = self.noted()?;
            let now = self.read()?;
            self.take(noted, now)?;
            if self.later.is_empty() {
                return Ok(());
            }
        }
    }

    /// What the journals say that was not told.
    fn noted(&mut self) -> Result<BTreeMap<String, Vec<Line>>, BackendError> {
        let mut noted = std::mem::take(&mut self.later);
        for name in names(&self.dir)? {
            let lines = self.lines(&name)?;
            noted.entry(name).or_default().extend(lines);
        }
        Ok(noted)
    }

    /// What was added to a journal.
    fn lines(&mut self, name: &str) -> Result<Vec<Line>, BackendError> {
        let from = self.told.entry(name.to_owned()).or_default();
        let (lines, end) = journal::after(&self.dir.instance(name)?, *from);
        *from = end;
        Ok(lines)
    }

    /// Tells what `now` says that was not seen, and what was `noted` before that was read.
    fn take(
        &mut self,
        mut noted: BTreeMap<String, Vec<Line>>,
        now: BTreeMap<String, Record>,
    ) -> Result<(), BackendError> {
        let mut found = Vec::new();
        let all: BTreeSet<&String> = self.seen.keys().chain(now.keys()).collect();
        for name in all {
            compare(self.seen.get(name), now.get(name), wall_clock(), &mut found);
        }
        self.told.retain(|name, _| now.contains_key(name));
        for (name, record) in &now {
            let seen = self.seen.get(name);
            let mut lines = noted.remove(name).unwrap_or_default();
            if seen.is_some_and(|seen| seen.created_id != record.created_id) {
                // They were read where those of another one had ended.
                lines.clear();
                self.told.remove(name);
            }
            let finished = record.run.as_ref().and_then(|run| run.finished);
            for line in self.lines(name)? {
                // A signal goes before the end that is about to be told.
                if finished >= Some(line.time) {
                    lines.push(line);
                } else {
                    self.later.entry(name.clone()).or_default().push(line);
                }
            }
            found.extend(lines.into_iter().map(|line| {
                let mut happening = happening(record, line.time, &line.action, None);
                happening.attributes.extend(line.attributes);
                happening
            }));
        }
        found.sort_by_key(|happening| happening.time);
        self.untold.extend(found);
        self.seen = now;
        Ok(())
    }
}

/// What happened between two states of an entry.
fn compare(before: Option<&Record>, after: Option<&Record>, now: i64, found: &mut Vec<Happening>) {
    let Some(record) = after else {
        if let Some(gone) = before {
            destroyed(gone, now, found);
        }
        return;
    };
    let before = match before {
        Some(other) if other.created_id != record.created_id => {
            destroyed(other, record.created, found);
            None
        }
        before => before,
    };
    if let Some((signal, time)) = stopped(before, record, now) {
        found.push(signalled(record, signal, time));
    }
    missed(before, record, found);
    let mut tell = |time: i64, action: &str, code: Option<i32>| {
        found.push(happening(record, time, action, code));
    };
    if before.is_none() {
        tell(record.created, "create", None);
    }
    let old = before.and_then(|record| record.run.as_ref());
    if let Some(run) = &record.run {
        let same = old.filter(|old| old.id == run.id);
        if same.is_none_or(|old| old.process.is_none()) && run.process.is_some() {
            tell(run.started, "start", None);
        }
        if run.starved.kills > same.map_or(0, |old| old.starved.kills) {
            tell(run.finished.unwrap_or(now), "oom", None);
        }
        if let Some(finished) = run.finished
            && same.is_none_or(|old| old.finished.is_none())
        {
            tell(finished, "die", run.code);
            let is_killed = record.told == Some(Signal::KILL.as_raw());
            if !record.wanted && !is_killed {
                tell(finished, "stop", None);
            }
        }
    }
    let Some(before) = before else { return };
    match (before.status, record.status) {
        (Status::Running, Status::Paused) => tell(now, "pause", None),
        (Status::Paused, Status::Running) => tell(now, "unpause", None),
        _ => {}
    }
    if before.health != record.health {
        match record.health {
            Some(Health::Healthy) => tell(now, "health_status: healthy", None),
            Some(Health::Unhealthy) => tell(now, "health_status: unhealthy", None),
            Some(Health::Starting) | None => {}
        }
    }
}

/// The end of a run that was last seen alive, where another one has followed by now.
fn missed(before: Option<&Record>, record: &Record, found: &mut Vec<Happening>) {
    let (Some(before), Some(run)) = (before, &record.run) else {
        return;
    };
    let Some(old) = before.run.as_ref().filter(|old| old.id != run.id) else {
        return;
    };
    if old.process.is_none() || old.finished.is_some() {
        return;
    }
    let past = record.past.as_ref().filter(|past| past.id == old.id);
    let Some(past) = past else {
        // That one was not the last before this.
        let time = run.started.max(old.started);
        found.push(happening(before, time, "die", old.code));
        return;
    };
    if past.stopped && before.wanted {
        let signal = before.spec.stop_signal;
        found.push(signalled(before, signal, past.finished));
    }
    found.push(happening(before, past.finished, "die", past.code));
    if past.stopped {
        found.push(happening(before, past.finished, "stop", None));
    }
}

fn signalled(record: &Record, signal: i32, time: i64) -> Happening {
    let mut kill = happening(record, time, "kill", None);
    let signal = signal.to_string();
    kill.attributes.insert("signal".to_owned(), signal);
    kill
}

/// The stop signal, where a user has it sent, and when at the latest. Those of `kill` are in the journal.
fn stopped(before: Option<&Record>, record: &Record, now: i64) -> Option<(i32, i64)> {
    let run = record.run.as_ref()?;
    let time = run.finished.map_or(now, |finished| finished.min(now));
    let same = before.filter(|before| before.run.as_ref().is_some_and(|old| old.id == run.id));
    let was_wanted = same.is_some_and(|same| {
        same.wanted && same.run.as_ref().is_some_and(|run| run.finished.is_none())
    });
    let is_killed = record.told == Some(Signal::KILL.as_raw());
    (was_wanted && !record.wanted && !is_killed).then_some((record.spec.stop_signal, time))
}

/// An entry that is there no more. If it was last seen alive, its end came and went in between.
fn destroyed(gone: &Record, time: i64, found: &mut Vec<Happening>) {
    if gone.process().is_some() {
        found.push(happening(gone, time, "die", None));
    }
    found.push(happening(gone, time, "destroy", None));
}

/// From `create` to `destroy` an instance has one id, as a container has; that of a run is an attribute.
fn happening(record: &Record, time: i64, action: &str, code: Option<i32>) -> Happening {
    let mut attributes = record.spec.labels.clone();
    attributes.retain(|name, _| !name.starts_with("com.docker.compose."));
    attributes.insert("name".to_owned(), record.spec.name.clone());
    if let Some(run) = record.run.as_ref().filter(|_| action != "create") {
        attributes.insert("run".to_owned(), run.id.clone());
    }
    if let Some(code) = code {
        attributes.insert("exitCode".to_owned(), code.to_string());
    }
    Happening {
        time,
        backend: BackendKind::Process,
        id: record.created_id.clone(),
        name: record.spec.name.clone(),
        service: record.spec.service.clone(),
        one_off: record.spec.number == 0,
        action: action.to_owned(),
        attributes,
    }
}

fn cannot(source: io::Error) -> BackendError {
    BackendError::State {
        action: "cannot watch the ledger".to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backend::process::Dirs;
    use crate::backend::process::dirs::InstanceDir;

    /// An entry of an instance whose second run was begun, after one that was stopped; with its process or without.
    fn write(dir: &InstanceDir, process: bool, finished: Option<i64>) {
        let process = process.then(|| json!({ "pid": 1, "start_time": 1 }));
        let entry = json!({
            "format": 1, "created": 1, "created_id": "c", "status": { "state": "running" }, "wanted": true,
            "restarts": 0, "health": null, "past": { "id": "1", "finished": 1, "code": 143, "stopped": true },
            "run": {
                "id": "2", "process": process, "boot_id": "b", "started": 2, "finished": finished,
                "code": finished.map(|_| 0),
            },
            "spec": {
                "project": { "name": "p", "working_dir": "/p", "config_files": [] },
                "service": "a", "name": "p-a-1", "number": 1, "fingerprint": "f", "command": ["a"], "program": null,
                "working_dir": "/p", "environment": {}, "user": null, "stop_signal": 15,
                "stop_grace": { "secs": 10, "nanos": 0 }, "restart": { "policy": "no" }, "healthcheck": null,
                "ports": [], "readiness": null, "labels": {},
            },
        });
        std::fs::write(dir.record(), entry.to_string()).unwrap();
    }

    fn actions(happenings: &mut Happenings) -> Vec<String> {
        let told = happenings.untold.drain(..);
        told.map(|happening| happening.action).collect()
    }

    #[tokio::test]
    async fn what_a_command_notes_is_told_after_what_it_has_done() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path().join("s"), root.path().join("r"));
        let project = dirs.project("p").unwrap();
        let dir = project.instance("p-a-1").unwrap();
        dir.create().unwrap();
        write(&dir, false, None);
        let changes = File::from(watching::queue().unwrap());
        let mut happenings = Happenings {
            dir: project,
            changes: Receiver::from_file_unchecked(changes).unwrap(),
            watched: BTreeSet::new(),
            seen: BTreeMap::new(),
            told: BTreeMap::new(),
            later: BTreeMap::new(),
            untold: VecDeque::new(),
        };
        happenings.look().unwrap();
        assert_eq!(actions(&mut happenings), ["create"]);
        // The start comes between the looks at the entry and at the journal.
        let noted = happenings.noted().unwrap();
        let now = happenings.read().unwrap();
        write(&dir, true, None);
        journal::note(&dir, "restart", &[]);
        happenings.take(noted, now).unwrap();
        assert_eq!(actions(&mut happenings), [""; 0]);
        happenings.look().unwrap();
        assert_eq!(actions(&mut happenings), ["start", "restart"]);
        // A signal between both, and the end that it leads to in the entry.
        let noted = happenings.noted().unwrap();
        journal::note(&dir, "kill", &[]);
        write(&dir, true, Some(wall_clock()));
        let now = happenings.read().unwrap();
        happenings.take(noted, now).unwrap();
        assert_eq!(actions(&mut happenings), ["kill", "die"]);
        happenings.look().unwrap();
        assert_eq!(actions(&mut happenings), [""; 0]);
    }
}
