//! One run of an instance and how to recognise its process: pid, start time and boot id together name a
//! process for good; the pid alone does not. Reads `/proc`; changes nothing.

use std::fmt;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::port::holder::Tracer;
use crate::port::process;

/// The variable that carries the run id in every process of a run.
pub const RUN_ID: &str = "WHARF_RUN_ID";

/// Real-time signals as the kernel counts them, without those that a C library keeps for itself (signal(7)).
pub const REAL_TIME: RangeInclusive<i32> = 34..=64;

/// Whether a program can be sent the signal with this number.
pub fn is_signal(number: i32) -> bool {
    Signal::from_named_raw(number).is_some() || REAL_TIME.contains(&number)
}

/// Sends a signal by its number to the process that a descriptor stands for.
///
/// # Errors
/// What the system said.
#[expect(unsafe_code, reason = "the safe interface takes no real-time signals")]
pub fn send(process: &OwnedFd, number: i32) -> io::Result<()> {
    let nothing = std::ptr::null::<nix::libc::siginfo_t>();
    let call = nix::libc::SYS_pidfd_send_signal;
    // SAFETY: takes two numbers and a null pointer, which means: as kill(2) would.
    let sent = unsafe { nix::libc::syscall(call, process.as_raw_fd(), number, nothing, 0) };
    nix::errno::Errno::result(sent)?;
    Ok(())
}

/// That a process can be held by a descriptor and signalled by it, which all that ends a service does.
///
/// # Errors
/// The system does not know such descriptors (before Linux 5.3, and some sandboxes), or a sandbox permits none.
pub fn check_descriptors() -> io::Result<()> {
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    send(&own, 0)
}

/// A process, never mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid in our pid namespace.
    pub pid: u32,
    /// Clock ticks since boot (`proc_pid_stat(5)`, field 22).
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has this pid now.
    pub fn of(pid: u32) -> Option<Self> {
        Stat::read(pid).map(|stat| stat.id)
    }

    /// Whether it still runs. A zombie does not; one that cannot be looked at for want of descriptors or memory may.
    pub fn is_alive(self) -> bool {
        self.look().unwrap_or(true)
    }

    fn look(self) -> io::Result<bool> {
        let stat = Stat::look(self.pid)?;
        Ok(stat.is_some_and(|stat| stat.id == self && !stat.dead))
    }

    /// A descriptor that becomes readable when it ends; `None` when it already has, or there is no descriptor left.
    pub fn open(self) -> Option<OwnedFd> {
        self.try_open().ok().flatten()
    }

    /// The same; `None` only when it has ended.
    ///
    /// # Errors
    /// Want of descriptors or memory, or a system that gives none: nothing is known of it.
    pub fn try_open(self) -> io::Result<Option<OwnedFd>> {
        let number = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = number else {
            return Ok(None);
        };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(error) if is_gone(error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Only now is the pid tied down: the descriptor names whoever had it at that moment.
        Ok(self.look()?.then_some(fd))
    }

    /// Sends a signal to exactly this process; `Ok(false)` when it has ended.
    pub fn signal(self, signal: Signal) -> io::Result<bool> {
        self.signal_number(signal.as_raw())
    }

    /// As [`ProcessId::signal`], by number.
    pub fn signal_number(self, number: i32) -> io::Result<bool> {
        let Some(fd) = self.try_open()? else {
            return Ok(false);
        };
        match send(&fd, number) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether `pidfd_open(2)` says that there is no process of that number: none at all, or a thread.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::SRCH | Errno::INVAL | Errno::NOENT)
}

/// Whether it is for want of descriptors or memory that a process could not be looked at.
fn is_want(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// Longer than any `/proc/PID/stat`: 52 numbers, most of them short, and a name of 64 bytes at most.
const LONGEST_STAT: usize = 2048;

/// Reads a file of `/proc` that fits in the buffer. It has no size to ask for, and is made anew for each read:
/// one read is both the cheapest and the only one that shows a single moment.
fn read_once(path: &str, buffer: &mut [u8]) -> Result<usize, Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::read(file, buffer)
}

