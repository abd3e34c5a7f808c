//! Who may start a container again when its engine has stopped it: whoever waits for that through an engine's client, and
//! a shell script that starts it in a loop.
//!
//! Reads command lines and scripts; stops nobody. A loop in another language that asks the engine now and then cannot be
//! known beforehand.

use std::path::Path;

use crate::naming::normal_name;
use crate::port::claim::Claim;
use crate::port::holder::{ContainerFacts, Holder, ProcessFacts, Who};
use crate::port::process::{Stat, Table, process_facts, variable};
use crate::port::shell_loop;
use crate::port::supervisor::{SHELLS, is_interactive, is_shell, shell_text};
use crate::port::tool::base;

/// Clients of engines whose container ends with them, or they with it.
const CLIENTS: &[&str] = &["docker", "podman", "nerdctl"];

/// Start a project's containers, and end with them if they are attached. An engine's client may run one as a part of it.
const COMPOSERS: &[&str] = &["docker-compose", "podman-compose"];

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

/// Whether a process of this name is attached to one container, and ends a moment after it. A project's client may have
/// others to wait for.
pub(super) fn is_client(name: &str) -> bool {
    CLIENTS.contains(&name)
}

/// What ends a loop around a client, and then its container: a shell that somebody types in is not to be killed.
pub fn how_ended(keeper: &ProcessFacts) -> String {
    let pid = keeper.pid;
    if is_shell(keeper) && is_interactive(keeper) {
        format!("end the loop in its terminal, then stop the container: the shell has pid {pid}")
    } else {
        format!("stop what starts it, then the container: kill {pid}")
    }
}

fn who_is_behind(stat: &Stat, about: &About<'_>) -> Option<ProcessFacts> {
    let is = |names: &[&str]| names.contains(&stat.name.as_str());
    if is(CLIENTS) || is(COMPOSERS) {
        let client = process_facts(stat.pid)?;
        let words: Vec<&str> = client.command.iter().map(String::as_str).collect();
        let deed = about.deed(&words, &client)?;
        let parent = process_facts(stat.parent)?;
        // It is what speaks for a person or a script.
        if CLIENTS.contains(&parent.name.as_str()) {
            return None;
        }
        // A person, or an editor, reads along.
        return (deed != Deed::Follows || is_shell(&parent)).then_some(parent);
    }
    // A script with a first line of its own has its own name, in 15 bytes, and its shell in front of its words.
    let shell = process_facts(stat.pid).filter(|facts| is(SHELLS) || is_shell(facts))?;
    let text = shell_text(&shell)?;
    about.is_started_in_a_loop(&text, &shell).then_some(shell)
}

/// The containers that are stopped, and their port.
struct About<'a> {
    containers: Vec<&'a ContainerFacts>,
    port: String,
}

impl About<'_> {
    /// What the words of a client do about one of them; `of` is the client, or the shell that calls it.
    fn deed(&self, words: &[&str], of: &ProcessFacts) -> Option<Deed> {
        let is_client = |word: &str| CLIENTS.contains(&base(word));
        // An interpreter may stand before a script.
        let name = words
            .iter()
            .position(|word| is_client(word) || COMPOSERS.contains(&base(word)))?;
        let composes = words.get(name).is_some_and(|word| !is_client(word));
        let words = words.get(name + 1..)?;
        if composes || words.contains(&"compose") {
            let is_up = words
                .iter()
                .any(|it| ["up", "start", "restart"].contains(it));
            let project = project_of(words, of)?;
            let mut containers = self.containers.iter();
            let is_of_it = containers.any(|it| it.project.as_ref() == Some(&project));
            return (is_up && is_of_it).then_some(Deed::Starts);
        }
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
    fn is_started_in_a_loop(&self, text: &str, shell: &ProcessFacts) -> bool {
        shell_loop::repeats(text, |command, script| {
            // `sudo docker …`
            let client = command.iter().take(2);
            let client = client.map(|word| base(word));
            let is_known = |it: &str| CLIENTS.contains(&it) || COMPOSERS.contains(&it);
            let Some(at) = client.into_iter().position(is_known) else {
                return false;
            };
            let words = command.get(at..).unwrap_or_default();
            if self.deed(words, shell) == Some(Deed::Starts) {
                return true;
            }
            let words = words.get(1..).unwrap_or_default();
            let starts = deed_of(words).is_some_and(|(_, deed)| deed == Deed::Starts);
            let is_open = words.iter().any(|word| word.contains('$'));
            let mut named = script.iter();
            starts && is_open && named.any(|word| self.is_meant(word, Deed::Starts))
        })
    }
}

