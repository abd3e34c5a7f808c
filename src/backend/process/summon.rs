//! How a supervisor is started, by a command and by whoever else may have to; and what one leaves that is killed.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use super::dirs::{Dirs, ProjectDir, failed};
use super::{BackendError, Processes, lock, names, run, socket};

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

impl Processes {
    /// Takes away card and socket of a supervisor that was killed, of a project that has no instances any more.
    pub fn forget_supervisor(&self, project: &str) {
        if let Ok(dir) = self.dirs().project(project)
            && names(&dir).is_ok_and(|names| names.is_empty())
        {
            clear(&dir);
        }
    }
}

/// What is left where nobody is and nobody is coming up. The socket may be another ledger's, whose supervisor lives.
fn clear(dir: &ProjectDir) {
    let left = [dir.supervisor_card(), dir.socket()];
    if !left.iter().any(|path| path.exists()) {
        return;
    }
    let Ok(start) = lock::open(&dir.start_lock()) else {
        return;
    };
    let is_ours = flock(&start, FlockOperation::NonBlockingLockExclusive).is_ok();
    if !is_ours || lock::is_held(&dir.supervisor_lock()) {
        return;
    }
    let [card, place] = left;
    // Best effort: the next supervisor does the same.
    drop(fs::remove_file(card));
    let met = socket::reach(&place, UnixStream::connect);
    if met.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        drop(fs::remove_file(place));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_a_killed_supervisor_left_goes_and_what_a_living_one_has_stays() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path().join("s"), root.path().join("r"));
        let dir = dirs.project("p").unwrap();
        dir.create().unwrap();
        let there = || [dir.supervisor_card().exists(), dir.socket().exists()];
        let listener = UnixListener::bind(dir.socket()).unwrap();
        let supervisor = lock::open(&dir.supervisor_lock()).unwrap();
        flock(&supervisor, FlockOperation::NonBlockingLockExclusive).unwrap();
        fs::write(dir.supervisor_card(), "").unwrap();
        clear(&dir);
        assert_eq!(there(), [true, true]);
        // Another ledger's supervisor listens at the same place.
        drop(supervisor);
        clear(&dir);
        assert_eq!(there(), [false, true]);
        // One is coming up.
        drop(listener);
        let start = lock::open(&dir.start_lock()).unwrap();
        flock(&start, FlockOperation::NonBlockingLockExclusive).unwrap();
        clear(&dir);
        assert_eq!(there(), [false, true]);
        drop(start);
        clear(&dir);
        assert_eq!(there(), [false, false]);
    }
}
