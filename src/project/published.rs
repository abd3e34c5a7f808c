//! The cast tree → the ports that a service publishes.

use std::net::IpAddr;

use super::diagnostic::Diagnostic;
use super::model::{Port, RawPort};
use super::report::Report;
use super::tree::Node;
use super::typed::{int, items, owned};
use crate::port::claim::Protocol;

/// The ports that a service publishes, ranges kept as they are.
pub(crate) fn ports(name: &str, node: &Node, report: &mut Report) -> Vec<Port> {
    let mut ports = Vec::new();
    for (index, item) in items(node, "ports").iter().enumerate() {
        if item.text("protocol") == Some("sctp") {
            continue;
        }
        match port(item) {
            Ok(port) => ports.push(port),
            Err((key, message)) => report.add(
                Diagnostic::error(message)
                    .at(item.get(key).and_then(Node::place).or_else(|| item.place()))
                    .key(format!("services.{name}.ports[{index}].{key}"))
                    .label("cannot be used")
                    .hint("ports are numbers from 1 to 65535"),
            ),
        }
    }
    ports
}

/// The ports of protocols that wharf has no claims on.
pub(crate) fn raw_ports(node: &Node) -> Vec<RawPort> {
    let raw = |item: &&Node| item.text("protocol") == Some("sctp");
    items(node, "ports")
        .iter()
        .filter(raw)
        .map(|item| RawPort {
            target: format!("{}/sctp", int(item, "target").unwrap_or_default()),
            published: owned(item, "published").unwrap_or_default(),
            host_ip: owned(item, "host_ip").unwrap_or_default(),
        })
        .collect()
}

fn port(node: &Node) -> Result<Port, (&'static str, String)> {
    let target = int(node, "target").unwrap_or_default();
    let target = u16::try_from(target)
        .ok()
        .filter(|target| *target != 0)
        .ok_or_else(|| ("target", format!("{target} is not a port")))?;
    let published = match owned(node, "published") {
        None => None,
        Some(text) => {
            let number = |part: &str| {
                part.parse::<u16>()
                    .map_err(|_| ("published", format!("`{text}` is not a port")))
            };
            let (first, last) = text.split_once('-').unwrap_or((&text, &text));
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(("published", format!("the range `{text}` runs backwards")));
            }
            // Port 0 asks the engine to choose, as no port does.
            (last != 0).then_some((first, last))
        }
    };
    let host_ip = match owned(node, "host_ip") {
        None => None,
        Some(text) => Some(
            text.parse::<IpAddr>()
                .map_err(|_| ("host_ip", format!("`{text}` is not an IP address")))?,
        ),
    };
    let protocol = match node.text("protocol").unwrap_or("tcp") {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(("protocol", format!("`{other}` is not a protocol"))),
    };
    Ok(Port {
        target,
        published,
        host_ip,
        protocol,
        app_protocol: owned(node, "app_protocol"),
        mode: owned(node, "mode"),
        name: owned(node, "name"),
    })
}
