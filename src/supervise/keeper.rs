//! The keeper of one run: a process of its own between the supervisor and the service, so that killing the
//! supervisor (and the command) loses neither a byte of output nor the exit code.
//!
//! It is the parent of the main process and of the run's orphans, moves the output into the log, notes how
//! the run went, and ends when nothing of the run is left. It decides nothing, restarts nothing and is asked
//! nothing: the supervisor reads its notes and sees its end. It is forked from the supervisor without an exec,
//! so that it shares nearly all of its memory with it and costs one `fork(2)`.
//!
//! Its lock says whether it lives, also before it has noted its pid: a process between fork and exec still
//! holds it, so whoever has the lock knows that nothing of an earlier run is on its way.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::ForkResult;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Rlimit, WaitOptions, WaitStatus, pidfd_open};
use rustix::pty::OpenptFlags;

use super::apart::{fork, settle_in, words};
use super::capture::{Moved, Recorder, fifo};
use super::revival::Succession;
use super::starting::{Report, Starting};
use crate::backend::BackendError;
use crate::backend::process::Spec;
use crate::backend::process::cgroup::{Group, Place};
use crate::backend::process::child::{Extras, Launch, Ready, Way};
use crate::backend::process::dirs::{InstanceDir, failed};
use crate::backend::process::lock;
use crate::backend::process::notes::Notebook;
use crate::backend::process::protocol::Failure;
use crate::backend::process::refusal::shown;
use crate::backend::process::run::{ProcessId, wall_clock};
use crate::backend::process::tick::Tick;
use crate::backend::process::unusable::unmade;

/// Pause after a failed attempt to record output (no space left, as a rule).
const PAUSE: Duration = Duration::from_millis(250);

/// How long the last output of a run waits for space.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// The window of a terminal that nobody looks at.
const WINDOW: (u16, u16) = (24, 80);

/// What is to be kept.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) dir: &'a InstanceDir,
    pub(super) spec: &'a Spec,
    pub(super) run_id: &'a str,
    /// The limit of open descriptors that the process gets.
    pub(super) descriptors: Option<Rlimit>,
    /// The pid of the supervisor.
    pub(super) supervisor: u32,
}

/// A failure of the keeper itself.
pub(super) fn state(action: &str, error: &io::Error) -> Failure {
    Failure::State {
        action: action.to_owned(),
        cause: error.into(),
    }
}

/// Takes the lock of an instance's keeper; `None` while one lives.
pub(super) fn lock(dir: &InstanceDir) -> Result<Option<File>, BackendError> {
    let path = dir.keeper_lock();
    let file = lock::open(&path).map_err(|error| failed("open", &path, error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed("lock", &path, error.into())),
    }
}

/// What a run is started with, made before its keeper is: the supervisor has all that it takes in memory, where
/// each new keeper would have to fetch it page by page.
struct Outfit {
    /// Tells the keeper of the ends of its children: SIGCHLD is blocked in the supervisor, and so in what it forks.
    signals: SignalFd,
    notebook: Notebook,
    streams: Streams,
    ready: Ready,
    report: File,
    /// The keeper's title.
    title: String,
    /// Whether it is the forwarder's.
    has_succession: bool,
}

impl Outfit {
    /// `group` is the control group to make for it.
    fn make(
        order: &Order<'_>,
        group: Option<(&Group, &Place)>,
        report: File,
    ) -> Result<Self, Failure> {
        let spec = order.spec;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&mask, flags)
            .map_err(|error| state("cannot set up the keeper's signals", &error.into()))?;
        let attributes = &spec.attributes;
        let path = order.dir.notes();
        let notebook =
            Notebook::open(&path).map_err(|error| Failure::from(failed("write", &path, error)))?;
        let streams = Streams::open(order)?;
        let door = group
            .map(|(group, place)| group.open(place, &attributes.resources.settings(), &spec.name))
            .transpose()?
            .flatten();
        let way = if attributes.tty {
            Way::OnTerminal
        } else {
            Way::Apart
        };
        let ready = launch(spec, order.run_id, order.descriptors)
            .ready(way, &Extras::of(attributes, door))
            .map_err(|error| cannot_run(spec, &error))?;
        Ok(Self {
            signals,
            notebook,
            streams,
            ready,
            report,
            title: format!("keeper of {}", spec.name),
            has_succession: Succession::is_for(spec),
        })
    }

    /// What the keeper goes on with.
    fn descriptors(&self, lock: &File) -> Vec<i32> {
        let streams = &self.streams;
        let mut all = streams.recorder.descriptors();
        all.extend([&self.report, lock].map(AsRawFd::as_raw_fd));
        all.push(self.signals.as_raw_fd());
        all.push(self.notebook.as_fd().as_raw_fd());
        all.extend(streams.process.iter().map(AsRawFd::as_raw_fd));
        all.extend(self.ready.descriptors());
        if let Some((typed, terminal)) = &streams.typed {
            all.extend([typed.as_raw_fd(), terminal.as_raw_fd()]);
        }
        all
    }
}

