//! What a service asks of the kernel and of devices, handed to the engine as it is written
//! (compose specification, 05-services and deploy).

use std::collections::BTreeMap;

/// Limits and devices that only containers have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Microseconds.
    pub cpu_period: Option<i64>,
    /// Microseconds of each period.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_realtime_period: Option<i64>,
    /// Microseconds of each period.
    pub cpu_realtime_runtime: Option<i64>,
    /// Whole CPUs (Windows).
    pub cpu_count: Option<i64>,
    /// Hundredths of a per cent (Windows).
    pub cpu_percent: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<i64>,
    /// The kernel does not end it when memory runs out.
    pub oom_kill_disable: bool,
    /// Block devices.
    pub blkio: Blkio,
    /// `type major:minor permissions`.
    pub device_cgroup_rules: Vec<String>,
    /// Devices that a driver chooses, GPUs for instance.
    pub device_requests: Vec<DeviceRequest>,
    /// Options of the storage driver.
    pub storage_opt: BTreeMap<String, String>,
    /// `default`, `process`, `hyperv`.
    pub isolation: Option<String>,
}

/// `blkio_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blkio {
    /// 10 to 1000.
    pub weight: Option<u16>,
    /// Weights by device.
    pub weight_device: Vec<(String, i64)>,
    /// Bytes a second by device.
    pub read_bps: Vec<(String, i64)>,
    /// Operations a second by device.
    pub read_iops: Vec<(String, i64)>,
    /// Bytes a second by device.
    pub write_bps: Vec<(String, i64)>,
    /// Operations a second by device.
    pub write_iops: Vec<(String, i64)>,
}

/// `gpus` and `deploy.resources.reservations.devices`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceRequest {
    /// The driver; `None`: any.
    pub driver: Option<String>,
    /// How many; -1: all.
    pub count: i64,
    /// These in particular.
    pub device_ids: Vec<String>,
    /// All of these.
    pub capabilities: Vec<String>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
}
