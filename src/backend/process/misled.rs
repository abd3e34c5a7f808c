//! Names that lead to somebody else: at the loopback address of a service, whoever listens on all addresses of this
//! machine is met, and the forwarder cannot listen there. No other address would help, so it is said.
//!
//! Looks; changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use super::ledger::{Record, names};
use super::observe::status;
use super::{Processes, regular};
use crate::naming::{forwarder_name, may_be_loopback_of_service};
use crate::port::claim::{Claim, Protocol};
use crate::port::holder::{Holder, ListeningSocket, Who};
use crate::port::{one_line, owner, sockets};

/// How long a service that has the port of another's name is waited for until it listens, and between two looks.
const COMING: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

impl Processes {
    /// For each port at which the name of a local service leads others of the project to somebody else, one line; none
    /// where that cannot be found out.
    pub fn misled(&self, project: &str) -> Vec<String> {
        let records = self.living(project);
        let doors = doors(&records);
        if doors.is_empty() {
            return Vec::new();
        }
        lines(&records, &doors, &listeners())
    }

    /// As [`Self::misled`], of services that were started just now: where one of them is to listen at a port that the name
    /// of another one needs, that is waited for.
    pub async fn misled_soon(&self, project: &str) -> Vec<String> {
        if !self.may_have_doors(project) {
            return Vec::new();
        }
        let records = self.living(project);
        let doors = doors(&records);
        if doors.is_empty() {
            return Vec::new();
        }
        let until = Instant::now() + COMING;
        loop {
            let listeners = listeners();
            let is_coming = |(address, service): (&SocketAddr, &&str)| {
                let port = address.port();
                !listeners.iter().any(|it| it.address.port() == port)
                    && records
                        .iter()
                        .any(|it| it.spec.service != **service && stands_at(it, port))
            };
            if Instant::now() >= until || !doors.iter().any(is_coming) {
                return lines(&records, &doors, &listeners);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether any hosts file has the address of a service, or is none: most projects need no entry read for it.
    fn may_have_doors(&self, project: &str) -> bool {
        let Ok(dir) = self.dirs().project(project) else {
            return false;
        };
        let mut names = names(&dir).unwrap_or_default();
        names.retain(|name| *name != forwarder_name(project));
        names.iter().any(|name| {
            let text = dir.instance(name).map(|it| hosts(&it.hosts()));
            let Ok(Some(text)) = text else { return true };
            addresses(&text).any(may_be_loopback_of_service)
        })
    }

    fn living(&self, project: &str) -> Vec<Record> {
        let dir = self.dirs().project(project).ok();
        let records = dir.and_then(|dir| Record::read_all(&dir).ok());
        let mut records = records.unwrap_or_default();
        records.retain(|record| status(record).is_alive());
        records
    }
}

/// All sockets that listen, but for those that keep to IPv6.
fn listeners() -> Vec<ListeningSocket> {
    let mut listeners = sockets::all_listeners().unwrap_or_default();
    listeners.retain(|it| !it.only_v6);
    listeners
}

/// Whether an instance was given a port of this machine.
fn stands_at(record: &Record, port: u16) -> bool {
    let mut ports = record.spec.ports.iter();
    ports.any(|it| it.protocol == Protocol::Tcp && it.published == Some(port))
}

fn lines(
    records: &[Record],
    doors: &BTreeMap<SocketAddr, &str>,
    listeners: &[ListeningSocket],
) -> Vec<String> {
    let mut lines = BTreeSet::new();
    for (address, service) in doors {
        // `::` has `0.0.0.0` in it.
        let is_met = |it: &ListeningSocket| {
            it.address.ip().is_unspecified() && it.address.port() == address.port()
        };
        if !listeners.iter().any(is_met) {
            continue;
        }
        let claim = Claim {
            service: (*service).to_owned(),
            number: 1,
            addresses: vec![address.ip()],
            port: address.port(),
            protocol: Protocol::Tcp,
        };
        let found = owner::look_up(&[claim]).unwrap_or_default();
        let Some(holder) = found.held.iter().find_map(|held| held.holders.first()) else {
            continue;
        };
        let who = match own(records, holder) {
            Some(record) if record.spec.service == *service => continue,
            Some(record) => format!("service `{}`", record.spec.service),
            None => holder.describe(),
        };
        lines.insert(format!(
            "on port {}, the name `{service}` leads other local services to {who}, which listens on all addresses: \
             have that listen on 127.0.0.1, or give `{service}` another port",
            address.port()
        ));
    }
    lines.into_iter().map(|line| one_line(&line)).collect()
}

/// The entry whose run a holder belongs to.
fn own<'a>(records: &'a [Record], holder: &Holder) -> Option<&'a Record> {
    let Who::Process(facts) = &holder.who else {
        return None;
    };
    let id = facts.run_id.as_ref()?;
    let is_its = |record: &&Record| record.run.as_ref().is_some_and(|run| run.id == *id);
    records.iter().find(is_its)
}

/// The text of a hosts file.
fn hosts(path: &Path) -> Option<String> {
    String::from_utf8(regular::read(path).ok()?).ok()
}

/// Those that a hosts file has names for.
fn addresses(text: &str) -> impl Iterator<Item = IpAddr> {
    let first = |line: &str| line.split_whitespace().next()?.parse().ok();
    text.lines().filter_map(first)
}

/// Where others look for a service by its name, at an address that is the service's alone.
fn doors(records: &[Record]) -> BTreeMap<SocketAddr, &str> {
    let texts: Vec<String> = records
        .iter()
        .filter_map(|record| hosts(record.spec.names.hosts.as_ref()?))
        .collect();
    let seen: BTreeSet<IpAddr> = texts.iter().flat_map(|text| addresses(text)).collect();
    let mut doors = BTreeMap::new();
    for record in records {
        let (names, service) = (&record.spec.names, record.spec.service.as_str());
        for forward in &names.forwards {
            if let Some(named) = records.iter().find(|it| it.spec.service == forward.service) {
                doors.insert(forward.listen, named.spec.service.as_str());
            }
        }
        let address = names.address(service).map(IpAddr::from);
        let Some(address) = address.filter(|address| seen.contains(address)) else {
            continue;
        };
        let published = record.spec.ports.iter();
        let published = published.filter(|port| port.protocol == Protocol::Tcp);
        let ports = published.map(|port| port.target);
        for port in ports.chain(names.exposed.iter().copied()) {
            doors.insert(SocketAddr::new(address, port), service);
        }
    }
    doors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::process::dirs::Dirs;
    use crate::project::Env;

    #[test]
    fn a_pipe_in_the_place_of_a_hosts_file_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path().join("s"), root.path().join("r"));
        let dir = dirs.project("p").unwrap().instance("p-a-1").unwrap();
        dir.create().unwrap();
        let mode = nix::sys::stat::Mode::S_IRUSR;
        nix::unistd::mkfifo(&dir.hosts(), mode).unwrap();
        let (told, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let processes = Processes::new(dirs, &Env::default());
            told.send(processes.may_have_doors("p"))
        });
        let answer = answer.recv_timeout(Duration::from_secs(20));
        assert_eq!(answer, Ok(true), "nothing is known, so it is looked up");
    }
}
