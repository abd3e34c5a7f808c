//! Waiting for an instance: until it answers, is healthy, or has ended. The ledger is watched, so an end
//! is seen at once; how to ask a server is `probe`'s business, which process holds a socket `port`'s.

use std::fs::File;
use std::time::Duration;

use super::notes::Notes;
use super::run::wall_clock;
use super::tree::Snapshot;
use super::watch::Watch;
use super::{Processes, Record, logs};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::plan::step::Target;
use crate::port;
use crate::port::claim::{Protocol, overlaps};
use crate::probe::{self, Answer, Miss};
use crate::state::{Health, InstanceId, Readiness, Status};

/// How many last lines an error carries.
const LAST_LINES: u64 = 20;

/// How many characters of what a healthcheck says are shown.
const LONGEST_WORD: usize = 300;

impl Processes {
    /// Waits until an instance has ended and its policy will not start it again; its exit code.
    pub async fn wait_exit(&self, project: &str, name: &str) -> Result<i32, BackendError> {
        self.wait_for(project, name, |record| exit_code(record.status))
            .await
    }

    /// Waits until a run of an instance has ended, and returns its code: also where it is started again at once, or
    /// removed.
    ///
    /// # Errors
    /// It was removed, and nobody has noted how it ended.
    pub async fn wait_end(
        &self,
        project: &str,
        name: &str,
        run: &InstanceId,
    ) -> Result<i32, BackendError> {
        let dirs = [self.dirs().project(project)?.instance(name)?];
        let [dir] = &dirs;
        let mut watch = Watch::new(&self.client, project, &dirs, false)?;
        // Still there when the instance was removed a moment after its end.
        let notes = File::open(dir.notes()).ok();
        let mut created_id = None;
        loop {
            let record = Record::read(dir)?;
            let record = record.filter(|now| {
                now.created_id == *created_id.get_or_insert_with(|| now.created_id.clone())
            });
            let is_present = |record: &Record| record.id() == run.0;
            let Some(record) = record.as_ref().filter(|record| is_present(record)) else {
                let noted = notes.as_ref().and_then(Notes::of);
                let noted = noted.filter(|(id, _)| *id == run.0);
                let code = noted.and_then(|(_, notes)| Some(notes.exit?.0));
                // More than one may have come since. Then the last is as good.
                let code = code.or_else(|| record?.past.as_ref()?.code);
                return code.ok_or_else(|| {
                    BackendError::Unsupported(format!("cannot wait for {name}: it was removed"))
                });
            };
            let code = || record.run.as_ref().and_then(|run| run.code);
            let restarts = record.status == Status::Restarting;
            if let Some(code) = exit_code(record.status).or_else(|| restarts.then(code).flatten()) {
                return Ok(code);
            }
            watch.changed(record.status.is_alive()).await?;
        }
    }

    /// The pids of everything that belongs to the current run of an instance, ascending; none when it is
    /// not alive.
    pub fn tree_pids(&self, project: &str, name: &str) -> Result<Vec<u32>, BackendError> {
        let record = self.record(project, name)?;
        if !record.status.is_alive() {
            return Ok(Vec::new());
        }
        let all = Snapshot::take().map_err(|source| BackendError::State {
            action: "cannot list processes".to_owned(),
            source,
        })?;
        Ok(all.of(&record).into_iter().map(|id| id.pid).collect())
    }

    /// The last lines of an instance's current run, for a message about it; without them if they cannot be
    /// had.
    pub fn last_lines(&self, project: &str, name: &str) -> Vec<String> {
        let lines = || {
            let record = self.record(project, name).ok()?;
            let dir = self.dirs().project(project).ok()?.instance(name).ok()?;
            let since = record.run.as_ref().map_or(0, |run| run.started);
            logs::last(&dir, LAST_LINES, since).ok()
        };
        lines()
            .into_iter()
            .flatten()
            .map(|line| String::from_utf8_lossy(&line.text).into_owned())
            .collect()
    }

    /// Waits until the instance itself answers, told by the process that holds the server's end of the
    /// probe's own connection. Sends [`Event::Ready`].
    pub(super) async fn await_ready(
        &self,
        target: &Target,
        readiness: &Readiness,
        events: &Events,
    ) -> Result<(), BackendError> {
        let (project, name) = (target.project.as_str(), target.name.as_str());
        let timeout = Duration::from_millis(readiness.timeout_ms);
        let mut stranger = None;
        let answered =
            probe::until_answered_with(&readiness.probe, readiness.address, timeout, |answer| {
                stranger = self.stranger(project, name, answer);
                stranger.is_none()
            });
        let answer = tokio::select! {
            biased;
            answer = answered => answer,
            code = self.wait_exit(project, name) => {
                let code = code?;
                if let Some(occupied) = self.occupied(project, name).filter(|_| code != 0) {
                    events.send(Event::Note(occupied));
                }
                return Err(self.exited_early(project, name, code));
            }
        };
        match answer {
            Ok(answer) => {
                let started = self
                    .record(project, name)?
                    .run
                    .map_or_else(wall_clock, |run| run.started);
                let took = u64::try_from(wall_clock() - started).unwrap_or_default();
                events.send(Event::Ready {
                    name: name.to_owned(),
                    url: probe::url(&readiness.probe, readiness.address),
                    address: readiness.address,
                    how: answer.what,
                    took: Duration::from_nanos(took),
                });
                Ok(())
            }
            Err(Miss::Stranger) => Err(BackendError::AnsweredByOther {
                name: name.to_owned(),
                address: readiness.address,
                who: stranger.unwrap_or_else(|| "another process".to_owned()),
            }),
            Err(miss) => Err(BackendError::NotReady {
                name: name.to_owned(),
                seconds: timeout.as_secs(),
                last: match self.elsewhere(project, name) {
                    Some(elsewhere) if miss == Miss::Refused => {
                        format!("nobody listens on {}; {elsewhere}", readiness.address)
                    }
                    Some(_) | None => miss.to_string(),
                },
                last_lines: self.last_lines(project, name),
            }),
        }
    }

