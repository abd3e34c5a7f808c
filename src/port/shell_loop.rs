//! Whether the text of a shell script starts a program again and again: whether a command inside of one of its
//! loops is that program. A loop that only waits for something, before a server or after it, keeps nothing alive.
//!
//! Reads words, not the whole grammar: a function that a loop calls, or an `eval`, is not looked into. Who is
//! missed here is named when the port is taken again.

use crate::port::holder::ProcessFacts;

/// Words after which a command begins.
const OPENERS: &[&str] = &[
    ";", "&", "&&", "|", "||", "(", "{", "!", "do", "then", "else", "elif", "if", "while", "until",
];

/// Commands that run the one that follows them.
const PREFIXES: &[&str] = &[
    "exec", "env", "nohup", "time", "command", "setsid", "nice", "builtin",
];

/// Programs of which the next word says what they do.
const RUNNERS: &[&str] = &[
    "sh", "bash", "dash", "zsh", "ash", "ksh", "busybox", "node", "nodejs", "python", "python2",
    "python3", "ruby", "perl", "php", "java", "npm", "npx", "yarn", "pnpm", "cargo", "go", "make",
];

/// Whether a loop of the script runs what `below` runs; `below` is missing where it cannot be seen.
pub(super) fn restarts(text: &str, below: Option<&ProcessFacts>) -> bool {
    let Some(below) = below else {
        return false;
    };
    let words = words(text);
    let mut depth = 0_u32;
    let mut begins = true;
    for (at, word) in words.iter().enumerate() {
        if begins && matches!(word.as_str(), "while" | "until" | "for" | "select") {
            depth += 1;
            // The name of a `for`'s variable and its list are no commands.
            begins = !matches!(word.as_str(), "for" | "select");
            continue;
        }
        if begins && word == "done" {
            depth = depth.saturating_sub(1);
            begins = false;
            continue;
        }
        if OPENERS.contains(&word.as_str()) {
            begins = true;
            continue;
        }
        let is_assignment = word
            .split_once('=')
            .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(is_of_a_name));
        let is_prefix = PREFIXES.contains(&base(word)) || word.starts_with('-');
        if begins && (is_assignment || is_prefix) {
            continue;
        }
        if begins && depth > 0 {
            let next = words.get(at + 1..).unwrap_or_default();
            if is_command_of(word, next, &below.command) {
                return true;
            }
        }
        begins = false;
    }
    false
}

/// Whether a command of the script, its first word and those after it, is what a process runs.
fn is_command_of(word: &str, next: &[String], command: &[String]) -> bool {
    // "$@", $SERVER: whatever it is, it is run in the loop.
    if word.starts_with('$') {
        return true;
    }
    let mut run = command.iter().map(|word| base(word));
    let Some(first) = run.next() else {
        return false;
    };
    let is_runner = RUNNERS.contains(&first) || RUNNERS.contains(&plain(first));
    if plain(base(word)) != plain(first) {
        // A script with a first line of its own: the interpreter, then the script.
        return is_runner && run.find(|word| !word.starts_with('-')) == Some(base(word));
    }
    if !is_runner {
        return true;
    }
    let wanted: Vec<&str> = run.collect();
    let mut arguments = next
        .iter()
        .take_while(|word| !OPENERS.contains(&word.as_str()))
        .filter(|word| !word.starts_with('-'));
    arguments
        .next()
        .is_none_or(|word| word.contains('$') || wanted.contains(&base(word)))
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
                &["/app/bin/ws"],
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
}
