//! Pipes and terminals that wharf makes for a program of another user. Whoever opens `/dev/stdout` opens it anew, and may
//! do so only where it is that user's, as it is in a container.

use std::os::fd::AsFd;

use super::ledger::Account;

/// Gives an end of a pipe, or a terminal, to the user that a program runs as; `None`: to nobody else.
pub fn give(end: impl AsFd, user: Option<&Account>) {
    if let Some(user) = user {
        // Without it, all is well for a program that uses what it has open, as most do.
        drop(std::os::unix::fs::fchown(
            end,
            Some(user.uid),
            Some(user.gid),
        ));
    }
}
