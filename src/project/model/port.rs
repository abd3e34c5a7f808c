//! `services.*.ports`.

use std::net::IpAddr;

use crate::port::claim::Protocol;

/// A port of a protocol that wharf has no claims on (SCTP): the engine gets it as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawPort {
    /// `port/protocol` inside the container.
    pub target: String,
    /// The port or range of ports on the host; empty: the engine chooses.
    pub published: String,
    /// The address on the host; empty: all of them.
    pub host_ip: String,
}

/// One port mapping, long form, ranges expanded
/// (compose specification, 05-services, section `ports`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port inside the container.
    pub target: u16,
    /// The port or range of ports on the host (`first`, `last`, inclusive); `None`: the engine chooses.
    pub published: Option<(u16, u16)>,
    /// The address on the host; `None`: all of them.
    pub host_ip: Option<IpAddr>,
    /// The transport.
    pub protocol: Protocol,
    /// The protocol spoken on it: `http`, `https`, `ws`, `wss`, or any other word.
    pub app_protocol: Option<String>,
    /// `host` or `ingress`.
    pub mode: Option<String>,
    /// A name for people.
    pub name: Option<String>,
}

impl Port {
    /// Whether the port on the host is one of several.
    pub fn is_range(&self) -> bool {
        matches!(self.published, Some((first, last)) if first != last)
    }
}
