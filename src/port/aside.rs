//! What a person has opened from a server and goes on using when that ends: a browser, a shell on a terminal.
//!
//! Ctrl-C at the server's terminal would not reach it, since it runs in a session of its own. A session alone says
//! nothing: daemons, watchers and what drives tests have one as well, and are there for the server. Reads only.

use std::collections::BTreeSet;
use std::fs;

use crate::port::crew::may_be_stopped;
use crate::port::holder::ProcessFacts;
use crate::port::proc_file;
use crate::port::process::{Stat, Table, process_facts};
use crate::port::protect::{self, has_name};
use crate::port::supervisor::{is_interactive, is_shell};

/// Hand something over to whatever the desktop has for it: what runs below them is a person's.
const OPENERS: &[&str] = &[
    "xdg-open",
    "open",
    "gnome-open",
    "kde-open",
    "kde-open5",
    "exo-open",
    "gio",
    "wslview",
    "x-www-browser",
    "www-browser",
    "sensible-browser",
];

const BROWSERS: &[&str] = &[
    "firefox",
    "firefox-esr",
    "firefox-bin",
    "firefox-developer-edition",
    "firefox-nightly",
    "librewolf",
    "waterfox",
    "floorp",
    "zen",
    "zen-bin",
    "chrome",
    "google-chrome",
    "google-chrome-stable",
    "google-chrome-beta",
    "google-chrome-unstable",
    "chromium",
    "chromium-browser",
    "ungoogled-chromium",
    "thorium-browser",
    "brave",
    "brave-browser",
    "brave-browser-stable",
    "msedge",
    "microsoft-edge",
    "microsoft-edge-stable",
    "vivaldi",
    "vivaldi-bin",
    "vivaldi-stable",
    "opera",
    "epiphany",
    "epiphany-browser",
    "falkon",
    "konqueror",
    "qutebrowser",
    "midori",
    "Google Chrome",
    "Safari",
];

/// Beginnings of the options by which a program drives a browser. Such a one is a tool of the server.
const DRIVEN: &[&str] = &[
    "headless",
    "remote-debugging",
    "enable-automation",
    "marionette",
    "juggler",
];

/// The major number of their devices.
const PSEUDO_TERMINALS: u32 = 136;

/// Whether a process below a holder is left alone because a person goes on using it. `sessions` are those of the
/// holder and of what keeps it: who is in one of them ends with it at its terminal, too.
pub(super) fn is_used(stat: &Stat, facts: &ProcessFacts, sessions: &BTreeSet<u32>) -> bool {
    if sessions.contains(&stat.session) {
        return false;
    }
    let is_open = OPENERS.iter().any(|name| has_name(facts, name))
        || BROWSERS.iter().any(|name| has_name(facts, name)) && !is_driven(facts);
    let leads = stat.session == stat.pid;
    is_open || (leads && stat.terminal != 0 && is_shell(facts) && is_interactive(facts))
}

/// A browser writes its options into one word.
fn is_driven(facts: &ProcessFacts) -> bool {
    let words = facts.command.iter().flat_map(|word| word.split(' '));
    words
        .filter(|word| word.starts_with('-'))
        .map(|word| word.trim_start_matches('-'))
        .any(|word| DRIVEN.iter().any(|option| word.starts_with(option)))
}

/// Whether a process keeps the other end of the terminal on which another one runs: that is hung up when it ends.
pub(super) fn keeps_terminal_of(keeper: u32, stat: &Stat) -> bool {
    let Some(index) = terminal_index(stat.terminal) else {
        return false;
    };
    let Ok(open) = fs::read_dir(format!("/proc/{keeper}/fd")) else {
        return false;
    };
    open.flatten().any(|entry| {
        let is_end = fs::read_link(entry.path()).is_ok_and(|file| file.ends_with("ptmx"));
        let number = entry.file_name();
        let info = || proc_file::read_text(format!("/proc/{keeper}/fdinfo/{}", number.display()));
        is_end
            && info().is_ok_and(|info| {
                let mut lines = info.lines();
                lines.any(|line| line.strip_prefix("tty-index:").map(str::trim) == Some(&index))
            })
    })
}

