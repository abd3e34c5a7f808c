//! `wharf next-port`: free ports from a number upwards, for scripts and for `.env` files.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::cli::context::Context;
use crate::cli::who::anywhere;
use crate::error::{Error, Result};
use crate::port::claim::{Claim, Protocol};
use crate::port::release::next_free;
use crate::port::report::PortReport;

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
        let mut claim = anywhere(port, protocol);
        if let Some(host) = args.host {
            claim.addresses = vec![host];
        }
        claim
    };
    let backends = context.backends()?;
    // What a container publishes without a socket, and what a stopped one will take, looks free.
    let census = backends.containers.census(true).await;
    let any: Claim = claim(args.from);
    let taken: BTreeSet<u16> = census
        .published
        .iter()
        .chain(&census.reserved)
        .filter(|port| port.protocol == protocol && any.conflicts_with(port.ip, true))
        .map(|port| port.port)
        .collect();
    let count = usize::from(args.count);
    let found = next_free(args.from, &any.addresses, protocol, count, &taken).ok_or_else(|| {
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
