//! Relays that run and do not come: they look for the forwarder in a directory that was removed and made again. Pure:
//! says which are to be restarted, and when again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// How long a relay that runs may take to come, the first time and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_mins(1));

/// The services whose relay is missed.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    missed: BTreeMap<String, Missed>,
}

#[derive(Clone, Copy, Debug)]
struct Missed {
    /// When it is given up on.
    until: Instant,
    /// How long it gets the next time.
    patience: Duration,
}

impl Strangers {
    /// Of services whose relay runs and has not come, those whose relay is to be restarted now.
    pub(super) fn due(&mut self, missing: BTreeSet<String>, now: Instant) -> Vec<String> {
        self.missed.retain(|service, _| missing.contains(service));
        let mut due = Vec::new();
        for service in missing {
            let first = Missed {
                until: now + PATIENCE.0,
                patience: PATIENCE.0,
            };
            let missed = self.missed.entry(service.clone()).or_insert(first);
            if missed.until <= now {
                missed.patience = (missed.patience * 2).min(PATIENCE.1);
                missed.until = now + missed.patience;
                due.push(service);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_does_not_come_is_restarted_and_then_more_and_more_rarely() {
        let mut strangers = Strangers::default();
        let begun = Instant::now();
        let missing = || BTreeSet::from(["api".to_owned()]);
        let times: Vec<u64> = (0..200)
            .filter(|second| {
                let now = begun + Duration::from_secs(*second);
                strangers.due(missing(), now) == ["api"]
            })
            .collect();
        assert_eq!(times, [3, 9, 21, 45, 93, 153]);
        // One that has come is met with the same patience the next time.
        let now = begun + Duration::from_secs(200);
        assert!(strangers.due(BTreeSet::new(), now).is_empty());
        assert!(strangers.due(missing(), now).is_empty());
        assert_eq!(strangers.due(missing(), now + PATIENCE.0), ["api"]);
    }
}
