//! The second phase of a look-up: the containers that the engines know, in the place of the proxies and daemons
//! that hold ports for them.

use std::collections::{BTreeMap, BTreeSet};

use crate::port::claim::{Claim, Protocol, overlaps};
use crate::port::holder::{ContainerFacts, Holder, ListeningSocket, OtherPort, Published, Who};
use crate::port::owner::{LookUp, is_engines, process_facts};
use crate::port::protect;
use crate::state::Held;

/// Puts in the containers: `published` is what all reachable engines publish, `containers` are the facts
/// of the ids in [`LookUp::container_ids`].
///
/// A container is matched on host address, protocol and port together. One that publishes a claim without
/// any listening socket (no userland proxy) is a holder too, so a claim may be held here that
/// [`LookUp::held`] did not list; not so where its engine forwards from a network namespace of its own.
pub fn attribute(
    look_up: LookUp,
    published: &[Published],
    containers: &[ContainerFacts],
) -> Vec<Held> {
    let mut marks: BTreeMap<Claim, (Vec<Holder>, Vec<Option<String>>)> = look_up
        .held
        .into_iter()
        .zip(look_up.containers)
        .map(|(held, ids)| (held.claim, (held.holders, ids)))
        .collect();
    let mut result = Vec::new();
    for claim in look_up.claims {
        let publishers: Vec<&Published> = published
            .iter()
            .filter(|publisher| {
                publisher.port == claim.port
                    && publisher.protocol == claim.protocol
                    && claim.conflicts_with(publisher.ip, true)
            })
            .collect();
        let (before, ids) = marks.remove(&claim).unwrap_or_default();
        let mut holders = Vec::new();
        for (holder, id) in before.into_iter().zip(ids) {
            place(holder, id.as_deref(), &publishers, containers, &mut holders);
        }
        for publisher in publishers.into_iter().filter(|it| !it.forwarded) {
            let who = Who::Container(Box::new(publisher.container.clone()));
            Holder::join(
                &mut holders,
                Holder::of(who, Vec::new(), publisher.kept.clone()),
            );
        }
        for holder in &mut holders {
            if let Who::Container(facts) = &holder.who {
                holder.also_listens = publishes_beside(facts, &claim, published);
            }
        }
        if !holders.is_empty() {
            result.push(Held { claim, holders });
        }
    }
    result
}

/// What a container publishes beside a claim.
fn publishes_beside(
    facts: &ContainerFacts,
    claim: &Claim,
    published: &[Published],
) -> Vec<OtherPort> {
    let own = published
        .iter()
        .filter(|it| it.container.id == facts.id && it.container.engine == facts.engine)
        .filter(|it| (it.port, it.protocol) != (claim.port, claim.protocol));
    let ports: BTreeSet<OtherPort> = own
        .map(|it| OtherPort {
            port: it.port,
            protocol: it.protocol,
            pid: None,
        })
        .collect();
    ports.into_iter().collect()
}

fn place(
    holder: Holder,
    id: Option<&str>,
    publishers: &[&Published],
    containers: &[ContainerFacts],
    holders: &mut Vec<Holder>,
) {
    if let Some(facts) = id.and_then(|id| containers.iter().find(|facts| facts.id == id)) {
        push_container(facts, None, &holder.sockets, holders);
        return;
    }
    if id.is_some() || !is_engines(&holder) {
        holders.push(holder);
        return;
    }
    // A proxy is in the namespace of its engine.
    let is_proxy = matches!(&holder.who, Who::Process(facts) if protect::is_port_proxy(facts));
    let publishers: Vec<&Published> = publishers
        .iter()
        .filter(|publisher| !(publisher.forwarded && is_proxy))
        .copied()
        .collect();
    // One daemon may hold sockets for several containers, and sockets of its own.
    let mut rest = Vec::new();
    for socket in &holder.sockets {
        let owner = publishers
            .iter()
            .find(|publisher| publisher.ip == socket.address.ip())
            .or_else(|| {
                publishers
                    .iter()
                    .find(|publisher| serves(publisher, socket))
            });
        match owner {
            Some(publisher) => {
                let sockets = std::slice::from_ref(socket);
                push_container(
                    &publisher.container,
                    publisher.kept.clone(),
                    sockets,
                    holders,
                );
            }
            None => rest.push(socket.clone()),
        }
    }
    if !rest.is_empty() {
        holders.push(Holder {
            sockets: rest,
            ..holder
        });
    }
}

/// Whether a socket can be the one through which a container's port is published.
fn serves(publisher: &Published, socket: &ListeningSocket) -> bool {
    overlaps(publisher.ip, socket.address.ip(), socket.only_v6)
}

fn push_container(
    facts: &ContainerFacts,
    kept: Option<String>,
    sockets: &[ListeningSocket],
    holders: &mut Vec<Holder>,
) {
    let who = Who::Container(Box::new(facts.clone()));
    Holder::join(holders, Holder::of(who, sockets.to_vec(), kept));
}

/// Marks the proxies that no engine has a container for, so that they may be stopped.
///
/// To be called when every engine of this machine was asked, at least one is there and none was silent;
/// `daemons` are the processes that answered. A proxy below a daemon that did not answer is that one's.
pub fn mark_orphans(held: &mut [Held], daemons: &BTreeSet<u32>) {
    for holder in held.iter_mut().flat_map(|held| &mut held.holders) {
        let Who::Process(facts) = &holder.who else {
            continue;
        };
        let stray = |(pid, _): &(u32, String)| {
            daemons.contains(pid)
                || !process_facts(*pid).is_some_and(|parent| protect::is_engine_part(&parent))
        };
        if protect::is_port_proxy(facts) && facts.ancestors.first().is_none_or(stray) {
            holder.orphan = true;
            holder.protected = protect::reason_of_orphan(facts);
        }
    }
}

