//! Triggers and changed paths → work. Pure: ignore files come in as text.
//!
//! Patterns are those of `.dockerignore`, also in `ignore` and `include` of a trigger, where they are
//! relative to its path (compose specification, 16-develop).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::batch::Changes;
use super::gitignore::Gitignore;
use crate::backend::container::ignore::Ignore;
use crate::project::model::{Hook, Reaction, Trigger};

/// What editors leave for a moment, and what belongs to Git, as Docker Compose passes over it; and what Python
/// writes beside the files that it reads, or a process would be restarted because it was started.
const NEVER: &str = "\
**/.git
**/*___jb_old___
**/*___jb_tmp___
**/.idea/**
**/.#*
**/4913
**/*~
**/.*.swp
**/.*.swx
**/.*.swo
**/.*.swn
**/.*.kate-swp
**/__pycache__
";

/// What an initial sync passes over on top of that.
const NOT_AT_FIRST: &str = "\
**/Dockerfile
**/compose.yaml
**/compose.yml
**/docker-compose.yml
**/docker-compose.yaml
**/compose.override.yml
**/compose.override.yaml
**/docker-compose.override.yml
**/docker-compose.override.yaml
";

/// By whose rules an ignore file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `.dockerignore`.
    Docker,
    /// `.gitignore`.
    Git,
}

/// An ignore file: the directory that its patterns are relative to, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreFile {
    /// How it is read.
    pub syntax: Syntax,
    /// The build context, or where Git's file is.
    pub root: PathBuf,
    /// The patterns.
    pub text: String,
}

/// A trigger of a service with its patterns read.
#[derive(Debug)]
pub struct Rule {
    /// The service.
    pub service: String,
    /// The trigger.
    pub trigger: Trigger,
    include: Option<Ignore>,
    ignore: Ignore,
    never: Ignore,
    not_at_first: Ignore,
    files: Vec<(PathBuf, Ignore)>,
    git: Gitignore,
}

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a pattern")]
pub struct BadPattern(String);

fn read(text: &str) -> Result<Ignore, BadPattern> {
    Ignore::parse(text).map_err(|bad| BadPattern(bad.text))
}

/// A file of this machine and its place in the container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Here.
    pub host: PathBuf,
    /// There, absolute.
    pub inside: String,
}

/// What changed paths ask for, by service.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// To build and make anew.
    pub rebuild: BTreeSet<String>,
    /// To copy, or to remove where a file is gone.
    pub sync: BTreeMap<String, BTreeSet<Pair>>,
    /// Commands to run after copying.
    pub exec: BTreeMap<String, Vec<Hook>>,
    /// To restart after copying.
    pub restart: BTreeSet<String>,
}

impl Rule {
    /// Reads the patterns of a trigger. Of Git's files, those above come before those below.
    ///
    /// # Errors
    /// One that is none.
    pub fn new(
        service: &str,
        trigger: &Trigger,
        ignore_files: &[IgnoreFile],
    ) -> Result<Self, BadPattern> {
        let include = trigger.include.join("\n");
        let of = |syntax| {
            let files = ignore_files.iter();
            files.filter(move |file| file.syntax == syntax)
        };
        let mut git = Gitignore::default();
        for file in of(Syntax::Git) {
            git.add(&file.root, &file.text);
        }
        git.let_in(&trigger.path);
        Ok(Self {
            service: service.to_owned(),
            trigger: trigger.clone(),
            include: if trigger.include.is_empty() {
                None
            } else {
                Some(read(&include)?)
            },
            ignore: read(&trigger.ignore.join("\n"))?,
            never: read(NEVER)?,
            not_at_first: read(NOT_AT_FIRST)?,
            files: of(Syntax::Docker)
                .map(|file| Ok((file.root.clone(), read(&file.text)?)))
                .filter(|file| {
                    // What is to be watched is watched, whatever else its place is left out of. Of the directory
                    // that it is in, a file says nothing.
                    let leaves_all_out = |(root, ignore): &(PathBuf, Ignore)| {
                        let below = trigger.path.strip_prefix(root);
                        below.is_ok_and(|below| {
                            !below.as_os_str().is_empty()
                                && ignore.excludes(&below.to_string_lossy())
                        })
                    };
                    !file.as_ref().is_ok_and(leaves_all_out)
                })
                .collect::<Result<_, _>>()?,
            git,
        })
    }

