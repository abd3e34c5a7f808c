//! What cannot be moved on into a log by the kernel is copied: a terminal's output, and all where the system or the
//! log's file system moves nothing. Whoever is killed between reading and writing loses what it has read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

/// Whether it is not for the moment that nothing can be moved: a sandbox may not know the call, or not permit it, and a
/// file system may not take part (`splice(2)`, EINVAL).
pub(super) fn is_refusal(error: Errno) -> bool {
    matches!(
        error,
        Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP
    )
}

/// Copies at most so much of what a terminal shows, or of what is in a pipe, to the end of a log; what a full disk
/// refuses is kept and tried again. As much as there is at once, so that the order of two streams is kept as well as
/// where it is moved.
pub(super) fn copy(
    from: &mut File,
    pending: &mut Vec<u8>,
    log: &File,
    length: u64,
    most: usize,
) -> io::Result<usize> {
    let mut copied = 0;
    while copied < most {
        let end = length + copied as u64;
        let moved =
            fill(pending, from, most - copied).and_then(|()| log.write_all_at(pending, end));
        match moved {
            Ok(()) if !pending.is_empty() => {
                copied += pending.len();
                pending.clear();
            }
            Err(error) if copied == 0 => return Err(error),
            // It is the same the next time.
            _ => break,
        }
    }
    Ok(copied)
}

/// Reads one piece, unless one waits. A terminal whose last user has closed it has ended. Apart, since few need the
/// room that it takes.
#[inline(never)]
fn fill(pending: &mut Vec<u8>, from: &mut File, most: usize) -> io::Result<()> {
    if !pending.is_empty() {
        return Ok(());
    }
    let mut buffer = [0; 16 * 1024];
    let most = most.min(buffer.len());
    let count = match from.read(&mut buffer[..most]) {
        Ok(count) => count,
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => 0,
        Err(error) => return Err(error),
    };
    pending.extend_from_slice(buffer.get(..count).unwrap_or_default());
    Ok(())
}
