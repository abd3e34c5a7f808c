//! Ledger → instances. Where something is alive, or was until a moment ago, a supervisor is asked to bring
//! the ledger up to date; if it was killed, this is where the next command replaces it.

use std::cell::OnceCell;

use super::client::Client;
use super::ledger::{Record, Run, UNKNOWN_CODE};
use super::lock;
use super::lost;
use super::protocol::Request;
use super::remains::{self, Remains};
use super::run::{ProcessId, boot_id};
use super::tree::Snapshot;
use crate::backend::BackendError;
use crate::state::{BackendKind, Instance, InstanceId, Publisher, Status};

/// How often a supervisor is asked about what ends while it answers.
const CATCHING_UP: usize = 3;

/// The instances of a project, wharf's own among them.
pub(super) async fn observe(client: &Client, project: &str) -> Result<Vec<Instance>, BackendError> {
    let dir = client.dirs.project(project)?;
    let mut records = Record::read_all(&dir)?;
    if !client.is_here(&dir) {
        return Ok(instances(records));
    }
    if records.iter().any(needs_supervisor) {
        for _ in 0..CATCHING_UP {
            catch_up(client, project).await;
            records = Record::read_all(&dir)?;
            if !records.iter().any(is_unsettled) {
                break;
            }
        }
    } else if lock::is_held(&dir.supervisor_lock()) {
        // It has something that the ledger does not tell, or is about to leave.
        drop(client.ask_if_there(project, &Request::Ping).await);
        records = Record::read_all(&dir)?;
    }
    if let Some(note) = lost::unlisted(&client.dirs, &dir) {
        client.note(note);
    }
    Ok(instances(records))
}

/// One look at all processes for many entries that were read before it, made when one of them needs it: while a large
/// project ends, all do.
#[derive(Debug, Default)]
pub struct Look(OnceCell<Option<Snapshot>>);

impl Look {
    fn all(&self) -> Option<&Snapshot> {
        let look = || Snapshot::take().ok();
        self.0.get_or_init(look).as_ref()
    }
}

/// Alive, or ended without anybody noting it yet.
pub(super) fn needs_supervisor(record: &Record) -> bool {
    let this_boot = |run: &Run| run.boot_id == boot_id();
    record.status.is_alive() && record.run.as_ref().is_some_and(this_boot)
}

/// Ended since the supervisor has answered: whether its policy starts it again is not known yet.
fn is_unsettled(record: &Record) -> bool {
    needs_supervisor(record) && !status(record).is_alive()
}

/// Has the supervisor note every end and move all output up to now. Reading goes on without one: where none
/// can be started (no space left, say), the ledger as it is tells more than an error.
pub(super) async fn catch_up(client: &Client, project: &str) {
    drop(client.ask(project, &Request::Ping).await);
}

/// The state of an instance by the ledger and the system together.
pub fn status(record: &Record) -> Status {
    status_by(record, &Look::default())
}

/// As [`status`], by a look that others share.
pub fn status_by(record: &Record, look: &Look) -> Status {
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
    // Nothing more is known from here.
    if !run.is_of_here() {
        return record.status;
    }
    // As long as anything of its tree is alive, so is the instance.
    let is_up = matches!(record.status, Status::Running | Status::Paused);
    if is_up && (has_lost_main(run) || was_cut_off(run)) && !lives_on(record, look) {
        ended
    } else {
        record.status
    }
}

/// Whether an instance that is alive is on its way to its end: told to end, or only the rest of it is there.
pub(super) fn is_ending(record: &Record) -> bool {
    ends_as(record, status(record))
}

/// The same, given its state.
fn ends_as(record: &Record, status: Status) -> bool {
    let is_up = matches!(status, Status::Running | Status::Paused);
    is_up && (!record.wanted || record.run.as_ref().is_some_and(has_lost_main))
}

fn has_lost_main(run: &Run) -> bool {
    run.is_of_here() && run.process.is_some_and(|process| !process.is_alive())
}

/// Whether the command was killed that was starting it in its foreground: which process it is, if any, only its own run
/// id tells.
fn was_cut_off(run: &Run) -> bool {
    let is_dead = |launcher: ProcessId| !launcher.is_alive();
    run.is_of_here() && run.process.is_none() && run.launcher.is_some_and(is_dead)
}

/// Whether anything is left of a run whose main process has ended. Its keeper stays until nothing is.
fn lives_on(record: &Record, look: &Look) -> bool {
    record.keeper().is_some_and(ProcessId::is_alive)
        || record.group().is_some_and(|group| group.is_populated())
        || look.all().is_some_and(|all| !all.of(record).is_empty())
}

fn instances(records: Vec<Record>) -> Vec<Instance> {
    let look = Look::default();
    let of = |record| instance(record, &look);
    records.into_iter().map(of).collect()
}

fn instance(record: Record, look: &Look) -> Instance {
    let status = status_by(&record, look);
    let ending = ends_as(&record, status);
    let survivors = survivors(&record, look).filter(|_| ending);
    let seconds = |nanoseconds: i64| nanoseconds.div_euclid(1_000_000_000);
    let run = record.run.as_ref();
    // Elsewhere it is another process's.
    let process = record
        .process()
        .filter(|_| run.is_some_and(Run::is_of_here));
    Instance {
        id: InstanceId(record.id().to_owned()),
        backend: BackendKind::Process,
        fingerprint: Some(record.spec.fingerprint.clone()),
        health: record.health.filter(|_| status.is_alive()),
        pid: process
            .filter(|_| matches!(status, Status::Running | Status::Paused))
            .filter(|process| !ending || process.is_alive())
            .map(|process| process.pid),
        image: String::new(),
        created: seconds(record.created),
        started: run.map(|run| seconds(run.started)),
        finished: run.and_then(|run| run.finished).map(seconds),
        last_code: run.and_then(|run| run.code),
        publishers: publishers(&record),
        asked_ports: Vec::new(),
        ending,
        survivors,
        networks: Vec::new(),
        shares_network_of: None,
        volumes: Vec::new(),
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

/// What is left of a run that was given up on, in words.
fn survivors(record: &Record, look: &Look) -> Option<String> {
    record.run.as_ref().filter(|run| run.given_up)?;
    let found = Remains::of(record, look.all()?);
    (!found.is_empty()).then(|| remains::unended(&found.survivors(), found.group.as_deref()))
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
