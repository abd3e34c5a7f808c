//! The input and output of a program that runs elsewhere: in a container, or on a terminal of its own.
//!
//! Output arrives in one of two forms. With a terminal it is the terminal's bytes as they are; from a
//! container without one, each piece has a header of eight bytes that names its stream and length
//! (Engine API, `ContainerAttach`, "Stream format").

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{
    AsyncBufRead as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    ReadBuf,
};

use crate::event::Stream;

/// How much is read at once.
const PORTION: usize = 32 << 10;

/// The length of a piece's header.
const HEADER: usize = 8;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// Whose terminal it is.
#[derive(Clone, Debug)]
pub enum Program {
    /// That of the main program of a container, by the container's id.
    Main(String),
    /// That of a program started by `exec`, by the engine's id for it.
    Exec(String),
    /// The far side of a terminal on this machine.
    Pty(Arc<OwnedFd>),
}

/// Both directions of a program's connection.
#[derive(Debug)]
pub struct Streams {
    /// To the program's standard input.
    pub input: Input,
    /// From its outputs.
    pub output: Output,
}

impl Streams {
    /// `in_pieces`: the output has headers.
    pub fn new(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
        in_pieces: bool,
    ) -> Self {
        Self {
            input: Input(Box::new(write)),
            output: Output {
                read: Box::new(read),
                buffer: Vec::new(),
                pieces: in_pieces.then(Pieces::default),
            },
        }
    }
}

impl Streams {
    /// Its standard input and output as one stream of bytes, for a program that speaks a protocol there. What
    /// it says on standard error is left out.
    pub fn into_pipe(self) -> Pipe {
        Pipe {
            write: self.input.0,
            read: BufReader::with_capacity(2 * PORTION, self.output.read),
            pieces: self.output.pieces.is_some(),
            header: Vec::with_capacity(HEADER),
            left: 0,
            is_output: true,
        }
    }
}

/// A program's standard input and output as one stream.
pub struct Pipe {
    write: Box<dyn AsyncWrite + Send + Unpin>,
    read: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    /// Whether there are headers.
    pieces: bool,
    /// As much of the next piece's header as has arrived.
    header: Vec<u8>,
    /// What is left of the present piece, and whether it is the program's output.
    left: usize,
    is_output: bool,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.pieces {
            return Pin::new(&mut this.read).poll_read(cx, buffer);
        }
        loop {
            let arrived = ready!(Pin::new(&mut this.read).poll_fill_buf(cx))?;
            if arrived.is_empty() {
                let whole = this.left == 0 && this.header.is_empty();
                return Poll::Ready(if whole {
                    Ok(())
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                });
            }
            if this.left == 0 {
                let count = (HEADER - this.header.len()).min(arrived.len());
                this.header
                    .extend_from_slice(arrived.get(..count).unwrap_or_default());
                Pin::new(&mut this.read).consume(count);
                if let Ok([kind, _, _, _, a, b, c, d]) = <[u8; HEADER]>::try_from(&*this.header) {
                    this.header.clear();
                    this.is_output = kind <= 1;
                    let length = u32::from_be_bytes([a, b, c, d]);
                    this.left = usize::try_from(length).unwrap_or(usize::MAX);
                }
                continue;
            }
            let count = this.left.min(arrived.len());
            if !this.is_output {
                this.left -= count;
                Pin::new(&mut this.read).consume(count);
                continue;
            }
            let count = count.min(buffer.remaining());
            buffer.put_slice(arrived.get(..count).unwrap_or_default());
            this.left -= count;
            Pin::new(&mut this.read).consume(count);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().write).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_shutdown(cx)
    }
}

/// The way to a program's standard input.
pub struct Input(Box<dyn AsyncWrite + Send + Unpin>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Input")
    }
}

impl Input {
    /// Sends bytes.
    ///
    /// # Errors
    /// The program (or the engine) no longer reads.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// Tells the program that its input has ended; its output goes on.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

/// What a program writes.
pub struct Output {
    read: Box<dyn AsyncRead + Send + Unpin>,
    buffer: Vec<u8>,
    /// `None` with a terminal.
    pieces: Option<Pieces>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("pieces", &self.pieces)
            .finish_non_exhaustive()
    }
}

