//! `wharf who`: who has a port, whatever it is and whoever started it. What is looked up and how a port is
//! named on the command line serves `free`, `next-port` and `ports`, too.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::backend::holders::Look;
use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::port::claim::{Claim, Protocol};
use crate::port::holder::{ContainerFacts, Holder};
use crate::port::owner::Depth;
use crate::port::release::{Consequences, consequences_of_each, how_released};
use crate::port::report::{Means, PortReport};

/// What `--format json` prints beside what its names say.
const AS_DATA: &str = "\
With --format json, each port is an object with `port`, `protocol`, `addresses` and `holders`,
which is empty for a free port. A holder has `kind`, `pid`, `uid`, `user`, `command`, `cwd`, `exe`,
`started`, `age_seconds`, `container`, `unit`, `protected`, `reason` and `release`, and where there
is something to tell:
  service       the service of wharf's that it is
  consequences  what else its release means, in words
  also_listens  the other ports that go with it: `port`, `protocol`, and `pid` (null: a container)
  tracer        who traces it, as a debugger does: `pid`, `name`";

/// Show who has a port and how it would be released
///
/// Exits with 1 unless all of them are free.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AS_DATA)]
pub(super) struct Args {
    /// A port, `8000-8010`, or `5353/udp`
    #[arg(value_name = "PORT", required = true)]
    ports: Vec<Ports>,
    /// UDP ports where no protocol is given
    #[arg(long)]
    udp: bool,
    /// `table` or `json` (one object a line)
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let all = look(context, Depth::Bound, &claims(&args.ports, args.udp)).await?;
    for seen in &all {
        if args.format == "json" {
            context
                .ui
                .data(serde_json::to_string(&seen.report()).map_err(Error::failed)?);
        } else {
            seen.lines().iter().for_each(|line| context.ui.data(line));
        }
    }
    verdict(&all)
}

/// For scripts: 0 if all ports are free. The answer itself was printed.
pub(super) fn verdict(all: &[Seen]) -> Result<()> {
    if all.iter().all(Seen::is_free) {
        Ok(())
    } else {
        Err(Error::service(1))
    }
}

/// Ports as they are named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    first: u16,
    last: u16,
    protocol: Option<Protocol>,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (numbers, protocol) = match text.split_once('/') {
            Some((numbers, "tcp")) => (numbers, Some(Protocol::Tcp)),
            Some((numbers, "udp")) => (numbers, Some(Protocol::Udp)),
            Some((_, other)) => return Err(format!("`{other}` is neither tcp nor udp")),
            None => (text, None),
        };
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let port = |text: &str| {
            text.parse::<u16>()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("`{text}` is not a port: 1 to 65535"))
        };
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(format!("{first} is above {last}"));
        }
        Ok(Self {
            first,
            last,
            protocol,
        })
    }
}

/// One claim for each port that was named, on all addresses, in the order given.
pub(super) fn claims(ports: &[Ports], udp: bool) -> Vec<Claim> {
    let default = if udp { Protocol::Udp } else { Protocol::Tcp };
    let mut claims = Vec::new();
    let mut known = BTreeSet::new();
    for asked in ports {
        let protocol = asked.protocol.unwrap_or(default);
        for port in asked.first..=asked.last {
            if known.insert((port, protocol)) {
                claims.push(Claim::anywhere(port, protocol));
            }
        }
    }
    claims
}

/// What was found out about one port.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) claim: Claim,
    /// All who have it.
    pub(super) holders: Vec<Holder>,
    /// Whether it cannot be had although nobody listens: an outgoing connection has it as its own end.
    pub(super) in_use: bool,
    /// Stopped containers that take it when they are started.
    pub(super) reserved: Vec<ContainerFacts>,
    /// Of each holder, what else its release means, in words.
    consequences: Vec<Consequences>,
}

/// Looks all claims up, with the containers of every engine of this machine.
pub(super) async fn look(context: &Context, depth: Depth, claims: &[Claim]) -> Result<Vec<Seen>> {
    let backends = context.backends()?;
    let look = backends.look(depth, claims).await?;
    for engine in &look.silent {
        context.ui.note(format!(
            "the engine at {engine} does not answer: its containers are not named"
        ));
    }
    for engine in &look.closed {
        let group = engine.group.as_ref().map_or_else(String::new, |group| {
            format!(", or join its group and log in again: sudo usermod -aG {group} \"$USER\"")
        });
        context.ui.note(format!(
            "the engine at {} may not be asked by you (permission denied): its containers are not named; ask with sudo{group}",
            engine.endpoint
        ));
    }
    Ok(seen(claims, &look))
}

/// The same without asking engines about ports that nobody listens on: for stacks that need no engine.
pub(super) async fn look_without_engines(context: &Context, claims: &[Claim]) -> Result<Vec<Seen>> {
    let held = context.backends()?.held(Depth::Everybody, claims).await?;
    let look = Look {
        held,
        ..Look::default()
    };
    Ok(seen(claims, &look))
}

