//! What is alive of an instance's last run. While anything is, the instance is not over: it is neither started
//! again nor forgotten. Looks; signals nobody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cgroup::Group;
use super::dirs::InstanceDir;
use super::ledger::Record;
use super::notes::Notes;
use super::run::{ProcessId, Survivor};
use super::tree::Snapshot;
use crate::backend::BackendError;

/// Of a process in uninterruptible sleep.
const WAITS: &str =
    "it waits for a device or a file system and ends once that answers; then: wharf down";

/// See the module.
#[derive(Debug, Default)]
pub struct Remains {
    /// The processes that can be seen.
    pub left: Vec<ProcessId>,
    /// The control group, where something is in it that cannot be seen from here.
    pub group: Option<PathBuf>,
}

impl Remains {
    /// Of the run that the ledger knows, at the moment of `all`.
    pub fn of(record: &Record, all: &Snapshot) -> Self {
        let Some(run) = &record.run else {
            return Self::default();
        };
        if !run.is_of_here() {
            return Self::default();
        }
        let left = all.of(record);
        let group = record.group().filter(|_| left.is_empty());
        Self {
            left,
            group: group
                .filter(Group::is_populated)
                .map(|group| group.path().to_owned()),
        }
    }

    /// Of the run whose keeper has the lock; the ledger may know nothing of that run.
    pub fn kept(dir: &InstanceDir, record: &Record) -> Self {
        let Ok(all) = Snapshot::take() else {
            return Self::default();
        };
        let mut found = Self::of(record, &all);
        if found.is_empty()
            && let Some((run_id, notes)) = Notes::last(&dir.notes())
        {
            found.left = all.tree(&run_id, notes.main, notes.keeper, &[]);
            if found.left.is_empty() {
                // Nothing but itself: it is about to go, or cannot, as where somebody traces a child of it.
                let keeper = notes.keeper.filter(|id| id.is_alive());
                let held = keeper.map(|keeper| all.held_of(keeper.pid));
                let held = held.filter(|held| !held.is_empty());
                found.left = held.unwrap_or_else(|| keeper.into_iter().collect());
            }
        }
        found
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty() && self.group.is_none()
    }

    /// The processes as an error shows them.
    pub fn survivors(&self) -> Vec<Survivor> {
        self.left.iter().map(|id| Survivor::of(id.pid)).collect()
    }

    /// As the reason why the instance can be neither started nor forgotten.
    pub fn into_error(self, name: &str) -> BackendError {
        BackendError::Remains {
            name: name.to_owned(),
            left: self.survivors(),
            group: self.group,
        }
    }
}

/// What could not be ended, and why, in words.
pub fn unended(left: &[Survivor], group: Option<&Path>) -> String {
    let (refused, there): (Vec<Survivor>, Vec<Survivor>) =
        left.iter().cloned().partition(|one| one.refused.is_some());
    let mut said = Vec::new();
    if !there.is_empty() || refused.is_empty() {
        said.push(format!(
            "still there after SIGKILL: {}",
            list(&there, group)
        ));
    }
    if !refused.is_empty() {
        said.push(format!("may not be signalled: {}", list(&refused, None)));
    }
    said.join("; ")
}

/// What is left, in words.
pub fn list(left: &[Survivor], group: Option<&Path>) -> String {
    if !left.is_empty() {
        let each: Vec<String> = left.iter().map(ToString::to_string).collect();
        return each.join(", ");
    }
    match group {
        Some(group) => format!("what is in {} cannot be seen from here", group.display()),
        None => "a process that cannot be seen from here".to_owned(),
    }
}

/// What to do about processes that could not be ended.
pub fn after_kill(left: &[Survivor]) -> Vec<String> {
    let mut hints = Vec::new();
    if left.iter().any(|process| process.state == "D") {
        hints.push(WAITS.to_owned());
    }
    hints.extend(let_go(left));
    hints.extend(end_by_root(left));
    if left.iter().any(|process| process.refused.is_none()) {
        hints.push(look_at(left));
    }
    hints
}

/// What to do about processes of an instance's last run that are in the way of the next one.
pub fn before_start(left: &[Survivor], group: Option<&Path>) -> Vec<String> {
    if left.is_empty() {
        return group
            .map(|group| format!("echo 1 > {}/cgroup.kill", group.display()))
            .into_iter()
            .collect();
    }
    let traced = let_go(left);
    if !traced.is_empty() {
        return traced;
    }
    if left.iter().any(|process| process.state == "D") {
        return vec![WAITS.to_owned(), look_at(left)];
    }
    // To kill what records a run would lose how it ended.
    if left.iter().all(|process| process.name == "keeper") {
        return vec![look_at(left)];
    }
    let ours = left.iter().filter(|process| process.refused.is_none());
    let pids: Vec<String> = ours.map(|left| left.pid.to_string()).collect();
    let ours =
        (!pids.is_empty()).then(|| format!("to end what is left: kill -KILL {}", pids.join(" ")));
    ours.into_iter().chain(end_by_root(left)).collect()
}

/// Ends those that have become another user's (`sudo`, a set-user-ID program): no signal of ours reaches them.
fn end_by_root(left: &[Survivor]) -> Option<String> {
    let refused = left.iter().filter(|process| process.refused.is_some());
    let pids: Vec<String> = refused.map(|left| left.pid.to_string()).collect();
    (!pids.is_empty()).then(|| format!("sudo kill -KILL {}", pids.join(" ")))
}

/// Ends those who trace what has ended or is stopped: then it goes by itself.
fn let_go(left: &[Survivor]) -> Vec<String> {
    let tracers: BTreeMap<u32, &str> = left
        .iter()
        .filter_map(|process| process.tracer.as_ref())
        .map(|tracer| (tracer.pid, tracer.name.as_str()))
        .collect();
    // It may be stopped itself.
    let hint = |(pid, name)| {
        format!(
            "kill {pid}; kill -CONT {pid}   # ends {name}, or detach it there; the rest goes by itself then"
        )
    };
    tracers.into_iter().map(hint).collect()
}

fn look_at(left: &[Survivor]) -> String {
    let pids: Vec<String> = left.iter().map(|left| left.pid.to_string()).collect();
    format!("ps -o pid,stat,wchan,args -p {}", pids.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_never_empty() {
        assert_eq!(
            list(&[], Some(Path::new("/g/wharf-1"))),
            "what is in /g/wharf-1 cannot be seen from here"
        );
        assert!(!list(&[], None).is_empty());
        let left = [Survivor {
            pid: 42,
            name: "sh".into(),
            state: "S".into(),
            tracer: None,
            refused: None,
        }];
        assert_eq!(list(&left, None), "pid 42 (sh) in state S");
    }

    #[test]
    fn what_refuses_a_signal_has_not_survived_it() {
        let of = |pid, refused: Option<&str>| Survivor {
            pid,
            name: "sh".into(),
            state: "S".into(),
            tracer: None,
            refused: refused.map(str::to_owned),
        };
        let (own, other) = (of(7, None), of(8, Some("root")));
        assert_eq!(
            unended(std::slice::from_ref(&other), None),
            "may not be signalled: pid 8 (sh), which is of user root by now"
        );
        assert_eq!(
            unended(&[own, other], None),
            "still there after SIGKILL: pid 7 (sh) in state S; \
             may not be signalled: pid 8 (sh), which is of user root by now"
        );
    }
}