    /// Adds a `.gitignore` that is below the trigger's path, after those above it.
    pub fn add_git(&mut self, root: &Path, text: &str) {
        self.git.add(root, text);
    }

    /// Whether a change of this path counts.
    pub fn counts(&self, path: &Path, is_directory: bool) -> bool {
        let Ok(relative) = path.strip_prefix(&self.trigger.path) else {
            return false;
        };
        let relative = relative.to_string_lossy();
        let included = self
            .include
            .as_ref()
            .is_none_or(|include| relative.is_empty() || include.excludes(&relative));
        included && !self.ignores(path, is_directory)
    }

    /// Whether nothing below this directory can count.
    pub fn skips(&self, directory: &Path) -> bool {
        if !directory.starts_with(&self.trigger.path) {
            // On the way to the trigger's path, or elsewhere.
            return !self.trigger.path.starts_with(directory);
        }
        let reached = |root: &Path, ignore: &Ignore| {
            directory
                .strip_prefix(root)
                .is_ok_and(|relative| ignore.reaches_into(&relative.to_string_lossy()))
        };
        let let_in = reached(&self.trigger.path, &self.ignore)
            || self
                .files
                .iter()
                .any(|(root, ignore)| reached(root, ignore));
        // Git lets nothing in again.
        self.is_git_s(directory, true) || self.ignores(directory, true) && !let_in
    }

    fn is_git_s(&self, path: &Path, is_directory: bool) -> bool {
        self.git.excludes(&self.trigger.path, path, is_directory)
    }

    fn ignores(&self, path: &Path, is_directory: bool) -> bool {
        let below = |root: &Path, ignore: &Ignore| match path.strip_prefix(root) {
            Ok(relative) if !relative.as_os_str().is_empty() => {
                ignore.excludes(&relative.to_string_lossy())
            }
            Ok(_) | Err(_) => false,
        };
        below(&self.trigger.path, &self.ignore)
            || below(&self.trigger.path, &self.never)
            || self.files.iter().any(|(root, ignore)| below(root, ignore))
            || self.is_git_s(path, is_directory)
    }

    /// Whether a file is copied before the first change.
    pub fn counts_at_first(&self, path: &Path) -> bool {
        let relative = path.strip_prefix(&self.trigger.path).unwrap_or(path);
        self.counts(path, false) && !self.not_at_first.excludes(&relative.to_string_lossy())
    }

    /// Where a path of the trigger is in the container.
    pub fn pair(&self, path: &Path) -> Option<Pair> {
        let relative = path.strip_prefix(&self.trigger.path).ok()?;
        let target = self.trigger.target.as_deref()?.trim_end_matches('/');
        let relative = relative.to_string_lossy();
        let inside = if relative.is_empty() {
            target.to_owned()
        } else {
            format!("{target}/{relative}")
        };
        Some(Pair {
            host: path.to_owned(),
            inside,
        })
    }
}

