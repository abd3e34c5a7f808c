//! The supervisor's process: how it comes up, its one loop, and how it goes. What happens to an instance is
//! `unit`'s business.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::process::WaitOptions;

use super::control::{ClientId, Control};
use super::lifecycle::Moment;
use super::unit::{Settled, Surroundings, Unit};
use crate::backend::BackendError;
use crate::backend::process::child::seal_descriptors;
use crate::backend::process::dirs::{Dirs, ProjectDir, failed};
use crate::backend::process::protocol::{Card, Failure, Reply, Request};
use crate::backend::process::run::ProcessId;
use crate::backend::process::{Record, names, replace};

/// How long it waits for the command that started it to connect.
const PATIENCE: Duration = Duration::from_secs(10);

/// The loop's clock begins here, so that moments before the supervisor's own start can be told.
const EPOCH: Duration = Duration::from_secs(1 << 32);

/// What the starter reads once the supervisor can be connected to.
pub const READY: &str = "ready\n";

/// Runs the supervisor of a project until nothing is left to supervise and nobody is connected.
///
/// Expects standard input to be a descriptor that keeps other commands from starting a second one, standard
/// output to be a pipe on which [`READY`] or an error is awaited; gives both up when it is ready.
pub fn run(dirs: &Dirs, project: &str) -> Result<(), BackendError> {
    let outcome = prepare(dirs, project);
    let mut supervisor = match outcome {
        Ok(supervisor) => supervisor,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            // The starter may have gone.
            drop(io::stdout().write_all(text.as_bytes()));
            return Err(error);
        }
    };
    supervisor.announce()?;
    supervisor.attend()?;
    supervisor.leave();
    Ok(())
}

#[derive(Debug)]
struct Supervisor {
    dir: ProjectDir,
    control: Control,
    signals: SignalFd,
    units: BTreeMap<String, Unit>,
    /// Who waits for the end of which instance.
    waiting: Vec<(String, ClientId)>,
    origin: Instant,
    dismissed: bool,
    /// Held for life; the kernel lets go of it.
    _lock: File,
}

/// What a descriptor in the poll set stands for.
#[derive(Clone, Debug)]
enum Source {
    Signals,
    Door,
    Client(ClientId),
    Output(String, usize),
    Main(String),
    Watched(String, u32),
}

fn system(action: &str, source: impl Into<io::Error>) -> BackendError {
    BackendError::State {
        action: format!("the supervisor cannot {action}"),
        source: source.into(),
    }
}

fn prepare(dirs: &Dirs, project: &str) -> Result<Supervisor, BackendError> {
    // Fails only for the leader of a process group, which a command run by hand in a shell is.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/").map_err(|error| system("change its directory", error))?;
    seal_descriptors().map_err(|error| system("list its descriptors", error))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| system("become the parent of orphans", error))?;
    let signals = take_signals().map_err(|error| system("set up its signals", error))?;
    let dir = dirs.project(project)?;
    dir.create()?;
    let lock = sole(&dir)?;
    let socket = dir.socket();
    let control = Control::listen(&socket).map_err(|error| failed("listen at", &socket, error))?;
    let mut supervisor = Supervisor {
        dir,
        control,
        signals,
        units: BTreeMap::new(),
        waiting: Vec::new(),
        origin: Instant::now(),
        dismissed: false,
        _lock: lock,
    };
    supervisor.adopt();
    Ok(supervisor)
}

/// SIGCHLD becomes readable; the terminal's signals and broken pipes are nothing to us.
fn take_signals() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for each in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGPIPE] {
        ignore(each)?;
    }
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

#[expect(unsafe_code, reason = "signal dispositions have no safe interface")]
fn ignore(which: Signal) -> nix::Result<()> {
    // SAFETY: no handler is installed; SIG_IGN runs no code.
    unsafe { signal(which, SigHandler::SigIgn) }.map(drop)
}

