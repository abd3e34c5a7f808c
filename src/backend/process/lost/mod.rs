//! What runs of a project and no entry of its ledger names, because that was removed. It is recognised by its run id and
//! the files of this state directory that it, its keeper or its supervisor still writes errors to, or by its control
//! group, which is named after this state directory. Nothing is known any more of how it is to be stopped, or what it was
//! made from: so it is ended before anything else is made in its place.

mod seek;

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use seek::{Found, attendant, find, groups, variable};

use super::cgroup::Group;
use super::dirs::{Dirs, ProjectDir};
use super::ledger::Record;
use super::protocol::Request;
use super::remains::Remains;
use super::run::{ProcessId, Survivor};
use super::tree::{Snapshot, UNSURE};
use super::{Processes, lock, names};
use crate::backend::BackendError;
use crate::event::{Event, Events};

/// How long it gets after SIGTERM: as long as Compose gives a service that says nothing of it.
const GRACE: Duration = Duration::from_secs(10);

/// How long it may take to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(10);

/// How long the supervisor is waited for here.
const ANSWERING: Duration = Duration::from_millis(500);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// How often it is looked whether the processes of a run have left its group.
const LEAVING: u32 = 10;

/// One run that the ledger does not know.
#[derive(Debug)]
struct Lost {
    run_id: String,
    main: Option<ProcessId>,
    keeper: Option<ProcessId>,
    /// Its control group, where it is in one.
    group: Option<Group>,
}

impl Processes {
    /// Ends what runs of the project and no entry of its ledger names: what an earlier ledger of this same state
    /// directory has left, or a supervisor that was killed. `begins`: the ledger may have been made a moment ago.
    ///
    /// # Errors
    /// The ledger cannot be read, or something survives.
    pub async fn end_lost(
        &self,
        project: &str,
        begins: bool,
        events: &Events,
    ) -> Result<(), BackendError> {
        let dir = self.dirs().project(project)?;
        // What it has in memory it writes again; one that has the lock and does not answer is about to go.
        let mut is_supervised = lock::is_held(&dir.supervisor_lock());
        if is_supervised {
            let ping = self.client.ask_if_there(project, &Request::Ping);
            // One that hangs is there; it is replaced when the command needs it.
            if let Ok(answered) = tokio::time::timeout(ANSWERING, ping).await {
                is_supervised = answered?;
            }
        }
        let is_marked = dir.unswept().exists();
        let is_new = names(&dir)?.is_empty();
        let may_have_lost = if is_new { begins } else { !is_supervised };
        if !is_marked && !may_have_lost {
            return Ok(());
        }
        let Some(Found { lost, writers }) = find(self.dirs(), &dir)? else {
            return Ok(());
        };
        if !lost.is_empty() {
            let whom: Vec<String> = lost.iter().map(Lost::words).collect();
            events.send(Event::Warning(format!(
                "the state of project {project} was removed while it ran; what it left is stopped: {}",
                whom.join(", ")
            )));
            // They would write of its end into the ledger that is there by then.
            let attendants: Vec<ProcessId> = if is_new {
                writers.iter().filter_map(|pid| attendant(*pid)).collect()
            } else {
                lost.iter().filter_map(|one| one.keeper).collect()
            };
            end(project, &lost, &attendants).await?;
        }
        clear_groups(&dir).await;
        // Should this fail, it is only looked for once more.
        drop(fs::remove_file(dir.unswept()));
        Ok(())
    }
}

/// What runs of a project and no entry names, for a command that ends nothing. Looked for only where something tells
/// that there may be such: a supervisor's socket without a ledger, or a mark in it.
pub(super) fn unlisted(dirs: &Dirs, dir: &ProjectDir) -> Option<String> {
    let is_marked = dir.unswept().exists();
    let has_socket = || dir.socket().exists() && !lock::is_held(&dir.supervisor_lock());
    let has_no_entry = || names(dir).is_ok_and(|names| names.is_empty());
    if !(is_marked || has_no_entry() && has_socket()) {
        return None;
    }
    let found = find(dirs, dir).ok()??;
    let whom: Vec<String> = found.lost.iter().map(Lost::words).collect();
    if whom.is_empty() {
        if is_marked {
            drop(fs::remove_file(dir.unswept()));
        }
        return None;
    }
    Some(format!(
        "what runs of project {} without an entry in the ledger, because that was removed: {}; `wharf up` or \
         `wharf down` ends it",
        dir.name(),
        whom.join(", ")
    ))
}

