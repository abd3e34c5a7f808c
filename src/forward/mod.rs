//! NAMES TO SERVICES: the process that carries connections between the names of a project and its services,
//! whichever form those have.
//!
//! It is told nothing. The ledger says who is local, the kernel where those listen, the engine who else is on
//! their networks (`world`); from that follows what should be (`routes`, pure), and that is brought about: names
//! in hosts files (`hosts`), listening sockets here and in relays (`doors`), connections between them (`carry`).
//! Every change of the world makes all routes anew, so that a forwarder which was killed is followed by one that
//! does the same.
//!
//! One thread. Nothing waits but for descriptors and clocks; what takes milliseconds runs beside it.

mod calls;
mod carry;
mod control;
mod doors;
mod engine;
mod hearing;
mod hosts;
mod ledger;
mod reach;
mod relays;
mod routes;
pub mod single;
mod socket;
mod strangers;
pub mod stream;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::backend::container::{Containers, Neighbourhood};
use crate::backend::process::NamesReply;
use crate::backend::process::dirs::{Dirs, ProjectDir, failed};
use crate::backend::{BackendError, in_one_line};
use crate::naming::{Reach as Means, Role};
use crate::relay::raise_limit;
use calls::Calls;
use control::Asked;
use doors::{Doors, Key, State};
use engine::Engine;
use hearing::Hearing;
use hosts::{Base, Files};
use ledger::Ledger;
use reach::Reach;
use relays::{Meetings, Relays};
use routes::{Door, Routes};
use strangers::Strangers;
use world::{Entry, Life, World};

/// How long somebody who waits for names is kept waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// A forwarder that nobody needs ends after this time, but not in the first of its life: the project is coming
/// up.
const UNUSED: Duration = Duration::from_secs(2);
const FIRST: Duration = Duration::from_secs(10);

/// How long a service whose start was announced may take to listen.
const STARTING: Duration = Duration::from_secs(30);

/// How often it is looked whether that is so.
const GLANCE: Duration = Duration::from_millis(500);

/// How long changes of the ledger gather before they are followed, unless somebody waits: when a stack comes up,
/// one brings the next.
const GATHER: Duration = Duration::from_millis(100);

/// Something that a task has to tell.
#[derive(Debug)]
enum Event {
    /// A relay has come.
    Met { service: String, reach: Reach },
    /// It has gone.
    Lost { service: String, id: u64 },
    /// A listening socket was opened, or not.
    Door { key: Key, serial: u64, state: State },
    /// The engine was looked at for somebody who waits.
    Looked {
        waiting: u64,
        outcome: Result<(), String>,
    },
}

/// Somebody who waits until everything is in effect.
#[derive(Debug)]
struct Waiting {
    asked: Asked,
    /// Whether the engine has been looked at since; what it said otherwise.
    looked: Option<Result<(), String>>,
    until: Instant,
}

/// Forwards for a project until nothing of it is alive, or until SIGTERM. `containers` is there when the project
/// has any: without it no engine is asked.
///
/// # Errors
/// When the socket for commands cannot be had.
pub async fn run(
    dirs: &Dirs,
    project: &str,
    containers: Option<Containers>,
    means: Means,
) -> Result<(), BackendError> {
    raise_limit();
    let dir = dirs.project(project)?;
    dir.create()?;
    let mut forwarder = Forwarder::new(dir, containers, means)?;
    let outcome = forwarder.attend().await;
    // The next one does so too, for those that were killed.
    drop(std::fs::remove_file(forwarder.dir.names_socket()));
    outcome
}

#[derive(Debug)]
struct Forwarder {
    dir: ProjectDir,
    ledger: Ledger,
    entries: Vec<Entry>,
    hearing: Hearing,
    engine: Option<Engine>,
    base: Base,
    files: Files,
    relays: Relays,
    meetings: Meetings,
    strangers: Strangers,
    containers: Option<Containers>,
    /// In place of meetings, where relays are reached through the engine.
    calls: Option<(Calls, Containers)>,
    doors: Doors,
    /// What the routes were made from; `None` when it may have changed.
    world: Option<World>,
    routes: Routes,
    /// When what has changed is to be followed at the latest.
    due: Option<Instant>,
    /// Something is known that has not been brought about.
    is_unsettled: bool,
    /// Some hosts file could not be written: it is tried again.
    is_in_trouble: bool,
    events: mpsc::UnboundedSender<Event>,
    told: mpsc::UnboundedReceiver<Event>,
    asked: mpsc::UnboundedReceiver<Asked>,
    waiting: BTreeMap<u64, Waiting>,
    /// Instances whose start was announced, and until when that counts.
    starting: BTreeMap<String, Instant>,
    number: u64,
    begun: Instant,
    /// Since when nothing of the project is alive.
    unused: Option<Instant>,
}

