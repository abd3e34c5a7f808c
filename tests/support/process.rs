//! One process for good: a pid may be used again, a pidfd never names another process.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::LIMIT;

/// A process that was alive when it was opened.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    descriptor: OwnedFd,
}

impl Process {
    /// The process that has this pid now.
    pub(crate) fn open(pid: u32) -> Option<Self> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let descriptor = pidfd_open(number, PidfdFlags::empty()).ok()?;
        Some(Self { pid, descriptor })
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it ended; a zombie has ended.
    pub(crate) fn ended(&self) -> bool {
        self.poll(&Timespec::default())
    }

    /// Waits for its end.
    pub(crate) fn wait_end(&self) {
        let limit = Timespec {
            tv_sec: i64::try_from(LIMIT.as_secs()).unwrap(),
            tv_nsec: 0,
        };
        assert!(
            self.poll(&limit),
            "process {} did not end: {}",
            self.pid,
            self.command_line()
        );
    }

    /// Sends it a signal. One that has ended already gets none.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.descriptor, signal) {
            assert_eq!(
                error,
                rustix::io::Errno::SRCH,
                "signal to process {}",
                self.pid
            );
        }
    }

    /// Its arguments, separated by blanks; empty after its end.
    pub(crate) fn command_line(&self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .replace('\0', " ")
            .trim_end()
            .to_owned()
    }

    /// The processes whose parent it is now.
    pub(crate) fn children(&self) -> Vec<Self> {
        all()
            .filter(|process| process.parent() == Some(self.pid))
            .collect()
    }

    fn parent(&self) -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name before it is in brackets and may hold anything, brackets included
        // (proc_pid_stat(5)).
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    }

    /// Whether its environment has this entry, `NAME=value`, or its working directory lies in
    /// `directory`.
    pub(super) fn belongs_to(&self, entry: &str, directory: &std::path::Path) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|found| found == entry.as_bytes())
            || fs::read_link(format!("/proc/{}/cwd", self.pid))
                .is_ok_and(|cwd| cwd.starts_with(directory))
    }

    fn poll(&self, limit: &Timespec) -> bool {
        let mut descriptors = [PollFd::new(&self.descriptor, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut descriptors, Some(limit))).unwrap() > 0
    }
}

/// Every process of this machine that can be opened.
pub(super) fn all() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Process::open)
}
