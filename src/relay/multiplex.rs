//! Many connections over one pair of byte streams: each is a stream of HTTP/2 (RFC 9113). The forwarder is the
//! client, the relay the server; both set the same limits.
//!
//! No connection can hold another one up: the window of the whole is as large as those of all streams together,
//! so it is never used up by connections that nobody reads from.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{PingPong, Reason, RecvStream, SendStream};
use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Streams at once: connections, and requests that wait for one.
const STREAMS: u32 = 8192;

/// Bytes that may be under way to one reader; what a connection costs at most when nobody reads from it.
const WINDOW: u32 = (256 << 10) - 1;

/// The same for all of them. At most 2³¹ − 1 (RFC 9113 §6.9.1).
const WINDOWS: u32 = STREAMS * WINDOW;

/// Bytes of one stream before others get their turn.
const FRAME: u32 = 64 << 10;

/// Bytes of one stream that wait to be sent.
const WAITING: usize = 256 << 10;

/// How often it is asked whether the other side is still there, and how long it may take to answer.
const INTERVAL: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);

/// The relay's side of the limits.
pub(super) fn server() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOWS)
        .max_frame_size(FRAME)
        .max_send_buffer_size(WAITING)
        // Limits against clients that mean harm: this one is ours, and withdraws requests by the hundred.
        .max_concurrent_reset_streams(STREAMS as usize)
        .max_pending_accept_reset_streams(STREAMS as usize)
        .max_local_error_reset_streams(None);
    builder
}

/// The forwarder's.
pub fn client() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(STREAMS as usize)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOWS)
        .max_frame_size(FRAME)
        .max_send_buffer_size(WAITING)
        .max_concurrent_reset_streams(STREAMS as usize)
        .max_pending_accept_reset_streams(STREAMS as usize)
        .max_local_error_reset_streams(None);
    builder
}

/// Returns when the other side has not answered for a while.
pub async fn silence(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(INTERVAL).await;
        let answered = pings.ping(h2::Ping::opaque());
        if !matches!(tokio::time::timeout(SILENCE, answered).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// One connection. Dropped before both directions have ended, it is reset.
#[derive(Debug)]
pub struct Connection {
    pub(super) send: SendStream<Bytes>,
    pub(super) receive: RecvStream,
    /// Received, and not read yet.
    rest: Bytes,
}

impl Connection {
    /// Of the two directions of a stream.
    pub fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Self {
            send,
            receive,
            rest: Bytes::new(),
        }
    }

    /// Ends it so that the other side sees a failure and not an end.
    pub fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

/// The next bytes; `None` at the end. They count as under way until [`release`] says that they are not.
pub(super) async fn receive(stream: &mut RecvStream) -> io::Result<Option<Bytes>> {
    match stream.data().await {
        Some(Ok(bytes)) => Ok(Some(bytes)),
        Some(Err(error)) => Err(broken(error)),
        None => Ok(None),
    }
}

/// Lets the other side send so many bytes more.
pub(super) fn release(stream: &mut RecvStream, count: usize) {
    // Refused only where more is given back than was received.
    drop(stream.flow_control().release_capacity(count));
}

/// Waits until something can be sent: so many bytes, at least one and no more than `most`.
pub(super) async fn room(stream: &mut SendStream<Bytes>, most: usize) -> io::Result<usize> {
    poll_fn(|cx| poll_room(stream, most, cx)).await
}

fn poll_room(
    stream: &mut SendStream<Bytes>,
    most: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    stream.reserve_capacity(most);
    loop {
        let room = stream.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room.min(most)));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

/// Returns when the other side has reset the stream, or is gone.
pub(super) async fn is_reset(stream: &mut SendStream<Bytes>) -> io::Error {
    match poll_fn(|cx| stream.poll_reset(cx)).await {
        Ok(_) => io::ErrorKind::ConnectionReset.into(),
        Err(error) => broken(error),
    }
}

/// As a socket would say it.
pub fn broken(error: h2::Error) -> io::Error {
    if error.is_reset() {
        return io::ErrorKind::ConnectionReset.into();
    }
    if error.is_io() {
        return error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    io::Error::other(error)
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                Some(Ok(bytes)) => this.rest = bytes,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.rest.len().min(buffer.remaining());
        buffer.put_slice(&this.rest.split_to(count));
        release(&mut this.receive, count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let send = &mut self.get_mut().send;
        let count = ready!(poll_room(send, bytes.len(), cx))?;
        let part = bytes.get(..count).unwrap_or_default();
        send.send_data(Bytes::copy_from_slice(part), false)
            .map_err(broken)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.get_mut().send.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(broken))
    }
}
