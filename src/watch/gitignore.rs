//! `.gitignore`: which paths Git does not know of, by Git's rules (gitignore(5)). Pure.
//!
//! Files above and below each other count together: the last pattern that matches decides, and those of a deeper file
//! come after those of the files above. What is below an excluded directory is excluded whatever else is said of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::backend::container::ignore::{Automaton, Token};

/// The patterns of one file, in order.
#[derive(Debug)]
struct Lines {
    root: PathBuf,
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    /// It lets paths in again (`!`).
    exception: bool,
    /// It means directories alone (a slash at the end).
    directories: bool,
    /// It means names at any depth: there is no other slash in it.
    names: bool,
    automaton: Automaton,
}

/// The patterns of all files that count for a path, from the top down.
#[derive(Debug, Default)]
pub(super) struct Gitignore {
    files: Vec<Lines>,
}

impl Gitignore {
    /// Adds a file that is in a directory, below those that were added before. A line that is no pattern is left out, as
    /// Git does.
    pub(super) fn add(&mut self, root: &Path, text: &str) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        self.files.push(Lines {
            root: root.to_owned(),
            patterns: text
                .lines()
                .filter_map(|line| Pattern::parse(&bytes(line.as_ref())))
                .collect(),
        });
    }

    /// Leaves those files unasked that would leave out a path itself: what is to be watched is watched. Of its own
    /// directory, a file says nothing, unless it excludes all that is in it.
    pub(super) fn let_in(&mut self, path: &Path) {
        let above = self.files.first().map(|file| file.root.clone());
        let is_out = above.is_some_and(|above| self.excludes(&above, path, true));
        self.files.retain(|file| {
            let is_above = path != file.root && path.starts_with(&file.root);
            let excludes_all = path == file.root && file.excludes_all();
            !(is_out && is_above || excludes_all)
        });
    }

    /// Whether a path below a directory, which itself is not asked about, is excluded.
    pub(super) fn excludes(&self, below: &Path, path: &Path, is_directory: bool) -> bool {
        let Ok(relative) = path.strip_prefix(below) else {
            return false;
        };
        let mut at = below.to_owned();
        let mut parts = relative.components().peekable();
        while let Some(part) = parts.next() {
            at.push(part);
            let is_directory = is_directory || parts.peek().is_some();
            if self.matches(&at, is_directory) {
                return true;
            }
        }
        false
    }

    /// What the last pattern that matches says.
    fn matches(&self, path: &Path, is_directory: bool) -> bool {
        let name = bytes(path.file_name().unwrap_or_default());
        for file in self.files.iter().rev() {
            let Ok(relative) = path.strip_prefix(&file.root) else {
                continue;
            };
            let relative = bytes(relative.as_os_str());
            if relative.is_empty() {
                continue;
            }
            let last = file.patterns.iter().rev().find(|pattern| {
                let text = if pattern.names { &name } else { &relative };
                (is_directory || !pattern.directories) && pattern.automaton.matches(text)
            });
            if let Some(pattern) = last {
                return !pattern.exception;
            }
        }
        false
    }
}

impl Lines {
    /// Whether all that is in the directory is excluded, but for Git's own files.
    fn excludes_all(&self) -> bool {
        let is_all = |pattern: &Pattern| {
            let all = [Token::Run, Token::Rest];
            matches!(&pattern.automaton.0[..], [token] if all.contains(token))
        };
        let of = |exception| {
            let patterns = self.patterns.iter();
            patterns.filter(move |pattern| pattern.exception == exception)
        };
        of(false).any(|pattern| !pattern.directories && is_all(pattern))
            && of(true).all(|pattern| {
                [".gitignore", ".gitkeep"]
                    .iter()
                    .any(|name| pattern.automaton.matches(name))
                    && !is_all(pattern)
            })
    }
}

impl Pattern {
    fn parse(line: &str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let line = without_blanks(line);
        let (exception, rest) = match line.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let (directories, rest) = match rest.strip_suffix('/') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if rest.is_empty() {
            return None;
        }
        let names = !rest.contains('/');
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        Some(Self {
            exception,
            directories,
            names,
            automaton: Automaton(tokens(rest)?),
        })
    }
}

/// A character for each byte: that is what Git compares.
fn bytes(text: &OsStr) -> String {
    text.as_bytes().iter().copied().map(char::from).collect()
}

/// Blanks at the end do not count, unless there is a backslash before.
fn without_blanks(line: &str) -> &str {
    let bare = line.trim_end_matches(' ');
    let backslashes = bare.len() - bare.trim_end_matches('\\').len();
    if backslashes % 2 == 1 && bare.len() < line.len() {
        &line[..=bare.len()]
    } else {
        bare
    }
}

