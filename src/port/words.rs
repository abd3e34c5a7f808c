//! Holders in a few words, and the facts that help a person decide.

use crate::port::holder::{Holder, ProcessFacts, Who};

/// So many ancestors say where a process comes from.
const SHOWN_ANCESTORS: usize = 3;

impl Holder {
    /// A few words for a progress line: `python3 (pid 4711)`, `container web-1`.
    pub fn short(&self) -> String {
        match &self.who {
            Who::Process(facts) => format!("{} (pid {})", facts.name, facts.pid),
            Who::Container(facts) => format!("container {}", facts.name),
            Who::Unit { name, .. } => name.clone(),
            Who::Unknown { uid, user } => {
                format!(
                    "a process of {}",
                    user.clone().unwrap_or_else(|| format!("uid {uid}"))
                )
            }
            Who::Kernel => "the kernel".to_owned(),
        }
    }

    /// Why it cannot be replaced, if it cannot. `consent` is a person's word (an answer, `--force`) that it
    /// may be: without one, a systemd unit is not wharf's to stop.
    pub fn obstacle(&self, consent: bool) -> Option<String> {
        if let Some(reason) = &self.protected {
            return Some(reason.clone());
        }
        let name = |user: &Option<String>, uid: u32| match user {
            Some(user) => user.clone(),
            None => format!("uid {uid}"),
        };
        match &self.who {
            Who::Container(_) => None,
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
            Who::Unit { name, .. } => {
                Some(format!("it is a systemd unit: sudo systemctl stop {name}"))
            }
            Who::Unknown { uid, user } => Some(format!(
                "it belongs to {}, and its process is not visible to you",
                name(user, *uid)
            )),
            Who::Kernel => Some("the kernel or another network namespace holds it".to_owned()),
        }
    }

    /// More facts, one a line: where it listens, where it runs, who started it.
    pub fn facts(&self) -> Vec<String> {
        let mut facts = Vec::new();
        let mut addresses: Vec<String> = self
            .sockets
            .iter()
            .map(|socket| socket.address.to_string())
            .collect();
        addresses.sort();
        addresses.dedup();
        if !addresses.is_empty() {
            facts.push(format!("listens on {}", addresses.join(", ")));
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
        facts
    }
}

fn process_lines(process: &ProcessFacts) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(cwd) = &process.cwd {
        lines.push(format!("in {}", cwd.display()));
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
