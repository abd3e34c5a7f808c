//! What instances use and which processes they consist of, read from `/proc` (`proc(5)`).
//!
//! By hand and not by a crate: the tree of an instance is already found here by pid and start time, and
//! what is wanted of each of its processes is one line of `/proc/PID/stat`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{SysconfVar, Uid, sysconf};

use super::cgroup::Figures;
use super::run::ProcessId;
use super::tree::Snapshot;
use super::{Processes, dirs};
use crate::backend::BackendError;
use crate::backend::usage::{self, Usage};
use crate::port::{one_line, process};
use crate::state::Instance;
use crate::users;

const TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

/// What the system says once for all processes.
struct Machine {
    /// Clock ticks a second.
    ticks: u64,
    /// Bytes.
    page: u64,
    /// Since boot.
    uptime: Duration,
    /// Bytes.
    memory: u64,
}

/// `/proc/PID/stat` after the name, by the numbers of `proc_pid_stat(5)`.
struct Stat(Vec<String>);

impl Processes {
    /// A reading of each of these instances; `None` where nothing of it runs.
    pub fn usage(&self, instances: &[&Instance]) -> Result<Vec<Option<Usage>>, BackendError> {
        let all = snapshot()?;
        let machine = Machine::ask();
        instances
            .iter()
            .map(|instance| {
                let members = self.members(&all, instance)?;
                let read = members
                    .into_iter()
                    .filter_map(|id| Some((id, Stat::of(id)?)));
                let mut sum = None::<Usage>;
                for (id, stat) in read {
                    let sum = sum.get_or_insert_with(|| Usage {
                        clock: machine.uptime,
                        memory_limit: machine.memory,
                        ..Usage::default()
                    });
                    // With the children that have ended and been waited for, so that it never shrinks.
                    let ticks = [14, 15, 16, 17]
                        .map(|field| stat.number(field))
                        .iter()
                        .sum();
                    sum.busy += machine.time(ticks);
                    sum.memory += stat.pages(id).saturating_mul(machine.page);
                    sum.tasks += stat.number(20);
                    let io = io(id);
                    sum.read += io.get("read_bytes").copied().unwrap_or(0);
                    sum.written += io.get("write_bytes").copied().unwrap_or(0);
                }
                if let Some(sum) = &mut sum
                    && let Some(group) = self.record(&instance.project, &instance.name)?.group()
                {
                    counted(sum, group.figures());
                }
                Ok(sum)
            })
            .collect()
    }

    /// The processes of each of these instances, the main one first; `None` where nothing of it runs.
    pub fn top(
        &self,
        instances: &[&Instance],
    ) -> Result<Vec<Option<usage::Processes>>, BackendError> {
        let all = snapshot()?;
        let machine = Machine::ask();
        instances
            .iter()
            .map(|instance| {
                let mut members = self.members(&all, instance)?;
                members.sort_by_key(|id| (Some(id.pid) != instance.pid, id.start_time, id.pid));
                let rows: Vec<Vec<String>> = members
                    .into_iter()
                    .filter_map(|id| Some(row(id, &Stat::of(id)?, &machine)))
                    .collect();
                Ok((!rows.is_empty()).then(|| usage::Processes {
                    titles: TITLES.map(str::to_owned).to_vec(),
                    rows,
                }))
            })
            .collect()
    }

    fn members(&self, all: &Snapshot, instance: &Instance) -> Result<Vec<ProcessId>, BackendError> {
        if !instance.status.is_alive() {
            return Ok(Vec::new());
        }
        let record = self.record(&instance.project, &instance.name)?;
        Ok(match &record.run {
            Some(run) if run.finished.is_none() && run.is_of_here() => all.of(&record),
            _ => Vec::new(),
        })
    }
}

/// What the kernel counts for a whole run is better than a sum over its processes: memory that they share counts once,
/// and nothing of those that have ended is missing.
fn counted(sum: &mut Usage, figures: Figures) {
    sum.memory = figures.memory.unwrap_or(sum.memory);
    sum.busy = figures.busy.unwrap_or(sum.busy);
    let limit = figures.memory_limit.unwrap_or(u64::MAX);
    sum.memory_limit = sum.memory_limit.min(limit);
}

fn snapshot() -> Result<Snapshot, BackendError> {
    Snapshot::take().map_err(|error| dirs::failed("read", "/proc".as_ref(), error))
}

impl Machine {
    fn ask() -> Self {
        let constant = |which, usual| {
            let value = sysconf(which).ok().flatten();
            value
                .and_then(|value| u64::try_from(value).ok())
                .unwrap_or(usual)
        };
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds = uptime.split(' ').next().and_then(|text| text.parse().ok());
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Self {
            ticks: constant(SysconfVar::CLK_TCK, 100).max(1),
            page: constant(SysconfVar::PAGE_SIZE, 4096),
            uptime: seconds
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .unwrap_or_default(),
            memory: kilobytes.unwrap_or(0).saturating_mul(1024),
        }
    }

    fn time(&self, ticks: u64) -> Duration {
        Duration::from_millis(ticks.saturating_mul(1000) / self.ticks)
    }
}

