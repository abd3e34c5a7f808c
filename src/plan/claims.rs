//! The ports of a project: those that instances to be started need, and, for `wharf ports`, all that its
//! instances have or missing ones need. Pure; who holds them is looked up by the caller.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::plan::decide::{Decided, Decision, decide};
use crate::plan::ports::{Need, needs};
use crate::plan::spec::recorded_ports;
use crate::plan::{Inputs, Plan};
use crate::port::claim::{Claim, Protocol};
use crate::state::{BackendKind, Instance};

/// The ports that the instances to be started need: what to look up before planning.
pub fn claims(inputs: &Inputs<'_>) -> Vec<Claim> {
    let mut claims = Vec::new();
    let first_port = inputs.observed.first_port;
    // What is not started needs its ports later.
    if inputs.policy.no_start {
        return claims;
    }
    for decided in decide(inputs).values() {
        for decision in &decided.decisions {
            let number = match decision {
                Decision::Create { number, .. } => *number,
                Decision::Start(instance) => instance.number,
                Decision::Keep(_)
                | Decision::Unpause(_)
                | Decision::Restart(..)
                | Decision::Drop(..) => continue,
            };
            let mut all = needs(&decided.service, number, decided.backend, first_port);
            if let Decision::Start(instance) = decision {
                all.extend(recorded_needs(decided, instance));
            }
            for need in all.iter().filter(|need| need.given().is_none()) {
                for &port in &need.candidates {
                    let claim = need.claim(&decided.service.name, number, port);
                    if !claims.contains(&claim) {
                        claims.push(claim);
                    }
                }
            }
        }
    }
    claims
}

/// The ports that those of these local services which a plan starts are to listen on.
pub fn of_started<'a>(plan: &Plan, instances: impl Iterator<Item = &'a Instance>) -> Vec<Claim> {
    let started: Vec<&str> = plan
        .steps
        .iter()
        .filter_map(|step| step.action.makes_or_starts())
        .filter(|(backend, _)| *backend == BackendKind::Process)
        .map(|(_, name)| name)
        .collect();
    instances
        .filter(|instance| started.contains(&instance.name.as_str()))
        .flat_map(|instance| published(instance, false))
        .collect()
}

/// The ports that an instance was made with, and cannot exchange for others any more.
pub(super) fn recorded_needs(decided: &Decided<'_>, instance: &Instance) -> Vec<Need> {
    let recorded = recorded_ports(&decided.service, instance);
    let mut all = needs(&decided.service, instance.number, decided.backend, 0);
    for need in &mut all {
        let port = recorded
            .iter()
            .find(|port| port.target == need.port.target)
            .and_then(|port| port.published);
        // A container that does not run publishes nothing; its label still says where it answered.
        let answered = instance
            .readiness
            .as_ref()
            .filter(|readiness| readiness.target == need.port.target)
            .map(|readiness| readiness.address.port())
            .filter(|port| *port != 0);
        if let Some(published) = port.or(answered) {
            need.candidates = vec![published];
            // One that nobody publishes may be exchanged with the instance.
            need.anywhere &= need.exposed;
        }
    }
    all
}

/// One port that a project has or needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The port, and the replica that has or needs it.
    pub claim: Claim,
    /// Where the replica lives or will live.
    pub backend: BackendKind,
}

/// The ports of all services that take part, by service and replica. Ports that the engine chooses are
/// listed once it has chosen.
pub fn all(inputs: &Inputs<'_>) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let first_port = inputs.observed.first_port;
    for decided in decide(inputs).values() {
        for decision in &decided.decisions {
            let claims = match decision {
                Decision::Keep(instance)
                | Decision::Unpause(instance)
                | Decision::Restart(instance, _) => published(instance, false),
                Decision::Start(instance) => {
                    let recorded = published(instance, false);
                    if recorded.is_empty() {
                        needed(decided, instance.number, first_port)
                    } else {
                        recorded
                    }
                }
                Decision::Create { number, .. } => needed(decided, *number, first_port),
                Decision::Drop(..) => continue,
            };
            wanted.extend(claims.into_iter().map(|claim| Wanted {
                claim,
                backend: decided.backend,
            }));
        }
    }
    wanted
}

/// The ports of instances that are alive, where no file says what there should be.
pub fn of(instances: &[Instance]) -> Vec<Wanted> {
    alive(instances, false)
}

/// The same, with those that processes have for their neighbours alone.
pub fn given(instances: &[Instance]) -> Vec<Wanted> {
    alive(instances, true)
}

fn alive(instances: &[Instance], exposed: bool) -> Vec<Wanted> {
    instances
        .iter()
        .filter(|instance| instance.status.is_alive())
        .flat_map(|instance| {
            let claims = published(instance, exposed).into_iter();
            claims.map(|claim| Wanted {
                claim,
                backend: instance.backend,
            })
        })
        .collect()
}

/// The ports that are not for those who may have others: of processes that stay (one that has not begun to
/// listen yet shows nowhere else), and those that a replica to be started can have no other for.
pub(super) fn reserved_ports(decided: &BTreeMap<String, Decided<'_>>) -> Vec<Claim> {
    let mut reserved = Vec::new();
    for decided in decided.values() {
        for decision in &decided.decisions {
            let (number, all) = match decision {
                Decision::Keep(instance)
                | Decision::Unpause(instance)
                | Decision::Restart(instance, _) => {
                    if instance.backend == BackendKind::Process {
                        reserved.extend(published(instance, true));
                    }
                    continue;
                }
                Decision::Start(instance) => (instance.number, recorded_needs(decided, instance)),
                Decision::Create { number, .. } => (
                    *number,
                    needs(&decided.service, *number, decided.backend, 0),
                ),
                Decision::Drop(..) => continue,
            };
            for need in all.iter().filter(|need| !need.anywhere) {
                if let [port] = need.candidates[..] {
                    reserved.push(need.claim(&decided.service.name, number, port));
                }
            }
        }
    }
    reserved
}

/// What an instance publishes, or will when it is started; `exposed`: and what it has for its neighbours alone.
pub fn published(instance: &Instance, exposed: bool) -> Vec<Claim> {
    let mut ports: BTreeMap<(u16, Protocol), Vec<IpAddr>> = BTreeMap::new();
    for publisher in instance
        .publishers
        .iter()
        .filter(|publisher| publisher.published != 0)
        .filter(|publisher| exposed || !instance.keeps(publisher))
    {
        let addresses = ports
            .entry((publisher.published, publisher.protocol))
            .or_default();
        match publisher.ip {
            Some(ip) => addresses.push(ip),
            None => addresses.extend(Claim::any_address()),
        }
    }
    ports
        .into_iter()
        .map(|((port, protocol), addresses)| Claim {
            service: instance.service.clone(),
            number: instance.number,
            addresses,
            port,
            protocol,
        })
        .collect()
}

/// What a replica that is not there would ask for first.
fn needed(decided: &Decided<'_>, number: u32, first_port: u16) -> Vec<Claim> {
    needs(&decided.service, number, decided.backend, first_port)
        .iter()
        .filter(|need| !need.exposed)
        .filter_map(|need| {
            let port = *need.candidates.first()?;
            Some(need.claim(&decided.service.name, number, port))
        })
        .collect()
}
