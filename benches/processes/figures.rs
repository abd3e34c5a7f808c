//! What processes have used, from `/proc`.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// `proc_pid_schedstat(5)`: time on a CPU, of all its threads.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let of = |thread: &Path| {
        let text = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        let first = text.split(' ').next().and_then(|field| field.parse().ok());
        Duration::from_nanos(first.unwrap_or_default())
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    threads.map(|thread| of(&thread.path())).sum()
}

/// The same of all of them.
pub(crate) fn cpu_of_all(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| cpu_of(*pid)).sum()
}

/// Of the children that have been waited for.
pub(crate) fn children_cpu() -> Duration {
    let usage =
        nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap())
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap())
    };
    of(usage.user_time()) + of(usage.system_time())
}

/// The children of a process, whichever of its threads made them.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let texts = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    texts
        .flat_map(|text| {
            let pids = text.unwrap_or_default();
            let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .collect()
}

/// The children of all of them.
pub(crate) fn children_of_all(pids: &[u32]) -> Vec<u32> {
    pids.iter().flat_map(|pid| children_of(*pid)).collect()
}

/// Fields of `/proc/PID/smaps_rollup` in KiB.
pub(crate) fn rollup(pid: u32, fields: &[&str]) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}