fn launch<'a>(spec: &'a Spec, run_id: &'a str, descriptors: Option<Rlimit>) -> Launch<'a> {
    Launch {
        command: &spec.command,
        program: spec.program.as_deref(),
        working_dir: &spec.working_dir,
        environment: &spec.environment,
        run_id,
        user: spec.user.as_ref(),
        descriptors,
        hosts: spec.names.hosts.as_deref(),
    }
}

fn cannot_run(spec: &Spec, error: &io::Error) -> Failure {
    let attempt = launch(spec, "", None).attempt().explain(error);
    Failure::Command {
        command: shown(&spec.command),
        working_dir: spec.working_dir.clone(),
        cause: (&attempt).into(),
    }
}

/// A keeper of which everything is made but the process. The supervisor makes some of them one right after the other:
/// each one that it makes leaves it without memory of its own, page by page, until it writes to that again.
pub(super) struct Prepared {
    outfit: Outfit,
    /// What goes to the keeper.
    lock: File,
    /// The supervisor's end of the report.
    report: File,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

impl Prepared {
    /// Makes all that a keeper is started with, the control group of its run included. `lock` goes to the keeper.
    pub(super) fn make(
        order: &Order<'_>,
        group: Option<(&Group, &Place)>,
        lock: File,
    ) -> Result<Self, Failure> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| state("cannot make a pipe", &error.into()))?;
        let outfit = Outfit::make(order, group, File::from(write))?;
        // Asked once, here: the keepers have it from us.
        words();
        Ok(Self {
            outfit,
            lock,
            report: File::from(read),
        })
    }

    /// Starts the keeper, which starts the run.
    pub(super) fn begin(self, order: &Order<'_>) -> Result<Starting, Failure> {
        let Self {
            outfit,
            lock,
            report,
        } = self;
        let kept = outfit.descriptors(&lock);
        // What the child would write out a second time.
        drop(io::stdout().flush());
        let since = Tick::now();
        let unable = |error: nix::Error| state("cannot start a keeper", &unmade(error.into()));
        let child = match fork().map_err(unable)? {
            ForkResult::Child => keep(order, outfit, kept, &lock, since),
            ForkResult::Parent { child } => child,
        };
        let made = since.zip(Tick::now());
        let held = outfit.streams.recorder.into_pipes();
        // The rest is the keeper's alone from now on.
        drop(lock);
        Ok(Starting {
            pid: u32::try_from(child.as_raw()).unwrap_or_default(),
            // Nobody else can have the pid before we have collected this one, so nothing needs to be compared.
            end: Pid::from_raw(child.as_raw())
                .and_then(|child| pidfd_open(child, PidfdFlags::empty()).ok()),
            report,
            held,
            made,
        })
    }
}

/// The rest of the keeper's life. Nothing that belongs to the supervisor is touched, returned to or dropped.
#[expect(
    unsafe_code,
    reason = "a forked child must not run what its parent has registered for its exit"
)]
fn keep(order: &Order<'_>, outfit: Outfit, kept: Vec<i32>, lock: &File, since: Option<Tick>) -> ! {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        attend(order, outfit, kept, lock, since);
    }));
    // SAFETY: ends the process; there is no state to be careful of.
    unsafe { nix::libc::_exit(i32::from(outcome.is_err())) }
}

/// What a run consists of.
struct Kept {
    notebook: Notebook,
    recorder: Recorder,
    main: ProcessId,
    /// What is typed and where it goes, for a service with a terminal.
    typed: Option<(File, File)>,
}

