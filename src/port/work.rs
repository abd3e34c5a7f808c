//! What else a process keeps beside the one that has a port: its other work, which ends with it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::port::aside;
use crate::port::holder::ProcessFacts;
use crate::port::process::{Stat, Table};
use crate::port::supervisor::{is_shell, shell_text};

/// Pass on what they read, and end with that.
const FILTERS: &[&str] = &["tee", "cat", "ts", "logger", "rotatelogs", "multilog"];

/// Whether a process keeps others than the child.
pub(super) fn has_other(table: &Table, keeper: &ProcessFacts, child: u32) -> bool {
    beside(table, keeper, child).next().is_some()
}

/// The other programs that a process keeps, in words; the first few.
pub(super) fn others(table: &Table, keeper: &ProcessFacts, child: u32) -> Vec<String> {
    in_words(beside(table, keeper, child).map(|other| innermost(table, other)))
}

/// The other programs that a process keeps, with all below them.
pub(super) fn pids_of_others(table: &Table, keeper: &ProcessFacts, child: u32) -> Vec<u32> {
    beside(table, keeper, child)
        .flat_map(|other| table.descendants(other.pid))
        .collect()
}

/// Processes in words; the first few.
pub(super) fn in_words<'a>(all: impl Iterator<Item = &'a Stat>) -> Vec<String> {
    const SHOWN: usize = 4;
    let mut words: Vec<String> = all
        .map(|other| format!("{} (pid {})", other.name, other.pid))
        .collect();
    if words.len() > SHOWN {
        words.truncate(SHOWN);
        words.push("…".to_owned());
    }
    words
}

fn beside<'a>(
    table: &'a Table,
    keeper: &ProcessFacts,
    child: u32,
) -> impl Iterator<Item = &'a Stat> {
    // What a supervisor keeps are its programs, whatever they are called.
    let is_script = is_shell(keeper) && shell_text(keeper).is_some();
    let session = |pid: u32| table.get(pid).map(|stat| stat.session);
    let sessions: BTreeSet<u32> = [keeper.pid, child]
        .into_iter()
        .filter_map(session)
        .collect();
    table.children(keeper.pid).filter(move |other| {
        other.pid != child
            && other.is_alive()
            && !(is_script && is_accessory(table, other, child))
            && !aside::is_opened(other, &sessions)
    })
}

/// Whether a child of a script is no work of its own beside another one: a pause, of which the script says itself what
/// comes after it, or a filter that reads what the other one writes. A filter that reads from elsewhere records
/// something of its own.
fn is_accessory(table: &Table, other: &Stat, child: u32) -> bool {
    if table.children(other.pid).next().is_some() {
        return false;
    }
    other.name == "sleep"
        || (FILTERS.contains(&other.name.as_str()) && reads_from(table, other.pid, child))
}

/// Whether a process reads a pipe into which another one, or what is below that, writes.
fn reads_from(table: &Table, reader: u32, writer: u32) -> bool {
    let file = |pid: u32, descriptor: u32| -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok()
    };
    let Some(pipe) = file(reader, 0).filter(|file| file.to_string_lossy().starts_with("pipe:"))
    else {
        return false;
    };
    let writes = |pid: u32| {
        [1, 2]
            .into_iter()
            .any(|out| file(pid, out).as_ref() == Some(&pipe))
    };
    let is_below = |stat: &&Stat| {
        let above = table.ancestors(stat.pid);
        stat.pid == writer || above.iter().any(|ancestor| ancestor.pid == writer)
    };
    table.all().filter(is_below).any(|stat| writes(stat.pid))
}

/// What a process was started for: below it there may be others, each with nothing but the next.
fn innermost<'a>(table: &'a Table, outer: &'a Stat) -> &'a Stat {
    let mut at = outer;
    // A table is read piece by piece, so it may have a ring where a pid was given again.
    for _ in 0..8 {
        let mut below = table.children(at.pid);
        let (Some(only), None) = (below.next(), below.next()) else {
            break;
        };
        at = only;
    }
    at
}
