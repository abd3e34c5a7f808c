//! The control group of an instance's run, where it has one: who is in it belongs to the run, and it ends and
//! freezes them in one step. Signals do the same without it, one process at a time.

use std::os::fd::BorrowedFd;

use rustix::fs::inotify::{self, WatchFlags};

use super::Unit;
use crate::backend::process::child::Extras;
use crate::backend::process::run::ProcessId;
use crate::supervise::starting::Starting;

impl Unit {
    /// The processes that vouch for their children and sessions: those found before, and the group's.
    pub(super) fn vouching(&self) -> Vec<ProcessId> {
        let mut all = self.known.clone();
        if let Some(group) = self.record.group() {
            all.extend(group.members());
        }
        all
    }

    /// Whether its run has one.
    pub(in crate::supervise) fn is_grouped(&self) -> bool {
        let group = self.record.group();
        group.is_some_and(|group| group.path().is_dir())
    }

    /// What a healthcheck is put into, so that whatever it leaves behind ends with the run.
    pub(super) fn beside(&self) -> Extras {
        // Without a group, the children of ours that are nobody's are taken in.
        Extras::beside(&self.record)
    }

    /// Whether it runs and its keeper does not: then its orphans are the supervisor's children.
    pub(in crate::supervise) fn is_unkept(&self) -> bool {
        self.main.is_some() && self.keeper.is_none()
    }

    /// The pid of its keeper, while that lives.
    pub(in crate::supervise) fn keeper_pid(&self) -> Option<u32> {
        self.keeper.as_ref().map(|keeper| keeper.id.pid)
    }

    /// Its keeper has ended; whether by itself.
    pub(in crate::supervise) fn on_account(&mut self, is_whole: bool) {
        self.leftover.on_keeper_ended(is_whole);
    }

    /// The pid of the keeper of this run or, between two, of the last one.
    pub(in crate::supervise) fn last_keeper(&self) -> Option<u32> {
        self.record.keeper().map(|keeper| keeper.pid)
    }

    /// The pids of the supervisor's children that it knows of: its keeper, its healthcheck and what that has
    /// left.
    pub(in crate::supervise) fn children(&self) -> impl Iterator<Item = u32> {
        let keeper = self.keeper.as_ref().map(|keeper| keeper.id.pid);
        let starting = self.starting.as_ref().map(Starting::pid);
        let known = self.known.iter().map(|id| id.pid);
        known.chain(keeper).chain(starting).chain(self.check)
    }

    /// Processes that belong to it from now on.
    pub(in crate::supervise) fn take_in(&mut self, strays: Vec<ProcessId>) {
        if !strays.is_empty() {
            self.known.retain(|id| id.is_alive());
            self.known.extend(strays);
        }
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

    /// Makes sure that what its run is limited to shows on `inotify` when it does not suffice. Others learn it at their end.
    pub(super) fn watch_memory(&mut self, inotify: BorrowedFd<'_>) {
        let is_limited = self.record.spec.attributes.resources.memory.is_some();
        if !is_limited || self.memory_watch.is_some() || self.main.is_none() {
            return;
        }
        let Some(group) = self.record.group() else {
            return;
        };
        if let Ok(watch) = inotify::add_watch(inotify, group.memory_events(), WatchFlags::MODIFY) {
            self.memory_watch = Some(watch);
            self.on_memory();
        }
    }

    /// Whether this is the watch on its memory.
    pub(in crate::supervise) fn is_measured_by(&self, watch: i32) -> bool {
        self.memory_watch == Some(watch)
    }

    /// Its control group has something to tell of its memory.
    pub(in crate::supervise) fn on_memory(&mut self) {
        if self.note_starvation() {
            // Not worth failing for: its end is written again.
            drop(self.record.write(&self.dir));
        }
    }

    /// Whether the kernel has killed anything of it since somebody last looked.
    pub(super) fn note_starvation(&mut self) -> bool {
        let starved = self.record.group().and_then(|group| group.starved());
        let (Some(starved), Some(run)) = (starved, &mut self.record.run) else {
            return false;
        };
        let is_new = starved.kills > run.starved.kills;
        if is_new {
            run.starved = starved;
        }
        is_new
    }

    /// Whether anything is in it.
    pub(super) fn is_group_populated(&self) -> bool {
        let group = self.record.group();
        group.is_some_and(|group| group.is_populated())
    }

    /// Nothing is in it any more, as a rule: one that stays is removed with the instance's next run.
    pub(super) fn remove_group(&mut self) {
        if let Some(group) = self.record.group() {
            drop(group.remove());
        }
        // It goes with its directory.
        self.memory_watch = None;
    }
}
