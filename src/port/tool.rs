//! Which of the known tools a process is: those that start their program again, and those that only run it. Names and
//! places alone; what it does is judged elsewhere.

use std::path::Path;

use crate::port::holder::ProcessFacts;

/// Start their child again when it ends.
pub(super) const KEEPERS: &[&str] = &[
    "nodemon",
    "node-dev",
    "ts-node-dev",
    "tsx",
    "forever",
    "supervisor",
    "watchexec",
    "cargo-watch",
    "bacon",
    "entr",
    "reflex",
    "air",
    "gow",
    "wgo",
    "modd",
    "CompileDaemon",
    "watchmedo",
    "watchfiles",
    "watchman-make",
    "guard",
    "rerun",
    "chokidar",
    "onchange",
    "hupper",
    "watch",
    "tsc-watch",
    "tsnd",
];

/// Run one command and end with it.
pub(super) const WRAPPERS: &[&str] = &[
    "npm",
    "npm-cli",
    "npx",
    "npx-cli",
    "yarn",
    "yarnpkg",
    "pnpm",
    "pnpx",
    "bun",
    "bunx",
    "deno",
    "corepack",
    "cargo",
    "go",
    "poetry",
    "pipenv",
    "pdm",
    "uv",
    "uvx",
    "hatch",
    "rye",
    "tini",
    "dumb-init",
    "catatonit",
    "timeout",
    "time",
    "script",
    "unbuffer",
    "dotenv",
    "dotenvx",
    "cross-env",
    "cross-env-shell",
    "env-cmd",
    "doppler",
    "direnv",
    "mise",
    "xvfb-run",
    "setpriv",
    "nohup",
    "setsid",
    "flock",
];

/// Run one step after the other: what comes after the server is in their files.
pub(super) const RUNNERS: &[&str] = &[
    "make",
    "gmake",
    "just",
    "task",
    "rake",
    "mix",
    "nx",
    "turbo",
    "concurrently",
    "gradle",
    "mvn",
];

/// Scripts, and as the names of programs plain words.
const ONLY_SCRIPTS: &[&str] = &[
    "supervisor",
    "forever",
    "guard",
    "rerun",
    "onchange",
    "chokidar",
];

const INTERPRETERS: &[&str] = &[
    "node", "nodejs", "python", "python2", "python3", "ruby", "perl",
];

/// Parts of the paths under which package managers put the scripts of tools.
const PACKAGES: &[&str] = &[
    "node_modules",
    "site-packages",
    "dist-packages",
    "gems",
    "pnpm",
    "corepack",
];

/// The tool a process is: the program, or the script that an interpreter runs. The names of many tools are plain
/// words, so what a project calls its own programs is none: a script counts where packages put it, a program
/// where it is not one that was built below the directory it runs in.
pub(super) fn tool(facts: &ProcessFacts) -> Option<&str> {
    let first = facts.command.first()?;
    // A title such as `npm run dev` or `PM2 v5.3.0: God Daemon` stands in one word.
    let program = base(first.split(' ').next()?);
    let plain =
        program.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.');
    if !INTERPRETERS.contains(&program) && !INTERPRETERS.contains(&plain) {
        let is_known = !ONLY_SCRIPTS.contains(&program) && !is_program_of(program, facts);
        return (is_known && !is_built_here(facts)).then_some(program);
    }
    let mut words = facts.command.iter().skip(1);
    while let Some(word) = words.next() {
        if word == "-m" {
            return words.next().map(String::as_str);
        }
        if !word.starts_with('-') {
            let directory = word.rsplit_once('/').map_or("", |(directory, _)| directory);
            let mut parts = directory.split('/');
            if parts.any(|part| PACKAGES.contains(&part)) {
                let name = match base(word) {
                    // What `forever start` leaves behind.
                    "monitor" if directory.ends_with("/forever/bin") => "forever",
                    name => name,
                };
                return [".js", ".cjs", ".mjs", ".py", ".rb"]
                    .iter()
                    .find_map(|extension| name.strip_suffix(extension))
                    .or(Some(name));
            }
            // A launcher has no suffix.
            let is_launcher = matches!(base(directory), "bin" | ".bin" | "sbin");
            return is_launcher.then(|| base(word));
        }
    }
    None
}

