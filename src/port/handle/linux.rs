//! Linux: `pidfd_open(2)`, since 5.3.

use std::os::fd::AsRawFd as _;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One process, dead or alive.
pub(in crate::port) struct Handle(OwnedFd);

impl Handle {
    /// Whoever has this pid now; who that is has to be asked afterwards.
    pub(in crate::port) fn open(pid: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let handle = Self(pidfd_open(pid, PidfdFlags::empty()).ok()?);
        handle.is_listed_as(pid).then_some(handle)
    }

    /// Whether this system lets anybody be held: it knows the call, and no sandbox forbids it.
    pub(in crate::port) fn is_available() -> bool {
        let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
        !matches!(own, Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS))
    }

    /// Whether `/proc` means the same process by this pid: it may be mounted from another pid namespace.
    fn is_listed_as(&self, pid: Pid) -> bool {
        let path = format!("/proc/self/fdinfo/{}", self.0.as_raw_fd());
        let Ok(text) = std::fs::read_to_string(path) else {
            return false;
        };
        let listed = text.lines().find_map(|line| line.strip_prefix("Pid:"));
        listed.is_none_or(|listed| listed.trim() == pid.as_raw_pid().to_string())
    }

    /// Sends a signal; a process that has ended is no error.
    pub(in crate::port) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match pidfd_send_signal(&self.0, signal) {
            Err(Errno::SRCH) => Ok(()),
            result => result,
        }
    }

    /// Waits until one of `handles` has ended, or for `patience`; tells of each whether it has.
    pub(in crate::port) fn wait(handles: &[&Self], patience: Duration) -> Vec<bool> {
        // A pidfd is readable from the death of its process on, reaped or not.
        let mut descriptors: Vec<PollFd<'_>> = handles
            .iter()
            .map(|handle| PollFd::new(&handle.0, PollFlags::IN))
            .collect();
        let timeout = Timespec::try_from(patience).ok();
        if poll(&mut descriptors, timeout.as_ref()).is_err() {
            return vec![false; handles.len()];
        }
        descriptors
            .iter()
            .map(|descriptor| descriptor.revents().contains(PollFlags::IN))
            .collect()
    }
}
