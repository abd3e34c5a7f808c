//! The processes that are stopped together: a holder, its supervisor, all below them.
//!
//! Knows who belongs and who is still there; whether any of them may be stopped is asked of `protect` for
//! each that joins.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;

use crate::port::handle::Handle;
use crate::port::holder::ProcessFacts;
use crate::port::process::{Stat, Table, process_facts};
use crate::port::{aside, protect};

/// The processes to be stopped, from the top down.
#[derive(Default)]
pub(super) struct Crew {
    members: Vec<Member>,
    /// Who would belong and must not be stopped, with the start time: nothing below them belongs either.
    spared: BTreeSet<(u32, u64)>,
    /// The sessions of those that were named, not found below others.
    sessions: BTreeSet<u32>,
}

/// One process, by a descriptor that cannot come to mean another one.
pub(super) struct Member {
    handle: Handle,
    pid: u32,
    start_time: u64,
    session: u32,
    /// Whether it leads its process group: then the group is its own.
    leads: bool,
    /// Its words and its executable.
    program: (Vec<String>, Option<PathBuf>),
    gone: bool,
}

impl Member {
    /// Takes hold of a process; `None` if it is not there (any more).
    pub(super) fn take(pid: u32, start_time: u64) -> Option<Self> {
        let handle = Handle::open(pid)?;
        // After opening: whoever has this start time now had the number when it was opened, too.
        let stat = Stat::read(pid)?;
        let program = process_facts(pid).map(|facts| (facts.command, facts.exe));
        (stat.start_time == start_time && stat.is_alive()).then_some(Self {
            handle,
            pid,
            start_time,
            session: stat.session,
            leads: stat.group == pid,
            program: program.unwrap_or_default(),
            gone: false,
        })
    }

    /// Whether a process of the table is its child, or was forked from it and left to the system. The number alone
    /// says nothing once the member may have been reaped: it may be somebody else's by now.
    fn is_above(&self, stat: &Stat, table: &Table) -> bool {
        let now = table.get(self.pid);
        let is_it = |now: &Stat| now.start_time == self.start_time;
        let is_child = || stat.parent == self.pid && now.is_some_and(is_it);
        // What a script has left in the background before it became the server is in its group, too.
        let is_orphan = || {
            self.leads
                && stat.group == self.pid
                && stat.session == self.session
                && now.is_none_or(is_it)
                && self.is_repeated_by(stat.pid)
        };
        stat.start_time >= self.start_time && (is_child() || is_orphan())
    }

    /// Whether another process runs the same program with the same words: a fork does, until it runs another one.
    fn is_repeated_by(&self, pid: u32) -> bool {
        process_facts(pid)
            .is_some_and(|other| (&other.command, &other.exe) == (&self.program.0, &self.program.1))
    }
}

impl Crew {
    /// Those that belong to this holder and to what keeps it: `top` is the holder itself, or the topmost that does.
    pub(super) fn of(holder: &Member, top: Option<&Stat>) -> Self {
        let mut crew = Self {
            sessions: BTreeSet::from([holder.session]),
            ..Self::default()
        };
        if let Some(top) = top {
            crew.sessions.insert(top.session);
            crew.enlist(top);
        }
        crew
    }

    fn enlist(&mut self, stat: &Stat) {
        if let Some(member) = Member::take(stat.pid, stat.start_time) {
            self.add(member);
        }
    }

    pub(super) fn add(&mut self, member: Member) {
        if !self.has(member.pid, member.start_time) {
            self.members.push(member);
        }
    }

    /// All pids, from the top down.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.pid).collect()
    }

    /// Whether a member has ended, as far as was waited for it.
    pub(super) fn is_gone(&self, pid: u32) -> bool {
        let mut members = self.members.iter();
        members.all(|member| member.pid != pid || member.gone)
    }

    /// The pids of those that have not ended, as far as was waited for them.
    pub(super) fn left(&self) -> Vec<u32> {
        let left = self.members.iter().filter(|member| !member.gone);
        left.map(|member| member.pid).collect()
    }

    fn has(&self, pid: u32, start_time: u64) -> bool {
        self.members
            .iter()
            .any(|member| member.pid == pid && member.start_time == start_time)
    }

    /// Adds all descendants of members, and what was forked from them and left to the system.
    pub(super) fn grow(&mut self, table: &Table) {
        let mut next = 0;
        while let Some(member) = self.members.get(next) {
            next += 1;
            let below: Vec<Stat> = table
                .all()
                .filter(|stat| stat.is_alive() && member.is_above(stat, table))
                .cloned()
                .collect();
            let new: Vec<Stat> = below
                .into_iter()
                .filter(|stat| !self.has(stat.pid, stat.start_time))
                .collect();
            let spared = new
                .iter()
                .filter(|stat| !aside::goes_with(stat, &self.sessions));
            self.spared
                .extend(spared.map(|stat| (stat.pid, stat.start_time)));
            for stat in new {
                if !self.is_spared(&stat, table) {
                    self.enlist(&stat);
                }
            }
        }
    }

    /// Whether a process is spared, or below one that is.
    fn is_spared(&self, stat: &Stat, table: &Table) -> bool {
        std::iter::once(stat)
            .chain(table.ancestors(stat.pid))
            .take_while(|stat| !self.has(stat.pid, stat.start_time))
            .any(|stat| self.spared.contains(&(stat.pid, stat.start_time)))
    }

    /// Sends to all who are left; the first refusal is reported after all were tried. Who is suspended goes
    /// on after that, or it would never come to act upon it.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let send = |signal| {
            self.members
                .iter()
                .filter(|member| !member.gone)
                .map(|member| member.handle.signal(signal))
                .fold(Ok(()), Result::and)
        };
        let sent = send(signal);
        if signal == Signal::KILL {
            sent
        } else {
            sent.and(send(Signal::CONT))
        }
    }

    /// Waits until all members are gone, or for `patience`. What was forked meanwhile joins, and is sent
    /// `signal` as the others were.
    pub(super) fn wait(&mut self, signal: Signal, patience: Duration) -> bool {
        // Beyond what the clock can say, a year is as good.
        let end = Instant::now() + patience.min(Duration::from_hours(24 * 365));
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
        let handles: Vec<&Handle> = waiting.iter().map(|member| &member.handle).collect();
        let gone = Handle::wait(&handles, patience);
        for (member, gone) in waiting.iter_mut().zip(gone) {
            // The handle tells of no end while threads are not reaped, which is up to who traces them.
            member.gone = gone || is_dead(member);
        }
    }
}

/// Whether nothing of a process runs any more; its number is its own until it is reaped.
fn is_dead(member: &Member) -> bool {
    Stat::read(member.pid)
        .is_some_and(|stat| stat.start_time == member.start_time && !stat.is_alive())
}

/// A descendant may be a session or an engine that only happened to be started here, or another user's.
pub(super) fn may_be_stopped(facts: &ProcessFacts) -> bool {
    facts.signalable && protect::reason(facts).is_none()
}
