//! Which processes belong to a run: its main process, all descendants, all members of their sessions, the
//! children of its keeper, and every process that carries the run id in its environment. Reads `/proc`;
//! signals nobody.
//!
//! While the keeper lives, orphans become its children. Without it, no single criterion is enough. A descendant that was orphaned has another parent, one that called
//! `setsid(2)` has another session, and one that cleared its environment has no run id; it takes all three
//! at once to leave.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use rustix::io::Errno;

use super::ledger::Record;
use super::run::{ProcessId, RUN_ID, Stat};
use crate::port::proc_file;
use crate::port::process::tracer_of;

/// The kernel's thread parent; its children have no environment.
const KTHREADD: u32 = 2;

/// A process that has ended between the listing and the look at it may have left a child that the
/// listing does not show: then the list is gone through again, this often at most. What has ended before looks the
/// same, and is known the next time.
const PASSES: usize = 5;

/// So many lists in succession that have missed somebody and do not show a run are believed: on a busy machine
/// somebody comes and goes all the time.
pub(crate) const UNSURE: u32 = 10;

/// All processes at one moment. Environments are read when asked for, once.
#[derive(Debug)]
pub struct Snapshot {
    processes: BTreeMap<u32, Stat>,
    run_ids: RefCell<BTreeMap<u32, Option<String>>>,
    /// Whether everybody that was listed at last was there to be looked at.
    is_whole: Cell<bool>,
}

impl Snapshot {
    /// Looks at every process of our pid namespace.
    pub fn take() -> io::Result<Self> {
        let mut processes = BTreeMap::new();
        let mut run_ids = BTreeMap::new();
        let mut is_whole = false;
        for pass in 0..PASSES {
            let mut vanished = false;
            for entry in fs::read_dir("/proc")? {
                let name = entry?.file_name();
                let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                if processes.contains_key(&pid) {
                    continue;
                }
                let Some(stat) = Stat::read(pid) else {
                    vanished = true;
                    continue;
                };
                vanished |= stat.dead;
                if pass > 0 && !stat.dead {
                    // It has come since the first list, and may have gone before anybody asks.
                    match try_run_id(pid) {
                        Ok(id) => drop(run_ids.insert(pid, id)),
                        Err(_) => vanished = true,
                    }
                }
                processes.insert(pid, stat);
            }
            is_whole = !vanished;
            if is_whole {
                break;
            }
        }
        Ok(Self {
            processes,
            run_ids: RefCell::new(run_ids),
            is_whole: Cell::new(is_whole),
        })
    }

    /// Whether nobody was missed: everybody that was listed at last, and looked at for [`Snapshot::tree`], was there.
    pub fn is_whole(&self) -> bool {
        self.is_whole.get()
    }

