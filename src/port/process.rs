//! What `/proc` says about processes: identity, ancestry, what a person wants to read about them.
//!
//! Reads one process at a time, or the `stat` lines of all where a tree is needed; never signals.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::{SysconfVar, Uid, sysconf};
use rustix::process::{Pid, test_kill_process};

use crate::port::descriptors::on_threads;
use crate::port::holder::{ProcessFacts, Tracer};
use crate::port::proc_file;
use crate::users;

/// The variable that wharf gives to each process instance it starts.
const RUN_ID: &[u8] = b"WHARF_RUN_ID=";

/// No chain of parents is longer than this; a guard against a `/proc` that changes while it is read.
const DEEPEST: usize = 128;

/// The fields of `/proc/PID/stat` (`proc_pid_stat(5)`) that decide identity and ancestry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: u32,
    /// Field 2, at most 15 bytes.
    pub(crate) name: String,
    /// Field 3.
    pub(crate) state: char,
    /// Field 4.
    pub(crate) parent: u32,
    /// Field 5.
    pub(crate) group: u32,
    /// Field 6.
    pub(crate) session: u32,
    /// Field 7; 0 without a controlling terminal.
    pub(crate) terminal: i32,
    /// Field 8: the group in the foreground of that terminal.
    pub(crate) foreground: i32,
    /// Field 20.
    pub(crate) threads: u32,
    /// Field 22: clock ticks since boot.
    pub(crate) start_time: u64,
}

impl Stat {
    /// One process, or `None` if there is none.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        Self::parse(&proc_file::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // The name may hold spaces and parentheses: it ends at the last one.
        let open = line.iter().position(|byte| *byte == b'(')?;
        let close = line.iter().rposition(|byte| *byte == b')')?;
        let name = line.get(open + 1..close)?;
        let pid = std::str::from_utf8(line.get(..open)?).ok()?;
        let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            pid: pid.trim().parse().ok()?,
            // It may hold anything, and is shown on terminals.
            name: String::from_utf8_lossy(name).replace(char::is_control, "?"),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            terminal: fields.get(4)?.parse().ok()?,
            foreground: fields.get(5)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether it still runs code: a zombie only waits to be reaped, unless it is but the first thread that
    /// has ended before the others. Those may be waiting for that, too, each by itself, where somebody traces them.
    pub(crate) fn is_alive(&self) -> bool {
        match self.state {
            'Z' => self.threads > 1 && runs_a_thread(self.pid),
            'X' | 'x' => false,
            _ => true,
        }
    }
}

/// Whether a thread of a process runs code.
pub(crate) fn runs_a_thread(pid: u32) -> bool {
    living_state(pid).is_some()
}

/// The state of the threads of a process that have not ended: uninterruptible sleep where one is in it, since that
/// holds up the end of all.
pub(crate) fn living_state(pid: u32) -> Option<char> {
    let mut found = None;
    for (state, _) in living_threads(pid) {
        found = if state == 'D' {
            Some(state)
        } else {
            found.or(Some(state))
        };
    }
    found
}

/// The directory of a thread of a process that has not ended: it has what the process is made of (memory, words,
/// environment, open files) where the first thread, whose directory is the process's, has let go of it.
pub(crate) fn living_thread(pid: u32) -> Option<PathBuf> {
    living_threads(pid).next().map(|(_, directory)| directory)
}

/// The state and the directory of each thread that has not ended.
fn living_threads(pid: u32) -> impl Iterator<Item = (char, PathBuf)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| {
            let directory = task.path();
            let stat = proc_file::read(directory.join("stat")).ok()?;
            Some((Stat::parse(&stat)?.state, directory))
        })
        .filter(|(state, _)| !matches!(state, 'Z' | 'X' | 'x'))
}

/// All processes of our pid namespace, as far as `/proc` shows them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    processes: BTreeMap<u32, Stat>,
    /// What was asked about them since.
    facts: RefCell<BTreeMap<u32, Option<ProcessFacts>>>,
}

impl Table {
    /// Reads them all; a process that ends meanwhile may be absent.
    pub(crate) fn read() -> Self {
        let pids = pids();
        let next = AtomicUsize::new(0);
        // A file of each process: with hundreds that is milliseconds.
        let parts = on_threads(pids.len(), || {
            let mut part = Vec::new();
            while let Some(pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
                part.extend(Stat::read(*pid));
            }
            part
        });
        let all = parts.into_iter().flatten();
        Self {
            processes: all.map(|stat| (stat.pid, stat)).collect(),
            facts: RefCell::default(),
        }
    }

    /// The facts of one of them, asked for once; `None` if it is gone, or its pid names another one by now.
    pub(crate) fn facts(&self, pid: u32) -> Option<ProcessFacts> {
        let stat = self.get(pid)?;
        let mut known = self.facts.borrow_mut();
        let facts = known.entry(pid).or_insert_with(|| {
            let above = |_: &Stat| {
                let above = self.ancestors(pid).into_iter();
                above.map(|stat| (stat.pid, stat.name.clone())).collect()
            };
            facts_with(pid, above).filter(|facts| facts.start_time == stat.start_time)
        });
        facts.clone()
    }