impl Stat {
    /// Of exactly this process; a later one with its pid is another one.
    fn of(id: ProcessId) -> Option<Self> {
        let stat = Self::read(format!("/proc/{}", id.pid).as_ref())?;
        (stat.number(22) == id.start_time).then_some(stat)
    }

    fn read(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join("stat")).ok()?;
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 2..)?).ok()?;
        Some(Self(rest.split_whitespace().map(str::to_owned).collect()))
    }

    /// Of memory that is resident. A first thread that has ended has let go of what the others still have.
    fn pages(&self, id: ProcessId) -> u64 {
        if self.0.first().is_none_or(|state| state != "Z") {
            return self.number(24);
        }
        let living = process::living_thread(id.pid).and_then(|thread| Self::read(&thread));
        living.map_or(0, |stat| stat.number(24))
    }

    fn number(&self, field: usize) -> u64 {
        let text = field.checked_sub(3).and_then(|index| self.0.get(index));
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// `/proc/PID/io`; empty where it is not ours to read.
fn io(id: ProcessId) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(format!("/proc/{}/io", id.pid)).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

fn row(id: ProcessId, stat: &Stat, machine: &Machine) -> Vec<String> {
    let used = machine.time(stat.number(14) + stat.number(15));
    let age = machine.uptime.saturating_sub(machine.time(id.start_time));
    let load = used.as_millis() * 100 / age.as_millis().max(1);
    vec![
        owner(id.pid),
        id.pid.to_string(),
        stat.number(4).to_string(),
        load.to_string(),
        started(age),
        terminal(stat.number(7)),
        time(used.as_secs()),
        command(id.pid),
    ]
}

fn owner(pid: u32) -> String {
    let Ok(facts) = fs::metadata(format!("/proc/{pid}")) else {
        return "?".to_owned();
    };
    let user = users::user_with_id(Uid::from_raw(facts.uid()));
    user.map_or_else(|| facts.uid().to_string(), |user| user.name)
}

/// `14:05` of today, `Nov22` of this year, `2025`.
fn started(age: Duration) -> String {
    let now = jiff::Zoned::now();
    let Ok(age) = jiff::SignedDuration::try_from(age) else {
        return "?".to_owned();
    };
    let Ok(then) = now.checked_sub(age) else {
        return "?".to_owned();
    };
    let format = if then.year() != now.year() {
        "%Y"
    } else if then.date() == now.date() {
        "%H:%M"
    } else {
        "%b%d"
    };
    then.strftime(format).to_string()
}

/// A terminal by its device number; those of `devpts` have the majors 136 to 143.
fn terminal(device: u64) -> String {
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xf_ff00),
    );
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

/// `[days-]hours:minutes:seconds`
fn time(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let rest = format!("{hours:02}:{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    if days > 0 {
        format!("{days}-{rest}")
    } else {
        rest
    }
}

fn command(pid: u32) -> String {
    let read = |directory: &Path| fs::read(directory.join("cmdline")).unwrap_or_default();
    let mut line = read(format!("/proc/{pid}").as_ref());
    if line.is_empty()
        && let Some(thread) = process::living_thread(pid)
    {
        line = read(&thread);
    }
    let line = String::from_utf8_lossy(&line)
        .trim_end_matches('\0')
        .replace('\0', " ");
    if !line.is_empty() {
        return one_line(&line);
    }
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    one_line(&format!("[{}]", name.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_row() {
        let id = ProcessId::of(std::process::id()).unwrap();
        let row = row(id, &Stat::of(id).unwrap(), &Machine::ask());
        assert_eq!(row.len(), TITLES.len());
        assert_eq!(row[1], id.pid.to_string());
        assert_eq!(row[2], std::os::unix::process::parent_id().to_string());
        assert!(row[7].contains("wharf"), "{row:?}");
    }

    #[test]
    fn another_process_with_the_same_pid_has_none() {
        let id = ProcessId::of(std::process::id()).unwrap();
        let other = ProcessId {
            start_time: id.start_time + 1,
            ..id
        };
        assert!(Stat::of(other).is_none());
    }

    #[test]
    fn what_the_control_group_counts_comes_first() {
        let read = Usage {
            memory: 9,
            memory_limit: 100,
            busy: Duration::from_secs(1),
            ..Usage::default()
        };
        let mut sum = read;
        counted(&mut sum, Figures::default());
        assert_eq!(sum, read);
        let figures = Figures {
            memory: Some(7),
            memory_limit: Some(50),
            busy: Some(Duration::from_secs(2)),
        };
        counted(&mut sum, figures);
        assert_eq!((sum.memory, sum.memory_limit), (7, 50));
        assert_eq!(sum.busy, Duration::from_secs(2));
        let above = Figures {
            memory_limit: Some(200),
            ..Figures::default()
        };
        let mut sum = read;
        counted(&mut sum, above);
        assert_eq!(sum.memory_limit, 100);
    }

    #[test]
    fn times_and_terminals_read_as_in_ps() {
        assert_eq!(time(3_725), "01:02:05");
        assert_eq!(time(90_000), "1-01:00:00");
        assert_eq!(terminal(0), "?");
        assert_eq!(terminal((136 << 8) | 3), "pts/3");
    }
}