fn attend(order: &Order<'_>, outfit: Outfit, kept: Vec<i32>, lock: &File, since: Option<Tick>) {
    let pid = std::process::id();
    let me = since.map_or_else(|| ProcessId::of(pid), |since| since.of_child(pid));
    let me = me.unwrap_or(ProcessId { pid, start_time: 0 });
    let mut succession = None;
    let settled = settle_in(&outfit.title, kept)
        .map_err(|error| state("cannot close what the supervisor has open", &error));
    if settled.is_ok() && outfit.has_succession {
        // Before it is noted that we are at work: who was there for this until now goes then.
        succession = Some(Succession::of(order));
    }
    let Outfit {
        signals,
        notebook,
        streams,
        ready,
        report,
        ..
    } = outfit;
    let begun = settled.and_then(|()| start(order, notebook, streams, ready, me));
    let said = match &begun {
        Ok(kept) => Report::Started {
            keeper: me,
            main: kept.main,
        },
        Err(failure) => Report::Failed {
            failure: failure.clone(),
        },
    };
    said.send(&report);
    drop(report);
    if let Ok(kept) = begun {
        watch_over(&signals, kept, succession.as_mut());
        drop(signals);
        if let Some(succession) = succession {
            succession.leave(lock);
        }
    }
}

fn start(
    order: &Order<'_>,
    notebook: Notebook,
    streams: Streams,
    mut ready: Ready,
    me: ProcessId,
) -> Result<Kept, Failure> {
    let unwritable = |error| Failure::from(failed("write", &order.dir.notes(), error));
    notebook.begin(order.run_id, me).map_err(unwritable)?;
    let since = Tick::now();
    let begun = ready.begin(streams.process);
    ready.forget();
    match begun {
        Ok(pid) => {
            let main = since.map_or_else(|| ProcessId::of(pid), |since| since.of_child(pid));
            let main = main.unwrap_or(ProcessId { pid, start_time: 0 });
            // The space for it is there since the beginning.
            drop(notebook.started(main));
            Ok(Kept {
                notebook,
                recorder: streams.recorder,
                main,
                typed: streams.typed,
            })
        }
        Err(error) => {
            drop(notebook.failed(&error));
            Err(cannot_run(order.spec, &error))
        }
    }
}

/// The standard streams of a process, and their other ends.
struct Streams {
    process: [OwnedFd; 3],
    recorder: Recorder,
    typed: Option<(File, File)>,
}

impl Streams {
    fn open(order: &Order<'_>) -> Result<Self, Failure> {
        let (dir, attributes) = (order.dir, &order.spec.attributes);
        let owner = order
            .spec
            .user
            .as_ref()
            .map(|account| (account.uid, account.gid));
        let stdin = if attributes.stdin_open {
            let path = dir.stdin();
            let file =
                fifo(&path, owner, OFlags::RDWR).map_err(|error| failed("open", &path, error))?;
            Some(file)
        } else {
            None
        };
        if attributes.tty {
            let cannot = |error: io::Error| state("cannot make a terminal", &error);
            let (master, slave) = terminal(owner).map_err(cannot)?;
            let first = slave.try_clone().map_err(cannot)?;
            let second = slave.try_clone().map_err(cannot)?;
            let writing = master.try_clone().map_err(cannot)?;
            if let Some(typed) = &stdin {
                rustix::io::ioctl_fionbio(typed, true).map_err(|error| cannot(error.into()))?;
            }
            return Ok(Self {
                process: [first.into(), second.into(), slave.into()],
                recorder: Recorder::of_terminal(dir, attributes.rotation, master)?,
                typed: stdin.map(|typed| (typed, writing)),
            });
        }
        let stdin = match stdin {
            Some(typed) => typed,
            None => {
                File::open("/dev/null").map_err(|error| state("cannot open /dev/null", &error))?
            }
        };
        let stdin = stdin.into();
        let mut recorder = Recorder::open(dir, attributes.rotation, owner)?;
        let [stdout, stderr] = recorder.ends(dir)?;
        Ok(Self {
            process: [stdin, stdout.into(), stderr.into()],
            recorder,
            typed: None,
        })
    }
}

