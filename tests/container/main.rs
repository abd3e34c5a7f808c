//! The container backend on a real engine: steps in, facts out.
//!
//! What the backend did is looked up with the `docker` command, so that no test asks the code that it
//! tests.

mod engine;
mod lifecycle;
