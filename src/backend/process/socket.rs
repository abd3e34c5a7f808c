//! Unix sockets at paths of any length. An address holds 107 bytes (`unix(7)`), a path in a user's directory
//! may be longer; such a socket is reached through a descriptor of its directory. Both sides use it.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The most bytes of a path that fit into `sun_path` with its terminating NUL.
const LONGEST: usize = 107;

/// Calls `open` with a path that means `path` and fits into a socket address.
pub(crate) fn reach<T>(path: &Path, open: impl FnOnce(PathBuf) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= LONGEST {
        return open(path.to_owned());
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return open(path.to_owned());
    };
    let directory = std::fs::File::open(parent)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    // The directory stays open until the address has been used.
    let opened = open(short);
    drop(directory);
    opened
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_path_longer_than_an_address_works() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("p.sock");
        let listener = reach(&path, UnixListener::bind).unwrap();
        let _client = reach(&path, UnixStream::connect).unwrap();
        assert!(listener.accept().is_ok());
        assert!(path.exists());
    }
}
