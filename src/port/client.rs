//! Who may start a container again when its engine has stopped it: whoever waits for that through an engine's client, and
//! a shell script that starts it in a loop.
//!
//! Reads command lines and scripts; stops nobody. A loop in another language that asks the engine now and then cannot be
//! known beforehand.

use crate::port::claim::Claim;
use crate::port::holder::{ContainerFacts, Holder, ProcessFacts, Who};
use crate::port::process::{Stat, Table, process_facts};
use crate::port::shell_loop;
use crate::port::supervisor::{SHELLS, is_shell, shell_text};
use crate::port::tool::base;

/// Clients of engines whose container ends with them, or they with it.
const CLIENTS: &[&str] = &["docker", "podman", "nerdctl"];

/// An engine's id is used from so many characters on: fewer may be any word.
const SHORTEST_ID: usize = 4;

/// What a client does about a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Starts it, and may stay until it ends.
    Starts,
    /// Waits for its end, and has no other purpose.
    Waits,
    /// Shows what it says until it ends: mostly to a person.
    Follows,
}

/// Who waits for containers to end, through an engine's client that is attached to them (`docker run`, `docker wait`), or
/// has it started in a loop of a script. To be asked before they are stopped, since the client ends, too.
pub fn behind_clients(claim: &Claim, holders: &[Holder]) -> Vec<ProcessFacts> {
    let containers = holders.iter().filter_map(|holder| match &holder.who {
        Who::Container(facts) => Some(facts.as_ref()),
        Who::Process(_) | Who::Unit { .. } | Who::Unknown { .. } | Who::Kernel => None,
    });
    let containers: Vec<&ContainerFacts> = containers.collect();
    if containers.is_empty() {
        return Vec::new();
    }
    let about = About {
        containers,
        port: claim.port.to_string(),
    };
    let table = Table::read();
    let mut found: Vec<ProcessFacts> = Vec::new();
    for stat in table.all() {
        let behind = who_is_behind(stat, &about);
        let is_new = |new: &ProcessFacts| !found.iter().any(|known| known.pid == new.pid);
        if let Some(behind) = behind.filter(is_new) {
            found.push(behind);
        }
    }
    found
}

fn who_is_behind(stat: &Stat, about: &About<'_>) -> Option<ProcessFacts> {
    let is = |names: &[&str]| names.contains(&stat.name.as_str());
    if is(CLIENTS) {
        let client = process_facts(stat.pid)?;
        let words: Vec<&str> = client.command.iter().map(String::as_str).collect();
        let deed = about.deed(words.get(1..)?)?;
        let parent = process_facts(stat.parent)?;
        // A person, or an editor, reads along.
        return (deed != Deed::Follows || is_shell(&parent)).then_some(parent);
    }
    // A script with a first line of its own has its own name, in 15 bytes, and its shell in front of its words.
    let shell = process_facts(stat.pid).filter(|facts| is(SHELLS) || is_shell(facts))?;
    let text = shell_text(&shell)?;
    about.is_started_in_a_loop(&text).then_some(shell)
}

/// The containers that are stopped, and their port.
struct About<'a> {
    containers: Vec<&'a ContainerFacts>,
    port: String,
}

