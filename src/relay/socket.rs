//! A relay on the machine of its forwarder: connects to the forwarder's socket, which is in a directory mounted
//! into the container, and answers it. One thread, no memory of what it handed over.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, ipproto, sockopt,
};

use super::protocol::{GREETING, LONGEST, Reply, Request};

/// The first and the longest pause before the forwarder is looked for again. Looking costs microseconds, and
/// nobody is served before it is found.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// Connections that the kernel keeps for a forwarder that is slow to accept; the system's own limit
/// (`net.core.somaxconn`) may be lower.
const BACKLOG: i32 = 4096;

/// Serves one forwarder after the other until a signal comes.
pub(super) fn serve(path: &Path, signals: &SignalFd) -> io::Result<()> {
    let mut pause = PAUSES.0;
    loop {
        if let Ok(forwarder) = meet(path) {
            pause = PAUSES.0;
            if attend(&forwarder, signals)? == Until::Signal {
                return Ok(());
            }
        }
        if is_readable(&mut [PollFd::new(signals, PollFlags::IN)], Some(pause))? {
            return Ok(());
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// What ended a conversation.
#[derive(Debug, PartialEq, Eq)]
enum Until {
    Signal,
    Gone,
}

fn meet(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::send(&socket, GREETING.as_bytes(), SendFlags::NOSIGNAL)?;
    Ok(socket)
}

/// Answers until the forwarder has gone.
fn attend(forwarder: &OwnedFd, signals: &SignalFd) -> io::Result<Until> {
    let mut buffer = [0; LONGEST];
    loop {
        let mut fds = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(forwarder, PollFlags::IN),
        ];
        is_readable(&mut fds, None)?;
        if !fds[0].revents().is_empty() {
            return Ok(Until::Signal);
        }
        let length = match rustix::net::recv(forwarder, &mut buffer, RecvFlags::empty()) {
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Ok((0, _)) | Err(_) => return Ok(Until::Gone),
            Ok((length, _)) => length,
        };
        let request = buffer.get(..length).unwrap_or_default();
        // One that does not read what it asked for is as good as gone.
        if answer(forwarder, request).is_err() {
            return Ok(Until::Gone);
        }
    }
}

fn answer(forwarder: &OwnedFd, request: &[u8]) -> rustix::io::Result<()> {
    let made = std::str::from_utf8(request)
        .map_err(|_| io::ErrorKind::InvalidInput.into())
        .and_then(str::parse)
        .and_then(|request| match request {
            Request::Listen(port) => listen(port).map_err(io::Error::from),
            Request::Dial(address) => dial(address).map_err(io::Error::from),
        });
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    let (reply, socket) = match made {
        Ok(socket) => (Reply::Done, Some(socket)),
        Err(error) => (Reply::Failed(error), None),
    };
    let sockets: Vec<_> = socket.iter().map(|socket| socket.as_fd()).collect();
    if !sockets.is_empty() {
        with.push(SendAncillaryMessage::ScmRights(&sockets));
    }
    let mut text = reply.to_string();
    text.truncate(text.floor_char_boundary(LONGEST));
    let parts = [IoSlice::new(text.as_bytes())];
    rustix::net::sendmsg(forwarder, &parts, &mut with, SendFlags::NOSIGNAL).map(drop)
    // Our copy is closed here: nobody listens once the forwarder has gone.
}

/// A socket that listens on all addresses of both families, or of IPv4 where there is no IPv6.
pub(super) fn listen(port: u16) -> rustix::io::Result<OwnedFd> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match listen_at(address) {
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
            listen_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        outcome => outcome,
    }
}

fn listen_at(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let socket = stream(address)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    keep_on_link(&socket, address);
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Lets no answer pass a router, so that only the service's own networks and this machine reach the socket, whatever
/// the engine does to keep networks apart. Where the system refuses that, the engine's own rules are what there is.
fn keep_on_link(socket: &OwnedFd, address: SocketAddr) {
    // Of IPv4, addresses behind a gateway have no route; IPv6 does not know that, so its packets die at the first hop.
    let _ = nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::DontRoute, &true);
    if address.is_ipv6() {
        let _ = sockopt::set_ipv6_unicast_hops(socket, Some(1));
    }
}

/// Whether the connection comes about is seen by whoever has the socket.
pub(super) fn dial(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let socket = stream(address)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

fn stream(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(
        if address.is_ipv6() {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        },
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(ipproto::TCP),
    )
}

/// Waits until one of the descriptors has something to say, or for so long.
fn is_readable(fds: &mut [PollFd<'_>], patience: Option<Duration>) -> io::Result<bool> {
    let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
    loop {
        match poll(fds, timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
