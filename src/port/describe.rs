//! Holders in words: one line that lets a person decide, and the command that would release the port.

use std::fmt::{self, Write as _};
use std::path::Path;

use crate::port::claim::Protocol;
use crate::port::holder::{ContainerFacts, Holder, ProcessFacts, ServiceOf, Who};
use crate::port::unit;
use crate::state::SERVERS;

/// Longer command lines are cut, at a character, for display only.
const COMMAND_WIDTH: usize = 160;

impl Holder {
    /// One line, such as `python3 (pid 4711, user dev, 2 h 5 min): python3 ws.py --port 8003`.
    ///
    /// What others have named (units, projects, processes) has no control characters in it.
    pub fn describe(&self) -> String {
        one_line(&self.described())
    }

    fn described(&self) -> String {
        match &self.who {
            Who::Process(facts) => match (&self.service, self.carries.first()) {
                (Some(of), _) => format!("{of}: {}", process(facts)),
                (None, Some(_)) => {
                    format!("the forwarder for {}: {}", self.carried(), process(facts))
                }
                (None, None) => process(facts),
            },
            Who::Container(facts) => container(facts),
            Who::Unit { name, main } => match main {
                Some(facts) => format!("systemd unit {name}: {}", process(facts)),
                None => format!("systemd unit {name}"),
            },
            Who::Unknown { to_root: true, .. } => {
                "the kernel, another namespace, or a process that shows nobody its sockets"
                    .to_owned()
            }
            Who::Unknown { uid, user, .. } => match user {
                Some(user) => format!("a process of user {user} (uid {uid}), not visible to you"),
                None => format!("a process of uid {uid}, not visible to you"),
            },
            Who::Kernel => {
                "the kernel, or another namespace: no process has this socket open".to_owned()
            }
        }
    }
}

impl Holder {
    /// The services for which a forwarder has the port.
    fn carried(&self) -> String {
        let all: Vec<String> = self.carries.iter().map(ToString::to_string).collect();
        all.join(" and ")
    }

    /// What a forwarder's release means.
    pub(crate) fn ends_with_it(&self) -> String {
        format!("to be stopped, which closes it: {}", self.carried())
    }
}

impl fmt::Display for ServiceOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.project == SERVERS {
            return write!(f, "{} of `wharf server`", self.service);
        }
        write!(f, "service {}", self.service)?;
        if let Some(number) = self.number {
            write!(f, " (replica {number})")?;
        }
        write!(f, " of wharf project {}", self.project)
    }
}

/// The command a person could give to release what this holder has; words where there is none.
pub fn how_released(holder: &Holder) -> String {
    one_line(&released_by(holder))
}

fn released_by(holder: &Holder) -> String {
    match &holder.who {
        Who::Process(facts) => {
            if let Some(reason) = &holder.protected {
                return format!("not at all: {reason}");
            }
            let sudo = if facts.signalable { "" } else { "sudo " };
            format!("{sudo}kill {}", facts.pid)
        }
        Who::Container(facts) => {
            format!("{} stop {}", client_of(&facts.engine), facts.name)
        }
        Who::Unit { name, main } => {
            if let Some(reason) = &holder.protected {
                return format!("not at all: {reason}");
            }
            let command = unit::command("stop", name, main.as_deref());
            if unit::is_of_user(name, main.as_deref()) {
                command
            } else {
                format!("sudo {command}")
            }
        }
        // Whom root cannot see is shown to nobody.
        Who::Unknown { to_root: true, .. } | Who::Kernel => match holder.sockets.first() {
            Some(socket) => format!(
                "use another port: wharf next-port {}{}",
                socket.address.port(),
                if socket.protocol == Protocol::Udp {
                    " --udp"
                } else {
                    ""
                },
            ),
            None => "use another port".to_owned(),
        },
        Who::Unknown { .. } => match holder.sockets.first() {
            Some(socket) => format!(
                "sudo ss -{}lnp sport = :{}",
                if socket.protocol == Protocol::Udp {
                    "u"
                } else {
                    "t"
                },
                socket.address.port(),
            ),
            None => "sudo ss -tulnp".to_owned(),
        },
    }
}

/// What the end of a pid namespace's first process means.
pub(crate) fn ends_a_namespace(facts: &ProcessFacts) -> String {
    format!(
        "{} is the first process of a pid namespace: SIGTERM may not reach it, and SIGKILL ends everything in there",
        called(facts)
    )
}

/// What a stop of a container takes along beside it, in words; `None` where it can be started again.
pub(crate) fn removed_by_a_stop(facts: &ContainerFacts) -> Option<String> {
    let removal = facts.removal.as_ref()?;
    let volumes: Vec<String> = removal
        .volumes
        .iter()
        .map(|volume| {
            let name = volume.name.get(..12).unwrap_or(&volume.name);
            format!("{} ({name})", volume.target)
        })
        .collect();
    let along = match volumes.as_slice() {
        [] => String::new(),
        [one] => format!(", and its anonymous volume {one} with it"),
        more => format!(", and its anonymous volumes {} with it", more.join(", ")),
    };
    Some(format!(
        "container {} was started with --rm: its engine removes it when it stops{along}",
        facts.name
    ))
}

