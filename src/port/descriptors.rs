//! From socket inodes to the processes that have them open: a scan of `/proc/PID/fd`.
//!
//! The costly step of a look-up, so callers narrow it to the pids of a cgroup where they can. Where they
//! cannot, links are read only until each socket has been met once, the processes with few descriptors first;
//! from then on the kernel compares open files, which costs it a fifth of a link. Changes nothing.

use std::ffi::CStr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, readlinkat_raw, statat};
use rustix::io::Errno;

use crate::port::{compare, process};

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
    if inodes.is_empty() {
        return Holding::default();
    }
    let all;
    let pids = if let Some(pids) = among {
        pids
    } else {
        all = process::pids();
        &all
    };
    let mut found = if inodes.len() <= MOST_COMPARED && pids.len() >= WORTH && compare::works() {
        by_comparison(pids, inodes)
    } else {
        by_links(pids, inodes)
    };
    found.pairs.sort_unstable_by_key(|(_, pid)| *pid);
    found
}

/// With more sockets than this, comparing each costs more than reading a link.
const MOST_COMPARED: usize = 4;

/// So many processes make it worth while to order them, and to have another thread.
const WORTH: usize = 64;

/// How many threads are worth their while: the kernel takes a microsecond or more for each descriptor, and a
/// busy machine has ten thousands of them.
fn threads(processes: usize) -> usize {
    const MOST: usize = 8;
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processes / WORTH).clamp(1, available.min(MOST))
}

/// Does `work` on as many threads as `processes` are worth, this one included.
fn on_threads<T: Send>(processes: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads(processes))
            .map(|_| scope.spawn(&work))
            .collect();
        let mut results = vec![work()];
        // A thread that panicked has found nothing.
        results.extend(others.into_iter().filter_map(|thread| thread.join().ok()));
        results
    })
}

/// Reads all links of all processes.
fn by_links(pids: &[u32], inodes: &[u64]) -> Holding {
    let next = AtomicUsize::new(0);
    let parts = on_threads(pids.len(), || {
        let mut part = Holding::default();
        while let Some(pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut found = Vec::new();
            match read_links(*pid, inodes, &mut found, &|| false) {
                Scan::Denied => part.denied += 1,
                Scan::Complete | Scan::Abandoned => {}
            }
            part.pairs
                .extend(found.into_iter().map(|met| (met.inode, *pid)));
        }
        part
    });
    joined(parts)
}

fn joined(parts: Vec<Holding>) -> Holding {
    let mut all = Holding::default();
    for part in parts {
        all.pairs.extend(part.pairs);
        all.denied += part.denied;
    }
    all
}

/// An open file that is one of the sockets.
#[derive(Clone, Copy, Debug)]
struct Met {
    inode: u64,
    pid: u32,
    descriptor: u32,
}

/// How far the links of a process were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    Complete,
    /// What was looked for was found elsewhere.
    Abandoned,
    Denied,
}

/// A process and how many files it has open.
struct Candidate {
    pid: u32,
    open: u64,
}

