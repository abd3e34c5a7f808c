//! What containers use and run, as the engine measures it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::observe::encoded;
use super::{Containers, fault};
use crate::backend::BackendError;
use crate::backend::usage::{Processes, Usage};

/// `GET /containers/ID/stats`, as far as wharf reads it. Parts are absent while a container starts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stats {
    #[serde(rename = "cpu_stats")]
    cpu: Option<Cpu>,
    /// A second before, where the engine was asked to wait for it.
    #[serde(rename = "precpu_stats")]
    cpu_before: Option<Cpu>,
    #[serde(rename = "memory_stats")]
    memory: Option<Memory>,
    networks: Option<BTreeMap<String, Traffic>>,
    #[serde(rename = "blkio_stats")]
    block: Option<Block>,
    #[serde(rename = "pids_stats")]
    tasks: Option<Tasks>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cpu {
    #[serde(rename = "cpu_usage")]
    usage: CpuUsage,
    system_cpu_usage: u64,
    online_cpus: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CpuUsage {
    total_usage: u64,
    percpu_usage: Option<Vec<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    usage: u64,
    limit: u64,
    stats: Option<BTreeMap<String, u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Traffic {
    rx_bytes: u64,
    tx_bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Block {
    io_service_bytes_recursive: Option<Vec<BlockEntry>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BlockEntry {
    op: String,
    value: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tasks {
    current: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Top {
    titles: Option<Vec<String>>,
    processes: Option<Vec<Vec<String>>>,
}

impl Containers {
    /// A reading of what a container uses; `None` when it does not run (any more).
    pub async fn usage(&self, id: &str) -> Result<Option<Usage>, BackendError> {
        let found = self.stats(id, "stream=false&one-shot=true").await?;
        Ok(found.and_then(|(_, now)| now))
    }

    /// Two readings of a container's processor time, a second apart, and the rest with the later one. Takes
    /// the engine two seconds.
    pub async fn usages(&self, id: &str) -> Result<Option<(Usage, Usage)>, BackendError> {
        let found = self.stats(id, "stream=false").await?;
        Ok(found.and_then(|(before, now)| Some((before.unwrap_or_default(), now?))))
    }

    async fn stats(
        &self,
        id: &str,
        how: &str,
    ) -> Result<Option<(Option<Usage>, Option<Usage>)>, BackendError> {
        let engine = self.engine().await?;
        let path = format!("/containers/{}/stats?{how}", encoded(id));
        match engine.get::<Stats>(&path).await {
            Ok(mut stats) => {
                let before = stats.cpu_before.take().and_then(time);
                Ok(Some((before, usage(stats))))
            }
            Err(error) if fault::is_missing(&error) => Ok(None),
            Err(error) => Err(engine.refused("read what containers use", error)),
        }
    }

    /// The processes of a container; `None` when it does not run (any more).
    pub async fn top(&self, id: &str) -> Result<Option<Processes>, BackendError> {
        let engine = self.engine().await?;
        let path = format!("/containers/{}/top", encoded(id));
        match engine.get::<Top>(&path).await {
            Ok(top) => Ok(Some(Processes {
                titles: top.titles.unwrap_or_default(),
                rows: top.processes.unwrap_or_default(),
            })),
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 404 | 409 | 500,
                ..
            }) if !self.runs(id).await? => Ok(None),
            Err(error) => Err(engine.refused("list the processes of containers", error)),
        }
    }

    async fn runs(&self, id: &str) -> Result<bool, BackendError> {
        let engine = self.engine().await?;
        let found = super::observe::inspect(engine, id)
            .await
            .map_err(|error| engine.refused("inspect containers", error))?;
        Ok(found.is_some_and(|container| container.state.running))
    }
}

/// The processor time alone.
fn time(cpu: Cpu) -> Option<Usage> {
    if cpu.system_cpu_usage == 0 {
        return None;
    }
    let listed = cpu.usage.percpu_usage.map_or(0, |each| each.len());
    let cpus = match cpu.online_cpus {
        0 => u64::try_from(listed.max(1)).unwrap_or(1),
        cpus => u64::from(cpus),
    };
    Some(Usage {
        busy: Duration::from_nanos(cpu.usage.total_usage),
        clock: Duration::from_nanos(cpu.system_cpu_usage / cpus),
        ..Usage::default()
    })
}

/// As `docker stats` computes it.
fn usage(stats: Stats) -> Option<Usage> {
    let time = time(stats.cpu.unwrap_or_default())?;
    let memory = stats.memory.unwrap_or_default();
    // Of cgroup v1 and of v2.
    let droppable = memory.stats.as_ref().and_then(|stats| {
        ["total_inactive_file", "inactive_file"]
            .iter()
            .find_map(|name| stats.get(*name))
    });
    let droppable = droppable.copied().filter(|bytes| *bytes < memory.usage);
    let networks = stats.networks.unwrap_or_default();
    let block = stats.block.unwrap_or_default();
    let entries = block.io_service_bytes_recursive.unwrap_or_default();
    let bytes = |op: &str| {
        entries
            .iter()
            .filter(|entry| entry.op.eq_ignore_ascii_case(op))
            .map(|entry| entry.value)
            .sum()
    };
    Some(Usage {
        busy: time.busy,
        clock: time.clock,
        memory: memory.usage - droppable.unwrap_or(0),
        memory_limit: memory.limit,
        received: networks.values().map(|network| network.rx_bytes).sum(),
        sent: networks.values().map(|network| network.tx_bytes).sum(),
        read: bytes("read"),
        written: bytes("write"),
        tasks: stats.tasks.unwrap_or_default().current,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_of_either_kind_of_cgroup_is_understood() {
        let text = r#"{"cpu_stats":{"cpu_usage":{"total_usage":5},"system_cpu_usage":40,"online_cpus":4},
            "memory_stats":{"usage":100,"limit":1000,"stats":{"inactive_file":30}},
            "networks":{"eth0":{"rx_bytes":1,"tx_bytes":2},"eth1":{"rx_bytes":3,"tx_bytes":4}},
            "blkio_stats":{"io_service_bytes_recursive":[{"op":"Read","value":7},{"op":"write","value":8}]},
            "pids_stats":{"current":2}}"#;
        let reading = usage(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(reading.clock, Duration::from_nanos(10));
        assert_eq!((reading.memory, reading.received, reading.sent), (70, 4, 6));
        assert_eq!((reading.read, reading.written, reading.tasks), (7, 8, 2));
        assert_eq!(
            usage(serde_json::from_str(r#"{"blkio_stats":null}"#).unwrap()),
            None
        );
    }
}
