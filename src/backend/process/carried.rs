//! For which services the forwarder of a project listens at an address: read from the ledger, of any project.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::Processes;
use super::ledger::{self, Record};
use crate::naming::Role;

/// A forwarder's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its project.
    pub project: String,
    /// The service for which it listens there, where the ledger tells.
    pub service: Option<String>,
    /// Whether all that is alive of this service are processes of the ledger.
    pub is_local: bool,
}

impl Processes {
    /// What the forwarder with this run id listens for at an address; `None`: the run is no forwarder's.
    pub async fn carried(&self, run: &str, address: SocketAddr) -> Option<Carried> {
        for project in self.projects().unwrap_or_default() {
            let all = self.everything(&project).await.unwrap_or_default();
            let is_it = |role| role == Some(Role::Forwarder);
            if !all.iter().any(|it| it.id.0 == run && is_it(it.role())) {
                continue;
            }
            let records = self.records(&project);
            let service = service_at(&records, address);
            let is_local = all.iter().any(|instance| {
                Some(&instance.service) == service.as_ref() && instance.role().is_none()
            });
            return Some(Carried {
                project,
                service,
                is_local,
            });
        }
        None
    }

    pub(super) fn records(&self, project: &str) -> Vec<Record> {
        let Ok(dir) = self.dirs().project(project) else {
            return Vec::new();
        };
        ledger::names(&dir)
            .unwrap_or_default()
            .iter()
            .filter_map(|name| self.record(project, name).ok())
            .collect()
    }
}

/// The service that stands at an address: by the values of an environment, or by the loopback address that it has for
/// the others.
fn service_at(records: &[Record], address: SocketAddr) -> Option<String> {
    let forwards = records
        .iter()
        .flat_map(|record| &record.spec.names.forwards);
    let mut forwards = forwards.filter(|forward| forward.listen == address);
    if let Some(forward) = forwards.next() {
        return Some(forward.service.clone());
    }
    let services: BTreeSet<&String> = records.iter().map(|record| &record.spec.service).collect();
    let stands_there = |service: &&String| {
        let names = records.iter().map(|record| &record.spec.names);
        let mut given = names.filter_map(|names| names.address(service));
        given.any(|given| IpAddr::V4(given) == address.ip())
    };
    services.into_iter().find(stands_there).cloned()
}
