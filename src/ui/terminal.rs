//! The user's terminal as another program's: raw mode, its size, the keyboard and the screen.
//!
//! Reading the keyboard and writing to the screen can block for as long as a person or a pipe likes, so
//! each has a thread of its own; what waits in between is bounded.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::{mpsc, oneshot};

use crate::event::Stream;

/// How much is read from the keyboard at once.
const PORTION: usize = 32 << 10;

/// How often a command in the background looks whether it is in front again.
const BEHIND: Duration = Duration::from_millis(200);

/// How many portions may wait to be read or written.
const WAITING: usize = 8;

/// Raw mode on standard input, until this is dropped: every key is a byte for the program, none a signal
/// for us.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Switches it on; `None` where standard input is not a terminal.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !rustix::termios::isatty(&stdin) {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone needs no mode.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The rows and columns of the terminal on standard output, else of that on standard input.
pub fn size() -> Option<(u16, u16)> {
    let of = |fd: rustix::fd::BorrowedFd<'_>| tcgetwinsize(fd).ok();
    of(io::stdout().as_fd())
        .or_else(|| of(io::stdin().as_fd()))
        .map(|size| (size.ws_row, size.ws_col))
        .filter(|(rows, columns)| *rows > 0 && *columns > 0)
}

/// Reads standard input as it comes; the channel ends where the input does. The thread ends with the
/// program: nothing can call it back from its read.
///
/// # Errors
/// No more descriptors, no more threads.
pub fn keyboard() -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::Builder::new()
        .name("keyboard".to_owned())
        .spawn(move || {
            // In the background of its terminal a command would be stopped at its first read; so it only waits
            // until it is in front again.
            let _ = SigSet::from(Signal::SIGTTIN).thread_block();
            let mut buffer = vec![0; PORTION];
            loop {
                match stdin.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => {
                        let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                        if sender.blocking_send(bytes).is_err() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) if is_behind(&stdin) => std::thread::sleep(BEHIND),
                    // As an end: a terminal that has gone says EIO.
                    Err(_) => break,
                }
            }
        })?;
    Ok(receiver)
}

/// Whether another group of processes has this terminal (`tcgetpgrp(3)`).
fn is_behind(terminal: &File) -> bool {
    rustix::termios::tcgetpgrp(terminal).is_ok_and(|front| front != rustix::process::getpgrp())
}

/// Standard output and standard error, written to in order of arrival.
#[derive(Debug)]
pub struct Screen {
    sender: mpsc::Sender<(Stream, Vec<u8>)>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Screen {
    /// Opens it.
    ///
    /// # Errors
    /// No more descriptors, no more threads.
    pub fn open() -> io::Result<Self> {
        let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let mut stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let (sender, mut receiver) = mpsc::channel::<(Stream, Vec<u8>)>(WAITING);
        let (tell, done) = oneshot::channel();
        std::thread::Builder::new()
            .name("screen".to_owned())
            .spawn(move || {
                let mut outcome = Ok(());
                while outcome.is_ok()
                    && let Some((stream, bytes)) = receiver.blocking_recv()
                {
                    outcome = match stream {
                        Stream::Stdout => stdout.write_all(&bytes),
                        Stream::Stderr => stderr.write_all(&bytes),
                    };
                }
                drop(tell.send(outcome));
            })?;
        Ok(Self { sender, done })
    }

    /// Hands bytes over; false when nobody reads any more.
    pub async fn write(&self, stream: Stream, bytes: Vec<u8>) -> bool {
        self.sender.send((stream, bytes)).await.is_ok()
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// What could not be written, `BrokenPipe` where the reader went away.
    pub async fn close(self) -> io::Result<()> {
        drop(self.sender);
        self.done.await.unwrap_or(Ok(()))
    }
}
