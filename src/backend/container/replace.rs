//! What a replacement needs to know about the container it replaces, kept while steps run: the volumes
//! that go over to it, and the name that it takes when the old one is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::mounts::Inherited;
use super::reply::Inspected;
use super::{Containers, create};

/// Knowledge about replaced containers, by their id.
#[derive(Debug, Default)]
pub(super) struct Replaced(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    volumes: BTreeMap<String, Vec<Inherited>>,
    heirs: BTreeMap<String, Heir>,
}

/// A container that takes another one's place.
#[derive(Clone, Debug)]
pub(super) struct Heir {
    /// Its id.
    pub id: String,
    /// The name it is to have.
    pub name: String,
    /// Whether the other one has that name, so that this one waits under a temporary one.
    pub waits: bool,
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

    /// Remembers who takes the place of a container once that is removed.
    pub(super) fn remember_heir(&self, id: &str, heir: Heir) {
        self.known().heirs.insert(id.to_owned(), heir);
    }

    /// Who takes the place of a removed container.
    pub(super) fn take_heir(&self, id: &str) -> Option<Heir> {
        self.known().heirs.remove(id)
    }

    fn take_heirs(&self) -> BTreeMap<String, Heir> {
        std::mem::take(&mut self.known().heirs)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Containers {
    /// Removes the containers that were made to replace others which are still there, when nothing is under way any
    /// more; the names that they waited for.
    pub async fn give_up_replacements(&self) -> Vec<String> {
        let heirs = self.shared.replaced.take_heirs();
        let mut names = Vec::new();
        if heirs.is_empty() {
            return names;
        }
        // An engine that is gone keeps them; the next command finds them.
        if let Ok(engine) = self.engine().await {
            for heir in heirs.into_values() {
                if create::try_remove(engine, &heir.id).await.is_ok() {
                    names.push(heir.name);
                }
            }
        }
        names.sort();
        names
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
