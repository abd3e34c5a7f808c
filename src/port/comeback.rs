//! Whether somebody starts a holder again that was stopped: a loop with a pause, a supervisor with a back-off.
//!
//! The port is free by then; it is watched for a bounded time, and only while a process lives that may have
//! reason to. Asks the kernel's list alone: to try the port out would be in the way of whoever wants it next.
//! Stops nobody.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::port::claim::Claim;
use crate::port::free::Newcomer;
use crate::port::holder::{Holder, ProcessFacts, Who};
use crate::port::process::{Stat, process_facts, ticks_now};
use crate::port::{PortError, client, describe, free, protect, steward, supervisor};

/// How long is watched: a pause of a second, and the start of a slow server after it.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long is watched for somebody who is none of its ancestors: a look each second, and the start.
const STRANGER_PATIENCE: Duration = Duration::from_millis(1250);

/// How long a forwarder of wharf's may take to see that what it follows is gone: it looks every three seconds.
const DOOR_PATIENCE: Duration = Duration::from_secs(5);

/// A shell takes its terminal back, and a wrapper ends, before this: nothing is said for so short a time.
const UNSAID: Duration = Duration::from_millis(250);

/// How long a client of an engine may take to end after its container has.
const LINGERING: Duration = Duration::from_secs(1);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// When holders began to be stopped, in clock ticks since boot.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self(ticks_now())
    }
}

/// Watches a port that was just released: [`PortError::TakenAgain`] as soon as somebody listens there, with
/// who it is and what keeps it running.
///
/// `before` are those who were stopped from `since` on, `behind` who waited for them. Returns at once where nobody is
/// left who might start them again, after a second where nobody knows who started them (a daemon), and after three
/// seconds otherwise. `waiting` is told, at most once, for whom is waited.
pub fn watch(
    claim: &Claim,
    before: &[Holder],
    behind: &[ProcessFacts],
    since: Moment,
    waiting: impl FnOnce(&str),
) -> Result<(), PortError> {
    let begin = Instant::now();
    let mut quiet_since = begin;
    let mut waiting = Some(waiting);
    let is_daemon = before.iter().any(was_left_to_the_system);
    loop {
        // Before the sockets: whoever starts it again and ends is seen by what it started.
        let restarter = restarter(before, since).or_else(|| still_behind(behind, since));
        match free::newcomer(claim, before)? {
            Some(Newcomer::Other(error)) => return Err(error),
            Some(Newcomer::Door(error)) if begin.elapsed() >= DOOR_PATIENCE => return Err(error),
            Some(Newcomer::Door(_)) => {
                thread::sleep(PAUSE);
                continue;
            }
            None => {}
        }
        let elapsed = begin.elapsed();
        let (patience, reason) = match restarter {
            Some(facts) => {
                let by = describe::process(&facts);
                let kept = steward::that_keeps(&facts);
                let reason = kept.unwrap_or_else(|| format!("the holder was started by {by}"));
                (PATIENCE, reason)
            }
            None if is_daemon => {
                let nobody = "who started the holder is not known any more";
                (STRANGER_PATIENCE, nobody.to_owned())
            }
            // It reads the next command when the client of the engine has ended.
            None if elapsed < LINGERING && behind.iter().any(waits_for_a_client) => {
                quiet_since = Instant::now();
                thread::sleep(PAUSE);
                continue;
            }
            // Between two commands of a loop a shell looks as it does at its prompt.
            None if quiet_since.elapsed() < UNSAID && is_shell_left(before, behind) => {
                thread::sleep(PAUSE);
                continue;
            }
            None => return Ok(()),
        };
        if elapsed >= patience {
            return Ok(());
        }
        if elapsed >= UNSAID
            && let Some(waiting) = waiting.take()
        {
            waiting(&format!(
                "port {claim} is released; watching for {} s whether it is taken again: {reason}",
                patience.as_secs(),
            ));
        }
        thread::sleep(PAUSE);
    }
}

/// One of those who waited for a container, if it is there and may start that again.
fn still_behind(behind: &[ProcessFacts], since: Moment) -> Option<ProcessFacts> {
    let is_left = |facts: &&ProcessFacts| {
        let stat = Stat::read(facts.pid).filter(|stat| stat.start_time == facts.start_time);
        stat.is_some_and(|stat| {
            stat.pid != 1 && stat.is_alive() && may_restart(&stat, facts, since)
        })
    };
    behind.iter().find(is_left).cloned()
}

