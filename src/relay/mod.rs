//! IN A CONTAINER: what holds the names of a service that runs as a process. Opens sockets in its network
//! namespace when the forwarder asks and hands them over; copies nothing, decides nothing, and knows nothing of
//! the rest of wharf.
//!
//! It is the only program of a container `FROM scratch`: pid 1, an unprivileged user, no `/proc`, no `/etc`.

pub mod multiplex;
mod protocol;
mod socket;
pub mod stream;

use std::io;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use protocol::{GREETING, LONGEST, Reply, Request};

/// Serves the forwarder that listens at `path`, the next one when it has gone, until SIGTERM.
///
/// # Errors
/// What the system said when the signals could not be set up.
pub fn serve(path: &Path) -> io::Result<()> {
    socket::serve(path, &end_signals()?)
}

/// Serves the forwarder at the other end of standard input and output, until it has gone.
///
/// # Errors
/// They are no pipes, or it speaks something else.
pub fn serve_stream() -> io::Result<()> {
    stream::serve_standard()
}

/// Waits for SIGTERM: holds the network namespace that commands of the engine are run in.
///
/// # Errors
/// What the system said when the signals could not be set up.
pub fn idle() -> io::Result<()> {
    let signals = end_signals()?;
    let mut fds = [PollFd::new(&signals, PollFlags::IN)];
    while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
    Ok(())
}

/// Readable when the process is asked to end. A signal that is blocked reaches pid 1 too, which is spared
/// those that it has no handler for.
fn end_signals() -> io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.add(Signal::SIGINT);
    mask.thread_block()?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC)?)
}

/// Allows as many descriptors as the system does. Each connection takes one here and two in the forwarder, for which the
/// usual soft limit would do for five hundred of them.
pub(crate) fn raise_limit() {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    // Refused at worst, and then the old limit holds.
    let _ = setrlimit(Resource::Nofile, raised);
}
