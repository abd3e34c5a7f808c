//! Ending an instance: what it is told, who of its tree is left, and what is said of those that SIGKILL does
//! not end.

use std::time::Duration;

use rustix::process::Signal;

use super::chase::chase;
use super::{GROUP_RETRY, Settled, Surroundings, Unit};
use crate::backend::process::Run;
use crate::backend::process::kin::{self, Kin};
use crate::backend::process::protocol::Failure;
use crate::backend::process::remains::Remains;
use crate::backend::process::run::{ProcessId, Survivor, send};
use crate::backend::process::tree::{Snapshot, read_run_id};
use crate::supervise::lifecycle::{Action, Event, Phase};

/// Pause before who has gone while it was looked at is looked for again.
const SOON: Duration = Duration::from_millis(2);

/// Pause before a list of children that shows nobody is made again, while the keeper lives: it may have missed one.
const KIN_RETRY: Duration = Duration::from_millis(10);

/// Pause between two looks at a control group that has been given up on.
const LEFT_RETRY: Duration = Duration::from_secs(1);

/// What a look for the processes of a run has shown.
pub(super) enum Relatives {
    /// Those that are below its keeper, and those that were known.
    Below(Kin),
    /// All that there are.
    All(Vec<ProcessId>),
    /// Its keeper has ended a moment ago, as a rule because there is nobody: it is looked for them when that is noted.
    Unsettled,
}

/// Whose turn it is to end.
#[derive(Debug, PartialEq, Eq)]
struct Turn {
    now: Vec<ProcessId>,
    later: Vec<ProcessId>,
    /// By the stop signal, not by SIGKILL.
    is_asked: bool,
}

impl Relatives {
    /// What the service has not started itself (`exec`, hooks) is killed when all the rest has ended, as in a container: a
    /// shell that somebody has open there takes no notice of SIGTERM. `has_word`: its keeper has said that nobody is left
    /// of what it has started. `None` where nothing is known yet.
    fn turn(self, polite: bool, has_word: bool) -> Option<Turn> {
        let (now, later, is_asked) = match self {
            Self::Below(Kin { own, others }) if polite && !own.is_empty() => (own, others, true),
            Self::Below(Kin { mut own, others }) => {
                own.extend(others);
                (own, Vec::new(), false)
            }
            Self::All(tree) => (tree, Vec::new(), polite && !has_word),
            Self::Unsettled => return None,
        };
        Some(Turn {
            now,
            later,
            is_asked,
        })
    }
}

impl Unit {
    /// Ends it; settled at once only if there is nothing to end.
    pub(in crate::supervise) fn stop(
        &mut self,
        grace: Option<Duration>,
        around: &mut Surroundings,
    ) -> Settled {
        let grace = grace.unwrap_or(self.record.spec.stop_grace);
        self.end(Event::Stop { grace }, around)
    }

    /// Kills it.
    pub(in crate::supervise) fn kill(&mut self, around: &mut Surroundings) -> Settled {
        if self.main.is_some() {
            self.note_signal(Signal::KILL.as_raw());
            if self.record.wanted {
                // Written with the rest.
                self.record.told = Some(Signal::KILL.as_raw());
            }
        }
        self.end(Event::Kill, around)
    }

    fn end(&mut self, event: Event, around: &mut Surroundings) -> Settled {
        if self.record.wanted {
            self.record.wanted = false;
            if let Some(run) = &mut self.record.run {
                run.stopped = matches!(event, Event::Stop { .. });
            }
            // A successor goes on with the stop. Should this fail, it would only have to be asked again.
            drop(self.record.write(&self.dir));
        }
        if self.is_active() {
            self.apply(event, around)
        } else {
            Some(Ok(()))
        }
    }

    /// Whether it is on its way to its end, also where that is known and has not been settled yet.
    pub(in crate::supervise) fn is_ending(&self) -> bool {
        let has_lost_main =
            || self.ended.is_some() || self.main.is_some_and(|main| !main.is_alive());
        self.life.is_ending()
            || (matches!(self.life.phase(), Phase::Running { .. }) && has_lost_main())
    }

