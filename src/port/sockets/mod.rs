//! Which sockets sit on a port: the kernel's answer, as plain data.
//!
//! One function set for every system; `linux` asks `sock_diag` (or `procfs`, where that is missing),
//! `other` has no answer yet. Nothing here knows processes or containers, and nothing here changes
//! anything.

pub mod abilities;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(target_os = "linux")]
mod procfs;

use std::net::{IpAddr, SocketAddr};

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use other as system;

use crate::port::PortError;
use crate::port::claim::{Claim, Protocol};
use crate::port::holder::ListeningSocket;

/// A socket that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The socket.
    pub(crate) socket: ListeningSocket,
}

/// All TCP sockets that listen on `port` (or, if none does, that are bound to it without listening, where
/// the kernel can list those: Linux 6.8), or all unconnected UDP sockets bound to it; both address families.
///
/// Connections are never among them, whatever their local port is.
pub fn listeners(port: u16, protocol: Protocol) -> Result<Vec<ListeningSocket>, PortError> {
    let mut found = system::listening(port, protocol).map_err(PortError::Lookup)?;
    if found.is_empty() && protocol == Protocol::Tcp {
        found = system::bound(port, protocol).map_err(PortError::Lookup)?;
    }
    Ok(sorted(found)
        .into_iter()
        .map(|bound| bound.socket)
        .collect())
}

/// Whether the system lists all UDP sockets, so that none needs to be tried out.
pub(crate) const LISTS_DATAGRAMS: bool = cfg!(target_os = "linux");

/// Whether a UDP socket, connected or not, keeps a UDP claim from being had.
pub(crate) fn datagrams_exclude(claim: &Claim) -> Result<bool, PortError> {
    let found = system::datagrams(claim.port).map_err(PortError::Lookup)?;
    Ok(!excluding(claim, found).is_empty())
}

/// All TCP sockets that listen, whatever their port.
pub fn all_listeners() -> Result<Vec<ListeningSocket>, PortError> {
    let found = system::listening(0, Protocol::Tcp).map_err(PortError::Lookup)?;
    Ok(sorted(found)
        .into_iter()
        .filter(|bound| bound.socket.listening)
        .map(|bound| bound.socket)
        .collect())
}

/// The sockets that listen where a claim wants to.
pub(crate) fn listening(claim: &Claim) -> Result<Vec<Bound>, PortError> {
    let found = system::listening(claim.port, claim.protocol).map_err(PortError::Lookup)?;
    Ok(excluding(claim, found))
}

/// The sockets that exclude a claim: those that listen, or, if none does, those that are only bound. The
/// kernel finds the former in microseconds; for the latter it walks all sockets that have a port.
pub(crate) fn blocking(claim: &Claim) -> Result<Vec<Bound>, PortError> {
    let found = listening(claim)?;
    if !found.is_empty() || claim.protocol == Protocol::Udp {
        return Ok(found);
    }
    let found = system::bound(claim.port, claim.protocol).map_err(PortError::Lookup)?;
    Ok(excluding(claim, found))
}

/// The sockets where a claim wants to be, those that are only bound beside those that listen.
pub(crate) fn there(claim: &Claim) -> Result<Vec<Bound>, PortError> {
    if claim.protocol == Protocol::Udp {
        return listening(claim);
    }
    let found = system::bound(claim.port, claim.protocol).map_err(PortError::Lookup)?;
    Ok(excluding(claim, found))
}

/// All sockets that listen, and all TCP sockets that are bound and do not: what many ports are looked up in.
pub(crate) fn everything(protocol: Protocol) -> Result<Vec<Bound>, PortError> {
    system::bound(0, protocol).map_err(PortError::Lookup)
}

/// Those of the sockets that are where a claim wants to be.
pub(crate) fn excluding(claim: &Claim, mut found: Vec<Bound>) -> Vec<Bound> {
    found.retain(|bound| claim.conflicts_with(bound.socket.address.ip(), bound.socket.only_v6));
    sorted(found)
}

fn sorted(mut found: Vec<Bound>) -> Vec<Bound> {
    found.sort_by(|a, b| a.socket.cmp(&b.socket));
    found
}

/// How many established TCP connections have `port` as their local port and `address` as their local
/// address (any, if `address` is a wildcard).
pub fn established(address: IpAddr, port: u16) -> Result<usize, PortError> {
    let wanted = address.to_canonical();
    let connections = system::connections(port, 0, false).map_err(PortError::Lookup)?;
    Ok(connections
        .iter()
        .filter(|found| wanted.is_unspecified() || canonical(found.local).ip() == wanted)
        .count())
}

/// The inode of the socket with which a server on this host holds its end of the connection that
/// `client` made to `server`; `None` while no process has accepted it, and once it is gone.
pub fn accepted_inode(server: SocketAddr, client: SocketAddr) -> Result<Option<u64>, PortError> {
    let (server, client) = (canonical(server), canonical(client));
    let connections =
        system::connections(server.port(), client.port(), true).map_err(PortError::Lookup)?;
    Ok(connections
        .iter()
        .find(|found| canonical(found.local) == server && canonical(found.remote) == client)
        .map(|found| found.inode)
        .filter(|inode| *inode != 0))
}

/// One TCP connection.
#[derive(Clone, Copy, Debug)]
struct Connection {
    local: SocketAddr,
    remote: SocketAddr,
    /// 0 while it waits in the accept queue.
    inode: u64,
}

/// A dual-stack server sees IPv4 clients under v4-mapped addresses; scope and flow say nothing here.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
