//! The supervisor's process: how it comes up and how it goes. What it does in between is `supervisor`'s.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::time::Duration;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::control::Control;
use super::supervisor::Supervisor;
use crate::backend::process::cgroup;
use crate::backend::process::child::{lift_file_size, seal_descriptors};
use crate::backend::process::dirs::{Dirs, ProjectDir, failed};
use crate::backend::process::lock;
use crate::backend::process::protocol::{Card, Cause};
use crate::backend::process::realm::{self, Holder, Realm};
use crate::backend::process::refusal::Refusal;
use crate::backend::process::regular;
use crate::backend::process::run::{self, ProcessId};
use crate::backend::process::{READY, replace, watching};
use crate::backend::{BackendError, in_one_line};

/// Runs the supervisor of a project until nothing is left to supervise and nobody is connected.
///
/// Expects standard input to be a descriptor that keeps other commands from starting a second one, standard
/// output to be a pipe on which [`READY`] or an error is awaited; gives both up when it is ready.
pub fn run(dirs: &Dirs, project: &str) -> Result<(), BackendError> {
    let outcome = prepare(dirs, project);
    let mut supervisor = match outcome {
        Ok(supervisor) => supervisor,
        Err(error) => {
            tell(&error);
            return Err(error);
        }
    };
    announce(&dirs.project(project)?).inspect_err(tell)?;
    supervisor.attend()?;
    supervisor.leave();
    Ok(())
}

/// Tells the starter why not.
fn tell(error: &BackendError) {
    let mut cause = Cause::default();
    if let BackendError::State { source, .. } = error {
        cause = source.into();
    }
    cause.message = in_one_line(error);
    // The starter may have gone.
    let text = serde_json::to_vec(&cause).unwrap_or_default();
    drop(io::stdout().write_all(&text));
}

/// A failure of the supervisor's own.
pub(super) fn system(action: &str, source: impl Into<io::Error>) -> BackendError {
    BackendError::State {
        action: format!("the supervisor cannot {action}"),
        source: source.into(),
    }
}

/// Why services cannot run here, with what to do about it. A number would not do in the place of a descriptor: it may
/// be somebody else's by the time that it is signalled.
fn unable(error: io::Error) -> io::Error {
    let errno = error.raw_os_error();
    let (message, hint) = match errno.map(Errno::from_raw_os_error) {
        Some(Errno::NOSYS) => (
            "pidfd_open(2) is not there, without which no service could be stopped for sure",
            "uname -r   # it takes Linux 5.3 or newer, or a sandbox that knows the call",
        ),
        Some(Errno::PERM | Errno::ACCESS) => (
            "pidfd_open(2) is not permitted, without which no service could be stopped for sure",
            "docker run --security-opt seccomp=unconfined …   # if this is a container",
        ),
        _ => return error,
    };
    Refusal::new(errno, message, hint).into()
}

fn prepare(dirs: &Dirs, project: &str) -> Result<Supervisor, BackendError> {
    // Fails only for the leader of a process group, which a command run by hand in a shell is.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/").map_err(|error| system("change its directory", error))?;
    seal_descriptors().map_err(|error| system("list its descriptors", error))?;
    run::check_descriptors()
        .map_err(|error| system("hold a process by a descriptor", unable(error)))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| system("become the parent of orphans", error))?;
    // Before anybody looks where groups can be made.
    cgroup::leave_runs();
    let descriptors = raise_limit();
    lift_file_size();
    // Started through /proc/self/exe, whose last part would be its name.
    let _ = rustix::thread::set_name(c"wharf");
    let signals = take_signals().map_err(|error| system("set up its signals", error))?;
    let dir = dirs.project(project)?;
    dir.create()?;
    // Before one that is elsewhere is taken for somebody here, and again when nobody else can begin anything.
    realm::elsewhere(&dir).map_or(Ok(()), Err)?;
    let lock = sole(&dir)?;
    realm::runs_elsewhere(&dir).map_or(Ok(()), Err)?;
    let socket = dir.socket();
    let control = Control::listen(&socket)
        .map_err(|error| dir.runtime_failed("listen at", &socket, error))?;
    let notes = watching::queue().map_err(|error| system("watch the notes of keepers", error))?;
    let mut supervisor = Supervisor::new(dir, control, (signals, notes), descriptors, lock);
    supervisor.adopt();
    Ok(supervisor)
}

