//! A process held so that its number cannot come to mean another one: what every signal goes through.
//!
//! Linux has pidfds; other systems have nothing of the kind yet, so there nothing can be taken hold of
//! and nothing is signalled.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

#[cfg(target_os = "linux")]
pub(super) use linux::Handle;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Handle;
