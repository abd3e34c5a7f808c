//! The disk → paths that changed.
//!
//! One watch a directory, set by wharf itself rather than recursively: ignored directories (which hold most
//! files) cost nothing, and what lies in a directory that is new, moved or made again counts as changed.
//! The directory above each trigger's path is watched too, so that the path itself may come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub use super::inotify::Queue;
use super::inotify::{Happening, Inotify, Kind};
use super::own::Touched;
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

/// How much is read at most after a build to compare contents, in bytes.
const READ: u64 = 128 * 1024 * 1024;

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

/// The directories below the paths of some rules.
#[derive(Debug)]
pub struct Files {
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
    pub fn watch(rules: &[Rule]) -> Result<Self, WatchError> {
        let mut files = Self {
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

    /// To wait for changes.
    pub fn queue(&self) -> Queue {
        self.inotify.queue()
    }

    /// All paths that have changed by now. May be empty: then what changed does not count.
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
        found.retain(|path, told| {
            rules
                .iter()
                .any(|rule| rule.counts(path, told.is_directory))
        });
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
            Kind::Lost => return self.add_roots(rules, found),
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
                let counts = rules.iter().any(|rule| rule.counts(&path, false));
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

/// What is to be known of paths that changed while something was built.
pub fn touched(found: Found) -> Vec<Touched> {
    let mut room = READ;
    let look = |(path, told): (PathBuf, Told)| {
        let data = fs::symlink_metadata(&path).ok();
        let is_file = data
            .as_ref()
            .is_some_and(|data| data.is_file() && data.len() <= room);
        let mut contents = None;
        if is_file && let Ok((length, hash)) = hash(&path) {
            room = room.saturating_sub(length);
            contents = Some(hash);
        }
        Touched {
            was_there: !told.is_new,
            is_directory: told.is_directory,
            is_there: data.is_some(),
            contents,
            path,
        }
    };
    found.into_iter().map(look).collect()
}

/// Length and hash of a file's contents.
fn hash(path: &Path) -> io::Result<(u64, u64)> {
    let mut hasher = DefaultHasher::new();
    let mut length = 0;
    // It may grow while it is read.
    let mut file = fs::File::open(path)?.take(READ);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            hasher.write_u64(length);
            return Ok((length, hasher.finish()));
        }
        hasher.write(&buffer[..read]);
        length += read as u64;
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
                files.queue().ready().await;
                seen.extend(files.changed(rules).unwrap().into_keys());
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
    /// Writes through a mapping, which no event but the close tells.
    fn write_mapped(path: &Path) {
        let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm[0:1]=b'M'\nm.close()\nf.close()";
        let ended = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .status()
            .unwrap();
        assert!(ended.success());
    }

    #[tokio::test]
    async fn a_file_that_is_only_opened_for_writing_has_not_changed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::write(&path, "one").unwrap();
        // Stamps are ticks of a clock: what was written before lies before.
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        while written.elapsed().unwrap() < 2 * crate::watch::stamps::TICK {
            std::thread::yield_now();
        }
        let rules = rules(root.path());
        let mut files = Files::watch(&rules).unwrap();
        let mut of = |change: &dyn Fn()| {
            change();
            files.changed(&rules).unwrap().contains_key(&path)
        };
        let open = || fs::OpenOptions::new().append(true).open(&path).unwrap();
        let opened = || drop(open());
        assert!(!of(&opened), "never told of before");
        assert!(!of(&opened));
        assert!(of(&|| drop(fs::File::create(&path).unwrap())), "cut off");
        assert!(!of(&opened), "as told");
        assert!(of(&|| fs::write(&path, "two").unwrap()));
        assert!(!of(&opened), "as told");
        assert!(of(&|| write_mapped(&path)), "through a mapping");
        assert!(!of(&opened));
        assert!(of(&|| open().set_len(1).unwrap()));
        let new = root.path().join("new");
        fs::write(&new, "x").unwrap();
        assert!(of(&|| fs::rename(&new, &path).unwrap()), "renamed over");
        assert!(!of(&opened));
        assert!(of(&|| fs::set_permissions(
            &path,
            std::os::unix::fs::PermissionsExt::from_mode(0o600)
        )
        .unwrap()));
        assert!(of(&|| fs::remove_file(&path).unwrap()));
        assert!(of(&opened_new(&path)), "new and empty");
    }

    fn opened_new(path: &Path) -> impl Fn() {
        move || drop(fs::File::create_new(path).unwrap())
    }

    #[tokio::test]
    async fn what_is_written_through_a_mapping_first_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::write(&path, "one").unwrap();
        let rules = rules(root.path());
        let mut files = Files::watch(&rules).unwrap();
        write_mapped(&path);
        assert!(files.changed(&rules).unwrap().contains_key(&path));
    }
    /// Whether a change is told as one of a path.
    fn tells(files: &mut Files, rules: &[Rule], path: &Path, change: impl FnOnce()) -> bool {
        change();
        files.changed(rules).unwrap().contains_key(path)
    }