/// Takes the lock that only one supervisor can have. One that has it and whom the starter could not reach
/// is replaced: it may be killed at any moment by design. A child between fork and exec still holds its
/// supervisor's lock, so whoever has the lock also knows that all earlier starts have come to something.
fn sole(dir: &ProjectDir) -> Result<File, BackendError> {
    let path = dir.supervisor_lock();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| failed("open", &path, error))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(file);
    }
    let card = std::fs::read(dir.supervisor_card())
        .ok()
        .and_then(|text| serde_json::from_slice::<Card>(&text).ok());
    if let Some(card) = card {
        card.process
            .signal(rustix::process::Signal::KILL)
            .map_err(|error| system("replace one that does not answer", error))?;
    }
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .map_err(|error| failed("lock", &path, error.into()))?;
    Ok(file)
}

impl Supervisor {
    fn now(&self) -> Moment {
        EPOCH.saturating_add(self.origin.elapsed())
    }

    /// Takes over whatever the ledger says is alive.
    fn adopt(&mut self) {
        let mut around = Surroundings::new(self.now());
        for name in names(&self.dir).unwrap_or_default() {
            match self.load(&name, &mut around) {
                Ok(Some(mut unit)) if unit.is_active() => {
                    if unit.is_unwanted() {
                        // Not settled for anybody: whoever asked has gone with the last supervisor.
                        drop(unit.stop(None, &mut around));
                    }
                    self.units.insert(name, unit);
                }
                Ok(_) => {}
                Err(error) => say(&format!("cannot take over {name}: {error}")),
            }
        }
    }

    fn load(&self, name: &str, around: &mut Surroundings) -> Result<Option<Unit>, BackendError> {
        let dir = self.dir.instance(name)?;
        Record::read(&dir)?
            .map(|record| Unit::take_over(dir, record, around))
            .transpose()
    }

    /// Tells the starter, then lets go of everything it gave us.
    fn announce(&self) -> Result<(), BackendError> {
        let path = self.dir.supervisor_card();
        let me = std::process::id();
        let card = Card {
            process: ProcessId::of(me).unwrap_or(ProcessId {
                pid: me,
                start_time: 0,
            }),
            socket: self.dir.socket(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let text =
            serde_json::to_vec(&card).map_err(|error| failed("write", &path, error.into()))?;
        replace(&path, &text).map_err(|error| failed("write", &path, error))?;
        let mut stdout = io::stdout();
        // The starter may have been killed meanwhile; that is no reason not to supervise.
        drop(stdout.write_all(READY.as_bytes()));
        drop(stdout.flush());
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|error| system("open /dev/null", error))?;
        nix::unistd::dup2_stdin(&null)
            .and_then(|()| nix::unistd::dup2_stdout(&null))
            .map_err(|error| system("let go of its standard streams", error))
    }

    /// The loop.
    fn attend(&mut self) -> Result<(), BackendError> {
        loop {
            let ready = self.wait()?;
            let mut around = Surroundings::new(self.now());
            let mut requests = Vec::new();
            for (source, flags) in ready {
                match source {
                    Source::Signals => self.on_children(around.now),
                    Source::Door => self.control.accept(),
                    Source::Client(id) => {
                        if flags.contains(PollFlags::OUT) {
                            self.control.flush(id);
                        }
                        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                            requests
                                .extend(self.control.hear(id).into_iter().map(|heard| (id, heard)));
                        }
                    }
                    Source::Output(name, at) => {
                        if let Some(unit) = self.units.get_mut(&name) {
                            unit.on_output(at, around.now);
                        }
                    }
                    Source::Main(name) => {
                        if let Some(unit) = self.units.get_mut(&name) {
                            unit.on_main_ended(None);
                        }
                    }
                    Source::Watched(name, pid) => {
                        if let Some(unit) = self.units.get_mut(&name) {
                            unit.on_watched_ended(pid);
                        }
                    }
                }
            }
            // Ends are noted before requests are answered: the answer to a ping promises that.
            self.settle(&mut around);
            for (id, heard) in requests {
                self.answer(id, heard, &mut around);
            }
            if self.dismissed || self.is_done() {
                return Ok(());
            }
        }
    }

    fn is_done(&self) -> bool {
        let expected = !self.control.was_used() && self.origin.elapsed() < PATIENCE;
        self.units.is_empty() && self.control.is_idle() && !expected
    }