/// Whether the first process became the parent of a holder because its own had ended: that is how daemons are
/// started, and how one is that a watchdog starts which is no ancestor of it.
fn was_left_to_the_system(holder: &Holder) -> bool {
    match &holder.who {
        Who::Process(facts) if holder.service.is_none() && !holder.orphan => {
            facts.ancestors.first().is_some_and(|(pid, _)| {
                *pid == 1
                    || process_facts(*pid)
                        .is_some_and(|parent| protect::is_service_manager(&parent))
            })
        }
        Who::Process(_)
        | Who::Container(_)
        | Who::Unit { .. }
        | Who::Unknown { .. }
        | Who::Kernel => false,
    }
}

/// Whether a client of an engine has the terminal of a shell that called it.
fn waits_for_a_client(shell: &ProcessFacts) -> bool {
    let stat = Stat::read(shell.pid).filter(|stat| stat.start_time == shell.start_time);
    let foreground = stat.and_then(|stat| u32::try_from(stat.foreground).ok());
    let foreground = foreground.and_then(Stat::read);
    foreground.is_some_and(|it| it.parent == shell.pid && client::is_client(&it.name))
}

/// Whether a holder was started by a shell that is still there, or a shell waited for a container.
fn is_shell_left(before: &[Holder], behind: &[ProcessFacts]) -> bool {
    let is_left = |facts: &ProcessFacts| {
        supervisor::is_shell(facts)
            && Stat::read(facts.pid).is_some_and(|stat| stat.start_time == facts.start_time)
    };
    if behind.iter().any(is_left) {
        return true;
    }
    before.iter().any(|holder| match &holder.who {
        Who::Process(facts) => facts
            .ancestors
            .first()
            .and_then(|(pid, _)| process_facts(*pid))
            .is_some_and(|parent| {
                supervisor::is_shell(&parent) && !protect::is_own_ancestor(parent.pid, &[])
            }),
        Who::Container(_) | Who::Unit { .. } | Who::Unknown { .. } | Who::Kernel => false,
    })
}

/// A living process that may start one of the holders again.
fn restarter(before: &[Holder], since: Moment) -> Option<ProcessFacts> {
    let mut asked = BTreeSet::new();
    before.iter().find_map(|holder| match &holder.who {
        Who::Process(facts) if holder.service.is_none() && holder.carries.is_empty() => {
            nearest(facts, since, &mut asked)
        }
        // Its engine, its manager or wharf was told to stop it.
        Who::Process(_)
        | Who::Container(_)
        | Who::Unit { .. }
        | Who::Unknown { .. }
        | Who::Kernel => None,
    })
}

/// The nearest ancestor that is left, if it may start its child again. What is above it waits for it.
fn nearest(
    holder: &ProcessFacts,
    since: Moment,
    asked: &mut BTreeSet<u32>,
) -> Option<ProcessFacts> {
    let is_left = |pid: u32, name: &str| {
        Stat::read(pid).filter(|stat| {
            stat.is_alive() && stat.name == name && stat.start_time <= holder.start_time
        })
    };
    let stat = holder
        .ancestors
        .iter()
        .find_map(|(pid, name)| is_left(*pid, name))?;
    if !asked.insert(stat.pid) || stat.pid == 1 {
        return None;
    }
    let facts = process_facts(stat.pid)?;
    may_restart(&stat, &facts, since).then_some(facts)
}

fn may_restart(stat: &Stat, facts: &ProcessFacts, since: Moment) -> bool {
    // Who asked for the port does not want it back.
    if stat.pid == std::process::id()
        || protect::is_own_ancestor(stat.pid, &[])
        || protect::carries_sessions(facts)
        || protect::is_engine_part(facts)
    {
        return false;
    }
    let reads_a_terminal = supervisor::is_shell(facts)
        && supervisor::shell_text(facts).is_none()
        && stat.terminal != 0
        && !is_part_of_a_shell(stat, facts);
    !reads_a_terminal || is_in_a_loop(stat, since)
}

/// Whether a shell was forked from another one for a part of its command line: `( … )`, `… &`. It reads
/// nothing, whatever is in the foreground.
fn is_part_of_a_shell(stat: &Stat, facts: &ProcessFacts) -> bool {
    process_facts(stat.parent)
        .is_some_and(|parent| parent.command == facts.command && parent.exe == facts.exe)
}

/// Whether a shell on a terminal goes on with a command line that was typed there: something is in the
/// foreground that was not before. At its prompt it is the shell itself.
fn is_in_a_loop(shell: &Stat, since: Moment) -> bool {
    u32::try_from(shell.foreground)
        .ok()
        .filter(|group| *group != shell.group)
        .and_then(Stat::read)
        .is_some_and(|foreground| foreground.start_time >= since.0)
}
