//! The harness of the scenario tests: what a test needs to run wharf on real state and to look at
//! that state.
//!
//! - [`Sandbox`]: a project directory with homes of its own; runs `wharf` and anything else, and
//!   checks at its end that nothing was left behind.
//! - [`running::Running`]: a program in the foreground; waits for lines of its output.
//! - [`terminal::Terminal`]: a program on a terminal; reads the screen, types answers.
//! - [`Process`]: one process for good, by pidfd.
//! - [`require_engine!`](require_engine): the Docker Engine, or the test ends with a printed
//!   reason.
//! - [`websocket`]: a client for the servers under test.
//!
//! Nothing here sleeps for a fixed time: a test waits for a fact ([`eventually`]) or for an event,
//! and every wait ends after [`LIMIT`] with a message that says what did not happen. Tests assert
//! facts, never durations.
//!
//! There is one test crate that uses the harness, `tests/cli`; a new file of scenarios is a module
//! of it. Several crates would each call the parts that they do not use dead code.

pub(crate) mod engine;
pub(crate) mod own_engine;
pub(crate) mod process;
pub(crate) mod running;
pub(crate) mod sandbox;
pub(crate) mod terminal;
pub(crate) mod websocket;

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub(crate) use engine::{Engine, require_engine};
pub(crate) use process::Process;
pub(crate) use sandbox::{Sandbox, python, ws_server};

/// The bound of every wait. Reaching it is a failure, so it is far above what a loaded machine
/// needs.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// Waits until `check` returns a value, asking about fifty times a second: for facts that announce
/// themselves by no event. `what` ends the sentence "never happened: …".
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A TCP port that is free on every address of this machine.
///
/// It lies below the range from which the kernel serves outgoing connections, so that none of those
/// takes it between this call and its use; tests that run at the same time search from different
/// starting points.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id().wrapping_mul(61) % u32::from(COUNT)).unwrap();
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|port| is_free(*port))
        .expect("a free port")
}

/// Whether nobody listens on a TCP port, on any address.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        && TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).map_or_else(
            |error| error.kind() != std::io::ErrorKind::AddrInUse,
            |_| true,
        )
}
