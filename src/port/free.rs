//! Whether a port can be had: the probe, the wait for it, and the next port that passes it.
//!
//! The kernel is the judge, not a pid: a port is free when it lets us have it. Stops nobody.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::port::claim::{Claim, Protocol};
use crate::port::holder::{Holder, Who};
use crate::port::owner::{self, Depth};
use crate::port::{PortError, descriptors, process, protect, sockets, supervisor};

/// The first and the longest pause between two probes.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Whether a second listener is told by the bind already. Elsewhere only listening tells.
const BIND_TELLS: bool = cfg!(target_os = "linux");

/// Whether the claim could be met now, without being in anybody's way.
///
/// TCP: a bind with `SO_REUSEADDR`, as servers do, so connections that linger (`TIME_WAIT`) are no conflict.
/// Linux refuses it where somebody listens, so the probe itself never does: two probes of one port allow
/// each other, and none is ever taken for a server. Where the address cannot be tried (not ours, or a
/// privileged port), and for UDP, where a bound socket is a holder already, the kernel's list decides.
pub fn is_free(claim: &Claim) -> Result<bool, PortError> {
    for address in &claim.addresses {
        let alone = Claim {
            addresses: vec![*address],
            ..claim.clone()
        };
        if claim.protocol == Protocol::Udp && sockets::LISTS_DATAGRAMS {
            if sockets::datagrams_exclude(&alone)? {
                return Ok(false);
            }
            continue;
        }
        match probe(SocketAddr::new(*address, claim.port), claim.protocol) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(false),
            Err(_) => {
                if !sockets::blocking(&alone)?.is_empty() {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

fn probe(address: SocketAddr, protocol: Protocol) -> io::Result<()> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if protocol == Protocol::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if protocol == Protocol::Tcp && !BIND_TELLS {
        socket.listen(1)?;
    }
    Ok(())
}

/// Why no server of this user can have a port, whoever has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Below `net.ipv4.ip_unprivileged_port_start`, without `CAP_NET_BIND_SERVICE`.
    Privileged,
    /// No interface of this machine has the address.
    NoSuchAddress,
}

/// Whether a server of this user could have the port if nobody else had it: the kernel is asked, by a bind that
/// lasts for microseconds. It judges TCP and UDP alike.
pub fn barrier(address: SocketAddr) -> Option<Barrier> {
    match probe(address, Protocol::Tcp).map_err(|error| error.kind()) {
        Err(io::ErrorKind::PermissionDenied) => Some(Barrier::Privileged),
        Err(io::ErrorKind::AddrNotAvailable) if !address.ip().is_unspecified() => {
            Some(Barrier::NoSuchAddress)
        }
        Ok(()) | Err(_) => None,
    }
}

/// Where the kernel says which ports are for everybody (ip-sysctl).
const FIRST_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// What it says where it does not say.
const USUAL_FIRST_PORT: u16 = 1024;

/// The first port that a server of this user may have; 0: all of them. The setting tells the limit, and a bind just
/// below it whether it is one for us.
pub fn first_permitted() -> u16 {
    let first = std::fs::read_to_string(FIRST_PORT)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(USUAL_FIRST_PORT);
    let below = match first {
        0 | 1 => return 0,
        first => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), first - 1),
    };
    match barrier(below) {
        Some(Barrier::Privileged) => first,
        Some(Barrier::NoSuchAddress) | None => 0,
    }
}