    pub(crate) fn get(&self, pid: u32) -> Option<&Stat> {
        self.processes.get(&pid)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Stat> {
        self.processes.values()
    }

    pub(crate) fn children(&self, pid: u32) -> impl Iterator<Item = &Stat> {
        self.processes
            .values()
            .filter(move |stat| stat.parent == pid)
    }

    /// A process and all below it.
    pub(crate) fn descendants(&self, pid: u32) -> Vec<u32> {
        let mut found = vec![pid];
        let mut next = 0;
        while let Some(at) = found.get(next).copied() {
            next += 1;
            let below: Vec<u32> = self.children(at).map(|stat| stat.pid).collect();
            // A table is read piece by piece, so it may have a ring where a pid was given again.
            found.extend(
                below
                    .into_iter()
                    .filter(|pid| !found.contains(pid))
                    .collect::<Vec<_>>(),
            );
        }
        found
    }

    /// The parent, its parent, … up to pid 1.
    pub(crate) fn ancestors(&self, pid: u32) -> Vec<&Stat> {
        let mut chain = Vec::new();
        let mut at = pid;
        while let Some(parent) = self
            .get(at)
            .and_then(|stat| self.get(stat.parent))
            .filter(|_| chain.len() < DEEPEST)
        {
            chain.push(parent);
            at = parent.pid;
        }
        chain
    }
}

/// The pids that `/proc` lists, ascending.
pub(crate) fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

/// The facts of one process; `None` if it is gone (or its pid names another process by now).
pub fn process_facts(pid: u32) -> Option<ProcessFacts> {
    facts_with(pid, ancestors)
}

fn facts_with(
    pid: u32,
    ancestors: impl FnOnce(&Stat) -> Vec<(u32, String)>,
) -> Option<ProcessFacts> {
    let stat = Stat::read(pid)?;
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let uid = fs::metadata(&directory).ok()?.uid();
    let status = proc_file::read_text(directory.join("status")).unwrap_or_default();
    let facts = ProcessFacts {
        pid,
        start_time: stat.start_time,
        // The directory belongs to root while the process is not dumpable; its status does not lie.
        uid: real_uid(&status).unwrap_or(uid),
        user: None,
        name: stat.name.clone(),
        command: read_command(&directory),
        exe: fs::read_link(directory.join("exe")).ok(),
        cwd: fs::read_link(directory.join("cwd")).ok(),
        started: 0,
        age_seconds: 0,
        ancestors: ancestors(&stat),
        run_id: run_id(&directory),
        signalable: signalable(pid),
        heads_namespace: heads_namespace(&status),
        tracer: tracer(&status),
    };
    // All of the above was read by number: it describes one process only if that one is still there.
    if Stat::read(pid)?.start_time != facts.start_time {
        return None;
    }
    let (started, age_seconds) = clock(facts.start_time);
    Some(ProcessFacts {
        user: user_name(facts.uid),
        started,
        age_seconds,
        ..facts
    })
}

/// The name of a user, if the system knows one.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    users::user_with_id(Uid::from_raw(uid)).map(|user| user.name)
}

fn read_command(directory: &Path) -> Vec<String> {
    let bytes = proc_file::read(directory.join("cmdline")).unwrap_or_default();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    let mut words: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    // A title that a program gave itself is followed by what was left of its arguments' room.
    let end = words.iter().rposition(|word| !word.is_empty());
    words.truncate(end.map_or(0, |end| end + 1));
    words
}

pub(crate) fn run_id(directory: &Path) -> Option<String> {
    variable(directory, RUN_ID)
}

/// The value of a variable in the environment with which a process was started; `name` ends with `=`.
pub(crate) fn variable(directory: &Path, name: &[u8]) -> Option<String> {
    proc_file::read(directory.join("environ"))
        .ok()?
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(name))
        .map(|value| OsStr::from_bytes(value).to_string_lossy().into_owned())
}

fn real_uid(status: &str) -> Option<u32> {
    field(status, "Uid:")?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Whether a process is number 1 in a pid namespace below ours (`NSpid`, `proc_pid_status(5)`).
fn heads_namespace(status: &str) -> bool {
    let numbers = field(status, "NSpid:");
    let mut numbers = numbers.unwrap_or_default().split_ascii_whitespace();
    numbers.next().is_some() && numbers.last() == Some("1")
}

/// Who traces a process: 0 for nobody, and for somebody who is not to be seen from here.
fn tracer(status: &str) -> Option<Tracer> {
    let pid = field(status, "TracerPid:")?.trim().parse().ok()?;
    let name = Stat::read(pid).filter(|_| pid != 0)?.name;
    Some(Tracer { pid, name })
}

/// Who traces a process, if somebody does.
pub(crate) fn tracer_of(pid: u32) -> Option<Tracer> {
    tracer(&proc_file::read_text(format!("/proc/{pid}/status")).ok()?)
}

/// The children of a process, of all its threads (`proc_tid_children(5)`).
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| proc_file::read_text(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let pids = list.split_ascii_whitespace();
            let pids: Vec<u32> = pids.filter_map(|pid| pid.parse().ok()).collect();
            pids
        })
        .collect()
}

