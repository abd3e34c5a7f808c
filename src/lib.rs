//! wharf runs a development stack from a compose file: every service as a container or as a local
//! process, in one dependency graph.
//!
//! # The pipeline
//!
//! ```text
//! project    text → project                 pure
//! observe    engine, ledger, sockets → state
//! plan       project + state + policy → plan, or questions      pure
//! execute    plan → effects, by the backends
//! supervise  keeps processes as they should be
//! ```
//!
//! The modules, in the order data flows: [`project`] loads, [`backend`] and [`port`] observe into
//! [`state`], [`plan`] decides, [`execute`] does, and what happens reaches the screen ([`ui`]) as
//! [`event`]s. [`error`] is the boundary where a module's error becomes an exit code and a hint.

pub mod backend;
pub mod cli;
pub mod doctor;
pub mod error;
pub mod event;
pub mod execute;
pub mod forward;
pub mod naming;
pub mod observe;
pub mod plan;
pub mod port;
pub mod probe;
pub mod project;
pub mod relay;
pub mod server;
pub mod state;
pub mod supervise;
pub mod ui;
pub mod users;
pub mod watch;
