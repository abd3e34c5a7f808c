//! The disk → paths that changed.
//!
//! One watch a directory, set by wharf itself rather than recursively: ignored directories (which hold most
//! files) cost nothing, and what lies in a directory that is new, moved or made again counts as changed.
//! The directory above each trigger's path is watched too, so that the path itself may come and go.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Config, ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::rules::Rule;

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
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The directories below the paths of some rules.
#[derive(Debug)]
pub struct Files {
    watcher: RecommendedWatcher,
    events: UnboundedReceiver<notify::Result<notify::Event>>,
    directories: BTreeSet<PathBuf>,
}

impl Files {
    /// From now on no change is missed.
    ///
    /// # Errors
    /// A directory that cannot be watched.
    pub fn watch(rules: &[Rule]) -> Result<Self, WatchError> {
        let (sender, events) = unbounded_channel();
        // Nobody listens any more when watching has ended.
        let tell = move |event| drop(sender.send(event));
        let config = Config::default().with_follow_symlinks(false);
        let watcher =
            RecommendedWatcher::new(tell, config).map_err(|error| failed(Path::new("/"), error))?;
        let mut files = Self {
            watcher,
            events,
            directories: BTreeSet::new(),
        };
        let mut found = BTreeSet::new();
        files.add_roots(rules, &mut found)?;
        Ok(files)
    }

    /// How many directories are watched.
    pub fn directories(&self) -> usize {
        self.directories.len()
    }

    /// The paths that have changed, once some have. May be empty: then what changed does not count.
    ///
    /// # Errors
    /// A new directory that cannot be watched.
    pub async fn changed(&mut self, rules: &[Rule]) -> Result<BTreeSet<PathBuf>, WatchError> {
        let mut found = BTreeSet::new();
        let Some(first) = self.events.recv().await else {
            // The watcher holds the other end as long as it lives.
            return std::future::pending().await;
        };
        self.take(first, rules, &mut found)?;
        while let Ok(event) = self.events.try_recv() {
            self.take(event, rules, &mut found)?;
        }
        found.retain(|path| rules.iter().any(|rule| rule.counts(path)));
        Ok(found)
    }

