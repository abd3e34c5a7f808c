//! A command in a process group of its own, and its end: the whole group, verified.
//!
//! The leader is reaped last. Until then its number, which is the group's, cannot be given to another
//! process, so no signal of this file can reach a stranger. A dropped group is killed.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

/// Pauses between two looks at a group that is ending.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How long a killed group may take to vanish. Only a process that waits inside the kernel takes longer,
/// and nothing can be done about it.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// A running group.
pub(super) struct Group {
    leader: Child,
    id: Pid,
    ended: bool,
}

/// Members besides a dead leader.
#[derive(Debug, Default, PartialEq, Eq)]
struct Members {
    living: usize,
    /// Dead ones that this process has inherited and must reap.
    ours: Vec<Pid>,
}

impl Group {
    /// Starts `command` as the leader of a new group.
    ///
    /// # Errors
    /// Those of starting a process.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let leader = command.process_group(0).kill_on_drop(true).spawn()?;
        let id = leader
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Self {
            leader,
            id,
            ended: false,
        })
    }

    pub(super) fn outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.leader.stdout.take(), self.leader.stderr.take())
    }

    /// Resolves when the leader has ended; leaves it unreaped.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub(super) async fn leader_ended(&self) -> io::Result<()> {
        // Registered before the look, so that an end between the two is seen.
        let mut children = signal(SignalKind::child())?;
        while !self.has_leader_ended() {
            if children.recv().await.is_none() {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            }
        }
        Ok(())
    }

    fn has_leader_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that it is no child any more.
        !matches!(waitid(WaitId::Pid(self.id), look), Ok(None))
    }

    /// Ends what is left of the group: SIGTERM, `grace`, SIGKILL. Returns the leader's status when
    /// nothing of it lives any more.
    ///
    /// # Errors
    /// When the leader's status cannot be had.
    pub(super) async fn end(mut self, grace: Duration) -> io::Result<ExitStatus> {
        if self.is_alive() {
            self.signal(Signal::TERM);
            if !self.is_gone_within(grace).await {
                self.signal(Signal::KILL);
                self.is_gone_within(AFTER_KILL).await;
            }
        }
        // A member that was being forked while we looked. The kernel holds forks back while it delivers
        // to a group, so none escapes this.
        self.signal(Signal::KILL);
        for dead in self.members().ours {
            // Orphans come to us if we are pid 1 of a container. Failing leaves one dead entry.
            let _ = waitid(
                WaitId::Pid(dead),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
        let status = self.leader.wait().await;
        self.ended = true;
        status
    }

    fn signal(&self, signal: Signal) {
        // ESRCH and EPERM: nobody is left who could be signalled.
        let _ = kill_process_group(self.id, signal);
    }

    fn is_alive(&self) -> bool {
        !self.has_leader_ended() || self.members().living > 0
    }

    async fn is_gone_within(&self, limit: Duration) -> bool {
        let by = Instant::now() + limit;
        let mut pause = FIRST_PAUSE;
        while self.is_alive() {
            let now = Instant::now();
            if now >= by {
                return false;
            }
            sleep(pause.min(by - now)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        true
    }

    /// proc(5): `/proc/PID/stat` of every process that can be seen.
    #[cfg(target_os = "linux")]
    fn members(&self) -> Members {
        let mut members = Members::default();
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return members;
        };
        let us = std::process::id().cast_signed();
        for entry in entries.flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
                .and_then(Pid::from_raw)
                .filter(|pid| *pid != self.id)
            else {
                continue;
            };
            // A process that is gone by now has left the group, too.
            let Ok(stat) = std::fs::read(entry.path().join("stat")) else {
                continue;
            };
            match parse_stat(&stat) {
                Some((state, parent, group)) if group == self.id.as_raw_nonzero().get() => {
                    if !is_dead(state) || runs_a_thread(&entry.path()) {
                        members.living += 1;
                    } else if parent == us {
                        members.ours.push(pid);
                    }
                }
                Some(_) | None => {}
            }
        }
        members
    }

    /// Without a process table to read, the leader stands for the group; the last SIGKILL goes to all.
    #[cfg(not(target_os = "linux"))]
    fn members(&self) -> Members {
        Members::default()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::KILL);
        }
    }
}

