//! Processes that another one traces (`ptrace(2)`): what becomes of a signal is the tracer's to decide. Reads only.

use std::fmt;

use crate::port::holder::{Debugged, ProcessFacts, Tracer};
use crate::port::process::{self, Stat};

/// Look on and let every signal through.
const LOOK_ON: &[&str] = &["strace", "ltrace", "proot", "rr", "uftrace"];

/// Who debugs a process: a person looks at it there, and gets each signal before it does.
pub(super) fn debugger(facts: &ProcessFacts) -> Option<&Tracer> {
    facts.tracer.as_ref().filter(|tracer| is_debugger(tracer))
}

fn is_debugger(tracer: &Tracer) -> bool {
    !LOOK_ON.contains(&tracer.name.as_str())
}

/// The first of those below a process at which somebody looks in a debugger. Not those that have its socket, too:
/// they are told of themselves.
pub(super) fn below(pid: u32, sharing: &[u32]) -> Option<Debugged> {
    /// A guard against a tree that changes while it is read.
    const MOST: usize = 1000;
    let mut found = process::children(pid);
    let mut next = 0;
    while let Some(pid) = found.get(next).copied().filter(|_| next < MOST) {
        next += 1;
        if let Some(tracer) = process::tracer_of(pid).filter(is_debugger)
            && !sharing.contains(&pid)
        {
            let name = Stat::read(pid)?.name;
            return Some(Debugged { pid, name, tracer });
        }
        found.extend(process::children(pid));
    }
    None
}

/// What a release means for who debugs one of those that end with a holder, in words.
pub(super) fn told_of(debugged: &Debugged) -> String {
    let Debugged { pid, name, tracer } = debugged;
    format!(
        "{tracer} debugs {name} (pid {pid}), which ends with it: SIGTERM is held there until it goes on, and SIGKILL ends what is looked at"
    )
}

impl fmt::Display for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// What a release means for who traces the process, in words.
pub(super) fn told(facts: &ProcessFacts) -> Option<String> {
    let tracer = facts.tracer.as_ref()?;
    Some(if debugger(facts).is_some() {
        format!(
            "{tracer} debugs it: SIGTERM is held there until it goes on, and SIGKILL ends what is looked at"
        )
    } else {
        format!("{tracer} traces it and lets signals through")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::holder::{Holder, Who};

    #[test]
    fn a_server_in_a_debugger_takes_a_persons_word_and_one_that_is_watched_does_not() {
        for (name, is_debugged) in [("gdb", true), ("lldb-server", true), ("strace", false)] {
            let facts = ProcessFacts {
                tracer: Some(Tracer {
                    pid: 812,
                    name: name.into(),
                }),
                ..ProcessFacts::of_words(&["ws", "8003"])
            };
            let said = told(&facts).unwrap();
            assert!(said.starts_with(&format!("{name} (pid 812) ")), "{said}");
            let holder = Holder::of(Who::Process(Box::new(facts)), Vec::new(), None);
            assert_eq!(holder.needs_flag(), is_debugged, "{name}");
            assert_eq!(holder.obstacle(false), is_debugged.then_some(said));
            assert_eq!(holder.obstacle(true), None);
        }
    }
}