/// A new terminal: what shows it, and what the process gets.
fn terminal(owner: Option<(u32, u32)>) -> io::Result<(File, File)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(&slave, Some(uid), Some(gid))?;
    }
    let (ws_row, ws_col) = WINDOW;
    let window = rustix::termios::Winsize {
        ws_row,
        ws_col,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&master, window)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok((File::from(master), File::from(slave)))
}

/// Until nothing of the run is left.
fn watch_over(signals: &SignalFd, mut kept: Kept, mut succession: Option<&mut Succession<'_>>) {
    let mut paused_until: Option<Instant> = None;
    loop {
        if let Some(succession) = &mut succession {
            succession.look();
        }
        let paused = paused_until.is_some_and(|until| Instant::now() < until);
        let supervisor = succession.as_ref().and_then(|it| it.supervisor());
        let happened = wait(signals, &kept, supervisor, paused.then_some(PAUSE));
        if happened.ended && !bury(signals, &kept) {
            break;
        }
        for at in happened.output {
            match kept.recorder.move_portion(at) {
                Ok(Moved::Some | Moved::Nothing | Moved::Closed) => {}
                // The bytes stay in the pipe; the process waits when it is full.
                Err(_) => paused_until = Some(Instant::now() + PAUSE),
            }
        }
        if happened.typed {
            type_in(&mut kept);
        }
    }
    let until = Instant::now() + LAST_PATIENCE;
    while let Err(error) = kept.recorder.drain() {
        if Instant::now() >= until {
            let text = format!("the last output of pid {} is lost: {error}", kept.main.pid);
            drop(writeln!(io::stderr(), "{text}"));
            break;
        }
        std::thread::sleep(PAUSE);
    }
    drop(kept.recorder.end_lines());
}

/// What a wait has brought.
#[derive(Default)]
struct Happened {
    ended: bool,
    typed: bool,
    output: Vec<usize>,
}

fn wait(
    signals: &SignalFd,
    kept: &Kept,
    supervisor: Option<BorrowedFd<'_>>,
    pause: Option<Duration>,
) -> Happened {
    let mut places = Vec::with_capacity(2);
    let mut fds: Vec<PollFd<'_>> = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
    if pause.is_none() {
        for (at, fd) in kept.recorder.pipes() {
            places.push(at);
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
    }
    let typed: Option<BorrowedFd<'_>> = kept.typed.as_ref().map(|(typed, _)| typed.as_fd());
    // Of the last one nothing is told but that there is something to look at.
    let others = typed.into_iter().chain(supervisor);
    fds.extend(others.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    let timeout = pause.and_then(|pause| Timespec::try_from(pause).ok());
    if poll(&mut fds, timeout.as_ref()).is_err() {
        return Happened::default();
    }
    let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    let is_ready = |at: usize| ready.get(at).copied().unwrap_or_default();
    Happened {
        ended: is_ready(0),
        typed: typed.is_some() && is_ready(places.len() + 1),
        output: places
            .iter()
            .enumerate()
            .filter(|(at, _)| is_ready(at + 1))
            .map(|(_, place)| *place)
            .collect(),
    }
}

/// Takes ended children away and notes the end of the main process; whether any child is left.
fn bury(signals: &SignalFd, kept: &Kept) -> bool {
    while let Ok(Some(_)) = signals.read_signal() {}
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if u32::try_from(pid.as_raw_nonzero().get()) == Ok(kept.main.pid) {
                    drop(kept.notebook.ended(code_of(status), wall_clock()));
                }
            }
            Ok(None) | Err(Errno::INTR) => return true,
            Err(_) => return false,
        }
    }
}

/// What was typed goes to the terminal, which may be full: then the rest is dropped, as a terminal does.
fn type_in(kept: &mut Kept) {
    let Some((typed, terminal)) = &mut kept.typed else {
        return;
    };
    let mut buffer = [0; 4096];
    if let Ok(count) = typed.read(&mut buffer) {
        drop(terminal.write_all(buffer.get(..count).unwrap_or_default()));
    }
}

/// As the shell counts: 128 + signal for a death by signal.
pub(super) fn code_of(status: WaitStatus) -> i32 {
    status
        .exit_status()
        .unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or_default())
}
