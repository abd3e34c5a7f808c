//! Sockets in the network namespace of a service's relay, however the relay is reached.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{socket, stream};

/// A relay that can be asked. Cheap to clone; all clones lead to the same relay.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    /// On this machine: sockets are handed over.
    Socket(socket::Relay),
    /// Anywhere: connections are carried over one stream.
    Stream(stream::Relay),
}

/// Where connections come in.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(tokio::net::TcpListener),
    Stream(stream::Listener),
}

/// A connection, there and back.
#[derive(Debug)]
pub(super) enum Connection {
    Tcp(tokio::net::TcpStream),
    Stream(stream::Connection),
}

impl Reach {
    /// Listens for TCP on all addresses of the relay, in both families.
    pub(super) async fn listen(&self, port: u16) -> io::Result<Listener> {
        match self {
            Self::Socket(relay) => relay.listen(port).await.map(Listener::Tcp),
            Self::Stream(relay) => relay.listen(port).await.map(Listener::Stream),
        }
    }

    /// Connects from the relay's place to an address that means something there.
    pub(super) async fn dial(&self, address: SocketAddr) -> io::Result<Connection> {
        match self {
            Self::Socket(relay) => relay.dial(address).await.map(Connection::Tcp),
            Self::Stream(relay) => relay.dial(address).await.map(Connection::Stream),
        }
    }

    /// Returns when the relay has gone. What came from it is of no use from then on, and keeps a network
    /// namespace alive.
    pub(super) async fn gone(&self) {
        match self {
            Self::Socket(relay) => relay.gone().await,
            Self::Stream(relay) => relay.gone().await,
        }
    }
}

impl Listener {
    /// The next connection.
    pub(super) async fn accept(&mut self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Connection::Tcp(stream))
            }
            Self::Stream(listener) => listener.accept().await.map(Connection::Stream),
        }
    }
}

impl Connection {
    /// Ends it so that the other side sees a failure and not an end.
    pub(super) fn reset(self) {
        match self {
            Self::Tcp(stream) => {
                // Where that is refused, the other side sees an end: it is closed all the same.
                drop(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
            }
            Self::Stream(stream) => stream.reset(),
        }
    }

    /// Small messages are sent at once.
    pub(super) fn hurry(&self) {
        match self {
            Self::Tcp(stream) => drop(stream.set_nodelay(true)),
            // Nothing holds them back, and the relay's own socket is told the same.
            Self::Stream(_) => {}
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
