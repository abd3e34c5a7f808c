//! What `up` plans on a free machine.

use insta::assert_snapshot;
use wharf::plan::step::Action;

use crate::world::World;

const THREE_TIERS: &str = "
services:
  proxy:
    image: proxy
    ports: ['80:80']
    depends_on: [api]
  api:
    image: api
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
    ports:
      - {target: 8003, published: '8003', app_protocol: ws}
  migrate:
    image: api
    command: migrate
    depends_on: {db: {condition: service_healthy}}
  db:
    image: db
    healthcheck: {test: [CMD, 'true']}
    volumes: ['data:/data']
volumes: {data: {}}
";

#[test]
fn three_tiers_from_nothing() {
    assert_snapshot!(World::new(THREE_TIERS).up());
}

#[test]
fn an_image_is_built_once_for_two_services() {
    let world = World::new(
        "
services:
  a: {build: ., image: shared}
  b: {image: shared, build: .}
",
    );
    let mut world = world;
    world.observed.images.clear();
    assert_snapshot!(world.up());
}

#[test]
fn a_process_needs_no_image_and_no_network() {
    assert_snapshot!(
        World::new(
            "
services:
  ws:
    ports: [{target: 8003, published: '8003', host_ip: 127.0.0.1, app_protocol: ws}]
    x-wharf: {process: {command: [serve]}, ready: {path: /ws}}
"
        )
        .up()
    );
}

#[test]
fn scale_makes_replicas_with_ports_of_a_range() {
    let world = World::new(
        "
services:
  ws:
    ports: ['9000-9002:80']
    scale: 3
    x-wharf: {process: {command: [serve]}}
",
    );
    assert_snapshot!(world.up());
    let ports: Vec<u16> = world
        .up()
        .steps
        .iter()
        .filter_map(|step| {
            let Action::Create(spec) = &step.action else {
                return None;
            };
            spec.ports.first()?.published
        })
        .collect();
    assert_eq!(ports, [9000, 9001, 9002]);
}

#[test]
fn an_external_network_that_is_missing_is_a_problem() {
    let plan = World::new(
        "
services: {a: {image: a, networks: [far]}}
networks: {far: {external: true}}
",
    )
    .up();
    assert_eq!(plan.problems.len(), 1);
    assert_eq!(
        plan.problems[0].message,
        "network far is declared external and does not exist"
    );
    assert_eq!(
        plan.problems[0].hint.as_deref(),
        Some("docker network create far")
    );
}

#[test]
fn a_container_named_by_itself_is_there_before_who_shares_it() {
    let plan = World::new(
        "
services:
  after:
    image: b
    depends_on: [home, disk]
    network_mode: 'container:shop-home-1'
    volumes_from: ['container:shop-disk-1:ro']
  home: {image: b}
  disk: {image: b}
  linked:
    image: b
    depends_on: [disk]
    external_links: ['shop-disk-1:d', 'elsewhere:e']
",
    )
    .up();
    let made = |service: &str| {
        let mut steps = plan.steps.iter();
        steps
            .find(
                |step| matches!(&step.action, Action::Create(spec) if spec.service.name == service),
            )
            .expect("all of them are made")
    };
    for (service, shared) in [("after", "home"), ("after", "disk"), ("linked", "disk")] {
        assert!(
            made(service).needs.contains(&made(shared).id),
            "{service} is made without {shared}\n{plan}"
        );
    }
}
