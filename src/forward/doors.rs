//! Listening sockets, here and in relays: opens those that are wanted, closes those that are not, and sends what
//! comes in on its way.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::carry::carry;
use super::reach::{Listener, Reach};
use super::relays::Relays;
use super::routes::{Destination, Door};
use super::{Event, say};

/// The first and the longest pause before a port that could not be had is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// After trouble with accepting: descriptors may be short, and come back.
const BREATH: Duration = Duration::from_millis(50);

/// Connections that the kernel keeps for us.
const BACKLOG: u32 = 4096;

/// One listening socket. A service's door is one in each of its relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Here(SocketAddr),
    /// In the relay that was given this number.
    There(u64, u16),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(address) => write!(f, "{address}"),
            Self::There(_, port) => write!(f, "port {port} of a relay"),
        }
    }
}

/// How a listening socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Opening,
    Open,
    Failed(io::ErrorKind),
}

#[derive(Debug)]
struct Entry {
    state: State,
    serial: u64,
    to: watch::Sender<Vec<Destination>>,
    task: JoinHandle<()>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Doors {
    entries: BTreeMap<Key, Entry>,
    relays: Relays,
    events: UnboundedSender<Event>,
    serial: u64,
}

impl Doors {
    pub(super) fn new(relays: Relays, events: UnboundedSender<Event>) -> Self {
        Self {
            entries: BTreeMap::new(),
            relays,
            events,
            serial: 0,
        }
    }

    /// Has exactly these from now on. Connections that came in through others go on.
    pub(super) fn set(&mut self, wanted: &BTreeMap<Door, Vec<Destination>>) {
        let mut all: BTreeMap<Key, (Option<Reach>, &Vec<Destination>)> = BTreeMap::new();
        for (door, to) in wanted {
            match door {
                Door::Here(address) => drop(all.insert(Key::Here(*address), (None, to))),
                Door::Relay { service, port } => {
                    for (id, reach) in self.relays.of(service) {
                        all.insert(Key::There(id, *port), (Some(reach), to));
                    }
                }
            }
        }
        self.entries.retain(|key, _| all.contains_key(key));
        for (key, (reach, to)) in all {
            if let Some(entry) = self.entries.get(&key) {
                entry.to.send_if_modified(|old| {
                    let is_new = *old != *to;
                    if is_new {
                        old.clone_from(to);
                    }
                    is_new
                });
                continue;
            }
            self.serial += 1;
            let (sender, receiver) = watch::channel(to.clone());
            let keeper = Keeper {
                key,
                reach,
                to: receiver,
                relays: self.relays.clone(),
                serial: self.serial,
                events: self.events.clone(),
            };
            let entry = Entry {
                state: State::Opening,
                serial: self.serial,
                to: sender,
                task: tokio::spawn(keeper.keep()),
            };
            self.entries.insert(key, entry);
        }
    }

    /// Notes how opening went. `serial` tells a socket from an earlier one of the same place.
    pub(super) fn told(&mut self, key: Key, serial: u64, state: State) {
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.serial == serial
        {
            if let State::Failed(kind) = state
                && entry.state == State::Opening
                && kind != io::ErrorKind::AddrInUse
            {
                say(format_args!("cannot listen at {key}: {kind}"));
            }
            entry.state = state;
        }
    }

    /// What keeps a door from being open; `None` when nothing does.
    pub(super) fn lacks(&self, door: &Door) -> Option<String> {
        let keys: Vec<Key> = match door {
            Door::Here(address) => vec![Key::Here(*address)],
            Door::Relay { service, port } => {
                let relays = self.relays.of(service);
                relays
                    .iter()
                    .map(|(id, _)| Key::There(*id, *port))
                    .collect()
            }
        };
        keys.into_iter().find_map(|key| {
            let place = match door {
                Door::Here(address) => format!("{address}"),
                Door::Relay { service, port } => format!("port {port} of the relay of {service}"),
            };
            match self.entries.get(&key).map(|entry| entry.state) {
                // Who has a port that is in use may be the service itself, and there is nothing to wait for.
                Some(State::Open | State::Failed(io::ErrorKind::AddrInUse)) => None,
                // Not for this user, which `up` has said. Tried again: the setting may change.
                Some(State::Failed(io::ErrorKind::PermissionDenied))
                    if matches!(door, Door::Here(_)) =>
                {
                    None
                }
                Some(State::Failed(kind)) => Some(format!("cannot listen at {place}: {kind}")),
                Some(State::Opening) | None => Some(format!("does not listen at {place} yet")),
            }
        })
    }
}

/// Opens one listening socket and serves it.
struct Keeper {
    key: Key,
    reach: Option<Reach>,
    to: watch::Receiver<Vec<Destination>>,
    relays: Relays,
    serial: u64,
    events: UnboundedSender<Event>,
}

impl Keeper {
    async fn keep(self) {
        let mut pause = PAUSES.0;
        let mut listener = loop {
            match self.open().await {
                Ok(listener) => break listener,
                Err(error) => self.tell(State::Failed(error.kind())),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        };
        self.tell(State::Open);
        let mut turn = 0_usize;
        loop {
            match listener.accept().await {
                Ok(client) => {
                    turn = turn.wrapping_add(1);
                    let to = self.to.borrow().clone();
                    let (reach, relays) = (self.reach.clone(), self.relays.clone());
                    tokio::spawn(async move { carry(client, reach, &to, turn, &relays).await });
                }
                Err(_) => tokio::time::sleep(BREATH).await,
            }
        }
    }

    async fn open(&self) -> io::Result<Listener> {
        match (self.key, &self.reach) {
            (Key::There(_, port), Some(reach)) => reach.listen(port).await,
            (Key::There(..), None) => Err(io::ErrorKind::NotConnected.into()),
            (Key::Here(address), _) => {
                let socket = if address.is_ipv6() {
                    TcpSocket::new_v6()?
                } else {
                    TcpSocket::new_v4()?
                };
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                socket.listen(BACKLOG).map(Listener::Tcp)
            }
        }
    }

    fn tell(&self, state: State) {
        // The receiver lives as long as the forwarder.
        drop(self.events.send(Event::Door {
            key: self.key,
            serial: self.serial,
            state,
        }));
    }
}
