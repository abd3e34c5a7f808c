//! Supervisors of several programs: which of them stands above a holder or beside it in its unit, and how it is told
//! to stop one program and to leave the others alone.
//!
//! Words and names alone; what follows from them is decided elsewhere. Stops nobody.

use std::collections::BTreeSet;
use std::path::Path;

use crate::port::holder::ProcessFacts;
use crate::port::process::{Table, variable};
use crate::port::supervisor::{is_interactive, is_shell};
use crate::port::tool::{self, tool};
use crate::port::{describe, work};

/// Keep what their configuration lists, which is not all that runs: programs that were stopped, or start at night.
const STEWARDS: &[&str] = &[
    "pm2",
    "PM2",
    "pm2-runtime",
    "pm2-docker",
    "pm2-dev",
    "supervisord",
    "circusd",
    "immortal",
    "monit",
    "process-compose",
    "goreman",
    "mprocs",
    "runsv",
    "s6-supervise",
    "supervise",
    "perpd",
    "dinit",
    "god",
    "eye",
    "bluepilld",
    "horust",
];

/// End all their programs as soon as one of them has ended, by their own rule, and start none again.
pub(super) const ENDS_ALL: &[&str] = &["honcho", "foreman", "hivemind", "overmind"];

/// Whether a tool keeps what its configuration lists.
pub(super) fn is_steward(name: &str) -> bool {
    STEWARDS.contains(&name)
}

/// Its daemon, or its command where it has none.
fn is_pm2(name: &str) -> bool {
    name == "PM2" || name == "pm2" || name.starts_with("pm2-")
}

/// Whether a tool ends all its programs when one of them has failed, as one does that was sent a signal: by its rule,
/// or because it was told to.
fn ends_all(name: &str, facts: &ProcessFacts) -> bool {
    let mut words = facts.command.iter().map(String::as_str);
    match name {
        "concurrently" => words.any(|word| word == "-k" || word.starts_with("--kill-others")),
        "run-p" => !words.any(|word| word == "-c" || word == "--continue-on-error"),
        "turbo" => !words.any(|word| word.starts_with("--continue")),
        _ => ENDS_ALL.contains(&name),
    }
}

/// What else would end with a holder because its supervisor is one that ends all its programs with one.
/// In words, and the processes.
pub(crate) fn ends_with_it(table: &Table, holder: u32) -> Option<(String, Vec<u32>)> {
    let mut child = holder;
    for ancestor in table.ancestors(holder) {
        let facts = table.facts(ancestor.pid)?;
        let others = work::others(table, &facts, child);
        // Some have a process of their own kind above each program.
        if let Some(name) = tool(&facts).filter(|name| ends_all(name, &facts))
            && !others.is_empty()
        {
            let words = format!(
                "{name} (pid {}) ends its other programs when one of them has ended: {}",
                ancestor.pid,
                others.join(", ")
            );
            return Some((words, work::pids_of_others(table, &facts, child)));
        }
        child = ancestor.pid;
    }
    None
}

/// Why a unit is not stopped for one of its processes: a supervisor in it has other programs, or may have. Who it is,
/// and how it is told to stop this one.
pub(super) fn of_unit(
    table: &Table,
    main: &ProcessFacts,
    members: &BTreeSet<u32>,
) -> Option<(String, String)> {
    let mut child = main.pid;
    for ancestor in table.ancestors(main.pid) {
        if !members.contains(&ancestor.pid) {
            break;
        }
        let facts = table.facts(ancestor.pid)?;
        let found = tool(&facts);
        let others = work::others(table, &facts, child);
        if let Some(name) =
            found.filter(|name| tool::KEEPERS.contains(name) || ENDS_ALL.contains(name))
            && !others.is_empty()
        {
            let command = own_command(name, &facts, main.pid);
            let who = format!(
                "{name} (pid {}) keeps other programs, too: {}",
                ancestor.pid,
                others.join(", ")
            );
            return Some((who, command.unwrap_or_else(|| format!("kill {}", main.pid))));
        }
        if let Some(name) = found.filter(|name| is_steward(name)) {
            return Some(kept(name, &facts, &others, main.pid));
        }
        child = ancestor.pid;
    }
    // What a program leaves to the system is still in the unit of who started it.
    let is_below = |pid: u32| {
        let above = table.ancestors(pid);
        pid == main.pid || above.iter().any(|ancestor| ancestor.pid == main.pid)
    };
    members
        .iter()
        .filter(|pid| !is_below(**pid))
        .find_map(|pid| {
            let facts = table.facts(*pid)?;
            let name = tool(&facts).filter(|name| is_steward(name))?;
            Some(kept(name, &facts, &[], main.pid))
        })
}

fn kept(name: &str, steward: &ProcessFacts, others: &[String], pid: u32) -> (String, String) {
    let others = if others.is_empty() {
        "what its configuration lists, whether that runs just now or not".to_owned()
    } else {
        format!("other programs, too: {}", others.join(", "))
    };
    let who = format!("{name} (pid {}) keeps {others}", steward.pid);
    let command = own_command(name, steward, pid);
    (who, command.unwrap_or_else(|| format!("kill {pid}")))
}