#[cfg(target_os = "linux")]
fn is_dead(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

/// Whether any thread of a process goes on; its first one may have ended before the others.
#[cfg(target_os = "linux")]
fn runs_a_thread(process: &std::path::Path) -> bool {
    let tasks = std::fs::read_dir(process.join("task"));
    tasks.into_iter().flatten().flatten().any(|task| {
        let stat = std::fs::read(task.path().join("stat"));
        stat.ok()
            .and_then(|stat| parse_stat(&stat))
            .is_some_and(|(state, _, _)| !is_dead(state))
    })
}

/// State, parent and process group of a `/proc/PID/stat`. The name before them may hold anything, so
/// counting starts after its last parenthesis.
#[cfg(target_os = "linux")]
fn parse_stat(stat: &[u8]) -> Option<(char, i32, i32)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some((state, parent, group))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::process::Stdio;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn shell(script: &str) -> Group {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Group::start(&mut command).unwrap()
    }

    /// What the script printed before it closed its output or printed a blank line.
    async fn read_pids(group: &mut Group) -> Vec<i32> {
        let mut stdout = group.outputs().0.unwrap();
        let mut text = String::new();
        while !text.ends_with("\n\n") {
            let mut buffer = [0; 64];
            let count = stdout.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "the script ended early: {text}");
            text.push_str(str::from_utf8(&buffer[..count]).unwrap());
        }
        text.split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect()
    }

    fn lives(pid: i32) -> bool {
        let stat = std::fs::read(format!("/proc/{pid}/stat"));
        stat.ok()
            .and_then(|stat| parse_stat(&stat))
            .is_some_and(|(state, _, _)| state != 'Z')
    }

    #[tokio::test]
    async fn a_polite_group_ends_by_sigterm() {
        let mut group = shell("sleep 1000 & echo $$ $!; echo; wait");
        let pids = read_pids(&mut group).await;
        assert!(pids.iter().all(|pid| lives(*pid)));
        let status = group.end(Duration::from_mins(1)).await.unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(15)
        );
        assert!(!pids.iter().any(|pid| lives(*pid)), "{pids:?}");
    }

    #[tokio::test]
    async fn every_member_has_its_grace_not_only_the_leader() {
        let here = tempfile::tempdir().unwrap();
        let tidied = here.path().join("tidied");
        let script = format!(
            "sh -c 'trap \"sleep 0.1; : > {}; exit\" TERM; echo $$; echo; \
             while :; do sleep 0.01; done' & exec sleep 1000",
            tidied.display()
        );
        let mut group = shell(&script);
        let pids = read_pids(&mut group).await;
        group.end(Duration::from_mins(1)).await.unwrap();
        assert!(tidied.exists());
        assert!(!lives(pids[0]));
    }

    #[tokio::test]
    async fn a_stubborn_group_is_killed() {
        let mut group = shell(
            "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 1000; done' & echo $$ $!; echo; \
             while :; do sleep 1000; done",
        );
        let pids = read_pids(&mut group).await;
        let status = group.end(Duration::from_millis(50)).await.unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
        assert!(!pids.iter().any(|pid| lives(*pid)), "{pids:?}");
    }

    #[tokio::test]
    async fn what_the_leader_left_behind_ends_with_it() {
        let mut group = shell("sleep 1000 & echo $!; echo; exit 3");
        let pids = read_pids(&mut group).await;
        group.leader_ended().await.unwrap();
        assert!(lives(pids[0]));
        let status = group.end(Duration::from_mins(1)).await.unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(!lives(pids[0]));
    }

    #[tokio::test]
    async fn a_member_whose_first_thread_has_ended_lives_on() {
        let program = "import ctypes, os, threading, time
def go_on():
    print(os.getpid(), end=\"\\n\\n\", flush=True)
    while True: time.sleep(0.02)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).pthread_exit(None)";
        let mut group = shell(&format!("python3 -c '{program}' & wait"));
        let pids = read_pids(&mut group).await;
        while lives(pids[0]) {
            sleep(FIRST_PAUSE).await;
        }
        assert!(group.members().living >= 1);
        assert!(runs_a_thread(format!("/proc/{}", pids[0]).as_ref()));
        group.end(Duration::from_millis(50)).await.unwrap();
        assert!(!runs_a_thread(format!("/proc/{}", pids[0]).as_ref()));
    }

    #[tokio::test]
    async fn a_dropped_group_is_killed() {
        let mut group = shell("sleep 1000 & echo $$ $!; echo; wait");
        let pids = read_pids(&mut group).await;
        drop(group);
        let ended = async {
            while pids.iter().any(|pid| lives(*pid)) {
                sleep(FIRST_PAUSE).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), ended)
            .await
            .unwrap();
    }

    #[test]
    fn a_name_cannot_forge_the_group() {
        assert_eq!(parse_stat(b"7 (a) S 1 99 () S 1 5 5 0"), Some(('S', 1, 5)));
        assert_eq!(parse_stat(b"7 (a"), None);
    }
}
