//! What else the release of a port means: who is stopped first, what ends with the holder, which other ports go with
//! it, what is removed. In words for people, the ports as data, too.
//!
//! Looked up before anything is done, from what the look-up of the holders has found already; stops nobody, and nothing
//! is decided by it.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use crate::port::claim::{Claim, Protocol};
use crate::port::descriptors::holding;
use crate::port::holder::{Holder, ListeningSocket, OtherPort, ProcessFacts, Who};
use crate::port::process::{Stat, Table, process_facts};
use crate::port::release::sharing;
use crate::port::{aside, describe, proc_file, protect, sockets, steward, traced};
use crate::port::{supervisor, unit, work};

/// What else a release means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consequences {
    /// One sentence each.
    pub lines: Vec<String>,
    /// The other ports that the holder has, and those of all that ends with it.
    pub also_listens: Vec<OtherPort>,
}

/// What else an end of these holders means, in words, each said once.
pub fn consequences(holders: &[Holder], claim: &Claim) -> Vec<String> {
    let each = consequences_of_each(holders, claim).into_iter();
    each.flat_map(|one| one.lines).collect()
}

/// What else an end of each of these holders means. What concerns several of them is said of the first.
pub fn consequences_of_each(holders: &[Holder], claim: &Claim) -> Vec<Consequences> {
    let view = View::of(claim);
    let mut said = BTreeSet::new();
    let each = holders.iter().map(|holder| {
        if holder.obstacle(true).is_some() {
            return Consequences::default();
        }
        let mut found = view.of_holder(holder);
        for line in &mut found.lines {
            *line = describe::one_line(line);
        }
        // What keeps one of several workers keeps all of them.
        found.lines.retain(|line| said.insert(line.clone()));
        found
    });
    each.collect()
}

/// What is known of the system while one claim is told of; read when it is needed first.
struct View<'a> {
    claim: &'a Claim,
    table: OnceCell<Table>,
    listening: OnceCell<Vec<ListeningSocket>>,
}

impl<'a> View<'a> {
    fn of(claim: &'a Claim) -> Self {
        Self {
            claim,
            table: OnceCell::new(),
            listening: OnceCell::new(),
        }
    }

    fn table(&self) -> &Table {
        self.table.get_or_init(Table::read)
    }

    fn of_holder(&self, holder: &Holder) -> Consequences {
        match &holder.who {
            Who::Process(_) if !holder.carries.is_empty() => Consequences {
                lines: vec![holder.ends_with_it()],
                also_listens: Vec::new(),
            },
            // Wharf's supervisor is told to stop it.
            Who::Process(facts) if holder.service.is_some() => {
                let lines = traced::told(facts).into_iter().collect();
                self.with_ports(lines, &[facts.pid], &self.run_of(facts))
            }
            Who::Process(facts) => self.of_process(holder, facts),
            Who::Unit { name, main } => {
                let members = main.as_deref().map(unit::members).unwrap_or_default();
                let lines = main
                    .as_deref()
                    .and_then(|main| unit::ends_with_it(self.table(), name, main, &members));
                let members: Vec<u32> = members.into_iter().collect();
                self.with_ports(lines.into_iter().collect(), &[], &members)
            }
            Who::Container(facts) => {
                let mut lines: Vec<String> =
                    describe::removed_by_a_stop(facts).into_iter().collect();
                lines.extend(in_words("also publishes", &holder.also_listens));
                Consequences {
                    lines,
                    also_listens: holder.also_listens.clone(),
                }
            }
            Who::Unknown { .. } | Who::Kernel => Consequences::default(),
        }
    }

    fn of_process(&self, holder: &Holder, facts: &ProcessFacts) -> Consequences {
        let table = self.table();
        // The look-up has met them all; to search again costs as much as the look-up itself.
        let sharing = if holder.sharing.is_empty() {
            sharing(facts.pid, self.claim)
        } else {
            holder.sharing.clone()
        };
        let mut lines: Vec<String> = traced::told(facts).into_iter().collect();
        lines.extend(holder.debugged_below.as_ref().map(traced::told_of));
        if facts.heads_namespace {
            lines.push(describe::ends_a_namespace(facts));
        }
        let top = supervisor::topmost(table, facts.pid, &sharing);
        lines.extend(stopped_first(table, facts, top, &sharing));
        lines.extend(steward::above(table, facts.pid));
        lines.extend(supervisor::kept_elsewhere(table, facts.pid));
        let of = |pid: u32| table.get(pid).map(|stat| stat.session);
        let sessions: BTreeSet<u32> = [facts.pid, top.pid].into_iter().filter_map(of).collect();
        let (ends, lives) = aside::parted(table, top.pid, &sessions);
        lines.extend(started_by_it(facts, top.pid, &ends, &lives, &sharing));
        let mut pids: Vec<u32> = ends.iter().map(|stat| stat.pid).collect();
        if let Some((line, others)) = steward::ends_with_it(table, facts.pid) {
            lines.push(line);
            pids.extend(others);
        }
        let own = [&[facts.pid], &*sharing].concat();
        self.with_ports(lines, &own, &pids)
    }

    /// The processes of a run of wharf's: it ends as a whole.
    fn run_of(&self, facts: &ProcessFacts) -> Vec<u32> {
        let table = self.table();
        let is_of_it = |stat: &&&Stat| {
            process_facts(stat.pid)
                .is_some_and(|above| above.run_id == facts.run_id && !protect::is_wharf(&above))
        };
        let above = table.ancestors(facts.pid);
        let top = above.iter().take_while(is_of_it).last();
        table.descendants(top.map_or(facts.pid, |stat| stat.pid))
    }

