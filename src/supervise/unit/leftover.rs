//! What is known of those whom a run leaves behind. Says what the looks have shown and when the next one is due; does
//! not look itself.

use std::time::Duration;

use crate::backend::process::tree::UNSURE;
use crate::supervise::lifecycle::Moment;

/// See the module.
#[derive(Debug)]
pub(super) struct Leftover {
    known: Known,
    /// Its keeper has ended by itself, which it does when it has no child any more.
    has_word: bool,
}

#[derive(Debug)]
enum Known {
    /// There may be somebody. So many lists in succession have missed somebody and shown nothing of the run.
    Open { unsure: u32 },
    /// The same, and not to be looked for before this moment.
    Later { at: Moment, unsure: u32 },
    /// Nobody but its keeper, which goes when it has recorded everything; to be looked at again before, where that look
    /// may have missed somebody.
    Keeper { again: Option<Moment> },
    /// Nobody: looked for since it ended, or there was no run.
    Nobody,
}

impl Leftover {
    /// Of a run that begins, or that nobody has looked at yet.
    pub(super) fn of_run() -> Self {
        Self {
            known: Known::Open { unsure: 0 },
            has_word: false,
        }
    }

    /// Of what has never run.
    pub(super) fn of_none() -> Self {
        Self {
            known: Known::Nobody,
            has_word: false,
        }
    }

    /// Whether there is nobody.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self.known, Known::Nobody)
    }

    /// Whether it is time to look; `has_keeper`: its keeper lives.
    pub(super) fn is_due(&self, has_keeper: bool) -> bool {
        match self.known {
            Known::Open { .. } | Known::Nobody => true,
            Known::Later { .. } => false,
            Known::Keeper { .. } => !has_keeper,
        }
    }

    /// When to look again, where that is a matter of time.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.known {
            Known::Later { at, .. } => Some(at),
            Known::Keeper { again } => again,
            Known::Open { .. } | Known::Nobody => None,
        }
    }

    /// Time has passed.
    pub(super) fn on_time(&mut self, now: Moment) {
        let is_past = |at: Moment| at <= now;
        match self.known {
            Known::Later { at, unsure } if is_past(at) => self.known = Known::Open { unsure },
            Known::Keeper { again } if again.is_some_and(is_past) => {
                self.known = Known::Open { unsure: 0 };
            }
            Known::Open { .. } | Known::Later { .. } | Known::Keeper { .. } | Known::Nobody => {}
        }
    }

    /// Its keeper has ended; whether by itself.
    pub(super) fn on_keeper_ended(&mut self, is_whole: bool) {
        self.has_word = is_whole;
    }

    /// Whether its keeper has ended by itself: nobody is left of what the service has started.
    pub(super) fn has_word(&self) -> bool {
        self.has_word
    }

    /// A look has shown somebody.
    pub(super) fn found(&mut self) {
        self.known = Known::Open { unsure: 0 };
    }

    /// A look has shown nobody but its keeper; `again`: when to look again, where it may have missed somebody.
    pub(super) fn found_keeper(&mut self, again: Option<Moment>) {
        self.known = Known::Keeper { again };
    }

    /// A look has shown that there is nobody.
    pub(super) fn found_nobody(&mut self) {
        self.known = Known::Nobody;
    }

    /// What there is cannot be seen yet.
    pub(super) fn look_after(&mut self, pause: Duration, now: Moment) {
        let (at, unsure) = (now.saturating_add(pause), self.unsure());
        self.known = Known::Later { at, unsure };
    }

    /// A look has shown nobody; `is_proof`: it cannot have missed anybody. Whether that is to be believed: a list that
    /// has missed somebody is made again, some times.
    pub(super) fn is_believed(&mut self, is_proof: impl FnOnce() -> bool) -> bool {
        if self.has_word || self.unsure() >= UNSURE || is_proof() {
            return true;
        }
        self.known = Known::Open {
            unsure: self.unsure() + 1,
        };
        false
    }

    /// The end is noted: no look is due any more.
    pub(super) fn settle(&mut self) {
        if !self.is_nobody() {
            self.known = Known::Open {
                unsure: self.unsure(),
            };
        }
    }

    fn unsure(&self) -> u32 {
        match self.known {
            Known::Open { unsure } | Known::Later { unsure, .. } => unsure,
            Known::Keeper { .. } | Known::Nobody => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_millis(20);

    #[test]
    fn who_is_nobody_but_the_keeper_is_looked_for_again_when_that_has_gone() {
        let mut left = Leftover::of_run();
        assert!(left.is_due(true));
        left.found_keeper(None);
        assert!(!left.is_due(true));
        assert!(left.is_due(false));
        left.found();
        assert!(left.is_due(true));
        assert!(!left.is_nobody());
        left.found_nobody();
        left.settle();
        assert!(left.is_nobody());
    }

    #[test]
    fn a_look_that_may_have_missed_somebody_is_made_again_beside_the_keeper() {
        let mut left = Leftover::of_run();
        left.found_keeper(Some(NOW + PAUSE));
        assert_eq!(left.deadline(), Some(NOW + PAUSE));
        left.on_time(NOW);
        assert!(!left.is_due(true));
        left.on_time(NOW + PAUSE);
        assert!(left.is_due(true));
        assert_eq!(left.deadline(), None);
    }

    #[test]
    fn what_cannot_be_seen_yet_is_looked_for_later() {
        let mut left = Leftover::of_run();
        left.look_after(PAUSE, NOW);
        assert_eq!(left.deadline(), Some(NOW + PAUSE));
        assert!(!left.is_due(false));
        left.on_time(NOW);
        assert!(!left.is_due(false));
        left.on_time(NOW + PAUSE);
        assert!(left.is_due(false));
        assert_eq!(left.deadline(), None);
    }

    #[test]
    fn a_list_that_has_missed_somebody_is_made_again_ten_times_and_not_where_the_keeper_knows() {
        let mut left = Leftover::of_run();
        for _ in 0..UNSURE {
            assert!(!left.is_believed(|| false));
            left.look_after(PAUSE, NOW);
            left.on_time(NOW + PAUSE);
        }
        assert!(left.is_believed(|| false));
        let mut left = Leftover::of_run();
        assert!(left.is_believed(|| true));
        // Somebody was seen: what was shown before counts no more.
        assert!(!left.is_believed(|| false));
        left.found();
        left.on_keeper_ended(true);
        assert!(left.is_believed(|| false));
    }
}
