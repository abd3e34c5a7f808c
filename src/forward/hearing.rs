//! Where the processes of runs listen. The kernel's list of listening sockets is looked at often, which is
//! cheap; whose they are is found out only when it has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::world::{Entry, Heard, Life};
use crate::backend::process::cgroup::Group;
use crate::backend::process::run::ProcessId;
use crate::backend::process::tree::Snapshot;
use crate::backend::process::{Record, kin};
use crate::naming::Role;
use crate::port::holder::ListeningSocket;
use crate::port::process::ticks_now;
use crate::port::protect::is_forwarder;
use crate::port::{owner, sockets};

/// How long a run is looked at often, and how often.
const YOUNG: (Duration, Duration) = (Duration::from_secs(15), Duration::from_millis(250));

/// How often it is looked at later.
const OLD: Duration = Duration::from_secs(3);

/// A socket may be passed on to a process without any change of the list.
const STALE: Duration = Duration::from_mins(1);

/// For so long nobody looks again while the list stays the same: a stack that comes up has a new run every few
/// milliseconds, and none of them a socket yet.
const FRESH: Duration = Duration::from_millis(150);

/// What was heard last.
#[derive(Clone, Debug, Default)]
pub(super) struct Hearing {
    /// By run id.
    pub(super) heard: BTreeMap<String, Vec<Heard>>,
    /// The runs and the listening sockets that this was found out for.
    runs: BTreeSet<String>,
    inodes: BTreeSet<u64>,
    looked: Option<Instant>,
    /// When all processes of this machine were looked at for it.
    looked_at_all: Option<Instant>,
    /// When the list last showed a socket that it had not shown before, in clock ticks since boot. A run whose
    /// process is younger has opened none of them.
    newest: u64,
    /// When each run was first seen.
    since: BTreeMap<String, Instant>,
}

/// One run, as far as finding its processes needs it.
#[derive(Clone, Debug)]
struct Run {
    id: String,
    main: Option<ProcessId>,
    keeper: Option<ProcessId>,
    group: Option<Group>,
}

impl Run {
    /// Its processes by control group and descent, without a look at all that there are on this machine: those may be
    /// hundreds, and others listen and end all the time. `None` where that would not find all: without a group it is the
    /// environment that tells whose `exec` has started something, and without a keeper nobody adopts what was left.
    fn members(&self) -> Option<Vec<u32>> {
        let in_group = self.group.as_ref()?.members();
        let kin = kin::below(self.keeper?, &in_group)?;
        let members: Vec<u32> = kin.all().map(|id| id.pid).collect();
        (!members.is_empty()).then_some(members)
    }
}

impl Hearing {
    /// Looks again, thoroughly if asked to. Blocks for milliseconds.
    pub(super) fn listen(mut self, entries: &[Entry], thoroughly: bool) -> Self {
        let now = Instant::now();
        let runs: Vec<Run> = entries
            .iter()
            .filter(|entry| entry.life == Life::Up && !is_unknown(&entry.record))
            // Nobody is led to a forwarder: it is no service.
            .filter(|entry| Role::of(&entry.record.spec.labels).is_none())
            .map(|Entry { record, .. }| Run {
                id: record.id().to_owned(),
                main: record.process(),
                keeper: record.keeper(),
                group: record.group(),
            })
            .collect();
        let ids: BTreeSet<String> = runs.iter().map(|run| run.id.clone()).collect();
        self.since.retain(|id, _| ids.contains(id));
        for id in &ids {
            self.since.entry(id.clone()).or_insert(now);
        }
        // What cannot be listed is left as it was.
        let Ok(all) = sockets::all_listeners() else {
            return self;
        };
        let inodes: BTreeSet<u64> = all.iter().map(|socket| socket.inode).collect();
        if !inodes.is_subset(&self.inodes) {
            self.newest = ticks_now();
        }
        let age = self.looked.map(|looked| now.duration_since(looked));
        let is_stale = self.looked_at_all.is_none_or(|at| now - at > STALE);
        if inodes == self.inodes {
            let is_fresh = age.is_some_and(|age| age <= FRESH);
            if is_fresh {
                return self;
            }
            if !thoroughly && !is_stale && self.have_opened_none(&runs) {
                self.heard.retain(|id, _| ids.contains(id));
                for id in &ids {
                    self.heard.entry(id.clone()).or_default();
                }
                self.runs = ids;
                return self;
            }
        }
        let looks_at_all = thoroughly || is_stale;
        if let Some(heard) = owned(&runs, &all, looks_at_all) {
            self.heard = heard;
            self.runs = ids;
            self.inodes = inodes;
            self.looked = Some(now);
            if looks_at_all {
                self.looked_at_all = Some(now);
            }
        }
        self
    }

