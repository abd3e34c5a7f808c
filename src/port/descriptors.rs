//! From socket inodes to the processes that have them open: a scan of `/proc/PID/fd`.
//!
//! The costly step of a look-up, so callers narrow it to the pids of a cgroup where they can. It reads
//! links only.

use std::ffi::CStr;

use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat_raw};

use crate::port::process;

/// Which processes hold which inode, and whether all could be looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    /// (inode, pid), each pair once, pids ascending.
    pub(crate) pairs: Vec<(u64, u32)>,
    /// How many processes would not show their descriptors.
    pub(crate) denied: usize,
}

/// The processes that have one of the sockets open: all who do, among `among` or on this system.
/// Ascending; processes that we may not look into are not among them.
pub fn pids_holding(inodes: &[u64], among: Option<&[u32]>) -> Vec<u32> {
    let mut pids: Vec<u32> = holding(inodes, among)
        .pairs
        .into_iter()
        .map(|(_, pid)| pid)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

pub(crate) fn holding(inodes: &[u64], among: Option<&[u32]>) -> Holding {
    let mut found = Holding::default();
    if inodes.is_empty() {
        return found;
    }
    let all;
    let pids = if let Some(pids) = among {
        pids
    } else {
        all = process::pids();
        &all
    };
    let share = pids.len().div_ceil(threads(pids.len())).max(1);
    std::thread::scope(|scope| {
        let (mine, others) = pids.split_at(share.min(pids.len()));
        let others: Vec<_> = others
            .chunks(share)
            .map(|pids| scope.spawn(move || look_into(pids, inodes)))
            .collect();
        let mut parts = vec![look_into(mine, inodes)];
        // A thread that panicked has found nothing.
        parts.extend(others.into_iter().filter_map(|thread| thread.join().ok()));
        for part in parts {
            found.pairs.extend(part.pairs);
            found.denied += part.denied;
        }
    });
    found
}

/// How many threads are worth their while: the kernel takes microseconds for each descriptor, and a busy
/// machine has ten thousands of them.
fn threads(processes: usize) -> usize {
    const WORTH: usize = 64;
    const MOST: usize = 8;
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processes / WORTH).clamp(1, available.min(MOST))
}

fn look_into(pids: &[u32], inodes: &[u64]) -> Holding {
    let mut found = Holding::default();
    for pid in pids {
        match open_descriptors(*pid) {
            Ok(directory) => scan(*pid, &directory, inodes, &mut found.pairs),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => found.denied += 1,
            // Gone, or a kernel thread.
            Err(_) => {}
        }
    }
    found
}

fn open_descriptors(pid: u32) -> rustix::io::Result<OwnedFd> {
    openat(
        CWD,
        format!("/proc/{pid}/fd"),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn scan(pid: u32, directory: &OwnedFd, inodes: &[u64], pairs: &mut Vec<(u64, u32)>) {
    let Ok(entries) = Dir::read_from(directory) else {
        return;
    };
    let first = pairs.len();
    for entry in entries {
        let Ok(entry) = entry else { break };
        let Some(inode) = socket_inode(directory, entry.file_name()) else {
            continue;
        };
        let pair = (inode, pid);
        if inodes.contains(&inode) && !pairs.get(first..).unwrap_or_default().contains(&pair) {
            pairs.push(pair);
        }
    }
}

/// `socket:[INODE]`, as `proc_pid_fd(5)` spells it.
fn socket_inode(directory: &OwnedFd, name: &CStr) -> Option<u64> {
    // Not the directory's own entries, `.` and `..`.
    if !name.to_bytes().first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let mut buffer = [0_u8; 40];
    let length = readlinkat_raw(directory.as_fd(), name, &mut buffer).ok()?;
    let target = buffer.get(..length)?;
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
