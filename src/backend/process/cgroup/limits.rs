//! What a service may use → the values of a control group's files. Pure; the units are those of the kernel
//! (`Documentation/admin-guide/cgroup-v2.rst`).

use serde::{Deserialize, Serialize};

/// The period of `cpu.max` where the service names none, in microseconds: the kernel's default.
const PERIOD: i64 = 100_000;

/// The shortest quota that the kernel takes, in microseconds.
const SHORTEST_QUOTA: i64 = 1_000;

/// The limits of a service, in the units of the compose model. Zero and less mean none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// `cpus`, in billionths.
    pub nano_cpus: Option<i64>,
    /// `cpu_quota`, in microseconds of each period.
    pub cpu_quota: Option<i64>,
    /// `cpu_period`, in microseconds.
    pub cpu_period: Option<i64>,
    /// `cpu_shares`, relative to 1024.
    pub cpu_shares: Option<i64>,
    /// `cpuset`, a list of CPUs.
    pub cpuset: Option<String>,
    /// `mem_limit`, in bytes.
    pub memory: Option<i64>,
    /// `mem_reservation`, in bytes.
    pub memory_reservation: Option<i64>,
    /// `memswap_limit`, in bytes, memory and swap together; -1 is no limit.
    pub memory_swap: Option<i64>,
    /// `pids_limit`.
    pub pids: Option<i64>,
}

/// One file of a control group and what is to be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The attribute's name in the compose file.
    pub attribute: &'static str,
    /// The controller that the file belongs to.
    pub controller: &'static str,
    /// The file's name.
    pub file: &'static str,
    /// Its value.
    pub value: String,
}

impl Resources {
    /// What to write, in this order.
    pub fn settings(&self) -> Vec<Setting> {
        let mut all = Vec::new();
        let mut add = |attribute, controller, file, value: Option<String>| {
            all.extend(value.map(|value| Setting {
                attribute,
                controller,
                file,
                value,
            }));
        };
        add("cpus", "cpu", "cpu.max", self.cpus());
        if self.cpus().is_none() {
            add("cpu_quota", "cpu", "cpu.max", self.quota());
        }
        let weight = positive(self.cpu_shares).map(|shares| weight(shares).to_string());
        add("cpu_shares", "cpu", "cpu.weight", weight);
        let cpuset = self.cpuset.clone().filter(|list| !list.is_empty());
        add("cpuset", "cpuset", "cpuset.cpus", cpuset);
        let bytes = |amount: Option<i64>| positive(amount).map(|bytes| bytes.to_string());
        let reserved = bytes(self.memory_reservation);
        add("mem_reservation", "memory", "memory.low", reserved);
        add("mem_limit", "memory", "memory.max", bytes(self.memory));
        add("memswap_limit", "memory", "memory.swap.max", self.swap());
        add("pids_limit", "pids", "pids.max", bytes(self.pids));
        all
    }

    fn cpus(&self) -> Option<String> {
        let nano = positive(self.nano_cpus)?;
        Some(quota(nano / (1_000_000_000 / PERIOD), PERIOD))
    }

    fn quota(&self) -> Option<String> {
        let period = positive(self.cpu_period).unwrap_or(PERIOD);
        positive(self.cpu_quota).map(|microseconds| quota(microseconds, period))
    }

    /// Swap alone: as in the engine, a service with `mem_limit` alone may swap as much again.
    fn swap(&self) -> Option<String> {
        match (positive(self.memory), self.memory_swap) {
            (_, Some(total)) if total < 0 => Some("max".to_owned()),
            (Some(memory), None | Some(0)) => Some(memory.to_string()),
            (Some(memory), Some(total)) => Some(total.saturating_sub(memory).max(0).to_string()),
            (None, _) => None,
        }
    }
}

fn positive(amount: Option<i64>) -> Option<i64> {
    amount.filter(|amount| *amount > 0)
}

fn quota(microseconds: i64, period: i64) -> String {
    format!("{} {period}", microseconds.max(SHORTEST_QUOTA))
}

/// Shares (2 to 262144, usually 1024) as a weight (1 to 10000), in the way of the OCI runtimes.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(resources: &Resources) -> Vec<(&'static str, String)> {
        let settings = resources.settings();
        settings
            .into_iter()
            .map(|setting| (setting.file, setting.value))
            .collect()
    }

    fn one(file: &'static str, value: &str) -> Vec<(&'static str, String)> {
        vec![(file, value.to_owned())]
    }

    #[test]
    fn parts_of_a_cpu_become_a_quota_of_a_tenth_of_a_second() {
        let of = |nano_cpus| {
            written(&Resources {
                nano_cpus: Some(nano_cpus),
                ..Resources::default()
            })
        };
        assert_eq!(of(500_000_000), one("cpu.max", "50000 100000"));
        assert_eq!(of(2_500_000_000), one("cpu.max", "250000 100000"));
        assert_eq!(of(1), one("cpu.max", "1000 100000"));
        assert!(of(0).is_empty());
    }

    #[test]
    fn a_quota_has_its_own_period() {
        let resources = Resources {
            cpu_quota: Some(20_000),
            cpu_period: Some(50_000),
            ..Resources::default()
        };
        assert_eq!(written(&resources), one("cpu.max", "20000 50000"));
        let unlimited = Resources {
            cpu_quota: Some(-1),
            ..Resources::default()
        };
        assert!(written(&unlimited).is_empty());
    }

    #[test]
    fn shares_keep_their_proportion() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
        assert_eq!((weight(1), weight(i64::MAX)), (1, 10_000));
    }

    #[test]
    fn memory_and_swap_are_told_apart() {
        let of = |memory, memory_swap| {
            written(&Resources {
                memory,
                memory_swap,
                ..Resources::default()
            })
        };
        let both = |memory: &str, swap: &str| {
            vec![
                ("memory.max", memory.to_owned()),
                ("memory.swap.max", swap.to_owned()),
            ]
        };
        assert_eq!(of(Some(100), None), both("100", "100"));
        assert_eq!(of(Some(100), Some(100)), both("100", "0"));
        assert_eq!(of(Some(100), Some(300)), both("100", "200"));
        assert_eq!(of(Some(100), Some(-1)), both("100", "max"));
        assert_eq!(of(None, Some(-1)), one("memory.swap.max", "max"));
        assert!(of(None, None).is_empty());
    }

    #[test]
    fn no_limit_of_processes_is_none() {
        let of = |pids| {
            written(&Resources {
                pids: Some(pids),
                ..Resources::default()
            })
        };
        assert_eq!(of(100), one("pids.max", "100"));
        assert!(of(-1).is_empty());
    }
}
