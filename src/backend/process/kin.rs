//! Who is below the keeper of a run, without a look at all processes of the machine: there may be hundreds, and each
//! costs several system calls. The keeper adopts what has lost its parent (`PR_SET_CHILD_SUBREAPER`, `prctl(2)`), so as
//! long as it lives nobody leaves, with whatever session, environment or control group.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

use super::run::{ProcessId, Stat};
use crate::port::process::children;

/// The living processes below a keeper, by pid, and those of `others` that live, with all below them. `None` where that
/// cannot be known: the keeper has ended, which gives its children to somebody else, or the kernel does not list
/// children (`CONFIG_PROC_CHILDREN`).
///
/// A list of children may miss one while others of it end (`proc_tid_children(5)`): that there is nobody is only certain
/// when the keeper has gone by itself.
pub fn below(keeper: ProcessId, others: &[ProcessId]) -> Option<Vec<ProcessId>> {
    if !lists_children() {
        return None;
    }
    let me = std::process::id();
    let mut found: BTreeMap<u32, ProcessId> = others
        .iter()
        .filter(|id| id.pid != me && id.is_alive())
        .map(|id| (id.pid, *id))
        .collect();
    let mut seen: BTreeSet<u32> = found.keys().copied().chain([me, keeper.pid]).collect();
    let mut parents: Vec<u32> = found.keys().copied().chain([keeper.pid]).collect();
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
    keeper.is_alive().then(|| found.into_values().collect())
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
        let all = eventually(|| below(keeper, &[known]).filter(|all| all.len() == 6));
        let pids: BTreeSet<u32> = all.iter().map(|id| id.pid).collect();
        assert!(pids.contains(&known.pid));
        assert!(!pids.contains(&keeper.pid));
        assert!(!pids.contains(&std::process::id()));
        assert!(all.iter().all(|id| id.is_alive()));
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
        let others = below(me, &[before]).unwrap();
        assert!(!others.contains(&before));
        assert_eq!(below(before, &[]), None);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