/// The number under `/dev/pts` of a terminal, by that of its device (`proc_pid_stat(5)`).
fn terminal_index(terminal: i32) -> Option<String> {
    let device = u32::try_from(terminal).ok()?;
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xf_ff00),
    );
    (major == PSEUDO_TERMINALS).then(|| minor.to_string())
}

/// Those that end when a process is stopped, itself included, and those below it that are left alone: the topmost of
/// each branch.
pub(super) fn parted<'a>(
    table: &'a Table,
    top: u32,
    sessions: &BTreeSet<u32>,
) -> (Vec<&'a Stat>, Vec<&'a Stat>) {
    let mut ends: Vec<&Stat> = table.get(top).into_iter().collect();
    let mut lives = Vec::new();
    let mut seen = BTreeSet::from([top]);
    let mut open = vec![top];
    while let Some(parent) = open.pop() {
        for stat in table.children(parent).filter(|stat| stat.is_alive()) {
            // A table is read piece by piece, so it may have a ring where a pid was given again.
            if !seen.insert(stat.pid) {
                continue;
            }
            if goes_with(stat, sessions) {
                open.push(stat.pid);
                ends.push(stat);
            } else {
                lives.push(stat);
            }
        }
    }
    ends.sort_by_key(|stat| stat.pid);
    lives.sort_by_key(|stat| stat.pid);
    (ends, lives)
}

/// Whether a process below a holder is stopped with it.
pub(super) fn goes_with(stat: &Stat, sessions: &BTreeSet<u32>) -> bool {
    process_facts(stat.pid)
        .is_some_and(|facts| may_be_stopped(&facts) && !is_used(stat, &facts, sessions))
}

/// Whether a process beside a server is what a person has opened from who keeps both: no work of that one's.
pub(super) fn is_opened(stat: &Stat, sessions: &BTreeSet<u32>) -> bool {
    !sessions.contains(&stat.session)
        && process_facts(stat.pid)
            .is_some_and(|facts| is_used(stat, &facts, sessions) || protect::is_editor(&facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(session: u32, terminal: i32) -> Stat {
        Stat {
            pid: 20,
            name: "x".into(),
            state: 'S',
            parent: 10,
            group: 20,
            session,
            terminal,
            foreground: 20,
            threads: 1,
            start_time: 1,
        }
    }

    #[test]
    fn what_a_person_goes_on_using_is_told_from_what_serves_the_server() {
        let sessions = BTreeSet::from([10]);
        for (command, session, terminal, is_it) in [
            (&["firefox", "http://localhost:8003"][..], 20, 0, true),
            (&["/opt/google/chrome/chrome"], 15, 0, true),
            (&["/bin/sh", "/usr/bin/xdg-open"], 20, 0, false),
            (&["xdg-open"], 20, 0, true),
            (&["bash", "-i"], 20, 34816, true),
            (&["-zsh"], 20, 34816, true),
            // In the holder's session, as Ctrl-C at its terminal has it.
            (&["firefox"], 10, 0, false),
            // A program drives it.
            (&["chrome", "--headless=new"], 20, 0, false),
            (&["chrome --remote-debugging-pipe --x"], 20, 0, false),
            (&["firefox", "-juggler-pipe"], 20, 0, false),
            // It does something for the server, or nobody types there.
            (&["bash", "-c", "work"], 20, 34816, false),
            (&["bash", "/no/such/script"], 20, 34816, false),
            (&["bash", "-i"], 20, 0, false),
            (&["bash", "-i"], 15, 34816, false),
            (&["worker"], 20, 34816, false),
            (&["daemon"], 20, 0, false),
        ] {
            let facts = ProcessFacts::of_words(command);
            assert_eq!(
                is_used(&stat(session, terminal), &facts, &sessions),
                is_it,
                "{command:?} {session} {terminal}"
            );
        }
    }
}
