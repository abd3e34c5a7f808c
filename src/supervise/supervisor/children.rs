//! Ends of children: keepers, healthchecks, and processes of runs whose keeper was killed. And the children
//! that are none of these: what healthchecks have left behind.

use std::collections::BTreeSet;
use std::rc::Rc;

use nix::sys::signal::Signal;
use rustix::process::WaitOptions;

use super::Supervisor;
use crate::backend::process::run::{ProcessId, Stat};
use crate::backend::process::tree::Snapshot;
use crate::supervise::keeper::code_of;
use crate::supervise::lifecycle::Moment;
use crate::supervise::unit::Unit;

impl Supervisor {
    /// Signals have come, or children have ended. A keeper's end shows on its descriptor; here its zombie is taken away.
    pub(super) fn on_children(&mut self, now: Moment) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == Signal::SIGTERM as u32 {
                self.on_term(signal.ssi_pid);
            }
        }
        let mut left_by = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = u32::try_from(pid.as_raw_nonzero().get()).ok();
            for (name, unit) in &mut self.units {
                if unit.check_pid() == pid && pid.is_some() {
                    unit.on_check_ended(status.exit_status() == Some(0), now);
                    if !unit.is_grouped() {
                        left_by = Some(Rc::clone(name));
                    }
                } else if unit.keeper_pid() == pid && pid.is_some() {
                    unit.on_account(status.exit_status() == Some(0));
                } else if unit.main_pid() == pid && pid.is_some() {
                    unit.on_main_ended(Some(code_of(status)));
                }
            }
        }
        if let Some(name) = left_by {
            self.take_in_strays(&name);
        }
    }

    /// A process whose healthcheck has gone, and that has left its session and its environment too, is known by
    /// nothing but its parent, who is us by now. It belongs to the run that was checked. Which of two that were
    /// checked at once cannot be told: then it ends with the one whose check ended last.
    fn take_in_strays(&mut self, name: &str) {
        if self.units.values().any(Unit::is_unkept) {
            // The orphans of a run whose keeper was killed are our children too, and not to be mistaken.
            return;
        }
        let ours: BTreeSet<u32> = self.units.values().flat_map(Unit::children).collect();
        // An heir is in the session of the keeper that it is from.
        let keepers: BTreeSet<u32> = self.units.values().filter_map(Unit::last_keeper).collect();
        let is_heir = |pid| Stat::read(pid).is_some_and(|stat| keepers.contains(&stat.session));
        let mut strays = children();
        strays.retain(|id| !ours.contains(&id.pid) && !is_heir(id.pid));
        if let Some(unit) = self.units.get_mut(name) {
            unit.take_in(strays);
        }
    }
}

/// Our living children.
fn children() -> Vec<ProcessId> {
    let me = std::process::id();
    match std::fs::read_to_string(format!("/proc/self/task/{me}/children")) {
        Ok(text) => text
            .split_whitespace()
            .filter_map(|pid| ProcessId::of(pid.parse().ok()?))
            .filter(|id| id.is_alive())
            .collect(),
        // A kernel without that file (`CONFIG_PROC_CHILDREN`).
        Err(_) => Snapshot::take().map_or_else(|_| Vec::new(), |all| all.children_of(me)),
    }
}
