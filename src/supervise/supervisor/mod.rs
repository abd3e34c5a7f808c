//! The supervisor's one loop: waits for whatever happens next and hands it to whom it concerns. What happens
//! to an instance is `unit`'s business.

mod children;
mod entries;
mod farewell;
mod requests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::Rlimit;

use farewell::Farewell;
use requests::Queued;

use super::control::{ClientId, Control};
use super::daemon::system;
use super::lifecycle::Moment;
use super::unit::{Settled, Surroundings, Unit};
use crate::backend::BackendError;
use crate::backend::process::dirs::ProjectDir;
use crate::backend::process::protocol::Reply;
use crate::backend::process::{Record, lock, names};

/// How long it waits for the command that started it to connect.
const PATIENCE: Duration = Duration::from_secs(10);

/// The loop's clock begins here, so that moments before the supervisor's own start can be told.
const EPOCH: Duration = Duration::from_secs(1 << 32);

/// See the module.
#[derive(Debug)]
pub(super) struct Supervisor {
    dir: ProjectDir,
    control: Control,
    signals: SignalFd,
    /// Tells that a keeper has noted something.
    notes: OwnedFd,
    /// By name; the names are shared with what is waited on.
    units: BTreeMap<Rc<str>, Unit>,
    /// Who waits for the start of which instance.
    starters: Vec<(String, ClientId)>,
    /// Who waits for the end of which instance in order to have it started.
    queued: Vec<Queued>,
    /// Who waits for the end of which instance.
    waiting: Vec<(String, ClientId)>,
    /// Who waits for the end of which instance in order to have it removed.
    removing: Vec<(String, ClientId)>,
    origin: Instant,
    /// The limit of open descriptors before we raised ours.
    descriptors: Rlimit,
    dismissed: bool,
    /// Whether a service manager ends all that runs here.
    farewell: Farewell,
    /// Held for life; the kernel lets go of it.
    lock: File,
}

/// What a descriptor in the poll set stands for.
#[derive(Clone, Copy, Debug)]
enum Source<Name> {
    Signals,
    Door,
    Client(ClientId),
    Notes,
    Of(Name, Part),
}

/// A descriptor that is ready, and for what.
type Happened = (Source<Rc<str>>, PollFlags);

impl Source<&Rc<str>> {
    /// Counting who has the name is writing to memory, of which a keeper made since has a copy: so only for what has
    /// happened.
    fn owned(self) -> Source<Rc<str>> {
        match self {
            Self::Signals => Source::Signals,
            Self::Door => Source::Door,
            Self::Client(id) => Source::Client(id),
            Self::Notes => Source::Notes,
            Self::Of(name, part) => Source::Of(Rc::clone(name), part),
        }
    }
}

/// What of a unit it stands for.
#[derive(Clone, Copy, Debug)]
enum Part {
    Report,
    Output(usize),
    Keeper,
    Main,
    Check,
    Watched(u32),
}

impl Supervisor {
    /// Of a project, with nothing taken over yet.
    pub(super) fn new(
        dir: ProjectDir,
        control: Control,
        (signals, notes): (SignalFd, OwnedFd),
        descriptors: Rlimit,
        lock: File,
    ) -> Self {
        Self {
            dir,
            control,
            signals,
            notes,
            units: BTreeMap::new(),
            starters: Vec::new(),
            queued: Vec::new(),
            waiting: Vec::new(),
            removing: Vec::new(),
            origin: Instant::now(),
            descriptors,
            dismissed: false,
            farewell: Farewell::default(),
            lock,
        }
    }

    fn now(&self) -> Moment {
        EPOCH.saturating_add(self.origin.elapsed())
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings::new(self.now(), Some(self.descriptors))
    }