    fn take(
        &mut self,
        event: notify::Result<notify::Event>,
        rules: &[Rule],
        found: &mut BTreeSet<PathBuf>,
    ) -> Result<(), WatchError> {
        let event = event.map_err(|error| {
            let path = error.paths.first().cloned().unwrap_or_default();
            failed(&path, error)
        })?;
        if event.need_rescan() {
            // Changes were lost: everything counts as changed.
            return self.add_roots(rules, found);
        }
        let counts = match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            EventKind::Any
            | EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Remove(_)
            | EventKind::Other => true,
        };
        if !counts {
            return Ok(());
        }
        let moved = matches!(
            event.kind,
            EventKind::Remove(_)
                | EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::Both))
        );
        for path in event.paths {
            if moved {
                self.forget(&path);
            }
            let is_new = matches!(
                event.kind,
                EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_))
            );
            let is_directory = fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir());
            match (is_directory, is_new) {
                (true, true) => {
                    self.forget(&path);
                    self.add(&path, rules, found)?;
                    found.insert(path);
                }
                // Its entries tell by themselves.
                (true, false) => {}
                (false, _) => drop(found.insert(path)),
            }
        }
        Ok(())
    }

    /// Watches what lies above and below the paths of all rules.
    fn add_roots(
        &mut self,
        rules: &[Rule],
        found: &mut BTreeSet<PathBuf>,
    ) -> Result<(), WatchError> {
        for rule in rules {
            let path = &rule.trigger.path;
            let above = path.parent().unwrap_or(path);
            let there = above.ancestors().find(|directory| directory.is_dir());
            if let Some(there) = there {
                self.add(there, rules, found)?;
            }
            // A link to a directory is not walked into, but may be the path itself.
            self.add(path, rules, found)?;
        }
        Ok(())
    }

    /// Watches a directory and those below it that can matter, and collects their files.
    fn add(
        &mut self,
        directory: &Path,
        rules: &[Rule],
        found: &mut BTreeSet<PathBuf>,
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
                    found.insert(path);
                }
            }
        }
        Ok(())
    }

    /// Whether a directory is there and watched now.
    fn set(&mut self, directory: &Path) -> Result<bool, WatchError> {
        if !directory.is_dir() {
            return Ok(false);
        }
        match self.watcher.watch(directory, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.directories.insert(directory.to_owned());
                Ok(true)
            }
            Err(error) => match error.kind {
                ErrorKind::PathNotFound => Ok(false),
                ErrorKind::MaxFilesWatch => Err(WatchError::Limit(directory.to_owned())),
                ErrorKind::Io(error) => passes(directory, error).map(|()| false),
                ErrorKind::Generic(_) | ErrorKind::WatchNotFound | ErrorKind::InvalidConfig(_) => {
                    Err(failed(directory, error))
                }
            },
        }
    }

    /// A directory is gone or has another name: so have those below it.
    fn forget(&mut self, path: &Path) {
        let gone: Vec<PathBuf> = self
            .directories
            .range(path.to_owned()..)
            .take_while(|directory| directory.starts_with(path))
            .cloned()
            .collect();
        for directory in gone {
            self.directories.remove(&directory);
            // A watch goes with its directory; only one that was moved has one left.
            drop(self.watcher.unwatch(&directory));
        }
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

fn failed(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> WatchError {
    WatchError::System {
        path: path.to_owned(),
        source: error.into(),
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
mod tests {
    use super::*;
    use crate::project::model::{Reaction, Trigger};
    use std::time::Duration;

    fn rules(path: &Path) -> [Rule; 1] {
        let trigger = Trigger {
            path: path.to_owned(),
            reaction: Reaction::Restart,
            target: None,
            exec: None,
            include: Vec::new(),
            ignore: vec!["ignored".to_owned()],
            initial_sync: false,
        };
        [Rule::new("web", &trigger, &[]).unwrap()]
    }

    /// Collects changes until all of these are among them.
    async fn until(files: &mut Files, rules: &[Rule], wanted: &[PathBuf]) -> BTreeSet<PathBuf> {
        let mut seen = BTreeSet::new();
        let all = async {
            while !wanted.iter().all(|path| seen.contains(path)) {
                seen.extend(files.changed(rules).await.unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .unwrap_or_else(|_| panic!("{wanted:?} were not told"));
        seen
    }

    #[tokio::test]
    async fn new_directories_moves_and_bursts_are_seen() {
        let root = tempfile::tempdir().unwrap();
        let src = root.path().join("src");
        fs::create_dir_all(src.join("ignored")).unwrap();
        fs::create_dir_all(src.join(".git")).unwrap();
        let rules = rules(&src);
        let mut files = Files::watch(&rules).unwrap();
        assert_eq!(files.directories(), 2, "the path and the one above it");

        // A burst in directories that did not exist.
        let burst: Vec<PathBuf> = (0..1000)
            .map(|n| src.join(format!("d{}/e/f{n}", n % 10)))
            .collect();
        for path in &burst {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        fs::write(src.join("ignored/x"), "x").unwrap();
        let seen = until(&mut files, &rules, &burst).await;
        assert!(
            !seen
                .iter()
                .any(|path| path.starts_with(src.join("ignored")))
        );

        // Saved by renaming; deleted and made again.
        let file = src.join("d1/e/f1");
        fs::write(src.join("d1/e/f1.new"), "y").unwrap();
        fs::rename(src.join("d1/e/f1.new"), &file).unwrap();
        until(&mut files, &rules, std::slice::from_ref(&file)).await;
        fs::remove_file(&file).unwrap();
        until(&mut files, &rules, std::slice::from_ref(&file)).await;
        fs::write(&file, "z").unwrap();
        until(&mut files, &rules, std::slice::from_ref(&file)).await;

        // A directory that was moved is watched by its new name.
        fs::rename(src.join("d1"), src.join("moved")).unwrap();
        let inside = src.join("moved/e/f1");
        until(&mut files, &rules, &[src.join("d1"), inside.clone()]).await;
        fs::write(&inside, "again").unwrap();
        let seen = until(&mut files, &rules, &[inside]).await;
        assert!(!seen.iter().any(|path| path.starts_with(src.join("d1"))));
    }

    #[tokio::test]
    async fn the_path_itself_comes_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("later/config.toml");
        let rules = rules(&path);
        let mut files = Files::watch(&rules).unwrap();
        for _ in 0..2 {
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            until(&mut files, &rules, std::slice::from_ref(&path)).await;
            fs::remove_dir_all(path.parent().unwrap()).unwrap();
            until(&mut files, &rules, std::slice::from_ref(&path)).await;
        }
    }
}