/// What became of a container after its stop, and how it comes back.
pub fn after_a_stop(facts: &ContainerFacts) -> String {
    let Some(removal) = &facts.removal else {
        return format!("`{}` brings it back", how_started_again(facts));
    };
    let volumes: Vec<&str> = removal
        .volumes
        .iter()
        .map(|volume| volume.target.as_str())
        .collect();
    if volumes.is_empty() {
        "it was started with --rm, so its engine removes it".to_owned()
    } else {
        format!(
            "it was started with --rm, so its engine removes it with its anonymous volumes ({})",
            volumes.join(", ")
        )
    }
}

/// The command that starts a container again, at the engine that it is of.
fn how_started_again(facts: &ContainerFacts) -> String {
    format!("{} start {}", client_of(&facts.engine), facts.name)
}

/// The command that speaks to an engine.
fn client_of(engine: &str) -> String {
    match engine {
        "" | "unix:///var/run/docker.sock" | "unix:///run/docker.sock" => "docker".to_owned(),
        // The user's own and the system's are podman's default for either.
        "unix:///run/podman/podman.sock" => {
            let sudo = if rustix::process::geteuid().is_root() {
                ""
            } else {
                "sudo "
            };
            format!("{sudo}podman")
        }
        _ if engine.starts_with("unix:///run/user/") && engine.ends_with("/podman/podman.sock") => {
            "podman".to_owned()
        }
        _ if engine.contains("podman") => format!("podman --url {engine}"),
        _ => format!("docker -H {engine}"),
    }
}

/// The name of a process, or of its program where it has emptied that.
pub(crate) fn called(facts: &ProcessFacts) -> String {
    let exe = facts.exe.as_deref().and_then(Path::file_name);
    let program = exe.map_or_else(
        || "a process without a name".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    let name = facts.name.trim();
    one_line(if name.is_empty() { &program } else { name })
}

pub(crate) fn process(facts: &ProcessFacts) -> String {
    let mut line = format!("{} (pid {}", called(facts), facts.pid);
    match &facts.user {
        Some(user) => write!(line, ", user {user}"),
        None => write!(line, ", uid {}", facts.uid),
    }
    .and_then(|()| write!(line, ", {})", age(facts.age_seconds)))
    .unwrap_or_default();
    if !facts.command.is_empty() {
        line.push_str(": ");
        line.push_str(&command(&facts.command));
    }
    line
}

/// As [`process`], with its directory: what a record of a stopped process needs.
pub(crate) fn process_fully(facts: &ProcessFacts) -> String {
    match &facts.cwd {
        Some(cwd) => format!("{} (in {})", process(facts), directory(cwd)),
        None => process(facts),
    }
}

/// A path that cannot play with the terminal.
pub(crate) fn directory(path: &Path) -> String {
    path.display().to_string().replace(char::is_control, "?")
}

fn container(facts: &ContainerFacts) -> String {
    let mut line = format!(
        "container {} ({}, image {}",
        facts.name,
        facts.id.get(..12).unwrap_or(&facts.id),
        facts.image
    );
    if let Some(project) = &facts.project {
        line.push_str(", project ");
        line.push_str(project);
    }
    if let Some(service) = &facts.service {
        line.push_str(", service ");
        line.push_str(service);
    }
    line.push(')');
    line
}

/// What others wrote (commands, labels, names), as it may reach a terminal and a table: without control characters.
pub fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Quoted so that it can be pasted; control characters never reach the terminal.
fn command(words: &[String]) -> String {
    let line = one_line(&shell_words::join(words));
    if line.chars().count() <= COMMAND_WIDTH {
        return line;
    }
    let mut cut: String = line.chars().take(COMMAND_WIDTH - 1).collect();
    cut.push('…');
    cut
}

/// Two units at most: `8 s`, `2 h 5 min`, `3 d 4 h`.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units_at_most() {
        let ages = [0, 59, 60, 3599, 3600, 7500, 86_399, 86_400, 273_600].map(age);
        assert_eq!(
            ages,
            [
                "0 s",
                "59 s",
                "1 min",
                "59 min",
                "1 h 0 min",
                "2 h 5 min",
                "23 h 59 min",
                "1 d 0 h",
                "3 d 4 h"
            ]
        );
    }

    #[test]
    fn a_container_is_started_again_at_its_own_engine() {
        let at = |engine: &str| ContainerFacts {
            engine: engine.into(),
            ..ContainerFacts::named("web")
        };
        for (engine, command) in [
            ("unix:///var/run/docker.sock", "docker start web"),
            (
                "unix:///tmp/e.sock",
                "docker -H unix:///tmp/e.sock start web",
            ),
            (
                "unix:///run/user/1000/podman/podman.sock",
                "podman start web",
            ),
        ] {
            assert_eq!(how_started_again(&at(engine)), command);
        }
    }

    #[test]
    fn a_command_line_cannot_play_with_the_terminal() {
        let words = [
            "sh".to_owned(),
            "-c".to_owned(),
            "a\u{1b}[2Jb\nc".to_owned(),
        ];
        assert!(!command(&words).chars().any(char::is_control));
        let long = ["x".repeat(500)];
        assert_eq!(command(&long).chars().count(), COMMAND_WIDTH);
    }
}
