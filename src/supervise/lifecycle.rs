//! What to do with one instance next. Pure: an event and the time go in, an action comes out; no I/O and no
//! clock, so a day of back-off is tested in a microsecond.
//!
//! ```text
//!            Start           Spawned                MainEnded
//!   Idle ───────────▶ Starting ─────▶ Running ─────────────────▶ Clearing
//!    ▲                  │  ▲            │                            │
//!    │      SpawnFailed │  │ Due        │ Stop                       │ TreeGone
//!    │                  ▼  │            ▼         Due                ▼
//!    ├───────────── (policy: again?) ◀─ │ ── Stopping ─▶ Killing   (policy: again?)
//!    │                  │  yes          │       │           │        │ yes
//!    │                  └────▶ Waiting ─┼───────┼───────────┼────────┘
//!    └──────────────────────────┘ Stop ◀┴───────┴───────────┘ TreeGone
//! ```
//!
//! *Clearing*: the main process ended by itself; what is left of its tree is killed, as a container's is.
//! *Stopping*: everything got the stop signal. *Killing*: everything gets SIGKILL until nothing is found.
//! *Left* (not drawn): something outlived that for so long that it was reported; it is waited for all the same.

use std::time::Duration;

use super::again::Again;
use crate::backend::process::{Pacing, RestartPolicy};

/// How long SIGKILL may take before what is left is given up on and reported.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// The same for what has outlived SIGKILL before.
const SECOND_PATIENCE: Duration = Duration::from_secs(1);

/// A moment: time since any fixed origin that does not jump.
pub type Moment = Duration;

/// Where an instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not alive and not about to be.
    Idle,
    /// About to be spawned.
    Starting,
    /// Its main process lives.
    Running {
        /// Since when.
        since: Moment,
    },
    /// Its main process ended by itself; the rest is being killed.
    Clearing {
        /// When to give up.
        until: Moment,
    },
    /// To be started again.
    Waiting {
        /// When.
        until: Moment,
    },
    /// It was asked to end.
    Stopping {
        /// When to stop asking.
        until: Moment,
    },
    /// It is being killed.
    Killing {
        /// When to give up.
        until: Moment,
    },
    /// Something of it has outlived SIGKILL and was reported; over when it has gone.
    Left,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A command wants it to run.
    Start,
    /// It runs.
    Spawned,
    /// It could not be run.
    SpawnFailed,
    /// Its main process ended.
    MainEnded {
        /// With this code.
        code: i32,
    },
    /// No process of its tree is left.
    TreeGone,
    /// A command wants it to end.
    Stop {
        /// Time between the stop signal and SIGKILL.
        grace: Duration,
    },
    /// A command wants it to end at once.
    Kill,
    /// Something of its last run was found alive when it was to be started.
    Remains,
    /// The moment of [`Lifecycle::deadline`] has come.
    Due,
}

/// What to do about it.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Run it.
    Spawn,
    /// Send the stop signal to the whole tree.
    AskToEnd,
    /// Send SIGKILL to the whole tree, again and again until it is gone.
    KillTree,
    /// It is over.
    Over,
    /// It is over for now; its policy starts it again at the deadline.
    Pause,
    /// SIGKILL did not end it; report what is left.
    GiveUp,
}

/// One instance's life.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    again: Again,
    phase: Phase,
    code: i32,
}

impl Lifecycle {
    /// Of an instance that is not alive.
    pub fn new(policy: RestartPolicy) -> Self {
        Self {
            again: Again::new(policy, 0),
            phase: Phase::Idle,
            code: 0,
        }
    }

    /// The same with this pacing.
    #[must_use]
    pub fn paced(mut self, pacing: Pacing) -> Self {
        self.again.pacing = pacing;
        self
    }

    /// The same, where SIGKILL is no fault of its own and others wait for it: then it is started again at once.
    #[must_use]
    pub fn undaunted(mut self, is_undaunted: bool) -> Self {
        self.again.is_undaunted = is_undaunted;
        self
    }

    /// Its policy does not start it again until a command has.
    pub fn dismiss(&mut self) {
        self.again.is_dismissed = true;
    }

