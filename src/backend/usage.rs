//! What an instance uses at one moment, and who its processes are: what `stats` and `top` show of either
//! backend. Pure data; rates come from two readings.

use std::time::Duration;

/// A reading. All counts but `memory` and `tasks` are since the start of the instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on processors.
    pub busy: Duration,
    /// The clock that `busy` is to be compared with; where it begins means nothing.
    pub clock: Duration,
    /// Memory in use, in bytes, without what the kernel can drop at once.
    pub memory: u64,
    /// The most memory it may use, in bytes.
    pub memory_limit: u64,
    /// Bytes received from networks.
    pub received: u64,
    /// Bytes sent to networks.
    pub sent: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
    /// Processes and threads.
    pub tasks: u64,
}

impl Usage {
    /// The part of one processor that was used since an earlier reading: 1.0 is one processor.
    pub fn load_since(&self, earlier: &Self) -> f64 {
        let busy = self.busy.saturating_sub(earlier.busy).as_secs_f64();
        let passed = self.clock.saturating_sub(earlier.clock).as_secs_f64();
        if passed > 0.0 { busy / passed } else { 0.0 }
    }
}

/// The processes of an instance as a table, in the words of `ps -ef`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// The columns.
    pub titles: Vec<String>,
    /// One row for each process.
    pub rows: Vec<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_needs_time_to_pass() {
        let at = |clock, busy| Usage {
            clock: Duration::from_secs(clock),
            busy: Duration::from_secs(busy),
            ..Usage::default()
        };
        assert!((at(12, 3).load_since(&at(10, 2)) - 0.5).abs() < f64::EPSILON);
        assert!(at(10, 3).load_since(&at(10, 2)).abs() < f64::EPSILON);
    }
}
