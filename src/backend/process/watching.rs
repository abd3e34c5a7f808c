//! A queue of what happens to files (`inotify(7)`), and why there is none: what it is short of has the numbers of other
//! wants, too many open files and a full disk.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;

use super::refusal::Refusal;

/// What raises the limit of programs that watch files.
pub const MORE_INSTANCES: &str = "sudo sysctl fs.inotify.max_user_instances=512";

/// What raises the limit of watched directories.
pub const MORE_WATCHES: &str = "sudo sysctl fs.inotify.max_user_watches=524288";

/// A new queue, whose reading does not block.
///
/// # Errors
/// The system gives none; with what to do about it where all that this user may have are in use.
pub fn queue() -> io::Result<OwnedFd> {
    inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|error| {
        let error = io::Error::from(error);
        if is_at_limit(&error) {
            reached(
                "programs that watch files",
                "max_user_instances",
                MORE_INSTANCES,
            )
        } else {
            error
        }
    })
}

/// Takes all that inotify has to tell. What happened is read from the files; here it only matters that something did.
pub(super) fn drain(changes: &Receiver) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match changes.try_read(&mut buffer) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Whether a queue was refused because this user has as many as may be, and not for want of descriptors.
pub fn is_at_limit(error: &io::Error) -> bool {
    let refused = error.raw_os_error().map(Errno::from_raw_os_error);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    refused == Some(Errno::MFILE) && rustix::fs::open("/", flags, Mode::empty()).is_ok()
}

/// Has a queue tell what happens to a path; whether that is there.
///
/// # Errors
/// What the system says; with what to do about it where too many are watched.
pub(super) fn add(queue: impl AsFd, path: &Path, kinds: WatchFlags) -> io::Result<bool> {
    match inotify::add_watch(queue, path, kinds) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(Errno::NOSPC) => Err(reached(
            "watched directories",
            "max_user_watches",
            MORE_WATCHES,
        )),
        Err(error) => Err(error.into()),
    }
}

fn reached(what: &str, setting: &str, hint: &str) -> io::Error {
    let limit = fs::read_to_string(format!("/proc/sys/fs/inotify/{setting}"));
    let limit = limit.unwrap_or_default();
    Refusal {
        // Its number is another want's.
        errno: None,
        message: format!(
            "this user's limit of {what} is reached (fs.inotify.{setting}: {})",
            limit.trim()
        ),
        hint: hint.to_owned(),
    }
    .into()
}