/// Ends lost runs, and then those who look after them.
async fn end(project: &str, lost: &[Lost], attendants: &[ProcessId]) -> Result<(), BackendError> {
    let all = look()?;
    for process in lost.iter().flat_map(|one| one.tree(&all)) {
        // It may have ended by itself. One that is stopped would not notice.
        drop(process.signal(Signal::TERM));
        drop(process.signal(Signal::CONT));
    }
    for group in lost.iter().filter_map(|one| one.group.as_ref()) {
        // Nor would one that is frozen.
        drop(group.thaw());
    }
    if gone(lost, GRACE, false).await? || gone(lost, KILLED, true).await? {
        for one in attendants {
            drop(one.signal(Signal::KILL));
        }
        // Uninterruptible, or not ours to signal.
        let left = outlasting(attendants, KILLED).await;
        if !left.is_empty() {
            return Err(Remains { left, group: None }.into_error(project));
        }
        for group in lost.iter().filter_map(|one| one.group.as_ref()) {
            // Empty by now, as a rule; one that stays disturbs nobody.
            drop(group.remove());
        }
        return Ok(());
    }
    let all = look()?;
    let left = lost.iter().flat_map(|one| one.tree(&all)).collect();
    let remains = Remains { left, group: None };
    Err(remains.into_error(project))
}

/// Waits for the end of processes; those of them that are alive after that time.
async fn outlasting(all: &[ProcessId], patience: Duration) -> Vec<ProcessId> {
    let until = Instant::now() + patience;
    loop {
        let left: Vec<ProcessId> = all.iter().copied().filter(|one| one.is_alive()).collect();
        if left.is_empty() || Instant::now() >= until {
            return left;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes away the groups of the project's runs that nobody is in and no entry names: all that knew of such a run was
/// killed, or its entry was damaged or removed. What stays disturbs nobody.
async fn clear_groups(dir: &ProjectDir) {
    let mut groups = groups(dir);
    if groups.is_empty() {
        return;
    }
    // Read after they were listed: an entry names the group of a start before that is made.
    let Ok(records) = Record::read_all(dir) else {
        return;
    };
    groups.retain(|id, _| !records.iter().any(|record| record.id() == id));
    for _ in 0..LEAVING {
        // A process leaves its group a moment after its end.
        groups.retain(|_, group| group.is_populated() || group.remove().is_err());
        if groups.is_empty() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Lost {
    fn tree(&self, all: &Snapshot) -> Vec<ProcessId> {
        let in_group = self.group.as_ref().map(Group::members);
        let known = in_group.unwrap_or_default();
        all.tree(&self.run_id, self.main, self.keeper, &known)
    }

    fn words(&self) -> String {
        let in_group = || self.group.as_ref()?.members().into_iter().next();
        let Some(first) = self.main.or_else(in_group) else {
            return format!("run {}", self.run_id);
        };
        let pid = first.pid;
        match variable(pid, b"WHARF_SERVICE=") {
            Some(service) => format!("{service} (pid {pid})"),
            None => Survivor::of(pid).to_string(),
        }
    }
}

/// Waits until nothing is left; whether that is so in time.
async fn gone(lost: &[Lost], patience: Duration, kill: bool) -> Result<bool, BackendError> {
    let until = Instant::now() + patience;
    let mut unsure = 0;
    loop {
        let all = look()?;
        let left: Vec<ProcessId> = lost.iter().flat_map(|one| one.tree(&all)).collect();
        // What forks faster than it is listed is not there in a list that has missed somebody.
        if left.is_empty() && (all.is_whole() || unsure == UNSURE) {
            return Ok(true);
        }
        unsure += u32::from(left.is_empty());
        if Instant::now() >= until {
            return Ok(false);
        }
        if kill {
            for process in left {
                // It may have ended meanwhile.
                drop(process.signal(Signal::KILL));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn look() -> Result<Snapshot, BackendError> {
    Snapshot::take().map_err(|source| BackendError::State {
        action: "cannot list processes".to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_outlasts_the_wait_is_told() {
        let me = ProcessId::of(std::process::id()).unwrap();
        let gone = ProcessId {
            start_time: me.start_time + 1,
            ..me
        };
        assert_eq!(outlasting(&[gone, me], Duration::ZERO).await, [me]);
        assert_eq!(outlasting(&[gone], Duration::from_mins(1)).await, []);
    }
}