    #[tokio::test]
    async fn a_link_is_followed_wherever_it_leads() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let point = |to: &str| {
            std::os::unix::fs::symlink(to, at("new")).unwrap();
            fs::rename(at("new"), at("current")).unwrap();
        };
        for release in ["rel/1", "rel/2/sub"] {
            fs::create_dir_all(at(release)).unwrap();
            fs::write(at(release).join("f"), "x").unwrap();
        }
        point("rel/1");
        let path = at("current");
        let inside = path.join("f");
        let rules = rules(&path);
        let mut files = Files::watch(&rules).unwrap();
        let write = |name: &str| fs::write(at(name), "y").unwrap();
        assert!(tells(&mut files, &rules, &inside, || write("current/f")));
        assert!(tells(&mut files, &rules, &path, || point("rel/2")));
        assert!(tells(&mut files, &rules, &inside, || write("current/f")));
        let deep = path.join("sub/f");
        assert!(tells(&mut files, &rules, &deep, || write("rel/2/sub/f")));
        assert!(!tells(&mut files, &rules, &inside, || write("rel/1/f")));
        // It may lead to nothing for a while.
        assert!(tells(&mut files, &rules, &path, || point("rel/3")));
        let made = || {
            fs::create_dir(at("rel/3")).unwrap();
            write("rel/3/f");
        };
        assert!(tells(&mut files, &rules, &inside, made));
        assert!(tells(&mut files, &rules, &inside, || write("rel/3/f")));
        let replaced = || {
            fs::rename(at("rel/3"), at("rel/old")).unwrap();
            fs::rename(at("rel/1"), at("rel/3")).unwrap();
        };
        assert!(tells(&mut files, &rules, &path, replaced));
        assert!(tells(&mut files, &rules, &inside, || write("rel/3/f")));
        assert!(!tells(&mut files, &rules, &inside, || write("rel/old/f")));
        let removed = || fs::remove_file(&path).unwrap();
        assert!(tells(&mut files, &rules, &path, removed));
        assert!(tells(&mut files, &rules, &inside, || point("rel/2")));
        assert!(tells(&mut files, &rules, &inside, || write("rel/2/f")));
    }

    #[tokio::test]
    async fn a_file_behind_a_link_is_seen_where_it_is_written() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for directory in ["shared", "app"] {
            fs::create_dir(at(directory)).unwrap();
        }
        fs::write(at("shared/env"), "x").unwrap();
        std::os::unix::fs::symlink("../shared/env", at("app/.env")).unwrap();
        let path = at("app/.env");
        let rules = rules(&path);
        let mut files = Files::watch(&rules).unwrap();
        let write = |name: &str| fs::write(at(name), "y").unwrap();
        let mut told = |change: &dyn Fn()| tells(&mut files, &rules, &path, change);
        assert!(told(&|| write("app/.env")));
        assert!(told(&|| write("shared/env")));
        assert!(!told(&|| write("shared/other")));
        assert!(!told(&|| drop(
            fs::OpenOptions::new().append(true).open(&path)
        )));
        let saved = || {
            write("shared/env.new");
            fs::rename(at("shared/env.new"), at("shared/env")).unwrap();
        };
        assert!(told(&saved));
        assert!(told(&|| write("shared/env")));
        assert!(!told(&|| drop(
            fs::OpenOptions::new().append(true).open(&path)
        )));
        assert!(told(&|| fs::remove_dir_all(at("shared")).unwrap()));
        let again = || {
            fs::create_dir(at("shared")).unwrap();
            write("shared/env");
        };
        assert!(told(&again));
        assert!(told(&|| write("shared/env")));
    }

    #[tokio::test]
    async fn what_others_watch_has_not_changed_because_a_path_came() {
        let root = tempfile::tempdir().unwrap();
        let src = root.path().join("src");
        fs::create_dir(&src).unwrap();
        fs::write(src.join("a"), "x").unwrap();
        let mark = root.path().join("mark");
        let [of_src] = rules(&src);
        let [of_mark] = rules(&mark);
        let rules = [of_src, of_mark];
        let mut files = Files::watch(&rules).unwrap();
        fs::write(&mark, "x").unwrap();
        let found = files.changed(&rules).unwrap();
        assert_eq!(found.into_keys().collect::<Vec<_>>(), [mark]);
    }

    #[tokio::test]
    async fn the_directory_of_the_path_comes_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let above = root.path().join("conf");
        let path = above.join("one.toml");
        fs::create_dir(&above).unwrap();
        fs::write(&path, "x").unwrap();
        let rules = rules(&path);
        let mut files = Files::watch(&rules).unwrap();
        for _ in 0..2 {
            let removed = || fs::remove_dir_all(&above).unwrap();
            assert!(tells(&mut files, &rules, &path, removed));
            let made = || {
                fs::create_dir(&above).unwrap();
                fs::write(&path, "x").unwrap();
            };
            assert!(tells(&mut files, &rules, &path, made));
            let written = || fs::write(&path, "y").unwrap();
            assert!(tells(&mut files, &rules, &path, written));
        }
    }
}
