//! Killing what forks and ends faster than all processes can be listed: by the time one of it is found in a list, its
//! child is the one that lives. Whoever has lost its parent is at that moment a child of whoever adopts the orphans of
//! the run, which is its keeper while that lives; and the kernel lists children by themselves, in microseconds.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::backend::process::run::{ProcessId, Stat, send};

/// How long the supervisor may be at this at a time: others wait for it.
const BUDGET: Duration = Duration::from_millis(50);

/// For so long no new one may have come: between two of them there is a moment without.
const CALM: Duration = Duration::from_millis(5);

/// Kills the children of these that belong to the run, and those that take their places, until no new one comes.
pub(super) fn chase(parents: &[u32], is_of_run: impl Fn(u32) -> bool) {
    let begun = Instant::now();
    let mut killed: Vec<ProcessId> = Vec::new();
    // Within this time no pid comes round again.
    let mut strangers: BTreeSet<i32> = BTreeSet::new();
    let mut last = begun;
    while begun.elapsed() < BUDGET && last.elapsed() < CALM {
        for parent in parents {
            for pid in children(*parent) {
                let Some(number) = Pid::from_raw(pid).filter(|_| !strangers.contains(&pid)) else {
                    continue;
                };
                let Ok(fd) = pidfd_open(number, PidfdFlags::empty()) else {
                    continue;
                };
                // Looked at after it was tied down: it is this one whose parent that is, or it has ended.
                let number = pid.unsigned_abs();
                let Some(stat) = Stat::read(number).filter(|stat| stat.parent == *parent) else {
                    continue;
                };
                if killed.contains(&stat.id) || stat.dead {
                    continue;
                }
                if !is_of_run(number) {
                    strangers.insert(pid);
                    continue;
                }
                // One that may not be signalled is reported when its time is over.
                drop(send(&fd, Signal::KILL.as_raw()));
                killed.push(stat.id);
                last = Instant::now();
            }
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
