//! How a supervisor is started, by a command and by whoever else may have to.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::BackendError;
use super::dirs::{Dirs, ProjectDir, failed};
use super::run;

/// The longest supervisor log that is kept, in bytes.
const LONGEST_LOG: u64 = 1024 * 1024;

/// In the environment of a supervisor that no command started: how many such there were in succession.
pub const REVIVED: &str = "WHARF_REVIVED";

/// The command that becomes a project's supervisor, with its log as standard error. Its standard input is to be
/// the project's start lock, its standard output where [`super::READY`] or the reason why not is awaited.
pub fn supervisor(binary: &Path, dirs: &Dirs, dir: &ProjectDir) -> Result<Command, BackendError> {
    let path = dir.supervisor_log();
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| failed("open", &path, error))?;
    if log.metadata().is_ok_and(|log| log.len() > LONGEST_LOG) {
        drop::<io::Result<()>>(log.set_len(0));
    }
    let mut command = Command::new(binary);
    command
        .arg0("wharf")
        .arg("supervise")
        .args(["--project", dir.name()])
        .arg("--state-dir")
        .arg(dirs.state())
        .arg("--runtime-dir")
        .arg(dirs.runtime())
        .env_remove(run::RUN_ID)
        .stderr(log);
    Ok(command)
}
