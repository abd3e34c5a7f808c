//! What a service says about its process beyond command, directory and environment, as the ledger keeps it.
//! Pure data; `convert` fills it in, the keeper and the supervisor act on it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cgroup::Resources;
use super::ledger::Account;
use super::stores::Copied;

/// See the module. Everything has a default, so that entries of an older format can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// `ulimits`, by the names of the compose specification.
    pub limits: BTreeMap<String, Limit>,
    /// What its control group limits.
    pub resources: Resources,
    /// `oom_score_adj` (`proc_pid_oom_score_adj(5)`).
    pub oom_score_adj: Option<i64>,
    /// A terminal of its own instead of pipes.
    pub tty: bool,
    /// Standard input stays open for whoever attaches.
    pub stdin_open: bool,
    /// When its log goes on in a new segment; `None`: never.
    pub rotation: Option<Rotation>,
    /// Pacing of restarts.
    pub pacing: Pacing,
    /// Secrets and configs that come from files.
    pub files: Vec<Copied>,
    /// Commands after a start.
    pub post_start: Vec<HookCommand>,
    /// Commands before a stop.
    pub pre_stop: Vec<HookCommand>,
}

/// One of `ulimits`; a negative number is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The soft limit.
    pub soft: i64,
    /// The hard limit.
    pub hard: i64,
}

/// `logging.options`: `max-size` and `max-file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Bytes of a segment, both streams together.
    pub size: u64,
    /// Segments that are kept.
    pub files: u64,
}

impl Rotation {
    /// The same in segments of which no file becomes longer than `limit`; without one, as it is. An index has at most
    /// 16 bytes for each that was written.
    pub(crate) fn within(limit: Option<u64>, wanted: Option<Self>) -> Option<Self> {
        let Some(limit) = limit else {
            return wanted;
        };
        let most = (limit / 32).max(1);
        let (size, files) = wanted.map_or((u64::MAX, u64::MAX), |it| (it.size, it.files));
        let smaller = size.min(most);
        Some(Self {
            size: smaller,
            files: files.saturating_mul(size.div_ceil(smaller)),
        })
    }
}

/// `deploy.restart_policy`, beyond its condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pacing {
    /// The pause before every restart, instead of the growing one.
    pub delay: Option<Duration>,
    /// A run that lasted so long is a success: attempts are counted anew.
    pub window: Option<Duration>,
    /// At most so many restarts.
    pub attempts: Option<u32>,
}

/// One of `post_start` or `pre_stop`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCommand {
    /// argv.
    pub command: Vec<String>,
    /// Where, absolute.
    pub working_dir: PathBuf,
    /// On top of the service's.
    pub environment: BTreeMap<String, String>,
    /// As somebody else than the service.
    pub user: Option<Account>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_file_sizes_makes_more_and_smaller_segments() {
        let rotation = |size, files| Some(Rotation { size, files });
        assert_eq!(Rotation::within(None, None), None);
        assert_eq!(Rotation::within(None, rotation(9, 2)), rotation(9, 2));
        assert_eq!(Rotation::within(Some(3200), None), rotation(100, u64::MAX));
        assert_eq!(
            Rotation::within(Some(3200), rotation(250, 2)),
            rotation(100, 6)
        );
        assert_eq!(
            Rotation::within(Some(3200), rotation(50, 2)),
            rotation(50, 2)
        );
        assert_eq!(Rotation::within(Some(0), None), rotation(1, u64::MAX));
    }
}
