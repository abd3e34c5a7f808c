//! What the keeper of a project's forwarder does last: where the supervisor was killed too, it starts another one,
//! which takes the project over and starts the forwarder again. Else names would be dead until the next command.
//!
//! There is one forwarder in a project and so one keeper that does this; the start lock decides between it and
//! a command. A supervisor that left by itself has taken its card with it and is not missed.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{SigHandler, Signal, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, setrlimit};

use super::keeper::Order;
use crate::backend::process::Record;
use crate::backend::process::dirs::{Dirs, ProjectDir};
use crate::backend::process::lock;
use crate::backend::process::notes::Notes;
use crate::backend::process::protocol::Card;
use crate::backend::process::run::ProcessId;
use crate::backend::process::summon::{REVIVED, supervisor};
use crate::naming::Role;

/// Who kills both does not do it at the same moment.
const AFTER_THE_FORWARDER: Duration = Duration::from_millis(50);

/// A supervisor that lived so long was not at fault.
const STABLE: Duration = Duration::from_secs(10);

/// So many in succession that did not live so long are given up on; the next command starts one.
const MOST: u32 = 5;

/// Starts a supervisor if the forwarder that was kept and the supervisor have both been killed.
pub(super) fn if_both_were_killed(order: &Order<'_>) {
    if Role::of(&order.spec.labels) != Some(Role::Forwarder) || !was_killed(order) {
        return;
    }
    // Nobody is there who could be told of a failure; the next command starts a supervisor, as ever.
    let _ = revive(order);
}

/// Whether it ended neither by itself nor by a stop.
fn was_killed(order: &Order<'_>) -> bool {
    let exit = Notes::read(&order.dir.notes(), order.run_id).exit;
    let is_wanted =
        || Record::read(order.dir).is_ok_and(|record| record.is_some_and(|it| it.wanted));
    exit.is_some_and(|(code, _)| code != 0) && is_wanted()
}

fn revive(order: &Order<'_>) -> Option<()> {
    let (dirs, dir) = place(order)?;
    let last = card(&dir)?;
    if !is_over(last.process, AFTER_THE_FORWARDER) {
        return None;
    }
    let count = succession(&dir)?;
    let lock = start_lock(&dir)?;
    // Somebody else may have started one meanwhile.
    if card(&dir)?.process != last.process {
        return None;
    }
    let mut command = supervisor(Path::new("/proc/self/exe"), &dirs, &dir).ok()?;
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
        .map(drop)
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

/// Whether a process has ended, or does so in this time.
fn is_over(process: ProcessId, patience: Duration) -> bool {
    let Some(end) = process.open() else {
        return true;
    };
    let timeout = Timespec::try_from(patience).ok();
    let mut fds = [PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)];
    poll(&mut fds, timeout.as_ref()) == Ok(1)
}

/// The number of the next supervisor among those that no command started; `None` when there were enough.
fn succession(dir: &ProjectDir) -> Option<u32> {
    let begun = fs::metadata(dir.supervisor_card()).and_then(|card| card.modified());
    let age = begun
        .ok()
        .and_then(|begun| SystemTime::now().duration_since(begun).ok());
    #[expect(
        clippy::disallowed_methods,
        reason = "what the supervisor before told by its keepers' environment, which is no user's"
    )]
    let before = std::env::var(REVIVED)
        .ok()
        .and_then(|count| count.parse().ok());
    next(before.unwrap_or(0), age)
}

fn next(before: u32, age: Option<Duration>) -> Option<u32> {
    let before = if age.is_some_and(|age| age >= STABLE) {
        0
    } else {
        before
    };
    (before < MOST).then_some(before + 1)
}

/// `None` while somebody else is starting a supervisor.
fn start_lock(dir: &ProjectDir) -> Option<File> {
    let file = lock::open(&dir.start_lock()).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
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

    #[test]
    fn a_process_that_lives_is_not_over() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(!is_over(me, Duration::from_millis(1)));
        let gone = ProcessId {
            start_time: me.start_time + 1,
            ..me
        };
        assert!(is_over(gone, Duration::from_millis(1)));
    }
}
