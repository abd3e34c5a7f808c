//! Start times without a look at `/proc`: the kernel notes when a process is made by a clock that everybody can read
//! (`CLOCK_BOOTTIME`), and tells it in ticks of some milliseconds (`proc_pid_stat(5)`, field 22). What was made between
//! two readings within one tick has that one as its start time. Such a look is a tenth of what a start costs.
//!
//! Believed only once both were seen to be the same here: a start time says for good which process is meant.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::time::{ClockId, clock_gettime};

use super::run::ProcessId;
use crate::port::process::ticks_per_second;

/// A reading of the clock: ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(u64);

/// Whether this process, or the one that it was forked from, has seen that start times are what the clock says.
static AGREES: AtomicBool = AtomicBool::new(false);

impl Tick {
    /// Now.
    pub fn now() -> Option<Self> {
        let now = clock_gettime(ClockId::Boottime);
        let per_second = ticks_per_second();
        // As the kernel has it: whole ticks, rounded down.
        let part = u64::try_from(now.tv_nsec).ok()? / (1_000_000_000 / per_second.max(1));
        Some(Self(u64::try_from(now.tv_sec).ok()? * per_second + part))
    }

    /// A child of ours that was made since this reading, and is not collected yet.
    pub fn of_child(self, pid: u32) -> Option<ProcessId> {
        if AGREES.load(Ordering::Relaxed) && Self::now() == Some(self) {
            let Self(start_time) = self;
            return Some(ProcessId { pid, start_time });
        }
        ProcessId::of(pid)
    }

    /// Learns from a process whose start time was looked up, and which was made between this reading and another one.
    pub fn learn(self, until: Self, process: ProcessId) {
        if self == until {
            AGREES.store(process.start_time == self.0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_clock_says_what_the_kernel_has_noted() {
        let mut agreed = 0;
        for _ in 0..20 {
            let before = Tick::now().unwrap();
            let mut child = Command::new("sleep").arg("60").spawn().unwrap();
            let after = Tick::now().unwrap();
            let looked = ProcessId::of(child.id()).unwrap();
            if before == after {
                assert_eq!(looked.start_time, before.0);
                agreed += 1;
            }
            before.learn(after, looked);
            assert_eq!(before.of_child(child.id()), Some(looked));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_ne!(agreed, 0);
    }
}
