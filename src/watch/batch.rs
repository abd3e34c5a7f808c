//! Changes that belong together: an editor writes, renames and touches, a checkout changes a thousand files.
//!
//! Pure: time is a parameter, counted from any fixed moment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// What is known of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// It is, or was, a directory.
    pub is_directory: bool,
    /// Services that need not follow.
    pub spared: BTreeSet<String>,
}

/// Paths that changed.
pub type Changes = BTreeMap<PathBuf, Change>;

/// Paths that changed, until it has been quiet for a while.
#[derive(Clone, Debug)]
pub struct Batch {
    quiet: Duration,
    longest: Duration,
    paths: Changes,
    times: Option<(Duration, Duration)>,
}

impl Batch {
    /// A batch that is complete when nothing has changed for `quiet`, and at the latest `longest` after the
    /// first change: something that never rests must not keep the rest from being seen.
    pub fn new(quiet: Duration, longest: Duration) -> Self {
        Self {
            quiet,
            longest,
            paths: Changes::new(),
            times: None,
        }
    }

    /// A path changed. If it has changed for all before, it has.
    pub fn add(&mut self, path: PathBuf, change: Change, now: Duration) {
        let is_for_all = |change: &Change| change.spared.is_empty();
        if is_for_all(&change) || !self.paths.get(&path).is_some_and(is_for_all) {
            self.paths.insert(path, change);
        }
        self.changed(now);
    }

    fn changed(&mut self, now: Duration) {
        let first = self.times.map_or(now, |(first, _)| first);
        self.times = Some((first, now));
    }

    /// When it will be complete if nothing else changes.
    pub fn due_at(&self) -> Option<Duration> {
        let (first, last) = self.times?;
        Some((last + self.quiet).min(first + self.longest))
    }

    /// All paths, if it is complete; begins a new one.
    pub fn take(&mut self, now: Duration) -> Option<Changes> {
        if self.due_at()? > now {
            return None;
        }
        self.times = None;
        Some(std::mem::take(&mut self.paths))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn batch() -> Batch {
        Batch::new(ms(100), ms(1000))
    }

    #[test]
    fn what_comes_in_one_go_is_one_batch() {
        let mut batch = batch();
        assert_eq!(batch.due_at(), None);
        for (name, time) in [("a", 0), ("b", 60), ("a", 120)] {
            batch.add(name.into(), Change::default(), ms(time));
        }
        assert_eq!(batch.take(ms(219)), None);
        assert_eq!(batch.due_at(), Some(ms(220)));
        let taken = batch.take(ms(220)).unwrap();
        let paths: Vec<_> = taken.into_keys().collect();
        assert_eq!(paths, [PathBuf::from("a"), "b".into()]);
        assert_eq!((batch.due_at(), batch.take(ms(9000))), (None, None));
    }

    #[test]
    fn who_need_not_follow_must_when_it_changes_again() {
        let all = Change::default;
        let spared = || Change {
            spared: BTreeSet::from(["web".to_owned()]),
            is_directory: false,
        };
        let mut batch = batch();
        batch.add("a".into(), spared(), ms(0));
        batch.add("b".into(), spared(), ms(0));
        batch.add("b".into(), all(), ms(1));
        batch.add("c".into(), all(), ms(1));
        batch.add("c".into(), spared(), ms(2));
        let expected = [("a", spared()), ("b", all()), ("c", all())];
        let expected = expected.map(|(path, change)| (PathBuf::from(path), change));
        assert_eq!(batch.take(ms(200)), Some(Changes::from(expected)));
    }

    #[test]
    fn what_never_rests_is_seen_all_the_same() {
        let mut batch = batch();
        let mut seen = 0;
        for time in (0..5000).step_by(50) {
            batch.add("log".into(), Change::default(), ms(time));
            seen += usize::from(batch.take(ms(time)).is_some());
        }
        assert_eq!(seen, 4);
    }
}