/// Whether a process acts upon a signal at all: not where it ignores it or keeps it waiting (`SigIgn`, `SigBlk`).
pub(crate) fn takes(pid: u32, signal: rustix::process::Signal) -> Option<bool> {
    let status = proc_file::read_text(format!("/proc/{pid}/status")).ok()?;
    let bit = 1_u64 << (signal.as_raw() - 1);
    let mask = |name: &str| u64::from_str_radix(field(&status, name)?.trim(), 16).ok();
    Some((mask("SigIgn:")? | mask("SigBlk:")?) & bit == 0)
}

/// What follows a name in `/proc/PID/status` (`proc_pid_status(5)`).
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

fn ancestors(stat: &Stat) -> Vec<(u32, String)> {
    let mut chain = Vec::new();
    let mut parent = stat.parent;
    while parent != 0 && chain.len() < DEEPEST {
        let Some(stat) = Stat::read(parent) else {
            break;
        };
        parent = stat.parent;
        chain.push((stat.pid, stat.name));
    }
    chain
}

/// Clock ticks since boot, as start times are counted.
pub(crate) fn ticks_now() -> u64 {
    uptime() * ticks_per_second() / 100
}

/// Hundredths of a second since boot.
fn uptime() -> u64 {
    let text = proc_file::read_text("/proc/uptime").unwrap_or_default();
    let (seconds, rest) = text
        .split_whitespace()
        .next()
        .and_then(|uptime| uptime.split_once('.'))
        .unwrap_or_default();
    seconds.parse::<u64>().unwrap_or_default() * 100 + rest.parse::<u64>().unwrap_or_default()
}

/// Asked once: it is a constant of the kernel.
pub(crate) fn ticks_per_second() -> u64 {
    static TICKS: OnceLock<u64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        sysconf(SysconfVar::CLK_TCK)
            .ok()
            .flatten()
            .and_then(|ticks| u64::try_from(ticks).ok())
            .filter(|ticks| *ticks > 0)
            .unwrap_or(100)
    })
}

/// Asks the kernel instead of comparing ids: capabilities and user namespaces count too.
pub(crate) fn signalable(pid: u32) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// The Unix time of a start, and how long ago it is, both in seconds.
///
/// From the clock and the time since boot; the kernel's own time of the boot stands in `/proc/stat`, which
/// takes it longer to write than all else that is asked about a process.
fn clock(start_time: u64) -> (i64, u64) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let uptime = match uptime() {
        0 => start_time * 100 / ticks_per_second(),
        uptime => uptime,
    };
    let age = Duration::from_millis(
        (uptime * 10).saturating_sub(start_time.saturating_mul(1000) / ticks_per_second()),
    );
    let started = now.saturating_sub(age).as_secs();
    (i64::try_from(started).unwrap_or_default(), age.as_secs())
}

/// A shell with these variables beside its own, which waits. While its execve is under way, `/proc` shows neither its
/// words nor its variables, so it has said that it runs.
#[cfg(test)]
pub(super) fn waiting_shell(variables: &[(&str, &str)]) -> std::process::Child {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    let mut child = Command::new("sh")
        .args(["-c", "echo up; read line"])
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell starts");
    let output = child.stdout.take().expect("it is a pipe");
    let mut said = String::new();
    BufReader::new(output)
        .read_line(&mut said)
        .expect("the shell says that it runs");
    child
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = b"4711 (a) b (c) S 1 4711 4710 34816 4711 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat.name, "a) b (c");
        assert_eq!((stat.pid, stat.parent, stat.group), (4711, 1, 4711));
        assert_eq!((stat.session, stat.terminal), (4710, 34816));
        assert_eq!((stat.foreground, stat.threads), (4711, 1));
        assert_eq!(stat.start_time, 987_654);
        assert!(stat.is_alive());
        assert_eq!(Stat::parse(b"4711 (cut"), None);
    }

    #[test]
    fn facts_of_ourselves() {
        let facts = process_facts(std::process::id()).unwrap();
        assert_eq!(facts.exe, std::env::current_exe().ok());
        assert_eq!(facts.uid, rustix::process::getuid().as_raw());
        assert!(facts.signalable);
        assert!(facts.started > 1_500_000_000);
        assert_eq!(
            facts.ancestors.first().map(|(pid, _)| *pid),
            Some(std::os::unix::process::parent_id())
        );
    }

    #[test]
    fn no_facts_without_a_process() {
        assert_eq!(process_facts(u32::MAX), None);
    }

    #[test]
    fn the_run_id_comes_from_the_environment() {
        let mut child = waiting_shell(&[("WHARF_RUN_ID", "run-of-a-test")]);
        let facts = process_facts(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(facts.run_id.as_deref(), Some("run-of-a-test"));
        assert_eq!(facts.command, ["sh", "-c", "echo up; read line"]);
    }
}