/// Why a supervisor that has a port itself is not stopped for it: for a program (pm2's clusters, the sockets of circus),
/// or for its own commands. What it keeps would end with it, or run without it from then on.
pub(super) fn that_listens(facts: &ProcessFacts) -> Option<String> {
    let name = tool(facts).filter(|name| is_steward(name))?;
    let command = match name {
        // It listens for the programs of its clusters, and for nothing else.
        name if is_pm2(name) => own_command(name, facts, facts.pid)?,
        _ => command_that_ends(name, facts),
    };
    Some(format!(
        "it keeps programs beside what has this port: {command}"
    ))
}

/// How a supervisor itself is ended, with or without what it keeps.
fn command_that_ends(name: &str, steward: &ProcessFacts) -> String {
    let command = match name {
        "supervisord" => format!("{} shutdown", supervisorctl(steward)),
        "circusd" => "circusctl quit".to_owned(),
        "process-compose" => "process-compose down".to_owned(),
        "monit" => "monit quit".to_owned(),
        "god" => "god terminate".to_owned(),
        "eye" => "eye quit".to_owned(),
        "bluepilld" => "bluepill quit".to_owned(),
        _ => format!("kill {}", steward.pid),
    };
    let sudo = if steward.signalable { "" } else { "sudo " };
    format!("{sudo}{command}")
}

/// As [`above`], of a process that is one, where its program has ended: it may take its time.
pub(super) fn that_keeps(facts: &ProcessFacts) -> Option<String> {
    let name = tool(facts).filter(|name| is_steward(name))?;
    // Of no program: it is gone.
    let command = own_command(name, facts, u32::MAX)?;
    let pid = facts.pid;
    Some(format!(
        "{name} (pid {pid}) keeps it, and may start it again later than that: {command}"
    ))
}

/// The supervisor above a process that starts it again, in words, and how that is told to leave it.
pub(super) fn above(table: &Table, pid: u32) -> Option<String> {
    let mut child = pid;
    for ancestor in table.ancestors(pid) {
        let facts = table.facts(ancestor.pid)?;
        // What somebody has typed in a terminal is not in the supervisor's lists.
        if is_interactive(&facts) && is_shell(&facts) {
            return None;
        }
        if let Some(name) = tool(&facts).filter(|name| is_steward(name)) {
            let command = own_command(name, &facts, child)?;
            let pid = facts.pid;
            return Some(format!(
                "{name} (pid {pid}) keeps it and starts it again: {command}"
            ));
        }
        child = ancestor.pid;
    }
    None
}

/// How a supervisor is told to stop one of its programs and to leave the others alone. `program` is one of that
/// program's processes: some find their name in their environment.
pub(super) fn own_command(name: &str, steward: &ProcessFacts, program: u32) -> Option<String> {
    let directory = || {
        let cwd = steward.cwd.as_deref().map(describe::directory);
        let quoted = cwd.map(|cwd| shell_words::quote(&cwd).into_owned());
        quoted.unwrap_or_else(|| "DIRECTORY".to_owned())
    };
    let of = |name: &str| {
        variable(Path::new(&format!("/proc/{program}")), name.as_bytes())
            .filter(|value| !value.is_empty() && !value.contains(char::is_control))
    };
    let command = match name {
        name if is_pm2(name) => match of("pm_id=").map(|id| of("name=").unwrap_or(id)) {
            Some(name) => format!("pm2 stop {}", shell_words::quote(&name)),
            None => "pm2 stop NAME (see pm2 list)".to_owned(),
        },
        "supervisord" => {
            let client = supervisorctl(steward);
            match (of("SUPERVISOR_GROUP_NAME="), of("SUPERVISOR_PROCESS_NAME=")) {
                (Some(group), Some(name)) if group != name => {
                    let both = format!("{group}:{name}");
                    format!("{client} stop {}", shell_words::quote(&both))
                }
                (_, Some(name)) => format!("{client} stop {}", shell_words::quote(&name)),
                (_, None) => format!("{client} stop PROGRAM (see {client} status)"),
            }
        }
        "circusd" => "circusctl stop NAME (see circusctl status)".to_owned(),
        "overmind" => "overmind stop NAME (see overmind status)".to_owned(),
        "goreman" => "goreman run stop NAME (see goreman run list)".to_owned(),
        "process-compose" => {
            "process-compose process stop NAME (see process-compose process list)".to_owned()
        }
        "immortal" => "immortalctl stop NAME (see immortalctl)".to_owned(),
        "monit" => "monit stop NAME (see monit summary)".to_owned(),
        "perpd" => "perpctl d NAME (see perpls)".to_owned(),
        "dinit" => "dinitctl stop NAME (see dinitctl list)".to_owned(),
        "god" => "god stop NAME (see god status)".to_owned(),
        "eye" => "eye stop NAME (see eye info)".to_owned(),
        "bluepilld" => "bluepill stop NAME (see bluepill status)".to_owned(),
        "horust" => "horustctl stop NAME (see horustctl status)".to_owned(),
        // These work in the directory of the service.
        "runsv" => format!("sv down {}", directory()),
        "s6-supervise" => format!("s6-svc -d {}", directory()),
        "supervise" => format!("svc -d {}", directory()),
        _ => return None,
    };
    Some(match &steward.user {
        _ if steward.signalable => command,
        Some(user) if is_pm2(name) => {
            format!("sudo -u {} {command}", shell_words::quote(user))
        }
        _ => format!("sudo {command}"),
    })
}

