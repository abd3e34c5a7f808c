//! Links until each socket was met once, comparisons for all other open files.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::fs::{AtFlags, CWD, statat};
use rustix::io::Errno;

use super::links::{Met, Scan, descriptors_from, read_links};
use super::{Holding, by_links, compare, joined, on_threads};

/// A process and how many files it has open.
struct Candidate {
    pid: u32,
    open: u64,
}

/// Reads links until each inode was met once, then compares all other open files with those.
pub(super) fn by_comparison(pids: &[u32], inodes: &[u64]) -> Holding {
    let next = AtomicUsize::new(0);
    let parts = on_threads(pids.len(), || {
        let mut part = Vec::new();
        while let Some(pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
            part.extend(candidate(*pid));
        }
        part
    });
    let mut candidates: Vec<Candidate> = parts.into_iter().flatten().collect();
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
    if !samples.iter().all(Met::lasts) {
        // Closed meanwhile; what was compared with it then says nothing.
        return by_links(pids, inodes);
    }
    let rest = joined(parts);
    result.pairs.extend(rest.pairs);
    result.denied += rest.denied;
    result
}

impl Holding {
    /// Looks among all open files of a process for the samples.
    fn compare(&mut self, candidate: &Candidate, samples: &[Met], inodes: &[u64]) {
        /// Descriptors are given from the lowest free number up. After so many free ones in a row the few that
        /// lie above (shells park theirs at the end of the table) are asked for by name.
        const FREE: usize = 4;
        let pid = candidate.pid;
        if candidate.open == 0 {
            return self.read(pid, inodes);
        }
        let mut wanted: Vec<Met> = samples.to_vec();
        let (mut left, mut free) = (candidate.open, 0);
        let mut next = 0;
        while left > 0 && free < FREE {
            match self.meet(pid, next, &mut wanted) {
                Ok(true) => (left, free) = (left - 1, 0),
                Ok(false) => free += 1,
                Err(errno) => return self.give_up(pid, errno, inodes),
            }
            if wanted.is_empty() {
                return;
            }
            next += 1;
        }
        if left == 0 {
            return;
        }
        for descriptor in descriptors_from(pid, next) {
            match self.meet(pid, descriptor, &mut wanted) {
                Ok(_) if wanted.is_empty() => return,
                Ok(_) => {}
                Err(errno) => return self.give_up(pid, errno, inodes),
            }
        }
    }

    /// Compares one descriptor with what is wanted; says whether it is open.
    fn meet(&mut self, pid: u32, descriptor: u32, wanted: &mut Vec<Met>) -> Result<bool, Errno> {
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
                // This one, or the sample: whether all samples lasted is looked at in the end.
                Err(Errno::BADF) => at += 1,
                Err(errno) => return Err(errno),
            }
        }
        Ok(is_open)
    }

    fn give_up(&mut self, pid: u32, errno: Errno, inodes: &[u64]) {
        match errno {
            Errno::PERM | Errno::ACCESS => self.denied += 1,
            // Gone.
            Errno::SRCH => {}
            _ => self.read(pid, inodes),
        }
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
