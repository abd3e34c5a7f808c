//! Host ports that a project claims twice: what `up` refuses and `config` accepts.

use super::diagnostic::Diagnostic;
use super::model::{Port, Project};

/// One fixed claim of a service.
struct Claim<'a> {
    service: &'a str,
    place: &'a str,
    port: &'a Port,
    number: u16,
}

/// Finds fixed host ports that two services claim, or one service for several replicas.
pub fn check_ports(project: &Project) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut claims: Vec<Claim<'_>> = Vec::new();
    for service in project.services.values() {
        for port in &service.ports {
            // A range leaves the choice to whoever publishes it.
            let Some((number, last)) = port.published else {
                continue;
            };
            if number != last {
                continue;
            }
            let claim = Claim {
                service: &service.name,
                place: &service.place,
                port,
                number,
            };
            if service.scale.unwrap_or(1) > 1 {
                found.push(replicas(&claim, service.scale.unwrap_or(1)));
            }
            if let Some(other) = claims.iter().find(|other| other.meets(&claim)) {
                found.push(twice(other, &claim));
            }
            claims.push(claim);
        }
    }
    found
}

impl Claim<'_> {
    /// Whether both cannot be held at once: the same port and protocol on a common address.
    fn meets(&self, other: &Claim<'_>) -> bool {
        let addresses_meet = match (self.port.host_ip, other.port.host_ip) {
            (None, _) | (_, None) => true,
            (Some(a), Some(b)) => {
                a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
            }
        };
        self.number == other.number && self.port.protocol == other.port.protocol && addresses_meet
    }
}

fn twice(first: &Claim<'_>, second: &Claim<'_>) -> Diagnostic {
    Diagnostic::error(format!(
        "`{}` and `{}` both publish host port {}",
        first.service, second.service, second.number
    ))
    .key(format!("services.{}.ports", second.service))
    .note(format!("`{}` is at {}", first.service, first.place))
    .note(format!("`{}` is at {}", second.service, second.place))
    .hint("give one of them another host port, or leave the host port out")
}

fn replicas(claim: &Claim<'_>, count: u32) -> Diagnostic {
    Diagnostic::error(format!(
        "{count} replicas of `{}` cannot all publish host port {}",
        claim.service, claim.number
    ))
    .key(format!("services.{}.ports", claim.service))
    .note(format!("`{}` is at {}", claim.service, claim.place))
    .hint("publish a range of ports, or leave the host port out")
}
