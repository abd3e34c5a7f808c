//! What a user sees: the wharf binary on real ports, processes and containers. One module for each
//! subject.

// Always true here; it tells clippy that the harness, too, may panic and print as tests do.
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;

#[cfg(test)]
mod engine_double;

mod away;
mod conflicts;
mod containers;
mod doctor;
mod dropin;
mod engine_killed;
mod errors;
mod escapees;
mod exposed;
mod flags;
mod foreground;
mod graph;
mod harness;
mod health;
mod holders;
#[cfg(test)]
mod images;
mod lifecycle;
mod lists;
mod lost;
#[cfg(test)]
mod managed;
mod mixed;
mod named;
mod newcomers;
#[cfg(test)]
mod ordinary;
mod paths;
mod ports;
mod pre_start;
mod processes;
mod providers;
mod realms;
mod refused;
mod revival;
mod server;
mod state;
mod terminal;
mod turns;
mod values;
mod watch;
