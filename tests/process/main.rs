//! The process backend on real children, one behaviour a file.

#[cfg(test)]
mod stage;

mod adoption;
mod command;
mod crash;
mod ending;
mod follow;
mod health;
mod output;
mod readiness;
mod restart;
mod supervisor;
