//! The control group of an instance's run, where it has one: who is in it belongs to the run, and it ends and
//! freezes them in one step. Signals do the same without it, one process at a time.

use super::Unit;
use crate::backend::process::run::ProcessId;

impl Unit {
    /// The processes that vouch for their children and sessions: those found before, and the group's.
    pub(super) fn vouching(&self) -> Vec<ProcessId> {
        let mut all = self.known.clone();
        if let Some(group) = self.record.group() {
            all.extend(group.members());
        }
        all
    }

    /// Before a sweep: what is frozen could not end when asked, and what is to be killed is killed as a whole.
    pub(super) fn release_group(&self, polite: bool) {
        let Some(group) = self.record.group() else {
            return;
        };
        // Both fail where there is no such group or the kernel is too old; the sweep does it too.
        drop(group.thaw());
        if !polite {
            drop(group.kill());
        }
    }

    /// Whether anything is in it.
    pub(super) fn is_group_populated(&self) -> bool {
        let group = self.record.group();
        group.is_some_and(|group| group.is_populated())
    }

    /// Nothing is in it any more, as a rule: one that stays is removed with the instance's next run.
    pub(super) fn remove_group(&self) {
        if let Some(group) = self.record.group() {
            drop(group.remove());
        }
    }
}
