//! Killing what forks and ends faster than all processes can be listed: by the time one of it is found in a list, its
//! child is the one that lives. Whoever has lost its parent is a child of the run's keeper at that moment, and the
//! kernel lists those by themselves, in microseconds.

use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::backend::process::run::{ProcessId, Stat, send};

/// How long the supervisor may be at this at a time: others wait for it.
const BUDGET: Duration = Duration::from_millis(50);

/// Kills the children of the keeper, and those that take their places, until there is no new one.
pub(super) fn chase(keeper: ProcessId) {
    let begun = Instant::now();
    let mut killed: Vec<ProcessId> = Vec::new();
    while begun.elapsed() < BUDGET && keeper.is_alive() {
        let before = killed.len();
        for pid in children(keeper.pid) {
            let Some(number) = Pid::from_raw(pid) else {
                continue;
            };
            let Ok(fd) = pidfd_open(number, PidfdFlags::empty()) else {
                continue;
            };
            // Looked at after it was tied down: it is this one whose parent the keeper is, or it has ended.
            let Some(stat) = Stat::read(pid.unsigned_abs()) else {
                continue;
            };
            if stat.parent == keeper.pid && !stat.dead && !killed.contains(&stat.id) {
                // One that may not be signalled is reported when its time is over.
                drop(send(&fd, Signal::KILL.as_raw()));
                killed.push(stat.id);
            }
        }
        if killed.len() == before {
            return;
        }
    }
}

/// The pids that the kernel lists as children (`proc_pid_children(5)`); none where it does not.
fn children(pid: u32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.unwrap_or_default();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}
