//! What becomes of a shell script when a program that it runs has ended: it runs it again, ends as well, or goes on
//! with what else it says. A loop that only waits for something, before a server or after it, keeps nothing alive.
//!
//! Reads words, not the whole grammar: a function that a loop calls, or an `eval`, is not looked into. Where it is not
//! plain what follows, a script goes on: a loop over a list or over what it reads runs the next one and not this one
//! again, and what stands after the server in its loop would be lost. Who is missed here is named when the port is
//! taken again.

use crate::port::holder::ProcessFacts;

/// Words after which a command begins.
const OPENERS: &[&str] = &[
    ";", "&", "&&", "|", "||", "(", "{", "!", "do", "then", "else", "elif", "if", "while", "until",
];

/// Commands that run the one that follows them.
const PREFIXES: &[&str] = &[
    "exec", "env", "nohup", "time", "command", "setsid", "nice", "ionice", "stdbuf", "builtin",
];

/// Programs of which the next word says what they do.
const RUNNERS: &[&str] = &[
    "sh", "bash", "dash", "zsh", "ash", "ksh", "busybox", "node", "nodejs", "python", "python2",
    "python3", "ruby", "perl", "php", "java", "npm", "npx", "yarn", "pnpm", "cargo", "go", "make",
];

/// What becomes of a script when a program that it runs has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It runs it again, in a loop after which nothing follows.
    Repeats,
    /// It ends, too.
    Ends,
    /// It goes on with other work, or nobody can tell.
    GoesOn,
}

/// Commands that do nothing which could be lost.
const IDLE: &[&str] = &[
    "true", "false", ":", "exit", "return", "wait", "break", "continue",
];

/// Commands of which nothing is lost when a loop ends before them: they say something, or pass time.
const PAUSES: &[&str] = &["sleep", "echo", "printf", "date", "test", "[", "[["];

/// Words that only close what was opened.
const CLOSERS: &[&str] = &["fi", "esac", "}", ")"];

/// One simple command of a script.
struct Command<'a> {
    word: &'a str,
    /// What follows its first word.
    next: &'a [String],
    /// Which of the outermost loops it stands in.
    inside: Option<u32>,
    /// Whether one of its loops is over a list.
    counted: bool,
    /// Whether it reads what the one before it writes, and so runs beside it.
    piped: bool,
}

impl Command<'_> {
    fn runs(&self, below: &ProcessFacts) -> bool {
        is_command_of(self.word, self.next, &below.command)
    }

    /// Whether only a variable says what it runs: `"$@"`, `$SERVER`.
    fn is_open(&self) -> bool {
        base(self.word).contains('$')
    }

    /// Whether it is the head of a function: `name() {`.
    fn defines(&self) -> bool {
        self.next.first().is_some_and(|word| word == "(")
            && self.next.get(1).is_some_and(|word| word == ")")
    }
}