    /// Adds which other ports these processes have: `own` are told as the holder's.
    fn with_ports(&self, mut lines: Vec<String>, own: &[u32], others: &[u32]) -> Consequences {
        let mut pids = [own, others].concat();
        pids.sort_unstable();
        pids.dedup();
        let all = self.ports_of(own, &pids);
        let is_own = |port: &OtherPort| port.pid.is_some_and(|pid| own.contains(&pid));
        let (of_holder, of_others): (Vec<OtherPort>, Vec<OtherPort>) =
            all.iter().cloned().partition(is_own);
        lines.extend(in_words("also listens on", &of_holder));
        lines.extend(in_words("what ends with it listens on", &of_others));
        Consequences {
            lines,
            also_listens: all,
        }
    }

    /// The ports, apart from the claim's, that processes listen on; each with one of those who have it, one of `first`
    /// where that is so.
    fn ports_of(&self, first: &[u32], pids: &[u32]) -> Vec<OtherPort> {
        let listening = self.listening.get_or_init(|| listening_beside(self.claim));
        let inodes: Vec<u64> = listening.iter().map(|socket| socket.inode).collect();
        let pairs = holding(&inodes, Some(pids)).pairs;
        let mut ports: Vec<OtherPort> = Vec::new();
        for socket in listening {
            let having = pairs.iter().filter(|(inode, _)| *inode == socket.inode);
            let having: Vec<u32> = having.map(|(_, pid)| *pid).collect();
            let preferred = having.iter().find(|pid| first.contains(pid));
            let Some(pid) = preferred.or(having.first()) else {
                continue;
            };
            let (port, protocol) = (socket.address.port(), socket.protocol);
            if !ports
                .iter()
                .any(|it| (it.port, it.protocol) == (port, protocol))
            {
                ports.push(OtherPort {
                    port,
                    protocol,
                    pid: Some(*pid),
                });
            }
        }
        ports.sort();
        ports
    }
}

/// All sockets that listen on another port than the claim's. A datagram socket on a port that the kernel chose is a
/// client's.
fn listening_beside(claim: &Claim) -> Vec<ListeningSocket> {
    let mut found = sockets::all_listeners().unwrap_or_default();
    let chosen = proc_file::read_text("/proc/sys/net/ipv4/ip_local_port_range");
    let chosen: Vec<u16> = chosen
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let is_chosen = |port: u16| matches!(chosen[..], [low, high] if (low..=high).contains(&port));
    let datagrams = sockets::everything(Protocol::Udp).unwrap_or_default();
    let datagrams = datagrams.into_iter().map(|bound| bound.socket);
    found.extend(datagrams.filter(|socket| !is_chosen(socket.address.port())));
    found.retain(|socket| {
        socket.inode != 0
            && (socket.address.port(), socket.protocol) != (claim.port, claim.protocol)
    });
    found
}

/// Ports in one clause; the first few. Those of other processes than the holder with who has them.
fn in_words(what: &str, ports: &[OtherPort]) -> Option<String> {
    const SHOWN: usize = 8;
    let is_others = what.starts_with("what ");
    let word = |it: &OtherPort| {
        let suffix = match it.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "/udp",
        };
        let name = it.pid.filter(|_| is_others);
        let name = name.and_then(|pid| Some(format!(" ({}, pid {pid})", Stat::read(pid)?.name)));
        format!("{}{suffix}{}", it.port, name.unwrap_or_default())
    };
    let mut words: Vec<String> = ports.iter().take(SHOWN).map(word).collect();
    if ports.len() > SHOWN {
        words.push("…".to_owned());
    }
    (!words.is_empty()).then(|| format!("{what} {}", words.join(", ")))
}

/// Who would be stopped before a process that has the claim, in words with the reason; `None` if it would be the first
/// itself.
fn stopped_first(
    table: &Table,
    facts: &ProcessFacts,
    top: supervisor::Top,
    sharing: &[u32],
) -> Option<String> {
    // A master is a holder itself, and told as such.
    let is_other = top.pid != facts.pid && !sharing.contains(&top.pid);
    let first = table.facts(top.pid).filter(|_| is_other)?;
    let reason = if top.starts_again {
        "it would start it again"
    } else {
        "it is there only to run it"
    };
    let first = describe::process(&first);
    Some(format!("to be stopped first, since {reason}: {first}"))
}

/// What a holder has started, in words: what ends with it without a socket of its own on the port, and what lives on.
fn started_by_it(
    facts: &ProcessFacts,
    top: u32,
    ends: &[&Stat],
    lives: &[&Stat],
    sharing: &[u32],
) -> Vec<String> {
    let below = ends.iter().copied();
    let below = below.filter(|it| it.parent == facts.pid && !sharing.contains(&it.pid));
    let ends = work::in_words(below);
    let left = lives.iter().filter(|it| !sharing.contains(&it.pid));
    let (hung_up, lives): (Vec<&Stat>, Vec<&Stat>) = left.partition(|it| {
        [facts.pid, top]
            .iter()
            .any(|keeper| aside::keeps_terminal_of(*keeper, it))
    });
    let lives = work::in_words(lives.into_iter());
    let hung_up = work::in_words(hung_up.into_iter());
    [
        ("what it has started ends with it", ends),
        ("what loses its terminal with it", hung_up),
        ("what is not stopped with it", lives),
    ]
    .into_iter()
    .filter(|(_, words)| !words.is_empty())
    .map(|(what, words)| format!("{what}: {}", words.join(", ")))
    .collect()
}
