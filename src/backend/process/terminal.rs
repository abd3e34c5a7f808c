//! A terminal on this machine for a program in the foreground: pty(7).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

use crate::backend::streams::{Size, Streams};

/// A new terminal.
pub(super) struct Pty {
    /// Our side, to resize it by.
    pub(super) ours: Arc<OwnedFd>,
    /// What is typed and what is shown.
    pub(super) streams: Streams,
    /// The side for the program.
    pub(super) theirs: File,
}

/// Opens a terminal.
pub(super) fn open(size: Option<Size>) -> io::Result<Pty> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    if let Some(size) = size {
        resize(&ours, size)?;
    }
    let theirs = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(OFlags::NOCTTY.bits()).unwrap_or_default())
        .open(std::ffi::OsStr::from_bytes(name.to_bytes()))?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    // No pipe, but read, written and waited for like one.
    let shown = pipe::Receiver::from_owned_fd_unchecked(ours.try_clone()?)?;
    let typed = pipe::Sender::from_owned_fd_unchecked(ours.try_clone()?)?;
    Ok(Pty {
        ours: Arc::new(ours),
        streams: Streams::new(Shown(shown), typed, false),
        theirs,
    })
}

/// Tells a terminal its size.
pub(crate) fn resize(terminal: &OwnedFd, size: Size) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// What is shown on a terminal.
struct Shown(pipe::Receiver);

impl AsyncRead for Shown {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(context, buffer)) {
            // Nobody has the other side open any more (tty_ioctl(4)): the end.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                Poll::Ready(Ok(()))
            }
            read => Poll::Ready(read),
        }
    }
}
