//! One command at a time stops the holders of a port: a lock on one byte of a file, the port's number, so that of
//! two commands that want the same port one stops the holder and the other finds it gone.
//!
//! Ends with the process that has it. Without the file (a state directory that cannot be written) everybody goes on
//! at once: the locks spare a second entry in the log, and nothing else depends on them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::port::claim::{Claim, Protocol};

/// The right to stop who has a port, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _file: File,
    /// Whether another command had it meanwhile, so that what was seen before may have changed.
    pub waited: bool,
}

impl Turn {
    /// Waits for the turn; `state` is the root of wharf's state.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub fn take(state: &Path, claim: &Claim) -> io::Result<Self> {
        let file = open(state, "releases.lock")?;
        let waited = lock(&file, byte_of(claim.port, claim.protocol))?;
        Ok(Self {
            _file: file,
            waited,
        })
    }
}

/// A file whose bytes are locked.
pub(super) fn open(state: &Path, name: &str) -> io::Result<File> {
    // The first command of a user finds none.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)?;
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(state.join(name))
}

/// The byte that stands for a port.
pub(super) fn byte_of(port: u16, protocol: Protocol) -> i64 {
    let first = match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1 << 16,
    };
    first + i64::from(port)
}

#[cfg(target_os = "linux")]
fn range(kind: i32, byte: i64) -> nix::libc::flock {
    let number = |value: i32| i16::try_from(value).unwrap_or_default();
    nix::libc::flock {
        l_type: number(kind),
        l_whence: number(nix::libc::SEEK_SET),
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

/// Locks one byte for this opening of the file, if no other has it.
#[cfg(target_os = "linux")]
pub(super) fn attempt(file: &File, byte: i64) -> io::Result<bool> {
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    match fcntl(
        file,
        FcntlArg::F_OFD_SETLK(&range(nix::libc::F_WRLCK, byte)),
    ) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn attempt(_file: &File, _byte: i64) -> io::Result<bool> {
    Ok(true)
}

/// Gives one byte back. That fails only where it was not locked.
#[cfg(target_os = "linux")]
pub(super) fn give_back(file: &File, byte: i64) {
    use nix::fcntl::{FcntlArg, fcntl};
    let range = range(nix::libc::F_UNLCK, byte);
    let _: nix::Result<i32> = fcntl(file, FcntlArg::F_OFD_SETLK(&range));
}

#[cfg(not(target_os = "linux"))]
pub(super) fn give_back(_file: &File, _byte: i64) {}

/// Locks one byte for this opening of the file; says whether that took waiting.
#[cfg(target_os = "linux")]
fn lock(file: &File, byte: i64) -> io::Result<bool> {
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};

    if attempt(file, byte)? {
        return Ok(false);
    }
    let range = range(nix::libc::F_WRLCK, byte);
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&range)) {
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn lock(_file: &File, _byte: i64) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_who_want_a_port_the_second_waits_for_the_first() {
        let root = tempfile::tempdir().unwrap();
        // Not there yet, as for a user's first command.
        let state = root.path().join("state").join("wharf");
        let take = |port, protocol| Turn::take(&state, &Claim::anywhere(port, protocol)).unwrap();
        let first = take(8003, Protocol::Tcp);
        assert!(!first.waited);
        // Others are in nobody's way.
        assert!(!take(8004, Protocol::Tcp).waited && !take(8003, Protocol::Udp).waited);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| take(8003, Protocol::Tcp).waited);
            // The kernel lists who waits for a lock.
            let waits = || {
                let locks = std::fs::read_to_string("/proc/locks").unwrap();
                locks.lines().any(|line| {
                    line.contains("-> OFDLCK") && line.trim_end().ends_with("8003 8003")
                })
            };
            while !waits() {
                std::thread::yield_now();
            }
            drop(first);
            assert!(second.join().unwrap());
        });
        assert!(!take(8003, Protocol::Tcp).waited);
    }
}