/// SIGCHLD and SIGTERM become readable; the terminal's signals and broken pipes are nothing to us.
fn take_signals() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    // The last one where a file may not become longer: an error tells of that, too.
    for each in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGPIPE,
        Signal::SIGXFSZ,
    ] {
        ignore(each)?;
    }
    mask.add(Signal::SIGCHLD);
    mask.add(Signal::SIGTERM);
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Takes SIGTERM as any program does: ends of it at once, unless whoever started us has it ignored.
pub(super) fn fall() {
    let term = SigSet::from(Signal::SIGTERM);
    // Fails for no signal that there is.
    let _ = term.thread_unblock();
    let _ = nix::sys::signal::raise(Signal::SIGTERM);
    let _ = term.thread_block();
}

/// Every instance takes a handful of descriptors; the usual soft limit would do for two hundred. The limit
/// as it was is what the processes get: some programs misbehave under a high one.
fn raise_limit() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    // Refused at worst, and then the old limit holds.
    let _ = setrlimit(Resource::Nofile, raised);
    before
}

#[expect(unsafe_code, reason = "signal dispositions have no safe interface")]
fn ignore(which: Signal) -> nix::Result<()> {
    // SAFETY: no handler is installed; SIG_IGN runs no code.
    unsafe { signal(which, SigHandler::SigIgn) }.map(drop)
}

/// How often one that was replaced, or that cannot be told by anything, is looked for, and with which pause.
const GOING: (u32, Duration) = (500, Duration::from_millis(20));

/// Takes the lock that only one supervisor can have, and writes into it who has it. One that has it and whom the
/// starter could not reach is replaced: it may be killed at any moment by design. A child between fork and exec
/// still holds its supervisor's lock, so whoever has the lock also knows that all earlier starts have come to
/// something.
fn sole(dir: &ProjectDir) -> Result<File, BackendError> {
    let path = dir.supervisor_lock();
    let cannot = |error| failed("lock", &path, error);
    let mut file = lock::open(&path).map_err(|error| failed("open", &path, error))?;
    let take = |file: &File| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
    if take(&file).is_err() {
        if let Some(process) = present(dir) {
            process
                .signal(rustix::process::Signal::KILL)
                .map_err(|error| system("replace one that does not answer", error))?;
        }
        let mut left = GOING.0;
        while let Err(error) = take(&file) {
            left = left.checked_sub(1).ok_or_else(|| cannot(error.into()))?;
            std::thread::sleep(GOING.1);
        }
    }
    let text = serde_json::to_vec(&Holder::ours()).map_err(|error| cannot(error.into()))?;
    file.set_len(0)
        .and_then(|()| file.write_all(&text))
        .map_err(|error| failed("write", &path, error))?;
    Ok(file)
}

/// Who has the lock: by its card, or, where that is damaged or gone, by what it wrote into the lock.
fn present(dir: &ProjectDir) -> Option<ProcessId> {
    let card = regular::read(&dir.supervisor_card()).ok();
    let card = card.and_then(|text| serde_json::from_slice::<Card>(&text).ok());
    card.map(|card| card.process).or_else(|| {
        let text = std::fs::read(dir.supervisor_lock()).ok()?;
        serde_json::from_slice(&text).ok()
    })
}

/// Tells the starter, then lets go of everything it gave us.
fn announce(dir: &ProjectDir) -> Result<(), BackendError> {
    let path = dir.supervisor_card();
    let me = std::process::id();
    let card = Card {
        process: ProcessId::of(me).unwrap_or(ProcessId {
            pid: me,
            start_time: 0,
        }),
        socket: dir.socket(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        realm: Realm::ours().cloned(),
    };
    let text = serde_json::to_vec(&card).map_err(|error| failed("write", &path, error.into()))?;
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
