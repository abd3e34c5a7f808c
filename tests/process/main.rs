//! The process backend on real children, one behaviour a file.

#[cfg(test)]
#[path = "../support/groups.rs"]
mod groups;
#[cfg(test)]
mod stage;

mod adoption;
mod attributes;
mod command;
mod crash;
mod damage;
mod descriptors;
mod ending;
mod follow;
mod group;
mod health;
mod hooks;
mod leaderless;
mod logs;
mod output;
mod readiness;
mod remains;
mod restart;
mod rotation;
mod soak;
mod supervisor;
mod terminal;
