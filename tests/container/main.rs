//! The container backend on a real engine: steps in, facts out.
//!
//! What the backend did is looked up with the `docker` command, so that no test asks the code that it
//! tests.

// `cfg(test)` always holds here; it tells clippy that these modules may panic and print as tests do.
#[cfg(test)]
mod build;
#[cfg(test)]
mod buildkit;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod connect;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod interop;
#[cfg(test)]
mod interrupted;
mod lifecycle;
#[cfg(test)]
mod output;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod recreate;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod relay_image;
#[cfg(test)]
mod relay_stream;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod turns;
#[cfg(test)]
mod vanished;
#[cfg(test)]
mod waiting;