/// What these changes ask for.
pub fn work(rules: &[Rule], changes: &Changes) -> Work {
    let mut work = Work::default();
    for rule in rules {
        let is_covered = |spared: &BTreeSet<String>| {
            rule.trigger.reaction.renews() && spared.contains(&rule.service)
        };
        let counting: Vec<&PathBuf> = changes
            .iter()
            .filter(|(path, change)| {
                rule.counts(path, change.is_directory) && !is_covered(&change.spared)
            })
            .map(|(path, _)| path)
            .collect();
        if counting.is_empty() {
            continue;
        }
        let service = || rule.service.clone();
        if rule.trigger.reaction.syncs() {
            let pairs = counting.into_iter().filter_map(|path| rule.pair(path));
            work.sync.entry(service()).or_default().extend(pairs);
        }
        match rule.trigger.reaction {
            Reaction::Rebuild => drop(work.rebuild.insert(service())),
            Reaction::Restart | Reaction::SyncRestart => drop(work.restart.insert(service())),
            Reaction::SyncExec => {
                let hooks = work.exec.entry(service()).or_default();
                hooks.extend(rule.trigger.exec.clone());
            }
            Reaction::Sync => {}
        }
    }
    // Made anew, it has started already.
    work.restart
        .retain(|service| !work.rebuild.contains(service));
    work
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::batch::Change;

    fn trigger(path: &str, reaction: Reaction) -> Trigger {
        Trigger {
            path: path.into(),
            reaction,
            target: Some("/app".to_owned()),
            exec: None,
            include: Vec::new(),
            ignore: Vec::new(),
            initial_sync: false,
        }
    }

    fn rule(trigger: &Trigger) -> Rule {
        Rule::new("web", trigger, &[]).unwrap()
    }

    #[test]
    fn what_editors_and_git_leave_does_not_count() {
        let rule = rule(&trigger("/p", Reaction::Sync));
        for path in ["/p/a.py", "/p/src/b", "/p", "/p/.github/x", "/p/.env"] {
            assert!(rule.counts(Path::new(path), false), "{path}");
        }
        for path in [
            "/p/.git/index",
            "/p/sub/.git/HEAD",
            "/p/a.py~",
            "/p/src/.a.py.swp",
            "/p/4913",
            "/p/.idea/x.xml",
            "/p/x___jb_tmp___",
            "/other/a.py",
            "/pp/a.py",
        ] {
            assert!(!rule.counts(Path::new(path), false), "{path}");
        }
        assert!(rule.skips(Path::new("/p/.git")));
        assert!(!rule.skips(Path::new("/p/src")));
        assert!(!rule.skips(Path::new("/")), "it leads to the path");
        assert!(rule.skips(Path::new("/other")));
    }

    #[test]
    fn the_image_s_and_the_trigger_s_own_patterns() {
        let file = IgnoreFile {
            syntax: Syntax::Docker,
            root: "/p".into(),
            text: "node_modules\n*.log\n!keep.log\n".to_owned(),
        };
        let all = trigger("/p", Reaction::Sync);
        let mut trigger = trigger("/p/web", Reaction::Sync);
        trigger.ignore = vec!["dist".to_owned()];
        trigger.include = vec!["**/*.js".to_owned(), "dist".to_owned()];
        let rule = Rule::new("web", &trigger, std::slice::from_ref(&file)).unwrap();
        for (path, counts) in [
            ("/p/web/a.js", true),
            ("/p/web/sub/a.js", true),
            ("/p/web/a.css", false),
            ("/p/web/dist/a.js", false),
        ] {
            assert_eq!(rule.counts(Path::new(path), false), counts, "{path}");
        }
        let whole = Rule::new("web", &all, &[file]);
        let whole = whole.unwrap();
        for (path, counts) in [
            ("/p/node_modules/x/y", false),
            ("/p/a.log", false),
            ("/p/keep.log", true),
        ] {
            assert_eq!(whole.counts(Path::new(path), false), counts, "{path}");
        }
        assert!(whole.skips(Path::new("/p/node_modules")));
        assert!(
            Rule::new(
                "web",
                &Trigger {
                    ignore: vec!["[".into()],
                    ..trigger
                },
                &[]
            )
            .is_err()
        );
    }

    #[test]
    fn work_is_sorted_by_service_and_kind() {
        let sync = trigger("/p/src", Reaction::Sync);
        let restart = Trigger {
            path: "/p/src/config.toml".into(),
            target: Some("/etc/config.toml".into()),
            ..trigger("/p", Reaction::SyncRestart)
        };
        let rebuild = trigger("/p/Dockerfile", Reaction::Rebuild);
        let rules = [rule(&sync), rule(&restart), rule(&rebuild)];
        let changed = |paths: &[&str]| {
            let paths = paths.iter().map(PathBuf::from);
            paths.map(|path| (path, Change::default())).collect()
        };
        let found = work(&rules, &changed(&["/p/src/a/b.py", "/p/README.md"]));
        let pairs: Vec<&str> = found.sync["web"]
            .iter()
            .map(|pair| pair.inside.as_str())
            .collect();
        assert_eq!(pairs, ["/app/a/b.py"]);
        assert!(found.restart.is_empty() && found.rebuild.is_empty());
        let found = work(&rules, &changed(&["/p/src/config.toml"]));
        let pairs: Vec<&str> = found.sync["web"]
            .iter()
            .map(|pair| pair.inside.as_str())
            .collect();
        assert_eq!(pairs, ["/app/config.toml", "/etc/config.toml"]);
        assert!(found.restart.contains("web"));
        let found = work(&rules, &changed(&["/p/src/config.toml", "/p/Dockerfile"]));
        assert!(found.rebuild.contains("web") && found.restart.is_empty());
        assert_eq!(work(&rules, &changed(&["/q/a"])), Work::default());
        // Whoever made a change by being built copies it all the same, and need not be started anew.
        let spared = Change {
            spared: BTreeSet::from(["web".to_owned()]),
            is_directory: false,
        };
        let own = Changes::from([
            ("/p/src/config.toml".into(), spared.clone()),
            ("/p/Dockerfile".into(), spared),
        ]);
        let found = work(&rules, &own);
        assert!(found.rebuild.is_empty() && found.restart.is_empty());
        assert_eq!(found.sync["web"].len(), 1);
    }

    #[test]
    fn what_is_to_be_watched_is_watched_although_a_file_leaves_it_out() {
        let file = IgnoreFile {
            syntax: Syntax::Docker,
            root: "/p".into(),
            text: "**/dist\n**/*.log\n".to_owned(),
        };
        let at = |path: &str| trigger(path, Reaction::Restart);
        let files = [file];
        let counts = |rule: &Trigger, path: &str| {
            let rule = Rule::new("web", rule, &files).unwrap();
            rule.counts(Path::new(path), false)
        };
        assert!(!counts(&at("/p"), "/p/dist/a.js"));
        assert!(counts(&at("/p/dist"), "/p/dist/a.js"));
        assert!(!counts(&at("/p/src"), "/p/src/a.log"));
    }

    #[test]
    fn a_list_of_what_counts_is_one_for_the_directory_that_it_is_in() {
        let counts = |syntax, text: &str, at: &str, path: &str| {
            let file = IgnoreFile {
                syntax,
                root: "/p".into(),
                text: text.to_owned(),
            };
            let rule = Rule::new("web", &trigger(at, Reaction::Restart), &[file]).unwrap();
            rule.counts(Path::new(path), false)
        };
        for (syntax, text) in [
            (Syntax::Docker, "*\n!src\n"),
            (Syntax::Docker, "**\n!src/**\n"),
            (Syntax::Docker, "/*\n!/src\n"),
            (Syntax::Git, "/*\n!/src/\n"),
            (Syntax::Git, "*\n!src/\n!src/**\n"),
        ] {
            for (path, expected) in [
                ("/p/src/a", true),
                ("/p/other/x", false),
                ("/p/.env", false),
            ] {
                let found = counts(syntax, text, "/p", path);
                assert_eq!(found, expected, "{text:?}: {path}");
            }
            assert!(counts(syntax, text, "/p/src", "/p/src/a"), "{text:?}");
        }
        // What is to be watched is, although Git does not know it.
        assert!(counts(
            Syntax::Git,
            "dist/\n*.map\n",
            "/p/dist",
            "/p/dist/a.js"
        ));
        assert!(counts(Syntax::Git, "*\n", "/p/src", "/p/src/a"));
        assert!(counts(Syntax::Git, "*\n!.gitignore\n", "/p", "/p/a"));
    }

    #[test]
    fn git_s_directories_are_not_walked_and_its_files_are_seen() {
        let file = IgnoreFile {
            syntax: Syntax::Git,
            root: "/p".into(),
            text: "node_modules/\n.env.*\n!.env.example\nbuild/\n".to_owned(),
        };
        let rule = Rule::new("web", &trigger("/p", Reaction::Restart), &[file]).unwrap();
        assert!(rule.skips(Path::new("/p/node_modules")));
        assert!(!rule.counts(Path::new("/p/node_modules/a/.env.example"), false));
        assert!(!rule.skips(Path::new("/p/src")));
        assert!(rule.counts(Path::new("/p/sub/build"), false));
        assert!(!rule.counts(Path::new("/p/sub/build"), true));
    }
}
