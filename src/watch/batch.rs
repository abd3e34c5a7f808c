//! Changes that belong together: an editor writes, renames and touches, a checkout changes a thousand files.
//!
//! Pure: time is a parameter, counted from any fixed moment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// Paths that changed, each with the services that need not follow.
pub type Changes = BTreeMap<PathBuf, BTreeSet<String>>;

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

    /// A path changed.
    pub fn add(&mut self, path: PathBuf, now: Duration) {
        self.paths.insert(path, BTreeSet::new());
        self.changed(now);
    }

    /// A path changed, and these services need not follow. If it has changed for all before, it has.
    pub fn add_but_for(&mut self, path: PathBuf, spared: BTreeSet<String>, now: Duration) {
        match self.paths.get(&path) {
            Some(before) if before.is_empty() => {}
            Some(_) | None => drop(self.paths.insert(path, spared)),
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
            batch.add(name.into(), ms(time));
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
        let spared = || BTreeSet::from(["web".to_owned()]);
        let mut batch = batch();
        batch.add_but_for("a".into(), spared(), ms(0));
        batch.add_but_for("b".into(), spared(), ms(0));
        batch.add("b".into(), ms(1));
        batch.add("c".into(), ms(1));
        batch.add_but_for("c".into(), spared(), ms(2));
        let all = BTreeSet::new;
        let expected = [("a", spared()), ("b", all()), ("c", all())];
        let expected = expected.map(|(path, spared)| (PathBuf::from(path), spared));
        assert_eq!(batch.take(ms(200)), Some(Changes::from(expected)));
    }

    #[test]
    fn what_never_rests_is_seen_all_the_same() {
        let mut batch = batch();
        let mut seen = 0;
        for time in (0..5000).step_by(50) {
            batch.add("log".into(), ms(time));
            seen += usize::from(batch.take(ms(time)).is_some());
        }
        assert_eq!(seen, 4);
    }
}
