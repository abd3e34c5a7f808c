//! Starts one process of a run: own session, default signals, no descriptor but its three, its own
//! environment.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::setsid;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setrlimit};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use super::attributes::{Attributes, Limit};
use super::environment::Environment;
use super::exec::Program;
use super::ledger::{Account, Record};
use super::namespace::Hosts;
use super::refusal::Attempt;
use super::run::RUN_ID;
use super::signals::Signals;

/// What to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// argv; the first word is looked up in the `PATH` of `environment`.
    pub command: &'a [String],
    /// The file to run instead of looking the first word up.
    pub program: Option<&'a Path>,
    /// Where to run it.
    pub working_dir: &'a Path,
    /// The whole environment.
    pub environment: &'a Environment,
    /// Its run, added to the environment.
    pub run_id: &'a str,
    /// Run as somebody else; needs the privilege to.
    pub user: Option<&'a Account>,
    /// The limit of open descriptors to run it with, if it is not the caller's.
    pub descriptors: Option<Rlimit>,
    /// What it sees as `/etc/hosts`, if not the machine's.
    pub hosts: Option<&'a Path>,
}

/// What else the main process of a run gets.
#[derive(Debug, Default)]
pub struct Extras {
    /// Limits beyond that of open descriptors.
    pub limits: Vec<(Resource, Rlimit)>,
    /// `proc_pid_oom_score_adj(5)`.
    pub oom_score_adj: Option<i64>,
    /// The control group to be in.
    pub door: Option<Door>,
}

/// The way into a control group.
#[derive(Debug)]
pub struct Door {
    /// Its directory.
    pub dir: OwnedFd,
    /// Not to be run outside of it.
    pub is_needed: bool,
}

impl Door {
    /// Goes through it. Allocates nothing.
    fn enter(&self) -> rustix::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let procs = rustix::fs::openat(&self.dir, c"cgroup.procs", flags, Mode::empty())?;
        rustix::io::write(&procs, b"0").map(drop)
    }
}

impl Extras {
    /// What a service says about its process.
    pub fn of(attributes: &Attributes, door: Option<Door>) -> Self {
        let limit = |limit: Limit| Rlimit {
            current: u64::try_from(limit.soft).ok(),
            maximum: u64::try_from(limit.hard).ok(),
        };
        Self {
            limits: attributes
                .limits
                .iter()
                .filter_map(|(name, each)| Some((resource(name)?, limit(*each))))
                .collect(),
            oom_score_adj: attributes.oom_score_adj,
            door,
        }
    }
}

impl Extras {
    /// What another process of a service's run gets, as in a container: its limits, and its control group where it
    /// has one, so that whatever is left behind ends with the run.
    pub(crate) fn beside(record: &Record) -> Self {
        let door = record.group().and_then(|group| group.door(false).ok());
        Self::of(&record.spec.attributes, door)
    }
}

impl Launch<'_> {
    /// Returns once the process runs its program, or with the reason why it cannot. It reads nothing.
    pub fn spawn(&self, stdout: Stdio, stderr: Stdio) -> io::Result<Child> {
        self.spawn_with([Stdio::null(), stdout, stderr], Way::Apart)
    }

    /// As [`Launch::spawn`], with a standard input too.
    pub fn spawn_with(&self, ends: [Stdio; 3], way: Way) -> io::Result<Child> {
        self.spawn_under(ends, way, &Extras::default())
    }

    /// As [`Launch::spawn_with`], under limits.
    pub fn spawn_under(&self, ends: [Stdio; 3], way: Way, extras: &Extras) -> io::Result<Child> {
        let [stdin, stdout, stderr] = ends;
        let first = self.first()?;
        let mut command = Command::new(self.program.unwrap_or(Path::new(first)));
        command
            .arg0(first)
            .args(self.command.iter().skip(1))
            .env_clear()
            .envs(self.environment.iter())
            .env(RUN_ID, self.run_id)
            .current_dir(self.working_dir)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        prepare(&mut command, self.inside(way, Signals::ALL, extras)?);
        command.spawn()
    }

    /// Makes all that a start needs which does not copy our memory; for a process of one thread.
    pub fn ready(&self, way: Way, extras: &Extras) -> io::Result<Ready> {
        let first = self.first()?;
        let others = self.environment.iter();
        let environment = others
            .filter(|(name, _)| *name != RUN_ID)
            .chain([(RUN_ID, self.run_id)]);
        let program = Program::new(
            self.program.unwrap_or(Path::new(first)),
            self.environment.get("PATH"),
            self.command,
            environment,
            self.working_dir,
        )?;
        let inside = self.inside(way, Signals::altered(), extras)?;
        Ok(Ready { program, inside })
    }

    /// As an error about it needs it.
    pub(crate) fn attempt(&self) -> Attempt<'_> {
        let variables = self.environment.iter();
        Attempt {
            command: self.command,
            program: self.program,
            working_dir: self.working_dir,
            path: self.environment.get("PATH"),
            environment: variables
                .map(|(name, value)| name.len() + value.len() + 2)
                .sum(),
            user: self.user,
        }
    }

    /// What it is called.
    fn first(&self) -> io::Result<&str> {
        let Some(first) = self.command.first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command"));
        };
        // `chdir` and `exec` in the child fail with the same error; only here can they be told apart.
        if !self.working_dir.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                format!("there is no directory {}", self.working_dir.display()),
            ));
        }
        Ok(first)
    }

    /// What it is put into.
    fn inside(&self, way: Way, signals: Signals, extras: &Extras) -> io::Result<Inside> {
        let file_size = FILE_SIZE.get().map(|limit| (Resource::Fsize, *limit));
        let descriptors = self.descriptors.map(|limit| (Resource::Nofile, limit));
        let limits = file_size
            .into_iter()
            .chain(descriptors)
            .chain(extras.limits.iter().copied());
        Ok(Inside {
            way,
            signals,
            limits: limits.collect(),
            door: extras.door.as_ref().and_then(|door| {
                let dir = door.dir.try_clone().ok()?;
                Some(Door { dir, ..*door })
            }),
            oom_score_adj: extras.oom_score_adj.map(|value| value.to_string()),
            user: self.user.map(|account| {
                let groups = account.groups.iter().map(|gid| Gid::from_raw(*gid));
                (
                    Uid::from_raw(account.uid),
                    Gid::from_raw(account.gid),
                    groups.collect(),
                )
            }),
            hosts: self.hosts.map(Hosts::new).transpose()?,
        })
    }
}

