//! What is on the disk of the paths that changed during a build. Reads only.

use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::files::{Found, Told};
use super::own::Touched;

/// How much is read at most after a build to compare contents, in bytes.
const READ: u64 = 128 * 1024 * 1024;

/// What is to be known of paths that changed while something was built.
pub fn touched(found: Found) -> Vec<Touched> {
    let mut room = READ;
    let look = |(path, told): (PathBuf, Told)| {
        let data = fs::symlink_metadata(&path).ok();
        let is_file = data
            .as_ref()
            .is_some_and(|data| data.is_file() && data.len() <= room);
        let mut contents = None;
        if is_file && let Ok((length, hash)) = hash(&path) {
            room = room.saturating_sub(length);
            contents = Some(hash);
        }
        Touched {
            was_there: !told.is_new,
            is_directory: told.is_directory,
            is_there: data.is_some(),
            contents,
            path,
        }
    };
    found.into_iter().map(look).collect()
}

/// Length and hash of a file's contents.
fn hash(path: &Path) -> io::Result<(u64, u64)> {
    let mut hasher = DefaultHasher::new();
    let mut length = 0;
    // It may grow while it is read.
    let mut file = fs::File::open(path)?.take(READ);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            hasher.write_u64(length);
            return Ok((length, hasher.finish()));
        }
        hasher.write(&buffer[..read]);
        length += read as u64;
    }
}
