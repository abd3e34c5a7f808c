//! What builds write themselves into watched paths, told from what users change meanwhile. Pure.
//!
//! Nothing says who wrote a file. So a change that falls into a build counts, and has the service built once more,
//! until one of these says that it is the build's own:
//!
//! - The contents are those that the build before left: nothing has changed, for nobody. So the second build ends it
//!   for all that builds the same from the same.
//! - It has fallen into `OFTEN` builds of the service and never beside one: contents differ, but only builds change
//!   it. What is changed beside a build is somebody's work again.
//! - The service has been built `IN_A_ROW` times without a change that no build has made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::batch::{Change, Changes};

/// The build that is the last to be repeated for what only builds have changed so far, and one more.
const OFTEN: u8 = 3;

/// How often a service is built for changes that fell into builds, whatever they are.
const IN_A_ROW: u8 = 5;

/// A path that changed while something was built.
#[derive(Clone, Debug)]
pub struct Touched {
    /// Which.
    pub path: PathBuf,
    /// Whether it may have been there before.
    pub was_there: bool,
    /// Whether it is there now.
    pub is_there: bool,
    /// Whether it is, or was, a directory.
    pub is_directory: bool,
    /// What stands for the contents, if that can be told.
    pub contents: Option<u64>,
}

/// For whom a change is nothing new.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Changed paths, with the services that need not follow.
    pub changed: Changes,
    /// What was found to be the build's own now.
    pub own: Vec<PathBuf>,
    /// What would have the service built once more, and has been doing so for too long.
    pub given_up: Vec<PathBuf>,
}

/// What is known of the builds of all services.
#[derive(Debug, Default)]
pub struct Own {
    contents: BTreeMap<PathBuf, u64>,
    services: BTreeMap<String, Builds>,
}

/// What is known of the builds of a service.
#[derive(Debug, Default)]
struct Builds {
    times: BTreeMap<Place, u8>,
    own: BTreeSet<Place>,
    in_a_row: u8,
}

/// What builds change: a file, or which files are in a directory (some name them anew each time).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    File(PathBuf),
    Entries(PathBuf),
}

fn place(path: &Path, was_there: bool, is_there: bool) -> Place {
    match path.parent() {
        Some(parent) if !(was_there && is_there) => Place::Entries(parent.to_owned()),
        Some(_) | None => Place::File(path.to_owned()),
    }
}

impl Own {
    /// Something changed beside all builds.
    pub fn beside(&mut self, path: &Path, was_there: bool, is_there: bool) {
        self.contents.remove(path);
        let place = place(path, was_there, is_there);
        for builds in self.services.values_mut() {
            builds.in_a_row = 0;
            builds.times.remove(&place);
            builds.own.remove(&place);
        }
    }