impl About<'_> {
    /// What the words of a client, without its name, do about one of them.
    fn deed(&self, words: &[&str]) -> Option<Deed> {
        let (at, deed) = deed_of(words)?;
        let mut after = words.iter().skip(at + 1);
        after.any(|word| self.is_meant(word, deed)).then_some(deed)
    }

    fn is_meant(&self, word: &str, deed: Deed) -> bool {
        let mut parts = word.split([':', '=']);
        let is_it = |facts: &&ContainerFacts| {
            let is_id = word.len() >= SHORTEST_ID && facts.id.starts_with(word);
            is_id || word.rsplit('=').next() == Some(facts.name.as_str())
        };
        self.containers.iter().any(is_it)
            || (deed == Deed::Starts && parts.any(|part| part == self.port))
    }

    /// Whether a loop of a script starts one of them: named there, or by a variable of a script that names it anywhere.
    fn is_started_in_a_loop(&self, text: &str) -> bool {
        shell_loop::repeats(text, |command, script| {
            // `sudo docker …`
            let client = command.iter().take(2);
            let client = client.map(|word| base(word));
            let Some(at) = client.into_iter().position(|it| CLIENTS.contains(&it)) else {
                return false;
            };
            let words = command.get(at + 1..).unwrap_or_default();
            if self.deed(words) == Some(Deed::Starts) {
                return true;
            }
            let starts = deed_of(words).is_some_and(|(_, deed)| deed == Deed::Starts);
            let is_open = words.iter().any(|word| word.contains('$'));
            let mut named = script.iter();
            starts && is_open && named.any(|word| self.is_meant(word, Deed::Starts))
        })
    }
}

/// What a client is told to do, and which word says so.
fn deed_of(words: &[&str]) -> Option<(usize, Deed)> {
    let follows = |word: &&str| {
        *word == "--follow"
            || (word.starts_with('-') && !word.starts_with("--") && word.contains('f'))
    };
    words.iter().enumerate().find_map(|(at, word)| match *word {
        "run" | "start" | "restart" => Some((at, Deed::Starts)),
        "wait" => Some((at, Deed::Waits)),
        "attach" => Some((at, Deed::Follows)),
        "logs" => {
            let mut after = words.iter().skip(at + 1);
            after.any(follows).then_some((at, Deed::Follows))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(container: &ContainerFacts) -> About<'_> {
        About {
            containers: vec![container],
            port: "8003".into(),
        }
    }

    #[test]
    fn a_client_that_ends_with_its_container_is_known_by_its_words() {
        let container = ContainerFacts {
            id: "0123456789abcdef".into(),
            ..ContainerFacts::named("web")
        };
        let about = about(&container);
        for (words, deed) in [
            ("run --rm --name web img", Some(Deed::Starts)),
            ("run --name=web img", Some(Deed::Starts)),
            (
                "-H unix:///x.sock run -p 127.0.0.1:8003:80 img",
                Some(Deed::Starts),
            ),
            ("start -a web", Some(Deed::Starts)),
            ("wait web", Some(Deed::Waits)),
            ("container wait 0123456789ab", Some(Deed::Waits)),
            ("logs -f web", Some(Deed::Follows)),
            ("logs --tail 3 -tf web", Some(Deed::Follows)),
            ("attach web", Some(Deed::Follows)),
            ("logs web", None),
            ("wait other", None),
            ("logs -f webs", None),
            ("wait 8003", None),
            ("exec web sh", None),
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            assert_eq!(about.deed(&words), deed, "{words:?}");
        }
    }

    #[test]
    fn a_script_that_starts_it_in_a_loop_is_known_by_its_text() {
        let container = ContainerFacts::named("web");
        let about = about(&container);
        for (text, is_it) in [
            (
                "while true; do docker run -d --name web img; while docker inspect web; do sleep 1; done; done",
                true,
            ),
            (
                "while sleep 1; do docker ps | grep -q web || docker start web; done",
                true,
            ),
            (
                "until false; do sudo podman restart web >/dev/null; sleep 1; done",
                true,
            ),
            (
                "n=web; while :; do docker run -d --rm --name $n -p $p:80 img; sleep 1; done",
                true,
            ),
            (
                "docker run -d --name web img; while docker inspect web; do sleep 1; done",
                false,
            ),
            ("while :; do docker inspect web; sleep 1; done", false),
            (
                "while :; do docker start other; sleep 1; done; echo web",
                false,
            ),
            ("n=other; while :; do docker start $n; sleep 1; done", false),
        ] {
            assert_eq!(about.is_started_in_a_loop(text), is_it, "{text}");
        }
    }
}
