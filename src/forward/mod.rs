//! NAMES TO SERVICES: the process that carries connections between the names of a project and its services,
//! whichever form those have.

mod reach;
mod socket;
pub mod stream;
