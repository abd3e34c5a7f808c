//! Stops a process that holds a port: that process, its tree, and who would start it again; nothing else.
//!
//! Every signal goes through a pidfd whose process was identified after opening (start time, and for the
//! holder that it still has the socket), so a pid that was given to somebody else meanwhile is never
//! hit. Whether a holder may be stopped was decided by the planner; what must never be stopped is
//! refused here again.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::port::claim::Claim;
use crate::port::holder::{Holder, ProcessFacts, Who};
use crate::port::process::{Stat, Table, process_facts};
use crate::port::{PortError, describe, descriptors, protect, sockets, supervisor};

pub use crate::port::describe::how_released;
pub use crate::port::free::{await_free, is_free, next_free};

/// How long a killed process may take to disappear.
const DEATH: Duration = Duration::from_secs(5);

/// How often the tree is looked at again while it ends: it may fork meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// What was stopped, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The holder in one line: name, pid, user, age, command, directory.
    pub who: String,
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
/// for what we may not signal or is no process, [`PortError::Unkillable`] if it survives.
pub fn stop_process(holder: &Holder, claim: &Claim, grace: Duration) -> Result<Stopped, PortError> {
    let begin = Instant::now();
    let Who::Process(facts) = &holder.who else {
        return Err(not_permitted(holder));
    };
    let who = describe::process_fully(facts);
    let reason = holder.protected.clone().or_else(|| protect::reason(facts));
    if let Some(reason) = reason {
        return Err(PortError::Protected { who, reason });
    }
    let nothing = |who| Stopped {
        who,
        pids: Vec::new(),
        killed: false,
        took: begin.elapsed(),
    };
    // Held until the tree is: what is checked below is checked of this very process.
    let Some(held) = Member::take(facts.pid, facts.start_time) else {
        return Ok(nothing(who));
    };
    let sharing = sharing(facts, claim)?;
    if sharing.is_empty() {
        return Ok(nothing(who));
    }

    let table = Table::read();
    let top = supervisor::topmost(&table, facts.pid, &sharing);
    let mut crew = Crew::default();
    if top != facts.pid
        && let Some(stat) = table.get(top)
    {
        crew.enlist(stat);
    }
    crew.grow(&table);
    crew.add(held);
    crew.grow(&table);
    crew.signal(Signal::TERM)
        .map_err(|_| not_permitted(holder))?;
    let mut killed = false;
    if !crew.wait(Signal::TERM, grace) {
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
        pids: crew.members.iter().map(|member| member.pid).collect(),
        killed,
        took: begin.elapsed(),
    })
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
    let inodes: Vec<u64> = sockets::blocking(claim)?
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

/// The processes to be stopped, from the top down.
#[derive(Default)]
struct Crew {
    members: Vec<Member>,
}

/// One process, by a descriptor that cannot come to mean another one.
struct Member {
    handle: OwnedFd,
    pid: u32,
    start_time: u64,
    session: u32,
    /// Whether it leads its process group: then the group is its own.
    leads: bool,
    gone: bool,
}

impl Member {
    /// Takes hold of a process; `None` if it is not there (any more).
    fn take(pid: u32, start_time: u64) -> Option<Self> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let handle = pidfd_open(number, PidfdFlags::empty()).ok()?;
        // After opening: whoever has this start time now had the number when it was opened, too.
        let stat = Stat::read(pid)?;
        (stat.start_time == start_time && stat.is_alive()).then_some(Self {
            handle,
            pid,
            start_time,
            session: stat.session,
            leads: stat.group == pid,
            gone: false,
        })
    }

    /// Whether a process of the table is its child or in its group. The number alone says nothing once
    /// the member may have been reaped: it may be somebody else's by now.
    fn is_above(&self, stat: &Stat, table: &Table) -> bool {
        let now = table.get(self.pid);
        let is_it = |now: &Stat| now.start_time == self.start_time;
        let is_child = stat.parent == self.pid && now.is_some_and(is_it);
        let in_group = self.leads
            && stat.group == self.pid
            && stat.session == self.session
            && now.is_none_or(is_it);
        (is_child || in_group) && stat.start_time >= self.start_time
    }
}

impl Crew {
    fn enlist(&mut self, stat: &Stat) {
        if let Some(member) = Member::take(stat.pid, stat.start_time) {
            self.add(member);
        }
    }

    fn add(&mut self, member: Member) {
        if !self.has(member.pid, member.start_time) {
            self.members.push(member);
        }
    }

    fn has(&self, pid: u32, start_time: u64) -> bool {
        self.members
            .iter()
            .any(|member| member.pid == pid && member.start_time == start_time)
    }

    /// Adds all descendants of members and the process groups that members lead.
    fn grow(&mut self, table: &Table) {
        let mut next = 0;
        while let Some(member) = self.members.get(next) {
            next += 1;
            let below: Vec<Stat> = table
                .all()
                .filter(|stat| stat.is_alive() && member.is_above(stat, table))
                .cloned()
                .collect();
            for stat in below {
                if !self.has(stat.pid, stat.start_time) && may_be_stopped(&stat) {
                    self.enlist(&stat);
                }
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let mut result = Ok(());
        for member in self.members.iter().filter(|member| !member.gone) {
            match pidfd_send_signal(&member.handle, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Waits until all members are gone, or for `patience`. What was forked meanwhile joins, and is sent
    /// `signal` as the others were.
    fn wait(&mut self, signal: Signal, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            self.wait_once(end.saturating_duration_since(Instant::now()));
            if self.members.iter().all(|member| member.gone) {
                let before = self.members.len();
                self.grow(&Table::read());
                if self.members.len() == before {
                    return true;
                }
                if self.signal(signal).is_err() {
                    return false;
                }
            }
            if Instant::now() >= end {
                return false;
            }
        }
    }

    /// Marks who is gone, after waiting for the first to go.
    fn wait_once(&mut self, patience: Duration) {
        let mut waiting: Vec<&mut Member> = self
            .members
            .iter_mut()
            .filter(|member| !member.gone)
            .collect();
        let gone: Vec<bool> = {
            // A pidfd is readable from the death of its process on, reaped or not (pidfd_open(2)).
            let mut descriptors: Vec<PollFd<'_>> = waiting
                .iter()
                .map(|member| PollFd::new(&member.handle, PollFlags::IN))
                .collect();
            let timeout = Timespec::try_from(patience).ok();
            if poll(&mut descriptors, timeout.as_ref()).is_err() {
                return;
            }
            descriptors
                .iter()
                .map(|descriptor| descriptor.revents().contains(PollFlags::IN))
                .collect()
        };
        for (member, gone) in waiting.iter_mut().zip(gone) {
            member.gone = gone;
        }
    }
}

/// A descendant may be a session or an engine that only happened to be started here.
fn may_be_stopped(stat: &Stat) -> bool {
    process_facts(stat.pid).is_some_and(|facts| protect::reason(&facts).is_none())
}
