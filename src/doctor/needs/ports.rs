//! PORTS: who is in the way, which need a privilege, and which the system may give away.

use std::collections::BTreeSet;

use super::PortNeed;
use crate::doctor::Finding;
use crate::doctor::facts::Machine;
use crate::plan::placement::Placement;
use crate::port::claim::Protocol;
use crate::project::model::{Project, Service};
use crate::state::BackendKind;
pub(super) fn holders(
    ports: &[PortNeed],
    placement: &Placement,
    machine: &Machine,
) -> Vec<Finding> {
    ports
        .iter()
        .map(|need| {
            let PortNeed {
                port,
                protocol,
                service,
                held,
            } = need;
            let check = format!("port {port}/{protocol}");
            let udp = if *protocol == Protocol::Udp {
                "/udp"
            } else {
                ""
            };
            match held {
                None if *port < machine.settings.first_port
                    && placement.of(service) == BackendKind::Process =>
                {
                    Finding::missing(
                        check,
                        "you may not listen there: it needs CAP_NET_BIND_SERVICE, or another port to be published",
                        format!("sudo sysctl -w net.ipv4.ip_unprivileged_port_start={port}"),
                    )
                }
                None => Finding::ok(check, "free, or the project's own"),
                Some(hold) if hold.releasable => Finding::reduced(
                    check,
                    format!("held by {}: `up` asks before it stops anybody", hold.by),
                    format!("wharf free {port}{udp}"),
                ),
                Some(hold) => Finding::missing(
                    check,
                    format!("held by {}, which is not stopped", hold.by),
                    "wharf up --on-conflict move",
                ),
            }
            .of([service.clone()])
        })
        .collect()
}

/// Container ports of local services that others may not be able to reach them on by name.
pub(super) fn privileged(
    project: &Project,
    processes: &[&Service],
    machine: &Machine,
) -> Option<Finding> {
    let first_port = machine.settings.first_port;
    let mut at_risk: BTreeSet<(u16, String)> = BTreeSet::new();
    for service in processes {
        let form = project.services.get(&service.name);
        let ports = form.into_iter().flat_map(|service| &service.ports);
        let ports = ports
            .filter(|port| port.protocol == Protocol::Tcp && port.target < first_port)
            .filter(|port| port.published != Some((port.target, port.target)));
        at_risk.extend(ports.map(|port| (port.target, service.name.clone())));
    }
    let (first, _) = at_risk.first()?;
    if processes.len() < 2 {
        return None;
    }
    let numbers: BTreeSet<String> = at_risk.iter().map(|(port, _)| port.to_string()).collect();
    let numbers: Vec<String> = numbers.into_iter().collect();
    let hint = format!("sudo sysctl -w net.ipv4.ip_unprivileged_port_start={first}");
    let services: BTreeSet<String> = at_risk.iter().map(|(_, name)| name.clone()).collect();
    Some(
        Finding::reduced(
            "names of local services",
            format!(
                "you may not listen below {first_port}: without an engine's networks, local services do not reach \
                 each other by name on {}",
                numbers.join(", ")
            ),
            hint,
        )
        .of(services),
    )
}

/// Published ports that an outgoing connection may have when a service wants them.
pub(super) fn outgoing(
    project: &Project,
    ports: &[PortNeed],
    machine: &Machine,
) -> Option<Finding> {
    let (first, last) = machine.settings.port_range?;
    let reserved = ranges(&machine.settings.reserved_ports);
    // A port that the engine has chosen is chosen anew the next time.
    let is_fixed = |need: &&PortNeed| {
        let service = project.services.get(&need.service);
        service.is_some_and(|service| {
            service.ports.iter().any(|port| {
                let range = port.published;
                range.is_some_and(|(first, last)| (first..=last).contains(&need.port))
            })
        })
    };
    let at_risk: Vec<&PortNeed> = ports
        .iter()
        .filter(is_fixed)
        .filter(|need| (first..=last).contains(&need.port))
        .filter(|need| !reserved.iter().any(|(a, b)| (*a..=*b).contains(&need.port)))
        .collect();
    if at_risk.is_empty() {
        return None;
    }
    let numbers: BTreeSet<u16> = at_risk.iter().map(|need| need.port).collect();
    let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
    let services: BTreeSet<String> = at_risk.iter().map(|need| need.service.clone()).collect();
    let before = &machine.settings.reserved_ports;
    let before = if before.is_empty() {
        String::new()
    } else {
        format!("{before},")
    };
    Some(
        Finding::reduced(
            "published ports",
            format!(
                "{} inside {first} to {last}, the ports of outgoing connections: one may have it for a moment, \
                 and `up` then cannot",
                match numbers.as_slice() {
                    [one] => format!("{one} is"),
                    several => format!("{} are", several.join(", ")),
                }
            ),
            format!(
                "sudo sysctl -w net.ipv4.ip_local_reserved_ports={before}{}",
                numbers.join(",")
            ),
        )
        .of(services),
    )
}

/// Reads `8080,9000-9010`.
fn ranges(text: &str) -> Vec<(u16, u16)> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        })
        .collect()
}
