//! KEEPING IT TRUE: the detached supervisor of a project's local processes.
//!
//! One for each project that has any, started by the first command that needs it, gone by itself when
//! nothing is alive and nobody is connected. It is the parent of the processes, moves their output into
//! their logs, restarts them by their policy, checks their health and ends them on request.
//!
//! Theory of operation: one thread, one `poll(2)` over everything that can happen (signals, clients, output,
//! ends of processes), no timer but the nearest deadline. It may be killed at any moment: whatever must
//! outlive it is in the kernel (named pipes that the processes hold open themselves, locks that vanish with
//! their owner) or in the ledger, and its successor goes on from there. So it needs neither an orderly exit
//! nor a watchdog.
//!
//! One thing does end with it: what a process has written and nobody has read is in its pipe, and a pipe
//! lasts as long as somebody holds it open. If the supervisor is killed and then the process ends before any
//! command looks at the project, the output between the two is lost, and so is the exit code.
//!
//! What it must not do: decide what should run (the plan does), or use an asynchronous runtime (it must
//! stay small).

mod capture;
mod control;
pub mod daemon;
mod health;
pub mod lifecycle;
mod supervisor;
mod unit;
