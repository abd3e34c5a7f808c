//! Holders in a few words, and the facts that help a person decide.

use crate::port::holder::{Holder, ProcessFacts, Who};
use crate::port::{describe, traced};

/// So many ancestors say where a process comes from.
const SHOWN_ANCESTORS: usize = 3;

/// So many pids say enough.
const SHOWN_PIDS: usize = 8;

fn crowd(pids: &[u32]) -> String {
    let shown: Vec<String> = pids
        .iter()
        .take(SHOWN_PIDS)
        .map(ToString::to_string)
        .collect();
    let more = if pids.len() > SHOWN_PIDS { ", …" } else { "" };
    match pids.len() {
        1 => format!("a process below it has it, too: pid {}", shown.join("")),
        count => format!(
            "{count} processes below it have it, too: pids {}{more}",
            shown.join(", ")
        ),
    }
}

impl Holder {
    /// Holders for a person: each that has no other one above it, with its facts. The processes below it (workers
    /// of a master) are one more line, however many they are.
    pub fn told(holders: &[Self]) -> Vec<(&Self, Vec<String>)> {
        let pid = |holder: &Self| match &holder.who {
            Who::Process(facts) => Some(facts.pid),
            Who::Container(_) | Who::Unit { .. } | Who::Unknown { .. } | Who::Kernel => None,
        };
        let pids: Vec<u32> = holders.iter().filter_map(pid).collect();
        let above = |holder: &Self| match &holder.who {
            // The topmost, so that workers of workers are told with the same one.
            Who::Process(facts) if holder.protected.is_none() => facts
                .ancestors
                .iter()
                .map(|(ancestor, _)| *ancestor)
                .rfind(|ancestor| pids.contains(ancestor)),
            Who::Process(_)
            | Who::Container(_)
            | Who::Unit { .. }
            | Who::Unknown { .. }
            | Who::Kernel => None,
        };
        let leading = holders.iter().filter(|holder| above(holder).is_none());
        leading
            .map(|leader| {
                let below: Vec<u32> = holders
                    .iter()
                    .filter(|holder| above(holder).is_some() && above(holder) == pid(leader))
                    .filter_map(pid)
                    .collect();
                let mut facts = leader.facts();
                if !below.is_empty() {
                    facts.push(crowd(&below));
                }
                (leader, facts)
            })
            .collect()
    }

    /// A few words for a progress line: `python3 (pid 4711)`, `container web-1`.
    pub fn short(&self) -> String {
        describe::one_line(&self.shortly())
    }

    fn shortly(&self) -> String {
        match &self.who {
            Who::Process(facts) => match (&self.service, self.carries.first()) {
                (Some(of), _) => format!("{of} (pid {})", facts.pid),
                (None, Some(of)) => format!("the forwarder for {of}"),
                (None, None) => format!("{} (pid {})", describe::called(facts), facts.pid),
            },
            Who::Container(facts) => format!("container {}", facts.name),
            Who::Unit { name, .. } => name.clone(),
            Who::Unknown { uid, user, .. } => {
                format!(
                    "a process of {}",
                    user.clone().unwrap_or_else(|| format!("uid {uid}"))
                )
            }
            Who::Kernel => "the kernel".to_owned(),
        }
    }

    /// Whether it takes a flag to stop it, and not one letter at a question: more depends on it than the port.
    pub fn needs_flag(&self) -> bool {
        match &self.who {
            Who::Unit { .. } => true,
            Who::Process(facts) => {
                self.service.is_none()
                    && (facts.heads_namespace
                        || traced::debugger(facts).is_some()
                        || self.debugged_below.is_some())
            }
            Who::Container(_) | Who::Unknown { .. } | Who::Kernel => false,
        }
    }

    /// Why it cannot be replaced, if it cannot. `consent` is a person's word (an answer, `--force`) that it
    /// may be: without one, a systemd unit is not wharf's to stop.
    pub fn obstacle(&self, consent: bool) -> Option<String> {
        Some(describe::one_line(&self.objection(consent)?))
    }