    /// Whether all runs that were not looked at yet are younger than every socket of the list.
    fn have_opened_none(&self, runs: &[Run]) -> bool {
        runs.iter()
            .filter(|run| !self.runs.contains(&run.id))
            .all(|run| run.main.is_some_and(|main| main.start_time > self.newest))
    }

    /// How long until the next look.
    pub(super) fn pause(&self) -> Duration {
        let is_young = self.since.values().any(|since| since.elapsed() < YOUNG.0);
        if is_young { YOUNG.1 } else { OLD }
    }
}

/// Whether its process is still to be noted: then it counts as a new run when it is.
fn is_unknown(record: &Record) -> bool {
    let run = record.run.as_ref();
    run.is_none_or(|run| run.process.is_none() && run.finished.is_none())
}

fn owned(
    runs: &[Run],
    all: &[ListeningSocket],
    looks_at_all: bool,
) -> Option<BTreeMap<String, Vec<Heard>>> {
    let mut heard: BTreeMap<String, Vec<Heard>> = BTreeMap::new();
    let inodes: Vec<u64> = all.iter().map(|socket| socket.inode).collect();
    let mut snapshot = None;
    for run in runs {
        let members = run.members().filter(|_| !looks_at_all);
        let pids = if let Some(pids) = members {
            pids
        } else {
            if snapshot.is_none() {
                snapshot = Some(Snapshot::take().ok()?);
            }
            let tree = snapshot.as_ref()?.tree(&run.id, run.main, run.keeper, &[]);
            tree.iter().map(|process| process.pid).collect()
        };
        let held = owner::holding(&inodes, Some(&pids)).pairs;
        // A service may be another project's `up`: its forwarder listens for others, and follows them as this one does.
        let doors: BTreeSet<u32> = held
            .iter()
            .map(|(_, pid)| *pid)
            .filter(|pid| owner::process_facts(*pid).is_some_and(|it| is_forwarder(&it)))
            .collect();
        let mine: BTreeSet<u64> = held
            .into_iter()
            .filter(|(_, pid)| !doors.contains(pid))
            .map(|(inode, _)| inode)
            .collect();
        let mut found: Vec<Heard> = all
            .iter()
            .filter(|socket| mine.contains(&socket.inode))
            .map(|socket| Heard {
                port: socket.address.port(),
                ip: socket.address.ip().to_canonical(),
                only_v6: socket.only_v6,
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        heard.insert(run.id.clone(), found);
    }
    Some(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_is_younger_than_every_socket_has_opened_none() {
        let run = |id: &str, start_time: Option<u64>| Run {
            id: id.to_owned(),
            main: start_time.map(|start_time| ProcessId { pid: 7, start_time }),
            keeper: None,
            group: None,
        };
        let hearing = Hearing {
            runs: BTreeSet::from(["known".to_owned()]),
            newest: 100,
            ..Hearing::default()
        };
        let is_quiet = |runs: &[Run]| hearing.have_opened_none(runs);
        assert!(is_quiet(&[run("known", Some(5)), run("new", Some(101))]));
        assert!(!is_quiet(&[run("new", Some(101)), run("older", Some(100))]));
        assert!(!is_quiet(&[run("unknown", None)]));
    }

    #[test]
    fn the_sockets_of_a_run_are_those_of_its_processes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpListener::bind("[::1]:0").unwrap();
        let all = sockets::all_listeners().unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(all.iter().any(|socket| socket.address.port() == port));
        assert!(
            all.iter()
                .any(|socket| socket.address == other.local_addr().unwrap())
        );
        // This process is never part of a run, and a run that has ended has nobody.
        let run = Run {
            id: "nobody-has-this-id".to_owned(),
            main: ProcessId::of(std::process::id()).map(|id| ProcessId {
                start_time: id.start_time + 1,
                ..id
            }),
            keeper: None,
            group: None,
        };
        let heard = owned(&[run], &all, false).unwrap();
        assert_eq!(heard["nobody-has-this-id"], []);
    }
}
