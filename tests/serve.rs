//! The embedded server, over real sockets, with real commands; and the probe against it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "serve/client.rs"]
mod client;
#[path = "serve/execute.rs"]
mod execute;
#[path = "serve/methods.rs"]
mod methods;
#[path = "serve/probe.rs"]
mod probe;
#[path = "serve/shutdown.rs"]
mod shutdown;
#[path = "serve/upgrade.rs"]
mod upgrade;
