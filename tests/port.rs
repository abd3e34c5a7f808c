//! Who holds a port, and how it is released: on real sockets and real processes.

#[cfg(test)]
#[path = "port/mod.rs"]
mod port;
