//! What runs of a project whose ledger was removed. It is recognised by its run id, and by the files of this state
//! directory that it, its keeper or its supervisor still writes errors to. Nothing is known any more of how it is to
//! be stopped, or what it was made from: so it is ended before anything else is made in its place.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::remains::Remains;
use super::run::{ProcessId, Stat, Survivor};
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

/// How the command line of a keeper begins.
const TITLE: &[u8] = b"keeper of ";

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
        let dir = self.dirs().project(project)?;
        if !names(&dir)?.is_empty() {
            return Ok(());
        }
        let writers = writers(&dir.instances());
        if writers.is_empty() {
            return Ok(());
        }
        let lost = lost(&look()?, &writers, project);
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
        // They would write of its end into the ledger that is there by then.
        let attendants: Vec<ProcessId> = writers.iter().filter_map(|pid| attendant(*pid)).collect();
        if gone(&lost, GRACE, false).await? || gone(&lost, KILLED, true).await? {
            for one in &attendants {
                drop(one.signal(Signal::KILL));
            }
            while attendants.iter().any(|one| one.is_alive()) {
                tokio::time::sleep(PAUSE).await;
            }
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
        match variable(pid, b"WHARF_SERVICE=") {
            Some(service) => format!("{service} (pid {pid})"),
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

/// The processes whose standard error is in a project's directory, which may have been removed since.
fn writers(instances: &Path) -> BTreeSet<u32> {
    // The kernel tells the way that it went.
    let Some(directory) = instances.parent() else {
        return BTreeSet::new();
    };
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let file = fs::read_link(format!("/proc/{pid}/fd/2"));
        file.is_ok_and(|file| file.starts_with(&directory))
    })
    .collect()
}

/// What a variable of a process's environment was set to when it began; `name` ends in `=`.
fn variable(pid: u32, name: &[u8]) -> Option<String> {
    let environment = proc_file::read(format!("/proc/{pid}/environ")).ok()?;
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(name))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// A supervisor or keeper among them.
fn attendant(pid: u32) -> Option<ProcessId> {
    let process = ProcessId::of(pid)?;
    let line = proc_file::read(format!("/proc/{pid}/cmdline")).ok()?;
    let supervises = || line.split(|byte| *byte == 0).nth(1) == Some(b"supervise");
    (line.starts_with(TITLE) || supervises()).then_some(process)
}

/// The runs of these processes and of their children, oldest first.
fn lost(all: &Snapshot, writers: &BTreeSet<u32>, project: &str) -> Vec<Lost> {
    let children = writers.iter().flat_map(|pid| all.children_of(*pid));
    let pids: BTreeSet<u32> = children
        .map(|child| child.pid)
        .chain(writers.iter().copied())
        .collect();
    // Another project's command may write into a file that it found here.
    let is_ours = |pid: &u32| variable(*pid, b"WHARF_PROJECT=").is_some_and(|it| it == project);
    let run_ids: BTreeSet<String> = pids
        .into_iter()
        .filter(is_ours)
        .filter_map(read_run_id)
        .collect();
    let mut lost: Vec<Lost> = run_ids
        .into_iter()
        .map(|run_id| {
            let main = all.main_of(&run_id);
            let keeper = main.and_then(|main| keeper(main, writers));
            Lost {
                run_id,
                main,
                keeper,
            }
        })
        .collect();
    lost.sort_by_key(|one| one.main.map(|main| main.start_time));
    lost
}

/// The parent of a main process, where that is its keeper and not the supervisor, whose children are of all runs.
fn keeper(main: ProcessId, writers: &BTreeSet<u32>) -> Option<ProcessId> {
    let parent = Stat::read(main.pid)?.parent;
    let line = proc_file::read(format!("/proc/{parent}/cmdline")).ok()?;
    let is_keeper = writers.contains(&parent) && line.starts_with(TITLE);
    ProcessId::of(parent).filter(|_| is_keeper)
}
