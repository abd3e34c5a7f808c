//! Where ids of processes mean something: pids in one pid namespace, start times in one time namespace. Containers that
//! share a home directory share the boot id and the ledger, and neither of these.
//!
//! A project whose processes are elsewhere must not be judged by what is seen here: see [`elsewhere`]. Changes nothing.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::dirs::{InstanceDir, ProjectDir};
use super::ledger::{Record, Run, names};
use super::protocol::Card;
use super::run::{ProcessId, boot_id};
use super::tree::Snapshot;
use super::{lock, regular};
use crate::backend::BackendError;
use crate::event::Stream;

/// How often, and with which pause, one that has just taken the supervisor's lock is waited for to say who it is.
const SIGNING: (u32, Duration) = (10, Duration::from_millis(10));

/// The namespaces that a process id was noted in, by the numbers that the kernel gives them (`namespaces(7)`). A number
/// is given again once everything in the namespace has ended: whoever finds its own may judge by pid and start time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Realm {
    /// Of the pids.
    pub pid: u64,
    /// Of the times since boot; 0 where the kernel has none of these.
    pub time: u64,
    /// The name of the host there, which for a container is its id as a rule.
    pub host: String,
}

impl Realm {
    /// This process's own; `None` where the system does not tell. Asked once: no process changes them.
    pub fn ours() -> Option<&'static Self> {
        static OURS: OnceLock<Option<Realm>> = OnceLock::new();
        let ask = || {
            let host = nix::unistd::gethostname().ok();
            Some(Realm {
                pid: number("self", "pid")?,
                time: number("self", "time").unwrap_or_default(),
                host: host.map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            })
        };
        OURS.get_or_init(ask).as_ref()
    }

    /// Whether it is one in which our ids mean the same.
    fn is(&self, other: &Self) -> bool {
        self.pid == other.pid && self.time == other.time
    }
}

/// Whether what was noted there means something else here. What is not known is taken for ours, as it was before
/// anybody noted it.
pub(super) fn is_foreign(realm: Option<&Realm>) -> bool {
    realm
        .zip(Realm::ours())
        .is_some_and(|(realm, ours)| !realm.is(ours))
}

/// The number of a namespace of a process.
fn number(process: &str, kind: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{process}/ns/{kind}")).ok()?;
    let (_, rest) = link.to_str()?.split_once('[')?;
    rest.strip_suffix(']')?.parse().ok()
}

impl Run {
    /// Whether the ids of its processes mean something to us: of this boot, and noted where we are.
    pub fn is_of_here(&self) -> bool {
        self.boot_id == boot_id() && !is_foreign(self.realm.as_ref())
    }
}

/// Who has the supervisor's lock, as it wrote there.
#[derive(Debug, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    #[serde(flatten)]
    pub process: ProcessId,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<Realm>,
}

impl Holder {
    /// This process.
    pub fn ours() -> Option<Self> {
        Some(Self {
            process: ProcessId::of(std::process::id())?,
            realm: Realm::ours().cloned(),
        })
    }

    /// Where it is, in words, if its pid means another process here.
    pub(super) fn place(&self) -> Option<String> {
        let realm = self.realm.as_ref()?;
        let ours = Realm::ours()?;
        let host = match realm.host.as_str() {
            "" => String::new(),
            host if host == ours.host => String::new(),
            host => format!(", on host `{host}`"),
        };
        (realm.pid != ours.pid).then(|| format!("in another pid namespace{host}"))
    }
}

/// Why nothing of a project may be judged or changed from here: its supervisor, or something that its ledger calls
/// alive, is in other namespaces. `None` also where all of that has certainly ended: see `may_live`.
pub fn elsewhere(dir: &ProjectDir) -> Option<BackendError> {
    if let Some(supervisor) = supervisor(dir) {
        // One that is here has made sure of all the others.
        return is_foreign(Some(&supervisor)).then(|| refused(dir, &supervisor));
    }
    runs_elsewhere(dir)
}

/// As [`elsewhere`], by the entries of the ledger alone.
pub fn runs_elsewhere(dir: &ProjectDir) -> Option<BackendError> {
    let mut all = None;
    // What cannot be read is told by whoever needs it.
    for name in names(dir).ok()? {
        let Ok(instance) = dir.instance(&name) else {
            continue;
        };
        let Ok(Some(record)) = Record::read(&instance) else {
            continue;
        };
        if let Some(run) = record.run.as_ref().filter(|_| record.status.is_alive())
            && let Some(realm) = run.realm.as_ref().filter(|realm| is_foreign(Some(realm)))
            && run.boot_id == boot_id()
            && may_live(&instance, &record, &mut all)
        {
            return Some(refused(dir, realm));
        }
    }
    None
}

