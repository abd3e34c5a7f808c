//! The disk → paths that changed.
//!
//! One watch a directory, set by wharf itself rather than recursively: ignored directories (which hold most
//! files) cost nothing, and what lies in a directory that is new, moved or made again counts as changed.
//! The directory above each trigger's path is watched too, so that the path itself may come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub use super::inotify::Queue;
use super::inotify::{Happening, Inotify, Kind};
use super::rules::Rule;
use super::stamps::Stamps;
use super::way::way;

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The system gives no more watches.
    #[error("{} cannot be watched: the system's limit of watched directories is reached", .0.display())]
    Limit(PathBuf),
    /// Anything else.
    #[error("cannot watch {}", .path.display())]
    System {
        /// What was to be watched.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Paths that have changed.
pub type Found = BTreeMap<PathBuf, Told>;

/// What was told of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The first was that its name is new.
    pub is_new: bool,
    /// The last was that it is, or was, a directory.
    pub is_directory: bool,
}

/// Adds what was told later.
pub fn note(found: &mut Found, path: PathBuf, told: Told) {
    let all = found.entry(path).or_insert(told);
    all.is_directory = told.is_directory;
}

/// Where the patterns of rules come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Ignore files, there or not.
    pub files: BTreeSet<PathBuf>,
    /// Paths below which each `.gitignore` counts.
    pub by_git: BTreeSet<PathBuf>,
}

impl Sources {
    fn has(&self, path: &Path) -> bool {
        self.files.contains(path)
            || path.file_name().is_some_and(|name| name == ".gitignore") && self.is_below(path)
    }

    fn is_below(&self, path: &Path) -> bool {
        self.by_git.iter().any(|root| path.starts_with(root))
    }
}

/// Leaves what counts by some rules.
pub fn keep(found: &mut Found, rules: &[Rule]) {
    let counts = |path: &Path, told: &Told| {
        let mut rules = rules.iter();
        rules.any(|rule| rule.counts(path, told.is_directory))
    };
    found.retain(|path, told| counts(path, told));
}

/// The directories below the paths of some rules.
#[derive(Debug)]
pub struct Files {
    sources: Sources,
    /// Something happened at a source.
    is_stale: bool,
    inotify: Inotify,
    stamps: Stamps,
    /// For each rule, the names that decide where its path leads.
    ways: Vec<BTreeSet<PathBuf>>,
}

impl Files {
    /// From now on no change is missed.
    ///
    /// # Errors
    /// A directory that cannot be watched.
    pub fn watch(rules: &[Rule], sources: Sources) -> Result<Self, WatchError> {
        let mut files = Self {
            sources,
            is_stale: false,
            inotify: Inotify::new().map_err(|error| failed(Path::new("/"), error))?,
            stamps: Stamps::new(),
            ways: vec![BTreeSet::new(); rules.len()],
        };
        files.add_roots(rules, &mut Found::new())?;
        Ok(files)
    }

    /// How many directories are watched.
    pub fn directories(&self) -> usize {
        self.inotify.len()
    }

