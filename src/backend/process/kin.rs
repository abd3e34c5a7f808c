//! Who is below the keeper of a run, without a look at all processes of the machine: there may be hundreds, and each
//! costs several system calls. The keeper adopts what has lost its parent (`PR_SET_CHILD_SUBREAPER`, `prctl(2)`), so as
//! long as it lives nobody leaves, with whatever session, environment or control group.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

use super::run::{ProcessId, Stat};
use crate::port::process::children;

/// So many ancestors of a process are looked at.
const HIGHEST: usize = 4096;

/// Who belongs to a run, by pid.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kin {
    /// Those below its keeper: what the service itself has started.
    pub own: Vec<ProcessId>,
    /// Others that were put into its group or are known to belong to it (`exec`, hooks), and all below them.
    pub others: Vec<ProcessId>,
}

impl Kin {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &ProcessId> {
        self.own.iter().chain(&self.others)
    }
}

/// The living processes below a keeper, and those of `others` that live, with all below them. `None` where that cannot
/// be known: the keeper has ended, which gives its children to somebody else, or the kernel does not list children
/// (`CONFIG_PROC_CHILDREN`).
///
/// A list of children may miss one while others of it end (`proc_tid_children(5)`): that there is nobody is only certain
/// when the keeper has gone by itself.
pub fn below(keeper: ProcessId, others: &[ProcessId]) -> Option<Kin> {
    if !lists_children() {
        return None;
    }
    let mut seen = BTreeSet::from([std::process::id(), keeper.pid]);
    let mut found = BTreeMap::new();
    descend(vec![keeper.pid], keeper, &mut seen, &mut found);
    let mut own: Vec<ProcessId> = std::mem::take(&mut found).into_values().collect();
    for id in others {
        if !seen.insert(id.pid) || !id.is_alive() {
            continue;
        }
        if is_apart(id.pid, keeper) {
            found.insert(id.pid, *id);
        } else {
            own.push(*id);
        }
    }
    let parents = found.keys().copied().collect();
    descend(parents, keeper, &mut seen, &mut found);
    own.sort_unstable();
    let others = found.into_values().collect();
    keeper.is_alive().then_some(Kin { own, others })
}

/// Whether a process is certainly not below the keeper: it has other ancestors, all of which are there.
fn is_apart(pid: u32, keeper: ProcessId) -> bool {
    let mut at = pid;
    // Numbers may be given again while the chain is read: it has to end.
    for _ in 0..HIGHEST {
        let Some(stat) = Stat::read(at) else {
            return false;
        };
        match stat.parent {
            0 | 1 => return true,
            parent if parent == keeper.pid => return false,
            parent => at = parent,
        }
    }
    false
}

/// Adds all below these that live.
fn descend(
    mut parents: Vec<u32>,
    keeper: ProcessId,
    seen: &mut BTreeSet<u32>,
    found: &mut BTreeMap<u32, ProcessId>,
) {
    while let Some(parent) = parents.pop() {
        for pid in children(parent) {
            if !seen.insert(pid) {
                continue;
            }
            // Looked at after it was listed: it has that parent or, where that has ended since, the keeper. Else the
            // number is another one's by now.
            let is_ours = |stat: &Stat| stat.parent == parent || stat.parent == keeper.pid;
            let Some(stat) = Stat::read(pid).filter(is_ours) else {
                continue;
            };
            parents.push(pid);
            if !stat.dead {
                found.insert(pid, stat.id);
            }
        }
    }
}

fn lists_children() -> bool {
    static LISTS: OnceLock<bool> = OnceLock::new();
    *LISTS.get_or_init(|| Path::new("/proc/thread-self/children").exists())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped());
        command.spawn().unwrap()
    }

    fn eventually<T>(what: impl Fn() -> Option<T>) -> T {
        for _ in 0..1000 {
            if let Some(found) = what() {
                return found;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("it did not come to that");
    }

    #[test]
    fn all_below_are_found_and_those_that_vouch() {
        // Each ends when its input does.
        let mut top = shell("cat | setsid cat | cat");
        let mut other = shell("cat | cat");
        let keeper = ProcessId::of(top.id()).unwrap();
        let known = ProcessId::of(other.id()).unwrap();
        let is_whole = |kin: &Kin| (kin.own.len(), kin.others.len()) == (3, 3);
        let kin = eventually(|| below(keeper, &[known]).filter(is_whole));
        let pids: BTreeSet<u32> = kin.all().map(|id| id.pid).collect();
        assert_eq!(pids.len(), 6);
        assert!(kin.others.contains(&known));
        assert!(!pids.contains(&keeper.pid));
        assert!(!pids.contains(&std::process::id()));
        assert!(kin.all().all(|id| id.is_alive()));
        drop((top.stdin.take(), other.stdin.take()));
        top.wait().unwrap();
        other.wait().unwrap();
        assert_eq!(below(keeper, &[known]), None);
    }

    #[test]
    fn a_number_that_was_given_again_brings_nobody_in() {
        let mut child = shell("read x");
        let id = ProcessId::of(child.id()).unwrap();
        let before = ProcessId {
            start_time: id.start_time + 1,
            ..id
        };
        let me = ProcessId::of(std::process::id()).unwrap();
        let kin = below(me, &[before]).unwrap();
        assert_eq!(kin.others, []);
        assert_eq!(below(before, &[]), None);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
