//! Linux: `sock_diag(7)` over netlink, filtered by the kernel on state and source port.
//!
//! No privilege is needed, and the cost does not grow with the number of connections: for
//! `states = LISTEN` the kernel walks its table of listeners only. Only sockets of our own network
//! namespace are reported.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, TCP_LISTEN,
};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{SOCK_DIAG_BY_FAMILY, SockDiagMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::errno::Errno;

use super::{Bound, Connection, procfs};
use crate::port::claim::Protocol;
use crate::port::holder::ListeningSocket;

/// `TCP_BOUND_INACTIVE` (`include/net/tcp_states.h`, Linux 6.8): bound, neither listening nor connected.
/// Older kernels ignore the bit.
const BOUND_INACTIVE: u32 = 1 << 13;

/// `INET_DIAG_CGROUP_ID` (`include/uapi/linux/inet_diag.h`).
const CGROUP_ID: u16 = 21;

/// `TCPDIAG_GETSOCK` (`include/uapi/linux/inet_diag.h`).
const TCPDIAG_GETSOCK: u16 = 18;

/// A netlink datagram of a dump is at most this long (`netlink_dump`, `NLMSG_GOODSIZE` and the
/// receiver's buffer).
const RECEIVE_BUFFER: usize = 64 * 1024;

const FAMILIES: [u8; 2] = [AF_INET, AF_INET6];

/// Sockets on a port, those that are only bound included; see [`super::blocking`].
pub(super) fn bound(port: u16, protocol: Protocol) -> io::Result<Vec<Bound>> {
    or_procfs(port, protocol, ask_bound(port, protocol))
}

/// Listening sockets on a port, on any if it is 0; see [`super::listening`].
pub(super) fn listening(port: u16, protocol: Protocol) -> io::Result<Vec<Bound>> {
    let states = match protocol {
        Protocol::Tcp => StateFlags::LISTEN,
        Protocol::Udp => StateFlags::CLOSE,
    };
    or_procfs(port, protocol, ask(port, protocol, &states))
}

/// All UDP sockets on a port, the connected ones included.
pub(super) fn datagrams(port: u16) -> io::Result<Vec<Bound>> {
    let states = StateFlags::CLOSE | StateFlags::ESTABLISHED;
    match ask(port, Protocol::Udp, &states) {
        Err(error) if is_missing(&error) => procfs::datagrams(port),
        answer => answer,
    }
}

fn or_procfs(
    port: u16,
    protocol: Protocol,
    answer: io::Result<Vec<Bound>>,
) -> io::Result<Vec<Bound>> {
    answer.or_else(|error| {
        if is_missing(&error) {
            procfs::bound(port, protocol)
        } else {
            Err(error)
        }
    })
}

/// TCP connections from local port `port`; `remote` 0 means any; `closing` adds those that one side has
/// begun to close.
pub(super) fn connections(port: u16, remote: u16, closing: bool) -> io::Result<Vec<Connection>> {
    ask_connections(port, remote, closing).or_else(|error| {
        if is_missing(&error) {
            procfs::connections(port, remote, closing)
        } else {
            Err(error)
        }
    })
}

/// Whether the kernel has no `sock_diag` for us, rather than trouble with it.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(
            Errno::EPROTONOSUPPORT
                | Errno::EAFNOSUPPORT
                | Errno::ENOENT
                | Errno::EOPNOTSUPP
                | Errno::EPERM
                | Errno::EACCES
                | Errno::ENOSYS
        )
    )
}

pub(super) fn ask_bound(port: u16, protocol: Protocol) -> io::Result<Vec<Bound>> {
    let states = match protocol {
        Protocol::Tcp => StateFlags::from_bits_retain(StateFlags::LISTEN.bits() | BOUND_INACTIVE),
        // An unconnected UDP socket is in state CLOSE; a connected one is a client or one peer's own.
        Protocol::Udp => StateFlags::CLOSE,
    };
    ask(port, protocol, &states)
}

