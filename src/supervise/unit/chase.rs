//! Killing what forks and ends faster than all processes can be listed: by the time one of it is found in a list, its
//! child is the one that lives. Whoever has lost its parent is at that moment a child of whoever adopts the orphans of
//! the run, which is its keeper while that lives; and the kernel lists children by themselves, in microseconds.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::backend::process::run::{ProcessId, Stat, send};
use crate::port::process::children;

/// How long the supervisor may be at this at a time: others wait for it.
const BUDGET: Duration = Duration::from_millis(50);

/// For so long no new one may have come: between two of them there is a moment without.
const CALM: Duration = Duration::from_millis(5);

/// Kills the children of these that belong to the run, and those that take their places, until no new one comes.
pub(super) fn chase(parents: &[u32], is_of_run: impl Fn(u32) -> bool) {
    let begun = Instant::now();
    let mut killed: Vec<ProcessId> = Vec::new();
    // Within this time no pid comes round again.
    let mut strangers: BTreeSet<u32> = BTreeSet::new();
    let mut last = begun;
    while begun.elapsed() < BUDGET && last.elapsed() < CALM {
        for parent in parents {
            for pid in children(*parent) {
                let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
                let Some(number) = number.filter(|_| !strangers.contains(&pid)) else {
                    continue;
                };
                let Ok(fd) = pidfd_open(number, PidfdFlags::empty()) else {
                    continue;
                };
                // Looked at after it was tied down: it is this one whose parent that is, or it has ended.
                let Some(stat) = Stat::read(pid).filter(|stat| stat.parent == *parent) else {
                    continue;
                };
                if killed.contains(&stat.id) || stat.dead {
                    continue;
                }
                if !is_of_run(pid) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_of_any_thread_is_found() {
        let child = std::thread::spawn(|| {
            let mut command = std::process::Command::new("sleep");
            command.arg("20").spawn().unwrap()
        });
        // The thread has ended by then, and its children are those of another one; this one is not the first, either.
        let mut child = child.join().unwrap();
        chase(&[std::process::id()], |pid| pid == child.id());
        let status = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
    }
}