/// Whether a tool that can run one program does something else: a runtime that runs a program in its own process
/// (`bun server.ts`, `deno run x.ts`), a builder that tests.
fn is_program_of(runtime: &str, facts: &ProcessFacts) -> bool {
    let mut words = facts.command.iter().skip(1).map(String::as_str);
    let mut words = words.by_ref().filter(|word| !word.starts_with('-'));
    match (runtime, words.next(), words.next()) {
        // A plain word; the tool is where Go puts what it installs.
        ("air", ..) => !facts.exe.as_deref().is_some_and(|exe| {
            let place = exe.parent().map(Path::to_path_buf).unwrap_or_default();
            place.ends_with("go/bin") || place.ends_with("linuxbrew/bin")
        }),
        // The shell's word, and as a program one of a directory of the system.
        ("time", ..) => facts.exe.as_deref() != Some(Path::new("/usr/bin/time")),
        ("deno", verb, _) => verb != Some("task"),
        ("bun", Some("x"), _) => false,
        ("bun", Some("run"), Some(what)) => what.contains(['.', '/']),
        ("bun", ..) => true,
        (_, Some("test" | "t" | "bench" | "nextest"), _) => {
            // The tests of other parts come after those that run.
            matches!(runtime, "cargo" | "go" | "npm" | "yarn" | "pnpm")
        }
        _ => false,
    }
}

fn is_built_here(facts: &ProcessFacts) -> bool {
    let (Some(exe), Some(cwd)) = (&facts.exe, &facts.cwd) else {
        return false;
    };
    let mut parts = exe.components();
    cwd.components().count() > 1
        && exe.starts_with(cwd)
        && !parts.any(|part| {
            let part = part.as_os_str().to_str();
            part.is_some_and(|part| PACKAGES.contains(&part) || part == ".bin")
        })
}

/// Whether a tool starts its program again only when it is told to, and was not.
pub(super) fn only_runs(name: &str, facts: &ProcessFacts) -> bool {
    name == "tsx"
        && !facts
            .command
            .iter()
            .any(|word| word == "watch" || word == "--watch")
}

/// `node --watch`, `deno run --watch`, `bun --hot`, `pserve --reload`, `nest start --watch`, `dotnet watch`.
pub(super) fn watches(facts: &ProcessFacts) -> bool {
    let has = |options: &[&str]| {
        let mut words = facts.command.iter().skip(1);
        words.any(|word| options.contains(&word.as_str()))
    };
    match tool(facts) {
        Some("pserve") => return has(&["--reload"]),
        Some("nest") => return has(&["--watch", "-w"]),
        Some("dotnet") => return facts.command.get(1).is_some_and(|word| word == "watch"),
        _ => {}
    }
    let runtime = facts
        .command
        .first()
        .map(|word| base(word))
        .is_some_and(|name| matches!(name, "node" | "nodejs" | "deno" | "bun"));
    runtime
        && facts
            .command
            .iter()
            .skip(1)
            .any(|word| word == "--watch" || word == "--hot" || word.starts_with("--watch-path"))
}

pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(command: &[&str]) -> ProcessFacts {
        ProcessFacts::of_words(command)
    }

    #[test]
    fn a_runtime_is_a_tool_only_where_it_runs_a_task() {
        for (words, is_tool) in [
            (&["bun", "run", "dev"][..], true),
            (&["bun", "--silent", "run", "dev"], true),
            (&["bun", "run", "src/server.ts"], false),
            (&["bun", "server.ts"], false),
            (&["deno", "task", "dev"], true),
            (&["deno", "run", "-A", "main.ts"], false),
            (&["supervisor", "8003"], false),
            (&["air"], false),
            (&["time", "./ws"], false),
            (&["cargo", "run"], true),
            (&["cargo", "test"], false),
            (
                &["node", "/usr/lib/node_modules/supervisor/supervisor"],
                true,
            ),
        ] {
            assert_eq!(tool(&facts(words)).is_some(), is_tool, "{words:?}");
        }
    }
}