/// The project that these words are about: the one that is named, or that of the directory. What a compose file calls it
/// is not looked up.
fn project_of(words: &[&str], of: &ProcessFacts) -> Option<String> {
    let mut after = words.iter();
    while let Some(word) = after.next() {
        if ["-p", "--project-name"].contains(word) {
            return after.next().map(|name| (*name).to_owned());
        }
        if let Some(name) = word.strip_prefix("--project-name=") {
            return Some(name.to_owned());
        }
    }
    let named = variable(
        Path::new(&format!("/proc/{}", of.pid)),
        b"COMPOSE_PROJECT_NAME=",
    );
    named.filter(|name| !name.is_empty()).or_else(|| {
        let directory = of.cwd.as_deref()?.file_name()?;
        Some(normal_name(&directory.to_string_lossy()))
    })
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
    fn a_shell_that_somebody_types_in_is_not_to_be_killed() {
        for (words, is_typed) in [
            (&["bash", "-i"][..], true),
            (&["-zsh"], true),
            (&["sh", "loop.sh"], false),
            (&["python3", "loop.py"], false),
        ] {
            let hint = how_ended(&ProcessFacts::of_words(words));
            assert_eq!(hint.contains("terminal"), is_typed, "{hint}");
            assert_eq!(hint.ends_with("kill 4711"), !is_typed, "{hint}");
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
            let words: Vec<&str> = ["docker"].into_iter().chain(words.split(' ')).collect();
            let client = ProcessFacts::of_words(&words);
            assert_eq!(about.deed(&words, &client), deed, "{words:?}");
        }
    }

    #[test]
    fn a_project_that_is_started_again_is_known_by_its_name_and_directory() {
        let container = ContainerFacts {
            project: Some("my-shop".into()),
            ..ContainerFacts::named("my-shop-web-1")
        };
        let about = about(&container);
        for (words, cwd, is_it) in [
            ("docker compose up", "/src/My-Shop!", true),
            ("docker compose -p my-shop up -d", "/src/other", true),
            ("docker-compose --project-name=my-shop up", "/", true),
            (
                "/usr/bin/python3 /usr/bin/podman-compose up",
                "/src/my-shop",
                true,
            ),
            ("docker-compose compose restart web", "/src/my-shop", true),
            ("docker compose up", "/src/other", false),
            ("docker compose -p other up", "/src/my-shop", false),
            ("docker compose run worker", "/src/my-shop", false),
            ("docker compose down", "/src/my-shop", false),
        ] {
            let of = ProcessFacts {
                // No process has it.
                pid: u32::MAX,
                cwd: Some(cwd.into()),
                ..ProcessFacts::of_words(&[])
            };
            let split: Vec<&str> = words.split(' ').collect();
            let deed = about.deed(&split, &of);
            assert_eq!(deed, is_it.then_some(Deed::Starts), "{words} in {cwd}");
            if !words.contains("python3") {
                let text = format!("while true; do {words}; done");
                assert_eq!(about.is_started_in_a_loop(&text, &of), is_it, "{text}");
            }
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
            let shell = ProcessFacts::of_words(&["sh"]);
            assert_eq!(about.is_started_in_a_loop(text, &shell), is_it, "{text}");
        }
    }
}