impl Forwarder {
    fn new(
        dir: ProjectDir,
        containers: Option<Containers>,
        means: Means,
    ) -> Result<Self, BackendError> {
        let path = dir.names_socket();
        let asked = control::listen(&path).map_err(|error| failed("listen at", &path, error))?;
        let (events, told) = mpsc::unbounded_channel();
        let relays = Relays::default();
        let calls = containers
            .clone()
            .filter(|_| means == Means::Stream)
            .map(|containers| (Calls::default(), containers));
        Ok(Self {
            calls,
            ledger: Ledger::open(dir.clone()),
            entries: Vec::new(),
            hearing: Hearing::default(),
            engine: containers
                .clone()
                .map(|containers| Engine::follow(containers, dir.name().to_owned())),
            strangers: Strangers::default(),
            containers,
            base: Base::new(PathBuf::from("/etc/hosts")),
            files: Files::default(),
            meetings: Meetings::default(),
            doors: Doors::new(relays.clone(), events.clone()),
            relays,
            world: None,
            routes: Routes::default(),
            due: None,
            is_unsettled: true,
            is_in_trouble: false,
            events,
            told,
            asked,
            waiting: BTreeMap::new(),
            starting: BTreeMap::new(),
            number: 0,
            begun: Instant::now(),
            unused: None,
            dir,
        })
    }

