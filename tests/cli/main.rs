//! What a user sees: the wharf binary on real ports, processes and containers. One module for each
//! subject.

#[path = "../support/mod.rs"]
mod support;

mod harness;