    fn wait(&self) -> Result<Vec<(Source, PollFlags)>, BackendError> {
        let mut set = vec![
            (Source::Signals, self.signals.as_fd(), PollFlags::IN),
            (Source::Door, self.control.door(), PollFlags::IN),
        ];
        for (id, fd, more) in self.control.connections() {
            let flags = if more {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            };
            set.push((Source::Client(id), fd, flags));
        }
        for (name, unit) in &self.units {
            for (at, fd) in unit.pipes() {
                set.push((Source::Output(name.clone(), at), fd, PollFlags::IN));
            }
            if let Some(fd) = unit.adopted_main() {
                set.push((Source::Main(name.clone()), fd, PollFlags::IN));
            }
            for (pid, fd) in unit.watched() {
                set.push((Source::Watched(name.clone(), pid), fd, PollFlags::IN));
            }
        }
        let mut fds: Vec<PollFd<'_>> = set
            .iter()
            .map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        let timeout = self.timeout();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(system("wait", error)),
        }
        let happened: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        Ok(set
            .into_iter()
            .zip(happened)
            .filter(|(_, flags)| !flags.is_empty())
            .map(|((source, ..), flags)| (source, flags))
            .collect())
    }

    /// Until the nearest deadline; `None`: for ever.
    fn timeout(&self) -> Option<Timespec> {
        let patience = (self.units.is_empty() && !self.control.was_used())
            .then(|| EPOCH.saturating_add(PATIENCE));
        let nearest = self
            .units
            .values()
            .filter_map(Unit::deadline)
            .chain(patience)
            .min()?;
        let left = nearest.saturating_sub(self.now());
        Timespec::try_from(left).ok()
    }

    /// Children have ended: main processes and healthchecks are looked for by name. Main processes stay
    /// zombies until `Unit::settle` has looked at their tree.
    fn on_children(&mut self, now: Moment) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        for unit in self.units.values_mut() {
            if let Some(code) = unit.child_pid().and_then(peek) {
                unit.on_main_ended(Some(code));
            }
            if let Some(code) = unit.check_pid().and_then(take) {
                unit.on_check_ended(code == 0, now);
            }
        }
    }

    /// Orphans of the trees have become our children; their zombies are taken away here. A main process
    /// that ended in the meantime is left for the next turn: its SIGCHLD is pending.
    fn bury_orphans(&mut self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            let found = match waitid(Id::All, flags) {
                Ok(status) => status
                    .pid()
                    .and_then(|pid| u32::try_from(pid.as_raw()).ok()),
                // Ended by a real-time signal, for which the library has no word.
                Err(nix::errno::Errno::EINVAL) => None,
                Err(_) => return,
            };
            match found {
                Some(pid) => {
                    let ours = |unit: &Unit| {
                        unit.child_pid() == Some(pid) || unit.check_pid() == Some(pid)
                    };
                    if self.units.values().any(ours) || take(pid).is_none() {
                        return;
                    }
                }
                None => match rustix::process::waitpid(None, WaitOptions::NOHANG) {
                    Ok(Some((pid, status))) => {
                        let pid = u32::try_from(pid.as_raw_nonzero().get()).unwrap_or_default();
                        for unit in self.units.values_mut() {
                            if unit.child_pid() == Some(pid) {
                                unit.on_main_ended(Some(code_of(status)));
                            }
                        }
                    }
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }

    /// Lets every unit draw its conclusions, and forgets those that are over.
    fn settle(&mut self, around: &mut Surroundings) {
        let names: Vec<String> = self.units.keys().cloned().collect();
        for name in names {
            let Some(unit) = self.units.get_mut(&name) else {
                continue;
            };
            let settled = unit.settle(around);
            self.conclude(&name, settled);
        }
        self.bury_orphans();
    }

    /// Tells those who waited for an end, and forgets the unit if it is over.
    fn conclude(&mut self, name: &str, settled: Settled) {
        if let Some(outcome) = settled {
            let reply = match outcome {
                Ok(()) => Reply::Done { id: None },
                Err(failure) => Reply::Failed(failure),
            };
            let mut waiting = std::mem::take(&mut self.waiting);
            waiting.retain(|(instance, id)| {
                let concerned = instance == name;
                if concerned {
                    self.control.answer(*id, &reply);
                }
                !concerned
            });
            self.waiting = waiting;
        }
        if self.units.get(name).is_some_and(|unit| !unit.is_active()) {
            self.units.remove(name);
        }
    }

    fn answer(&mut self, id: ClientId, heard: Result<Request, String>, around: &mut Surroundings) {
        let outcome = match heard {
            Ok(Request::Start { instance }) => self.start(&instance, around).map(Some),
            Ok(Request::Stop { instance, grace_ms }) => {
                let grace = grace_ms.map(Duration::from_millis);
                return self.end(id, &instance, around, |unit, around| {
                    unit.stop(grace, around)
                });
            }
            Ok(Request::Kill { instance, signal }) => {
                if signal == rustix::process::Signal::KILL.as_raw() {
                    return self.end(id, &instance, around, Unit::kill);
                }
                self.signal(&instance, signal).map(|()| None)
            }
            Ok(Request::Remove { instance }) => self.remove(&instance).map(|()| None),
            Ok(Request::Ping) => Ok(None),
            Ok(Request::Shutdown) => {
                self.dismissed = true;
                Ok(None)
            }
            Err(message) => Err(Failure::Refused {
                message: format!("not a request: {message}"),
            }),
        };
        let reply = match outcome {
            Ok(id) => Reply::Done { id },
            Err(failure) => Reply::Failed(failure),
        };
        self.control.answer(id, &reply);
    }

    fn start(&mut self, name: &str, around: &mut Surroundings) -> Result<String, Failure> {
        if !self.units.contains_key(name) {
            let unit = self.load(name, around)?.ok_or_else(|| unknown(name))?;
            self.units.insert(name.to_owned(), unit);
        }
        let Some(unit) = self.units.get_mut(name) else {
            return Err(unknown(name));
        };
        let started = unit.start(around);
        self.conclude(name, None);
        started
    }

    /// Ends an instance; the client is answered when it is over.
    fn end(
        &mut self,
        id: ClientId,
        name: &str,
        around: &mut Surroundings,
        how: impl FnOnce(&mut Unit, &mut Surroundings) -> Settled,
    ) {
        if !self.units.contains_key(name) {
            // Something of it may be alive that an earlier supervisor gave up on.
            match self.load(name, around) {
                Ok(Some(unit)) => {
                    self.units.insert(name.to_owned(), unit);
                }
                Ok(None) => {
                    return self.control.answer(id, &Reply::Failed(unknown(name)));
                }
                Err(error) => {
                    return self.control.answer(id, &Reply::Failed(error.into()));
                }
            }
        }
        self.waiting.push((name.to_owned(), id));
        if let Some(unit) = self.units.get_mut(name) {
            let settled = how(unit, around);
            self.conclude(name, settled);
        }
    }

    fn signal(&mut self, name: &str, signal: i32) -> Result<(), Failure> {
        self.units
            .get_mut(name)
            .ok_or_else(|| Failure::Refused {
                message: format!("{name} is not running"),
            })?
            .signal(signal)
    }

    fn remove(&mut self, name: &str) -> Result<(), Failure> {
        if self.units.contains_key(name) {
            return Err(Failure::Refused {
                message: format!("{name} is running: stop it first"),
            });
        }
        let dir = self.dir.instance(name)?;
        match std::fs::remove_dir_all(dir.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", dir.path(), error).into())
            }
            _ => Ok(()),
        }
    }

    /// Leaves so that nobody finds a socket without a supervisor behind it.
    fn leave(self) {
        drop(std::fs::remove_file(self.dir.supervisor_card()));
        self.control.close();
    }
}

fn unknown(name: &str) -> Failure {
    Failure::Refused {
        message: format!("there is no local process {name}"),
    }
}

/// The code of a child that has ended, which stays a zombie.
fn peek(pid: u32) -> Option<i32> {
    let raw = nix::unistd::Pid::from_raw(i32::try_from(pid).ok()?);
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(raw), flags) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
        Ok(_) => None,
        Err(nix::errno::Errno::EINVAL) => take(pid),
        Err(_) => None,
    }
}

/// The code of a child that has ended, which is gone for good then.
fn take(pid: u32) -> Option<i32> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    let (_, status) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).ok()??;
    Some(code_of(status))
}

/// As the shell counts: 128 + signal for a death by signal.
fn code_of(status: rustix::process::WaitStatus) -> i32 {
    status
        .exit_status()
        .unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or_default())
}

/// A line in the supervisor's log, which is its standard error.
fn say(text: &str) {
    // A full disk must not end the supervisor.
    drop(writeln!(io::stderr(), "{text}"));
}
