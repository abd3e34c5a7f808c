//! Which runs of a project no entry of its ledger names, and who looks after them. Looks; signals nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Lost, look};
use crate::backend::BackendError;
use crate::backend::process::cgroup::{Group, View};
use crate::backend::process::dirs::{Dirs, ProjectDir};
use crate::backend::process::ledger::Record;
use crate::backend::process::run::{ProcessId, Stat};
use crate::backend::process::tree::{Snapshot, read_run_id};
use crate::port::proc_file;
use crate::project::Env;

/// How the command line of a keeper begins.
const TITLE: &[u8] = b"keeper of ";

/// Where the runs of a project write their errors to, and what it has of them.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) lost: Vec<Lost>,
    /// Processes whose standard error is there.
    pub(super) writers: BTreeSet<u32>,
}

/// The lost runs of a project; `None` where its ledger cannot be read as a whole, and so nothing can be told.
pub(super) fn find(dirs: &Dirs, dir: &ProjectDir) -> Result<Option<Found>, BackendError> {
    let writers = writers(dirs, dir);
    let mut groups = groups(dir);
    groups.retain(|_, group| group.is_populated());
    if writers.is_empty() && groups.is_empty() {
        let lost = Vec::new();
        return Ok(Some(Found { lost, writers }));
    }
    // An entry names a run before there is a process or a group of it. A policy may start one anew meanwhile.
    let Ok(before) = Record::read_all(dir) else {
        return Ok(None);
    };
    let all = look()?;
    let Ok(after) = Record::read_all(dir) else {
        return Ok(None);
    };
    let known: BTreeSet<&str> = before.iter().chain(&after).map(Record::id).collect();
    let mut lost = lost(&all, &writers, (dirs, dir), groups);
    lost.retain(|one| !known.contains(one.run_id.as_str()));
    Ok(Some(Found { lost, writers }))
}

/// The control groups that runs of a project have or had, by run id, wherever a command of this user may make some.
pub(super) fn groups(dir: &ProjectDir) -> BTreeMap<String, Group> {
    let tag = dir.tag();
    let places = View::once().delegated();
    let found = places.iter().flat_map(|at| Group::of_project(at, &tag));
    found.collect()
}

/// Whether the state directory of a process is ours: in a container, the same path may lead to another one. A service
/// has mounts of its own for its hosts file, so the mounts are not compared.
fn shares_our_state(pid: u32, dirs: &Dirs) -> bool {
    let which = |path: &Path| {
        let facts = fs::metadata(path).ok()?;
        Some((facts.dev(), facts.ino()))
    };
    let is_same = |path: &Path, ours: &Path| {
        let its = which(path);
        its.is_some() && its == which(ours)
    };
    let its = PathBuf::from(format!("/proc/{pid}"));
    let state = dirs.state();
    // It may be gone altogether.
    let Some(state) = state.ancestors().find_map(|dir| fs::canonicalize(dir).ok()) else {
        return false;
    };
    let below = state.strip_prefix("/").unwrap_or(&state);
    is_same(&its.join("ns/pid"), Path::new("/proc/self/ns/pid"))
        && is_same(&its.join("root").join(below), &state)
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
    let there = files
        .into_iter()
        .filter(|(pid, file)| is_there(file) && shares_our_state(*pid, dirs));
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
pub(super) fn variable(pid: u32, name: &[u8]) -> Option<String> {
    let environment = proc_file::read(format!("/proc/{pid}/environ")).ok()?;
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(name))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// A supervisor or keeper among them.
pub(super) fn attendant(pid: u32) -> Option<ProcessId> {
    let process = ProcessId::of(pid)?;
    let line = proc_file::read(format!("/proc/{pid}/cmdline")).ok()?;
    let supervises = || line.split(|byte| *byte == 0).nth(1) == Some(b"supervise");
    (line.starts_with(TITLE) || supervises()).then_some(process)
}

/// The runs of these processes and of their children, and those that are in one of these groups, oldest first. What has
/// cleared its environment is known by its group alone.
fn lost(
    all: &Snapshot,
    writers: &BTreeSet<u32>,
    (dirs, dir): (&Dirs, &ProjectDir),
    mut groups: BTreeMap<String, Group>,
) -> Vec<Lost> {
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
    for (run_id, group) in &groups {
        let members = group.members();
        // What it has started may have gone into a container since.
        if members
            .iter()
            .any(|member| shares_our_state(member.pid, dirs))
        {
            let known = keepers.entry(run_id.clone()).or_default();
            let mut of_members = members.iter().map(|member| keeper(member.pid, writers));
            *known = known.or_else(|| of_members.find_map(|found| found));
        }
    }
    let mut lost: Vec<Lost> = keepers
        .into_iter()
        .map(|(run_id, keeper)| Lost {
            main: all.main_of(&run_id),
            group: groups.remove(&run_id),
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
