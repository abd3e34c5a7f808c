//! From socket inodes to the processes that have them open: a scan of `/proc/PID/fd`.
//!
//! The costly step of a look-up, so callers narrow it to the pids of a cgroup where they can. Where they
//! cannot, links are read only until each socket has been met once, the processes with few descriptors first;
//! from then on the kernel compares open files, which costs it a fifth of a link. Changes nothing.

mod compare;
mod comparison;
mod links;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::port::process;

use comparison::by_comparison;
use links::{Scan, read_links};

pub(crate) use links::Met as Seat;

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

/// Under which descriptors a process has the sockets open, each socket once.
pub(crate) fn seats(pid: u32, inodes: &[u64]) -> Vec<Seat> {
    let mut seats = Vec::new();
    // Who shows nobody its descriptors has none.
    read_links(pid, inodes, &mut seats, &|| false);
    seats
}

/// With more sockets than this, comparing each costs more than reading a link.
const MOST_COMPARED: usize = 4;

/// So many processes make it worth while to order them, and to have another thread.
const WORTH: usize = 64;

/// How many threads are worth their while: the kernel takes a microsecond or more for each descriptor, and a
/// busy machine has ten thousands of them.
fn threads(processes: usize) -> usize {
    const MOST: usize = 8;
    /// Asked once: that reads files of the control group.
    static AVAILABLE: OnceLock<usize> = OnceLock::new();
    let worth = (processes / WORTH).clamp(1, MOST);
    if worth == 1 {
        // The question alone costs as much as a few processes.
        return 1;
    }
    let available = AVAILABLE
        .get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    worth.min(*available)
}

/// Does `work` on as many threads as `processes` are worth, this one included.
pub(super) fn on_threads<T: Send>(processes: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
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