fn seen(claims: &[Claim], look: &Look) -> Vec<Seen> {
    claims
        .iter()
        .map(|claim| {
            let mut of_claim = look.held.iter().filter(|held| held.claim == *claim);
            let holders: Vec<Holder> = of_claim
                .clone()
                .flat_map(|held| held.holders.clone())
                .collect();
            let mut reserved: Vec<ContainerFacts> = look
                .reserved
                .iter()
                .filter(|port| {
                    (port.port, port.protocol) == (claim.port, claim.protocol)
                        && claim.conflicts_with(port.ip, true)
                })
                .map(|port| port.container.clone())
                .collect();
            reserved.dedup();
            Seen {
                claim: claim.clone(),
                in_use: holders.is_empty() && of_claim.next().is_some(),
                consequences: consequences_of_each(&holders, claim),
                holders,
                reserved,
            }
        })
        .collect()
}

impl Seen {
    pub(super) fn is_free(&self) -> bool {
        self.holders.is_empty() && !self.in_use
    }

    /// The holders, each with what else its release means.
    pub(super) fn each(&self) -> impl Iterator<Item = (&Holder, &Vec<String>)> {
        let lines = self.consequences.iter().map(|it| &it.lines);
        self.holders.iter().zip(lines)
    }

    /// What else the release of all of them means.
    pub(super) fn consequences(&self) -> Vec<String> {
        let each = self.consequences.iter();
        each.flat_map(|it| it.lines.clone()).collect()
    }

    pub(super) fn report(&self) -> PortReport {
        let mut report = PortReport {
            reserved: self.reserved.iter().map(Into::into).collect(),
            ..PortReport::of(&self.claim, &self.holders)
        };
        for (holder, found) in report.holders.iter_mut().zip(&self.consequences) {
            holder.consequences.clone_from(&found.lines);
            holder.also_listens.clone_from(&found.also_listens);
        }
        report
    }

    fn lines(&self) -> Vec<String> {
        let claim = &self.claim;
        let mut lines = Vec::new();
        if self.in_use {
            lines.push(format!(
                "port {claim} cannot be had: an outgoing connection has it as its own end; it passes with that"
            ));
        } else if self.holders.is_empty() {
            lines.push(format!("port {claim} is free"));
        }
        for (holder, consequences) in self.each() {
            lines.push(format!("port {claim} is held by {}", holder.describe()));
            lines.extend(holder.facts().into_iter().map(|fact| format!("  {fact}")));
            lines.extend(consequences.iter().map(|line| format!("  {line}")));
            lines.push(format!("  {}", released(claim, holder)));
        }
        for container in &self.reserved {
            lines.push(format!(
                "  container {} is stopped and takes it when it is started",
                container.name
            ));
        }
        lines
    }
}

/// How a holder would be released, in words.
pub(super) fn released(claim: &Claim, holder: &Holder) -> String {
    let force = || {
        let flag = if holder.needs_flag() { " --force" } else { "" };
        format!("wharf free {}{}{flag}", claim.port, suffix(claim))
    };
    match (holder.obstacle(true), Means::of(holder)) {
        (None, Means::Signal) if holder.orphan => format!(
            "released by {}: no engine has a container for this proxy",
            force()
        ),
        (None, Means::Signal) if !holder.carries.is_empty() => format!(
            "released by {}: it closes when the service is stopped, which its own supervisor does",
            force()
        ),
        (None, Means::Signal) if is_wharfs(holder) => format!(
            "released by {}: a service of wharf's, which its own supervisor stops",
            force()
        ),
        (None, Means::Signal) => {
            format!(
                "released by {}: a signal, then SIGKILL after its grace",
                force()
            )
        }
        (None, Means::EngineStop) => format!(
            "released by {}: a stop by its engine, as {}",
            force(),
            how_released(holder)
        ),
        (None, Means::Systemctl) => {
            format!("released by {}: {}", force(), how_released(holder))
        }
        (None, Means::None) => format!("released by: {}", how_released(holder)),
        (Some(reason), _) if holder.protected.is_some() => format!("never stopped: {reason}"),
        (Some(reason), _) => {
            let command = how_released(holder);
            if reason.contains(&command) {
                format!("not released by wharf: {reason}")
            } else {
                format!("not released by wharf: {reason}: {command}")
            }
        }
    }
}

/// Whether it is a process that wharf started for a project.
fn is_wharfs(holder: &Holder) -> bool {
    holder.service.is_some()
}

fn suffix(claim: &Claim) -> &'static str {
    match claim.protocol {
        Protocol::Tcp => "",
        Protocol::Udp => "/udp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_named_as_people_name_them() {
        let ports = |text: &str| {
            let parsed = text.parse::<Ports>()?;
            Ok::<_, String>((parsed.first, parsed.last, parsed.protocol))
        };
        assert_eq!(ports("8003"), Ok((8003, 8003, None)));
        assert_eq!(ports("8000-8002"), Ok((8000, 8002, None)));
        assert_eq!(ports("53/udp"), Ok((53, 53, Some(Protocol::Udp))));
        for wrong in ["", "0", "65536", "x", "80/sctp", "9-8", "80-", "-80"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_named_twice_is_looked_up_once() {
        let named = ["80-81", "81", "81/udp"].map(|text| text.parse::<Ports>().unwrap());
        let found: Vec<String> = claims(&named, false)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["80/tcp", "81/tcp", "81/udp"]);
    }
}
