//! A TCP stream that remembers how the other side began to speak.
//!
//! Between the socket and the protocol library: a library that fails tells which rule was broken, not
//! what stood on the wire, and the user wants to know what listens there. Reads and writes unchanged.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Enough for a status line or the greeting of a server that speaks first.
const KEPT: usize = 64;

/// The first bytes that were received; survives the stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Beginning(Arc<Mutex<Vec<u8>>>);

impl Beginning {
    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(kept.len());
        kept.extend(bytes.iter().take(room));
    }

    fn bytes(&self) -> Vec<u8> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether nothing at all was received.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The status code, if it is the status line of an HTTP/1 response (RFC 9112 §4).
    pub(super) fn http_status(&self) -> Option<u16> {
        let bytes = self.bytes();
        let rest = bytes.strip_prefix(b"HTTP/1.")?;
        let [minor, b' ', a, b, c, ..] = rest else {
            return None;
        };
        if !minor.is_ascii_digit() {
            return None;
        }
        str::from_utf8(&[*a, *b, *c]).ok()?.parse().ok()
    }

    /// What was heard, in words; `None` when nothing was.
    pub(super) fn describe(&self) -> Option<String> {
        let bytes = self.bytes();
        // RFC 8446 §5.1: alert (21) or handshake (22), then the legacy version 3.x.
        if let [21 | 22, 3, ..] = bytes.as_slice() {
            return Some("it speaks TLS".to_owned());
        }
        let line = bytes.split(|byte| *byte == b'\n').next()?;
        let line: String = String::from_utf8_lossy(line)
            .chars()
            .filter(|letter| !letter.is_control())
            .collect();
        match (bytes.is_empty(), line.trim()) {
            (true, _) => None,
            (false, "") => Some("it answered with binary data".to_owned()),
            (false, line) => Some(format!("it answered `{line}`")),
        }
    }
}

/// The stream.
#[derive(Debug)]
pub(super) struct Witness {
    stream: TcpStream,
    beginning: Beginning,
}

impl Witness {
    pub(super) fn new(stream: TcpStream) -> (Self, Beginning) {
        let beginning = Beginning::default();
        let witness = Self {
            stream,
            beginning: beginning.clone(),
        };
        (witness, beginning)
    }
}

impl AsyncRead for Witness {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.beginning
            .add(buffer.filled().get(before..).unwrap_or_default());
        polled
    }
}

impl AsyncWrite for Witness {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::Beginning;

    fn heard(bytes: &[u8]) -> Beginning {
        let beginning = Beginning::default();
        beginning.add(bytes);
        beginning
    }

    #[test]
    fn reads_the_status_of_both_http_1_versions() {
        assert_eq!(heard(b"HTTP/1.0 404 Nope\r\n").http_status(), Some(404));
        assert_eq!(heard(b"HTTP/1.1 200\r\n").http_status(), Some(200));
        assert_eq!(heard(b"HTTP/2 200\r\n").http_status(), None);
        assert_eq!(heard(b"HTTP/1.x 200\r\n").http_status(), None);
        assert_eq!(heard(b"").http_status(), None);
    }

    #[test]
    fn names_what_it_heard() {
        assert_eq!(
            heard(b"SSH-2.0-OpenSSH_9.2\r\nmore").describe(),
            Some("it answered `SSH-2.0-OpenSSH_9.2`".to_owned())
        );
        assert_eq!(
            heard(&[21, 3, 3, 0, 2, 2, 40]).describe(),
            Some("it speaks TLS".to_owned())
        );
        assert_eq!(
            heard(&[0, 1, 2]).describe(),
            Some("it answered with binary data".to_owned())
        );
        assert_eq!(heard(b"").describe(), None);
    }

    #[test]
    fn keeps_only_the_beginning() {
        let beginning = heard(&[b'a'; 50]);
        beginning.add(&[b'b'; 50]);
        assert_eq!(beginning.bytes().len(), super::KEPT);
    }
}
