//! `develop.watch`: which files changed, and what that asks for.
//!
//! ```text
//! files   the disk → paths that changed, with inotify, stamps and way: the only part that does I/O, with contents
//! batch   paths + time → all that changed in one go        pure
//! own     paths that changed during builds → whose they are          pure
//! gitignore   the text of .gitignore → what Git leaves out          pure
//! rules   triggers + paths → work: rebuild, sync, restart  pure
//! pace    starts + time → which are put off               pure
//! ```
//!
//! `cli::watch` carries the work out. Nothing here knows an engine or a process.

pub mod batch;
pub mod contents;
pub mod files;
mod gitignore;
mod inotify;
pub mod own;
pub mod pace;
pub mod rules;
mod stamps;
mod way;
