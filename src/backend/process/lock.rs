//! File locks (`flock(2)`) that a command may have to wait for. The kernel releases them when their holder
//! ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Opens the file of a lock, which is made if it is missing; what it says is left alone.
///
/// # Errors
/// It cannot be opened or made.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Takes the lock of a file, which is made if it is missing. Calls `held` once if somebody else has it, and
/// waits.
pub(super) async fn exclusive(path: &Path, held: impl FnOnce()) -> io::Result<File> {
    let file = open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(file),
        Err(Errno::WOULDBLOCK) => held(),
        Err(error) => return Err(error.into()),
    }
    // A thread of its own: one of the runtime's would keep an interrupted command from ending.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("lock".to_owned())
        .spawn(move || {
            let outcome = flock(&file, FlockOperation::LockExclusive);
            // Nobody waits any more when the command was interrupted; the lock goes with the file.
            drop(sender.send(outcome.map(|()| file)));
        })?;
    receiver
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::from)
}

/// Whether a file that is open is still the one at its path.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |facts: std::fs::Metadata| (facts.dev(), facts.ino());
    let ours = file.metadata().map(identity);
    let there = std::fs::metadata(path).map(identity);
    matches!((ours, there), (Ok(ours), Ok(there)) if ours == there)
}

/// Whether somebody has the lock of a file; nobody has one that is not there.
pub(super) fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn thesecond_waits_for_the_first_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("lock");
        let first = exclusive(&path, || panic!("nobody has it")).await.unwrap();
        let mut told = false;
        let mut first = Some(first);
        let second = exclusive(&path, || {
            told = true;
            drop(first.take());
        })
        .await
        .unwrap();
        assert!(told);
        assert!(is_held(&path));
        assert!(is_at(&second, &path));
        std::fs::rename(&path, root.path().join("aside")).unwrap();
        assert!(!is_at(&second, &path));
        std::fs::rename(root.path().join("aside"), &path).unwrap();
        drop(second);
        assert!(!is_held(&path));
    }
}
