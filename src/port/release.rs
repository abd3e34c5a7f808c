//! Stops a process that holds a port: that process, its tree, and who would start it again; nothing else.
//!
//! Every signal goes through a pidfd whose process was identified after opening (start time, and for the
//! holder that it still has the socket), so a pid that was given to somebody else meanwhile is never
//! hit; and not before the holder was seen with its socket once more, since a process that has let go of the port is
//! nobody to stop for it. Whether a holder may be stopped was decided by the planner; what must never be stopped is
//! refused here again.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::port::claim::Claim;
use crate::port::crew::{Crew, Member};
use crate::port::descriptors::Seat;
use crate::port::handle::Handle;
use crate::port::holder::{Holder, ProcessFacts, Who};
use crate::port::process::{Table, process_facts};
use crate::port::{PortError, describe, descriptors, protect, sockets, supervisor};

pub use crate::port::consequences::{Consequences, consequences, consequences_of_each};
pub use crate::port::describe::{after_a_stop, how_released};
pub use crate::port::free::{
    Barrier, await_free, barrier, first_permitted, is_free, next_free, taken_again,
};
pub use crate::port::late::Late;
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
    /// Who had to be killed because of what, where the grace was too short.
    pub late: Option<Late>,
    /// Whether it lives on, without the port: nobody is killed for a port that he has let go of.
    pub lives: bool,
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
        late: None,
        lives: false,
        took: begin.elapsed(),
    };
    // Held until the tree is: what is checked below is checked of this very process.
    let Some(held) = Member::take(facts.pid, facts.start_time) else {
        // That nothing can be held says nothing about it.
        if !Handle::is_available() {
            return Err(not_permitted(holder));
        }
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
    let hold = Hold::of(facts.pid, claim)?;
    let sharing = hold.sharing();
    if sharing.is_empty() {
        return Ok(nothing(who));
    }

    let table = Table::read();
    let top = supervisor::topmost(&table, facts.pid, &sharing).pid;
    let supervisor = process_facts(top).filter(|_| top != facts.pid);
    let supervisor = supervisor.map(|facts| describe::process_fully(&facts));
    let mut crew = Crew::of(&held, table.get(top).filter(|_| top != facts.pid));
    // From the top down: the holder joins in its place below its supervisor.
    crew.grow(&table);
    crew.add(held);
    crew.grow(&table);
    // It may have become another program while all that was looked at.
    if let Some(reason) = process_facts(facts.pid).and_then(|now| protection(&now)) {
        return Err(PortError::Protected { who, reason });
    }
    // Nothing comes between this and the signals.
    if !hold.lasts(claim)? {
        return Ok(nothing(who));
    }
    crew.signal(signal).map_err(|_| not_permitted(holder))?;
    let mut killed = signal == Signal::KILL;
    let mut late = None;
    if !crew.wait(signal, grace) {
        if !crew.is_gone(facts.pid) && !hold.is_left_to(&crew.pids(), claim)? {
            return Ok(Stopped {
                supervisor,
                pids: crew.pids(),
                lives: true,
                ..nothing(who)
            });
        }
        killed = true;
        late = Some(Late::of(facts.pid, &crew.left(), signal, grace));
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
        late,
        lives: false,
        took: begin.elapsed(),
    })
}

/// All processes that have a socket of the claim which this one has.
pub(super) fn sharing(pid: u32, claim: &Claim) -> Vec<u32> {
    Hold::of(pid, claim).map_or_else(|_| Vec::new(), |hold| hold.sharing())
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

/// The sockets of a claim that one process has open.
struct Hold {
    pid: u32,
    seats: Vec<Seat>,
    inodes: Vec<u64>,
}

impl Hold {
    fn of(pid: u32, claim: &Claim) -> Result<Self, PortError> {
        // A holder may have bound its address beside somebody who listens on another.
        let inodes: Vec<u64> = sockets::there(claim)?
            .iter()
            .map(|bound| bound.socket.inode)
            .collect();
        let seats = descriptors::seats(pid, &inodes);
        let inodes = seats.iter().map(|seat| seat.inode).collect();
        Ok(Self { pid, seats, inodes })
    }

    /// All who have one of them; nobody if the process itself has let go.
    fn sharing(&self) -> Vec<u32> {
        descriptors::pids_holding(&self.inodes, None)
    }

    /// Whether the process still has one of them, and it is still on the port: two calls, of which the last tells
    /// of the process.
    fn lasts(&self, claim: &Claim) -> Result<bool, PortError> {
        let there = self.there(claim)?;
        let mut seats = self.seats.iter();
        let lasts = seats.any(|seat| there.contains(&seat.inode) && seat.lasts());
        // Under another descriptor by now, or in the table of a thread where the first one has ended.
        Ok(lasts || !descriptors::seats(self.pid, &there).is_empty())
    }

    /// Whether one of these processes still has one of them.
    fn is_left_to(&self, pids: &[u32], claim: &Claim) -> Result<bool, PortError> {
        let there = self.there(claim)?;
        Ok(!descriptors::pids_holding(&there, Some(pids)).is_empty())
    }

    /// Those that are on the port by now. The list of listeners costs microseconds, the other one milliseconds.
    fn there(&self, claim: &Claim) -> Result<Vec<u64>, PortError> {
        let own = |found: Vec<sockets::Bound>| -> Vec<u64> {
            let inodes = found.iter().map(|bound| bound.socket.inode);
            inodes.filter(|inode| self.inodes.contains(inode)).collect()
        };
        let listening = own(sockets::listening(claim)?);
        if listening.len() == self.inodes.len() {
            return Ok(listening);
        }
        Ok(own(sockets::there(claim)?))
    }
}

/// Whether sockets are still there after who had them was told to stop, by whoever keeps it: waits for a moment.
pub fn still_there(had: &[u64], claim: &Claim) -> Result<bool, PortError> {
    const MOMENT: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(10);
    let end = Instant::now() + MOMENT;
    loop {
        let there = sockets::there(claim)?;
        // What the kernel holds has no number to know it by.
        let mut there = there.iter().map(|bound| bound.socket.inode);
        if !there.any(|inode| inode != 0 && had.contains(&inode)) {
            return Ok(false);
        }
        if Instant::now() >= end {
            return Ok(true);
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::port::claim::Protocol;

    #[test]
    fn who_lets_go_at_the_last_moment_has_it_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let claim = Claim::anywhere(port, Protocol::Tcp);
        let own = std::process::id();
        let hold = Hold::of(own, &claim).unwrap();
        assert!(hold.lasts(&claim).unwrap());
        assert!(hold.is_left_to(&[own], &claim).unwrap());
        drop(listener);
        assert!(!hold.lasts(&claim).unwrap());
        // The port has another server by now, and the process another socket under that number.
        let _other = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert!(!hold.lasts(&claim).unwrap());
        assert!(!hold.is_left_to(&[own], &claim).unwrap());
    }
}
