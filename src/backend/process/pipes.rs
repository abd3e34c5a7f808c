//! Pipes in the place of the user's terminal, for a program in the foreground that is to have none: what
//! it would ask of a terminal (colours, a pager, a prompt) it leaves out, as in a container.
//!
//! Only descriptors that are a terminal are replaced; a file or a pipe is the program's own, and nothing
//! comes between. What the program of another user writes comes through a pipe always: that is its user's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};

use rustix::termios::isatty;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use super::ledger::Account;
use super::owned;
use crate::backend::streams::{self, Streams};
use crate::event::Stream;

/// How much is read at once.
const PORTION: usize = 8 << 10;

/// What a program gets for its three descriptors, and what is left to us.
pub(super) struct Pipes {
    /// For the program.
    pub(super) theirs: [Stdio; 3],
    /// Our sides; `None` where nothing of the three is a terminal.
    pub(super) streams: Option<Streams>,
    /// Whether standard input is ours to read and to pass on.
    pub(super) is_typed: bool,
    /// Open as long as the program lives: its output has no end before, whatever it closes.
    pub(super) held: Vec<OwnedFd>,
}

/// Makes them, for a program of this user. `reads`: whether the program gets standard input at all.
pub(super) fn open(reads: bool, user: Option<&Account>) -> io::Result<Pipes> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let from = reads && isatty(&stdin);
    // A program of another user could not open anew what is ours.
    let is_replaced = |end: BorrowedFd<'_>| user.is_some() || isatty(end);
    let to = [stdout.as_fd(), stderr.as_fd()].map(is_replaced);
    let inherited = if reads {
        Stdio::inherit()
    } else {
        Stdio::null()
    };
    if !from && to == [false, false] {
        return Ok(Pipes {
            theirs: [inherited, Stdio::inherit(), Stdio::inherit()],
            streams: None,
            is_typed: false,
            held: Vec::new(),
        });
    }
    let (their_input, typed) = if from {
        let (read, write) = io::pipe()?;
        owned::give(&read, user);
        let typed = pipe::Sender::from_owned_fd(nonblocking(write.into())?)?;
        (Stdio::from(read), Typed(Some(typed)))
    } else {
        (inherited, Typed(None))
    };
    let mut shown = Shown::default();
    let mut held = Vec::new();
    let mut add = |stream| -> io::Result<OwnedFd> {
        let (read, write) = io::pipe()?;
        owned::give(&write, user);
        let read = pipe::Receiver::from_owned_fd(nonblocking(read.into())?)?;
        shown.pipes.push((stream, read));
        held.push(OwnedFd::from(write.try_clone()?));
        Ok(write.into())
    };
    // One for both where both are one terminal: only so its order of the two is the program's.
    let (output, errors) = match to {
        [true, true] if is_same(stdout.as_fd(), stderr.as_fd())? => {
            let write = add(Stream::Stdout)?;
            (Some(write.try_clone()?), Some(write))
        }
        [true, true] => (Some(add(Stream::Stdout)?), Some(add(Stream::Stderr)?)),
        [true, false] => (Some(add(Stream::Stdout)?), None),
        [false, true] => (None, Some(add(Stream::Stderr)?)),
        // Nothing will come; its end tells of the program's.
        [false, false] => {
            drop(add(Stream::Stdout)?);
            (None, None)
        }
    };
    let or_ours = |end: Option<OwnedFd>| end.map_or_else(Stdio::inherit, Stdio::from);
    Ok(Pipes {
        theirs: [their_input, or_ours(output), or_ours(errors)],
        streams: Some(Streams::new(shown, typed, true)),
        is_typed: from,
        held,
    })
}

fn nonblocking(end: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&end, true)?;
    Ok(end)
}

fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let of = |fd: BorrowedFd<'_>| -> io::Result<(u64, u64)> {
        let found = File::from(fd.try_clone_to_owned()?).metadata()?;
        Ok((found.dev(), found.ino()))
    };
    Ok(of(one)? == of(other)?)
}

/// What the program writes, each piece with its header.
#[derive(Default)]
struct Shown {
    pipes: Vec<(Stream, pipe::Receiver)>,
    /// Read and not yet taken.
    pieces: Vec<u8>,
}

impl AsyncRead for Shown {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.pieces.is_empty() {
            ready!(this.fetch(context))?;
        }
        let count = this.pieces.len().min(buffer.remaining());
        let rest = this.pieces.split_off(count);
        buffer.put_slice(&this.pieces);
        this.pieces = rest;
        Poll::Ready(Ok(()))
    }
}

impl Shown {
    /// Reads one piece; none at the end of all.
    fn fetch(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; PORTION];
        let mut ended = Vec::new();
        for (stream, pipe) in &mut self.pipes {
            let mut read = ReadBuf::new(&mut room);
            match Pin::new(pipe).poll_read(context, &mut read) {
                Poll::Pending => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if read.filled().is_empty() => ended.push(*stream),
                Poll::Ready(Ok(())) => {
                    let header = streams::header(*stream, read.filled().len());
                    self.pieces.extend_from_slice(&header);
                    self.pieces.extend_from_slice(read.filled());
                    break;
                }
            }
        }
        self.pipes.retain(|(stream, _)| !ended.contains(stream));
        if self.pieces.is_empty() && !self.pipes.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

/// What is typed; its end closes the pipe.
struct Typed(Option<pipe::Sender>);

impl Typed {
    fn pipe(self: Pin<&mut Self>) -> io::Result<Pin<&mut pipe::Sender>> {
        let pipe = self.get_mut().0.as_mut();
        pipe.map(Pin::new)
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncWrite for Typed {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pipe()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0 = None;
        Poll::Ready(Ok(()))
    }
}
