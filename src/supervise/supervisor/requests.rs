//! What a command may ask, and what it is told.

use std::rc::Rc;
use std::time::Duration;

use super::{Supervisor, concerned};
use crate::backend::process::protocol::{Failure, Reply, Request};
use crate::supervise::control::ClientId;
use crate::supervise::unit::{Settled, Surroundings, Unit};

/// So many keepers are made together at most: what is to start first should not wait for too many others.
const TOGETHER: usize = 8;

/// A start that waits for the end of the run before it.
#[derive(Debug)]
pub(super) struct Queued {
    instance: String,
    pub(super) client: ClientId,
    before: Option<String>,
}

impl Supervisor {
    pub(super) fn answer(
        &mut self,
        id: ClientId,
        heard: Result<Request, String>,
        around: &mut Surroundings,
    ) {
        if let Ok(Request::Start { instance, before }) = &heard {
            if self.is_leaving() {
                return self.refer(id);
            }
            return self.start(id, instance, before.as_deref(), around);
        }
        if let Ok(request) = &heard {
            // Whatever else is asked about it needs to know what came of its start.
            self.reported(request.instance(), around);
        }
        let outcome = match heard {
            // Answered above.
            Ok(Request::Start { .. }) => return,
            Ok(Request::Stop { instance, grace_ms }) => {
                let grace = grace_ms.map(Duration::from_millis);
                return self.end(id, &instance, around, |unit, around| {
                    unit.stop(grace, around)
                });
            }
            Ok(Request::Kill { instance, signal }) => {
                // Where nothing runs that a signal could reach, the restart that is due is what it ends.
                let waits = self
                    .units
                    .get(instance.as_str())
                    .is_some_and(Unit::is_waiting);
                if waits || signal == rustix::process::Signal::KILL.as_raw() {
                    return self.end(id, &instance, around, Unit::kill);
                }
                self.signal(&instance, signal, around).map(|()| None)
            }
            Ok(Request::Pause { instance }) => {
                self.running(&instance).and_then(Unit::pause).map(|()| None)
            }
            Ok(Request::Unpause { instance }) => self
                .running(&instance)
                .and_then(|unit| unit.unpause(around))
                .map(|()| None),
            Ok(Request::Remove { instance }) => {
                if self
                    .units
                    .get(instance.as_str())
                    .is_some_and(Unit::is_ending)
                {
                    // The command has seen that it has exited, and not that it is over.
                    return self.removing.push((instance, id));
                }
                self.remove(&instance, around).map(|()| None)
            }
            Ok(Request::Ping) => {
                let notes = self.restore_entries(around.now);
                let reply = Reply::Done { id: None, notes };
                return self.control.answer(id, &reply);
            }
            Ok(Request::Shutdown) => {
                self.dismissed = true;
                Ok(None)
            }
            Err(message) => Err(Failure::Refused {
                message: format!("not a request: {message}"),
            }),
        };
        self.control.answer(id, &outcome.into());
    }

    /// Starts an instance; the client is answered when its keeper has reported, so that many keepers can be
    /// at work at once.
    fn start(&mut self, id: ClientId, name: &str, before: Option<&str>, around: &mut Surroundings) {
        let begun = self.begin(name, before, around);
        let unit = self.units.get(name);
        let is_starting = unit.is_some_and(Unit::is_starting);
        let is_ending = unit.is_some_and(Unit::is_ending);
        match begun {
            Ok(_) if is_starting => self.starters.push((name.to_owned(), id)),
            Ok(_) if is_ending => self.queued.push(Queued {
                instance: name.to_owned(),
                client: id,
                before: before.map(str::to_owned),
            }),
            begun => self.control.answer(id, &begun.map(Some).into()),
        }
        self.conclude(name, None, around);
        if self
            .units
            .values()
            .filter(|unit| unit.is_prepared())
            .count()
            >= TOGETHER
        {
            self.launch(around);
        }
    }

    /// Makes the keepers of all that is about to start.
    pub(super) fn launch(&mut self, around: &mut Surroundings) {
        let prepared = self.units.iter().filter(|(_, unit)| unit.is_prepared());
        let names: Vec<Rc<str>> = prepared.map(|(name, _)| Rc::clone(name)).collect();
        for name in names {
            let Some(unit) = self.units.get_mut(&name) else {
                continue;
            };
            if let Err(failure) = unit.launch(around) {
                self.came_to_life(&name, Err(failure), around);
            }
        }
    }

    /// Starts an instance for those who have waited for the end of its last run, unless that did not end well.
    pub(super) fn start_queued(
        &mut self,
        name: &str,
        failure: Option<&Failure>,
        around: &mut Surroundings,
    ) {
        if self.queued.is_empty() {
            return;
        }
        if failure.is_none() && self.units.get(name).is_some_and(Unit::is_ending) {
            return;
        }
        for queued in self.take_queued(name) {
            match failure {
                Some(failure) => {
                    self.control
                        .answer(queued.client, &Reply::Failed(failure.clone()));
                }
                // Whoever has gone meanwhile wants nothing any more.
                None if !self.control.is_connected(queued.client) => {}
                None => self.start(queued.client, name, queued.before.as_deref(), around),
            }
        }
    }

