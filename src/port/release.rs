//! Stops a process that holds a port: that process, its tree, and who would start it again; nothing else.
//!
//! Every signal goes through a pidfd whose process was identified after opening (start time, and for the
//! holder that it still has the socket), so a pid that was given to somebody else meanwhile is never
//! hit. Whether a holder may be stopped was decided by the planner; what must never be stopped is
//! refused here again.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::port::claim::Claim;
use crate::port::crew::{Crew, Member};
use crate::port::holder::{Holder, ProcessFacts, Who};
use crate::port::process::{Table, process_facts};
use crate::port::{PortError, describe, descriptors, protect, sockets, supervisor};

pub use crate::port::describe::{how_released, how_started_again};
pub use crate::port::free::{
    Barrier, await_free, barrier, first_permitted, is_free, next_free, taken_again,
};
pub use crate::port::unit::{how_started, stop_unit};

/// How long a killed process may take to disappear.
const DEATH: Duration = Duration::from_secs(5);

/// How often the tree is looked at again while it ends: it may fork meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// What was stopped, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The holder in one line: name, pid, user, age, command, directory.
    pub who: String,
    /// What kept it running and was stopped before it, in one line.
    pub supervisor: Option<String>,
    /// All processes that were signalled, in that order; empty if the holder had gone or let go of the
    /// port by itself.
    pub pids: Vec<u32>,
    /// Whether any of them had to be killed.
    pub killed: bool,
    /// From the first look to the proof that all are gone.
    pub took: Duration,
}

/// Stops one holder and verifies that it is gone with its tree.
///
/// Its supervisor first, where an ancestor exists only to keep it alive; SIGTERM to all, SIGKILL to what
/// is left after `grace`. [`PortError::Protected`] for what is never stopped, [`PortError::NotPermitted`]
/// for what we may not signal or is no process (a unit: [`stop_unit`]), [`PortError::Unkillable`] if it survives.
pub fn stop_process(holder: &Holder, claim: &Claim, grace: Duration) -> Result<Stopped, PortError> {
    stop_process_with(holder, claim, Signal::TERM, grace)
}

/// As [`stop_process`], with another signal than SIGTERM at first.
pub fn stop_process_with(
    holder: &Holder,
    claim: &Claim,
    signal: Signal,
    grace: Duration,
) -> Result<Stopped, PortError> {
    let begin = Instant::now();
    let Who::Process(facts) = &holder.who else {
        return Err(not_permitted(holder));
    };
    let who = describe::process_fully(facts);
    let protection = |facts: &ProcessFacts| {
        if holder.orphan {
            protect::reason_of_orphan(facts)
        } else {
            protect::reason(facts)
        }
    };
    let reason = holder.protected.clone().or_else(|| protection(facts));
    if let Some(reason) = reason {
        return Err(PortError::Protected { who, reason });
    }
    let nothing = |who| Stopped {
        who,
        supervisor: None,
        pids: Vec::new(),
        killed: false,
        took: begin.elapsed(),
    };
    // Held until the tree is: what is checked below is checked of this very process.
    let Some(held) = Member::take(facts.pid, facts.start_time) else {
        return Ok(nothing(who));
    };
    // It may have become another program since it was looked at.
    if let Some(now) = process_facts(facts.pid) {
        if let Some(reason) = protection(&now) {
            return Err(PortError::Protected { who, reason });
        }
        if !now.signalable {
            return Err(not_permitted(holder));
        }
    }
    let sharing = sharing(facts, claim)?;
    if sharing.is_empty() {
        return Ok(nothing(who));
    }

    let table = Table::read();
    let top = supervisor::topmost(&table, facts.pid, &sharing);
    let supervisor = process_facts(top).filter(|_| top != facts.pid);
    let supervisor = supervisor.map(|facts| describe::process_fully(&facts));
    let mut crew = Crew::default();
    if top != facts.pid
        && let Some(stat) = table.get(top)
    {
        crew.enlist(stat);
    }
    // From the top down: the holder joins in its place below its supervisor.
    crew.grow(&table);
    crew.add(held);
    crew.grow(&table);
    crew.signal(signal).map_err(|_| not_permitted(holder))?;
    let mut killed = signal == Signal::KILL;
    if !crew.wait(signal, grace) {
        killed = true;
        let end = Instant::now() + DEATH;
        loop {
            crew.grow(&Table::read());
            crew.signal(Signal::KILL)
                .map_err(|_| not_permitted(holder))?;
            if crew.wait(Signal::KILL, LOOK) {
                break;
            }
            if Instant::now() >= end {
                return Err(PortError::Unkillable { who });
            }
        }
    }
    Ok(Stopped {
        who,
        supervisor,
        pids: crew.pids(),
        killed,
        took: begin.elapsed(),
    })
}

/// The supervisor that would be stopped before a process that has the claim, in words; `None` if it would be
/// the first itself.
pub fn supervisor_of(facts: &ProcessFacts, claim: &Claim) -> Option<String> {
    let sharing = sharing(facts, claim).ok()?;
    let top = supervisor::topmost(&Table::read(), facts.pid, &sharing);
    let facts = process_facts(top).filter(|_| top != facts.pid)?;
    Some(describe::process(&facts))
}

/// What else an end of these holders means, in words: what would be stopped first because it keeps them running,
/// and what their supervisor would end by its own rule.
pub fn consequences(holders: &[Holder], claim: &Claim) -> Vec<String> {
    let mut lines = Vec::new();
    for holder in holders {
        let Who::Process(facts) = &holder.who else {
            continue;
        };
        if holder.protected.is_some() {
            continue;
        }
        lines.extend(
            supervisor_of(facts, claim).map(|first| {
                format!("to be stopped first, since it would start it again: {first}")
            }),
        );
        lines.extend(supervisor::ends_with_it(&Table::read(), facts.pid));
    }
    lines.dedup();
    lines
}

fn not_permitted(holder: &Holder) -> PortError {
    PortError::NotPermitted {
        who: holder.describe(),
        command: match &holder.who {
            Who::Process(facts) => format!("sudo kill {}", facts.pid),
            Who::Container(_) | Who::Unit { .. } | Who::Unknown { .. } | Who::Kernel => {
                how_released(holder)
            }
        },
    }
}

/// The processes that have one of the claim's sockets open together with the holder; none if the holder
/// itself has let go.
fn sharing(facts: &ProcessFacts, claim: &Claim) -> Result<Vec<u32>, PortError> {
    // A holder may have bound its address beside somebody who listens on another.
    let inodes: Vec<u64> = sockets::there(claim)?
        .iter()
        .map(|bound| bound.socket.inode)
        .collect();
    let own: Vec<u64> = descriptors::holding(&inodes, Some(&[facts.pid]))
        .pairs
        .into_iter()
        .map(|(inode, _)| inode)
        .collect();
    Ok(if own.is_empty() {
        Vec::new()
    } else {
        descriptors::pids_holding(&own, None)
    })
}
