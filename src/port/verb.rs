//! What a package manager or a builder was asked to do: to run one program, which ends its work, or more than that.
//! Reads words alone.
//!
//! What runs more goes on after the server, as a script does: an installation, the next package, the next job. Where
//! words do not prove that it is one program, it is taken for more, which costs nobody anything: it ends by itself.

use crate::port::holder::ProcessFacts;
use crate::port::tool::base;

/// Options that take the next word.
const WITH_VALUE: &[&str] = &[
    "--prefix",
    "-C",
    "--dir",
    "--cwd",
    "--directory",
    "--project",
    "-w",
    "--workspace",
    "--manifest-path",
    "-p",
    "--package",
    "--env-file",
    "--config-file",
];

/// Options with which one script is run in several packages, one after the other or side by side.
const SEVERAL: &[&str] = &[
    "-r",
    "--recursive",
    "--filter",
    "--filter-prod",
    "-F",
    "--parallel",
    "--workspaces",
    "-ws",
    "-A",
    "--all",
];

/// What yarn and pnpm do themselves; any other word is a script of the project.
const BUILT_IN: &[&str] = &[
    "install",
    "i",
    "ci",
    "add",
    "remove",
    "rm",
    "un",
    "uninstall",
    "up",
    "update",
    "upgrade",
    "upgrade-interactive",
    "import",
    "link",
    "unlink",
    "rebuild",
    "rb",
    "prune",
    "fetch",
    "audit",
    "outdated",
    "publish",
    "pack",
    "store",
    "patch",
    "deploy",
    "licenses",
    "env",
    "setup",
    "self-update",
    "create",
    "init",
    "dedupe",
    "config",
    "cache",
    "plugin",
    "set",
    "version",
    "install-test",
    "it",
    "multi",
    "m",
    "recursive",
    "workspaces",
    "global",
    "why",
];

/// Whether it runs one program and ends with it; `name` is the tool that the process is.
pub(super) fn runs_one(name: &str, facts: &ProcessFacts) -> bool {
    is_one(name, &arguments(name, facts))
}

/// The words after the tool itself, up to `--`.
fn arguments<'a>(name: &str, facts: &'a ProcessFacts) -> Vec<&'a str> {
    let words: Vec<&str> = match facts.command.as_slice() {
        // A title: `npm run dev`.
        [title] => title.split_whitespace().collect(),
        words => words.iter().map(String::as_str).collect(),
    };
    let is_it = |word: &&str| {
        let word = base(word);
        word.split('.').next() == Some(name)
    };
    let at = words.iter().position(is_it).map_or(1, |at| at + 1);
    let after = words.into_iter().skip(at);
    after.take_while(|word| *word != "--").collect()
}

fn is_one(name: &str, words: &[&str]) -> bool {
    let (mut options, mut rest) = (Vec::new(), Vec::new());
    let mut all = words.iter().copied();
    while let Some(word) = all.next() {
        // What comes after the verb and its object is for the program; npm reads it all.
        if rest.len() >= 2 && !matches!(name, "npm" | "npm-cli") {
            break;
        }
        if word.starts_with('-') {
            options.push(word.split('=').next().unwrap_or(word));
            if WITH_VALUE.contains(&word) {
                all.next();
            }
        } else if !word.starts_with('+') {
            rest.push(word);
        }
    }
    let verb = rest.first().copied();
    let is_several = |option: &&str| SEVERAL.contains(option);
    let packages = options
        .iter()
        .filter(|option| matches!(**option, "-w" | "--workspace"));
    let in_several = options.iter().any(is_several) || packages.count() > 1;
    match name {
        "npm" | "npm-cli" => {
            !in_several
                && verb.is_some_and(|verb| {
                    matches!(verb, "run" | "run-script" | "start" | "exec" | "x")
                })
        }
        "yarn" | "yarnpkg" if verb == Some("workspace") => {
            let after = words.iter().skip_while(|word| **word != "workspace");
            let after: Vec<&str> = after.skip(2).copied().collect();
            is_one(name, &after)
        }
        "yarn" | "yarnpkg" | "pnpm" => {
            !in_several && verb.is_some_and(|verb| !BUILT_IN.contains(&verb))
        }
        "corepack" => verb.is_some_and(|verb| {
            let after = words.iter().skip_while(|word| **word != verb);
            is_one(verb, &after.skip(1).copied().collect::<Vec<&str>>())
        }),
        "bun" | "deno" => !in_several,
        "cargo" => matches!(verb, Some("run" | "r")),
        "go" | "poetry" | "pipenv" | "pdm" | "rye" => verb == Some("run"),
        "uv" => matches!(verb, Some("run" | "tool")),
        // Of several environments: `hatch run all:serve`.
        "hatch" => verb == Some("run") && rest.get(1).is_some_and(|what| !what.contains(':')),
        // A task of it may have others before and after it.
        "mise" => matches!(verb, Some("exec" | "x")),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::tool::tool;

    #[test]
    fn what_installs_or_runs_several_is_not_there_for_one_program() {
        for (line, expected) in [
            ("npm run dev", true),
            ("npm start", true),
            ("npm --prefix web run dev", true),
            ("npm run dev -w web", true),
            ("npm run dev -w web -w api", false),
            ("npm run dev --workspaces", false),
            ("npm ci", false),
            ("npm install", false),
            ("npm", false),
            ("node /usr/bin/npm start", true),
            ("node /usr/lib/node_modules/npm/bin/npm-cli.js ci", false),
            (
                "node /usr/lib/node_modules/npm/bin/npm-cli.js run dev",
                true,
            ),
            ("yarn", false),
            ("yarn install", false),
            ("yarn dev", true),
            ("yarn run dev", true),
            ("yarn workspace web dev", true),
            ("yarn workspace web install", false),
            ("yarn workspaces foreach run dev", false),
            ("pnpm dev", true),
            ("pnpm exec vite", true),
            ("pnpm -r run dev", false),
            ("pnpm --filter=web dev", false),
            ("pnpm install", false),
            ("corepack pnpm dev", true),
            ("corepack yarn install", false),
            ("npx serve -r", true),
            ("bunx serve", true),
            ("cargo run --release", true),
            ("cargo +nightly run", true),
            ("cargo build", false),
            ("go run ./cmd/ws", true),
            ("go generate ./...", false),
            ("poetry run ws", true),
            ("poetry install", false),
            ("uv run ws", true),
            ("uv sync", false),
            ("hatch run serve", true),
            ("hatch run all:serve", false),
            ("mise run dev", false),
            ("mise exec -- ws", true),
            ("timeout 60 ws -r", true),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let facts = ProcessFacts::of_words(&words);
            let name = tool(&facts).unwrap();
            assert_eq!(runs_one(name, &facts), expected, "{line}");
            if name == "npm" {
                let title = ProcessFacts::of_words(&[line]);
                assert_eq!(runs_one(name, &title), expected, "{line} as a title");
            }
        }
    }
}
