//! How often a service is started anew because files changed. Pure: time is a parameter, counted from any fixed moment.
//!
//! A program that writes into a path that is watched for it (a log, a database, a schedule) would be restarted without
//! end: nothing says who has written a file. What tells it is that each start is followed by a change at once, again and
//! again; a person who saves as fast as that only waits a little. So such starts are put off, for longer each time. No
//! change is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A change within this time after a start may be the service's own.
const AT_ONCE: Duration = Duration::from_secs(2);

/// That many starts in a row are as usual.
const OFTEN: u32 = 5;

/// The first pause, which doubles, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// The longest pause.
pub const LONGEST: Duration = PAUSES.1;

/// The starts of all services.
#[derive(Clone, Debug, Default)]
pub struct Pace(BTreeMap<String, Beat>);

#[derive(Clone, Debug, Default)]
struct Beat {
    started: Option<Duration>,
    /// Starts that were followed by a change at once.
    in_a_row: u32,
    due: Option<Duration>,
}

/// What is to be done about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start it anew.
    Now,
    /// Put that off; the first time, it is worth a word.
    Later {
        /// How often it was started in a row.
        first_after: Option<u32>,
    },
}

impl Pace {
    /// Files of a service changed.
    pub fn changed(&mut self, service: &str, now: Duration) -> Step {
        let beat = self.0.entry(service.to_owned()).or_default();
        if beat.due.is_some() {
            return Step::Later { first_after: None };
        }
        let is_at_once = |started: Duration| now.saturating_sub(started) < AT_ONCE;
        if beat.started.is_some_and(is_at_once) {
            beat.in_a_row = beat.in_a_row.saturating_add(1);
        } else {
            beat.in_a_row = 0;
        }
        let Some(beyond) = beat.in_a_row.checked_sub(OFTEN) else {
            return Step::Now;
        };
        let pause = PAUSES.0.saturating_mul(2_u32.saturating_pow(beyond));
        beat.due = Some(now.saturating_add(pause.min(PAUSES.1)));
        Step::Later {
            first_after: (beyond == 0).then_some(OFTEN),
        }
    }

    /// A service has been started anew.
    pub fn started(&mut self, service: &str, now: Duration) {
        let beat = self.0.entry(service.to_owned()).or_default();
        beat.started = Some(now);
        beat.due = None;
    }

    /// When the next one that was put off is to be started.
    pub fn due_at(&self) -> Option<Duration> {
        self.0.values().filter_map(|beat| beat.due).min()
    }

    /// Those that are to be started by now.
    pub fn due(&self, now: Duration) -> BTreeSet<String> {
        let is_due = |beat: &Beat| beat.due.is_some_and(|due| due <= now);
        let due = self.0.iter().filter(|(_, beat)| is_due(beat));
        due.map(|(service, _)| service.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Runs a service that is changed `after` each start, for a minute; the starts.
    fn starts(after: Duration) -> Vec<Duration> {
        let mut pace = Pace::default();
        let mut starts = Vec::new();
        let mut now = ms(0);
        while now < ms(60_000) {
            let step = pace.changed("web", now);
            if let Step::Later { .. } = step {
                now = pace.due_at().unwrap();
                assert_eq!(pace.due(now), BTreeSet::from(["web".to_owned()]));
            }
            pace.started("web", now);
            starts.push(now);
            now += after;
        }
        starts
    }

    #[test]
    fn what_is_changed_by_each_start_is_started_ever_less() {
        let starts = starts(ms(100));
        assert!(starts.len() < 15, "{starts:?}");
        // The first ones come at once.
        assert_eq!(starts[4], ms(400));
    }

    #[test]
    fn what_is_changed_now_and_then_is_started_at_once() {
        assert_eq!(starts(ms(2000)).len(), 30);
    }

    #[test]
    fn it_is_said_once_and_forgotten_after_a_rest() {
        let mut pace = Pace::default();
        let mut now = ms(0);
        let mut said = 0;
        for _ in 0..8 {
            if let Step::Later { first_after } = pace.changed("web", now) {
                said += usize::from(first_after.is_some());
                let again = pace.changed("web", now);
                assert_eq!(again, Step::Later { first_after: None });
                now = pace.due_at().unwrap();
            }
            pace.started("web", now);
            now += ms(100);
        }
        assert_eq!(said, 1);
        assert_eq!(pace.changed("other", now), Step::Now);
        assert_eq!(pace.changed("web", now + ms(3000)), Step::Now);
        assert_eq!(pace.due_at(), None);
    }
}
