//! What a project needs, held against what was found. Pure.

mod engine;
mod ports;
#[cfg(test)]
mod tests;

use super::Finding;
use super::facts::Machine;
use super::findings::how_local_services_find_containers;
use crate::plan::placement::Placement;
use crate::port::claim::Protocol;
use crate::project::model::{Project, Service};
use crate::state::BackendKind;

/// A port of the project, looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortNeed {
    /// The service that publishes it.
    pub service: String,
    /// The port on this machine.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// Who has it, where it is not us.
    pub held: Option<Hold>,
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// In words.
    pub by: String,
    /// Whether `up` can have it released.
    pub releasable: bool,
}

/// Where processes and their output are kept.
const LOCAL: &str = "a place for local services";

/// What the project needs. `wished` is where its services are to run, `placement` where `up` runs them, which is
/// another place for some where no engine answers.
pub fn needs(
    project: &Project,
    wished: &Placement,
    placement: &Placement,
    machine: &Machine,
    ports: &[PortNeed],
) -> Vec<Finding> {
    let mut all = Vec::new();
    let services = |placement: &Placement, backend| -> Vec<&Service> {
        let own = project.services.values();
        own.filter(|service| service.provider.is_none())
            .filter(|service| placement.of(&service.name) == backend)
            .map(AsRef::as_ref)
            .collect()
    };
    let containers = services(wished, BackendKind::Container);
    let processes = services(placement, BackendKind::Process);
    let is_mixed = !services(placement, BackendKind::Container).is_empty() && !processes.is_empty();
    if !containers.is_empty() {
        all.push(engine::engine(&containers, machine));
        if let Some((facts, abilities)) = machine.engine() {
            all.extend(engine::api(&containers, abilities));
            all.extend(engine::addresses(project, abilities));
            all.extend(engine::builds(&containers, abilities));
            if !facts.local {
                all.extend(engine::remote_files(&containers));
            }
        }
    }
    if !processes.is_empty() {
        all.push(state(LOCAL, &processes, machine));
        let limited = |service: &&Service| {
            service.nano_cpus.is_some()
                || service.mem_limit.is_some()
                || service.pids_limit.is_some()
        };
        all.extend(as_found(
            "cgroups",
            processes.iter().copied().filter(limited),
            machine,
        ));
    }
    if processes.is_empty() && !containers.is_empty() {
        // Every command that changes a project locks it there, and remembers what was chosen.
        let place = state("a place for the project's state", &containers, machine);
        all.extend(Some(place).filter(|finding| finding.state != super::State::Ok));
    }
    let watched = project.services.values().map(AsRef::as_ref);
    let watched = watched.filter(|service: &&Service| !service.watch.is_empty());
    all.extend(as_found("inotify", watched, machine));
    if is_mixed {
        all.extend(names(&processes, machine));
    }
    all.extend(ports::holders(ports, placement, machine));
    all.extend(ports::privileged(project, &processes, machine));
    all.extend(ports::outgoing(project, ports, machine));
    all
}

fn names_of<'a>(services: &[&'a Service]) -> Vec<&'a str> {
    services
        .iter()
        .map(|service| service.name.as_str())
        .collect()
}

/// A finding about the machine that these services have to do with, unless all is well.
fn as_found<'a>(
    check: &str,
    services: impl Iterator<Item = &'a Service>,
    machine: &Machine,
) -> Option<Finding> {
    let names: Vec<&str> = services.map(|service| service.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let mut found = super::findings::findings(machine).into_iter();
    let finding = found.find(|finding| finding.check == check && finding.state != super::State::Ok);
    finding.map(|finding| finding.of(names))
}

fn state(check: &str, services: &[&Service], machine: &Machine) -> Finding {
    let names = names_of(services);
    // To a project of containers it is the commands that matter.
    let detail = |words: String| {
        let local = words.strip_suffix(": local services cannot run");
        let local = local.filter(|_| check != LOCAL);
        local.map_or(words.clone(), |fact| format!("{fact}: `up` fails"))
    };
    let broken = super::findings::findings(machine)
        .into_iter()
        .find(|finding| {
            finding.check.ends_with(" directory") && finding.state == super::State::Missing
        });
    match broken {
        Some(finding) => Finding {
            check: check.to_owned(),
            detail: detail(finding.detail),
            ..finding
        },
        None => Finding::ok(check, "state and sockets can be kept"),
    }
    .of(names)
}

/// How the local services of a mixed stack find the containers.
fn names(processes: &[&Service], machine: &Machine) -> Option<Finding> {
    let finding = how_local_services_find_containers(machine);
    (finding.state != super::State::Ok).then(|| finding.of(names_of(processes)))
}
