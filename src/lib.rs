//! wharf runs a development stack from a compose file: every service as a container or as a local
//! process, in one dependency graph.
//!
//! The modules, in the order data flows: [`project`] loads, [`backend`] and [`port`] observe into
//! [`state`], [`plan`] decides, `execute` does, `supervise` keeps.

pub mod backend;
pub mod event;
pub mod plan;
pub mod port;
pub mod probe;
pub mod project;
pub mod server;
pub mod state;
pub mod supervise;
