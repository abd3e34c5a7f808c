//! Flags that answer a question, as data: which command has them is for whoever was called to say.

use std::fmt;

/// A flag that would have answered what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The flag, as it is typed.
    pub flag: String,
    /// Another one of the same meaning.
    pub or: Option<&'static str>,
    /// What it does, for a line that begins with it.
    pub does: String,
    /// The command that has the flag; `None`: the one that was called.
    pub command: Option<String>,
}

impl Answer {
    /// `--force`, by either name.
    pub fn force(does: impl Into<String>) -> Self {
        Self {
            flag: "--force".to_owned(),
            or: Some("--on-conflict replace"),
            does: does.into(),
            command: None,
        }
    }

    /// `--on-conflict move`.
    pub fn moving(does: impl Into<String>) -> Self {
        Self {
            flag: "--on-conflict move".to_owned(),
            or: None,
            does: does.into(),
            command: None,
        }
    }
}

/// A line that can be pasted where another command than the one that was called has the flag.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            flag,
            or,
            does,
            command,
        } = self;
        match (command, or) {
            (Some(command), _) => write!(f, "{command} {flag}   # {does}"),
            (None, Some(or)) => write!(f, "{flag} (or {or}) {does}"),
            (None, None) => write!(f, "{flag} {does}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_told_with_the_command_that_has_it() {
        let mut answer = Answer::force("stops it");
        let told = "--force (or --on-conflict replace) stops it";
        assert_eq!(answer.to_string(), told);
        answer.command = Some("wharf up web".to_owned());
        assert_eq!(answer.to_string(), "wharf up web --force   # stops it");
    }
}
