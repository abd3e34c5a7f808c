//! Linux without `sock_diag` (a kernel built without it, a sandbox that forbids netlink): the tables of
//! `/proc/net` (`proc_pid_net(5)`).
//!
//! Slower, since every connection is listed, and poorer: sockets that are only bound, `IPV6_V6ONLY` and
//! cgroups are not in them, so a listener on `::` counts as dual-stack.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Bound, Connection};
use crate::port::claim::Protocol;
use crate::port::holder::ListeningSocket;

/// States as the tables write them (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
/// `FIN_WAIT1`, `FIN_WAIT2`, `CLOSE_WAIT`, `LAST_ACK`, `CLOSING`.
const ON_THE_WAY_OUT: [u8; 5] = [4, 5, 8, 9, 11];

/// One line of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

pub(super) fn bound(port: u16, protocol: Protocol) -> io::Result<Vec<Bound>> {
    let wanted = match protocol {
        Protocol::Tcp => LISTEN,
        Protocol::Udp => CLOSE,
    };
    in_state(port, protocol, |state| state == wanted)
}

pub(super) fn datagrams(port: u16) -> io::Result<Vec<Bound>> {
    in_state(port, Protocol::Udp, |_| true)
}

fn in_state(port: u16, protocol: Protocol, wanted: impl Fn(u8) -> bool) -> io::Result<Vec<Bound>> {
    Ok(rows(protocol)?
        .into_iter()
        .filter(|row| wanted(row.state) && (port == 0 || row.local.port() == port))
        .map(|row| Bound {
            socket: ListeningSocket {
                address: row.local,
                protocol,
                only_v6: false,
                uid: row.uid,
                inode: row.inode,
                cgroup_id: None,
                listening: true,
            },
        })
        .collect())
}

pub(super) fn connections(port: u16, remote: u16, closing: bool) -> io::Result<Vec<Connection>> {
    Ok(rows(Protocol::Tcp)?
        .into_iter()
        .filter(|row| {
            let state = row.state == ESTABLISHED || closing && ON_THE_WAY_OUT.contains(&row.state);
            state && row.local.port() == port && (remote == 0 || row.remote.port() == remote)
        })
        .map(|row| Connection {
            local: row.local,
            remote: row.remote,
            inode: row.inode,
        })
        .collect())
}

fn rows(protocol: Protocol) -> io::Result<Vec<Row>> {
    let (v4, v6) = match protocol {
        Protocol::Tcp => ("/proc/net/tcp", "/proc/net/tcp6"),
        Protocol::Udp => ("/proc/net/udp", "/proc/net/udp6"),
    };
    let mut text = fs::read_to_string(v4)?;
    // Absent without IPv6.
    text.push_str(&fs::read_to_string(v6).unwrap_or_default());
    Ok(text.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    Some(Row {
        local: address(fields.get(1)?)?,
        remote: address(fields.get(2)?)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// Words of 32 bits in the machine's byte order, then the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::with_capacity(16);
    let mut rest = ip;
    while !rest.is_empty() {
        let (word, after) = rest.split_at_checked(8)?;
        octets.extend(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
        rest = after;
    }
    let ip = match octets.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::super::linux;
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_is_read() {
        let line = "   0: 0100007F:1F43 0200000A:C350 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0";
        assert_eq!(
            parse(line),
            Some(Row {
                local: "127.0.0.1:8003".parse().unwrap(),
                remote: "10.0.0.2:50000".parse().unwrap(),
                state: LISTEN,
                uid: 1000,
                inode: 4711
            })
        );
        assert_eq!(
            address("0000000000000000FFFF00000100007F:0050"),
            "[::ffff:127.0.0.1]:80".parse().ok()
        );
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
    }

    #[test]
    fn both_ways_of_asking_agree() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_accepted, _) = listener.accept().unwrap();
        let datagrams = UdpSocket::bind("[::1]:0").unwrap();
        let other = datagrams.local_addr().unwrap().port();

        for (port, protocol) in [(port, Protocol::Tcp), (other, Protocol::Udp)] {
            let identity = |found: Vec<Bound>| -> Vec<(SocketAddr, u64, u32)> {
                found
                    .into_iter()
                    .map(|bound| bound.socket)
                    .map(|socket| (socket.address, socket.inode, socket.uid))
                    .collect()
            };
            let here = identity(bound(port, protocol).unwrap());
            assert_eq!(here.len(), 1);
            assert_eq!(here, identity(linux::ask_bound(port, protocol).unwrap()));
        }
        let from = client.local_addr().unwrap().port();
        let inodes = |found: Vec<Connection>| -> Vec<u64> {
            found
                .into_iter()
                .map(|connection| connection.inode)
                .collect()
        };
        let here = inodes(connections(port, from, true).unwrap());
        assert_eq!(here.len(), 1);
        assert_eq!(
            here,
            inodes(linux::ask_connections(port, from, true).unwrap())
        );
    }
}
