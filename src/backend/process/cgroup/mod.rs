//! A control group (cgroup v2) for one run: its processes can neither leave it unseen nor fork faster than
//! they are ended, and it carries the limits of the service. Made and removed here, by path; what a group
//! means for an instance is the supervisor's business.
//!
//! Its directory is named after the project's state and the run: a path from the ledger never names anything else, and
//! what no ledger names any more is still known as its project's.

mod figures;
mod limits;
mod place;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use figures::{Figures, Starved};
pub use limits::{Resources, Setting};
pub use place::{Place, View};

use super::child::Door;
use super::run::ProcessId;
use crate::backend::BackendError;

/// How long freezing may take: a process in uninterruptible sleep freezes when it wakes up.
const FREEZING: Duration = Duration::from_secs(2);

/// How the name of each group begins.
const PREFIX: &str = "wharf-";

/// The group of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(PathBuf);

/// The controllers that these settings need.
pub fn controllers(settings: &[Setting]) -> BTreeSet<&'static str> {
    settings.iter().map(|setting| setting.controller).collect()
}

/// Takes this process out of the groups of runs, into the nearest group above them that takes it: a supervisor that a
/// service's command has started, or one beside it, is no part of that run. Where none takes it, it stays.
pub fn leave_runs() {
    let view = View::new();
    let Some((mount, own)) = view.own_dir() else {
        return;
    };
    let above = own.ancestors().take_while(|dir| dir.starts_with(&mount));
    let Some(outermost) = above.filter(|dir| is_of_a_run(dir)).last() else {
        return;
    };
    for dir in outermost.ancestors().skip(1) {
        if !dir.starts_with(&mount) || put(&dir.join("cgroup.procs"), "0").is_ok() {
            return;
        }
    }
}

/// Whether a directory is the group of a run, of whatever project.
fn is_of_a_run(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str());
    let id = name
        .and_then(|name| name.strip_prefix(PREFIX))
        .and_then(|name| Some(name.split_once('-')?.1));
    id.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl Group {
    /// The group that a run has in this place, made or not. `tag` stands for the project's state.
    pub fn planned(place: &Place, tag: &str, run_id: &str) -> Self {
        Self(place.dir.join(format!("{PREFIX}{tag}-{run_id}")))
    }

    /// The groups in a directory that runs of the project with this tag have, with their run ids.
    pub fn of_project(dir: &Path, tag: &str) -> Vec<(String, Self)> {
        let run_id = |name: &str| {
            let id = name.strip_prefix(PREFIX)?.strip_prefix(tag)?;
            Some(id.strip_prefix('-')?.to_owned())
        };
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let id = run_id(entry.file_name().to_str()?)?;
                Some((id, Self(entry.path())))
            })
            .collect()
    }

    /// The group that the ledger names for a run; `None` for anything but a group of that run.
    pub fn of_run(path: &Path, run_id: &str) -> Option<Self> {
        let own = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
        // Earlier versions named it after the run alone.
        let of_run = own.rsplit_once('-').map_or(own, |(_, id)| id);
        (path.is_absolute() && of_run == run_id).then(|| Self(path.to_owned()))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it for an instance, and opens the way into it. `None` where there can be no group: then the run
    /// ends by signals alone.
    ///
    /// # Errors
    /// The limits of the instance cannot be set.
    pub fn open(
        &self,
        place: &Place,
        settings: &[Setting],
        instance: &str,
    ) -> Result<Option<Door>, BackendError> {
        let is_needed = controllers(settings)
            .iter()
            .any(|controller| place.controllers.contains(controller));
        match self
            .make(place, settings)
            .and_then(|()| self.door(is_needed))
        {
            Ok(door) => Ok(Some(door)),
            Err(source) if is_needed => {
                drop(self.remove());
                Err(BackendError::State {
                    action: format!("cannot limit {instance} in {}", self.0.display()),
                    source,
                })
            }
            Err(_) => Ok(None),
        }
    }

    /// Makes it, with those settings that its place has controllers for.
    fn make(&self, place: &Place, settings: &[Setting]) -> io::Result<()> {
        let possible = |setting: &&Setting| place.controllers.contains(setting.controller);
        for controller in &place.controllers {
            put(
                &place.dir.join("cgroup.subtree_control"),
                &format!("+{controller}"),
            )?;
        }
        fs::create_dir(&self.0)?;
        for setting in settings.iter().filter(possible) {
            match put(&self.0.join(setting.file), &setting.value) {
                // A kernel without accounting of swap has no file for it.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && setting.file == "memory.swap.max" => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// The way into it, for a process that may or may not be run outside.
    pub fn door(&self, is_needed: bool) -> io::Result<Door> {
        let dir = File::open(&self.0)?.into();
        Ok(Door { dir, is_needed })
    }

    /// The living processes in it and in groups that its processes have made below it.
    pub fn members(&self) -> Vec<ProcessId> {
        let pids = self.pids().into_iter();
        pids.filter_map(ProcessId::of)
            .filter(|id| id.is_alive())
            .collect()
    }

    /// The pids of its processes and of those in groups below it, as the kernel lists them: some may be ending.
    pub fn pids(&self) -> Vec<u32> {
        let mut found = Vec::new();
        for dir in self.below() {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            // 0 stands for a process of another pid namespace.
            let pids = text.lines().filter_map(|line| line.parse::<u32>().ok());
            found.extend(pids.filter(|pid| *pid != 0));
        }
        found
    }

    /// Whether there is any process in it.
    pub fn is_populated(&self) -> bool {
        let text = fs::read_to_string(self.0.join("cgroup.events"));
        text.is_ok_and(|text| event(&text, "populated") == Some(true))
    }

    /// SIGKILL to everything in it, in one step that no fork escapes. `Err` where the kernel cannot (before
    /// 5.14) or the group has gone.
    pub fn kill(&self) -> io::Result<()> {
        put(&self.0.join("cgroup.kill"), "1")
    }

    /// Freezes everything in it and returns when it is frozen.
    pub fn freeze(&self) -> io::Result<()> {
        put(&self.0.join("cgroup.freeze"), "1")?;
        let mut file = File::open(self.0.join("cgroup.events"))?;
        let until = Instant::now() + FREEZING;
        loop {
            // Read by the descriptor that is waited on: a change since then wakes the wait.
            file.rewind()?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            if event(&text, "frozen") == Some(true) {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "a process in it does not come to rest",
                ));
            }
            let mut fds = [PollFd::new(&file, PollFlags::PRI)];
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        }
    }

    /// Lets everything in it go on.
    pub fn thaw(&self) -> io::Result<()> {
        put(&self.0.join("cgroup.freeze"), "0")
    }

    /// Removes it; one that is not there is none.
    pub fn remove(&self) -> io::Result<()> {
        for dir in self.below().into_iter().rev() {
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Itself and all groups below it, each before those below it.
    fn below(&self) -> Vec<PathBuf> {
        let mut all = vec![self.0.clone()];
        let mut at = 0;
        while let Some(dir) = all.get(at) {
            let inner: Vec<PathBuf> = fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .collect();
            all.extend(inner);
            at += 1;
        }
        all
    }
}

/// A line of `cgroup.events`.
fn event(text: &str, name: &str) -> Option<bool> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        Some(value != "0")
    })
}

