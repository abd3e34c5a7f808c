//! Ends of children: main processes, healthchecks, and orphans that became ours.

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::process::{Pid, WaitOptions};

use super::Supervisor;
use crate::supervise::lifecycle::Moment;
use crate::supervise::unit::Unit;

impl Supervisor {
    /// Children have ended: main processes and healthchecks are looked for by name. Main processes stay
    /// zombies until `Unit::settle` has looked at their tree.
    pub(super) fn on_children(&mut self, now: Moment) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        for unit in self.units.values_mut() {
            if let Some(code) = unit.child_pid().and_then(peek) {
                unit.on_main_ended(Some(code));
            }
            if let Some(code) = unit.check_pid().and_then(take) {
                unit.on_check_ended(code == 0, now);
            }
        }
    }

    /// Orphans of the trees have become our children; their zombies are taken away here. A main process
    /// that ended in the meantime is left for the next turn: its SIGCHLD is pending.
    pub(super) fn bury_orphans(&mut self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            let found = match waitid(Id::All, flags) {
                Ok(status) => status
                    .pid()
                    .and_then(|pid| u32::try_from(pid.as_raw()).ok()),
                // Ended by a real-time signal, for which the library has no word.
                Err(Errno::EINVAL) => None,
                Err(_) => return,
            };
            match found {
                Some(pid) => {
                    let ours = |unit: &Unit| {
                        unit.child_pid() == Some(pid) || unit.check_pid() == Some(pid)
                    };
                    if self.units.values().any(ours) || take(pid).is_none() {
                        return;
                    }
                }
                None => match rustix::process::waitpid(None, WaitOptions::NOHANG) {
                    Ok(Some((pid, status))) => {
                        let pid = u32::try_from(pid.as_raw_nonzero().get()).unwrap_or_default();
                        for unit in self.units.values_mut() {
                            if unit.child_pid() == Some(pid) {
                                unit.on_main_ended(Some(code_of(status)));
                            }
                        }
                    }
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }
}

/// The code of a child that has ended, which stays a zombie.
fn peek(pid: u32) -> Option<i32> {
    let raw = nix::unistd::Pid::from_raw(i32::try_from(pid).ok()?);
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(raw), flags) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
        Err(Errno::EINVAL) => take(pid),
        Ok(_) | Err(_) => None,
    }
}

/// The code of a child that has ended, which is gone for good then.
fn take(pid: u32) -> Option<i32> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let (_, status) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).ok()??;
    Some(code_of(status))
}

/// As the shell counts: 128 + signal for a death by signal.
fn code_of(status: rustix::process::WaitStatus) -> i32 {
    status
        .exit_status()
        .unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or_default())
}