/// None where the pattern can match nothing.
fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let slashes = [Token::Char('/'), Token::Directories];
        let starts = tokens.last().is_none_or(|last| slashes.contains(last));
        let after = rest.trim_start_matches('*');
        if rest.len() - after.len() > 1 && starts {
            // Directories only where it stands alone between slashes.
            if let Some(after) = after.strip_prefix('/') {
                tokens.extend([Token::Optional, Token::Directories]);
                rest = after;
                continue;
            }
            if after.is_empty() {
                tokens.push(Token::Rest);
                break;
            }
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '*' => {
                tokens.push(Token::Run);
                rest = after;
            }
            '?' => tokens.push(Token::One),
            '[' => {
                let (class, after) = class(rest)?;
                tokens.push(class);
                rest = after;
            }
            '\\' => {
                let c = rest.chars().next()?;
                tokens.push(Token::Char(c));
                rest = &rest[c.len_utf8()..];
            }
            c => tokens.push(Token::Char(c)),
        }
    }
    Some(tokens)
}

/// The rest of a character class after its `[`, and what follows it.
fn class(text: &str) -> Option<(Token, &str)> {
    let (negated, text) = match text.strip_prefix(['!', '^']) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix(']')
            && rest.len() < text.len()
        {
            return Some((Token::Class { negated, ranges }, after));
        }
        if let Some(after) = rest.strip_prefix("[:")
            && let Some((name, after)) = after.split_once(":]")
        {
            ranges.extend(named(name)?);
            rest = after;
            continue;
        }
        let (low, after) = member(rest)?;
        rest = after;
        let mut high = low;
        if let Some(after) = rest.strip_prefix('-')
            && !after.starts_with(']')
        {
            (high, rest) = member(after)?;
            // The low end counts by itself, also where the range is empty.
            ranges.push((low, low));
        }
        ranges.push((low, high));
    }
}

/// A character of a class.
fn member(text: &str) -> Option<(char, &str)> {
    let text = text.strip_prefix('\\').unwrap_or(text);
    let c = text.chars().next()?;
    Some((c, &text[c.len_utf8()..]))
}

