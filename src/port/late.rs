//! What became of processes that were told to end: who was left after the grace and had to be killed, and what kept
//! them. Reads only.

use std::time::Duration;

use rustix::process::Signal;

use crate::port::process::{process_facts, takes};
use crate::port::release::Stopped;
use crate::port::{describe, traced};

/// What was left of a holder and its tree when the grace was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// Who was left where the holder itself had ended, in words; empty where the holder was.
    pub others: Vec<String>,
    /// Why they had not ended, in words for people.
    pub reason: String,
}

impl Late {
    /// `left` are the processes that have not ended, `holder` among them or not.
    pub(super) fn of(holder: u32, left: &[u32], signal: Signal, grace: Duration) -> Self {
        let is_left = left.contains(&holder);
        let first = if is_left { Some(&holder) } else { left.first() };
        let reason = held(holder, left)
            .or_else(|| first.and_then(|pid| ignored(*pid, signal)))
            .unwrap_or_else(|| format!("it had not ended after {} s", grace.as_secs()));
        let others = left.iter().filter(|_| !is_left);
        let others = others.filter_map(|pid| process_facts(*pid));
        Self {
            others: others
                .map(|facts| format!("{} (pid {})", describe::called(&facts), facts.pid))
                .collect(),
            reason,
        }
    }
}

/// Who is in a debugger gets no signal; a master may wait for such a worker.
fn held(holder: u32, left: &[u32]) -> Option<String> {
    left.iter().find_map(|pid| {
        let facts = process_facts(*pid)?;
        let debugger = traced::debugger(&facts)?;
        let of_whom = if *pid == holder || !left.contains(&holder) {
            "it".to_owned()
        } else {
            format!("{} (pid {pid})", describe::called(&facts))
        };
        Some(format!("{debugger} kept the signal from {of_whom}"))
    })
}

fn ignored(pid: u32, signal: Signal) -> Option<String> {
    let name = if signal == Signal::TERM {
        "SIGTERM"
    } else {
        "the signal"
    };
    (!takes(pid, signal)?).then(|| format!("it ignored {name}"))
}

impl Stopped {
    /// What became of it and of what belongs to it, in words; `signal` is the first that was sent.
    pub fn told(&self, signal: Signal) -> String {
        let late = self.late.as_ref();
        let late = late.filter(|_| self.killed && signal != Signal::KILL);
        let how = match late {
            _ if self.lives => "let go of the port, asked to end, and lives:".to_owned(),
            _ if self.pids.is_empty() => "gone by itself:".to_owned(),
            Some(late) if late.others.is_empty() => format!("killed ({})", late.reason),
            None if self.killed => "killed".to_owned(),
            // It ended by itself, whatever became of its own.
            Some(_) | None => "stopped".to_owned(),
        };
        let first = self.supervisor.as_ref();
        let first = first.map(|first| format!(", after what kept it: {first}"));
        let left = late.filter(|late| !late.others.is_empty());
        let left = left.map(|late| {
            let (others, reason) = (late.others.join(", "), &late.reason);
            format!(", and killed what had not ended with it: {others} ({reason})")
        });
        let (first, left) = (first.unwrap_or_default(), left.unwrap_or_default());
        format!("{how} {}{first}{left}", self.who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_ended_is_not_said_to_have_been_killed() {
        let stopped = |others: &[&str]| Stopped {
            who: "ws (pid 1)".into(),
            supervisor: Some("nodemon (pid 2)".into()),
            pids: vec![1, 2],
            killed: true,
            late: Some(Late {
                others: others.iter().map(|&other| other.into()).collect(),
                reason: "it had not ended after 10 s".into(),
            }),
            lives: false,
            took: Duration::ZERO,
        };
        assert_eq!(
            stopped(&[]).told(Signal::TERM),
            "killed (it had not ended after 10 s) ws (pid 1), after what kept it: nodemon (pid 2)"
        );
        assert_eq!(
            stopped(&["worker (pid 3)"]).told(Signal::TERM),
            "stopped ws (pid 1), after what kept it: nodemon (pid 2), and killed what had not ended with it: worker (pid 3) (it had not ended after 10 s)"
        );
        assert_eq!(
            stopped(&[]).told(Signal::KILL),
            "killed ws (pid 1), after what kept it: nodemon (pid 2)"
        );
    }
}