/// Waits until the claim is free.
///
/// `before` are those who had it and were stopped. [`PortError::TakenAgain`] as soon as somebody else
/// holds it (a supervisor's new child, or a thief): trying again would only go in circles. Not at once for a
/// forwarder of wharf's, which closes by itself when its service is gone. [`PortError::NotFree`] after `timeout`.
pub fn await_free(claim: &Claim, before: &[Holder], timeout: Duration) -> Result<(), PortError> {
    let end = Instant::now() + timeout;
    let mut pause = PAUSES.0;
    loop {
        if is_free(claim)? {
            return Ok(());
        }
        let door = match newcomer(claim, before)? {
            Some(Newcomer::Other(error)) => return Err(error),
            Some(Newcomer::Door(error)) => Some(error),
            None => None,
        };
        let now = Instant::now();
        if now >= end {
            if let Some(error) = door {
                return Err(error);
            }
            return Err(PortError::NotFree {
                claim: claim.clone(),
                seconds: timeout.as_secs(),
                by: owner::look_up_to(Depth::Bound, std::slice::from_ref(claim))?
                    .held
                    .iter()
                    .flat_map(|held| &held.holders)
                    .map(Holder::describe)
                    .collect(),
            });
        }
        thread::sleep(pause.min(end - now));
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Who listens where the claim wants to, other than `before`: [`PortError::TakenAgain`] with its
/// supervisor, or `None`.
pub fn taken_again(claim: &Claim, before: &[Holder]) -> Result<Option<PortError>, PortError> {
    Ok(newcomer(claim, before)?.map(|(Newcomer::Other(error) | Newcomer::Door(error))| error))
}

/// Somebody who listens on a port that others had.
pub(super) enum Newcomer {
    /// Whoever it is: [`PortError::TakenAgain`].
    Other(PortError),
    /// A forwarder of wharf's: it follows services, a moment behind them, and closes when it sees that they are gone.
    Door(PortError),
}

/// Who listens where the claim wants to, other than `before`. Anybody comes before a forwarder, which may stand in for
/// him.
pub(super) fn newcomer(claim: &Claim, before: &[Holder]) -> Result<Option<Newcomer>, PortError> {
    let known: BTreeSet<u64> = before
        .iter()
        .flat_map(|holder| &holder.sockets)
        .map(|socket| socket.inode)
        .collect();
    let mut door = None;
    for found in sockets::listening(claim)? {
        let inode = found.socket.inode;
        if !found.socket.listening || known.contains(&inode) {
            continue;
        }
        let pids = descriptors::pids_holding(&[inode], None);
        let facts: Vec<_> = pids
            .iter()
            .filter_map(|pid| process::process_facts(*pid))
            .collect();
        // A former holder may open another socket on its way out.
        if facts
            .iter()
            .any(|facts| was_there(before, facts.pid, facts.start_time))
        {
            continue;
        }
        let Some(new) = facts.into_iter().next() else {
            // Gone between the two looks, or not ours to see.
            if sockets::listening(claim)?
                .iter()
                .any(|again| again.socket.inode == inode)
            {
                return Ok(Some(Newcomer::Other(PortError::TakenAgain {
                    again: !before.is_empty(),
                    claim: claim.clone(),
                    who: format!("a process of uid {}", found.socket.uid),
                    hint: None,
                })));
            }
            continue;
        };
        let error = supervisor::explain_return(claim, before, &new);
        if !protect::is_forwarder(&new) {
            return Ok(Some(Newcomer::Other(error)));
        }
        door.get_or_insert(Newcomer::Door(error));
    }
    Ok(door)
}

fn was_there(before: &[Holder], pid: u32, start_time: u64) -> bool {
    before.iter().any(|holder| match &holder.who {
        Who::Process(facts) => facts.pid == pid && facts.start_time == start_time,
        Who::Unit { main, .. } => main
            .as_ref()
            .is_some_and(|facts| facts.pid == pid && facts.start_time == start_time),
        Who::Container(_) | Who::Unknown { .. } | Who::Kernel => false,
    })
}

/// The first `count` ports from `from` upwards that are free on all `addresses` and not in `taken`,
/// ascending; `None` if there are not so many.
pub fn next_free(
    from: u16,
    addresses: &[IpAddr],
    protocol: Protocol,
    count: usize,
    taken: &BTreeSet<u16>,
) -> Option<Vec<u16>> {
    let mut found = Vec::with_capacity(count);
    let mut port = from.max(1);
    while found.len() < count {
        if !taken.contains(&port) && could_have(port, addresses, protocol) {
            found.push(port);
        }
        if found.len() < count {
            port = port.checked_add(1)?;
        }
    }
    Some(found)
}

fn could_have(port: u16, addresses: &[IpAddr], protocol: Protocol) -> bool {
    is_free(&Claim {
        service: String::new(),
        number: 1,
        addresses: addresses.to_vec(),
        port,
        protocol,
    })
    .unwrap_or(false)
}
