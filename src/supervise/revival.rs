//! The heir of a supervisor: made by the keeper of the project's forwarder where the supervisor, or the forwarder, was
//! killed. It starts a supervisor in the place of one that was killed, which takes the project over and starts the
//! forwarder again if need be, and stays until another keeper of the forwarder is at work, which does the same then.
//! Else names, and with them restart policies, would be dead until the next command.
//!
//! There is one forwarder in a project and so one heir at a time; the start lock decides between it and a command. A
//! supervisor that left by itself has taken its card with it and is not missed.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{SigHandler, Signal, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, setrlimit};

use super::apart::{close_all_but, fork_beside};
use super::keeper::Order;
use crate::backend::process::child::lower_file_size;
use crate::backend::process::dirs::{Dirs, ProjectDir};
use crate::backend::process::lock;
use crate::backend::process::notes::Notes;
use crate::backend::process::protocol::Card;
use crate::backend::process::regular;
use crate::backend::process::run::ProcessId;
use crate::backend::process::summon::{REVIVED, supervisor};
use crate::backend::process::{Record, Spec};
use crate::naming::Role;

/// A supervisor that lived so long was not at fault.
const STABLE: Duration = Duration::from_secs(10);

/// So many in succession that did not live so long are followed at once; further ones after pauses that double.
const MOST: u32 = 5;

/// The first of these pauses and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// What a forwarder's keeper does for the supervisor.
pub(super) struct Succession<'a> {
    order: &'a Order<'a>,
    /// The end of the supervisor whose child we are, until it has come.
    supervisor: Option<OwnedFd>,
    /// The end of the heir.
    heir: Option<OwnedFd>,
}

impl<'a> Succession<'a> {
    /// Only for a forwarder's keeper.
    pub(super) fn is_for(spec: &Spec) -> bool {
        Role::of(&spec.labels) == Some(Role::Forwarder)
    }

    /// In that keeper.
    pub(super) fn of(order: &'a Order<'a>) -> Self {
        Self {
            order,
            supervisor: parent(order.supervisor),
            heir: None,
        }
    }

    /// The end of the supervisor, to wait on.
    pub(super) fn supervisor(&self) -> Option<BorrowedFd<'_>> {
        self.supervisor.as_ref().map(AsFd::as_fd)
    }

    /// Makes an heir where the supervisor has ended.
    pub(super) fn look(&mut self) {
        let has_come = |end: &OwnedFd| has_ended(end.as_fd());
        if self.heir.is_none() && self.supervisor.as_ref().is_none_or(has_come) {
            self.supervisor = None;
            self.make_heir();
        }
    }

    /// The run is over: leaves an heir where the forwarder was killed. `lock` is the keeper's, who is about to go.
    pub(super) fn leave(mut self, lock: &File) {
        let has_heir = self
            .heir
            .as_ref()
            .is_some_and(|end| !has_ended(end.as_fd()));
        if has_heir || !was_killed(self.order) {
            return;
        }
        // The heir has it open, too, for a moment, and nothing of the run is left.
        if flock(lock, FlockOperation::Unlock).is_ok() {
            self.make_heir();
        }
    }

    /// No child of ours: those belong to the run, and are ended with it. Nobody is there who could be told of a
    /// failure; the next command starts a supervisor, as ever.
    fn make_heir(&mut self) {
        match fork_beside() {
            Ok(Some(heir)) => self.heir = ProcessId::of(heir).and_then(ProcessId::open),
            Ok(None) => inherit(self.order),
            Err(_) => {}
        }
    }
}

/// The end of our parent, while that is still the one with this pid.
fn parent(pid: u32) -> Option<OwnedFd> {
    let parent = ProcessId::of(pid).and_then(ProcessId::open);
    let now = rustix::process::getppid().and_then(|now| u32::try_from(now.as_raw_pid()).ok());
    parent.filter(|_| now == Some(pid))
}

fn has_ended(process: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}

