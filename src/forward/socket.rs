//! Relays on this machine: the forwarder's end of the socket at which the relay of a service asks to be used,
//! and the sockets that it hands over.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, ipproto, sockopt,
};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::backend::process::socket::reach;
use crate::relay::{GREETING, LONGEST, Reply, Request};

/// How long a relay may take to say who it is, and over an answer: it never waits for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection may take to come about, from the relay's place.
const DIALLING: Duration = Duration::from_secs(10);

/// Where the relays of one service connect.
#[derive(Debug)]
pub(super) struct Meeting {
    /// Of messages, not of a stream; accepting and waiting is the same.
    listener: UnixListener,
}

/// A relay that is connected.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    asks: mpsc::UnboundedSender<Ask>,
}

#[derive(Debug)]
struct Ask {
    request: Request,
    answer: oneshot::Sender<io::Result<OwnedFd>>,
}

impl Meeting {
    /// Listens in a directory that is this user's alone. Whoever listened there before is gone: a project has
    /// one forwarder.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let path = directory.join("socket");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        reach(&path, |path| {
            Ok(rustix::net::bind(&listener, &SocketAddrUnix::new(path)?)?)
        })?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&listener, 16)?;
        let listener = UnixListener::from_std(listener.into())?;
        Ok(Self { listener })
    }

    /// The next one that connects, unknown yet.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        let (socket, _) = self.listener.accept().await?;
        Ok(socket)
    }
}

impl Relay {
    /// Hears who has connected. The directory is the key: credentials of a container's process mean nothing
    /// outside it.
    pub(super) async fn greet(socket: UnixStream) -> io::Result<Self> {
        let (greeting, _) = within(PATIENCE, receive(&socket)).await?;
        if greeting != GREETING {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it says `{greeting}` and not `{GREETING}`"),
            ));
        }
        let (asks, waiting) = mpsc::unbounded_channel();
        tokio::spawn(converse(socket, waiting));
        Ok(Self { asks })
    }

    /// A socket that listens in the relay's network namespace.
    pub(super) async fn listen(&self, port: u16) -> io::Result<TcpListener> {
        let socket = self.ask(Request::Listen(port)).await?;
        let is_it = is_tcp(&socket)
            && sockopt::socket_acceptconn(&socket)?
            && local_port(&socket) == Some(port);
        if !is_it {
            return Err(unexpected());
        }
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// A connection from the relay's network namespace.
    pub(super) async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.ask(Request::Dial(address)).await?;
        if !is_tcp(&socket) || sockopt::socket_acceptconn(&socket)? {
            return Err(unexpected());
        }
        let stream = std::net::TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        within(DIALLING, stream.writable()).await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    /// Returns when the relay has gone.
    pub(super) async fn gone(&self) {
        self.asks.closed().await;
    }

    async fn ask(&self, request: Request) -> io::Result<OwnedFd> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the relay has gone");
        let (answer, answered) = oneshot::channel();
        self.asks
            .send(Ask { request, answer })
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// Asks for one thing after the other, until the relay has gone or nobody has it any more.
async fn converse(socket: UnixStream, mut waiting: mpsc::UnboundedReceiver<Ask>) {
    loop {
        let ask = tokio::select! {
            ask = waiting.recv() => ask,
            // It never speaks unasked; whatever comes is its end.
            _ = receive(&socket) => None,
        };
        let Some(Ask { request, answer }) = ask else {
            return;
        };
        let text = request.to_string();
        let exchange = async {
            socket
                .async_io(Interest::WRITABLE, || {
                    let flags = SendFlags::NOSIGNAL;
                    Ok(rustix::net::send(&socket, text.as_bytes(), flags)?)
                })
                .await?;
            receive(&socket).await
        };
        let outcome = within(PATIENCE, exchange).await;
        let broken = outcome.is_err();
        let outcome = outcome.and_then(|(reply, socket)| match (reply.parse()?, socket) {
            (Reply::Done, Some(socket)) => Ok(socket),
            // The kernel drops a descriptor that there is no room for.
            (Reply::Done, None) => Err(rustix::io::Errno::MFILE.into()),
            (Reply::Failed(error), _) => Err(error),
        });
        // Who asked may have thought better of it; the socket is closed then.
        drop(answer.send(outcome));
        if broken {
            return;
        }
    }
}

/// One message, and the descriptor that comes with it.
async fn receive(socket: &UnixStream) -> io::Result<(String, Option<OwnedFd>)> {
    socket
        .async_io(Interest::READABLE, || {
            let mut buffer = [0; LONGEST];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut with = RecvAncillaryBuffer::new(&mut space);
            let received = rustix::net::recvmsg(
                socket,
                &mut [io::IoSliceMut::new(&mut buffer)],
                &mut with,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut descriptor = None;
            for message in with.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    descriptor = descriptors.last();
                }
            }
            let text = buffer.get(..received.bytes).unwrap_or_default();
            Ok((String::from_utf8_lossy(text).into_owned(), descriptor))
        })
        .await
}

async fn within<T>(patience: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(patience, what)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A relay is trusted with its own network namespace, not with ours: it could hand over anything.
fn is_tcp(socket: &OwnedFd) -> bool {
    let domain = sockopt::socket_domain(socket);
    matches!(domain, Ok(AddressFamily::INET | AddressFamily::INET6))
        && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
        && sockopt::socket_protocol(socket) == Ok(Some(ipproto::TCP))
}

fn local_port(socket: &OwnedFd) -> Option<u16> {
    let address = rustix::net::getsockname(socket).ok()?;
    SocketAddr::try_from(address)
        .ok()
        .map(|address| address.port())
}

fn unexpected() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the relay handed over something else than it was asked for",
    )
}