    /// What SIGKILL has not ended, where it was given up on: it is in the way of a start.
    pub(in crate::supervise) fn left(&self, around: &mut Surroundings) -> Option<Failure> {
        (self.life.phase() == Phase::Left).then(|| self.survivors(around, self.main))
    }

    /// Before a start: what is alive of the last run is ended first, in whatever way it came to be alone.
    /// Whether there is anything.
    pub(super) fn end_remains(&mut self, around: &mut Surroundings) -> bool {
        let run = self.record.run.as_ref();
        if self.leftover.is_nobody() || !run.is_some_and(Run::is_of_here) {
            return false;
        }
        let found = around
            .snapshot()
            .map(|all| Remains::of(&self.record, all))
            .unwrap_or_default();
        if found.is_empty() {
            self.leftover.found_nobody();
            return false;
        }
        self.known = found.left;
        let action = self.life.on_event(Event::Remains, around.now);
        debug_assert_eq!(action, Action::KillTree);
        drop(self.perform(action, around, None));
        // They may have ended at this very moment.
        self.is_ending()
    }

    /// It is given up on: what is left of it is reported, and waited for without an end.
    pub(super) fn give_up(
        &mut self,
        around: &mut Surroundings,
        main: Option<ProcessId>,
    ) -> Failure {
        self.health = None;
        if let Some(run) = self.record.run.as_mut().filter(|run| !run.given_up) {
            run.given_up = true;
            // Only what is said before the next stop depends on it.
            drop(self.record.write(&self.dir));
        }
        self.survivors(around, main)
    }

    fn survivors(&self, around: &mut Surroundings, main: Option<ProcessId>) -> Failure {
        let mut left = around.tree(self, main);
        let keeper = self.keeper.as_ref().map(|keeper| keeper.id);
        if let (Some(keeper), Some(all)) = (keeper, around.snapshot()) {
            left.extend(all.held_of(keeper.pid));
        }
        if !left.is_empty() {
            let left = left.iter().map(|id| Survivor::of(id.pid)).collect();
            return Failure::Unkillable { left };
        }
        // Nobody that SIGKILL was sent to: its keeper does not go, or nobody here can see who it is.
        let group = self.record.group().map(|group| group.path().to_owned());
        Failure::Remains {
            left: keeper.iter().map(|id| Survivor::of(id.pid)).collect(),
            group: group.filter(|_| self.is_group_populated()),
        }
    }

    /// All that was told to end has ended; whether anything is left must be looked up.
    pub(super) fn must_sweep(&self) -> bool {
        self.life.is_ending()
            && self.main.is_none()
            && self.ended.is_none()
            && self.watched.is_empty()
            && self.leftover.is_due(self.keeper.is_some())
    }

    /// Looks for the processes of the run, at all of the machine only where their descent does not tell: its keeper has
    /// gone, or one of them has outlived its time. Who has nothing but the run's id in the environment is found when the
    /// keeper has gone.
    pub(super) fn relatives(
        &self,
        around: &mut Surroundings,
        main: Option<ProcessId>,
    ) -> Relatives {
        let is_in_time = matches!(
            self.life.phase(),
            Phase::Running { .. } | Phase::Clearing { .. } | Phase::Stopping { .. }
        );
        if let Some(keeper) = self.keeper.as_ref().filter(|_| is_in_time) {
            if let Some(mut kin) = kin::below(keeper.id, &self.vouching()) {
                let is_missed = |main: &ProcessId| !kin.own.contains(main) && main.is_alive();
                kin.own.extend(main.filter(is_missed));
                return Relatives::Below(kin);
            }
            if self.main.is_none() && !keeper.id.is_alive() {
                return Relatives::Unsettled;
            }
        }
        Relatives::All(around.tree(self, main))
    }

