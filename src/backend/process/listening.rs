//! Whether a process got the ports it was started for.
//!
//! Two projects may find the same port free at the same moment; one of the two servers then ends at once, or
//! lives on without its port. A service that declares no protocol is not asked for an answer, so the kernel is
//! asked who listens.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::run::ProcessId;
use super::{Processes, Record};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::plan::step::Target;
use crate::port::claim::Claim;
use crate::port::release::{Barrier, barrier};
use crate::port::{PortError, one_line, owner, process, protect, release, sockets};
use crate::state::Status;

/// How long is watched. What listens later than that is not asked for: nobody declared that it will.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long an instance may live on beside somebody who has its port, before that counts as lost.
const BESIDE: Duration = Duration::from_secs(1);

/// The first and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// When is looked again at one that listens: a server that goes to the background forks between its `listen(2)` and
/// the end of its first process.
const SECOND_LOOK: Duration = Duration::from_millis(5);

/// How many addresses are named.
const NAMED: usize = 4;

impl Processes {
    /// Watches until the instance listens on all of `claims`, or cannot any more because somebody else does:
    /// that fails, with the name of who it is. An instance that ends by itself, or takes its time, is no
    /// failure, and is told.
    pub(super) async fn await_listening(
        &self,
        target: &Target,
        claims: &[Claim],
        events: &Events,
    ) -> Result<(), BackendError> {
        let (project, name) = (target.project.as_str(), target.name.as_str());
        let begin = Instant::now();
        let mut pause = PAUSES.0;
        let mut met: Option<Instant> = None;
        let mut listened = false;
        let mut looked_twice = false;
        let mut is_sure = false;
        loop {
            // Before the sockets: whoever is named then is not the instance itself on its way out.
            let record = self.record(project, name)?;
            let missing = self.without_listener(project, name, claims)?;
            if missing.is_empty() {
                if has_main(&record) && looked_twice {
                    return Ok(());
                }
                if has_main(&record) {
                    looked_twice = true;
                    tokio::time::sleep(SECOND_LOOK).await;
                    continue;
                }
                // What it has left behind listens, and is ended with it.
                listened = true;
            }
            // One that ends by itself without an error does so again; what it has left behind is being ended.
            let status = match (record.status, record.run.as_ref().and_then(|run| run.code)) {
                (Status::Restarting | Status::Running, Some(0)) => Status::Exited { code: 0 },
                (status, _) => status,
            };
            // What it has bound itself is nobody else's.
            let other = missing
                .iter()
                .filter(|missing| !missing.is_bound)
                .find_map(|missing| Some((missing.claim, taken(missing.claim)?)));
            let waiting: Vec<&Claim> = missing.iter().map(|missing| missing.claim).collect();
            match (status, other) {
                (Status::Exited { code }, Some((_, thief))) => {
                    return Err(BackendError::PortLost {
                        name: name.to_owned(),
                        code,
                        source: Box::new(thief),
                        last_lines: self.last_lines(project, name),
                    });
                }
                (Status::Exited { code }, None)
                    if code != 0 && waiting.iter().any(|claim| is_forbidden(claim)) =>
                {
                    let forbidden = waiting.iter().find(|claim| is_forbidden(claim));
                    return Err(BackendError::PortForbidden {
                        name: name.to_owned(),
                        code,
                        port: forbidden.map_or(0, |claim| claim.port),
                        last_lines: self.last_lines(project, name),
                    });
                }
                (Status::Exited { code }, None) => {
                    let last = self.last_lines(project, name).pop();
                    let last = last.map_or_else(String::new, |line| {
                        format!("; its last line: {}", one_line(&line))
                    });
                    let (verb, on) = if listened {
                        ("no longer listens", claims.iter().collect())
                    } else {
                        ("never listened", waiting)
                    };
                    // As a container, it ends with its first process.
                    let why = if code == 0 {
                        "; a server that goes to the background is ended: have it stay in the foreground"
                    } else {
                        ""
                    };
                    events.send(Event::Note(format!(
                        "{name} has exited with code {code} and {verb} on {}{last}{why}; see it whole: wharf logs {}",
                        listed(&on),
                        target.service
                    )));
                    if let Some(starvation) = self.starvation(project, name) {
                        events.send(Event::Note(starvation));
                    } else if let Some(occupied) =
                        self.occupied(project, name).filter(|_| code != 0)
                    {
                        events.send(Event::Note(occupied));
                    }
                    return Ok(());
                }
                (Status::Dead | Status::Removing, None) => return Ok(()),
                (_, Some((claim, thief))) => {
                    let since = met.get_or_insert_with(Instant::now);
                    if since.elapsed() >= BESIDE {
                        return Err(beside(name, claim, &thief));
                    }
                }
                (_, None) => met = None,
            }
            if begin.elapsed() >= PATIENCE && waiting.is_empty() {
                return Ok(());
            }
            if begin.elapsed() >= PATIENCE {
                let elsewhere = self.elsewhere(project, name);
                // It may have begun to listen where it is to between the two looks.
                if elsewhere.is_some() && !std::mem::replace(&mut is_sure, true) {
                    continue;
                }
                events.send(Event::Note(format!(
                    "{name} runs and does not listen on {} yet{}",
                    listed(&waiting),
                    elsewhere.map_or_else(String::new, |it| format!("; {it}"))
                )));
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Where an instance that does not listen where it is to listens instead, and what tells it where to.
    pub(super) fn elsewhere(&self, project: &str, name: &str) -> Option<String> {
        let tree = self.tree_pids(project, name).ok()?;
        let all = sockets::all_listeners().ok()?;
        let inodes: Vec<u64> = all.iter().map(|socket| socket.inode).collect();
        let mine = owner::holding(&inodes, Some(&tree)).pairs;
        let is_mine = |inode| mine.iter().any(|(held, _)| *held == inode);
        let mut addresses: Vec<SocketAddr> = all
            .iter()
            .filter(|socket| is_mine(socket.inode))
            .map(|socket| socket.address)
            .collect();
        addresses.dedup();
        if addresses.is_empty() {
            return None;
        }
        let record = self.record(project, name).ok()?;
        let told = record.spec.environment.get("PORT");
        let is_heeded = |port: &&str| addresses.iter().any(|it| it.port().to_string() == *port);
        let instead = told
            .filter(|port| !is_heeded(port))
            .map_or_else(String::new, |port| format!(", not on its $PORT, {port}"));
        let left = match addresses.len().saturating_sub(NAMED) {
            0 => String::new(),
            left => format!(" and {left} more"),
        };
        let addresses = addresses.iter().take(NAMED);
        let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
        let addresses = addresses.join(", ");
        Some(format!("it listens on {addresses}{left}{instead}"))
    }

    /// Who has the port that an instance would have in a container, where it has another one here: a program that
    /// does not heed what it is told may have wanted it.
    pub(super) fn occupied(&self, project: &str, name: &str) -> Option<String> {
        let record = self.record(project, name).ok()?;
        let ports = record.spec.ports.iter();
        let moved = ports.filter_map(|port| Some((port, port.published?)));
        let mut moved = moved.filter(|(port, published)| port.target != *published);
        moved.find_map(|(port, published)| {
            let claim = Claim::anywhere(port.target, port.protocol);
            let PortError::TakenAgain { who, .. } = release::taken_again(&claim, &[]).ok()?? else {
                return None;
            };
            let told = record.spec.environment.get("PORT");
            let is_told = told.is_some_and(|told| told.parse() == Ok(published));
            let variable = if is_told { ", its $PORT" } else { "" };
            Some(format!(
                "if {name} wanted {claim}, its port in a container: here it is to listen on {published}{variable}; \
                 {claim} is taken by {who}"
            ))
        })
    }

    /// The claims on which nothing of the instance listens. A reloader such as Uvicorn's binds the socket, and what it
    /// starts listens there a moment later: until then, clients are refused.
    fn without_listener<'a>(
        &self,
        project: &str,
        name: &str,
        claims: &'a [Claim],
    ) -> Result<Vec<Missing<'a>>, BackendError> {
        let mut missing = Vec::new();
        for claim in claims {
            let mut there = sockets::listeners(claim.port, claim.protocol)?;
            there.retain(|socket| claim.conflicts_with(socket.address.ip(), socket.only_v6));
            let tree = if there.is_empty() {
                Vec::new()
            } else {
                self.tree_pids(project, name)?
            };
            let inodes: Vec<u64> = there.iter().map(|socket| socket.inode).collect();
            let is_bound = !owner::pids_holding(&inodes, Some(&tree)).is_empty();
            let listens = there.iter().any(|socket| socket.listening);
            if !(is_bound && listens) {
                missing.push(Missing { claim, is_bound });
            }
        }
        Ok(missing)
    }
}

/// Whether the main process of the present run lives, as far as the ledger knows.
fn has_main(record: &Record) -> bool {
    let is_over = record
        .run
        .as_ref()
        .is_some_and(|run| run.finished.is_some());
    !is_over && record.process().is_none_or(ProcessId::is_alive)
}

/// A claim on which nothing of an instance listens yet.
struct Missing<'a> {
    claim: &'a Claim,
    /// The instance has a socket there.
    is_bound: bool,
}

