//! Systems without `sock_diag`: no listing yet, so holders are found by the engine and by the bind probe
//! alone.

use std::io;

use super::{Bound, Connection};
use crate::port::claim::Protocol;

pub(super) fn bound(_port: u16, _protocol: Protocol) -> io::Result<Vec<Bound>> {
    Ok(Vec::new())
}

pub(super) fn listening(port: u16, protocol: Protocol) -> io::Result<Vec<Bound>> {
    bound(port, protocol)
}

pub(super) fn datagrams(port: u16) -> io::Result<Vec<Bound>> {
    bound(port, Protocol::Udp)
}

pub(super) fn connections(_port: u16, _remote: u16, _closing: bool) -> io::Result<Vec<Connection>> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn ask_bound(_port: u16, _protocol: Protocol) -> io::Result<Vec<Bound>> {
    Err(io::ErrorKind::Unsupported.into())
}
