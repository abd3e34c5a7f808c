//! What a replacement needs to know about the container it replaces, kept while steps run: the volumes
//! that go over to it, and the name that it takes when the old one is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::mounts::Inherited;
use super::reply::Inspected;

/// Knowledge about replaced containers, by their id.
#[derive(Debug, Default)]
pub(super) struct Replaced(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    volumes: BTreeMap<String, Vec<Inherited>>,
    heirs: BTreeMap<String, Heir>,
}

/// A container that waits under a temporary name.
#[derive(Clone, Debug)]
pub(super) struct Heir {
    /// Its id.
    pub id: String,
    /// The name it is to have.
    pub name: String,
}

impl Replaced {
    /// Remembers the anonymous volumes of a container that is about to be removed.
    pub(super) fn remember_volumes(&self, container: &Inspected) {
        self.known()
            .volumes
            .insert(container.id.clone(), anonymous_volumes(container));
    }

    /// The anonymous volumes of a container that was removed.
    pub(super) fn volumes(&self, id: &str) -> Option<Vec<Inherited>> {
        self.known().volumes.get(id).cloned()
    }

    /// Remembers who gets the name of a container once that is removed.
    pub(super) fn remember_heir(&self, id: &str, heir: Heir) {
        self.known().heirs.insert(id.to_owned(), heir);
    }

    /// Who gets the name of a removed container.
    pub(super) fn take_heir(&self, id: &str) -> Option<Heir> {
        self.known().heirs.remove(id)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Volumes that nobody named: the engine calls them by 64 hexadecimal digits.
pub(super) fn anonymous_volumes(container: &Inspected) -> Vec<Inherited> {
    container
        .mounts
        .iter()
        .filter(|mount| {
            mount.kind == "volume"
                && mount.name.len() == 64
                && mount.name.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
        .map(|mount| Inherited {
            volume: mount.name.clone(),
            target: mount.destination.clone(),
        })
        .collect()
}
