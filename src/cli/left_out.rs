//! Commands of Docker Compose that wharf leaves out on purpose: they answer with one line.

use std::ffi::OsString;

use crate::error::{Error, Result};

/// Left out on purpose
#[derive(Debug, clap::Args)]
#[command(hide = true, disable_help_flag = true)]
pub(super) struct Args {
    /// Whatever is asked
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<OsString>,
}

/// Fails with what to use in place of the command.
///
/// # Errors
/// Always.
pub(super) fn refuse(command: &str, instead: &str) -> Result<()> {
    Err(Error::failed(format!(
        "`{command}` is left out of wharf on purpose: {instead}"
    )))
}
