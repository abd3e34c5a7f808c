//! What ends a command: SIGINT, SIGTERM and SIGHUP, and the Docker client that started it.
//!
//! One action of a person counts once. Without a terminal the client closes its connection to the plugin at its
//! first signal, and says nothing at those that follow; whoever signals the whole process group has then told the
//! plugin twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Result};

/// Within which time a signal is the one at which the client ended.
const SAME: Duration = Duration::from_secs(1);

/// How long a signal is listened to: `timeout` passes on to its group what the group was sent. Nothing is said before,
/// so what comes later may be an answer.
const ECHO: Duration = Duration::from_millis(10);

/// Between two looks at signals that were taken out of their way.
const LOOK: Duration = Duration::from_millis(20);

/// Whether the Docker client has ended this process by [`end_for_the_client`].
static CLIENT_ENDED: AtomicBool = AtomicBool::new(false);

/// Ends this process as SIGTERM does, on behalf of the Docker client.
pub(super) fn end_for_the_client() {
    CLIENT_ENDED.store(true, Ordering::SeqCst);
    let (this, signal) = (rustix::process::getpid(), rustix::process::Signal::TERM);
    let _: rustix::io::Result<()> = rustix::process::kill_process(this, signal);
}

/// SIGINT, SIGTERM and SIGHUP: the three ways a terminal or a person ends a command.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    heard_of_client: bool,
    heard: Heard,
    /// Until when the last one is listened to. It outlives a call that is dropped.
    until: Option<tokio::time::Instant>,
}

impl Signals {
    pub(super) fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(Error::failed);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            heard_of_client: false,
            heard: Heard::default(),
            until: None,
        })
    }

    /// The next time that somebody wants the command to end.
    pub(super) async fn next(&mut self) {
        loop {
            if let Some(until) = self.until {
                tokio::time::sleep_until(until).await;
                while let Some(by) = self.one().now_or_never() {
                    self.heard.is_new(by, Instant::now());
                }
                self.until = None;
                return;
            }
            let by = self.one().await;
            if self.heard.is_new(by, Instant::now()) {
                self.until = Some(tokio::time::Instant::now() + ECHO);
            }
        }
    }

    async fn one(&mut self) -> By {
        tokio::select! {
            _ = self.interrupt.recv() => By::Signal,
            _ = self.terminate.recv() => self.terminated(),
            _ = self.hangup.recv() => By::Hangup,
        }
    }

    fn terminated(&mut self) -> By {
        if self.heard_of_client || !CLIENT_ENDED.load(Ordering::SeqCst) {
            return By::Signal;
        }
        self.heard_of_client = true;
        By::Client
    }
}

/// The same signals, taken out of their usual way for as long as this lives: afterwards each does again what it did.
/// (A listener of [`Signals`] would stay for good, and what nobody listens to then is lost.)
pub(super) struct Detour {
    signals: SignalFd,
    before: SigSet,
}

impl Detour {
    pub(super) fn new() -> Result<Self> {
        let mut all = SigSet::empty();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            all.add(signal);
        }
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&all, flags).map_err(Error::failed)?;
        let before = all
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .map_err(Error::failed)?;
        Ok(Self { signals, before })
    }

    /// The next time that somebody wants the command to end.
    pub(super) async fn next(&self) {
        while !matches!(self.signals.read_signal(), Ok(Some(_))) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        // It fails for no mask that was one.
        let _: nix::Result<()> = self.before.thread_set_mask();
    }
}

/// Who wants the command to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Whoever sent a signal.
    Signal,
    /// Its terminal has gone: told by the shell, by the kernel and by whoever ends the session, one after the other and
    /// with SIGTERM in between. Nobody is there to ask a second time.
    Hangup,
    /// The Docker client: somebody has told it, or it is gone.
    Client,
}

/// What was heard so far.
#[derive(Debug, Default)]
struct Heard(Option<(By, Instant)>);

impl Heard {
    /// Whether this is not what was heard already on the other way.
    fn is_new(&mut self, by: By, now: Instant) -> bool {
        let is_new = match (self.0, by) {
            (Some(_), By::Client | By::Hangup) => return false,
            (Some((By::Hangup, _)), By::Signal) => false,
            (Some((By::Client, then)), By::Signal) => now.duration_since(then) > SAME,
            (None, _) | (Some((By::Signal, _)), By::Signal) => true,
        };
        self.0 = Some((by, now));
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these are heard, each a while after the one before.
    fn heard(all: &[By], pause: Duration) -> Vec<bool> {
        let (mut heard, mut now) = (Heard::default(), Instant::now());
        let mut is_new = |by| {
            now += pause;
            heard.is_new(by, now)
        };
        all.iter().map(|by| is_new(*by)).collect()
    }

    #[test]
    fn one_action_counts_once_on_whatever_ways_it_arrives() {
        use By::{Client, Signal};
        let at_once = Duration::from_millis(1);
        assert_eq!(heard(&[Client], at_once), [true]);
        assert_eq!(heard(&[Signal, Client], at_once), [true, false]);
        assert_eq!(heard(&[Client, Signal], at_once), [true, false]);
    }

    #[test]
    fn the_end_of_a_session_counts_once() {
        use By::{Hangup, Signal};
        for pause in [Duration::from_millis(1), 2 * SAME] {
            assert_eq!(heard(&[Hangup, Hangup], pause), [true, false]);
            assert_eq!(heard(&[Signal, Hangup], pause), [true, false]);
            assert_eq!(
                heard(&[Hangup, Signal, Hangup], pause),
                [true, false, false]
            );
            assert_eq!(heard(&[Hangup, Signal, Signal], pause), [true, false, true]);
            assert_eq!(heard(&[Signal, Hangup, Signal], pause), [true, false, true]);
        }
    }

    #[test]
    fn the_second_action_counts() {
        use By::{Client, Signal};
        let at_once = Duration::from_millis(1);
        assert_eq!(
            heard(&[Signal, Client, Signal], at_once),
            [true, false, true]
        );
        assert_eq!(
            heard(&[Client, Signal, Signal], at_once),
            [true, false, true]
        );
        assert_eq!(heard(&[Signal, Signal], at_once), [true, true]);
        assert_eq!(heard(&[Client, Signal], 2 * SAME), [true, true]);
    }
}
