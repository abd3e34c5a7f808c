//! All ports of a project, those that its instances have and those that missing ones need: what `wharf ports`
//! lists. Pure; who holds them is looked up by the caller.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::plan::Inputs;
use crate::plan::decide::{Decided, Decision, decide};
use crate::plan::ports::needs;
use crate::port::claim::{Claim, Protocol};
use crate::state::{BackendKind, Instance};

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
    for decided in decide(inputs).values() {
        for decision in &decided.decisions {
            let claims = match decision {
                Decision::Keep(instance) | Decision::Restart(instance, _) => published(instance),
                Decision::Start(instance) => {
                    let recorded = published(instance);
                    if recorded.is_empty() {
                        needed(decided, instance.number)
                    } else {
                        recorded
                    }
                }
                Decision::Create { number, .. } => needed(decided, *number),
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

/// What an instance publishes.
fn published(instance: &Instance) -> Vec<Claim> {
    let mut ports: BTreeMap<(u16, Protocol), Vec<IpAddr>> = BTreeMap::new();
    for publisher in instance
        .publishers
        .iter()
        .filter(|publisher| publisher.published != 0)
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
fn needed(decided: &Decided<'_>, number: u32) -> Vec<Claim> {
    needs(&decided.service, number, decided.backend)
        .iter()
        .filter_map(|need| {
            let port = *need.candidates.first()?;
            Some(need.claim(&decided.service.name, number, port))
        })
        .collect()
}