/// The heir's life. Of the keeper it has neither pipes nor lock, and none of its objects is touched.
#[expect(
    unsafe_code,
    reason = "a forked child must not run what its parent has registered for its exit"
)]
fn inherit(order: &Order<'_>) -> ! {
    let stand_by = || {
        close_all_but(Vec::new())
            .ok()
            .and_then(|()| stand_by(order))
    };
    let outcome = catch_unwind(AssertUnwindSafe(stand_by));
    // SAFETY: ends the process; there is no state to be careful of.
    unsafe { nix::libc::_exit(i32::from(outcome.is_err())) }
}

/// Whether it ended neither by itself nor by a stop.
fn was_killed(order: &Order<'_>) -> bool {
    let exit = Notes::read(&order.dir.notes(), order.run_id).exit;
    exit.is_some_and(|(code, _)| code != 0) && is_wanted(order)
}

fn is_wanted(order: &Order<'_>) -> bool {
    Record::read(order.dir).is_ok_and(|record| record.is_some_and(|it| it.wanted))
}

/// Until another keeper is at work, or nobody wants one.
fn stand_by(order: &Order<'_>) -> Option<()> {
    let (dirs, dir) = place(order)?;
    let news = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let kinds = WatchFlags::MODIFY | WatchFlags::DELETE_SELF;
    inotify::add_watch(&news, order.dir.notes(), kinds).ok()?;
    let mut count = before();
    let mut last = card(&dir)?.process;
    // The one that was started here.
    let mut started: Option<Child> = None;
    while is_missed(order, last, &news) {
        if let Some(mut ended) = started.take() {
            drop(ended.wait());
        }
        let is_its = card(&dir)?.process == last;
        let (number, pause) = next(count, is_its.then(|| age(&dir)).flatten());
        if !rest(order, pause, &news) {
            return None;
        }
        let lock = start_lock(&dir)?;
        // Without a card it has left by itself, which ends this.
        let there = card(&dir)?.process;
        if there.is_alive() {
            // A command was faster.
            last = there;
            continue;
        }
        if !is_wanted(order) {
            return None;
        }
        count = number;
        let child = summon(order, (&dirs, &dir), count, lock)?;
        last = ProcessId::of(child.id())?;
        started = Some(child);
    }
    None
}

/// Waits until the supervisor ends; `false` when the forwarder has another keeper by then, or nobody wants one.
fn is_missed(order: &Order<'_>, supervisor: ProcessId, news: &OwnedFd) -> bool {
    loop {
        if is_over(order) {
            return false;
        }
        let Some(end) = supervisor.open() else {
            return true;
        };
        let end = PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN);
        wait(news, Some(end), None);
    }
}