/// Those that run what `below` runs: by their words, or where none does, those that may run anything.
fn candidates(commands: &[Command<'_>], below: &ProcessFacts) -> Vec<usize> {
    let all = |is_it: &dyn Fn(&Command<'_>) -> bool| -> Vec<usize> {
        let found = commands.iter().enumerate().filter(|(_, one)| is_it(one));
        found.map(|(at, _)| at).collect()
    };
    let named = all(&|command| !command.is_open() && command.runs(below));
    if named.is_empty() {
        all(&|command| command.is_open())
    } else {
        named
    }
}

/// Whether a loop of the script runs what `below` runs; `below` is missing where it cannot be seen.
pub(super) fn restarts(text: &str, below: Option<&ProcessFacts>) -> bool {
    let words = words(text);
    let commands = commands(&words);
    below.is_some_and(|below| {
        let found = candidates(&commands, below);
        let mut found = found.iter().filter_map(|at| commands.get(*at));
        found.any(|command| command.inside.is_some())
    })
}

/// Whether a loop of the script has a command of this kind, told by its own words and those of the whole script.
pub(super) fn repeats(text: &str, is_it: impl Fn(&[&str], &[&str]) -> bool) -> bool {
    let words = words(text);
    let script: Vec<&str> = words.iter().map(String::as_str).collect();
    commands(&words).iter().any(|command| {
        let next = command.next.iter().map(String::as_str);
        let own: Vec<&str> = std::iter::once(command.word)
            .chain(next.take_while(|word| !OPENERS.contains(word) && !CLOSERS.contains(word)))
            .collect();
        command.inside.is_some() && is_it(&own, &script)
    })
}

/// What becomes of the script when `below` has ended, which it runs.
pub(super) fn course(text: &str, below: Option<&ProcessFacts>) -> Course {
    let words = words(text);
    let commands = commands(&words);
    let found = below.map_or_else(Vec::new, |below| candidates(&commands, below));
    let mut courses = found.iter().map(|at| course_from(&commands, *at));
    match courses.next() {
        // Where several may be it, nobody can tell which.
        Some(first) if courses.all(|other| other == first) => first,
        Some(_) => Course::GoesOn,
        None => {
            // A program may give itself another name; where there is no other one, it is that.
            let mut serious = commands.iter().filter(|command| !command.is_idle());
            match (serious.next(), serious.next()) {
                (Some(only), None) if only.inside.is_none() => Course::Ends,
                _ => Course::GoesOn,
            }
        }
    }
}

/// What becomes of a script after the command in this place.
fn course_from(commands: &[Command<'_>], at: usize) -> Course {
    let (before, from) = commands.split_at(at);
    let Some((server, after)) = from.split_first() else {
        return Course::GoesOn;
    };
    let inside = server.inside;
    // The function that it stands in is called later, for its sake.
    let function = before.iter().rfind(|command| command.defines());
    let in_loop = |command: &&Command<'_>| inside.is_some() && command.inside == inside;
    let follows = after
        .iter()
        .skip_while(|command| command.piped)
        .filter(|command| function.is_none_or(|function| function.word != command.word))
        .any(|command| !(command.is_idle() || in_loop(&command) && command.pauses()));
    // A loop is stopped by a signal, for which a trap is made; any other end would come to it as well.
    let is_trapped = || commands.iter().any(|command| command.word == "trap");
    let reads = || commands.iter().filter(in_loop).any(|it| it.word == "read");
    match inside {
        _ if follows => Course::GoesOn,
        Some(_) if server.counted || reads() => Course::GoesOn,
        Some(_) => Course::Repeats,
        None if is_trapped() => Course::GoesOn,
        None => Course::Ends,
    }
}

impl Command<'_> {
    fn is_idle(&self) -> bool {
        IDLE.contains(&self.word)
    }

    fn pauses(&self) -> bool {
        PAUSES.contains(&self.word) && !self.writes()
    }

    /// Whether what it says goes into a file, where somebody reads it: not to the terminal, not to nobody.
    fn writes(&self) -> bool {
        let own = self.next.iter().take_while(|word| {
            !OPENERS.contains(&word.as_str()) && !CLOSERS.contains(&word.as_str())
        });
        let words: Vec<&str> = own.map(String::as_str).collect();
        words.iter().enumerate().any(|(at, word)| {
            let Some((_, target)) = word.rsplit_once('>') else {
                return false;
            };
            let target = if target.is_empty() {
                words.get(at + 1).copied().unwrap_or_default()
            } else {
                target
            };
            !target.starts_with('&') && !target.starts_with("/dev/")
        })
    }
}

/// The simple commands of a script, in the order in which they stand there.
fn commands(words: &[String]) -> Vec<Command<'_>> {
    let mut found = Vec::new();
    // Of each loop that is open, whether it is over a list.
    let mut open: Vec<bool> = Vec::new();
    let mut loops = 0_u32;
    let mut begins = true;
    let mut piped = false;
    let mut prefixed = false;
    for (at, word) in words.iter().enumerate() {
        if begins && matches!(word.as_str(), "while" | "until" | "for" | "select") {
            loops += u32::from(open.is_empty());
            // The name of a `for`'s variable and its list are no commands.
            begins = !matches!(word.as_str(), "for" | "select");
            let is_endless = words.get(at + 1).is_some_and(|next| next == "(");
            open.push(!begins && !is_endless);
            continue;
        }
        if begins && word == "done" {
            open.pop();
            begins = false;
            continue;
        }
        if OPENERS.contains(&word.as_str()) {
            begins = true;
            prefixed = false;
            piped = word == "|" || (piped && matches!(word.as_str(), "(" | "{"));
            continue;
        }
        if CLOSERS.contains(&word.as_str()) {
            begins = false;
            continue;
        }
        let is_assignment = word
            .split_once('=')
            .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(is_of_a_name));
        let is_prefix = PREFIXES.contains(&base(word)) || word.starts_with('-');
        // `nice -n 5`
        let is_number = prefixed && word.starts_with(|first: char| first.is_ascii_digit());
        let is_redirection = word.starts_with(['<', '>']);
        if begins && (is_assignment || is_prefix || is_number || is_redirection) {
            prefixed |= is_prefix;
            continue;
        }
        if begins {
            found.push(Command {
                word,
                next: words.get(at + 1..).unwrap_or_default(),
                inside: (!open.is_empty()).then_some(loops),
                counted: open.contains(&true),
                piped,
            });
        }
        begins = false;
    }
    found
}