/// supervisord's client, with the file that it was told to read.
fn supervisorctl(steward: &ProcessFacts) -> String {
    let mut words = steward.command.iter();
    let mut file = None;
    while let Some(word) = words.next() {
        if word == "-c" || word == "--configuration" {
            file = words.next().cloned();
        } else if let Some(value) = word.strip_prefix("--configuration=") {
            file = Some(value.to_owned());
        }
    }
    let file = file.map(|file| match &steward.cwd {
        Some(cwd) => describe::directory(&cwd.join(&file)),
        None => file,
    });
    match file.filter(|file| !file.contains(char::is_control)) {
        Some(file) => format!("supervisorctl -c {}", shell_words::quote(&file)),
        None => "supervisorctl".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::process::waiting_shell;

    fn of(words: &[&str], cwd: Option<&str>, program: u32) -> Option<String> {
        let facts = ProcessFacts {
            cwd: cwd.map(Into::into),
            signalable: true,
            ..ProcessFacts::of_words(words)
        };
        own_command(tool(&facts).unwrap(), &facts, program)
    }

    #[test]
    fn a_runner_ends_its_programs_with_one_where_it_was_told_to() {
        for (words, is_it) in [
            ("node /app/node_modules/.bin/concurrently a b", false),
            ("node /app/node_modules/.bin/concurrently -k a b", true),
            (
                "node /app/node_modules/.bin/concurrently --kill-others-on-fail a b",
                true,
            ),
            ("node /app/node_modules/.bin/run-p web worker", true),
            ("node /app/node_modules/.bin/run-p -c web worker", false),
            ("python3 /usr/bin/honcho start", true),
            ("node /app/node_modules/.bin/nodemon ws.js", false),
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            let facts = ProcessFacts::of_words(&words);
            let name = tool(&facts).unwrap();
            assert_eq!(ends_all(name, &facts), is_it, "{words:?}");
        }
    }

    #[test]
    fn a_supervisor_is_told_to_stop_one_program() {
        let nobody = u32::MAX;
        for (words, cwd, expected) in [
            (
                &["/usr/bin/python3", "/usr/bin/supervisord", "-n"][..],
                None,
                "supervisorctl stop PROGRAM (see supervisorctl status)",
            ),
            (
                &["runsv", "web"],
                Some("/etc/service/web"),
                "sv down /etc/service/web",
            ),
            (
                &["runsv", "web two"],
                Some("/srv/web two"),
                "sv down '/srv/web two'",
            ),
            (
                &["s6-supervise", "web"],
                Some("/run/service/web"),
                "s6-svc -d /run/service/web",
            ),
        ] {
            assert_eq!(of(words, cwd, nobody).as_deref(), Some(expected));
        }
        let runtime = ["node", "/usr/lib/node_modules/pm2/bin/pm2-runtime", "start"];
        let expected = "pm2 stop NAME (see pm2 list)";
        assert_eq!(of(&runtime, None, nobody).as_deref(), Some(expected));
        // No command of theirs stops one program.
        assert_eq!(of(&["honcho", "start"], None, nobody), None);
        assert_eq!(of(&["nodemon", "ws.js"], None, nobody), None);
    }

    #[test]
    fn a_program_is_called_as_its_environment_says() {
        for (variables, words, expected) in [
            (
                &[
                    ("SUPERVISOR_GROUP_NAME", "web"),
                    ("SUPERVISOR_PROCESS_NAME", "web"),
                ][..],
                &["supervisord", "-c", "dev.conf"][..],
                "supervisorctl -c /srv/dev.conf stop web",
            ),
            (
                &[
                    ("SUPERVISOR_GROUP_NAME", "workers"),
                    ("SUPERVISOR_PROCESS_NAME", "w 0"),
                ],
                &["supervisord"],
                "supervisorctl stop 'workers:w 0'",
            ),
            (
                &[("pm_id", "0"), ("name", "api")],
                &["PM2 v5.3.0: God Daemon"],
                "pm2 stop api",
            ),
            // Anybody may have a variable of that name.
            (
                &[("name", "api")],
                &["PM2 v5.3.0: God Daemon"],
                "pm2 stop NAME (see pm2 list)",
            ),
        ] {
            let mut child = waiting_shell(variables);
            let command = of(words, Some("/srv"), child.id());
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(command.as_deref(), Some(expected));
        }
    }
}
