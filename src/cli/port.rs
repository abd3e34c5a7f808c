//! `wharf port`

use clap::ValueEnum;

use crate::cli::context::Context;
use crate::cli::replica::replica;
use crate::error::{Error, Result};
use crate::port::claim::Protocol;
use crate::state::{Instance, Publisher};

/// Print the address on the host that a port of a service is published on
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The port in the container, or the port that the compose file gives a process
    #[arg(value_name = "PRIVATE_PORT")]
    port: u16,
    /// The transport
    #[arg(
        long,
        value_enum,
        value_name = "PROTOCOL",
        default_value = "tcp",
        ignore_case = true
    )]
    protocol: Transport,
    /// The replica's number [default: the lowest that runs]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = replica)]
    index: Option<u32>,
}

/// `--protocol`
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let services = std::slice::from_ref(&args.service);
    let sight = named.sight(context.ui, &backends, services).await?;
    let instances = sight.instances;
    named.check_services(services, &instances)?;
    let wanted = |instance: &&Instance| {
        instance.service == args.service
            && !instance.one_off
            && instance.status.is_alive()
            && args
                .index
                .is_none_or(|index| index == 0 || index == instance.number)
    };
    let instance = instances
        .iter()
        .filter(wanted)
        .min_by_key(|instance| instance.number)
        .ok_or_else(|| not_running(args))?;
    let protocol = match args.protocol {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    };
    let found = instance
        .published()
        .find(|port| port.target == args.port && port.protocol == protocol)
        .ok_or_else(|| unpublished(args, protocol, instance))?;
    // As Compose prints it, IPv6 addresses without brackets too; `:0` for a port that is only exposed.
    context.ui.data(match found.ip {
        Some(ip) => format!("{ip}:{}", found.published),
        None => format!(":{}", found.published),
    });
    Ok(())
}

fn not_running(args: &Args) -> Error {
    let number = args.index.filter(|index| *index != 0);
    let number = number.map(|number| format!(" container #{number}"));
    Error::failed(format!(
        "service {:?} is not running{}",
        args.service,
        number.unwrap_or_default()
    ))
    .hint(format!("wharf up -d {}", args.service))
}

fn unpublished(args: &Args, protocol: Protocol, instance: &Instance) -> Error {
    let mut error = Error::failed(format!(
        "no port {}/{protocol} for {} {}",
        args.port, instance.backend, instance.name
    ));
    let has = |port: &Publisher| format!("{}/{}", port.target, port.protocol);
    let mut ports: Vec<String> = instance.published().map(has).collect();
    ports.dedup();
    if !ports.is_empty() {
        error = error.detail(format!("it has {}", ports.join(", ")));
    }
    error
}
