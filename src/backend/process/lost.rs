//! What runs of a project whose ledger was removed. It is recognised by its keeper, or the supervisor, which is told
//! project and state directory on its command line, and by the run id. Nothing is known any more of how it is to be
//! stopped, or what it was made from: so it is ended before anything else is made in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::remains::Remains;
use super::run::{ProcessId, Survivor};
use super::tree::{Snapshot, read_run_id};
use super::{Processes, names};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::port::proc_file;

/// How long it gets after SIGTERM: as long as Compose gives a service that says nothing of it.
const GRACE: Duration = Duration::from_secs(10);

/// How long it may take to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(10);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// One run that the ledger does not know.
#[derive(Debug)]
struct Lost {
    run_id: String,
    main: Option<ProcessId>,
    keeper: Option<ProcessId>,
}

impl Processes {
    /// Ends what an earlier ledger of the project, of this same state directory, has left running. Only a project of
    /// which the ledger knows nothing is looked at.
    ///
    /// # Errors
    /// The ledger cannot be read, or something survives.
    pub async fn end_lost(&self, project: &str, events: &Events) -> Result<(), BackendError> {
        if !names(&self.dirs().project(project)?)?.is_empty() {
            return Ok(());
        }
        let keeps = keeping(project, self.dirs().state());
        if keeps.is_empty() {
            return Ok(());
        }
        let lost = lost(&look()?, &keeps);
        if lost.is_empty() {
            return Ok(());
        }
        let whom: Vec<String> = lost.iter().map(Lost::words).collect();
        events.send(Event::Warning(format!(
            "the state of project {project} was removed while it ran; what it left is stopped: {}",
            whom.join(", ")
        )));
        for one in &lost {
            // It may have ended by itself.
            drop(one.main.map(|main| main.signal(Signal::TERM)));
        }
        if gone(&lost, GRACE, false).await? || gone(&lost, KILLED, true).await? {
            return Ok(());
        }
        let all = look()?;
        let left = lost.iter().flat_map(|one| one.tree(&all)).collect();
        let remains = Remains { left, group: None };
        Err(remains.into_error(project))
    }
}

impl Lost {
    fn tree(&self, all: &Snapshot) -> Vec<ProcessId> {
        all.tree(&self.run_id, self.main, self.keeper, &[])
    }

    fn words(&self) -> String {
        let Some(main) = self.main else {
            return format!("run {}", self.run_id);
        };
        let pid = main.pid;
        let environment = proc_file::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut entries = environment.split(|byte| *byte == 0);
        let service = entries.find_map(|entry| entry.strip_prefix(b"WHARF_SERVICE="));
        match service {
            Some(service) => format!("{} (pid {pid})", String::from_utf8_lossy(service)),
            None => Survivor::of(pid).to_string(),
        }
    }
}

/// Waits until nothing is left; whether that is so in time.
async fn gone(lost: &[Lost], patience: Duration, kill: bool) -> Result<bool, BackendError> {
    let until = Instant::now() + patience;
    loop {
        let all = look()?;
        let left: Vec<ProcessId> = lost.iter().flat_map(|one| one.tree(&all)).collect();
        if left.is_empty() {
            return Ok(true);
        }
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

/// The supervisors and keepers of a project with this state directory, whatever runtime directory they have.
fn keeping(project: &str, state: &Path) -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = proc_file::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        keeps(&line, project, state)
    })
    .collect()
}

/// Whether a command line is that of a supervisor, which its keepers have, too.
fn keeps(line: &[u8], project: &str, state: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let state = state.as_os_str().as_bytes();
    let wanted: [&[u8]; 5] = [
        b"supervise",
        b"--project",
        project.as_bytes(),
        b"--state-dir",
        state,
    ];
    words.get(1..6).is_some_and(|words| *words == wanted)
}

/// The runs that are kept, oldest first.
fn lost(all: &Snapshot, keeps: &BTreeSet<u32>) -> Vec<Lost> {
    let mut found = BTreeMap::new();
    for pid in keeps {
        let children = all.children_of(*pid);
        // A supervisor is no keeper: its children are those of all runs.
        let is_supervisor = children.iter().any(|child| keeps.contains(&child.pid));
        for child in children.iter().filter(|child| !keeps.contains(&child.pid)) {
            if let Some(run_id) = read_run_id(child.pid) {
                let keeper = ProcessId::of(*pid).filter(|_| !is_supervisor);
                found.entry(run_id).or_insert(keeper);
            }
        }
    }
    let mut lost: Vec<Lost> = found
        .into_iter()
        .map(|(run_id, keeper)| Lost {
            main: all.main_of(&run_id),
            run_id,
            keeper,
        })
        .collect();
    lost.sort_by_key(|one| one.main.map(|main| main.start_time));
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_is_known_by_project_and_state_directory() {
        let state = Path::new("/s");
        let line = |words: &[&str]| words.join("\0").into_bytes();
        let of = |project, state| {
            line(&[
                "wharf",
                "supervise",
                "--project",
                project,
                "--state-dir",
                state,
                "--runtime-dir",
                "/r",
                "",
            ])
        };
        assert!(keeps(&of("p", "/s"), "p", state));
        assert!(!keeps(&of("q", "/s"), "p", state));
        assert!(!keeps(&of("p", "/other"), "p", state));
        assert!(!keeps(
            &line(&["vim", "supervise", "--project", "p"]),
            "p",
            state
        ));
        assert!(!keeps(b"", "p", state));
    }
}
