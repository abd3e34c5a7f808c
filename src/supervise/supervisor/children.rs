//! Ends of children: keepers, healthchecks, and processes of runs whose keeper was killed.

use rustix::process::WaitOptions;

use super::Supervisor;
use crate::supervise::keeper::code_of;
use crate::supervise::lifecycle::Moment;

impl Supervisor {
    /// Children have ended. A keeper's end shows on its descriptor; here its zombie is taken away.
    pub(super) fn on_children(&mut self, now: Moment) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = u32::try_from(pid.as_raw_nonzero().get()).ok();
            for unit in self.units.values_mut() {
                if unit.check_pid() == pid && pid.is_some() {
                    unit.on_check_ended(status.exit_status() == Some(0), now);
                } else if unit.main_pid() == pid && pid.is_some() {
                    unit.on_main_ended(Some(code_of(status)));
                }
            }
        }
    }
}
