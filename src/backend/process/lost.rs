//! What runs of a project and no entry of its ledger names, because that was removed. It is recognised by its run id,
//! and by the files of this state directory that it, its keeper or its supervisor still writes errors to. Nothing is
//! known any more of how it is to be stopped, or what it was made from: so it is ended before anything else is made in
//! its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cgroup::{Group, View};
use super::dirs::{Dirs, ProjectDir};
use super::ledger::Record;
use super::protocol::Request;
use super::remains::Remains;
use super::run::{ProcessId, Stat, Survivor};
use super::tree::{Snapshot, UNSURE, read_run_id};
use super::{Processes, lock, names};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::port::proc_file;
use crate::project::Env;

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

/// How the command line of a keeper begins.
const TITLE: &[u8] = b"keeper of ";

/// One run that the ledger does not know.
#[derive(Debug)]
struct Lost {
    run_id: String,
    main: Option<ProcessId>,
    keeper: Option<ProcessId>,
    /// Its control group, where it is in one.
    group: Option<Group>,
}

/// Where the runs of a project write their errors to, and what it has of them.
#[derive(Debug)]
struct Found {
    lost: Vec<Lost>,
    /// Processes whose standard error is there.
    writers: BTreeSet<u32>,
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

/// The lost runs of a project; `None` where its ledger cannot be read as a whole, and so nothing can be told.
fn find(dirs: &Dirs, dir: &ProjectDir) -> Result<Option<Found>, BackendError> {
    let writers = writers(dirs, dir);
    if writers.is_empty() {
        let lost = Vec::new();
        return Ok(Some(Found { lost, writers }));
    }
    // An entry names a run before there is a process of it. A policy may start one anew meanwhile.
    let Ok(before) = Record::read_all(dir) else {
        return Ok(None);
    };
    let all = look()?;
    let Ok(after) = Record::read_all(dir) else {
        return Ok(None);
    };
    let known: BTreeSet<&str> = before.iter().chain(&after).map(Record::id).collect();
    let mut lost = lost(&all, &writers, dir);
    lost.retain(|one| !known.contains(one.run_id.as_str()));
    Ok(Some(Found { lost, writers }))
}

/// Ends lost runs, and then those who look after them.
async fn end(project: &str, lost: &[Lost], attendants: &[ProcessId]) -> Result<(), BackendError> {
    let all = look()?;
    for process in lost.iter().flat_map(|one| one.tree(&all)) {
        // It may have ended by itself. One that is frozen would not notice.
        drop(process.signal(Signal::TERM));
        drop(process.signal(Signal::CONT));
    }
    if gone(lost, GRACE, false).await? || gone(lost, KILLED, true).await? {
        for one in attendants {
            drop(one.signal(Signal::KILL));
        }
        while attendants.iter().any(|one| one.is_alive()) {
            tokio::time::sleep(PAUSE).await;
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

/// Takes away the groups of the project's runs that nobody is in and no entry names: all that knew of such a run was
/// killed, or its entry was damaged or removed. What stays disturbs nobody.
async fn clear_groups(dir: &ProjectDir) {
    let tag = dir.tag();
    let places = View::once().delegated();
    let groups = places.iter().flat_map(|at| Group::of_project(at, &tag));
    let mut groups: Vec<(String, Group)> = groups.collect();
    if groups.is_empty() {
        return;
    }
    // Read after they were listed: an entry names the group of a start before that is made.
    let Ok(records) = Record::read_all(dir) else {
        return;
    };
    groups.retain(|(id, _)| !records.iter().any(|record| record.id() == id));
    for _ in 0..LEAVING {
        // A process leaves its group a moment after its end.
        groups.retain(|(_, group)| group.is_populated() || group.remove().is_err());
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

/// The processes whose standard error is in a project's directory, which may have been removed or moved since.
fn writers(dirs: &Dirs, dir: &ProjectDir) -> BTreeSet<u32> {
    // The kernel tells the way that it went.
    let Some(root) = dir.instances().parent().map(Path::to_owned) else {
        return BTreeSet::new();
    };
    let mut roots = vec![fs::canonicalize(&root).unwrap_or(root)];
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let files: Vec<(u32, PathBuf)> = pids
        .filter_map(|pid| Some((pid, fs::read_link(format!("/proc/{pid}/fd/2")).ok()?)))
        .collect();
    for (pid, file) in &files {
        if let Some(root) = file.parent()
            && file.file_name() == dir.supervisor_log().file_name()
            && !roots.iter().any(|known| known == root)
            && (supervises(*pid, dirs, dir) || keeps(*pid, dirs, dir))
        {
            roots.push(root.to_owned());
        }
    }
    let is_there = |file: &Path| roots.iter().any(|root| file.starts_with(root));
    let there = files.into_iter().filter(|(_, file)| is_there(file));
    there.map(|(pid, _)| pid).collect()
}

/// Whether a process is the keeper of a run of this project, with this state: its supervisor may have been killed. It
/// has that one's environment.
fn keeps(pid: u32, dirs: &Dirs, dir: &ProjectDir) -> bool {
    let line = proc_file::read(format!("/proc/{pid}/cmdline"));
    if !line.is_ok_and(|line| line.starts_with(TITLE)) {
        return false;
    }
    let mut env = Env::default();
    for name in ["XDG_STATE_HOME", "HOME"] {
        let value = variable(pid, format!("{name}=").as_bytes());
        env.variables
            .extend(value.map(|value| (name.to_owned(), value)));
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    Dirs::from_env(&env).is_ok_and(|its| its.state() == dirs.state())
        && children
            .split_whitespace()
            .filter_map(|child| child.parse().ok())
            .any(|child| variable(child, b"WHARF_PROJECT=").is_some_and(|it| it == dir.name()))
}

/// Whether a process is a supervisor of this project with this state, by the words it was started with.
fn supervises(pid: u32, dirs: &Dirs, dir: &ProjectDir) -> bool {
    let Ok(line) = proc_file::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let has = |option: &str, value: &[u8]| {
        let mut pairs = words.windows(2);
        pairs.any(|pair| pair == [option.as_bytes(), value])
    };
    words.get(1) == Some(&&b"supervise"[..])
        && has("--project", dir.name().as_bytes())
        && has("--state-dir", dirs.state().as_os_str().as_bytes())
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
fn lost(all: &Snapshot, writers: &BTreeSet<u32>, dir: &ProjectDir) -> Vec<Lost> {
    let children = writers.iter().flat_map(|pid| all.children_of(*pid));
    let pids: BTreeSet<u32> = children
        .map(|child| child.pid)
        .chain(writers.iter().copied())
        .collect();
    // Another project's command may write into a file that it found here.
    let is_ours = |pid: &u32| variable(*pid, b"WHARF_PROJECT=").is_some_and(|it| it == dir.name());
    let mut keepers: BTreeMap<String, Option<ProcessId>> = BTreeMap::new();
    for pid in pids.into_iter().filter(is_ours) {
        if let Some(run_id) = read_run_id(pid) {
            let known = keepers.entry(run_id).or_default();
            *known = known.or_else(|| keeper(pid, writers));
        }
    }
    // Where this command would have its own made.
    let place = View::find_once(&BTreeSet::new());
    let tag = dir.tag();
    let group = |run_id: &str| {
        let planned = Group::planned(place.as_ref()?, &tag, run_id);
        planned.path().is_dir().then_some(planned)
    };
    let mut lost: Vec<Lost> = keepers
        .into_iter()
        .map(|(run_id, keeper)| Lost {
            main: all.main_of(&run_id),
            group: group(&run_id),
            run_id,
            keeper,
        })
        .collect();
    lost.sort_by_key(|one| one.main.map(|main| main.start_time));
    lost
}

/// The parent of a process, where that is a keeper and not the supervisor, whose children are of all runs.
fn keeper(pid: u32, writers: &BTreeSet<u32>) -> Option<ProcessId> {
    let parent = Stat::read(pid)?.parent;
    let line = proc_file::read(format!("/proc/{parent}/cmdline")).ok()?;
    let is_keeper = writers.contains(&parent) && line.starts_with(TITLE);
    ProcessId::of(parent).filter(|_| is_keeper)
}