    fn take_queued(&mut self, name: &str) -> Vec<Queued> {
        let theirs = self.queued.extract_if(.., |queued| queued.instance == name);
        theirs.collect()
    }

    fn begin(
        &mut self,
        name: &str,
        before: Option<&str>,
        around: &mut Surroundings,
    ) -> Result<String, Failure> {
        if !self.units.contains_key(name) {
            let unit = self.load(name, around)?.ok_or_else(|| unknown(name))?;
            self.units.insert(name.into(), unit);
        }
        let Some(unit) = self.units.get_mut(name) else {
            return Err(unknown(name));
        };
        if let Some(failure) = unit.superseded() {
            return Err(failure);
        }
        if let Some(id) = unit.ran_since(before) {
            return Ok(id);
        }
        if let Some(failure) = unit.left(around) {
            return Err(failure);
        }
        unit.start(around)?;
        Ok(unit.id())
    }

    /// The keeper of an instance reports what came of its start.
    pub(super) fn reported(&mut self, name: &str, around: &mut Surroundings) {
        let Some(unit) = self.units.get_mut(name).filter(|unit| unit.is_starting()) else {
            return;
        };
        let outcome = unit.on_report(around);
        self.came_to_life(name, outcome, around);
    }

    /// Tells those who wait for a start what came of it.
    fn came_to_life(
        &mut self,
        name: &str,
        outcome: Result<(), Failure>,
        around: &mut Surroundings,
    ) {
        let Some(unit) = self.units.get(name) else {
            return;
        };
        let reply = outcome.clone().map(|()| Some(unit.id())).into();
        for id in concerned(&mut self.starters, name) {
            self.control.answer(id, &reply);
        }
        self.conclude(name, outcome.err().map(Err), around);
    }

    /// Ends an instance; the client is answered when it is over.
    fn end(
        &mut self,
        id: ClientId,
        name: &str,
        around: &mut Surroundings,
        how: impl FnOnce(&mut Unit, &mut Surroundings) -> Settled,
    ) {
        if !self.units.contains_key(name) {
            // Something of it may be alive that an earlier supervisor gave up on.
            match self.load(name, around) {
                Ok(Some(unit)) => {
                    self.units.insert(name.into(), unit);
                }
                // Removed a moment ago, by another command.
                Ok(None) => {
                    return self.control.answer(id, &Reply::done(None));
                }
                Err(error) => {
                    return self.control.answer(id, &Reply::Failed(error.into()));
                }
            }
        }
        for queued in self.take_queued(name) {
            let message = format!("{name} was told to end before it was started");
            self.control
                .answer(queued.client, &Reply::Failed(Failure::Refused { message }));
        }
        self.waiting.push((name.to_owned(), id));
        if let Some(unit) = self.units.get_mut(name) {
            let settled = how(unit, around);
            self.conclude(name, settled, around);
        }
    }

    /// What has ended needs no signal: the command that asks may have seen it a moment before.
    fn signal(&mut self, name: &str, signal: i32, around: &Surroundings) -> Result<(), Failure> {
        let Some(unit) = self.units.get_mut(name) else {
            return Ok(());
        };
        unit.signal(signal, around)
    }

    fn running(&mut self, name: &str) -> Result<&mut Unit, Failure> {
        self.units.get_mut(name).ok_or_else(|| Failure::Refused {
            message: format!("{name} is not running"),
        })
    }

    /// Removes an instance for those who have waited for its end, unless that did not end well.
    pub(super) fn remove_awaited(
        &mut self,
        name: &str,
        failure: Option<&Failure>,
        around: &mut Surroundings,
    ) {
        let is_ending = || self.units.get(name).is_some_and(Unit::is_ending);
        if self.removing.is_empty() || (failure.is_none() && is_ending()) {
            return;
        }
        for id in concerned(&mut self.removing, name) {
            let outcome = match failure {
                Some(failure) => Err(failure.clone()),
                None => self.remove(name, around),
            };
            self.control.answer(id, &outcome.map(|()| None).into());
        }
    }

    fn remove(&mut self, name: &str, around: &mut Surroundings) -> Result<(), Failure> {
        // Its entry does not say that its policy is to start it again: it ended just now, or the disk is full.
        if let Some(unit) = self.units.get_mut(name).filter(|unit| unit.is_waiting()) {
            let settled = unit.stop(None, around);
            self.conclude(name, settled, around);
        }
        if self.units.contains_key(name) {
            return Err(Failure::Refused {
                message: format!("{name} is running: stop it first"),
            });
        }
        Ok(self.dir.instance(name)?.remove()?)
    }
}

fn unknown(name: &str) -> Failure {
    Failure::Refused {
        message: format!("there is no local process {name}"),
    }
}