/// Whether anything may be left of a run that is not of here. What holds in every namespace tells: the keeper's lock;
/// the pipes, which everything holds open for reading that still has its output; the control group, where it is seen
/// from here; and a process with the run's id, likewise.
fn may_live(dir: &InstanceDir, record: &Record, all: &mut Option<Snapshot>) -> bool {
    let is_read = |stream| {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let path = dir.fifo(stream);
        // Nothing but a pipe refuses for want of a reader; it is not there where there is a terminal instead.
        let is_pipe = fs::symlink_metadata(&path).is_ok_and(|facts| is_fifo(&facts));
        is_pipe && rustix::fs::open(&path, flags, Mode::empty()).err() != Some(Errno::NXIO)
    };
    if lock::is_held(&dir.keeper_lock())
        || is_read(Stream::Stdout)
        || is_read(Stream::Stderr)
        || record.group().is_some_and(|group| group.is_populated())
    {
        return true;
    }
    if all.is_none() {
        *all = Snapshot::take().ok();
    }
    // No process is known by its pid.
    all.as_ref()
        .is_none_or(|all| !all.tree(record.id(), None, None, &[]).is_empty())
}

fn is_fifo(facts: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    facts.file_type().is_fifo()
}

/// Where the supervisor is that has the lock; `None` where nobody has it, or one that does not say.
fn supervisor(dir: &ProjectDir) -> Option<Realm> {
    let path = dir.supervisor_lock();
    let (mut left, pause) = SIGNING;
    while lock::is_held(&path) {
        if let Ok(text) = regular::read(&path)
            && let Ok(holder) = serde_json::from_slice::<Holder>(&text)
        {
            return holder.realm;
        }
        let Some(fewer) = left.checked_sub(1) else {
            let card = regular::read(&dir.supervisor_card()).ok()?;
            return serde_json::from_slice::<Card>(&card).ok()?.realm;
        };
        left = fewer;
        std::thread::sleep(pause);
    }
    None
}

/// The refusal, with what helps to get there.
fn refused(dir: &ProjectDir, realm: &Realm) -> BackendError {
    let ours = Realm::ours();
    BackendError::Elsewhere {
        project: dir.name().to_owned(),
        kind: match ours {
            Some(ours) if ours.pid == realm.pid => "time",
            _ => "pid",
        },
        host: ours
            .is_none_or(|ours| ours.host != realm.host)
            .then(|| realm.host.clone())
            .filter(|host| !host.is_empty()),
        inside: visible(realm),
    }
}

/// A process there that can be seen from here.
fn visible(realm: &Realm) -> Option<u32> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter().find(|pid| {
        let pid = pid.to_string();
        // A thread of the kernel has a root directory of its own.
        fs::read_link(format!("/proc/{pid}/exe")).is_ok()
            && number(&pid, "pid") == Some(realm.pid)
            && number(&pid, "time").unwrap_or_default() == realm.time
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_ours_and_any_other_number_is_foreign() {
        let ours = Realm::ours().unwrap();
        assert!(!is_foreign(None));
        assert!(!is_foreign(Some(ours)));
        let named = Realm {
            host: "another".to_owned(),
            ..ours.clone()
        };
        assert!(!is_foreign(Some(&named)));
        for (pid, time) in [(1, 0), (0, 1)] {
            let other = Realm {
                pid: ours.pid + pid,
                time: ours.time + time,
                host: ours.host.clone(),
            };
            assert!(is_foreign(Some(&other)));
        }
    }

    #[test]
    fn what_an_older_version_wrote_into_the_lock_is_read_and_it_reads_ours() {
        let me = ProcessId::of(std::process::id()).unwrap();
        let old = serde_json::to_vec(&me).unwrap();
        let holder: Holder = serde_json::from_slice(&old).unwrap();
        assert!(holder.realm.is_none() && holder.process == me);
        let holder = Holder {
            process: me,
            realm: Realm::ours().cloned(),
        };
        let new = serde_json::to_vec(&holder).unwrap();
        assert_eq!(serde_json::from_slice::<ProcessId>(&new).unwrap(), me);
    }
}
