//! Projects against machines.

use std::collections::BTreeMap;

use super::super::State;
use super::super::findings::tests::{engine as facts, fit};
use super::*;
use crate::backend::container::Answer;
use crate::plan::placement::{Wishes, place, place_without_engine};
use crate::project::model::{Build, Mount, MountKind, Port, ProcessForm, StoreSource};

fn image(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        image: Some("x".to_owned()),
        ..Service::default()
    }
}

fn local(name: &str) -> Service {
    let mut service = Service {
        name: name.to_owned(),
        ..Service::default()
    };
    service.wharf.process = Some(ProcessForm::default());
    service
}

fn project(services: Vec<Service>) -> Project {
    Project::of_services("p", "/p".into(), services)
}

fn needed(services: Vec<Service>, machine: &Machine, ports: &[PortNeed]) -> Vec<Finding> {
    let project = project(services);
    let wished = place(&project, &Wishes::default()).unwrap();
    let placement = match place_without_engine(&project, &Wishes::default()) {
        Ok(placement) if machine.engine().is_none() => placement,
        Ok(_) | Err(_) => wished.clone(),
    };
    needs(&project, &wished, &placement, machine, ports)
}

fn state(all: &[Finding], check: &str) -> Option<State> {
    let mut found = all.iter().filter(|finding| finding.check == check);
    found.next().map(|finding| finding.state)
}

#[test]
fn a_project_of_processes_needs_no_engine() {
    let mut machine = fit();
    machine.engines[0].answer = Answer::Absent;
    let all = needed(vec![local("api")], &machine, &[]);
    assert_eq!(state(&all, "an engine"), None);
    assert_eq!(state(&all, "a place for local services"), Some(State::Ok));
    machine.directories[1].problem = Some("closed".to_owned());
    let all = needed(vec![local("api")], &machine, &[]);
    assert_eq!(
        state(&all, "a place for local services"),
        Some(State::Missing)
    );
    assert_eq!(all[0].services, ["api"]);
}

#[test]
fn services_that_are_local_for_want_of_an_engine_need_a_place() {
    let mut machine = fit();
    machine.engines[0].answer = Answer::Absent;
    machine.directories[0].problem = Some("closed".to_owned());
    let both = || Service {
        wharf: local("api").wharf,
        ..image("api")
    };
    let all = needed(vec![both()], &machine, &[]);
    assert_eq!(state(&all, "an engine"), Some(State::Reduced));
    assert_eq!(state(&all, LOCAL), Some(State::Missing));
    // With an engine it is a container, and the commands have nowhere to keep what they must know.
    machine.engines = fit().engines;
    let all = needed(vec![both()], &machine, &[]);
    assert_eq!(state(&all, LOCAL), None);
    let place = all.iter().find(|it| it.check.ends_with("project's state"));
    let place = place.unwrap();
    assert_eq!(place.state, State::Missing);
    assert!(place.detail.ends_with("closed: `up` fails"), "{place:?}");
}

#[test]
fn a_container_needs_an_engine_unless_it_can_be_a_process() {
    let mut machine = fit();
    machine.engines[0].answer = Answer::Absent;
    let all = needed(vec![image("db")], &machine, &[]);
    assert_eq!(state(&all, "an engine"), Some(State::Missing));
    let hint = all[0].hint.as_deref().unwrap();
    assert!(hint.starts_with("sudo systemctl start docker"), "{hint}");
    let mut both = image("db");
    both.wharf.process = Some(ProcessForm::default());
    let all = needed(vec![both], &machine, &[]);
    assert_eq!(state(&all, "an engine"), Some(State::Reduced));
}

#[test]
fn an_old_engine_lacks_what_the_project_uses_and_only_that() {
    let mut machine = fit();
    machine.engines = vec![facts((1, 41), "20.10.24")];
    assert!(
        needed(vec![image("db")], &machine, &[])
            .iter()
            .all(|finding| finding.state == State::Ok)
    );
    let mut db = image("db");
    db.volumes = vec![Mount {
        kind: MountKind::Volume {
            source: Some("data".to_owned()),
            nocopy: false,
            subpath: Some("a".to_owned()),
            labels: BTreeMap::new(),
        },
        target: "/data".to_owned(),
        read_only: false,
        consistency: None,
    }];
    let all = needed(vec![db.clone(), image("web")], &machine, &[]);
    assert_eq!(state(&all, "volume.subpath"), Some(State::Missing));
    let finding = all
        .iter()
        .find(|finding| finding.check == "volume.subpath")
        .unwrap();
    assert_eq!(finding.services, ["db"]);
    assert!(
        finding.detail.contains("API 1.45 (Docker Engine 26)"),
        "{finding:?}"
    );
    assert_eq!(
        state(&needed(vec![db], &fit(), &[]), "volume.subpath"),
        Some(State::Ok)
    );
}

#[test]
fn build_secrets_need_buildkit() {
    let mut web = image("web");
    web.build = Some(Build {
        secrets: BTreeMap::from([("key".to_owned(), StoreSource::External)]),
        ..Build::default()
    });
    assert_eq!(
        state(&needed(vec![web.clone()], &fit(), &[]), "BuildKit"),
        Some(State::Ok)
    );
    let mut machine = fit();
    if let Answer::Engine(abilities) = &mut machine.engines[0].answer {
        abilities.buildkit = false;
    }
    let all = needed(vec![web], &machine, &[]);
    assert_eq!(state(&all, "BuildKit"), Some(State::Missing));
}

