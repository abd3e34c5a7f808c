//! The links of `/proc/PID/fd`: which sockets a process has open, and under which descriptors.

use std::ffi::{CStr, CString};
use std::path::Path;

use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat_raw};
use rustix::io::Errno;

/// An open file that is one of the sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Met {
    pub(crate) inode: u64,
    pub(super) pid: u32,
    pub(super) descriptor: u32,
}

/// How far the links of a process were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    Complete,
    /// What was looked for was found elsewhere.
    Abandoned,
    Denied,
}

impl Met {
    /// Whether it is still what it was.
    pub(crate) fn lasts(&self) -> bool {
        let Ok(directory) = open_directory(&format!("/proc/{}/fd", self.pid)) else {
            return false;
        };
        let name = CString::new(self.descriptor.to_string()).unwrap_or_default();
        socket_inode(&directory, &name) == Ok(Some(self.inode))
    }
}

/// Reads the links of one process until `enough` says so; appends each inode that is among `inodes` once.
pub(super) fn read_links(
    pid: u32,
    inodes: &[u64],
    met: &mut Vec<Met>,
    enough: &dyn Fn() -> bool,
) -> Scan {
    match open_directory(&format!("/proc/{pid}/fd")) {
        Ok(directory) => {
            let (scan, entries) = read_directory(pid, &directory, inodes, met, enough);
            if entries == 0 {
                read_threads(pid, inodes, met);
            }
            scan
        }
        Err(Errno::ACCESS | Errno::PERM) => Scan::Denied,
        // Gone.
        Err(_) => Scan::Complete,
    }
}

/// The first thread has no files any more; the others may have ended with it, or not.
fn read_threads(pid: u32, inodes: &[u64], met: &mut Vec<Met>) {
    let tasks = format!("/proc/{pid}/task");
    for entry in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
        let directory = entry.path().join("fd");
        if let Some(directory) = directory
            .to_str()
            .and_then(|path| open_directory(path).ok())
        {
            let (_, entries) = read_directory(pid, &directory, inodes, met, &|| false);
            if entries > 0 {
                // They share one table.
                return;
            }
        }
    }
}

fn open_directory(path: &str) -> rustix::io::Result<OwnedFd> {
    openat(
        CWD,
        Path::new(path),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// How far it came, and how many descriptors there were.
fn read_directory(
    pid: u32,
    directory: &OwnedFd,
    inodes: &[u64],
    met: &mut Vec<Met>,
    enough: &dyn Fn() -> bool,
) -> (Scan, usize) {
    /// So many links are read between two questions whether it is enough.
    const STRIDE: usize = 32;
    let Ok(entries) = Dir::read_from(directory) else {
        return (Scan::Complete, 0);
    };
    let first = met.len();
    let mut count = 0;
    for entry in entries {
        let Ok(entry) = entry else { break };
        let Some(descriptor) = number(entry.file_name()) else {
            continue;
        };
        count += 1;
        if count % STRIDE == 0 && enough() {
            return (Scan::Abandoned, count);
        }
        let inode = match socket_inode(directory, entry.file_name()) {
            Ok(Some(inode)) => inode,
            // A process may list its descriptors and keep to itself what they are.
            Err(Errno::ACCESS | Errno::PERM) => return (Scan::Denied, count),
            Ok(None) | Err(_) => continue,
        };
        let is_new = |met: &[Met]| !met.iter().skip(first).any(|one| one.inode == inode);
        if inodes.contains(&inode) && is_new(met) {
            met.push(Met {
                inode,
                pid,
                descriptor,
            });
        }
    }
    (Scan::Complete, count)
}

/// The descriptor that an entry stands for; not the directory's own entries, `.` and `..`.
fn number(name: &CStr) -> Option<u32> {
    name.to_str().ok()?.parse().ok()
}

/// `socket:[INODE]`, as `proc_pid_fd(5)` spells it; `None` for any other file.
fn socket_inode(directory: &OwnedFd, name: &CStr) -> rustix::io::Result<Option<u64>> {
    let mut buffer = [0_u8; 40];
    let length = readlinkat_raw(directory.as_fd(), name, &mut buffer)?;
    let digits = buffer
        .get(..length)
        .and_then(|target| target.strip_prefix(b"socket:[")?.strip_suffix(b"]"));
    Ok(digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok()))
}

/// The open descriptors of a process from this one up, as `/proc/PID/fd` lists them; its position is the
/// descriptor and two for `.` and `..`.
pub(super) fn descriptors_from(pid: u32, first: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let Ok(directory) = open_directory(&format!("/proc/{pid}/fd")) else {
        return found;
    };
    let Ok(mut entries) = Dir::new(directory) else {
        return found;
    };
    if entries.seek(i64::from(first) + 2).is_ok() {
        for entry in entries.map_while(Result::ok) {
            found.extend(number(entry.file_name()));
        }
    }
    found
}
