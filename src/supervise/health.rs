//! When the next healthcheck is due and what its outcomes add up to. Pure: time is a parameter; runs
//! nothing. The rules are those of the Dockerfile reference, `HEALTHCHECK`.

use std::time::Duration;

use super::lifecycle::Moment;
use crate::backend::process::Check;
use crate::state::Health;

/// The health of one run.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    started: Moment,
    failures: u64,
    verdict: Health,
    next: Moment,
    running: bool,
}

impl Schedule {
    /// Of a run that begins now; the first check comes one interval later.
    pub(super) fn new(check: &Check, now: Moment) -> Self {
        let mut schedule = Self {
            started: now,
            failures: 0,
            verdict: Health::Starting,
            next: now,
            running: false,
        };
        schedule.next = now.saturating_add(schedule.pause(check, now));
        schedule
    }

    /// Of a run that somebody else began; what was known about it holds until the next check.
    pub(super) fn resumed(check: &Check, verdict: Health, started: Moment, now: Moment) -> Self {
        let mut schedule = Self {
            started,
            failures: 0,
            verdict,
            next: now,
            running: false,
        };
        schedule.next = now.saturating_add(schedule.pause(check, now));
        schedule
    }

    /// What it adds up to.
    pub(super) fn verdict(&self) -> Health {
        self.verdict
    }

    /// When the next check begins or the running one has taken too long.
    pub(super) fn deadline(&self) -> Moment {
        self.next
    }

    /// A check begins.
    pub(super) fn begin(&mut self, check: &Check, now: Moment) {
        self.running = true;
        self.next = now.saturating_add(check.timeout);
    }

    /// Whether a check is running.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// A check ended, well or not (a check that timed out did not). Whether the verdict changed.
    pub(super) fn finish(&mut self, check: &Check, passed: bool, now: Moment) -> bool {
        let before = self.verdict;
        self.running = false;
        if passed {
            self.failures = 0;
            self.verdict = Health::Healthy;
        } else if before != Health::Starting || !self.in_start_period(check, now) {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= check.retries {
                self.verdict = Health::Unhealthy;
            }
        }
        self.next = now.saturating_add(self.pause(check, now));
        self.verdict != before
    }

    fn pause(&self, check: &Check, now: Moment) -> Duration {
        if self.verdict == Health::Starting && self.in_start_period(check, now) {
            check.start_interval
        } else {
            check.interval
        }
    }

    fn in_start_period(&self, check: &Check, now: Moment) -> bool {
        now.saturating_sub(self.started) < check.start_period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn check(start_period: u64) -> Check {
        Check {
            command: vec!["true".into()],
            interval: seconds(30),
            timeout: seconds(7),
            retries: 2,
            start_period: seconds(start_period),
            start_interval: seconds(5),
        }
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let check = check(0);
        let mut schedule = Schedule::new(&check, seconds(0));
        assert_eq!(schedule.deadline(), seconds(30));
        assert!(!schedule.finish(&check, false, seconds(30)));
        assert!(schedule.finish(&check, false, seconds(60)));
        assert_eq!(schedule.verdict(), Health::Unhealthy);
        assert!(schedule.finish(&check, true, seconds(90)));
        assert_eq!(schedule.verdict(), Health::Healthy);
        assert!(!schedule.finish(&check, false, seconds(120)));
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let check = check(60);
        let mut schedule = Schedule::new(&check, seconds(0));
        assert_eq!(schedule.deadline(), seconds(5));
        for at in [5, 10, 15, 20] {
            assert!(!schedule.finish(&check, false, seconds(at)));
            assert_eq!(schedule.deadline(), seconds(at + 5));
        }
        assert_eq!(schedule.verdict(), Health::Starting);
    }

    #[test]
    fn the_first_success_ends_the_start_period() {
        let check = check(60);
        let mut schedule = Schedule::new(&check, seconds(0));
        assert!(schedule.finish(&check, true, seconds(5)));
        assert_eq!(schedule.deadline(), seconds(35));
        assert!(!schedule.finish(&check, false, seconds(35)));
        assert!(schedule.finish(&check, false, seconds(40)));
        assert_eq!(schedule.verdict(), Health::Unhealthy);
    }

    #[test]
    fn a_running_check_is_due_at_its_timeout() {
        let check = check(0);
        let mut schedule = Schedule::new(&check, seconds(0));
        schedule.begin(&check, seconds(30));
        assert!(schedule.is_running());
        assert_eq!(schedule.deadline(), seconds(37));
    }
}
