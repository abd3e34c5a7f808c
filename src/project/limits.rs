//! The cast tree → `model::Limits`: what of a service the engine gets as it is written.

use super::model::{Blkio, DeviceRequest, Limits};
use super::tree::{Node, Value};
use super::typed::{amount, flag, int, items, owned, pairs, texts};

/// Reads the limits and devices of a service.
pub(crate) fn limits(node: &Node) -> Limits {
    let empty = Node::default();
    let blkio = node.get("blkio_config").unwrap_or(&empty);
    let reserved = node
        .get("deploy")
        .and_then(|deploy| deploy.get("resources")?.get("reservations"));
    let mut requests: Vec<DeviceRequest> = reserved
        .map(|reserved| items(reserved, "devices"))
        .unwrap_or_default()
        .iter()
        .map(device_request)
        .collect();
    requests.extend(items(node, "gpus").iter().map(|gpu| {
        let mut request = device_request(gpu);
        request.capabilities.push("gpu".to_owned());
        request
    }));
    Limits {
        cpu_period: amount(node, "cpu_period"),
        cpu_quota: amount(node, "cpu_quota"),
        cpu_realtime_period: amount(node, "cpu_rt_period"),
        cpu_realtime_runtime: amount(node, "cpu_rt_runtime"),
        cpu_count: amount(node, "cpu_count"),
        cpu_percent: scaled(node, "cpu_percent", 100.0),
        memory_swappiness: amount(node, "mem_swappiness"),
        oom_kill_disable: flag(node, "oom_kill_disable"),
        blkio: Blkio {
            weight: amount(blkio, "weight").and_then(|weight| u16::try_from(weight).ok()),
            weight_device: by_device(blkio, "weight_device", "weight"),
            read_bps: by_device(blkio, "device_read_bps", "rate"),
            read_iops: by_device(blkio, "device_read_iops", "rate"),
            write_bps: by_device(blkio, "device_write_bps", "rate"),
            write_iops: by_device(blkio, "device_write_iops", "rate"),
        },
        device_cgroup_rules: texts(node, "device_cgroup_rules"),
        device_requests: requests,
        storage_opt: pairs(node, "storage_opt"),
        isolation: owned(node, "isolation"),
    }
}

/// `cpus` in billionths.
pub(crate) fn nano_cpus(node: &Node) -> Option<i64> {
    scaled(node, "cpus", 1e9)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "out of range saturates"
)]
fn scaled(node: &Node, key: &str, factor: f64) -> Option<i64> {
    let value = match node.get(key)?.value {
        Value::Float(value) => value,
        Value::Int(value) => value as f64,
        Value::Null
        | Value::Bool(_)
        | Value::Large(_)
        | Value::Text(_)
        | Value::Date(_)
        | Value::List(_)
        | Value::Map(_) => return None,
    };
    (value != 0.0).then(|| (value * factor).round() as i64)
}

fn by_device(node: &Node, list: &str, amount: &str) -> Vec<(String, i64)> {
    items(node, list)
        .iter()
        .map(|entry| {
            let path = entry.text("path").unwrap_or_default().to_owned();
            (path, int(entry, amount).unwrap_or_default())
        })
        .collect()
}

fn device_request(node: &Node) -> DeviceRequest {
    DeviceRequest {
        driver: owned(node, "driver"),
        count: int(node, "count").unwrap_or_default(),
        device_ids: texts(node, "device_ids"),
        capabilities: texts(node, "capabilities"),
        options: pairs(node, "options"),
    }
}