/// Files of the kernel exist already and take a value in one write.
fn put(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_group_of_the_run_is_taken_from_the_ledger() {
        let of_run = |path: &str| Group::of_run(Path::new(path), "abc").is_some();
        assert!(of_run("/sys/fs/cgroup/wharf-abc"));
        assert!(of_run("/sys/fs/cgroup/wharf-0f-abc"));
        assert!(!of_run("/sys/fs/cgroup/wharf-abc-0f"));
        assert!(!of_run("/sys/fs/cgroup/wharf-other"));
        assert!(!of_run("/sys/fs/cgroup"));
        assert!(!of_run("wharf-abc"));
    }

    #[test]
    fn a_group_of_a_run_is_known_by_its_name() {
        let run = "0123456789abcdef".repeat(2);
        assert!(is_of_a_run(Path::new(&format!("/g/wharf-0f-{run}"))));
        for other in ["wharf-0f", "wharf-0f-main", "user.slice", &run] {
            assert!(!is_of_a_run(&Path::new("/g").join(other)), "{other}");
        }
    }

    #[test]
    fn a_group_that_has_gone_is_empty_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let group = Group::of_run(&root.path().join("wharf-abc"), "abc").unwrap();
        assert!(!group.is_populated());
        assert!(group.members().is_empty());
        assert!(group.kill().is_err());
        group.remove().unwrap();
    }

    #[test]
    fn the_groups_of_a_project_are_told_by_its_tag() {
        let root = tempfile::tempdir().unwrap();
        for name in ["wharf-0f-abc", "wharf-0e-abc", "wharf-abc", "0f-abc"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let found = Group::of_project(root.path(), "0f");
        let own = Group(root.path().join("wharf-0f-abc"));
        assert_eq!(found, [("abc".to_owned(), own)]);
    }

    #[test]
    fn limits_are_written_where_their_controllers_are() {
        let root = tempfile::tempdir().unwrap();
        let place = Place {
            dir: root.path().to_owned(),
            controllers: BTreeSet::from(["pids"]),
            lacks: None,
        };
        fs::write(root.path().join("cgroup.subtree_control"), "").unwrap();
        let settings = Resources {
            nano_cpus: Some(1),
            pids: Some(5),
            ..Resources::default()
        }
        .settings();
        let group = Group::planned(&place, "0f", "abc");
        // The directory of a test has no files of the kernel's.
        let error = group.make(&place, &settings).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(group.path().is_dir());
        group.remove().unwrap();
        assert!(!group.path().exists());
        let handed_on = fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(handed_on, "+pids");
    }
}