    /// Of an instance that a supervisor before us left running.
    pub fn adopted(policy: RestartPolicy, restarts: u32, since: Moment) -> Self {
        Self {
            again: Again::new(policy, restarts),
            phase: Phase::Running { since },
            code: 0,
        }
    }

    /// Of an instance that a supervisor before us meant to start again.
    pub fn adopted_waiting(policy: RestartPolicy, restarts: u32, now: Moment) -> Self {
        Self {
            again: Again::new(policy, restarts),
            phase: Phase::Waiting { until: now },
            code: 0,
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Starts by its policy since the last start by a command.
    pub fn restarts(&self) -> u32 {
        self.again.restarts
    }

    /// Whether it is alive or will be without anybody asking.
    pub fn is_active(&self) -> bool {
        self.phase != Phase::Idle
    }

    /// Whether it is on its way to its end, or to its next start.
    pub fn is_ending(&self) -> bool {
        match self.phase {
            Phase::Clearing { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. }
            | Phase::Left => true,
            Phase::Idle | Phase::Starting | Phase::Running { .. } | Phase::Waiting { .. } => false,
        }
    }

    /// When [`Event::Due`] is due.
    pub fn deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Idle | Phase::Starting | Phase::Running { .. } | Phase::Left => None,
            Phase::Clearing { until }
            | Phase::Waiting { until }
            | Phase::Stopping { until }
            | Phase::Killing { until } => Some(until),
        }
    }

    /// Takes in what happened. Events that mean nothing in the present phase change nothing.
    pub fn on_event(&mut self, event: Event, now: Moment) -> Action {
        match (self.phase, event) {
            (Phase::Idle, Event::Start) => {
                self.again.on_start();
                self.enter(Phase::Starting, Action::Spawn)
            }
            // Whoever asks again need not wait for the pause to end.
            (Phase::Waiting { .. }, Event::Start) => self.enter(Phase::Starting, Action::Spawn),
            (Phase::Waiting { .. }, Event::Due) => {
                self.again.on_restart();
                self.enter(Phase::Starting, Action::Spawn)
            }
            (Phase::Starting, Event::Spawned) => {
                self.enter(Phase::Running { since: now }, Action::None)
            }
            (Phase::Starting, Event::SpawnFailed) => {
                self.code = 127;
                // A command that could not be run at all at a command's request is an answer to that
                // command; only later attempts are the policy's.
                if self.again.restarts == 0 {
                    self.enter(Phase::Idle, Action::Over)
                } else {
                    self.after_end(now)
                }
            }
            (Phase::Running { since }, Event::MainEnded { code }) => {
                self.code = code;
                self.again.on_end(now.saturating_sub(since));
                let until = now.saturating_add(KILL_PATIENCE);
                self.enter(Phase::Clearing { until }, Action::KillTree)
            }
            (Phase::Clearing { .. }, Event::TreeGone) => self.after_end(now),
            // What refuses to die keeps its ports: starting again beside it would be a second instance.
            (Phase::Clearing { .. } | Phase::Killing { .. }, Event::Due) => {
                self.enter(Phase::Left, Action::GiveUp)
            }
            // It has had its time: whoever asks again hears soon what is still there.
            (Phase::Left, Event::Stop { .. } | Event::Kill) => {
                let until = now.saturating_add(SECOND_PATIENCE);
                self.enter(Phase::Killing { until }, Action::KillTree)
            }
            (Phase::Running { .. }, Event::Stop { grace }) => {
                let until = now.saturating_add(grace);
                self.enter(Phase::Stopping { until }, Action::AskToEnd)
            }
            // A second stop may only shorten the wait.
            (Phase::Stopping { until }, Event::Stop { grace }) => {
                let until = until.min(now.saturating_add(grace));
                self.enter(Phase::Stopping { until }, Action::None)
            }
            (Phase::Clearing { until }, Event::Stop { .. }) => {
                self.enter(Phase::Killing { until }, Action::KillTree)
            }
            (
                Phase::Running { .. } | Phase::Stopping { .. } | Phase::Clearing { .. },
                Event::Kill,
            )
            | (Phase::Stopping { .. }, Event::Due)
            | (Phase::Idle | Phase::Waiting { .. }, Event::Remains) => {
                let until = now.saturating_add(KILL_PATIENCE);
                self.enter(Phase::Killing { until }, Action::KillTree)
            }
            (Phase::Waiting { .. }, Event::Stop { .. } | Event::Kill)
            | (Phase::Stopping { .. } | Phase::Killing { .. } | Phase::Left, Event::TreeGone) => {
                self.enter(Phase::Idle, Action::Over)
            }
            (
                Phase::Stopping { .. } | Phase::Killing { .. } | Phase::Left,
                Event::MainEnded { code },
            ) => {
                self.code = code;
                Action::None
            }
            _ => Action::None,
        }
    }

