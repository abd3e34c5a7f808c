//! Whether a policy starts an instance again that has ended by itself, and after which pause. Pure: a part of
//! `lifecycle`, which says when to ask.

use std::time::Duration;

use crate::backend::process::{Pacing, RestartPolicy};

/// The first pause before a restart; each further one is twice as long (as the engine does it).
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A run that lasted so long makes the next pause the first one again.
pub(super) const STABLE: Duration = Duration::from_secs(10);

/// The code of a process that SIGKILL has ended.
const KILLED: i32 = 128 + 9;
/// How often in succession one that is [undaunted](Again::is_undaunted) is started again without a pause.
const MOST_KILLS: u32 = 10;

/// A policy, and what has come of it so far.
#[derive(Clone, Debug)]
pub(super) struct Again {
    policy: RestartPolicy,
    pub(super) pacing: Pacing,
    /// Starts since the last one by a command.
    pub(super) restarts: u32,
    /// Restarts that count towards the policy's limit.
    attempts: u32,
    pauses: u32,
    /// Restarts without a pause.
    kills: u32,
    /// SIGKILL is no fault of its own, and others wait for it.
    pub(super) is_undaunted: bool,
    /// A user has ended it: whatever its policy says.
    pub(super) is_dismissed: bool,
}

impl Again {
    /// After so many restarts, all of which count.
    pub(super) fn new(policy: RestartPolicy, restarts: u32) -> Self {
        Self {
            policy,
            pacing: Pacing::default(),
            restarts,
            attempts: restarts,
            pauses: restarts,
            kills: 0,
            is_undaunted: false,
            is_dismissed: false,
        }
    }

    /// A command starts it.
    pub(super) fn on_start(&mut self) {
        self.restarts = 0;
        self.attempts = 0;
        self.pauses = 0;
        self.kills = 0;
        self.is_dismissed = false;
    }

    /// The policy starts it.
    pub(super) fn on_restart(&mut self) {
        self.restarts = self.restarts.saturating_add(1);
        self.attempts = self.attempts.saturating_add(1);
    }

    /// A run has ended that lasted so long.
    pub(super) fn on_end(&mut self, lasted: Duration) {
        if lasted >= STABLE {
            self.pauses = 0;
            self.kills = 0;
        }
        if self.pacing.window.is_some_and(|window| lasted >= window) {
            self.attempts = 0;
        }
    }

    /// The pause before the next start after an end with this code; `None` where there is to be none.
    pub(super) fn next(&mut self, code: i32) -> Option<Duration> {
        let limit = self.pacing.attempts.filter(|limit| *limit != 0);
        let again = !self.is_dismissed
            && limit.is_none_or(|limit| self.attempts < limit)
            && match self.policy {
                RestartPolicy::No => false,
                RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
                RestartPolicy::OnFailure { max } => {
                    code != 0 && max.is_none_or(|max| self.attempts < max)
                }
            };
        if !again {
            return None;
        }
        if self.is_undaunted && code == KILLED && self.kills < MOST_KILLS {
            self.kills += 1;
            return Some(Duration::ZERO);
        }
        // Without any pause, one that fails at once would take a core for itself.
        let given = self.pacing.delay.map(|delay| delay.max(FIRST_PAUSE));
        let pause = given.unwrap_or_else(|| pause(self.pauses));
        self.pauses = self.pauses.saturating_add(1);
        Some(pause)
    }
}

/// The pause before the restart after `before` others.
fn pause(before: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(1_u32.checked_shl(before).unwrap_or(u32::MAX))
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_never_overflows() {
        assert_eq!(pause(31), LONGEST_PAUSE);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn one_that_others_wait_for_and_that_is_killed_comes_back_at_once_a_few_times() {
        let policy = RestartPolicy::OnFailure { max: None };
        let mut again = Again::new(policy, 0);
        again.is_undaunted = true;
        let mut end = |code, lasted| {
            again.on_end(lasted);
            let pause = again.next(code);
            again.on_restart();
            pause
        };
        let brief = Duration::from_millis(1);
        for _ in 0..MOST_KILLS {
            assert_eq!(end(KILLED, brief), Some(Duration::ZERO));
        }
        assert_eq!(end(KILLED, brief), Some(FIRST_PAUSE));
        assert_eq!(end(KILLED, STABLE), Some(Duration::ZERO));
        // Its own failure is one as ever, and so is another program's death by SIGKILL.
        assert_eq!(end(1, brief), Some(FIRST_PAUSE));
        assert_eq!(end(1, brief), Some(2 * FIRST_PAUSE));
        assert_eq!(Again::new(policy, 0).next(KILLED), Some(FIRST_PAUSE));
    }
}