    fn objection(&self, consent: bool) -> Option<String> {
        if let Some(reason) = &self.protected {
            return Some(reason.clone());
        }
        let name = |user: &Option<String>, uid: u32| match user {
            Some(user) => user.clone(),
            None => format!("uid {uid}"),
        };
        match &self.who {
            Who::Container(_) => None,
            Who::Process(facts) if facts.signalable && self.needs_flag() && !consent => {
                let debugged = traced::debugger(facts).and_then(|_| traced::told(facts));
                let below = || self.debugged_below.as_ref().map(traced::told_of);
                let reason = debugged.or_else(below);
                Some(reason.unwrap_or_else(|| describe::ends_a_namespace(facts)))
            }
            Who::Process(facts) if facts.signalable => None,
            Who::Process(facts) => Some(format!(
                "it belongs to {}, and you may not signal it: sudo kill {}",
                name(&facts.user, facts.uid),
                facts.pid
            )),
            Who::Unit { main, .. }
                if consent && main.as_ref().is_some_and(|facts| facts.signalable) =>
            {
                // `systemctl stop` works for whoever may signal it.
                None
            }
            Who::Unit { .. } => {
                Some("it is a systemd unit, for its service manager to stop".to_owned())
            }
            Who::Unknown { to_root: true, .. } => {
                Some("no process that could be stopped shows this socket".to_owned())
            }
            Who::Unknown { uid, user, .. } => Some(format!(
                "it belongs to {}, and its process is not visible to you",
                name(user, *uid)
            )),
            Who::Kernel => Some("the kernel or another namespace holds it".to_owned()),
        }
    }

    /// More facts, one a line: where it listens, where it runs, who started it.
    pub fn facts(&self) -> Vec<String> {
        let mut facts = Vec::new();
        for (listening, verb) in [
            (true, "listens on"),
            (false, "has bound, without listening,"),
        ] {
            let sockets = self.sockets.iter();
            let mut addresses: Vec<String> = sockets
                .filter(|socket| socket.listening == listening)
                .map(|socket| socket.address.to_string())
                .collect();
            addresses.sort();
            addresses.dedup();
            if !addresses.is_empty() {
                facts.push(format!("{verb} {}", addresses.join(", ")));
            }
        }
        match &self.who {
            Who::Process(process)
            | Who::Unit {
                main: Some(process),
                ..
            } => {
                facts.extend(process_lines(process));
            }
            Who::Container(container) if !container.command.is_empty() => {
                facts.push(format!("runs {}", container.command));
            }
            Who::Container(_)
            | Who::Unit { main: None, .. }
            | Who::Unknown { .. }
            | Who::Kernel => {}
        }
        facts.iter().map(|fact| describe::one_line(fact)).collect()
    }
}

fn process_lines(process: &ProcessFacts) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(cwd) = &process.cwd {
        lines.push(format!("in {}", describe::directory(cwd)));
    }
    let parents: Vec<String> = process
        .ancestors
        .iter()
        .filter(|(pid, _)| *pid != 1)
        .take(SHOWN_ANCESTORS)
        .map(|(pid, name)| format!("{name} (pid {pid})"))
        .collect();
    if !parents.is_empty() {
        lines.push(format!("started by {}", parents.join(", by ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(pid: u32, ancestors: &[u32]) -> Holder {
        let facts = ProcessFacts {
            pid,
            start_time: 1,
            uid: 1000,
            user: None,
            name: "ws".into(),
            command: Vec::new(),
            exe: None,
            cwd: None,
            started: 0,
            age_seconds: 0,
            ancestors: ancestors.iter().map(|pid| (*pid, "ws".into())).collect(),
            run_id: None,
            signalable: true,
            heads_namespace: false,
            tracer: None,
        };
        Holder::of(Who::Process(Box::new(facts)), Vec::new(), None)
    }

    #[test]
    fn workers_are_told_with_their_master() {
        let mut holders = vec![holder(10, &[5, 1]), holder(20, &[1])];
        holders.extend((11..=20).map(|pid| holder(pid + 100, &[10, 5, 1])));
        holders.push(holder(300, &[111, 10, 5, 1]));
        let told = Holder::told(&holders);
        let lines: Vec<(String, Option<&String>)> = told
            .iter()
            .map(|(holder, facts)| (holder.short(), facts.last()))
            .collect();
        assert_eq!(told.len(), 2);
        assert_eq!(
            lines.first().unwrap().1.unwrap(),
            "11 processes below it have it, too: pids 111, 112, 113, 114, 115, 116, 117, 118, …"
        );
        assert_eq!(lines.last().unwrap().0, "ws (pid 20)");
    }
}