/// `[:name:]`, in ASCII as for Git.
fn named(name: &str) -> Option<&'static [(char, char)]> {
    Some(match name {
        "alnum" => &[('a', 'z'), ('A', 'Z'), ('0', '9')],
        "alpha" => &[('a', 'z'), ('A', 'Z')],
        "blank" => &[(' ', ' '), ('\t', '\t')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[(' ', ' '), ('\t', '\r')],
        "upper" => &[('A', 'Z')],
        "xdigit" => &[('0', '9'), ('a', 'f'), ('A', 'F')],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};

    use super::*;

    /// Files, each with its directory and its text; then paths, which of them end in a slash are directories.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str);

    /// Of made-up files; a few milliseconds each.
    const ROUNDS: usize = 200;

    const CASES: &[Case<'_>] = &[
        (
            &[(
                "",
                "# mine\n*.log\n/target/\ndocs/*.html\nnode_modules/\n!keep.log  \n\n",
            )],
            "a.log x/y/a.log target/debug/a web/target/a docs/a.html docs/x/a.html web/node_modules/a/b x/keep.log src/a",
        ),
        // A list of what is let in.
        (&[("", "/*\n!/src/\n")], "src/a src/x/y other/x top src/"),
        (
            &[("", "*\n!.gitignore\n!src/\n!src/**\n")],
            "src/a src/x/y other/x top .gitignore",
        ),
        (
            &[("", "*\n!*/\n!*.go\n")],
            "app main.go data/x.db data/x.go data/",
        ),
        (&[("", "**\n!src\n!src/**\n")], "src/a src/x/y top"),
        // Nothing below an excluded directory is let in again.
        (
            &[("", "logs/\n!logs/keep.log\n")],
            "logs/keep.log logs/a x/logs/a",
        ),
        (
            &[("", "logs/*\n!logs/keep.log\n")],
            "logs/keep.log logs/a x/logs/a",
        ),
        (
            &[("", "node_modules/\n.env.*\n!.env.example\n")],
            "node_modules/a/.env.example .env.example .env.x x/.env.x",
        ),
        (&[("", "a\n!a/b\n")], "a/b a/c a"),
        // Directories alone.
        (
            &[("", "build/\n")],
            "build/x sub/build sub/build/ sub/build/x build2/x",
        ),
        (
            &[("", "/build/\nfoo/bar/\n")],
            "build/x sub/build/x foo/bar foo/bar/ foo/bar/x x/foo/bar/y",
        ),
        (&[("", "*\n!/d/\n")], "d/x d/ d x"),
        // Classes.
        (&[("", "*.[!o]\n")], "a.o a.x a.xx"),
        (&[("", "*.[^o]\n")], "a.o a.x"),
        (&[("", "[]a]x\n[!]a]y\n")], "]x ax bx ]y ay by"),
        (
            &[("", "[a-c-]1\n[[:digit:][:upper:]]2\n[\\]]3\n[a\\-c]4\n")],
            "a1 b1 -1 d1 72 A2 a2 ]3 a3 b4 -4 c4",
        ),
        (&[("", "[\n[a\nx[!]\n[[:nope:]]\nok\n")], "[ [a a x[!] n ok"),
        (&[("", "a[/]b\na[!x]b\n")], "a/b aab axb"),
        // Stars.
        (&[("", "a**b\n")], "ab axxb a/b x/axb"),
        (&[("", "x/a**b\nx/**y\n")], "x/ab x/a1b x/a/b x/zy x/z/y"),
        (
            &[("", "**/foo\nbar/**\nx/**/y\n/**/z\n")],
            "foo a/foo a/b/foo/c bar bar/ bar/a bar/b/c x/y x/1/y x/1/2/y xy z a/z q/bar/a",
        ),
        (&[("", "a/***/b\n***\n!c\n")], "a/b c d a/c/b"),
        (&[("", "/**\n!/keep\n!/dir/\n")], "keep dir/ dir/x y"),
        (&[("", "**/\n")], "a a/ a/b"),
        (&[("", "a/*\n*/b\n")], "a/x a/x/y b c/b c/d/b"),
        (&[("", "?x\na?b\n")], "ax x/ax a/b axb é éx"),
        (
            &[("", "[a-?]x\n**/**/b\n**/***/[!c]y\n")],
            "ax ?x bx b c/b c/d/b ay d/ay cy",
        ),
        // Blanks, escapes and what is no pattern.
        (
            &[("", "a  \nb\\ \nc\\  \n\\#d\n\\!e\n f\n!\n/\n\\\ng\\\n#h\n")],
            "a b| c| #d !e |f f g h #h",
        ),
        (&[("", "a\\*b\n\\a\nx\\?\n")], "a*b axb a x? xy"),
        (
            &[("", "\u{feff}one\r\ntwo/\r\n!three\r\n")],
            "one two/ two three",
        ),
        (
            &[("", "doc/frotz/\nfrotz/\n./x\na//b\n")],
            "doc/frotz/ a/doc/frotz/ frotz/y x a/b",
        ),
        (&[("", "*.a\n!b.a\n*.a\n!c.a\n")], "a.a b.a c.a"),
        // Files below files.
        (
            &[
                ("", "*.log\n/only\nsub/gone/\n"),
                ("sub", "!keep.log\n/only2\n"),
                ("sub/deep", "*\n!x\n"),
            ],
            "sub/keep.log keep.log sub/a.log sub/only only sub/only2 only2 sub/deep/x sub/deep/y sub/deep/z/x sub/gone/keep.log",
        ),
        (&[("", "sub/\n"), ("sub", "!*\n")], "sub/a sub/"),
        (&[("", "!sub/a\n"), ("sub", "a\n")], "sub/a sub/b"),
    ];

    fn wharf_says(case: &Case<'_>, path: &str) -> bool {
        let root = Path::new("/p");
        let mut ignore = Gitignore::default();
        for (directory, text) in case.0 {
            ignore.add(&root.join(directory), text);
        }
        ignore.excludes(
            root,
            &root.join(path.trim_end_matches('/')),
            path.ends_with('/'),
        )
    }

    /// The paths of a case. A blank in one is written as `|`.
    fn paths(case: &Case<'_>) -> Vec<String> {
        case.1
            .split(' ')
            .map(|path| path.replace('|', " "))
            .collect()
    }

    /// Git as it is without a user's settings.
    fn git(root: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(root)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", root)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stderr(Stdio::null());
        command
    }

    fn git_says(case: &Case<'_>, path: &str) -> Option<bool> {
        let root = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let mut command = git(root.path(), arguments);
            command.stdout(Stdio::null()).status()
        };
        git(&["init", "-q", "."]).ok()?.success().then_some(())?;
        for (directory, text) in case.0 {
            fs::create_dir_all(root.path().join(directory)).unwrap();
            fs::write(root.path().join(directory).join(".gitignore"), text).unwrap();
        }
        let file = root.path().join(path.trim_end_matches('/'));
        if path.ends_with('/') {
            fs::create_dir_all(file).unwrap();
        } else if !file.exists() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        let path = format!("./{}", path.trim_end_matches('/'));
        let ended = git(&["check-ignore", "-q", "--no-index", "--", &path]).unwrap();
        Some(ended.code() == Some(0))
    }

    #[test]
    fn git_says_the_same() {
        let mut wrong = Vec::new();
        let mut count = 0;
        for case in CASES {
            for path in paths(case) {
                let Some(expected) = git_says(case, &path) else {
                    println!("skipped: there is no git to compare with");
                    return;
                };
                count += 1;
                if wharf_says(case, &path) != expected {
                    wrong.push(format!("{:?}: {path:?}: git says {expected}", case.0));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(count > 150, "{count}");
    }

    /// Made-up files, the same ones each time (a linear congruential generator).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, count: usize) -> usize {
            let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
            self.0 = next.wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % count
        }

        fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
            all[self.below(all.len())]
        }

        fn text(&mut self) -> String {
            let parts = [
                "a",
                "b",
                "ab",
                "c",
                "a.c",
                "*",
                "*",
                "**",
                "/",
                "/",
                "/",
                "?",
                "[ab]",
                "[!a]",
                "[^b-z]",
                "\\a",
                "\\*",
                "[",
                "]",
                "[a",
                "a ",
                "\\ ",
                ".",
                "[[:alpha:]]",
                "[a-",
                "[]-a]",
                "***",
                "[/]",
            ];
            let mut text = String::new();
            for _ in 0..=self.below(4) {
                text += self.of(&["", "", "", "!", "/", "**/", "!/"]);
                for _ in 0..=self.below(4) {
                    text += self.of(&parts);
                }
                text += self.of(&["", "", "/", "/**", " ", "\t", "\r"]);
                text.push('\n');
            }
            text
        }
    }

    #[test]
    fn git_says_the_same_of_files_made_up() {
        let root = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| git(root.path(), arguments);
        if !git(&["init", "-q", "."])
            .status()
            .is_ok_and(|ended| ended.success())
        {
            println!("skipped: there is no git to compare with");
            return;
        }
        let mut paths = Vec::new();
        for top in ["a", "b", "ab", "c"] {
            for middle in ["a", "b", "a.c"] {
                fs::create_dir_all(root.path().join(top).join(middle).join("b")).unwrap();
                paths.push(format!("{top}/{middle}/"));
                paths.push(format!("{top}/{middle}/b/"));
                for file in ["a ", "c", "*", "[a", "é"] {
                    let file = format!("{top}/{middle}/{file}");
                    fs::write(root.path().join(&file), "").unwrap();
                    paths.push(file);
                }
            }
            paths.push(format!("{top}/"));
        }
        let asked = root.path().join("asked");
        let lines = paths
            .iter()
            .map(|path| format!("{}\0", path.trim_end_matches('/')));
        fs::write(&asked, lines.collect::<String>()).unwrap();
        let mut dice = Dice(1);
        let mut wrong = Vec::new();
        for _ in 0..ROUNDS {
            let (above, below) = (dice.text(), dice.text());
            fs::write(root.path().join(".gitignore"), &above).unwrap();
            fs::write(root.path().join("a/.gitignore"), &below).unwrap();
            let output = git(&["check-ignore", "-z", "--no-index", "--stdin"])
                .stdin(fs::File::open(&asked).unwrap())
                .output()
                .unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            let said: std::collections::BTreeSet<&str> = said.split('\0').collect();
            let files = [("", above.as_str()), ("a", below.as_str())];
            for path in &paths {
                let expected = said.contains(path.trim_end_matches('/'));
                if wharf_says(&(&files, ""), path) != expected {
                    wrong.push(format!("{files:?}: {path:?}: git says {expected}"));
                    break;
                }
            }
        }
        assert!(wrong.is_empty(), "{}: {}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn a_few_cases_as_git_decides_them() {
        let case: Case<'_> = (
            &[
                ("", "logs/\n!logs/keep\n*.[!o]\nbuild/\n/*.md\n"),
                ("sub", "!a.x\n"),
            ],
            "",
        );
        for (path, excluded) in [
            ("logs/keep", true),
            ("a.x", true),
            ("a.o", false),
            ("sub/a.x", false),
            ("build", false),
            ("build/", true),
            ("sub/build/x", true),
            ("a.md", true),
            ("sub/a.md", false),
            ("sub/a", false),
        ] {
            assert_eq!(wharf_says(&case, path), excluded, "{path}");
        }
    }
}
