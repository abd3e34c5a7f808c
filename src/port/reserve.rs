//! Ports that one command has chosen and nobody listens on yet: a lock on one byte of a file that all commands of a
//! user share, the port's number, so that of two commands that choose at the same time each gets another port.
//!
//! Ends with the process that has it. Without the file (a state directory that cannot be written) nothing is
//! reserved, and whoever listens first has the port.

use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::port::claim::Protocol;
use crate::port::turn::{attempt, byte_of, give_back, open};

/// What this command has reserved: all of it for one opening of the file, so that it may reserve a port twice.
#[derive(Debug, Default)]
pub struct Reservations {
    file: Mutex<Option<File>>,
}

impl Reservations {
    /// Reserves a port; `state` is the root of wharf's state. `false`: another command has it.
    pub fn take(&self, state: &Path, port: u16, protocol: Protocol) -> bool {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            *file = open(state, "reservations.lock").ok();
        }
        let locked = file
            .as_ref()
            .map(|file| attempt(file, byte_of(port, protocol)));
        !matches!(locked, Some(Ok(false)))
    }

    /// Gives a port back: what has it now shows in the ledger.
    pub fn give_back(&self, port: u16, protocol: Protocol) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = file.as_ref() {
            give_back(file, byte_of(port, protocol));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_commands_one_has_a_port_until_it_gives_it_back() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        let (one, other) = (Reservations::default(), Reservations::default());
        assert!(one.take(&state, 8003, Protocol::Tcp));
        // Planning again.
        assert!(one.take(&state, 8003, Protocol::Tcp));
        assert!(!other.take(&state, 8003, Protocol::Tcp));
        assert!(other.take(&state, 8003, Protocol::Udp));
        assert!(other.take(&state, 8004, Protocol::Tcp));
        one.give_back(8003, Protocol::Tcp);
        assert!(other.take(&state, 8003, Protocol::Tcp));
        drop(other);
        assert!(one.take(&state, 8004, Protocol::Tcp));
    }
}