/// Whether a command of the script, its first word and those after it, is what a process runs: word by word, up to the
/// first that only the shell can tell.
fn is_command_of(word: &str, next: &[String], command: &[String]) -> bool {
    let run: Vec<&str> = match command.split_first() {
        // A title such as `npm run dev` stands in one word.
        Some((title, rest)) if rest.iter().all(String::is_empty) => title.split(' ').collect(),
        _ => command.iter().map(String::as_str).collect(),
    };
    let Some((first, mut arguments)) = run.split_first() else {
        return false;
    };
    let first = base(first);
    let is_runner = RUNNERS.contains(&first) || RUNNERS.contains(&plain(first));
    if plain(base(word)) != plain(first) {
        // A script with a first line of its own: the interpreter, then the script.
        let script = arguments.iter().position(|word| !word.starts_with('-'));
        let Some(script) = script.filter(|_| is_runner) else {
            return false;
        };
        if arguments
            .get(script)
            .is_none_or(|it| base(it) != base(word))
        {
            return false;
        }
        arguments = arguments.get(script + 1..).unwrap_or_default();
    }
    let said = next
        .iter()
        .map(String::as_str)
        .take_while(|word| !OPENERS.contains(word) && !CLOSERS.contains(word))
        .take_while(|word| !word.contains(['<', '>', '$', '*', '?', '`', '~']));
    said.zip(arguments.iter().map(Some).chain(std::iter::repeat(None)))
        .all(|(said, run)| run.is_some_and(|run| base(run) == base(said)))
}

/// The words of a script, without quotes; separators are words of their own, a line's end is `;`.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars().peekable();
    let finish = |word: &mut String, words: &mut Vec<String>| {
        if !word.is_empty() {
            words.push(std::mem::take(word));
        }
    };
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some('"') | None, '\\') => word.extend(characters.next().filter(|next| *next != '\n')),
            (None, '\'' | '"') => quote = Some(character),
            (None, '#') if word.is_empty() => {
                while characters.next_if(|next| *next != '\n').is_some() {}
            }
            (None, '\n' | ';') => {
                finish(&mut word, &mut words);
                words.push(";".to_owned());
            }
            // `2>&1`, `&>log`: no end of a command.
            (None, '&') if word.ends_with(['<', '>']) || characters.peek() == Some(&'>') => {
                word.push(character);
            }
            (None, '&' | '|') => {
                finish(&mut word, &mut words);
                let twice = characters.next_if_eq(&character).is_some();
                let sign = character.to_string();
                words.push(if twice { sign.repeat(2) } else { sign });
            }
            // `${NAME}` is one word.
            (None, '{') if word.ends_with('$') => word.push(character),
            (None, '}') if word.starts_with("${") => word.push(character),
            (None, '(' | ')' | '{' | '}') => {
                finish(&mut word, &mut words);
                words.push(character.to_string());
            }
            (None, _) if character.is_whitespace() => finish(&mut word, &mut words),
            (Some(_) | None, _) => word.push(character),
        }
    }
    finish(&mut word, &mut words);
    words
}

/// A program's name without its version: `python3.12`.
fn plain(name: &str) -> &str {
    name.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.')
}

