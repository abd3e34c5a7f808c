//! Reads files of the state and of users that may be something else by now: a pipe would be waited for without an end.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file.
///
/// # Errors
/// `InvalidData` where it is something else.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no regular file",
        ))
    }
}

/// Reads one as a whole.
///
/// # Errors
/// As `open`.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn nothing_but_a_regular_file_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("it");
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, "text").unwrap();
        assert_eq!(read(&path).unwrap(), b"text");
        for make in [
            |path: &Path| nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap(),
            |path: &Path| std::fs::create_dir(path).unwrap(),
        ] {
            let path = tempfile::tempdir_in(root.path()).unwrap().path().join("it");
            std::fs::create_dir(path.parent().unwrap()).unwrap();
            make(&path);
            assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
