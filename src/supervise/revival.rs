//! The heir of a forwarder's keeper: what that leaves behind where the forwarder was killed. It stays until another
//! keeper of the forwarder is at work, and starts a supervisor if the one before it is killed meanwhile, which takes
//! the project over and starts the forwarder again. Else names would be dead until the next command.
//!
//! There is one forwarder in a project and so one heir at a time; the start lock decides between it and a command. A
//! supervisor that left by itself has taken its card with it and is not missed.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::ForkResult;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, setrlimit};

use super::keeper::{Order, fork};
use crate::backend::process::Record;
use crate::backend::process::dirs::{Dirs, ProjectDir};
use crate::backend::process::lock;
use crate::backend::process::notes::Notes;
use crate::backend::process::protocol::Card;
use crate::backend::process::run::ProcessId;
use crate::backend::process::summon::{REVIVED, supervisor};
use crate::naming::Role;

/// A supervisor that lived so long was not at fault.
const STABLE: Duration = Duration::from_secs(10);

/// So many in succession that did not live so long are given up on; the next command starts one.
const MOST: u32 = 5;

/// Leaves an heir where the forwarder that was kept has been killed. `lock` is the keeper's, who is about to go.
pub(super) fn leave_heir(order: &Order<'_>, lock: &File) {
    if Role::of(&order.spec.labels) != Some(Role::Forwarder) || !was_killed(order) {
        return;
    }
    // The heir has it open, too, and nothing of the run is left.
    if flock(lock, FlockOperation::Unlock).is_err() {
        return;
    }
    // Nobody is there who could be told of a failure; the next command starts a supervisor, as ever.
    if matches!(fork(), Ok(ForkResult::Child)) {
        let _ = stand_by(order);
    }
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
        let age = (there == last).then(|| age(&dir)).flatten();
        count = next(count, age)?;
        let child = summon(order, (&dirs, &dir), count, lock)?;
        last = ProcessId::of(child.id())?;
        started = Some(child);
    }
    None
}

/// Waits until the supervisor ends; `false` when the forwarder has another keeper by then, or its place is gone.
fn is_missed(order: &Order<'_>, supervisor: ProcessId, news: &OwnedFd) -> bool {
    loop {
        if has_another(order) {
            return false;
        }
        let Some(end) = supervisor.open() else {
            return true;
        };
        let mut fds = [
            PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(news.as_fd(), PollFlags::IN),
        ];
        // What an interrupted wait has missed is seen by the next look.
        let _ = poll(&mut fds, None);
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut events = inotify::Reader::new(news, &mut buffer);
        while events.next().is_ok() {}
    }
}

/// Whether the notes are about another run, or have been removed. While they are empty a keeper is on its way.
fn has_another(order: &Order<'_>) -> bool {
    let path = order.dir.notes();
    match Notes::last(&path) {
        Some((run_id, _)) => run_id != order.run_id,
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
    serde_json::from_slice(&fs::read(dir.supervisor_card()).ok()?).ok()
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

/// The number of the next one after one that lived for `age`; `None` when there were enough.
fn next(before: u32, age: Option<Duration>) -> Option<u32> {
    let before = if age.is_some_and(|age| age >= STABLE) {
        0
    } else {
        before
    };
    (before < MOST).then_some(before + 1)
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
    fn a_supervisor_that_dies_at_once_is_given_up_on() {
        let brief = Some(Duration::from_millis(20));
        let mut count = 0;
        let mut started = 0;
        while let Some(more) = next(count, brief) {
            count = more;
            started += 1;
            assert!(started <= MOST);
        }
        assert_eq!(started, MOST);
        // One that lived long enough begins a new succession; of one whose age nobody knows, that is not known.
        assert_eq!(next(MOST, Some(STABLE)), Some(1));
        assert_eq!(next(MOST, None), None);
    }
}
