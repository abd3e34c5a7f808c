//! Keys under `up` on a terminal: `d` detaches, `w` switches watching on and off.
//!
//! The terminal keeps its own meaning of Ctrl-C and Ctrl-Z; only lines and the echo are switched off while
//! keys are taken. Nothing is drawn: one line says which keys there are.

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::ui::{DIM, NAME};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Return, and leave everything running.
    Detach,
    /// Watch, or stop watching.
    Watch,
}

/// How long the keyboard is listened to before it is asked whether anybody still wants to know.
const LISTENING: Duration = Duration::from_millis(250);

/// The keyboard, while keys are taken from it one by one.
#[derive(Debug)]
pub(super) struct Keys {
    receiver: UnboundedReceiver<Key>,
    before: Termios,
}

impl Keys {
    /// Takes the keyboard; `None` where there is none, or it is not ours to take.
    pub(super) fn take() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() || !in_front() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut now = before.clone();
        now.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &now).ok()?;
        let (sender, receiver) = unbounded_channel();
        // A thread of its own: a read that nobody answers must not keep the command from ending.
        let reading = std::thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || {
                while !sender.is_closed() {
                    match read() {
                        Some(b'd') => drop(sender.send(Key::Detach)),
                        Some(b'w') => drop(sender.send(Key::Watch)),
                        Some(_) | None => {}
                    }
                }
            });
        let keys = Self { receiver, before };
        reading.is_ok().then_some(keys)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let stdin = std::io::stdin();
        let _: rustix::io::Result<()> = tcsetattr(stdin, OptionalActions::Now, &self.before);
    }
}

/// The next key; never one where no keys are taken.
pub(super) async fn next(keys: &mut Option<Keys>) -> Option<Key> {
    match keys {
        Some(keys) => keys.receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// Which keys there are.
pub(super) fn line(watchable: bool) -> String {
    let watch = if watchable {
        format!("   {NAME}w{NAME:#} {DIM}watch{DIM:#}")
    } else {
        String::new()
    };
    format!("{NAME}d{NAME:#} {DIM}detach{DIM:#}{watch}   {NAME}Ctrl-C{NAME:#} {DIM}stop{DIM:#}")
}

/// One byte from the keyboard, if one comes soon.
fn read() -> Option<u8> {
    let stdin = std::io::stdin();
    let mut ready = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
    let limit = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(LISTENING.subsec_nanos()),
    };
    let came = poll(&mut ready, Some(&limit)).is_ok_and(|count| count > 0);
    // Reading from the background would stop the whole process.
    if !came || !in_front() {
        if came {
            std::thread::sleep(LISTENING);
        }
        return None;
    }
    let mut byte = [0];
    if let Ok(1) = rustix::io::read(stdin.as_fd(), &mut byte) {
        return Some(byte[0]);
    }
    // The terminal is gone: there is nothing to read, for ever.
    std::thread::sleep(LISTENING);
    None
}

/// Whether this process is the one that the terminal's keys are for.
fn in_front() -> bool {
    tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}