/// What `/proc/PID/stat` says, as far as wharf asks.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// Who.
    pub id: ProcessId,
    /// Its parent.
    pub parent: u32,
    /// Its session.
    pub session: u32,
    /// Ended and not yet reaped.
    pub dead: bool,
}

impl Stat {
    /// Of the process that has this pid now.
    pub fn read(pid: u32) -> Option<Self> {
        Self::look(pid).ok().flatten()
    }

    /// The same; an error where it cannot be looked at for want of descriptors or memory.
    fn look(pid: u32) -> io::Result<Option<Self>> {
        let mut text = [0; LONGEST_STAT];
        match read_once(&format!("/proc/{pid}/stat"), &mut text) {
            Ok(length) => Ok(text.get(..length).and_then(|text| Self::of_text(pid, text))),
            Err(error) if is_want(error) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    fn of_text(pid: u32, text: &[u8]) -> Option<Self> {
        let mut stat = Self::parse(pid, text)?;
        // Its first thread may have ended before the others: the process lives on.
        if stat.dead && threads(text) > 1 && process::runs_a_thread(pid) {
            stat.dead = false;
        }
        Some(stat)
    }

    /// `proc_pid_stat(5)`. The name in parentheses may itself contain parentheses and spaces, so fields are
    /// counted from the last closing one.
    pub(super) fn parse(pid: u32, text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 2..)?).ok()?;
        let mut fields = rest.split(' ');
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let start_time = fields.nth(15)?.parse().ok()?;
        Some(Self {
            id: ProcessId { pid, start_time },
            parent,
            session,
            dead: matches!(state, "Z" | "X" | "x"),
        })
    }
}

/// `proc_pid_stat(5)`, field 20. Threads that have ended count as long as somebody who traces them has not seen it.
fn threads(text: &[u8]) -> u32 {
    let end = text.iter().rposition(|byte| *byte == b')');
    let rest = end.and_then(|end| std::str::from_utf8(text.get(end + 2..)?).ok());
    let field = rest.and_then(|rest| rest.split(' ').nth(17));
    field.and_then(|field| field.parse().ok()).unwrap_or(1)
}

/// A process that is still there after SIGKILL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    /// Its pid.
    pub pid: u32,
    /// Its name (`proc_pid_comm(5)`).
    pub name: String,
    /// The letter of its state (`proc_pid_stat(5)`, field 3), or of a thread's where the first one has ended.
    pub state: String,
    /// Who traces it, and so has to see its end before anybody else can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracer: Option<Tracer>,
    /// Whose it is, where that is somebody whose processes we may not signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Survivor {
    /// Of the process that has this pid now; without name and state where there is none.
    pub fn of(pid: u32) -> Self {
        let text = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (name, mut state) = Self::parse(&text).unwrap_or_default();
        if state == "Z"
            && let Some(living) = process::living_state(pid)
        {
            state = living.to_string();
        }
        let tracer = process::tracer_of(pid);
        let is_refused = !state.is_empty() && !process::signalable(pid);
        Self {
            pid,
            name,
            state,
            tracer,
            refused: is_refused.then(|| owner(pid)),
        }
    }

    fn parse(text: &[u8]) -> Option<(String, String)> {
        let begin = text.iter().position(|byte| *byte == b'(')?;
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let name = String::from_utf8_lossy(text.get(begin + 1..end)?);
        let state = text.get(end + 2..end + 3)?;
        Some((
            name.into_owned(),
            String::from_utf8_lossy(state).into_owned(),
        ))
    }
}

