//! What a healthcheck says: read while it runs, so that it never waits for a reader, and kept as far as somebody who
//! wants to know why it fails needs it.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::backend::process::{Account, owned};

/// How much is kept, of the end: what is wrong is said last.
const KEPT: usize = 4096;

/// How many portions are read in one go: others wait, too.
const ROUNDS: usize = 8;

/// The end of a pipe that a healthcheck writes to. What it has left behind may write there until the next one begins.
#[derive(Debug)]
pub(super) struct Ear {
    end: Option<File>,
    heard: Vec<u8>,
}

impl Ear {
    /// An ear, and the standard streams of whom it hears, for a program of this user.
    pub(super) fn new(user: Option<&Account>) -> io::Result<(Self, [OwnedFd; 3])> {
        let null = File::open("/dev/null")?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // Of this end alone: programs do not expect it of theirs.
        rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
        owned::give(&write, user);
        let both = write.try_clone()?;
        let ear = Self {
            end: Some(File::from(read)),
            heard: Vec::new(),
        };
        Ok((ear, [null.into(), write, both]))
    }

    /// What to wait on, until nobody can say anything more.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(File::as_fd)
    }

    /// Takes in what there is.
    pub(super) fn listen(&mut self) {
        let mut portion = [0; 8192];
        for _ in 0..ROUNDS {
            let Some(end) = &mut self.end else { return };
            match end.read(&mut portion) {
                Ok(0) => self.end = None,
                Ok(length) => {
                    self.heard.extend(portion.iter().take(length));
                    let beyond = self.heard.len().saturating_sub(KEPT);
                    self.heard.drain(..beyond);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.end = None,
            }
        }
    }

    /// What was heard, without blank space around it.
    pub(super) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard).trim().to_owned()
    }
}