/// A start of which everything is made but the process.
pub struct Ready {
    program: Program,
    inside: Inside,
}

impl Ready {
    /// What is open for it.
    pub fn descriptors(&self) -> Option<i32> {
        let door = self.inside.door.as_ref()?;
        Some(door.dir.as_raw_fd())
    }

    /// Returns once the process runs its program, with its pid, or with the reason why it cannot.
    pub fn begin(&mut self, ends: [OwnedFd; 3]) -> io::Result<u32> {
        let inside = &self.inside;
        let group = inside.door.as_ref().map(|door| door.dir.as_fd());
        let enter = |is_in_group| inside.enter(is_in_group);
        self.program.start(ends, group, &enter)
    }

    /// Closes what is open for it and keeps its memory. In a process that was forked, to give that back would be to
    /// copy it first: it is the other one's until somebody writes to it.
    pub fn forget(mut self) {
        drop(self.inside.door.take());
        std::mem::forget(self);
    }
}

/// What the new session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// No terminal.
    Apart,
    /// The terminal on standard input, as its controlling one.
    OnTerminal,
}

/// What a process is put into between its making and its program.
struct Inside {
    way: Way,
    signals: Signals,
    limits: Vec<(Resource, Rlimit)>,
    door: Option<Door>,
    oom_score_adj: Option<String>,
    user: Option<(Uid, Gid, Vec<Gid>)>,
    hosts: Option<Hosts>,
}

impl Inside {
    /// In the new process. Only system calls that are async-signal-safe (signal-safety(7)), on memory that was
    /// allocated before: nothing here may allocate or take a lock.
    fn enter(&self, is_in_group: bool) -> io::Result<()> {
        let at = |part: Part| move |error: io::Error| part.mark(error);
        setsid().map_err(|error| Part::Session.mark(error.into()))?;
        if self.way == Way::OnTerminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
                .map_err(|error| Part::Terminal.mark(error.into()))?;
        }
        if let Some(door) = self.door.as_ref().filter(|_| !is_in_group) {
            let entered = door.enter();
            if door.is_needed {
                entered.map_err(|error| Part::Group.mark(error.into()))?;
            }
        }
        if let Some(value) = &self.oom_score_adj {
            put(c"/proc/self/oom_score_adj", value.as_bytes())
                .map_err(|error| Part::Score.mark(error.into()))?;
        }
        self.signals.reset();
        SigSet::empty().thread_set_mask()?;
        if let Some(hosts) = &self.hosts {
            hosts.enter().map_err(at(Part::Names))?;
        }
        // After all that opens files, and as long as they may be raised.
        for (resource, limit) in &self.limits {
            setrlimit(*resource, *limit)
                .map_err(|error| Part::Limit(name_of(*resource)).mark(error.into()))?;
        }
        // For this thread, which is all that there is; the C library would look for others.
        if let Some((uid, gid, groups)) = &self.user {
            set_thread_groups(groups)
                .and_then(|()| set_thread_gid(*gid))
                .and_then(|()| set_thread_uid(*uid))
                .map_err(|error| Part::User.mark(error.into()))?;
        }
        Ok(())
    }
}

