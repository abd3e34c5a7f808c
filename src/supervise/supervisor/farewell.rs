//! SIGTERM: from whom, and what follows. A service manager that ends a session, a unit or the machine sends it to every
//! process there, services included: what a restart policy started then would only be in its way until it kills all.
//! So everything is stopped as it asks to be, and the supervisor leaves. From anybody else it is one more way to kill
//! the supervisor, at which its services do not end.

use std::rc::Rc;

use super::{Supervisor, say};
use crate::supervise::control::ClientId;
use crate::supervise::daemon::fall;
use crate::supervise::unit::{Surroundings, Unit};

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Nobody has asked for it.
    #[default]
    No,
    /// This process has, a moment ago.
    Told { by: u32 },
    /// Everything was told to end; nothing is started any more.
    Said,
}

impl Supervisor {
    /// SIGTERM has come from the process with this pid.
    pub(super) fn on_term(&mut self, from: u32) {
        if !is_manager(from) {
            fall();
        } else if self.farewell == Farewell::No {
            self.farewell = Farewell::Told { by: from };
        }
    }

    /// Stops everything, once, where a service manager has asked for that.
    pub(super) fn take_leave(&mut self, around: &mut Surroundings) {
        let Farewell::Told { by } = self.farewell else {
            return;
        };
        self.farewell = Farewell::Said;
        let names: Vec<Rc<str>> = self.units.keys().map(Rc::clone).collect();
        say(&format!(
            "pid {by} ({}) ends all that runs here: {} told to stop",
            name_of(by),
            names.len()
        ));
        for queued in std::mem::take(&mut self.queued) {
            self.refer(queued.client);
        }
        for name in names {
            // It can only be stopped once it is known what came of its start.
            self.reported(&name, around);
            let Some(unit) = self.units.get_mut(&name) else {
                continue;
            };
            let settled = Unit::stop(unit, None, around);
            self.conclude(&name, settled, around);
        }
    }

    /// Whoever asks for a start has a supervisor come up where it is itself, which takes over what still ends here.
    pub(super) fn refer(&mut self, client: ClientId) {
        self.disappear();
        self.control.dismiss(client);
    }

    /// Whether nothing is to be started here any more.
    pub(super) fn is_leaving(&self) -> bool {
        self.farewell != Farewell::No
    }
}

/// Whether a process is one that ends others by the group: the first of all, unless that is somebody's shell (in a
/// container), or systemd, of which each user has one.
fn is_manager(pid: u32) -> bool {
    if pid == 1 {
        return !has_terminal(pid);
    }
    name_of(pid) == "systemd"
}

/// `proc_pid_comm(5)`.
fn name_of(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Whether it has a controlling terminal (`proc_pid_stat(5)`, field 7).
fn has_terminal(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' '));
    let number = fields.and_then(|mut fields| fields.nth(4));
    number.is_some_and(|number| number != "0")
}