impl fmt::Display for Survivor {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "pid {}", self.pid)?;
        if !self.name.is_empty() {
            write!(to, " ({})", self.name)?;
        }
        if let Some(user) = &self.refused {
            return write!(to, ", which is of user {user} by now");
        }
        match (self.state.as_str(), &self.tracer) {
            ("", _) => Ok(()),
            ("Z", Some(tracer)) => write!(to, " ended, and {tracer}, which traces it, holds it"),
            ("t", Some(tracer)) => write!(to, " stopped by {tracer}, which traces it"),
            ("D", _) => write!(to, " in uninterruptible sleep (state D)"),
            ("Z", None) => write!(to, " ended, and its parent does not collect it (state Z)"),
            (other, _) => write!(to, " in state {other}"),
        }
    }
}

/// The user that a process has become, which says more than who its files in `/proc` belong to.
fn owner(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = line.and_then(|line| line.split_whitespace().next());
    let name = uid.and_then(|uid| process::user_name(uid.parse().ok()?));
    name.or_else(|| uid.map(str::to_owned))
        .unwrap_or_else(|| "another one".to_owned())
}

/// The id of this boot (`random(4)`); empty where the system does not tell. Asked once: no process outlives it.
pub fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    })
}

/// Fills a short buffer, which the kernel does as a whole (`getrandom(2)`).
#[expect(unsafe_code, reason = "the system call has no safe interface here")]
fn random(bytes: &mut [u8]) -> io::Result<()> {
    // SAFETY: writes at most as many bytes as there are.
    let count = unsafe { nix::libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    let count = nix::errno::Errno::result(count)?;
    if usize::try_from(count) == Ok(bytes.len()) {
        Ok(())
    } else {
        Err(io::ErrorKind::Interrupted.into())
    }
}

/// A new run id: 128 random bits as hex.
pub fn new_run_id() -> io::Result<String> {
    use std::fmt::Write;
    let mut bytes = [0_u8; 16];
    random(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Nanoseconds since the Unix epoch.
pub fn wall_clock() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|time| i64::try_from(time.as_nanos()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let text = b"42 (a) b (c)) S 7 42 41 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 99887 1 2 3";
        let stat = Stat::parse(42, text).unwrap();
        assert_eq!(stat.parent, 7);
        assert_eq!(stat.session, 41);
        assert_eq!(stat.id.start_time, 99887);
        assert!(!stat.dead);
    }

    #[test]
    fn what_survives_is_named_with_its_state() {
        let text = b"42 (a) b (c)) D 7 42 41 0 -1";
        let (name, state) = Survivor::parse(text).unwrap();
        let left = Survivor {
            pid: 42,
            name,
            state,
            tracer: None,
            refused: None,
        };
        assert_eq!(
            left.to_string(),
            "pid 42 (a) b (c)) in uninterruptible sleep (state D)"
        );
        let gone = Survivor {
            pid: 42,
            name: String::new(),
            state: String::new(),
            tracer: None,
            refused: None,
        };
        let held = Survivor {
            state: "Z".to_owned(),
            tracer: Some(Tracer {
                pid: 7,
                name: "gdb".to_owned(),
            }),
            ..gone.clone()
        };
        assert_eq!(
            held.to_string(),
            "pid 42 ended, and gdb (pid 7), which traces it, holds it"
        );
        assert_eq!(gone.to_string(), "pid 42");
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        let other = ProcessId {
            start_time: me.start_time + 1,
            ..me
        };
        assert!(!other.is_alive());
        assert!(other.open().is_none());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        let fd = id.open();
        if let Some(fd) = fd {
            rustix::event::poll(
                &mut [rustix::event::PollFd::new(
                    &fd,
                    rustix::event::PollFlags::IN,
                )],
                None,
            )
            .unwrap();
        }
        assert!(!id.is_alive());
        child.wait().unwrap();
        assert!(!id.is_alive());
    }

    #[test]
    fn run_ids_are_long_and_differ() {
        let first = new_run_id().unwrap();
        assert_eq!(first.len(), 32);
        assert_ne!(first, new_run_id().unwrap());
    }
}