    /// Whether nothing has been built yet.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// A service was built. `rebuilds`: whether a path has it built; `restarts`: it is started anew after this, so that
    /// it need not be for anything else.
    pub fn built(
        &mut self,
        service: &str,
        touched: &[Touched],
        rebuilds: impl Fn(&Path) -> bool,
        restarts: bool,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        let done: Vec<String> = self
            .services
            .iter()
            .filter(|(name, builds)| *name != service && builds.in_a_row >= IN_A_ROW)
            .map(|(name, _)| name.clone())
            .collect();
        let builds = self.services.entry(service.to_owned()).or_default();
        builds.in_a_row = builds.in_a_row.saturating_add(1);
        // Many paths may be of one place.
        let mut counted = BTreeSet::new();
        for touched in touched {
            let Touched {
                path,
                was_there,
                is_there,
                is_directory,
                contents,
            } = touched;
            let came_and_went = !was_there && !is_there;
            // Of a directory that was made anew, the entries tell.
            let is_as_before = *is_directory && *was_there && *is_there;
            if came_and_went || is_as_before {
                continue;
            }
            let place = place(path, *was_there, *is_there);
            let before = match contents {
                Some(contents) => self.contents.insert(path.clone(), *contents),
                None => self.contents.remove(path),
            };
            if contents.is_some() && before == *contents {
                if builds.own.insert(place) {
                    verdict.own.push(path.clone());
                }
                continue;
            }
            let follows = rebuilds(path);
            let mut spared: BTreeSet<String> = done.iter().cloned().collect();
            if builds.own.contains(&place) || !follows && restarts {
                spared.insert(service.to_owned());
            } else if follows {
                let times = builds.times.entry(place.clone()).or_default();
                if counted.insert(place.clone()) {
                    *times = times.saturating_add(1);
                }
                if *times >= OFTEN {
                    builds.own.insert(place);
                    verdict.own.push(path.clone());
                    spared.insert(service.to_owned());
                } else if builds.in_a_row >= IN_A_ROW {
                    verdict.given_up.push(path.clone());
                    spared.insert(service.to_owned());
                }
            }
            let change = Change {
                is_directory: *is_directory,
                spared,
            };
            verdict.changed.insert(path.clone(), change);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(path: &str, contents: u64) -> Touched {
        Touched {
            path: path.into(),
            was_there: true,
            is_there: true,
            is_directory: false,
            contents: Some(contents),
        }
    }

    /// Builds `a`; the paths that have it built again.
    fn build(own: &mut Own, touched: &[Touched]) -> Vec<PathBuf> {
        let verdict = own.built("a", touched, |_| true, true);
        let again = verdict.changed.into_iter();
        again
            .filter(|(_, change)| !change.spared.contains("a"))
            .map(|(path, _)| path)
            .collect()
    }

    fn paths(all: &[&str]) -> Vec<PathBuf> {
        all.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn the_same_contents_are_no_change_and_show_whose_they_are() {
        let mut own = Own::default();
        assert_eq!(build(&mut own, &[wrote("/out", 1)]), paths(&["/out"]));
        assert!(build(&mut own, &[wrote("/out", 1)]).is_empty());
        // From then on it is the build's, whatever it writes; what a user saves meanwhile is not.
        own.beside(Path::new("/in"), true, true);
        let both = [wrote("/in", 7), wrote("/out", 2)];
        assert_eq!(build(&mut own, &both), paths(&["/in"]));
        assert!(build(&mut own, &[wrote("/out", 3)]).is_empty());
        // By hand, beside a build.
        own.beside(Path::new("/out"), true, true);
        assert_eq!(build(&mut own, &[wrote("/out", 4)]), paths(&["/out"]));
    }

    #[test]
    fn an_edit_within_a_build_counts_for_others_and_for_the_build() {
        let mut own = Own::default();
        build(&mut own, &[wrote("/out", 1)]);
        let verdict = own.built("a", &[wrote("/out", 1), wrote("/b", 2)], |_| true, true);
        assert_eq!(verdict.own, paths(&["/out"]));
        let changed = Changes::from([("/b".into(), Change::default())]);
        assert_eq!(verdict.changed, changed);
        // Edited once more in the build that this began.
        assert_eq!(build(&mut own, &[wrote("/b", 3)]), paths(&["/b"]));
        assert!(build(&mut own, &[]).is_empty());
    }

    #[test]
    fn what_only_builds_change_is_theirs_although_it_differs() {
        // An incremental build: the second one has nothing to do.
        let mut own = Own::default();
        for (round, expected) in [&["/out"][..], &["/out"], &[], &[]].into_iter().enumerate() {
            own.beside(Path::new("/in"), true, true);
            let contents = round as u64;
            let again = build(&mut own, &[wrote("/out", contents)]);
            assert_eq!(again, paths(expected), "{round}");
            if !expected.is_empty() {
                assert!(build(&mut own, &[]).is_empty());
            }
        }
        // One that writes the time into it.
        let mut own = Own::default();
        let counts: Vec<usize> = (0..4)
            .map(|time| build(&mut own, &[wrote("/out", time)]).len())
            .collect();
        assert_eq!(counts, [1, 1, 0, 0]);
    }

    #[test]
    fn names_that_come_and_go_with_each_build_are_its_own() {
        let mut own = Own::default();
        let emptied = Touched {
            is_directory: true,
            contents: None,
            ..wrote("/dist", 0)
        };
        assert!(build(&mut own, &[emptied]).is_empty());
        let hashed = |n: u64| {
            let new = Touched {
                was_there: false,
                ..wrote(&format!("/dist/app.{n}.js"), n)
            };
            let old = Touched {
                is_there: false,
                contents: None,
                ..wrote(&format!("/dist/app.{}.js", n - 1), 0)
            };
            let temporary = Touched {
                is_directory: false,
                was_there: false,
                is_there: false,
                contents: None,
                path: "/dist/tmp".into(),
            };
            [new, old, temporary]
        };
        assert_eq!(build(&mut own, &hashed(1)).len(), 2);
        assert_eq!(build(&mut own, &hashed(2)).len(), 2);
        assert!(build(&mut own, &hashed(3)).is_empty());
        assert!(build(&mut own, &hashed(4)).is_empty());
        // Of whatever name, there is an end to it.
        let mut own = Own::default();
        let many = |n| {
            [
                wrote(&format!("/dist/{n}"), n),
                wrote(&format!("/dist/b{n}"), n),
            ]
        };
        let counts: Vec<usize> = (0..6).map(|n| build(&mut own, &many(n)).len()).collect();
        assert_eq!(counts, [2, 2, 2, 2, 0, 0]);
        own.beside(Path::new("/in"), true, true);
        assert_eq!(build(&mut own, &[wrote("/dist/9", 9)]).len(), 1);
    }

    #[test]
    fn two_services_that_build_into_one_path_come_to_rest() {
        let mut own = Own::default();
        let mut due = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let mut builds = 0;
        while let Some(service) = due.pop_first() {
            builds += 1;
            let out = wrote(&format!("/bin/{service}"), builds);
            let verdict = own.built(&service, &[out], |_| true, true);
            for change in verdict.changed.values() {
                let all = ["a", "b"].map(str::to_owned);
                due.extend(all.into_iter().filter(|name| !change.spared.contains(name)));
            }
            assert!(builds < 20, "they never rest");
        }
    }

    #[test]
    fn a_restart_after_the_build_covers_what_changed_in_it() {
        let mut own = Own::default();
        for (restarts, spared) in [(true, vec!["a".to_owned()]), (false, vec![])] {
            let verdict = own.built("a", &[wrote("/conf", 1)], |_| false, restarts);
            let change = &verdict.changed[Path::new("/conf")];
            assert_eq!(change.spared, BTreeSet::from_iter(spared));
            own.beside(Path::new("/conf"), true, true);
        }
    }
}
