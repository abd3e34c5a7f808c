//! What is alive of an instance's last run. While anything is, the instance is not over: it is neither started
//! again nor forgotten. Looks; signals nobody.

use std::path::{Path, PathBuf};

use super::cgroup::Group;
use super::dirs::InstanceDir;
use super::ledger::Record;
use super::notes::Notes;
use super::run::{ProcessId, Survivor};
use super::tree::Snapshot;
use crate::backend::BackendError;

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
