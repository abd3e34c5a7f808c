//! `wharf next-port`: free ports from a number upwards, for scripts and for `.env` files.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::backend::BackendError;
use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::port::claim::{Claim, Protocol};
use crate::port::release::{Barrier, barrier, next_free};
use crate::port::report::PortReport;
use crate::port::sockets;

/// Print the next free ports, ascending
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The first port that would do
    #[arg(value_name = "FROM", value_parser = clap::value_parser!(u16).range(1..))]
    from: u16,
    /// How many ports
    #[arg(value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// UDP ports
    #[arg(long)]
    udp: bool,
    /// Address on which they must be free [default: all]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// `table` or `json` (one object a line)
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let protocol = if args.udp {
        Protocol::Udp
    } else {
        Protocol::Tcp
    };
    let claim = |port| {
        let mut claim = Claim::anywhere(port, protocol);
        if let Some(host) = args.host {
            claim.addresses = vec![host];
        }
        claim
    };
    let any: Claim = claim(args.from);
    let from = first_permitted(context, &any)?;
    let backends = context.backends()?;
    // What a container publishes without a socket, and what a stopped one will take, looks free.
    let census = backends.containers.census(true).await;
    let mut taken: BTreeSet<u16> = census
        .published
        .iter()
        .chain(&census.reserved)
        .filter(|port| port.protocol == protocol && any.conflicts_with(port.ip, true))
        .map(|port| port.port)
        .collect();
    // What is bound and does not listen is in the way of a server without SO_REUSEADDR.
    let bound = sockets::everything(protocol).map_err(BackendError::from)?;
    let bound = bound.iter().map(|bound| &bound.socket);
    taken.extend(
        bound
            .filter(|socket| any.conflicts_with(socket.address.ip(), socket.only_v6))
            .map(|socket| socket.address.port()),
    );
    let count = usize::from(args.count);
    let found = next_free(from, &any.addresses, protocol, count, &taken).ok_or_else(|| {
        Error::failed(format!(
            "there are not {count} free ports from {} upwards",
            args.from
        ))
        .hint(format!("wharf next-port 1024 {count}"))
    })?;
    for port in found {
        if args.format == "json" {
            let report = PortReport::of(&claim(port), &[]);
            context
                .ui
                .data(serde_json::to_string(&report).map_err(Error::failed)?);
        } else {
            context.ui.data(port.to_string());
        }
    }
    Ok(())
}

/// The first port from the claim's on that this user may bind. Below it the kernel refuses, whoever has them.
fn first_permitted(context: &Context, claim: &Claim) -> Result<u16> {
    let refused = |port: u16| {
        let mut addresses = claim.addresses.iter();
        addresses.find_map(|ip| Some((*ip, barrier(SocketAddr::new(*ip, port))?)))
    };
    let mut port = claim.port;
    loop {
        match refused(port) {
            None => break,
            Some((ip, Barrier::NoSuchAddress)) => {
                return Err(Error::failed(format!(
                    "no interface of this machine has the address {ip}, so no server can listen there"
                ))
                .hint("ip -brief address"));
            }
            Some((_, Barrier::Privileged)) => {
                port = port.checked_add(1).ok_or_else(|| {
                    Error::failed(format!("you may bind no port from {} upwards", claim.port))
                        .hint("sysctl net.ipv4.ip_unprivileged_port_start")
                })?;
            }
        }
    }
    if port != claim.port {
        context.ui.note(format!(
            "ports below {port} need a privilege that you do not have (net.ipv4.ip_unprivileged_port_start)"
        ));
    }
    Ok(port)
}
