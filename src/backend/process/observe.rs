//! Ledger → instances. Needs no supervisor; asks one that is there to bring the ledger up to date when it
//! contradicts the system.

use super::client::Client;
use super::ledger::{Record, UNKNOWN_CODE};
use super::protocol::Request;
use super::run::boot_id;
use crate::backend::BackendError;
use crate::state::{BackendKind, Instance, InstanceId, Publisher, Status};

/// The instances of a project.
pub(super) async fn observe(client: &Client, project: &str) -> Result<Vec<Instance>, BackendError> {
    let dir = client.dirs.project(project)?;
    let mut records = Record::read_all(&dir)?;
    // An end that the supervisor has not noted yet looks like one that nobody saw.
    if records.iter().any(ended_unnoted) && client.ask_if_there(project, &Request::Ping).await? {
        records = Record::read_all(&dir)?;
    }
    Ok(records.into_iter().map(instance).collect())
}

fn ended_unnoted(record: &Record) -> bool {
    record.status == Status::Running && status(record) != Status::Running
}

/// The state of an instance by the ledger and the system together.
pub(super) fn status(record: &Record) -> Status {
    let Some(run) = &record.run else {
        return record.status;
    };
    let ended = Status::Exited {
        code: run.code.unwrap_or(UNKNOWN_CODE),
    };
    if !record.status.is_alive() {
        return record.status;
    }
    if run.boot_id != boot_id() {
        return ended;
    }
    match record.status {
        Status::Running if run.process.is_some_and(|process| !process.is_alive()) => ended,
        status => status,
    }
}

fn instance(record: Record) -> Instance {
    let status = status(&record);
    let seconds = |nanoseconds: i64| nanoseconds.div_euclid(1_000_000_000);
    let process = record.process();
    let run = record.run.as_ref();
    Instance {
        id: InstanceId(record.id().to_owned()),
        backend: BackendKind::Process,
        fingerprint: Some(record.spec.fingerprint.clone()),
        health: record.health.filter(|_| status.is_alive()),
        pid: process
            .filter(|_| status == Status::Running)
            .map(|process| process.pid),
        image: String::new(),
        created: seconds(record.created),
        started: run.map(|run| seconds(run.started)),
        finished: run.and_then(|run| run.finished).map(seconds),
        publishers: publishers(&record),
        networks: Vec::new(),
        one_off: record.spec.number == 0,
        stop_grace: Some(record.spec.stop_grace.as_secs()),
        readiness: record.spec.readiness.clone(),
        status,
        name: record.spec.name,
        project: record.spec.project.name,
        service: record.spec.service,
        number: record.spec.number,
        command: record.spec.command,
        labels: record.spec.labels,
    }
}

fn publishers(record: &Record) -> Vec<Publisher> {
    let mut found = Vec::new();
    for port in &record.spec.ports {
        let publisher = |ip| Publisher {
            ip,
            target: port.target,
            published: port.published.unwrap_or_default(),
            protocol: port.protocol,
        };
        if port.addresses.is_empty() {
            found.push(publisher(None));
        }
        found.extend(port.addresses.iter().map(|ip| publisher(Some(*ip))));
    }
    found
}
