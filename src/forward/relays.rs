//! The relays that can be asked now, by service, and the places where they come to be asked. A service has one,
//! two for a moment while it is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::reach::Reach;
use super::socket::{Meeting, Relay};
use super::{Event, say};

/// After trouble with accepting: descriptors may be short, and come back.
const BREATH: Duration = Duration::from_millis(100);

/// Who is there. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Relays(Arc<Mutex<ByService>>);

/// Each relay with the number that it was given when it came.
type ByService = BTreeMap<String, Vec<(u64, Reach)>>;

impl Relays {
    fn all(&self) -> MutexGuard<'_, ByService> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, service: &str, id: u64, reach: Reach) {
        let mut all = self.all();
        all.entry(service.to_owned()).or_default().push((id, reach));
    }

    pub(super) fn remove(&self, service: &str, id: u64) {
        if let Some(relays) = self.all().get_mut(service) {
            relays.retain(|(other, _)| *other != id);
        }
    }

    /// Those of a service, each with the number that it was given when it came.
    pub(super) fn of(&self, service: &str) -> Vec<(u64, Reach)> {
        self.all().get(service).cloned().unwrap_or_default()
    }

    /// One of these services' relays.
    pub(super) fn any(&self, services: &[String]) -> Option<Reach> {
        let all = self.all();
        services
            .iter()
            .filter_map(|service| all.get(service)?.last())
            .map(|(_, reach)| reach.clone())
            .next()
    }
}

/// Where the relays of services connect, on this machine.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    open: BTreeMap<String, Open>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    /// The socket's inode: a directory that was made again has lost it.
    inode: u64,
    task: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Meetings {
    /// Listens for the relays of exactly these services; `directory` is where each one's socket is.
    pub(super) fn set(
        &mut self,
        services: BTreeMap<String, PathBuf>,
        events: &UnboundedSender<Event>,
    ) {
        let is_true = |service: &String, open: &Open| {
            services.contains_key(service) && inode(&open.path) == Some(open.inode)
        };
        self.open.retain(|service, open| is_true(service, open));
        let missing: BTreeSet<String> = services
            .keys()
            .filter(|service| !self.open.contains_key(*service))
            .cloned()
            .collect();
        for (service, directory) in services {
            if !missing.contains(&service) {
                continue;
            }
            let path = directory.join("socket");
            match Meeting::open(&directory) {
                Ok(meeting) => {
                    let inode = inode(&path).unwrap_or_default();
                    let task = tokio::spawn(attend(service.clone(), meeting, events.clone()));
                    self.open.insert(service, Open { path, inode, task });
                }
                Err(error) => say(format_args!("cannot listen at {}: {error}", path.display())),
            }
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

async fn attend(service: String, meeting: Meeting, events: UnboundedSender<Event>) {
    loop {
        let Ok(socket) = meeting.accept().await else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        let (service, events) = (service.clone(), events.clone());
        tokio::spawn(async move {
            match Relay::greet(socket).await {
                Ok(relay) => drop(events.send(Event::Met {
                    service,
                    reach: Reach::Socket(relay),
                })),
                Err(error) => say(format_args!(
                    "the relay of {service} is not served: {error}"
                )),
            }
        });
    }
}