fn ask(port: u16, protocol: Protocol, states: &StateFlags) -> io::Result<Vec<Bound>> {
    let is_walk = states.bits() & BOUND_INACTIVE != 0;
    // What may refuse the older request answers the other one.
    let at_once = is_walk.then(|| dump_of_both(states, port).ok()).flatten();
    let responses = if let Some(responses) = at_once {
        responses
    } else {
        let mut responses = Vec::new();
        for family in FAMILIES {
            responses.extend(dump(family, protocol, states, port, 0)?);
        }
        responses
    };
    let bound = |response: InetResponse| Bound {
        socket: ListeningSocket {
            address: SocketAddr::new(
                response.header.socket_id.source_address,
                response.header.socket_id.source_port,
            ),
            protocol,
            only_v6: only_v6(&response),
            uid: response.header.uid,
            inode: response.header.inode.into(),
            cgroup_id: cgroup_id(&response),
            listening: protocol == Protocol::Udp || response.header.state == TCP_LISTEN,
        },
    };
    Ok(responses.into_iter().map(bound).collect())
}

pub(super) fn ask_connections(
    port: u16,
    remote: u16,
    closing: bool,
) -> io::Result<Vec<Connection>> {
    let mut states = StateFlags::ESTABLISHED;
    if closing {
        states |= StateFlags::CLOSE_WAIT
            | StateFlags::FIN_WAIT1
            | StateFlags::FIN_WAIT2
            | StateFlags::LAST_ACK
            | StateFlags::CLOSING;
    }
    let mut found = Vec::new();
    for family in FAMILIES {
        for response in dump(family, Protocol::Tcp, &states, port, remote)? {
            let id = &response.header.socket_id;
            found.push(Connection {
                local: SocketAddr::new(id.source_address, id.source_port),
                remote: SocketAddr::new(id.destination_address, id.destination_port),
                inode: response.header.inode.into(),
            });
        }
    }
    Ok(found)
}

fn dump(
    family: u8,
    protocol: Protocol,
    states: &StateFlags,
    source_port: u16,
    destination_port: u16,
) -> io::Result<Vec<InetResponse>> {
    let mut socket_id = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    socket_id.source_port = source_port;
    socket_id.destination_port = destination_port;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut request = NetlinkMessage::new(
        header,
        SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: match protocol {
                Protocol::Tcp => IPPROTO_TCP,
                Protocol::Udp => IPPROTO_UDP,
            },
            extensions: ExtensionFlags::empty(),
            states: states.clone(),
            socket_id,
        })
        .into(),
    );
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    exchange(&bytes, source_port)
}

/// As [`dump`] for TCP sockets of both families, in one walk: with many connections that is what a dump costs.
///
/// The request of before there were families (`struct inet_diag_req`, `include/uapi/linux/inet_diag.h`).
fn dump_of_both(states: &StateFlags, source_port: u16) -> io::Result<Vec<InetResponse>> {
    /// Of `nlmsghdr` and of `inet_diag_req`: 4 bytes of which all are 0, an `inet_diag_sockid`, states, 4 bytes.
    const LENGTH: u32 = 16 + 4 + 48 + 4 + 4;
    let mut bytes = Vec::with_capacity(80);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(TCPDIAG_GETSOCK.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend([0; 12]);
    bytes.extend(source_port.to_be_bytes());
    // No other port, no addresses, no interface.
    bytes.extend([0; 2 + 32 + 4]);
    // INET_DIAG_NOCOOKIE
    bytes.extend([0xff; 8]);
    bytes.extend(states.bits().to_ne_bytes());
    bytes.extend([0; 4]);
    exchange(&bytes, source_port)
}

fn exchange(request: &[u8], source_port: u16) -> io::Result<Vec<InetResponse>> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.send(request, 0)?;
    let mut responses = Vec::new();
    loop {
        let mut received = Vec::with_capacity(RECEIVE_BUFFER);
        match socket.recv(&mut received, 0) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        under_new_name(&mut received);
        if read_datagram(&received, source_port, &mut responses)? {
            return Ok(responses);
        }
    }
}

