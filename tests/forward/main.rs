//! Names to services, for real: forwarder and relays as processes, each relay in a network namespace of its own
//! as in a container, and an engine that says what a test wants it to.

#[cfg(test)]
mod engine;
#[cfg(test)]
#[path = "../support/groups.rs"]
mod groups;
#[cfg(test)]
mod stage;

mod alone;
mod containers;
mod lifecycle;
mod reaching;
