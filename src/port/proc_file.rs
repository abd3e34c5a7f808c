//! Files of `/proc` and of cgroups, which claim to be empty: each is read whole with as few calls as it takes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Most of these files are shorter; a page is also what the kernel hands out at once.
const USUAL: usize = 4096;

/// All of a file.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::with_capacity(USUAL);
    // Not of the file itself, which would be asked for a size that it does not know.
    file.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All of a file that is text.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