/// Lets time pass; `false` as for [`is_missed`].
fn rest(order: &Order<'_>, pause: Duration, news: &OwnedFd) -> bool {
    let end = Instant::now() + pause;
    loop {
        if is_over(order) {
            return false;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        wait(news, None, Timespec::try_from(left).ok());
    }
}

/// Until there is news, or something else. What an interrupted wait has missed is seen by the next look.
fn wait(news: &OwnedFd, other: Option<PollFd<'_>>, timeout: Option<Timespec>) {
    let news_come = PollFd::from_borrowed_fd(news.as_fd(), PollFlags::IN);
    let mut fds: Vec<PollFd<'_>> = std::iter::once(news_come).chain(other).collect();
    let _ = poll(&mut fds, timeout.as_ref());
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut events = inotify::Reader::new(news, &mut buffer);
    while events.next().is_ok() {}
}

/// Whether the notes are about another run, or have been removed, or tell of an end that somebody asked for. While
/// they are empty a keeper is on its way.
fn is_over(order: &Order<'_>) -> bool {
    let path = order.dir.notes();
    match Notes::last(&path) {
        Some((run_id, _)) if run_id != order.run_id => true,
        Some((_, notes)) => notes.exit.is_some() && !is_wanted(order),
        None => !path.exists(),
    }
}

fn summon(
    order: &Order<'_>,
    (dirs, dir): (&Dirs, &ProjectDir),
    count: u32,
    lock: File,
) -> Option<Child> {
    let mut command = supervisor(Path::new("/proc/self/exe"), dirs, dir).ok()?;
    // It is to begin as the first one did, not as we have become.
    if let Some(limit) = order.descriptors {
        let _ = setrlimit(Resource::Nofile, limit);
    }
    lower_file_size();
    let _ = heed(Signal::SIGTERM);
    command
        .env(REVIVED, count.to_string())
        .stdin(lock)
        .stdout(Stdio::null())
        .spawn()
        .ok()
}

/// The project's files, from where the instance's are and where the last supervisor listened.
fn place(order: &Order<'_>) -> Option<(Dirs, ProjectDir)> {
    // STATE/projects/PROJECT/instances/NAME
    let state = order.dir.path().ancestors().nth(4)?;
    let name = &order.spec.project.name;
    let there = Dirs::new(state.to_owned(), PathBuf::new());
    let runtime = card(&there.project(name).ok()?)?
        .socket
        .parent()?
        .to_owned();
    let dirs = Dirs::new(state.to_owned(), runtime);
    let dir = dirs.project(name).ok()?;
    Some((dirs, dir))
}

fn card(dir: &ProjectDir) -> Option<Card> {
    serde_json::from_slice(&regular::read(&dir.supervisor_card()).ok()?).ok()
}

/// How long ago the supervisor's card was written.
fn age(dir: &ProjectDir) -> Option<Duration> {
    let begun = fs::metadata(dir.supervisor_card()).and_then(|card| card.modified());
    SystemTime::now().duration_since(begun.ok()?).ok()
}

/// How many supervisors that no command started there were in succession.
fn before() -> u32 {
    #[expect(
        clippy::disallowed_methods,
        reason = "what the supervisor before told by its keepers' environment, which is no user's"
    )]
    let before = std::env::var(REVIVED);
    before
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

/// The number of the next one after one that lived for `age`, and the pause before it.
fn next(before: u32, age: Option<Duration>) -> (u32, Duration) {
    if age.is_some_and(|age| age >= STABLE) {
        return (1, Duration::ZERO);
    }
    let pause = before.checked_sub(MOST).map(|more| {
        let times = 1_u32.checked_shl(more).unwrap_or(u32::MAX);
        PAUSES.0.saturating_mul(times).min(PAUSES.1)
    });
    (before.saturating_add(1), pause.unwrap_or_default())
}

/// Waits while somebody else is starting a supervisor.
fn start_lock(dir: &ProjectDir) -> Option<File> {
    let file = lock::open(&dir.start_lock()).ok()?;
    flock(&file, FlockOperation::LockExclusive).ok()?;
    Some(file)
}

/// A signal that is ignored would stay so in the supervisor.
#[expect(unsafe_code, reason = "signal dispositions have no safe interface")]
fn heed(which: Signal) -> nix::Result<()> {
    // SAFETY: no handler is installed; SIG_DFL runs no code.
    unsafe { signal(which, SigHandler::SigDfl) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisors_that_die_at_once_follow_each_other_more_and_more_slowly() {
        let brief = Some(Duration::from_millis(20));
        let mut count = 0;
        let pauses: Vec<u64> = (0..13)
            .map(|_| {
                let (number, pause) = next(count, brief);
                assert_eq!(number, count + 1);
                count = number;
                pause.as_secs()
            })
            .collect();
        assert_eq!(pauses, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        // One that lived long enough begins a new succession; of one whose age nobody knows, that is not known.
        assert_eq!(next(count, Some(STABLE)), (1, Duration::ZERO));
        assert_eq!(next(MOST, None), (MOST + 1, PAUSES.0));
        assert_eq!(next(u32::MAX, None), (u32::MAX, PAUSES.1));
    }
}