    /// Who answered, if it was not the instance. Where the system does not tell who did, the answer counts.
    fn stranger(&self, project: &str, name: &str, answer: &Answer) -> Option<String> {
        let tree = self.tree_pids(project, name).ok()?;
        let holds = |inodes: &[u64]| !port::owner::pids_holding(inodes, Some(&tree)).is_empty();
        let accepted = port::sockets::accepted_inode(answer.remote, answer.local).ok()?;
        if accepted.is_some_and(|inode| holds(&[inode])) {
            return None;
        }
        let holders = |inodes: &[u64]| port::owner::pids_holding(inodes, None);
        let mut others = accepted.map_or_else(Vec::new, |inode| holders(&[inode]));
        if others.is_empty() {
            // It has hung up already, or shows us nothing: whoever listens there has answered.
            let inodes: Vec<u64> = port::sockets::listeners(answer.remote.port(), Protocol::Tcp)
                .ok()?
                .into_iter()
                .filter(|socket| overlaps(answer.remote.ip(), socket.address.ip(), socket.only_v6))
                .map(|socket| socket.inode)
                .collect();
            if inodes.is_empty() || holds(&inodes) {
                return None;
            }
            others = holders(&inodes);
        }
        match others.first() {
            Some(pid) => Some(match port::process::process_facts(*pid) {
                Some(facts) => format!("pid {pid} ({})", facts.command.join(" ")),
                None => format!("pid {pid}"),
            }),
            // Ours we could look into.
            None => Some("a process of another user".to_owned()),
        }
    }

    pub(super) async fn await_healthy(&self, target: &Target) -> Result<(), BackendError> {
        let (project, name) = (target.project.as_str(), target.name.as_str());
        let begun = wall_clock();
        let verdict = self
            .wait_for(project, name, |record| {
                if record.spec.healthcheck.is_none() {
                    return Some(Verdict::Unchecked);
                }
                if let Some(code) = exit_code(record.status) {
                    return Some(Verdict::Ended(code));
                }
                match record.health {
                    Some(Health::Healthy) => Some(Verdict::Healthy),
                    Some(Health::Unhealthy) => Some(Verdict::Unhealthy(record.ailment.clone())),
                    Some(Health::Starting) | None => None,
                }
            })
            .await?;
        match verdict {
            Verdict::Healthy => Ok(()),
            Verdict::Unhealthy(ailment) => Err(BackendError::NotReady {
                name: name.to_owned(),
                seconds: u64::try_from((wall_clock() - begun) / 1_000_000_000).unwrap_or_default(),
                last: match ailment.as_deref().and_then(last_word) {
                    Some(said) => format!("its healthcheck says unhealthy ({said})"),
                    None => "its healthcheck says unhealthy".to_owned(),
                },
                last_lines: self.last_lines(project, name),
            }),
            Verdict::Unchecked => Err(BackendError::Unsupported(format!(
                "{name} is to be waited for until it is healthy, and has no healthcheck"
            ))),
            Verdict::Ended(code) => Err(self.exited_early(project, name, code)),
        }
    }

    pub(super) async fn await_completed(&self, target: &Target) -> Result<(), BackendError> {
        let (project, name) = (target.project.as_str(), target.name.as_str());
        match self.wait_exit(project, name).await? {
            0 => Ok(()),
            code => Err(self.exited_early(project, name, code)),
        }
    }

    /// That the last run of an instance ran out of memory, in words.
    pub(super) fn starvation(&self, project: &str, name: &str) -> Option<String> {
        let record = self.record(project, name).ok()?;
        record.starvation()
    }

    fn exited_early(&self, project: &str, name: &str, code: i32) -> BackendError {
        if let Some(starvation) = self.starvation(project, name) {
            self.client.note(starvation);
        }
        BackendError::ExitedEarly {
            name: name.to_owned(),
            code,
            last_lines: self.last_lines(project, name),
        }
    }

    /// Looks at the ledger entry whenever it changes until `judge` has an answer.
    async fn wait_for<T>(
        &self,
        project: &str,
        name: &str,
        mut judge: impl FnMut(&Record) -> Option<T>,
    ) -> Result<T, BackendError> {
        let dirs = [self.dirs().project(project)?.instance(name)?];
        let mut watch = Watch::new(&self.client, project, &dirs, false)?;
        loop {
            let record = self.record(project, name)?;
            if let Some(found) = judge(&record) {
                return Ok(found);
            }
            watch.changed(record.status.is_alive()).await?;
        }
    }
}

/// How waiting for health can end.
enum Verdict {
    Healthy,
    Unhealthy(Option<String>),
    Unchecked,
    Ended(i32),
}

/// The last line of what a healthcheck says: as a rule that is the error.
fn last_word(said: &str) -> Option<String> {
    let mut lines = said.split(['\n', '\r']).rev();
    let line = lines.find(|line| !line.trim().is_empty())?;
    let line: String = line.trim().chars().take(LONGEST_WORD).collect();
    Some(port::one_line(&line))
}

fn exit_code(status: Status) -> Option<i32> {
    match status {
        Status::Exited { code } => Some(code),
        Status::Created
        | Status::Running
        | Status::Paused
        | Status::Restarting
        | Status::Removing
        | Status::Dead => None,
    }
}