    /// Whether the patterns of the rules may have changed since this was asked last.
    pub fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.is_stale)
    }

    /// Goes on with other patterns: what they let in is watched from now on, and has not changed by that.
    ///
    /// # Errors
    /// A directory that cannot be watched.
    pub fn follow(&mut self, rules: &[Rule]) -> Result<(), WatchError> {
        self.add_roots(rules, &mut Found::new())
    }

    /// To wait for changes.
    pub fn queue(&self) -> Queue {
        self.inotify.queue()
    }

    /// All paths that have changed by now. May be empty: then what changed does not count. Where the rules are stale
    /// ([`Files::take_stale`]), those too that may count by others ([`keep`]).
    ///
    /// # Errors
    /// A new directory that cannot be watched.
    pub fn changed(&mut self, rules: &[Rule]) -> Result<Found, WatchError> {
        let mut found = Found::new();
        let events = self.inotify.read();
        for event in events.map_err(|error| failed(Path::new("/"), error))? {
            for happening in self.inotify.resolve(&event) {
                let (kind, path) = (happening.kind, happening.path.clone());
                self.take(happening, rules, &mut found)?;
                self.lead(kind, &path, rules, &mut found)?;
            }
        }
        if !self.is_stale {
            keep(&mut found, rules);
        }
        Ok(found)
    }

    fn take(
        &mut self,
        happening: Happening,
        rules: &[Rule],
        found: &mut Found,
    ) -> Result<(), WatchError> {
        let Happening {
            kind,
            path,
            is_directory,
        } = happening;
        let is_new = match kind {
            Kind::Lost => {
                self.is_stale = true;
                return self.add_roots(rules, found);
            }
            Kind::Left | Kind::Gone => {
                self.forget(&path);
                false
            }
            // Where there is a directory of that name again, it is another one.
            Kind::Made | Kind::Arrived | Kind::Ended => {
                self.forget(&path);
                true
            }
            Kind::Changed | Kind::Closed => false,
        };
        self.is_stale |= self.sources.has(&path);
        match fs::symlink_metadata(&path) {
            Ok(data) if data.is_dir() => {
                // The entries of one that is not new tell by themselves.
                if is_new {
                    self.add(&path, rules, true, found)?;
                    let told = Told {
                        is_new,
                        is_directory: true,
                    };
                    note(found, path, told);
                }
            }
            Ok(data) => {
                // What does not count is not kept in mind, either.
                // By what rules it counts that come after a source, is not known yet.
                let counts = self.is_stale || rules.iter().any(|rule| rule.counts(&path, false));
                if counts && (self.stamps.note(&path, &data) || kind != Kind::Closed) {
                    let told = Told {
                        is_new: kind == Kind::Made,
                        is_directory: false,
                    };
                    note(found, path, told);
                }
            }
            Err(_) => {
                self.stamps.forget(&path);
                let told = Told {
                    is_new: kind == Kind::Made,
                    is_directory,
                };
                note(found, path, told);
            }
        }
        Ok(())
    }

    /// Something happened on the way to paths of rules: at a link, or at what it leads to.
    fn lead(
        &mut self,
        kind: Kind,
        path: &Path,
        rules: &[Rule],
        found: &mut Found,
    ) -> Result<(), WatchError> {
        for (index, rule) in rules.iter().enumerate() {
            let way = &self.ways[index];
            let leads_through = kind == Kind::Ended
                && (rule.trigger.path.starts_with(path)
                    || way.iter().any(|name| name.starts_with(path)));
            if !way.contains(path) && !leads_through {
                continue;
            }
            let target = &rule.trigger.path;
            let data = fs::metadata(path);
            let is_directory = data.as_ref().is_ok_and(fs::Metadata::is_dir);
            match kind {
                Kind::Changed | Kind::Closed => {
                    let is_changed = match &data {
                        // Its entries tell by themselves.
                        Ok(data) if data.is_dir() => false,
                        Ok(data) => self.stamps.note(path, data) || kind != Kind::Closed,
                        Err(_) => true,
                    };
                    if !is_changed || target == path {
                        continue;
                    }
                }
                Kind::Made | Kind::Arrived | Kind::Left | Kind::Gone | Kind::Ended => {
                    if let Ok(data) = &data {
                        self.stamps.note(path, data);
                    }
                    // What is known of files stays: what a link leads to now is another file.
                    self.inotify.forget(target);
                    self.add_root(index, rules, found)?;
                    if leads_through {
                        // What was in it has told its end.
                        continue;
                    }
                }
                Kind::Lost => continue,
            }
            let told = Told {
                is_new: false,
                is_directory,
            };
            note(found, target.clone(), told);
        }
        Ok(())
    }

    /// Watches what lies above and below the paths of all rules.
    fn add_roots(&mut self, rules: &[Rule], found: &mut Found) -> Result<(), WatchError> {
        for index in 0..rules.len() {
            self.add_root(index, rules, found)?;
        }
        let above: BTreeSet<PathBuf> = (self.sources.files.iter())
            .filter_map(|file| Some(file.parent()?.to_owned()))
            .collect();
        for directory in above {
            self.set(&directory)?;
        }
        Ok(())
    }

    /// Watches what lies above and below the path of a rule, and on the way to it.
    fn add_root(
        &mut self,
        index: usize,
        rules: &[Rule],
        found: &mut Found,
    ) -> Result<(), WatchError> {
        let path = &rules[index].trigger.path;
        let above = path.parent().unwrap_or(path);
        let nearest = || above.ancestors().find(|directory| directory.is_dir());
        let mut there = nearest();
        while let Some(directory) = there {
            self.set(directory)?;
            // What is made from now on is told.
            let now = nearest();
            if now == there {
                break;
            }
            there = now;
        }
        // A link to a directory is not walked into, but may be the path itself.
        self.add(path, rules, false, found)?;
        let way = way(path);
        for name in &way {
            if let Some(above) = name.parent() {
                self.set(above)?;
            }
        }
        self.ways[index] = way;
        Ok(())
    }

    /// Watches a directory and those below it that can matter, and collects their files.
    fn add(
        &mut self,
        directory: &Path,
        rules: &[Rule],
        is_new: bool,
        found: &mut Found,
    ) -> Result<(), WatchError> {
        let mut open = vec![directory.to_owned()];
        while let Some(directory) = open.pop() {
            if rules.iter().all(|rule| rule.skips(&directory)) || !self.set(&directory)? {
                continue;
            }
            // Read after the watch was set: what comes later is told.
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) => {
                    passes(&directory, error)?;
                    continue;
                }
            };
            for entry in entries.flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(path);
                } else {
                    self.is_stale |= is_new && self.sources.has(&path);
                    let told = Told {
                        is_new,
                        is_directory: false,
                    };
                    note(found, path, told);
                }
            }
        }
        Ok(())
    }

    /// Whether a directory is there and watched now.
    fn set(&mut self, directory: &Path) -> Result<bool, WatchError> {
        match self.inotify.watch(directory) {
            Ok(()) => Ok(true),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOSPC) => {
                Err(WatchError::Limit(directory.to_owned()))
            }
            Err(error) => passes(directory, error).map(|()| false),
        }
    }

    /// A directory is gone or has another name: so have those below it.
    fn forget(&mut self, path: &Path) {
        self.inotify.forget(path);
        self.stamps.forget(path);
    }
}

/// What is gone by now, or closed to us, is not watched.
fn passes(directory: &Path, error: io::Error) -> Result<(), WatchError> {
    let is_theirs = matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    );
    if is_theirs {
        Ok(())
    } else {
        Err(failed(directory, error))
    }
}

fn failed(path: &Path, source: io::Error) -> WatchError {
    WatchError::System {
        path: path.to_owned(),
        source,
    }
}

/// All files below the path of a rule that are copied before the first change.
pub fn at_first(rule: &Rule) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![rule.trigger.path.clone()];
    while let Some(path) = open.pop() {
        let is_root = path == rule.trigger.path;
        let data = if is_root {
            fs::metadata(&path)
        } else {
            fs::symlink_metadata(&path)
        };
        // What is gone by now is told as a change.
        let Ok(data) = data else { continue };
        if !data.is_dir() {
            if rule.counts_at_first(&path) {
                files.push(path);
            }
        } else if (is_root || !rule.skips(&path))
            && let Ok(entries) = fs::read_dir(&path)
        {
            open.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    files
}

#[cfg(test)]
mod tests;