    /// Sends every process of the tree the signal of the phase, once; concludes when there is none.
    pub(super) fn sweep(&mut self, around: &mut Surroundings, main: Option<ProcessId>) -> Settled {
        if let Some(keeper) = &self.keeper {
            // A frozen one would neither reap nor go once it has recorded everything.
            let _ = rustix::process::pidfd_send_signal(&keeper.end, Signal::CONT);
        }
        let polite = matches!(self.life.phase(), Phase::Stopping { .. });
        self.release_group(polite);
        let relatives = self.relatives(around, main);
        let is_by_descent = matches!(relatives, Relatives::Below(_));
        let Some(turn) = relatives.turn(polite, self.leftover.has_word()) else {
            self.leftover.found_keeper(None);
            return None;
        };
        let tree = turn.now;
        if tree.is_empty() && self.main.is_none() {
            if self.is_group_populated() {
                let pause = if self.life.phase() == Phase::Left {
                    LEFT_RETRY
                } else {
                    GROUP_RETRY
                };
                self.leftover.look_after(pause, around.now);
                return None;
            }
            if self.keeper.is_some() {
                let again = is_by_descent.then(|| around.now.saturating_add(KIN_RETRY));
                self.leftover.found_keeper(again);
                return None;
            }
            // Without a keeper's word or a group, a list that has missed somebody proves nothing.
            let is_grouped = self.is_grouped();
            let is_proof = || is_grouped || around.snapshot().is_some_and(Snapshot::is_whole);
            if !self.leftover.is_believed(is_proof) {
                self.leftover.look_after(GROUP_RETRY, around.now);
                return None;
            }
            self.leftover.found_nobody();
            return self.apply(Event::TreeGone, around);
        }
        self.leftover.found();
        let signal = if turn.is_asked {
            self.record.spec.stop_signal
        } else {
            Signal::KILL.as_raw()
        };
        for id in &tree {
            if self.watched.iter().any(|(known, _)| known == id) {
                continue;
            }
            let Some(fd) = id.open() else { continue };
            // A process we may not signal stays watched; it is reported if it outlives its time.
            drop(send(&fd, signal));
            // One that is frozen would not notice.
            drop(send(&fd, Signal::CONT.as_raw()));
            self.watched.push((*id, fd));
        }
        // Where what was known has been killed and there are others: they come faster than they are found.
        let is_new = |id: &ProcessId| !self.known.contains(id);
        if !polite && tree.iter().any(is_new) {
            self.chase(&tree, around);
        }
        if self.watched.is_empty() && self.main.is_none() {
            // All that was found has gone by now, and what it has left has not been seen.
            self.leftover.look_after(SOON, around.now);
        }
        self.known = tree;
        self.known.extend(turn.later);
        None
    }

    /// Kills what is found too late, where it appears.
    fn chase(&self, tree: &[ProcessId], around: &mut Surroundings) {
        if let Some(keeper) = &self.keeper {
            return chase(&[keeper.id.pid], |_| true);
        }
        let run_id = self.record.id();
        let mut parents = around
            .snapshot()
            .map(|all| all.adopters(tree))
            .unwrap_or_default();
        // Our own orphans have the same one as those of a supervisor that was killed.
        let own = [Some(rustix::process::getpid()), rustix::process::getppid()];
        parents.extend(
            own.into_iter()
                .flatten()
                .filter_map(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok()),
        );
        parents.sort_unstable();
        parents.dedup();
        chase(&parents, |pid| read_run_id(pid).as_deref() == Some(run_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_has_not_started_is_killed_when_the_rest_has_ended() {
        let [server, shell] = [7, 8].map(|pid| ProcessId { pid, start_time: 1 });
        let both = || Kin {
            own: vec![server],
            others: vec![shell],
        };
        let alone = || Kin {
            own: Vec::new(),
            others: vec![shell],
        };
        let turn = |now: &[ProcessId], later: &[ProcessId], is_asked| {
            Some(Turn {
                now: now.to_vec(),
                later: later.to_vec(),
                is_asked,
            })
        };
        let asked = Relatives::Below(both()).turn(true, false);
        assert_eq!(asked, turn(&[server], &[shell], true));
        let killed = Relatives::Below(alone()).turn(true, false);
        assert_eq!(killed, turn(&[shell], &[], false));
        let killed = Relatives::Below(both()).turn(false, false);
        assert_eq!(killed, turn(&[server, shell], &[], false));
        // Without a keeper's word nobody knows whose they are.
        let asked = Relatives::All(vec![shell]).turn(true, false);
        assert_eq!(asked, turn(&[shell], &[], true));
        let killed = Relatives::All(vec![shell]).turn(true, true);
        assert_eq!(killed, turn(&[shell], &[], false));
        assert_eq!(Relatives::Unsettled.turn(true, true), None);
    }
}