    async fn attend(&mut self) -> Result<(), BackendError> {
        let cannot = |source| BackendError::State {
            action: "the forwarder cannot set up its signals".to_owned(),
            source,
        };
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        self.refresh_base();
        self.read_ledger(false).await;
        let mut heard = Instant::now();
        loop {
            if self.is_unsettled {
                self.is_unsettled = false;
                self.settle();
            }
            if self.is_to_end() {
                return Ok(());
            }
            let pause = if self.unused.is_some() || !self.waiting.is_empty() {
                GLANCE.min(self.hearing.pause())
            } else {
                self.hearing.pause()
            };
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                () = self.ledger.changed(), if self.due.is_none() => self.due_soon(),
                () = at(self.due) => self.read_ledger(false).await,
                () = picture_changed(&mut self.engine) => self.is_unsettled = true,
                Some(event) = self.told.recv() => self.hear(event),
                Some(asked) = self.asked.recv() => {
                    // A stack asks for all its services at once: one look does for them.
                    let mut all = vec![asked];
                    while let Ok(more) = self.asked.try_recv() {
                        all.push(more);
                    }
                    self.take(all).await;
                }
                () = tokio::time::sleep_until(heard + pause) => {
                    heard = Instant::now();
                    self.look_again().await;
                }
            }
            while let Ok(event) = self.told.try_recv() {
                self.hear(event);
            }
        }
    }

    /// What has changed is to be followed, and may wait a little for more.
    fn due_soon(&mut self) {
        self.due = self.due.or_else(|| Some(Instant::now() + GATHER));
    }

    fn refresh_base(&mut self) {
        if self.base.refresh() {
            self.files = Files::default();
            self.is_unsettled = true;
        }
    }

    /// The same as before at rest, as a rule: then there is nothing to bring about.
    async fn look_again(&mut self) {
        self.refresh_base();
        let records = self.entries.iter().map(|entry| Arc::clone(&entry.record));
        let entries = Entry::refresh(records.collect(), &self.entries);
        let lives = |entries: &[Entry]| entries.iter().map(|entry| entry.life).collect::<Vec<_>>();
        let is_new = lives(&entries) != lives(&self.entries);
        self.entries = entries;
        let is_new = self.listen(false).await || is_new;
        self.is_unsettled |= is_new || self.is_in_motion();
    }

    /// Whether something becomes of what is known by waiting alone.
    fn is_in_motion(&self) -> bool {
        let now = Instant::now();
        self.is_in_trouble
            || self.engine.is_some()
            || self.unused.is_some()
            || !self.waiting.is_empty()
            || self.starting.values().any(|until| *until <= now)
    }

    async fn read_ledger(&mut self, thoroughly: bool) {
        self.due = None;
        let before = world::networks(&self.entries);
        self.entries = Entry::refresh(self.ledger.read(), &self.entries);
        let now = world::networks(&self.entries);
        if now != before
            && let Some(engine) = &self.engine
        {
            drop(engine.look(now));
        }
        self.listen(thoroughly).await;
        self.is_unsettled = true;
    }

    /// Finds out who listens where; whether that has changed.
    async fn listen(&mut self, thoroughly: bool) -> bool {
        let (hearing, entries) = (self.hearing.clone(), self.entries.clone());
        let work = tokio::task::spawn_blocking(move || hearing.listen(&entries, thoroughly));
        // A look that went wrong leaves what was heard before.
        let Ok(hearing) = work.await else {
            return false;
        };
        let before = std::mem::replace(&mut self.hearing, hearing);
        before.heard != self.hearing.heard
    }

    fn hear(&mut self, event: Event) {
        self.is_unsettled = true;
        match event {
            Event::Met { service, reach } => {
                self.number += 1;
                let id = self.number;
                self.relays.add(&service, id, reach.clone());
                let events = self.events.clone();
                tokio::spawn(async move {
                    reach.gone().await;
                    drop(events.send(Event::Lost { service, id }));
                });
            }
            Event::Lost { service, id } => self.relays.remove(&service, id),
            Event::Door { key, serial, state } => self.doors.told(key, serial, state),
            Event::Looked { waiting, outcome } => {
                if let Some(waiting) = self.waiting.get_mut(&waiting) {
                    waiting.looked = Some(outcome);
                }
            }
        }
    }

    /// Some want to know when all is as it should be by what is known now.
    async fn take(&mut self, all: Vec<Asked>) {
        self.refresh_base();
        // Who asks for names alone is told what the kernel's list of listeners tells: while that stays the same, only
        // a socket that was handed on could be missed, and to find one all processes would have to be looked at.
        let thoroughly = all.iter().any(|asked| !asked.wanted.reachable.is_empty());
        self.read_ledger(thoroughly).await;
        let first = self.number + 1;
        for asked in all {
            let named = asked.wanted.instances.iter().cloned();
            let until = Instant::now() + STARTING;
            self.starting.extend(named.map(|name| (name, until)));
            self.number += 1;
            let waiting = Waiting {
                asked,
                looked: self.engine.is_none().then_some(Ok(())),
                until: Instant::now() + PATIENCE,
            };
            self.waiting.insert(self.number, waiting);
        }
        let Some(engine) = &self.engine else { return };
        let answered = engine.look(world::networks(&self.entries));
        let (events, numbers) = (self.events.clone(), first..=self.number);
        tokio::spawn(async move {
            let gone = || Err("the forwarder is ending".to_owned());
            let outcome = answered.await.unwrap_or_else(|_| gone());
            for waiting in numbers {
                let outcome = outcome.clone();
                drop(events.send(Event::Looked { waiting, outcome }));
            }
        });
    }

    /// Brings about what follows from what is known.
    fn settle(&mut self) {
        let now = Instant::now();
        self.starting.retain(|_, until| *until > now);
        let starting = self.starting.keys().cloned().collect();
        let picture = self.engine.as_ref().map(Engine::picture);
        let picture = picture.unwrap_or_default();
        let world = World::gather(
            self.dir.name(),
            &self.entries,
            &self.hearing.heard,
            &starting,
            &picture,
        );
        self.unused = if world.locals.iter().any(|local| local.life != Life::Down) {
            None
        } else {
            self.unused.or_else(|| Some(Instant::now()))
        };
        if self.world.as_ref() != Some(&world) {
            self.routes = routes::routes(&world);
            self.world = Some(world);
        }
        let unwritten = self.write_hosts();
        self.is_in_trouble = unwritten.is_some();
        if let Some((calls, containers)) = &mut self.calls {
            let relays = relay_containers(&picture, self.dir.name());
            calls.set(relays, containers, &self.events);
        } else if self.engine.is_some() {
            self.meetings.set(self.relay_directories(), &self.events);
            self.restart_strangers(&picture);
        }
        self.doors.set(&self.routes.doors);
        self.answer(unwritten.as_deref());
    }

    /// Relays that look for us where we are not mount our directory anew.
    fn restart_strangers(&mut self, picture: &Neighbourhood) {
        let directories = self.relay_directories();
        let missing = relay_containers(picture, self.dir.name())
            .into_values()
            .map(|(service, _)| service)
            .filter(|service| directories.contains_key(service))
            .filter(|service| self.relays.of(service).is_empty())
            .collect();
        let due = self.strangers.due(missing, Instant::now());
        let Some(containers) = self.containers.clone().filter(|_| !due.is_empty()) else {
            return;
        };
        let project = self.dir.name().to_owned();
        tokio::spawn(async move {
            for service in &due {
                say(format_args!(
                    "the relay of {service} runs and does not connect: it is restarted"
                ));
            }
            if let Err(error) = containers.restart_relays(&project, &due).await {
                say(format_args!("relays stay away: {}", in_one_line(&error)));
            }
        });
    }

    /// Where the relays of local services with names connect.
    fn relay_directories(&self) -> BTreeMap<String, PathBuf> {
        self.entries
            .iter()
            .map(|entry| &entry.record)
            .filter(|record| Role::of(&record.spec.labels).is_none())
            .filter(|record| !record.spec.names.places.is_empty())
            .filter_map(|record| {
                let service = record.spec.service.clone();
                let directory = self.dir.relay(&service).ok()?;
                Some((service, directory))
            })
            .collect()
    }

    /// What keeps a hosts file from being right, if anything does. While somebody waits for some of them, the
    /// others have time.
    fn write_hosts(&mut self) -> Option<String> {
        let waited_for = self.waited_for();
        let mut trouble = None;
        for Entry { record, .. } in &self.entries {
            let Some(lines) = self.routes.hosts.get(&record.spec.name) else {
                continue;
            };
            let is_left = |names: &BTreeSet<String>| !names.contains(&record.spec.name);
            if waited_for.as_ref().is_some_and(is_left) {
                continue;
            }
            let Ok(dir) = self.dir.instance(&record.spec.name) else {
                continue;
            };
            if let Err(error) = self.files.write(&dir.hosts(), record, &self.base, lines) {
                trouble = Some(format!("cannot write {}: {error}", dir.hosts().display()));
            }
        }
        if waited_for.is_some() {
            self.due_soon();
        }
        trouble
    }

    /// The instances whose names somebody waits for; `None` for all, also when nobody waits.
    fn waited_for(&self) -> Option<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for waiting in self.waiting.values() {
            if waiting.asked.wanted.instances.is_empty() {
                return None;
            }
            all.extend(waiting.asked.wanted.instances.iter().cloned());
        }
        (!all.is_empty()).then_some(all)
    }

    /// Answers those who wait for what is now in effect, and those who have waited too long.
    fn answer(&mut self, unwritten: Option<&str>) {
        let now = Instant::now();
        let mut done = Vec::new();
        for (number, waiting) in &self.waiting {
            match self.lacks(waiting, unwritten) {
                None => done.push((*number, NamesReply::Ok(true))),
                Some(lack) if now >= waiting.until => done.push((*number, NamesReply::Error(lack))),
                Some(_) => {}
            }
        }
        for (number, reply) in done {
            if let Some(waiting) = self.waiting.remove(&number) {
                // Who asked may have gone.
                drop(waiting.asked.answer.send(reply));
            }
        }
    }

    /// What is not yet as somebody wants it.
    fn lacks(&self, waiting: &Waiting, unwritten: Option<&str>) -> Option<String> {
        let wanted = &waiting.asked.wanted;
        match &waiting.looked {
            None => return Some("the engine does not answer".to_owned()),
            // What is started is found by the names that were known last; the rest comes with the engine.
            Some(Err(_)) if wanted.reachable.is_empty() && !wanted.instances.is_empty() => {}
            Some(Err(error)) => return Some(error.clone()),
            Some(Ok(())) => {}
        }
        if let Some(trouble) = unwritten {
            return Some(trouble.to_owned());
        }
        let reachable = &wanted.reachable;
        let unconnected = reachable
            .iter()
            .find(|service| self.relays.of(service).is_empty());
        if let Some(service) = unconnected {
            return Some(format!("the relay of {service} has not connected"));
        }
        self.routes
            .doors
            .keys()
            .filter(|door| match door {
                Door::Here(_) => true,
                Door::Relay { service, .. } => reachable.contains(service),
            })
            .find_map(|door| self.doors.lacks(door))
    }

    /// Whether nobody needs names any more. A command that is at work may be about to start something.
    fn is_to_end(&self) -> bool {
        self.begun.elapsed() >= FIRST
            && self.waiting.is_empty()
            && self.unused.is_some_and(|since| since.elapsed() >= UNUSED)
            && !is_locked(&self.dir.command_lock())
    }
}

/// The relays of a project: service and name, by their container's id.
fn relay_containers(picture: &Neighbourhood, project: &str) -> BTreeMap<String, (String, String)> {
    picture
        .neighbours
        .iter()
        .filter(|(_, one)| one.project == project && Role::of(&one.labels) == Some(Role::Relay))
        .map(|(id, one)| (id.clone(), (one.service.clone(), one.name.clone())))
        .collect()
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn picture_changed(engine: &mut Option<Engine>) {
    match engine {
        Some(engine) => engine.changed().await,
        None => std::future::pending().await,
    }
}

/// Whether somebody has a lock on a file (`proc_locks(5)`). Trying it out would keep others from having it.
fn is_locked(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(file), Ok(locks)) = (
        std::fs::metadata(path),
        std::fs::read_to_string("/proc/locks"),
    ) else {
        return false;
    };
    let inode = format!(":{}", file.ino());
    locks
        .lines()
        .filter(|line| line.contains(" FLOCK "))
        .any(|line| line.split_whitespace().any(|word| word.ends_with(&inode)))
}

/// What the instance's log should know.
fn say(text: fmt::Arguments<'_>) {
    // Nobody may be reading.
    drop(writeln!(io::stderr(), "{text}"));
}