fn is_of_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(command: &[&str]) -> ProcessFacts {
        ProcessFacts::of_words(command)
    }

    #[test]
    fn what_a_loop_runs_is_started_again() {
        for (text, command) in [
            ("while true; do ws 8003; sleep 1; done", &["ws", "8003"][..]),
            (
                "while :\ndo\n  PORT=1 exec ./bin/ws --x\ndone",
                &["/app/bin/ws", "--x"],
            ),
            ("until ws; do :; done", &["ws"]),
            ("while true; do \"$@\"; done", &["anything"]),
            ("cmd=ws; for (( ; ; )); do $cmd; done", &["ws"]),
            (
                "while ! nohup python3 app.py; do sleep 1; done",
                &["python3.12", "app.py"],
            ),
            (
                "while true; do ./serve.sh; done",
                &["/bin/sh", "./serve.sh"],
            ),
            (
                "for i in 1 2 3; do x=1; done\nwhile true; do ( ws & wait ); done",
                &["ws"],
            ),
            (
                "while sleep 1; do if true; then node server.js; fi; done",
                &["node", "server.js"],
            ),
        ] {
            assert!(restarts(text, Some(&process(command))), "{text}");
        }
    }

    #[test]
    fn what_stands_beside_a_loop_is_not() {
        for (text, command) in [
            (
                "for i in 1 2 3; do true; done\nws 8003\necho over",
                &["ws", "8003"][..],
            ),
            ("until nc -z db 5432; do sleep 1; done; exec ws", &["ws"]),
            ("ws & while kill -0 $!; do sleep 1; done", &["ws"]),
            ("ws --for-ever for", &["ws"]),
            ("# while true; do ws; done\nws", &["ws"]),
            ("echo 'while true; do ws; done'; ws", &["ws"]),
            (
                "while true; do python3 check.py; done & python3 app.py",
                &["python3", "app.py"],
            ),
            (
                "while true; do sh wait.sh; done; sh serve.sh",
                &["sh", "serve.sh"],
            ),
            ("while true; do echo ws; done; ws", &["ws"]),
        ] {
            assert!(!restarts(text, Some(&process(command))), "{text}");
        }
    }

    #[test]
    fn a_script_goes_on_with_what_stands_after_its_server() {
        let ws = process(&["ws", "8003"]);
        for (text, expected) in [
            ("ws 8003", Course::Ends),
            ("exec ws 8003 >log 2>&1", Course::Ends),
            ("cd app && PORT=1 nice -n 5 ws 8003 | tee log", Course::Ends),
            ("make build; if test -e x; then ws 8003; fi", Course::Ends),
            ("ws 8003 & wait; exit $?", Course::Ends),
            ("main() { ws 8003; }\nmain \"$@\"", Course::Ends),
            ("ws 8003\necho cleaned > file", Course::GoesOn),
            ("ws 8003; rm -rf tmp", Course::GoesOn),
            ("ws 8003 & sleep 1; curl localhost", Course::GoesOn),
            ("main() { ws 8003; }\nmain; cleanup", Course::GoesOn),
            ("trap cleanup EXIT; ws 8003", Course::GoesOn),
            ("while true; do ws 8003; sleep 1; done", Course::Repeats),
            (
                "trap 'rm x' EXIT; while :; do ws || exit; done; exit",
                Course::Repeats,
            ),
            ("f() { until ws; do :; done; }\nf", Course::Repeats),
            (
                "while make; do ws 8003; echo over; sleep 1; done",
                Course::Repeats,
            ),
            ("for ((;;)); do ws 8003; done", Course::Repeats),
            // It runs the next one, and not this one again.
            ("for p in \"$@\"; do ws $p; done", Course::GoesOn),
            (
                "while :; do for p in 1 2; do ws $p; done; done",
                Course::GoesOn,
            ),
            ("while read job; do ws $job; done < jobs", Course::GoesOn),
            (
                "while :; do ws 8003; publish; sleep 60; done",
                Course::GoesOn,
            ),
            // Another program, or the same one for something else.
            (
                "ws 8003 & while sleep 1; do \"$DIR\"/sync.sh; done",
                Course::GoesOn,
            ),
            ("ws 8003 & while sleep 1; do ws gc; done", Course::GoesOn),
            ("ws 8003; \"$DIR\"/cleanup.sh", Course::GoesOn),
            (
                "while :; do $A; done; while :; do $B; other; done",
                Course::GoesOn,
            ),
            ("for i in 1 2 3; do ws 8003; done; upload", Course::GoesOn),
            (
                "while :; do ws; done; while :; do other; done",
                Course::GoesOn,
            ),
            // Nobody can tell.
            (". ./functions; start", Course::GoesOn),
        ] {
            assert_eq!(course(text, Some(&ws)), expected, "{text}");
        }
        // Under another name than it was called by, and alone.
        let renamed = process(&["next-server (v14.1)"]);
        assert_eq!(course("next dev -p 8003", Some(&renamed)), Course::Ends);
        assert_eq!(
            course("next dev; echo x > y", Some(&renamed)),
            Course::GoesOn
        );
    }
}