    /// Who the parents of these are, where that is none of them: who adopts what they leave.
    pub fn adopters(&self, tree: &[ProcessId]) -> Vec<u32> {
        let parents = tree.iter().filter_map(|id| self.processes.get(&id.pid));
        let mut found: Vec<u32> = parents
            .map(|stat| stat.parent)
            .filter(|parent| *parent > 0 && tree.iter().all(|id| id.pid != *parent))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The living processes of a run, by pid. `keeper` is the parent of the main process and of the run's
    /// orphans, and none of them itself. `known` are processes that were found to belong to it before; they
    /// vouch for their sessions and children after the main process has gone.
    pub fn tree(
        &self,
        run_id: &str,
        main: Option<ProcessId>,
        keeper: Option<ProcessId>,
        known: &[ProcessId],
    ) -> Vec<ProcessId> {
        let not_before = main.map_or(0, |main| main.start_time);
        let keeper = keeper
            .filter(|id| {
                let found = self.processes.get(&id.pid);
                found.is_some_and(|stat| stat.id == *id)
            })
            .map(|id| id.pid);
        let me = std::process::id();
        let mut members: BTreeSet<u32> = main
            .iter()
            .chain(known)
            .filter(|id| {
                self.processes
                    .get(&id.pid)
                    .is_some_and(|stat| stat.id == **id)
            })
            .map(|id| id.pid)
            .collect();
        members.extend(
            self.processes
                .values()
                .filter(|stat| stat.id.start_time >= not_before && !stat.dead)
                .filter(|stat| stat.parent != KTHREADD && stat.id.pid != me)
                .filter(|stat| !members.contains(&stat.id.pid))
                .filter(|stat| self.has_run_id(stat.id.pid, run_id))
                .map(|stat| stat.id.pid)
                .collect::<Vec<_>>(),
        );
        // A session whose leader is a member was made by the run, and no process can enter a session from
        // outside. So was one without a leader that a member is in. A leader who is no member means that
        // somebody gave the run id to a process of theirs: their session is not ours.
        loop {
            let sessions: BTreeSet<u32> = members
                .iter()
                .filter_map(|pid| self.processes.get(pid))
                .map(|stat| stat.session)
                .filter(|session| *session != 0)
                .filter(|leader| members.contains(leader) || !self.processes.contains_key(leader))
                .collect();
            let more: Vec<u32> = self
                .processes
                .values()
                .filter(|stat| {
                    members.contains(&stat.parent)
                        || keeper == Some(stat.parent)
                        || sessions.contains(&stat.session)
                })
                .map(|stat| stat.id.pid)
                .filter(|pid| *pid != me && keeper != Some(*pid) && !members.contains(pid))
                .collect();
            if more.is_empty() {
                break;
            }
            members.extend(more);
        }
        members
            .iter()
            .filter_map(|pid| self.processes.get(pid))
            .filter(|stat| !stat.dead && stat.id.pid > 1)
            .map(|stat| stat.id)
            .collect()
    }

    /// The living processes of an instance's current run, else what is left of its last one.
    pub fn of(&self, record: &Record) -> Vec<ProcessId> {
        let in_group = record.group().map(|group| group.members());
        self.tree(
            record.id(),
            record.process(),
            record.keeper(),
            &in_group.unwrap_or_default(),
        )
    }

    /// The living children of a process.
    pub fn children_of(&self, pid: u32) -> Vec<ProcessId> {
        let all = self.processes.values();
        all.filter(|stat| stat.parent == pid && !stat.dead)
            .map(|stat| stat.id)
            .collect()
    }

    /// The children of a process that have ended, and whose end nobody can collect before who traces them has seen it.
    pub fn held_of(&self, parent: u32) -> Vec<ProcessId> {
        let all = self.processes.values();
        all.filter(|stat| stat.parent == parent && stat.dead)
            .filter(|stat| tracer_of(stat.id.pid).is_some())
            .map(|stat| stat.id)
            .collect()
    }

    /// The main process of a run that was started and not recorded: the oldest process that carries the run
    /// id and leads a session.
    pub fn main_of(&self, run_id: &str) -> Option<ProcessId> {
        self.processes
            .values()
            .filter(|stat| stat.session == stat.id.pid && !stat.dead)
            .filter(|stat| self.has_run_id(stat.id.pid, run_id))
            .map(|stat| stat.id)
            .min_by_key(|id| id.start_time)
    }

    /// Whether any session leader is between two programs: it has let go of the memory of the last one and has
    /// no environment yet (`execve(2)`). One that was started without any looks the same.
    pub fn is_any_in_exec(&self) -> bool {
        self.processes
            .values()
            .filter(|stat| stat.session == stat.id.pid && !stat.dead)
            .filter(|stat| stat.parent != KTHREADD && stat.id.pid != KTHREADD)
            .any(|stat| {
                let environment = fs::read(format!("/proc/{}/environ", stat.id.pid));
                environment.is_ok_and(|text| text.is_empty())
            })
    }

    fn has_run_id(&self, pid: u32, run_id: &str) -> bool {
        self.run_ids
            .borrow_mut()
            .entry(pid)
            .or_insert_with(|| {
                try_run_id(pid).unwrap_or_else(|_| {
                    self.is_whole.set(false);
                    None
                })
            })
            .as_deref()
            == Some(run_id)
    }
}

/// The run id in the environment that a process was started with; `None` as well where it is not ours to
/// read.
pub(crate) fn read_run_id(pid: u32) -> Option<String> {
    try_run_id(pid).ok().flatten()
}

/// The same; an error where the process has gone.
fn try_run_id(pid: u32) -> io::Result<Option<String>> {
    let read = proc_file::read(format!("/proc/{pid}/environ"));
    // Its first thread may have ended, and have let go of the memory that the others still have: then there is nothing
    // to read, or, since Linux 6.18 at the latest, nobody to be found.
    let has_gone = |error: &io::Error| error.raw_os_error() == Some(Errno::SRCH.raw_os_error());
    let is_untold = read.as_ref().map_or_else(has_gone, Vec::is_empty);
    let others = if is_untold {
        environment_of_others(pid)
    } else {
        Vec::new()
    };
    let text = match read {
        _ if !others.is_empty() => others,
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound || has_gone(&error) => {
            return Err(error);
        }
        Err(_) => return Ok(None),
    };
    Ok(text.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(RUN_ID.as_bytes())?.strip_prefix(b"=")?;
        Some(std::str::from_utf8(value).ok()?.to_owned())
    }))
}