fn port(port: u16, held: Option<(&str, bool)>) -> PortNeed {
    PortNeed {
        service: "web".to_owned(),
        port,
        protocol: Protocol::Tcp,
        held: held.map(|(by, releasable)| Hold {
            by: by.to_owned(),
            releasable,
        }),
    }
}

#[test]
fn a_port_that_this_user_may_not_listen_on_is_missing_for_a_process_alone() {
    let mut machine = fit();
    machine.settings.first_port = 1024;
    let all = needed(vec![local("web")], &machine, &[port(80, None)]);
    assert_eq!(state(&all, "port 80/tcp"), Some(State::Missing));
    let all = needed(vec![image("web")], &machine, &[port(80, None)]);
    assert_eq!(state(&all, "port 80/tcp"), Some(State::Ok));
    let mut web = local("web");
    web.ports = vec![Port {
        target: 80,
        published: Some((8080, 8080)),
        ..fixed(80)
    }];
    let both = vec![web.clone(), local("api")];
    let check = "names of local services";
    let all = needed(both.clone(), &machine, &[]);
    assert_eq!(state(&all, check), Some(State::Reduced));
    assert_eq!(state(&needed(vec![web], &machine, &[]), check), None);
    assert_eq!(state(&needed(both, &fit(), &[]), check), None);
}

#[test]
fn only_a_holder_that_is_never_stopped_is_in_the_way() {
    let ports = [
        port(80, None),
        port(81, Some(("python3", true))),
        port(82, Some(("sshd", false))),
    ];
    let all = needed(vec![local("web")], &fit(), &ports);
    assert_eq!(state(&all, "port 80/tcp"), Some(State::Ok));
    assert_eq!(state(&all, "port 81/tcp"), Some(State::Reduced));
    assert_eq!(state(&all, "port 82/tcp"), Some(State::Missing));
}

#[test]
fn a_port_of_outgoing_connections_is_reserved_with_those_that_are() {
    let mut machine = fit();
    machine.settings.reserved_ports = "40000-40010".to_owned();
    let ports = [
        port(40_005, None),
        port(8080, None),
        port(45_678, None),
        port(50_000, None),
    ];
    // The engine chose the last one.
    let web = |published: &[u16]| {
        let mut web = local("web");
        web.ports = published.iter().map(|port| fixed(*port)).collect();
        vec![web]
    };
    let all = needed(web(&[40_005, 8080, 45_678]), &machine, &ports);
    let mut found = all
        .iter()
        .filter(|finding| finding.check == "published ports");
    let finding = found.next().unwrap();
    assert!(
        finding.detail.starts_with("45678 is inside 32768 to 60999"),
        "{finding:?}"
    );
    assert_eq!(
        finding.hint.as_deref(),
        Some("sudo sysctl -w net.ipv4.ip_local_reserved_ports=40000-40010,45678")
    );
    let all = needed(web(&[40_005, 8080]), &machine, &ports);
    assert_eq!(state(&all, "published ports"), None);
}

fn fixed(port: u16) -> Port {
    Port {
        target: port,
        published: Some((port, port)),
        host_ip: None,
        protocol: Protocol::Tcp,
        app_protocol: None,
        mode: None,
        name: None,
    }
}

#[test]
fn a_mixed_stack_is_told_how_names_are_found_where_that_is_reduced() {
    const CHECK: &str = "container names in local services";
    let services = || vec![local("api"), image("db")];
    assert_eq!(state(&needed(services(), &fit(), &[]), CHECK), None);
    let mut machine = fit();
    machine.ways = None;
    assert_eq!(
        state(&needed(services(), &machine, &[]), CHECK),
        Some(State::Reduced)
    );
    assert_eq!(
        state(&needed(vec![local("api")], &machine, &[]), CHECK),
        None
    );
}

#[test]
fn limits_and_watching_are_said_to_be_reduced_where_they_are_used() {
    let mut machine = fit();
    machine.cgroups = None;
    machine.settings.inotify_watches = Some(1);
    let all = needed(vec![local("api"), image("db")], &machine, &[]);
    assert_eq!(
        (state(&all, "cgroups"), state(&all, "inotify")),
        (None, None)
    );
    let mut api = local("api");
    api.mem_limit = Some(1);
    let all = needed(vec![api.clone(), image("db")], &machine, &[]);
    assert_eq!(state(&all, "cgroups"), Some(State::Reduced));
    assert_eq!(state(&needed(vec![api], &fit(), &[]), "cgroups"), None);
}

#[test]
fn everything_that_is_not_ok_has_a_hint() {
    let mut machine = fit();
    machine.engines[0].local = false;
    machine.ways = None;
    let ports = [port(40_000, Some(("sshd", false)))];
    let mut web = local("web");
    web.ports = vec![fixed(40_000)];
    for finding in needed(vec![image("db"), web], &machine, &ports) {
        assert_eq!(
            finding.state != State::Ok,
            finding.hint.is_some(),
            "{finding:?}"
        );
    }
}
