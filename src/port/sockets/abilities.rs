//! What the kernel tells about sockets here, found out by asking about one of our own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use super::system;
use crate::port::claim::Protocol;

/// What can be known about who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Whether `sock_diag(7)` answers, and why not.
    pub sock_diag: Result<(), String>,
    /// Whether sockets that have a port and do not listen are listed (Linux 6.8).
    pub bound: bool,
}

/// Binds a socket to a free port of loopback and looks whether the kernel lists it.
///
/// # Errors
/// There is no free port, or no loopback.
pub fn abilities() -> io::Result<Abilities> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let port = socket
        .local_addr()?
        .as_socket()
        .map_or(0, |address| address.port());
    Ok(match system::ask_bound(port, Protocol::Tcp) {
        Ok(found) => Abilities {
            sock_diag: Ok(()),
            bound: found
                .iter()
                .any(|bound| bound.socket.address.port() == port && !bound.socket.listening),
        },
        Err(error) => Abilities {
            sock_diag: Err(error.to_string()),
            bound: false,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bound_is_seen_from_linux_6_8_on() {
        let abilities = abilities().unwrap();
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release
            .split(['.', '-'])
            .filter_map(|part| part.parse().ok());
        let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
        if abilities.sock_diag.is_ok() {
            assert_eq!(abilities.bound, version >= (6, 8), "{release}");
        }
    }
}