fn listed(claims: &[&Claim]) -> String {
    let ports: Vec<String> = claims.iter().map(ToString::to_string).collect();
    ports.join(", ")
}

/// Who else listens there. An engine's proxy may do so for the instance, which then is `docker run`.
fn taken(claim: &Claim) -> Option<PortError> {
    let inodes: Vec<u64> = sockets::listeners(claim.port, claim.protocol)
        .ok()?
        .into_iter()
        .filter(|socket| claim.conflicts_with(socket.address.ip(), socket.only_v6))
        .map(|socket| socket.inode)
        .collect();
    let forwards =
        |pid: &u32| process::process_facts(*pid).is_some_and(|facts| protect::may_forward(&facts));
    if owner::pids_holding(&inodes, None).iter().any(forwards) {
        return None;
    }
    release::taken_again(claim, &[]).ok().flatten()
}

/// Whether no program without a privilege of its own can listen there.
fn is_forbidden(claim: &Claim) -> bool {
    let mut addresses = claim.addresses.iter();
    addresses.any(|ip| barrier(SocketAddr::new(*ip, claim.port)) == Some(Barrier::Privileged))
}

fn beside(name: &str, claim: &Claim, thief: &PortError) -> BackendError {
    let ip = claim
        .addresses
        .first()
        .copied()
        .unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    BackendError::AnsweredByOther {
        name: name.to_owned(),
        address: SocketAddr::new(ip, claim.port),
        who: if let PortError::TakenAgain { who, .. } = thief {
            who.clone()
        } else {
            thief.to_string()
        },
    }
}