    fn enter(&mut self, phase: Phase, action: Action) -> Action {
        self.phase = phase;
        action
    }

    /// It ended by itself: the policy decides.
    fn after_end(&mut self, now: Moment) -> Action {
        let Some(pause) = self.again.next(self.code) else {
            return self.enter(Phase::Idle, Action::Over);
        };
        let until = now.saturating_add(pause);
        self.enter(Phase::Waiting { until }, Action::Pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::again::STABLE;

    const GRACE: Duration = Duration::from_secs(10);

    fn ms(milliseconds: u64) -> Moment {
        Duration::from_millis(milliseconds)
    }

    fn running(policy: RestartPolicy) -> Lifecycle {
        let mut life = Lifecycle::new(policy);
        assert_eq!(life.on_event(Event::Start, ms(0)), Action::Spawn);
        assert_eq!(life.on_event(Event::Spawned, ms(0)), Action::None);
        life
    }

    /// Ends the main process and the rest at `now`; what follows.
    fn end(life: &mut Lifecycle, code: i32, now: Moment) -> Action {
        assert_eq!(
            life.on_event(Event::MainEnded { code }, now),
            Action::KillTree
        );
        life.on_event(Event::TreeGone, now)
    }

    /// Ends it and starts it again by its policy, `lasting` after each start; the pauses in milliseconds.
    fn pauses(life: &mut Lifecycle, lasting: Duration, times: usize) -> Vec<u128> {
        let Phase::Running { since: mut now } = life.phase() else {
            panic!("it does not run");
        };
        (0..times)
            .map(|_| {
                now += lasting;
                assert_eq!(end(life, 1, now), Action::Pause);
                let until = life.deadline().unwrap();
                let pause = until.saturating_sub(now);
                now = until;
                assert_eq!(life.on_event(Event::Due, now), Action::Spawn);
                assert_eq!(life.on_event(Event::Spawned, now), Action::None);
                pause.as_millis()
            })
            .collect()
    }

    #[test]
    fn no_policy_means_over() {
        let mut life = running(RestartPolicy::No);
        assert_eq!(end(&mut life, 1, ms(5)), Action::Over);
        assert!(!life.is_active());
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut life = running(RestartPolicy::Always);
        assert_eq!(
            pauses(&mut life, ms(1), 12),
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000
            ]
        );
        assert_eq!(life.restarts(), 12);
    }

    #[test]
    fn a_stable_run_resets_the_pause() {
        let mut life = running(RestartPolicy::Always);
        assert_eq!(pauses(&mut life, ms(1), 3), [100, 200, 400]);
        assert_eq!(pauses(&mut life, STABLE, 2), [100, 100]);
    }

    #[test]
    fn on_failure_counts_and_ignores_success() {
        let mut life = running(RestartPolicy::OnFailure { max: Some(2) });
        pauses(&mut life, ms(1), 2);
        assert_eq!(end(&mut life, 1, ms(9_000)), Action::Over);
        let mut life = running(RestartPolicy::OnFailure { max: None });
        assert_eq!(end(&mut life, 0, ms(1)), Action::Over);
    }

    #[test]
    fn a_pacing_sets_the_pause_and_the_number_of_attempts() {
        let pacing = Pacing {
            delay: Some(ms(700)),
            window: Some(ms(5_000)),
            attempts: Some(2),
        };
        let mut life = running(RestartPolicy::Always).paced(pacing);
        assert_eq!(pauses(&mut life, ms(1), 2), [700, 700]);
        // A run as long as the window is a success, from which attempts are counted anew.
        assert_eq!(pauses(&mut life, ms(5_000), 1), [700]);
        assert_eq!(pauses(&mut life, ms(1), 1), [700]);
        let Phase::Running { since } = life.phase() else {
            panic!("it does not run");
        };
        assert_eq!(end(&mut life, 1, since + ms(1)), Action::Over);
        assert_eq!(life.restarts(), 4);
    }

    #[test]
    fn no_pacing_does_without_a_pause() {
        let pacing = Pacing {
            delay: Some(Duration::ZERO),
            ..Pacing::default()
        };
        let mut life = running(RestartPolicy::Always).paced(pacing);
        assert_eq!(pauses(&mut life, ms(1), 3), [100, 100, 100]);
    }

    #[test]
    fn what_a_user_has_ended_is_started_again_by_a_command_alone() {
        let mut life = running(RestartPolicy::Always);
        life.dismiss();
        assert_eq!(end(&mut life, 143, ms(1)), Action::Over);
        assert_eq!(life.on_event(Event::Start, ms(2)), Action::Spawn);
        assert_eq!(life.on_event(Event::Spawned, ms(2)), Action::None);
        assert_eq!(end(&mut life, 1, ms(3)), Action::Pause);
    }

    #[test]
    fn always_restarts_after_success_too() {
        let mut life = running(RestartPolicy::Always);
        assert_eq!(end(&mut life, 0, ms(1)), Action::Pause);
    }

    #[test]
    fn stopping_ends_when_the_tree_is_gone_not_when_the_main_process_is() {
        let mut life = running(RestartPolicy::Always);
        assert_eq!(
            life.on_event(Event::Stop { grace: GRACE }, ms(0)),
            Action::AskToEnd
        );
        assert_eq!(
            life.on_event(Event::MainEnded { code: 0 }, ms(5)),
            Action::None
        );
        assert!(life.is_active());
        assert_eq!(life.on_event(Event::TreeGone, ms(6)), Action::Over);
        assert!(!life.is_active());
    }

    #[test]
    fn after_the_grace_period_the_tree_is_killed() {
        let mut life = running(RestartPolicy::No);
        assert_eq!(
            life.on_event(Event::Stop { grace: GRACE }, ms(0)),
            Action::AskToEnd
        );
        assert_eq!(life.deadline(), Some(GRACE));
        assert_eq!(life.on_event(Event::Due, GRACE), Action::KillTree);
        assert_eq!(life.on_event(Event::TreeGone, GRACE), Action::Over);
    }

    #[test]
    fn what_survives_sigkill_is_given_up_on() {
        let mut life = running(RestartPolicy::Always);
        let stop = Event::Stop {
            grace: Duration::ZERO,
        };
        assert_eq!(life.on_event(stop, ms(0)), Action::AskToEnd);
        assert_eq!(life.on_event(Event::Due, ms(0)), Action::KillTree);
        assert_eq!(life.on_event(Event::Due, KILL_PATIENCE), Action::GiveUp);
        // It is there, so it is alive, and nothing is started beside it.
        assert!(life.is_active() && life.is_ending());
        assert_eq!(life.deadline(), None);
        assert_eq!(life.on_event(Event::Start, KILL_PATIENCE), Action::None);
        assert_eq!(
            life.on_event(Event::TreeGone, KILL_PATIENCE * 2),
            Action::Over
        );
        assert!(!life.is_active());
    }

    #[test]
    fn what_was_given_up_on_is_killed_and_reported_again_when_asked() {
        let mut life = running(RestartPolicy::No);
        assert_eq!(life.on_event(Event::Kill, ms(0)), Action::KillTree);
        assert_eq!(life.on_event(Event::Due, KILL_PATIENCE), Action::GiveUp);
        for event in [Event::Kill, Event::Stop { grace: GRACE }] {
            assert_eq!(life.on_event(event, KILL_PATIENCE), Action::KillTree);
            assert_eq!(
                life.deadline(),
                Some(KILL_PATIENCE.saturating_add(SECOND_PATIENCE))
            );
            assert_eq!(life.on_event(Event::Due, KILL_PATIENCE * 2), Action::GiveUp);
        }
        assert_eq!(
            life.on_event(Event::MainEnded { code: 137 }, KILL_PATIENCE * 2),
            Action::None
        );
        assert_eq!(
            life.on_event(Event::TreeGone, KILL_PATIENCE * 2),
            Action::Over
        );
    }

    #[test]
    fn what_is_left_of_an_earlier_run_is_killed_before_a_start() {
        let mut life = Lifecycle::new(RestartPolicy::Always);
        assert_eq!(life.on_event(Event::Remains, ms(0)), Action::KillTree);
        assert_eq!(life.on_event(Event::TreeGone, ms(1)), Action::Over);
        assert_eq!(life.on_event(Event::Start, ms(2)), Action::Spawn);
        assert_eq!(life.on_event(Event::Remains, ms(3)), Action::None);
    }

    #[test]
    fn a_second_stop_can_only_shorten_the_grace_period() {
        let mut life = running(RestartPolicy::No);
        let stop = |grace| Event::Stop { grace };
        assert_eq!(life.on_event(stop(GRACE), ms(0)), Action::AskToEnd);
        assert_eq!(life.on_event(stop(GRACE * 2), ms(1)), Action::None);
        assert_eq!(life.deadline(), Some(GRACE));
        assert_eq!(life.on_event(stop(Duration::ZERO), ms(2)), Action::None);
        assert_eq!(life.deadline(), Some(ms(2)));
    }

    #[test]
    fn a_stop_ends_the_wait_for_a_restart() {
        let mut life = running(RestartPolicy::Always);
        assert_eq!(end(&mut life, 1, ms(0)), Action::Pause);
        assert_eq!(
            life.on_event(Event::Stop { grace: GRACE }, ms(1)),
            Action::Over
        );
        assert_eq!(life.on_event(Event::Due, ms(100)), Action::None);
    }

    #[test]
    fn a_stop_while_clearing_prevents_the_restart() {
        let mut life = running(RestartPolicy::Always);
        assert_eq!(
            life.on_event(Event::MainEnded { code: 1 }, ms(0)),
            Action::KillTree
        );
        assert_eq!(
            life.on_event(Event::Stop { grace: GRACE }, ms(1)),
            Action::KillTree
        );
        assert_eq!(life.on_event(Event::TreeGone, ms(2)), Action::Over);
    }

    #[test]
    fn a_kill_skips_the_stop_signal_and_the_policy() {
        let mut life = running(RestartPolicy::Always);
        assert_eq!(life.on_event(Event::Kill, ms(1)), Action::KillTree);
        assert_eq!(
            life.on_event(Event::MainEnded { code: 137 }, ms(2)),
            Action::None
        );
        assert_eq!(life.on_event(Event::TreeGone, ms(3)), Action::Over);
    }

    #[test]
    fn starting_what_runs_changes_nothing() {
        let mut life = running(RestartPolicy::No);
        assert_eq!(life.on_event(Event::Start, ms(1)), Action::None);
    }

    #[test]
    fn a_command_that_cannot_be_run_is_not_tried_again_unless_it_ran_before() {
        let mut life = Lifecycle::new(RestartPolicy::Always);
        assert_eq!(life.on_event(Event::Start, ms(0)), Action::Spawn);
        assert_eq!(life.on_event(Event::SpawnFailed, ms(0)), Action::Over);
        let mut life = running(RestartPolicy::Always);
        assert_eq!(end(&mut life, 1, ms(0)), Action::Pause);
        assert_eq!(life.on_event(Event::Due, ms(100)), Action::Spawn);
        assert_eq!(life.on_event(Event::SpawnFailed, ms(100)), Action::Pause);
    }
}
