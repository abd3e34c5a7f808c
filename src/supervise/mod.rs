//! KEEPING IT TRUE: the detached supervisor of a project's local processes.
//!
//! One for each project that has any, started by the first command that needs it, gone by itself when
//! nothing is alive and nobody is connected. It starts the processes, restarts them by their policy, checks
//! their health and ends them on request.
//!
//! Theory of operation: one thread, one `poll(2)` over everything that can happen (signals, clients,
//! notes of keepers, ends of processes), no timer but the nearest deadline. It may be killed at any moment: whatever must
//! outlive it is in the kernel (named pipes that the processes hold open themselves, locks that vanish with
//! their owner) or in the ledger, and its successor goes on from there. So it needs neither an orderly exit
//! nor a watchdog.
//!
//! Every run has a keeper, a tiny process that is the parent of the run's processes, moves their output into
//! the log and notes their end. It outlives the supervisor, so neither output nor exit codes are lost with
//! it. Should the keeper be killed, the supervisor records in its place; only if both are gone before a
//! process ends does its exit code remain unknown.
//!
//! What it must not do: decide what should run (the plan does), or use an asynchronous runtime (it must
//! stay small).

mod again;
mod apart;
mod capture;
mod control;
mod copying;
pub mod daemon;
mod health;
mod keeper;
pub mod lifecycle;
mod revival;
mod starting;
mod supervisor;
mod torn;
mod unit;
