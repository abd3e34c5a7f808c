//! Who is connected: one seat per WebSocket session, as many as the server has.
//!
//! A seat is free again when everything that belongs to its session has ended, commands included.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// All seats.
pub(super) struct Seats {
    max: u32,
    free: Arc<Semaphore>,
    taken: Taken,
}

type Taken = Arc<Mutex<Register>>;

#[derive(Default)]
struct Register {
    last: u64,
    sitting: BTreeMap<u64, Arc<Sitter>>,
}

/// What is known of a session.
struct Sitter {
    peer: SocketAddr,
    since: Instant,
    commands: AtomicUsize,
}

/// A session as `sessions` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sitting {
    pub(super) number: u64,
    pub(super) peer: SocketAddr,
    pub(super) age_seconds: u64,
    pub(super) commands: usize,
}

impl Seats {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max,
            free: Arc::new(Semaphore::new(max as usize)),
            taken: Taken::default(),
        }
    }

    pub(super) fn max(&self) -> u32 {
        self.max
    }

    pub(super) fn active(&self) -> usize {
        lock(&self.taken).sitting.len()
    }

    /// A seat, if one is free.
    pub(super) fn take(&self, peer: SocketAddr) -> Option<Seat> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let sitter = Arc::new(Sitter {
            peer,
            since: Instant::now(),
            commands: AtomicUsize::new(0),
        });
        let mut register = lock(&self.taken);
        register.last += 1;
        let number = register.last;
        register.sitting.insert(number, Arc::clone(&sitter));
        drop(register);
        Some(Seat {
            number,
            sitter,
            taken: Arc::clone(&self.taken),
            _permit: permit,
        })
    }

    /// Everybody, in order of arrival.
    pub(super) fn list(&self) -> Vec<Sitting> {
        lock(&self.taken)
            .sitting
            .iter()
            .map(|(number, sitter)| Sitting {
                number: *number,
                peer: sitter.peer,
                age_seconds: sitter.since.elapsed().as_secs(),
                commands: sitter.commands.load(Ordering::Relaxed),
            })
            .collect()
    }

    /// Resolves when nobody is left. From the call on, nobody gets a seat.
    pub(super) async fn all_left(&self) {
        // The semaphore is never closed, and asking for all of its permits is never too much.
        drop(self.free.acquire_many(self.max).await);
    }
}

fn lock(taken: &Taken) -> MutexGuard<'_, Register> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A taken seat; free again when dropped.
pub(super) struct Seat {
    number: u64,
    sitter: Arc<Sitter>,
    taken: Taken,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Counts a command for as long as the guard lives.
    pub(super) fn command(self: &Arc<Self>) -> Running {
        self.sitter.commands.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.taken).sitting.remove(&self.number);
    }
}

/// A command that runs.
pub(super) struct Running(Arc<Seat>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.sitter.commands.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        ([127, 0, 0, 1], 4000).into()
    }

    #[tokio::test]
    async fn a_seat_is_free_again_when_its_last_command_ended() {
        let seats = Seats::new(1);
        let seat = Arc::new(seats.take(peer()).unwrap());
        let running = seat.command();
        drop(seat);
        assert_eq!(seats.list()[0].commands, 1);
        assert!(seats.take(peer()).is_none());
        drop(running);
        assert_eq!(seats.active(), 0);
        assert_eq!(seats.take(peer()).unwrap().number(), 2);
        seats.all_left().await;
    }
}