    /// Takes over whatever the ledger says is alive.
    pub(super) fn adopt(&mut self) {
        let mut around = self.surroundings();
        let mut follows_another = false;
        for name in names(&self.dir).unwrap_or_default() {
            match self.load(&name, &mut around) {
                Ok(Some(mut unit)) if unit.is_active() => {
                    follows_another = true;
                    if unit.is_unwanted() {
                        // Not settled for anybody: whoever asked has gone with the last supervisor.
                        drop(unit.stop(None, &mut around));
                    }
                    unit.watch_notes(self.notes.as_fd());
                    self.units.insert(name.into(), unit);
                }
                Ok(_) => {}
                Err(error) => say(&format!("cannot take over {name}: {error}")),
            }
        }
        if follows_another {
            // It may have known of runs that the ledger does not.
            drop(lock::open(&self.dir.unswept()));
        }
    }

    fn load(&self, name: &str, around: &mut Surroundings) -> Result<Option<Unit>, BackendError> {
        let dir = self.dir.instance(name)?;
        Record::read(&dir)?
            .map(|record| Unit::take_over(dir, record, around))
            .transpose()
    }

    /// The loop.
    pub(super) fn attend(&mut self) -> Result<(), BackendError> {
        loop {
            let ready = self.wait()?;
            let mut around = self.surroundings();
            let mut requests = Vec::new();
            for (source, flags) in ready {
                match source {
                    Source::Signals => self.on_children(around.now),
                    Source::Door => self.control.accept(),
                    Source::Client(id) => {
                        if flags.contains(PollFlags::OUT) {
                            self.control.flush(id);
                        }
                        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                            requests
                                .extend(self.control.hear(id).into_iter().map(|heard| (id, heard)));
                        }
                    }
                    Source::Notes => self.on_notes(),
                    Source::Of(name, part) => self.on_part(&name, part, &mut around),
                }
            }
            // Ends are noted before requests are answered: the answer to a ping promises that.
            self.settle(&mut around);
            self.take_leave(&mut around);
            for (id, heard) in requests {
                self.answer(id, heard, &mut around);
            }
            self.launch(&mut around);
            if self.dismissed || self.is_done() {
                return Ok(());
            }
        }
    }

    fn on_part(&mut self, name: &str, part: Part, around: &mut Surroundings) {
        match part {
            Part::Report => return self.reported(name, around),
            // How it has ended; a main process is our child if its keeper was, and then its code can be known.
            Part::Keeper | Part::Main => self.on_children(around.now),
            Part::Output(_) | Part::Check | Part::Watched(_) => {}
        }
        let Some(unit) = self.units.get_mut(name) else {
            return;
        };
        match part {
            Part::Report => {}
            Part::Keeper => unit.on_keeper_ended(around.now),
            Part::Output(at) => unit.on_output(at, around.now),
            Part::Main => unit.on_main_ended(None),
            Part::Check => unit.on_check_speaks(),
            Part::Watched(pid) => unit.on_watched_ended(pid),
        }
    }

    fn is_done(&self) -> bool {
        if self.is_leaving() {
            // Whoever is connected has another one come up, elsewhere.
            return self.units.is_empty();
        }
        let expected = !self.control.was_used() && self.origin.elapsed() < PATIENCE;
        self.units.is_empty() && self.control.is_idle() && !expected
    }

    fn wait(&self) -> Result<Vec<Happened>, BackendError> {
        let mut set = vec![
            (Source::Signals, self.signals.as_fd(), PollFlags::IN),
            (Source::Door, self.control.door(), PollFlags::IN),
            (Source::Notes, self.notes.as_fd(), PollFlags::IN),
        ];
        for (id, fd, more) in self.control.connections() {
            let flags = if more {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            };
            set.push((Source::Client(id), fd, flags));
        }
        for (name, unit) in &self.units {
            let mut add = |part, fd| set.push((Source::Of(name, part), fd, PollFlags::IN));
            for (at, fd) in unit.pipes() {
                add(Part::Output(at), fd);
            }
            if let Some(fd) = unit.report() {
                add(Part::Report, fd);
            }
            if let Some(fd) = unit.keeper() {
                add(Part::Keeper, fd);
            }
            if let Some(fd) = unit.main_end() {
                add(Part::Main, fd);
            }
            if let Some(fd) = unit.ear() {
                add(Part::Check, fd);
            }
            for (pid, fd) in unit.watched() {
                add(Part::Watched(pid), fd);
            }
        }
        let mut fds: Vec<PollFd<'_>> = set
            .iter()
            .map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        let timeout = self.timeout();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(system("wait", error)),
        }
        let happened: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        Ok(set
            .into_iter()
            .zip(happened)
            .filter(|(_, flags)| !flags.is_empty())
            .map(|((source, ..), flags)| (source.owned(), flags))
            .collect())
    }

    /// Until the nearest deadline; `None`: for ever.
    fn timeout(&self) -> Option<Timespec> {
        let patience = (self.units.is_empty() && !self.control.was_used())
            .then(|| EPOCH.saturating_add(PATIENCE));
        let nearest = self
            .units
            .values()
            .filter_map(Unit::deadline)
            .chain(patience)
            .min()?;
        let left = nearest.saturating_sub(self.now());
        Timespec::try_from(left).ok()
    }

    /// Lets every unit that something happened to draw its conclusions, and forgets those that are over.
    fn settle(&mut self, around: &mut Surroundings) {
        let due = |unit: &Unit| unit.deadline().is_some_and(|at| at <= around.now);
        let names: Vec<Rc<str>> = self
            .units
            .iter()
            .filter(|(_, unit)| due(unit))
            .map(|(name, _)| Rc::clone(name))
            .collect();
        for name in names {
            let Some(unit) = self.units.get_mut(&name) else {
                continue;
            };
            let settled = unit.settle(around);
            self.conclude(&name, settled, around);
        }
    }

    /// Hands on what keepers have noted.
    fn on_notes(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.notes, &mut buffer);
        while let Ok(event) = events.next() {
            let watch = event.wd();
            for unit in self.units.values_mut() {
                if unit.is_watched_by(watch) {
                    unit.on_notes();
                }
                if unit.is_measured_by(watch) {
                    unit.on_memory();
                }
            }
        }
    }

    /// Tells those who waited for an end, forgets the unit if it is over, and starts it again for those who
    /// waited for that.
    fn conclude(&mut self, name: &str, settled: Settled, around: &mut Surroundings) {
        let failure = settled.as_ref().and_then(|outcome| outcome.clone().err());
        if let Some(outcome) = settled {
            let reply = match outcome {
                Ok(()) => Reply::Done {
                    id: None,
                    notes: self
                        .units
                        .get_mut(name)
                        .and_then(Unit::take_note)
                        .into_iter()
                        .collect(),
                },
                Err(failure) => Reply::Failed(failure),
            };
            for id in concerned(&mut self.waiting, name) {
                self.control.answer(id, &reply);
            }
        }
        let mut unwritten = None;
        if let Some(unit) = self.units.get_mut(name) {
            unwritten = unit.take_unwritten();
            if unit.is_active() {
                unit.watch_notes(self.notes.as_fd());
            } else {
                unit.unwatch(self.notes.as_fd());
                self.units.remove(name);
            }
        }
        let in_the_way = failure.as_ref().or(unwritten.as_ref());
        self.start_queued(name, in_the_way, around);
        self.remove_awaited(name, failure.as_ref(), around);
    }

    /// Leaves so that nobody finds a socket without a supervisor behind it.
    pub(super) fn leave(self) {
        self.disappear();
    }

    /// Takes card and socket away: whoever looks for a supervisor from now on has another one come up.
    fn disappear(&self) {
        // Where the project's directory was removed and made anew, card and socket are another one's.
        if lock::is_at(&self.lock, &self.dir.supervisor_lock()) {
            drop(std::fs::remove_file(self.dir.supervisor_card()));
            self.control.hide();
        }
    }
}

/// Takes out who waits for something about an instance.
fn concerned(waiting: &mut Vec<(String, ClientId)>, name: &str) -> Vec<ClientId> {
    let theirs = waiting.extract_if(.., |(instance, _)| instance == name);
    theirs.map(|(_, id)| id).collect()
}

/// A line in the supervisor's log, which is its standard error.
fn say(text: &str) {
    // A full disk must not end the supervisor.
    drop(writeln!(io::stderr(), "{text}"));
}