/// For how long an engine may be about to start the container of a proxy, in seconds.
const STARTING: u64 = 60;

/// A port of a container that does not run yet, or not any more, for which its engine chooses one of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choosing {
    /// The container.
    pub container: ContainerFacts,
    /// The port in the container.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
}

fn is_young_orphan(holder: &Holder) -> bool {
    match &holder.who {
        Who::Process(facts) => holder.orphan && facts.age_seconds < STARTING,
        Who::Container(_) | Who::Unit { .. } | Who::Unknown { .. } | Who::Kernel => false,
    }
}

/// Whether a proxy that no engine has a running container for is so young that its container may be on its way: a
/// proxy is there before its container runs.
pub fn has_young_orphans(held: &[Held]) -> bool {
    held.iter()
        .flat_map(|held| &held.holders)
        .any(is_young_orphan)
}

/// Takes young proxies out of the orphans where a container fits that is there and does not run: `known` are all
/// ports that containers publish or are configured to, `choosing` those for which an engine chooses the port.
pub fn spare_young_orphans<'a>(
    held: &mut [Held],
    known: impl Iterator<Item = &'a Published>,
    choosing: &[Choosing],
) {
    let known: Vec<&Published> = known.collect();
    for held in held {
        let claim = &held.claim;
        let fixed = known
            .iter()
            .find(|it| it.port == claim.port && it.protocol == claim.protocol)
            .map(|it| &it.container);
        for holder in held.holders.iter_mut().filter(|it| is_young_orphan(it)) {
            let inner = port_inside(holder);
            let chosen = || {
                let mut choosing = choosing.iter();
                choosing
                    .find(|it| it.protocol == claim.protocol && Some(it.port) == inner)
                    .map(|it| &it.container)
            };
            let Some(container) = fixed.or_else(chosen) else {
                continue;
            };
            let name = &container.name;
            holder.orphan = false;
            holder.protected = Some(format!(
                "container {name} is being started, for which it keeps the port: look again in a moment, or docker stop {}",
                shell_words::quote(name)
            ));
        }
    }
}

/// The same for all of them, where an engine did not answer whose container it could be.
pub fn spare_all_young_orphans(held: &mut [Held]) {
    let holders = held.iter_mut().flat_map(|held| &mut held.holders);
    for holder in holders.filter(|holder| is_young_orphan(holder)) {
        holder.orphan = false;
        holder.protected = Some(
            "it may keep the port for a container that an engine is starting, which does not answer: look again in a moment"
                .to_owned(),
        );
    }
}

/// The port in the container, by the words of a proxy.
fn port_inside(holder: &Holder) -> Option<u16> {
    let Who::Process(facts) = &holder.who else {
        return None;
    };
    let mut words = facts.command.iter();
    words.find(|word| word.trim_start_matches('-') == "container-port")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::holder::ProcessFacts;

    fn proxy(age_seconds: u64) -> Vec<Held> {
        let words = "docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 49153 -container-ip 172.17.0.2 -container-port 80";
        let words: Vec<&str> = words.split(' ').collect();
        let facts = ProcessFacts {
            age_seconds,
            ..ProcessFacts::of_words(&words)
        };
        let mut holder = Holder::of(Who::Process(Box::new(facts)), Vec::new(), None);
        holder.orphan = true;
        vec![Held {
            claim: Claim::anywhere(49_153, Protocol::Tcp),
            holders: vec![holder],
        }]
    }

    #[test]
    fn what_else_a_container_publishes_is_told_with_it() {
        let publish = |name: &str, port, protocol| Published {
            container: ContainerFacts {
                id: name.into(),
                ..ContainerFacts::named(name)
            },
            ip: std::net::Ipv4Addr::UNSPECIFIED.into(),
            port,
            protocol,
            kept: None,
            forwarded: false,
        };
        let published = [
            publish("web", 8003, Protocol::Tcp),
            publish("web", 9229, Protocol::Tcp),
            publish("web", 8003, Protocol::Udp),
            publish("db", 5432, Protocol::Tcp),
        ];
        let look_up = LookUp {
            claims: vec![Claim::anywhere(8003, Protocol::Tcp)],
            ..LookUp::default()
        };
        let held = attribute(look_up, &published, &[]);
        let other = |port, protocol| OtherPort {
            port,
            protocol,
            pid: None,
        };
        let expected = [other(8003, Protocol::Udp), other(9229, Protocol::Tcp)];
        let holder = &held[0].holders[0];
        assert_eq!(holder.also_listens, expected);
        let said = crate::port::release::consequences(&held[0].holders, &held[0].claim);
        assert_eq!(said, ["also publishes 8003/udp, 9229"]);
    }

    #[test]
    fn a_young_proxy_is_no_orphan_where_a_container_waits_for_a_port_that_is_chosen() {
        let choosing = |port| Choosing {
            container: ContainerFacts::named("web"),
            port,
            protocol: Protocol::Tcp,
        };
        for (age, is_orphan) in [(1, false), (3600, true)] {
            let mut held = proxy(age);
            spare_all_young_orphans(&mut held);
            assert_eq!(held[0].holders[0].orphan, is_orphan, "{age} s");
        }
        for (age, port, is_orphan) in [(1, 80, false), (1, 81, true), (3600, 80, true)] {
            let mut held = proxy(age);
            spare_young_orphans(&mut held, std::iter::empty(), &[choosing(port)]);
            let holder = &held[0].holders[0];
            assert_eq!(holder.orphan, is_orphan, "{age} s, port {port}");
            assert_eq!(
                holder.protected.is_none(),
                is_orphan,
                "{age} s, port {port}"
            );
        }
    }
}