/// What was being done in the new process when it failed. Told in the upper half of the error number: that is all
/// that comes back from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Session,
    Terminal,
    Group,
    Score,
    /// By the name of the compose specification.
    Limit(&'static str),
    Names,
    User,
}

/// Above all error numbers.
const MARK: i32 = 1 << 16;

impl Part {
    /// The parts but the limits, which follow in the order of [`RESOURCES`].
    const PLAIN: [Self; 6] = [
        Self::Session,
        Self::Terminal,
        Self::Group,
        Self::Score,
        Self::Names,
        Self::User,
    ];

    /// The error, marked. Allocates nothing.
    pub(super) fn mark(self, error: io::Error) -> io::Error {
        let plain = Self::PLAIN.iter().position(|part| *part == self);
        let limit = || {
            let is_it = |(name, _): &(&'static str, Resource)| self == Self::Limit(name);
            RESOURCES.iter().position(is_it).unwrap_or(0) + Self::PLAIN.len()
        };
        let number = plain.unwrap_or_else(limit) + 1;
        let (Some(errno), Ok(number)) = (error.raw_os_error(), i32::try_from(number)) else {
            return error;
        };
        io::Error::from_raw_os_error(errno | (number * MARK))
    }

    /// The part and the error number that a marked number has in it.
    pub(super) fn of(marked: i32) -> Option<(Self, i32)> {
        let number = usize::try_from(marked / MARK).ok()?.checked_sub(1)?;
        let limit = || {
            let (name, _) = RESOURCES.get(number - Self::PLAIN.len())?;
            Some(Self::Limit(name))
        };
        let part = Self::PLAIN.get(number).copied().or_else(limit)?;
        Some((part, marked % MARK))
    }
}

/// Has a command enter what it is put into.
#[expect(unsafe_code, reason = "only a hook between fork and exec can do this")]
fn prepare(command: &mut Command, inside: Inside) {
    // SAFETY: see `Inside::enter`.
    unsafe {
        command.pre_exec(move || inside.enter(false));
    }
}

/// Writes a short text to a file of the kernel, without allocating.
fn put(path: &CStr, text: &[u8]) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text).map(drop)
}

/// The names of the compose specification, which are those of `getrlimit(2)` without their prefix.
const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// The limit of this name.
pub fn resource(name: &str) -> Option<Resource> {
    let found = RESOURCES.iter().find(|(known, _)| *known == name);
    found.map(|(_, resource)| *resource)
}

/// The name of this one.
pub(super) fn name_of(resource: Resource) -> &'static str {
    let found = RESOURCES.iter().find(|(_, known)| *known == resource);
    found.map_or("", |(name, _)| name)
}

/// The limit of file sizes that was lifted, for what this process starts.
static FILE_SIZE: OnceLock<Rlimit> = OnceLock::new();

/// Lifts the limit of file sizes for this process as far as it may: it writes what others say. What it starts gets
/// the limit as it was.
pub fn lift_file_size() {
    let before = getrlimit(Resource::Fsize);
    if before.current.is_none() {
        return;
    }
    let up_to = |maximum| Rlimit {
        current: maximum,
        maximum,
    };
    if [None, before.maximum]
        .into_iter()
        .any(|maximum| setrlimit(Resource::Fsize, up_to(maximum)).is_ok())
    {
        let _ = FILE_SIZE.set(before);
    }
}

/// Sets the limit of file sizes that was lifted again, for a program that takes this one's place and lifts it itself.
pub fn lower_file_size() {
    if let Some(limit) = FILE_SIZE.get() {
        // Refused at worst, and then it stays lifted.
        let _ = setrlimit(Resource::Fsize, *limit);
    }
}

/// Children are waited for, also where the parent ignores SIGCHLD: that is inherited (`execve(2)`), and the
/// kernel would take their exit codes away.
///
/// # Errors
/// What the system said.
#[expect(unsafe_code, reason = "signal dispositions have no safe interface")]
pub fn wait_for_children() -> io::Result<()> {
    let default = SigHandler::SigDfl;
    // SAFETY: the default disposition runs no code.
    unsafe { signal(Signal::SIGCHLD, default) }
        .map(drop)
        .map_err(io::Error::from)
}

/// Keeps every descriptor above 2 from being inherited by programs that this process starts: whoever
/// started wharf may have left some open.
#[expect(
    unsafe_code,
    reason = "descriptors that were inherited have no owner to borrow from"
)]
pub fn seal_descriptors() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(raw) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if raw > 2 {
            // SAFETY: the number was open a moment ago, and the borrow lasts for this one call, which
            // changes a flag only; on a number closed meanwhile it fails with EBADF.
            let fd = unsafe { BorrowedFd::borrow_raw(raw) };
            let _ = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC);
        }
    }
    Ok(())
}