/// Reads links until each inode was met once, then compares all other open files with those.
fn by_comparison(pids: &[u32], inodes: &[u64]) -> Holding {
    let mut candidates: Vec<Candidate> = pids.iter().filter_map(|pid| candidate(*pid)).collect();
    // Most servers have few files open, and little is lost on those that are not it.
    candidates.sort_by_key(|candidate| candidate.open);

    let next = AtomicUsize::new(0);
    let missing = AtomicU64::new((1 << inodes.len()) - 1);
    let all_met = || missing.load(Ordering::Relaxed) == 0;
    let parts = on_threads(candidates.len(), || {
        let (mut met, mut abandoned, mut denied) = (Vec::new(), Vec::new(), 0);
        while !all_met()
            && let Some(candidate) = candidates.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let before = met.len();
            match read_links(candidate.pid, inodes, &mut met, &all_met) {
                Scan::Complete => {}
                Scan::Abandoned => {
                    met.truncate(before);
                    abandoned.push(candidate);
                }
                Scan::Denied => denied += 1,
            }
            for (at, inode) in inodes.iter().enumerate() {
                if met.iter().skip(before).any(|one| one.inode == *inode) {
                    missing.fetch_and(!(1 << at), Ordering::Relaxed);
                }
            }
        }
        (met, abandoned, denied)
    });
    let mut result = Holding::default();
    let mut samples: Vec<Met> = Vec::new();
    let mut rest: Vec<&Candidate> = candidates
        .get(next.into_inner()..)
        .unwrap_or_default()
        .iter()
        .collect();
    for (met, abandoned, denied) in parts {
        rest.extend(abandoned);
        result.denied += denied;
        for one in met {
            result.pairs.push((one.inode, one.pid));
            if !samples.iter().any(|sample| sample.inode == one.inode) {
                samples.push(one);
            }
        }
    }
    let next = AtomicUsize::new(0);
    let parts = on_threads(rest.len(), || {
        let mut part = Holding::default();
        while let Some(candidate) = rest.get(next.fetch_add(1, Ordering::Relaxed)) {
            part.compare(candidate, &samples, inodes);
        }
        part
    });
    let rest = joined(parts);
    result.pairs.extend(rest.pairs);
    result.denied += rest.denied;
    result
}

impl Holding {
    /// Looks among all open files of a process for the samples.
    fn compare(&mut self, candidate: &Candidate, samples: &[Met], inodes: &[u64]) {
        let pid = candidate.pid;
        let mut wanted: Vec<Met> = samples.to_vec();
        let mut left = candidate.open;
        // Descriptors are given from the lowest free number up; a table full of holes is read as links.
        let last = candidate.open.saturating_mul(4).saturating_add(1024);
        for descriptor in 0..u32::try_from(last).unwrap_or(u32::MAX) {
            if left == 0 || wanted.is_empty() {
                return;
            }
            let mut is_open = false;
            let mut at = 0;
            while let Some(sample) = wanted.get(at) {
                match compare::is_same_file((sample.pid, sample.descriptor), (pid, descriptor)) {
                    Ok(true) => {
                        is_open = true;
                        self.pairs.push((sample.inode, pid));
                        wanted.swap_remove(at);
                    }
                    Ok(false) => {
                        is_open = true;
                        at += 1;
                    }
                    Err(Errno::PERM | Errno::ACCESS) => {
                        self.denied += 1;
                        return;
                    }
                    // One of the two is closed, or gone altogether; the links tell which.
                    Err(Errno::BADF) if compare::is_open(sample.pid, sample.descriptor) => break,
                    Err(_) => return self.read(pid, inodes),
                }
            }
            left -= u64::from(is_open);
        }
        self.read(pid, inodes);
    }

    fn read(&mut self, pid: u32, inodes: &[u64]) {
        let mut met = Vec::new();
        if read_links(pid, inodes, &mut met, &|| false) == Scan::Denied {
            self.denied += 1;
        }
        for one in met {
            let pair = (one.inode, pid);
            if !self.pairs.contains(&pair) {
                self.pairs.push(pair);
            }
        }
    }
}

/// `None` for a process without any file, such as a thread of the kernel.
fn candidate(pid: u32) -> Option<Candidate> {
    // The size is the number of open files since Linux 6.2; `compare::works` has made sure of that.
    let size = |path: String| statat(CWD, path, AtFlags::empty()).ok();
    let open = u64::try_from(size(format!("/proc/{pid}/fd"))?.st_size).ok()?;
    if open > 0 {
        return Some(Candidate { pid, open });
    }
    // Two links and one for each thread: the first may have ended before the others.
    let threads = size(format!("/proc/{pid}/task"))?.st_nlink;
    (threads > 3).then_some(Candidate { pid, open: 0 })
}

/// Reads the links of one process until `enough` says so; appends each inode that is among `inodes` once.
fn read_links(pid: u32, inodes: &[u64], met: &mut Vec<Met>, enough: &dyn Fn() -> bool) -> Scan {
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
