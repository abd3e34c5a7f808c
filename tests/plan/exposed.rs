//! Ports that local services have for their neighbours alone.

use std::collections::BTreeMap;

use wharf::naming::{ROLE, Role};
use wharf::plan::claims::{all, given};
use wharf::plan::step::{Action, InstanceSpec};
use wharf::state::{BackendKind, Held, Instance, InstanceId, Publisher, Status};

use crate::world::{World, python};

const TWO: &str = "
services:
  a:
    expose: ['8080']
    x-wharf: {process: {command: [serve]}}
  b:
    expose: ['8080']
    environment: {PORT: '8080'}
    depends_on: [a]
    x-wharf: {process: {command: [serve]}}
  given:
    expose: ['8080']
    x-wharf: {process: {command: [serve], environment: {PORT: '28080'}}}
  several:
    expose: ['7000-7001', '8080']
    depends_on: [b]
    x-wharf: {process: {command: [serve]}}
  many:
    expose: ['20000-20100']
    x-wharf: {process: {command: [serve]}}
  udp:
    expose: ['7000/udp']
    x-wharf: {process: {command: [serve]}}
";

fn specs(world: &World) -> BTreeMap<String, InstanceSpec> {
    let made = world.up().steps.into_iter().filter_map(|step| {
        let Action::Create(spec) = step.action else {
            return None;
        };
        (Role::of(&spec.service.labels).is_none()).then(|| (spec.service.name.clone(), *spec))
    });
    made.collect()
}

/// Where a service is told to listen.
fn told(specs: &BTreeMap<String, InstanceSpec>, service: &str) -> Option<String> {
    specs[service].environment.get("PORT").cloned()
}

/// A living instance of a service that listens on a port for its neighbours.
fn lives(world: &World, service: &str, port: u16, status: Status) -> Instance {
    let spec = &specs(world)[service];
    Instance {
        id: InstanceId(format!("run-{service}")),
        name: spec.name.clone(),
        project: "shop".to_owned(),
        service: service.to_owned(),
        number: 1,
        backend: BackendKind::Process,
        fingerprint: Some(spec.fingerprint.clone()),
        status,
        health: None,
        pid: None,
        image: String::new(),
        command: Vec::new(),
        created: 0,
        started: None,
        finished: None,
        publishers: vec![Publisher {
            ip: None,
            target: 8080,
            published: port,
            protocol: wharf::port::claim::Protocol::Tcp,
        }],
        asked_ports: Vec::new(),
        last_code: None,
        survivors: None,
        ending: false,
        shares_network_of: None,
        labels: BTreeMap::new(),
        networks: Vec::new(),
        volumes: Vec::new(),
        one_off: false,
        stop_grace: None,
        readiness: None,
    }
}

fn two() -> World {
    let mut world = World::new(TWO);
    let protocol = wharf::port::claim::Protocol::Tcp;
    let free = vec![8081, 8082];
    world.observed.free_ports.insert((8080, protocol), free);
    world
}

#[test]
fn two_that_expose_the_same_port_are_told_where_to_listen() {
    let world = two();
    let plan = world.up();
    assert!(plan.questions.is_empty(), "{plan}");
    let moved: Vec<String> = plan
        .steps
        .iter()
        .filter(|step| matches!(step.action, Action::MovePort { .. }))
        .map(|step| step.action.to_string())
        .collect();
    assert_eq!(
        moved,
        [8081, 8082].map(|to| format!("port 8080/tcp: listen on {to} instead"))
    );
    let made = specs(&world);
    assert_eq!(told(&made, "a").as_deref(), Some("8080"));
    assert_eq!(told(&made, "b").as_deref(), Some("8081"));
    // At its name it is where it was.
    assert!(!made["b"].environment.contains_key("A_PORT"));
    // The program knows better.
    assert_eq!(told(&made, "given").as_deref(), Some("28080"));
    assert_eq!(made["given"].ports[0].target, 8080);
    // Which of them a program means by `PORT` is not known.
    assert_eq!(told(&made, "several"), None);
    let several = &made["several"].environment;
    for (variable, port) in [
        ("PORT_7000", "7000"),
        ("PORT_7001", "7001"),
        ("PORT_8080", "8082"),
    ] {
        assert_eq!(several[variable], port, "{variable}");
    }
    for service in ["many", "udp"] {
        assert_eq!(told(&made, service), None, "{service}");
        assert!(made[service].ports.is_empty(), "{service}");
    }
    for spec in made.values() {
        let published = spec.ports.iter().any(|port| !port.addresses.is_empty());
        assert!(!published && spec.readiness.is_none(), "{}", spec.name);
        assert!(!spec.service.labels.contains_key(ROLE));
    }
}

#[test]
fn nobody_is_asked_about_a_port_that_may_be_any() {
    let mut world = two();
    world.hold(8080, vec![python(8080, None)], &[8090, 8091]);
    for claim in wharf::plan::claims(&world.inputs()) {
        let holders = vec![python(8080, None)];
        world.observed.held.push(Held { claim, holders });
    }
    let made = specs(&world);
    assert_eq!(told(&made, "a").as_deref(), Some("8090"));
    assert_eq!(told(&made, "b").as_deref(), Some("8091"));
    // Nor where no other one is known.
    world.observed.free_ports.clear();
    assert!(world.up().questions.is_empty());
}

#[test]
fn one_that_was_moved_keeps_its_port_and_is_listed_nowhere() {
    let mut world = two();
    let a = lives(&world, "a", 8080, Status::Running);
    let b = lives(&world, "b", 8081, Status::Exited { code: 0 });
    world.observed.instances = vec![a.clone(), b];
    let plan = world.up();
    let remade = specs(&world);
    assert!(!remade.contains_key("b"), "{plan}");
    assert_eq!(all(&world.inputs()), []);
    // For others of this user it is taken all the same.
    let ports: Vec<u16> = given(&[a]).iter().map(|given| given.claim.port).collect();
    assert_eq!(ports, [8080]);
    // Somebody else has it now: it is made anew.
    let claim = wharf::plan::claims(&world.inputs())
        .into_iter()
        .find(|claim| claim.port == 8081);
    assert!(claim.is_some());
    world.hold(8081, vec![python(8081, None)], &[8082]);
    assert!(specs(&world).contains_key("b"));
}
