//! What the kernel counts for a control group: the memory and the time that it has used, and whether it ran out of
//! memory. Reads; changes nothing.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Group;

/// How often the kernel has killed a process of a run for want of memory (`memory.events`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starved {
    /// So many it has killed.
    pub kills: u64,
    /// Whether it was the run's own limit; else that of a group above it, or all memory of the machine was used up.
    #[serde(default)]
    pub by_limit: bool,
}

/// What a group uses; `None` where it lacks the controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes, without what the kernel can drop at once.
    pub memory: Option<u64>,
    /// The most that it may use, in bytes.
    pub memory_limit: Option<u64>,
    /// Time on processors since it was made.
    pub busy: Option<Duration>,
}

impl Starved {
    /// Whether that has not happened.
    pub fn is_none(&self) -> bool {
        self.kills == 0
    }

    fn of_text(text: &str) -> Self {
        Self {
            kills: number(text, "oom_kill").unwrap_or_default(),
            by_limit: number(text, "oom").is_some_and(|times| times > 0),
        }
    }
}

impl Group {
    /// Whether it ran out of memory; `None` where nobody counts that, or it has gone.
    pub fn starved(&self) -> Option<Starved> {
        let text = fs::read_to_string(self.memory_events()).ok()?;
        Some(Starved::of_text(&text))
    }

    /// The file that changes when it runs out of memory.
    pub fn memory_events(&self) -> std::path::PathBuf {
        self.path().join("memory.events")
    }

    /// What it uses.
    pub fn figures(&self) -> Figures {
        let read = |file: &str| fs::read_to_string(self.path().join(file)).ok();
        let plain = |file| read(file)?.trim().parse::<u64>().ok();
        let droppable = || number(&read("memory.stat")?, "inactive_file");
        let memory = |used: u64| used.saturating_sub(droppable().unwrap_or_default());
        Figures {
            memory: plain("memory.current").map(memory),
            memory_limit: plain("memory.max"),
            busy: read("cpu.stat")
                .and_then(|text| number(&text, "usage_usec"))
                .map(Duration::from_micros),
        }
    }
}

/// The number behind a name, one a line.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        value.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn kills_are_told_from_other_events_and_limits_from_the_machine() {
        let at_limit = "low 0\nhigh 0\nmax 4108\noom 7\noom_kill 1\noom_group_kill 0\n";
        let expected = Starved {
            kills: 1,
            by_limit: true,
        };
        assert_eq!(Starved::of_text(at_limit), expected);
        let elsewhere = Starved::of_text("max 0\noom 0\noom_kill 2\n");
        assert_eq!((elsewhere.kills, elsewhere.by_limit), (2, false));
        assert!(Starved::of_text("max 10\noom 3\noom_kill 0\n").is_none());
        assert!(Starved::of_text("").is_none());
    }

    #[test]
    fn figures_are_those_of_the_files_that_there_are() {
        let root = tempfile::tempdir().unwrap();
        let group = Group::of_run(&root.path().join("wharf-abc"), "abc").unwrap();
        assert_eq!(group.figures(), Figures::default());
        assert_eq!(group.starved(), None);
        fs::create_dir(group.path()).unwrap();
        let write = |file: &str, text: &str| {
            fs::write(Path::new(group.path()).join(file), text).unwrap();
        };
        write("memory.current", "50000\n");
        write("memory.max", "max\n");
        write("memory.stat", "anon 1\ninactive_file 8000\nactive_file 5\n");
        write("cpu.stat", "usage_usec 4060000\nuser_usec 1\n");
        let figures = group.figures();
        assert_eq!(figures.memory, Some(42_000));
        assert_eq!(figures.memory_limit, None);
        assert_eq!(figures.busy, Some(Duration::from_millis(4060)));
        write("memory.max", "65536\n");
        assert_eq!(group.figures().memory_limit, Some(65_536));
        write("memory.events", "oom 1\noom_kill 1\n");
        assert!(group.starved().is_some_and(|starved| starved.by_limit));
    }
}