/// The environment as a further thread of a process has it; empty where there is none.
fn environment_of_others(pid: u32) -> Vec<u8> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter(|task| task.file_name() != *pid.to_string())
        .filter_map(|task| proc_file::read(task.path().join("environ")).ok())
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: u32, parent: u32, session: u32) -> Stat {
        Stat {
            id: ProcessId {
                pid,
                start_time: u64::from(pid),
            },
            parent,
            session,
            dead: false,
        }
    }

    fn snapshot(stats: &[Stat], run_ids: &[(u32, &str)]) -> Snapshot {
        let mut known: BTreeMap<u32, Option<String>> =
            stats.iter().map(|stat| (stat.id.pid, None)).collect();
        known.extend(
            run_ids
                .iter()
                .map(|(pid, id)| (*pid, Some((*id).to_owned()))),
        );
        Snapshot {
            processes: stats.iter().map(|stat| (stat.id.pid, *stat)).collect(),
            run_ids: RefCell::new(known),
            is_whole: Cell::new(true),
        }
    }

    fn id(pid: u32) -> ProcessId {
        ProcessId {
            pid,
            start_time: u64::from(pid),
        }
    }

    fn pids(tree: &[ProcessId]) -> Vec<u32> {
        tree.iter().map(|id| id.pid).collect()
    }

    const MAIN: u32 = 1_000_000;

    #[test]
    fn children_session_members_and_escapees_are_found() {
        let all = snapshot(
            &[
                stat(MAIN, 5, MAIN),
                stat(MAIN + 1, MAIN, MAIN),
                // Orphaned, still in the session.
                stat(MAIN + 2, 5, MAIN),
                // Left the session, and its parent is gone: only the run id tells.
                stat(MAIN + 3, 5, MAIN + 3),
                // Its child cleared the environment.
                stat(MAIN + 4, MAIN + 3, MAIN + 4),
                // A stranger.
                stat(MAIN + 5, 5, MAIN + 5),
            ],
            &[(MAIN, "r"), (MAIN + 3, "r"), (MAIN + 5, "other")],
        );
        assert_eq!(
            pids(&all.tree("r", Some(id(MAIN)), None, &[])),
            [MAIN, MAIN + 1, MAIN + 2, MAIN + 3, MAIN + 4]
        );
    }

    #[test]
    fn the_keepers_children_belong_to_the_run_and_the_keeper_does_not() {
        let all = snapshot(
            &[
                stat(MAIN - 1, 5, MAIN - 1),
                // An orphan that left the session and cleared its environment.
                stat(MAIN + 2, MAIN - 1, MAIN + 2),
                stat(MAIN + 3, MAIN + 2, MAIN + 2),
                stat(MAIN + 4, 5, MAIN + 4),
            ],
            &[],
        );
        let keeper = Some(id(MAIN - 1));
        let tree = all.tree("r", Some(id(MAIN)), keeper, &[]);
        assert_eq!(pids(&tree), [MAIN + 2, MAIN + 3]);
        assert_eq!(pids(&all.children_of(MAIN - 1)), [MAIN + 2]);
        let reused = Some(ProcessId {
            start_time: 1,
            ..id(MAIN - 1)
        });
        assert!(all.tree("r", Some(id(MAIN)), reused, &[]).is_empty());
    }

    #[test]
    fn a_reused_pid_brings_nobody_in() {
        let all = snapshot(&[stat(MAIN, 5, MAIN), stat(MAIN + 1, MAIN, MAIN)], &[]);
        let before = ProcessId {
            pid: MAIN,
            start_time: 1,
        };
        assert!(all.tree("r", Some(before), None, &[]).is_empty());
    }

    #[test]
    fn a_zombie_main_process_still_vouches_for_its_session() {
        let mut main = stat(MAIN, 5, MAIN);
        main.dead = true;
        let all = snapshot(&[main, stat(MAIN + 1, 5, MAIN)], &[]);
        assert_eq!(pids(&all.tree("r", Some(id(MAIN)), None, &[])), [MAIN + 1]);
    }

    #[test]
    fn a_known_member_vouches_after_the_main_process_has_gone() {
        let all = snapshot(
            &[stat(MAIN + 1, 5, MAIN), stat(MAIN + 2, MAIN + 1, MAIN)],
            &[],
        );
        assert!(all.tree("r", Some(id(MAIN)), None, &[]).is_empty());
        assert_eq!(
            pids(&all.tree("r", Some(id(MAIN)), None, &[id(MAIN + 1)])),
            [MAIN + 1, MAIN + 2]
        );
    }

    #[test]
    fn what_started_before_the_run_is_not_asked_for_its_environment() {
        let all = snapshot(&[stat(7, 5, 7), stat(MAIN, 5, MAIN)], &[(7, "r")]);
        assert_eq!(pids(&all.tree("r", Some(id(MAIN)), None, &[])), [MAIN]);
    }

    #[test]
    fn the_oldest_session_leader_with_the_run_id_is_the_main_process() {
        let all = snapshot(
            &[
                stat(MAIN, 5, MAIN),
                stat(MAIN + 1, MAIN, MAIN),
                stat(MAIN + 2, 5, MAIN + 2),
            ],
            &[(MAIN, "r"), (MAIN + 1, "r"), (MAIN + 2, "r")],
        );
        assert_eq!(all.main_of("r"), Some(id(MAIN)));
        assert_eq!(all.main_of("other"), None);
    }

    #[test]
    fn a_session_that_somebody_else_leads_is_not_ours() {
        let all = snapshot(
            &[
                stat(MAIN, 5, MAIN),
                stat(MAIN + 1, MAIN, MAIN),
                stat(MAIN + 2, MAIN, MAIN),
            ],
            &[(MAIN + 2, "r")],
        );
        assert_eq!(pids(&all.tree("r", None, None, &[])), [MAIN + 2]);
    }

    #[test]
    fn a_real_child_is_found_by_its_environment() {
        let launch = crate::backend::process::child::Launch {
            command: &["sleep".to_owned(), "60".to_owned()],
            program: None,
            working_dir: std::path::Path::new("/"),
            environment: &[("PATH", "/usr/bin:/bin")].into(),
            run_id: "tree-test-run",
            user: None,
            descriptors: None,
            hosts: None,
        };
        let mut child = launch
            .spawn(std::process::Stdio::null(), std::process::Stdio::null())
            .unwrap();
        // exec has succeeded by now; the kernel fills the environment in a moment later.
        let found = loop {
            let found = Snapshot::take()
                .unwrap()
                .tree("tree-test-run", None, None, &[]);
            if !found.is_empty() || child.try_wait().unwrap().is_some() {
                break found;
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(pids(&found), [child.id()]);
    }
}