impl Output {
    /// The next bytes, as soon as there are some; `None` at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> io::Result<Option<(Stream, Vec<u8>)>> {
        loop {
            let ready = match &mut self.pieces {
                Some(pieces) => pieces.take(&mut self.buffer),
                None if self.buffer.is_empty() => None,
                None => Some((Stream::Stdout, std::mem::take(&mut self.buffer))),
            };
            if ready.is_some() {
                return Ok(ready);
            }
            self.buffer.reserve(PORTION);
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                let whole =
                    self.buffer.is_empty() && self.pieces.as_ref().is_none_or(Pieces::is_whole);
                return if whole {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }
}

/// The header of a piece.
pub(super) fn header(stream: Stream, length: usize) -> [u8; HEADER] {
    let kind = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind, 0, 0, 0, a, b, c, d]
}

/// Where in the stream of pieces the reader is.
#[derive(Debug, Default)]
struct Pieces {
    /// The stream of the present piece and what is left of it.
    present: Option<(Stream, usize)>,
}

impl Pieces {
    /// Takes the first bytes of one stream out of what has arrived.
    fn take(&mut self, buffer: &mut Vec<u8>) -> Option<(Stream, Vec<u8>)> {
        loop {
            if let Some((stream, left)) = self.present.take_if(|_| !buffer.is_empty()) {
                let count = left.min(buffer.len());
                let bytes = buffer.drain(..count).collect();
                self.present = (count < left).then_some((stream, left - count));
                return Some((stream, bytes));
            }
            if self.present.is_some() {
                return None;
            }
            let header: [u8; HEADER] = buffer.get(..HEADER)?.try_into().ok()?;
            buffer.drain(..HEADER);
            let [kind, _, _, _, a, b, c, d] = header;
            // 3 is the engine's own word about the stream: an error.
            let stream = if kind <= 1 {
                Stream::Stdout
            } else {
                Stream::Stderr
            };
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            self.present = (length > 0).then_some((stream, length));
        }
    }

    /// Whether no piece is half read.
    fn is_whole(&self) -> bool {
        self.present.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(stream: Stream, text: &str) -> Vec<u8> {
        [&header(stream, text.len())[..], text.as_bytes()].concat()
    }

    #[test]
    fn pieces_are_put_together_however_they_arrive() {
        let sent = [
            piece(Stream::Stdout, "out"),
            piece(Stream::Stderr, "trouble"),
            piece(Stream::Stdout, ""),
            piece(Stream::Stdout, "more"),
        ]
        .concat();
        for portion in 1..=sent.len() {
            let (mut pieces, mut buffer) = (Pieces::default(), Vec::new());
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for part in sent.chunks(portion) {
                buffer.extend_from_slice(part);
                while let Some((stream, bytes)) = pieces.take(&mut buffer) {
                    match stream {
                        Stream::Stdout => out.extend(bytes),
                        Stream::Stderr => err.extend(bytes),
                    }
                }
            }
            assert_eq!(
                (out.as_slice(), err.as_slice()),
                (&b"outmore"[..], &b"trouble"[..])
            );
            assert!(pieces.is_whole() && buffer.is_empty());
        }
    }

    #[tokio::test]
    async fn a_pipe_has_the_output_alone() {
        let sent = [
            piece(Stream::Stdout, "out"),
            piece(Stream::Stderr, "trouble"),
            piece(Stream::Stdout, ""),
            piece(Stream::Stdout, "more"),
        ]
        .concat();
        for portion in 1..=sent.len() {
            let (mut engine, ours) = tokio::io::duplex(portion);
            let mut pipe = Streams::new(ours, tokio::io::sink(), true).into_pipe();
            let mut heard = String::new();
            let (wrote, read) = tokio::join!(
                async {
                    let wrote = engine.write_all(&sent).await;
                    drop(engine);
                    wrote
                },
                pipe.read_to_string(&mut heard)
            );
            wrote.unwrap();
            read.unwrap();
            assert_eq!(heard, "outmore");
        }
        // One that breaks off in a piece, or in its header.
        for length in [5, HEADER + 1] {
            let broken = piece(Stream::Stdout, "out").into_iter().take(length);
            let read = io::Cursor::new(broken.collect::<Vec<u8>>());
            let mut pipe = Streams::new(read, tokio::io::sink(), true).into_pipe();
            let error = pipe.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_piece_is_delivered_before_it_is_complete() {
        let mut pieces = Pieces::default();
        let mut buffer = piece(Stream::Stdout, "prompt> and so on");
        buffer.truncate(HEADER + 8);
        assert_eq!(
            pieces.take(&mut buffer),
            Some((Stream::Stdout, b"prompt> ".to_vec()))
        );
        assert!(!pieces.is_whole());
    }
}
