//! Switches that are given with a value in the same word: `--build=false`, `-T=true`. Docker Compose's command line takes
//! them so (Go's `pflag`), and scripts write them so. Pure; done before anything else reads the arguments.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// Whether an argument could be one; else nothing has to be put together for it.
pub(super) fn may_be(argument: &OsString) -> bool {
    argument.to_str().is_some_and(|text| valued(text).is_some())
}

/// The arguments with each such switch given or left out. `command` is the whole command line, built.
pub(super) fn settled(command: &Command, arguments: &[OsString]) -> Vec<OsString> {
    let mut level = command;
    let mut words: Vec<OsString> = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(text) = argument.to_str() else {
            words.push(argument.clone());
            continue;
        };
        if text == "--" {
            words.push(argument.clone());
            break;
        }
        if text.len() < 2 || !text.starts_with('-') {
            words.push(argument.clone());
            if let Some(below) = level.find_subcommand(text) {
                level = below;
            } else if level.get_positionals().any(Arg::is_trailing_var_arg_set) {
                // What follows is somebody else's.
                break;
            }
            continue;
        }
        if let Some((name, _)) = valued(text)
            && let Some(option) = option(level, name)
            && option.is_require_equals_set()
        {
            // What takes a value in the same word takes it by its long name.
            let (_, value) = text.split_once('=').unwrap_or_default();
            let name = option
                .get_long()
                .map_or_else(|| name.to_owned(), |long| format!("--{long}"));
            words.push(format!("{name}={value}").into());
            continue;
        }
        if let Some((name, is_given)) = valued(text)
            && option(level, name).is_some_and(is_switch)
        {
            let (before, own) = apart(name);
            // The last word counts.
            words.retain(|word| *word != *own);
            words.extend(before.map(OsString::from));
            words.extend(is_given.then(|| OsString::from(own)));
            continue;
        }
        words.push(argument.clone());
        let takes_next = |option: &Arg| {
            let values = option.get_num_args();
            let wants = values.is_none_or(|values| values.min_values() > 0);
            option.get_action().takes_values() && wants && !option.is_require_equals_set()
        };
        if !text.contains('=') && option(level, text).is_some_and(takes_next) {
            words.extend(rest.next().cloned());
        }
    }
    words.extend(rest.cloned());
    words
}

/// A name and whether it is set, of `NAME=BOOLEAN` in Go's words (`strconv.ParseBool`).
fn valued(text: &str) -> Option<(&str, bool)> {
    let (name, value) = text.split_once('=')?;
    let is_set = match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => return None,
    };
    (name.len() > 1 && name.starts_with('-')).then_some((name, is_set))
}

/// The option that a word names; of several letters in one word the last.
fn option<'a>(level: &'a Command, word: &str) -> Option<&'a Arg> {
    let mut all = level.get_arguments();
    if let Some(name) = word.strip_prefix("--") {
        return all.find(|option| {
            let aliases = option.get_all_aliases().unwrap_or_default();
            option.get_long() == Some(name) || aliases.contains(&name)
        });
    }
    let letter = word.chars().last()?;
    all.find(|option| {
        let aliases = option.get_all_short_aliases().unwrap_or_default();
        option.get_short() == Some(letter) || aliases.contains(&letter)
    })
}

fn is_switch(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::SetTrue)
}

/// The letters before the last one, as a word, and the switch itself.
fn apart(name: &str) -> (Option<String>, String) {
    match name.char_indices().next_back() {
        Some((at, letter)) if !name.starts_with("--") => {
            let before = (at > 1).then(|| name[..at].to_owned());
            (before, format!("-{letter}"))
        }
        _ => (None, name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let switch = |name: &'static str, letter| {
            let option = Arg::new(name).long(name).short(letter);
            option.action(ArgAction::SetTrue)
        };
        let value = |name: &'static str, letter| Arg::new(name).long(name).short(letter);
        let mut command = Command::new("wharf")
            .arg(switch("dry-run", 'D').global(true))
            .arg(value("file", 'f').global(true))
            .subcommand(
                Command::new("up")
                    .arg(switch("detach", 'd'))
                    .arg(switch("build", 'b'))
                    .arg(Arg::new("services").num_args(0..)),
            )
            .subcommand(
                Command::new("exec")
                    .arg(switch("no-tty", 'T').alias("no-TTY"))
                    .arg(value("env", 'e'))
                    .arg(
                        value("interactive", 'i')
                            .num_args(0..=1)
                            .require_equals(true),
                    )
                    .arg(Arg::new("service"))
                    .arg(Arg::new("words").num_args(0..).trailing_var_arg(true)),
            );
        command.build();
        command
    }

    #[test]
    fn a_switch_is_given_or_left_out_and_the_rest_is_as_it_was() {
        let words = |text: &str| {
            let arguments: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            let settled = settled(&command(), &arguments);
            let words = settled.iter().map(|word| word.to_string_lossy());
            words.collect::<Vec<_>>().join(" ")
        };
        for (given, wanted) in [
            ("up --detach=true web", "up --detach web"),
            ("up --build=false web --detach=1", "up web --detach"),
            ("--dry-run=true up -d=T", "--dry-run up -d"),
            ("up --dry-run=0 -db=true", "up -d -b"),
            ("up -db=false", "up -d"),
            ("up --detach --detach=false", "up"),
            (
                "exec -T=true web ls --no-tty=true",
                "exec -T web ls --no-tty=true",
            ),
            ("exec --no-TTY=false web ls", "exec web ls"),
            ("exec -i=false web", "exec --interactive=false web"),
            ("exec -e A=true -T=f web", "exec -e A=true web"),
            ("exec -e --no-tty=true web", "exec -e --no-tty=true web"),
            ("-f up up --file=true", "-f up up --file=true"),
            (
                "up --detach=maybe -- --build=true",
                "up --detach=maybe -- --build=true",
            ),
            ("up --unknown=true", "up --unknown=true"),
        ] {
            assert_eq!(words(given), wanted, "{given}");
        }
    }
}
