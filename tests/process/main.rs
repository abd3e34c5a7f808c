//! The process backend on real children, one behaviour a file.

mod stage;

mod output;