/// Gives replies to the older request the type of those to the other one; they are the same in all else.
fn under_new_name(datagram: &mut [u8]) {
    let mut at = 0_usize;
    while let Some(header) = datagram.get_mut(at..at.saturating_add(6)) {
        let (length, kind) = header.split_at_mut(4);
        let length: [u8; 4] = length.try_into().unwrap_or_default();
        if *kind == TCPDIAG_GETSOCK.to_ne_bytes() {
            kind.copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        }
        let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(usize::MAX);
        let length = length.max(4).checked_next_multiple_of(4);
        at = at.saturating_add(length.unwrap_or(usize::MAX));
    }
}

/// Appends what one datagram carries; true when it ends the dump.
fn read_datagram(
    datagram: &[u8],
    source_port: u16,
    responses: &mut Vec<InetResponse>,
) -> io::Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let length = usize::try_from(message.header.length)
            .unwrap_or(usize::MAX)
            .next_multiple_of(4);
        rest = rest.get(length.max(1)..).unwrap_or_default();
        match message.payload {
            // A kernel that did not filter would make every connection look like a listener.
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response))
                if source_port == 0 || response.header.socket_id.source_port == source_port =>
            {
                responses.push(*response);
            }
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => {
                return match error.code {
                    Some(code) => Err(io::Error::from_raw_os_error(code.get().abs())),
                    None => Ok(true),
                };
            }
            NetlinkPayload::Noop
            | NetlinkPayload::Overrun(_)
            | NetlinkPayload::InnerMessage(_)
            | _ => {}
        }
    }
    Ok(false)
}

fn only_v6(response: &InetResponse) -> bool {
    response
        .nlas
        .iter()
        .any(|attribute| matches!(attribute, Nla::SkV6Only(true)))
}

fn cgroup_id(response: &InetResponse) -> Option<u64> {
    response.nlas.iter().find_map(|attribute| {
        let Nla::Other(other) = attribute else {
            return None;
        };
        if other.kind() != CGROUP_ID {
            return None;
        }
        let mut value = [0; 8];
        if other.value_len() != value.len() {
            return None;
        }
        other.emit_value(&mut value);
        Some(u64::from_ne_bytes(value))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use rustix::net::{AddressFamily, SocketAddrV6, SocketType, bind, socket, sockopt};

    use super::*;

    #[test]
    fn one_walk_tells_of_both_families_what_two_do() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let bound = socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
        sockopt::set_ipv6_v6only(&bound, true).unwrap();
        let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
        if bind(&bound, &address).is_err() {
            println!("skipped: no IPv6, or the port is taken there");
            return;
        }
        let states = StateFlags::from_bits_retain(StateFlags::LISTEN.bits() | BOUND_INACTIVE);
        let each = |family| dump(family, Protocol::Tcp, &states, port, 0).unwrap();
        let (Ok(both), two) = (
            dump_of_both(&states, port),
            [each(AF_INET), each(AF_INET6)].concat(),
        ) else {
            println!("skipped: a kernel without the older request");
            return;
        };
        assert!(!both.is_empty());
        assert_eq!(both, two);
        let own = Some(u32::try_from(rustix::fs::fstat(&listener).unwrap().st_ino).unwrap());
        let first = both.first().map(|response| response.header.inode);
        assert_eq!(first, own);
    }

    #[test]
    fn a_datagram_that_makes_no_sense_is_left_as_it_is() {
        for bytes in [&[][..], &[0; 5], &[0; 12], &[0xff; 16]] {
            let mut datagram = bytes.to_vec();
            under_new_name(&mut datagram);
            assert_eq!(datagram, bytes);
        }
    }
}
