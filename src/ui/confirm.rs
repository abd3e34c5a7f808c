//! A yes-or-no question before something is lost.

use std::io::Write as _;

use crate::ui::question::read_line;
use crate::ui::{NAME, Ui};

impl Ui {
    /// Says what is about to happen and asks whether it may; anything but yes means no. Without a terminal
    /// the sentence is data and the answer is read all the same, so that it can come from a pipe.
    pub fn confirm(self, what: &str) -> bool {
        if self.can_ask() {
            drop(write!(anstream::stderr(), "{NAME}?{NAME:#} {what} (y/N) "));
            drop(anstream::stderr().flush());
        } else {
            self.data(what);
        }
        read_line().is_some_and(|answer| means_yes(&answer))
    }
}

fn means_yes(answer: &str) -> bool {
    let answer = answer.trim();
    answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes")
}

#[cfg(test)]
mod tests {
    use super::means_yes;

    #[test]
    fn only_yes_is_yes() {
        for answer in ["y", "Y", " yes\r", "YES"] {
            assert!(means_yes(answer), "{answer:?}");
        }
        for answer in ["", "n", "no", "yep", "oui", "1"] {
            assert!(!means_yes(answer), "{answer:?}");
        }
    }
}
