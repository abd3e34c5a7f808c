//! Whether a program only has the name of something that is never stopped: `login` is also what a developer calls the
//! service that logs people in.
//!
//! Errs on the safe side: it must lie where it was built, and nothing about it may be as in the real one. Reads only.

use std::fs;
use std::path::{Component, Path};

use nix::unistd::Uid;

use crate::port::holder::ProcessFacts;
use crate::users;

/// Names of the refuse list that are words which people give to programs of their own, and the words of a command line
/// that only the real one has (any that starts so).
const WORDS: &[(&str, &[&str])] = &[
    ("init", &[]),
    ("login", &["-f", "-p", "-h"]),
    ("nebula", &["-config", "--config", "-test"]),
    ("teleport", &["start", "configure", "agent"]),
    (
        "podman",
        &[
            "system",
            "run",
            "start",
            "kube",
            "play",
            "machine",
            "container",
            "pod",
            "exec",
            "attach",
            "logs",
            "build",
        ],
    ),
    ("screen", &[]),
    ("terminator", &[]),
    ("tabby", &[]),
    ("cinnamon", &[]),
    ("sunshine", &[]),
    ("code", &[]),
    ("cursor", &[]),
    ("positron", &[]),
    ("view", &[]),
    ("micro", &[]),
    ("idea", &[]),
    ("rider", &[]),
    ("studio", &[]),
    ("theia", &[]),
    ("marimo", &[]),
];

/// Where systems and package managers put programs.
const INSTALLED: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/opt",
    "/nix",
    "/gnu",
    "/snap",
    "/var",
    "/app",
    "/System",
    "/Library",
    "/Applications",
    "/home/linuxbrew",
];

/// Beside or above the programs of an editor that was unpacked somewhere: `studio`, `idea`, `cursor`.
const OF_AN_EDITOR: &[&str] = &["product-info.json", "resources/app", "resources/app.asar"];

/// Whether a process that has this name of the refuse list is somebody's own program: an executable of that name, run by
/// this user below its working directory, and no installed one.
pub(super) fn is_one(facts: &ProcessFacts, name: &str) -> bool {
    let Some((_, words)) = WORDS.iter().find(|(word, _)| *word == name) else {
        return false;
    };
    let (Some(exe), Some(cwd)) = (&facts.exe, &facts.cwd) else {
        return false;
    };
    let file = exe.file_name().and_then(|file| file.to_str());
    let file = file.map(|file| file.strip_suffix(" (deleted)").unwrap_or(file));
    // A title may be anything; an interpreter in a directory of packages runs what was installed there.
    file == Some(name)
        && facts.uid == rustix::process::geteuid().as_raw()
        && !facts.heads_namespace
        && was_built_here(exe, cwd, facts.uid)
        && !has_words(facts, words)
        && !makes_a_network(facts.pid)
}

fn was_built_here(exe: &Path, cwd: &Path, uid: u32) -> bool {
    let is_home =
        || users::user_with_id(Uid::from_raw(uid)).is_some_and(|user| user.dir.starts_with(cwd));
    // Package managers keep what they install in a home below a hidden directory.
    let is_hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
    let mut around = exe.ancestors().skip(1).take(3);
    exe.starts_with(cwd)
        && cwd.components().count() > 1
        && !is_home()
        && !INSTALLED.iter().any(|place| exe.starts_with(place))
        && !exe.components().any(is_hidden)
        && !around.any(|directory| {
            let mut files = OF_AN_EDITOR.iter();
            files.any(|file| directory.join(file).exists())
        })
}

fn has_words(facts: &ProcessFacts, words: &[&str]) -> bool {
    let mut given = facts.command.iter().skip(1);
    given.any(|given| words.iter().any(|word| given.starts_with(word)))
}

/// Whether it carries a network, as daemons of VPNs do: it has a device for that open, or that cannot be seen.
fn makes_a_network(pid: u32) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return true;
    };
    open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|file| file.starts_with("/dev/net"))
}
