//! What an instance needs: addresses, a port and a protocol. Pure data and the overlap rule.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port on host addresses that one instance needs.
///
/// A claim is a value with an owner, not a number: later it may carry the listening socket itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The service that needs it.
    pub service: String,
    /// The replica that needs it, from 1.
    pub number: u32,
    /// The addresses it is needed on: one, or both wildcards where the compose file names none.
    pub addresses: Vec<IpAddr>,
    /// The port on the host; never 0.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
}

impl Claim {
    /// The addresses that a `ports:` entry without a host address means.
    pub fn any_address() -> Vec<IpAddr> {
        vec![
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ]
    }

    /// A port on all addresses, for nobody's sake.
    pub fn anywhere(port: u16, protocol: Protocol) -> Self {
        Self {
            service: String::new(),
            number: 1,
            addresses: Self::any_address(),
            port,
            protocol,
        }
    }

    /// Whether a listener on `ip` (`only_v6` as in `IPV6_V6ONLY`) excludes this claim.
    pub fn conflicts_with(&self, ip: IpAddr, only_v6: bool) -> bool {
        self.addresses
            .iter()
            .any(|wanted| overlaps(*wanted, ip, only_v6))
    }

    /// Whether two claims cannot both be met.
    pub fn collides_with(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && other
                .addresses
                .iter()
                .any(|ip| self.conflicts_with(*ip, true))
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addresses.as_slice() {
            [ip] if !ip.is_unspecified() => {
                write!(
                    f,
                    "{}/{}",
                    std::net::SocketAddr::new(*ip, self.port),
                    self.protocol
                )
            }
            _ => write!(f, "{}/{}", self.port, self.protocol),
        }
    }
}

/// Whether a bind to `wanted` fails while a listener sits on `held`, as Linux decides it
/// (`inet_rcv_saddr_equal`): same family and equal or one a wildcard; across families only through a
/// dual-stack `::` (`ipv6(7)`, `IPV6_V6ONLY`) or a v4-mapped address.
pub fn overlaps(wanted: IpAddr, held: IpAddr, held_only_v6: bool) -> bool {
    let dual_stack = held == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !held_only_v6;
    match (wanted.to_canonical(), held.to_canonical()) {
        (IpAddr::V4(wanted), IpAddr::V4(held)) => {
            wanted == held || wanted.is_unspecified() || held.is_unspecified()
        }
        (IpAddr::V6(wanted), IpAddr::V6(held)) => {
            wanted == held || wanted.is_unspecified() || held.is_unspecified()
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => dual_stack,
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}
