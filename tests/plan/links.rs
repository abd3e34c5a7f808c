//! Relays, the forwarder and names: what `up` plans around services that run as processes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use insta::assert_snapshot;
use wharf::backend::Made;
use wharf::backend::fake::Fake;
use wharf::event::Events;
use wharf::execute::execute;
use wharf::naming::{Linkage, Reach, Role, Way};
use wharf::plan::Plan;
use wharf::plan::down::{Ending, down, stop};
use wharf::plan::launch::{Launching, start};
use wharf::plan::placement::{Selection, Wishes, place};
use wharf::plan::policy::Once;
use wharf::plan::step::{Action, InstanceSpec, OneOff};
use wharf::project::model::{Restart, Service};
use wharf::state::{BackendKind, Instance, InstanceId, Status};

use crate::world::{World, names};

const STACK: &str = "
services:
  proxy:
    image: proxy
    depends_on: [api]
  api:
    image: api
    ports: ['8080:80']
    expose: ['9000-9001', '53/udp']
    environment:
      DATABASE_URL: postgres://user:pw@db:5432/shop
      CACHE: http://cache/
      SELF: http://api:80/
      DB_HOST: db
    networks: {default: {aliases: [backend]}}
    depends_on: [db]
    x-wharf: {process: {command: [api]}}
  db:
    image: db
    expose: ['5432']
    x-wharf: {process: {command: [postgres]}}
  cache:
    image: cache
    networks: [other]
  lonely:
    image: lonely
    network_mode: host
    x-wharf: {process: {command: [lonely]}}
networks: {other: {}}
";

fn world(local: &[&str]) -> World {
    world_of(STACK, local)
}

fn world_of(stack: &'static str, local: &[&str]) -> World {
    let mut world = World::new(stack);
    place_locally(&mut world, local);
    world.observed.linkage = Linkage {
        way: Way::Hosts,
        reach: Some(Reach::Socket),
        endpoint: "unix:///run/docker.sock".to_owned(),
        relay_image: "wharf-relay:1".to_owned(),
        relays: PathBuf::from("/state/relays"),
        user: (1000, 1000),
    };
    world.observed.first_port = 1024;
    world
}

fn place_locally(world: &mut World, local: &[&str]) {
    let wishes = Wishes {
        local: Selection::Named(names(local)),
        ..Wishes::default()
    };
    world.placement = place(&world.project, &wishes).expect("all have a place");
}

fn carry_out(world: &mut World, plan: &Plan) {
    let fake = Fake::new(world.observed.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (events, _receiver) = Events::channel();
    let report = runtime.block_on(execute(plan, &fake, &Made::default(), &events));
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    world.observed = fake.observed();
}

#[test]
fn the_forwarder_comes_up_while_the_rest_is_made() {
    let world = world(&["api", "db"]);
    let fake = Fake::new(world.observed.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (events, _receiver) = Events::channel();
    let report = runtime.block_on(execute(&world.up(), &fake, &Made::default(), &events));
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    let performed = fake.performed();
    let at = |text: &str| {
        let found = performed.iter().position(|step| step.contains(text));
        found.unwrap_or_else(|| panic!("{text}: {performed:#?}"))
    };
    let begun = at("shop-wharf-forwarder-1: start");
    assert!(begun < at("shop-api-1: create"), "{performed:#?}");
    assert!(begun < at("shop-cache-1: create"), "{performed:#?}");
}

fn made<'a>(plan: &'a Plan, name: &str) -> &'a InstanceSpec {
    let specs = plan.steps.iter().filter_map(|step| {
        let Action::Create(spec) = &step.action else {
            return None;
        };
        Some(&**spec)
    });
    let mut found = specs.filter(|spec| spec.name == name);
    found.next().unwrap_or_else(|| panic!("{name}: {plan}"))
}

fn ids(world: &World) -> BTreeSet<String> {
    let all = world.observed.instances.iter().chain(&world.observed.own);
    all.map(|instance| format!("{} {}", instance.name, instance.id))
        .collect()
}

#[test]
fn a_local_service_among_containers_has_a_relay() {
    assert_snapshot!(world(&["api"]).up());
}

#[test]
fn a_second_up_has_nothing_to_do_and_only_what_changed_is_made_anew() {
    let mut world = world(&["api"]);
    let first = world.up();
    assert_eq!(first.reachable, Vec::<String>::new(), "a step waits");
    carry_out(&mut world, &first);
    let second = world.up();
    assert_eq!(second.to_string(), "");
    assert_eq!(second.reachable, ["api"]);
    let before = ids(&world);
    // Back into its container.
    place_locally(&mut world, &[]);
    let back = world.up();
    assert_snapshot!(back);
    carry_out(&mut world, &back);
    assert_eq!(world.up().to_string(), "");
    let changed: Vec<String> = before.symmetric_difference(&ids(&world)).cloned().collect();
    assert!(
        changed.iter().all(|name| name.starts_with("shop-api-")),
        "{changed:?}"
    );
    // And out again: the forwarder is still there.
    place_locally(&mut world, &["api"]);
    let again = world.up();
    carry_out(&mut world, &again);
    assert_eq!(world.up().to_string(), "");
    let roles: Vec<_> = world.observed.own.iter().map(Instance::role).collect();
    assert_eq!(roles.len(), 2, "{roles:?}");
}

#[test]
fn udp_that_containers_lose_is_said_once() {
    let mut world = world(&["api"]);
    let api = Arc::make_mut(world.project.services.get_mut("api").unwrap());
    api.expose = vec!["53/udp".to_owned(), "9000".to_owned()];
    let first = world.up();
    let lost = "api runs as a local process, which containers reach by TCP only: not on 53/udp";
    assert_eq!(first.notes, [lost]);
    carry_out(&mut world, &first);
    assert_eq!(world.up().notes, Vec::<String>::new());
}

#[test]
fn a_relay_has_the_names_and_nothing_else() {
    let world = world(&["api"]);
    let plan = world.up();
    let relay = made(&plan, "shop-api-wharf-relay-1");
    assert_eq!(relay.backend, BackendKind::Container);
    let [place] = relay.networks.as_slice() else {
        panic!("{:?}", relay.networks)
    };
    for alias in ["api", "backend", "shop-api-1"] {
        assert!(place.aliases.iter().any(|other| other == alias), "{alias}");
    }
    let service = &relay.service;
    assert_eq!(Role::of(&service.labels), Some(Role::Relay));
    assert_eq!(service.user.as_deref(), Some("1000:1000"));
    assert!(service.read_only && relay.ports.is_empty() && service.ports.is_empty());
    assert_eq!(service.cap_drop, ["ALL"]);
    assert!(service.environment.is_empty());
    let command = service.command.as_deref().unwrap_or_default();
    assert_eq!(command, ["relay", "--socket", "/run/wharf/socket"]);
}

#[test]
fn what_a_local_service_is_told_of_names() {
    let world = world(&["api", "db"]);
    let plan = world.up();
    let names = &made(&plan, "shop-api-1").names;
    assert_eq!(names.way, Way::Hosts);
    assert_eq!(names.exposed, [9000, 9001]);
    assert_eq!(names.places.len(), 1);
    assert!(names.address("db").unwrap().is_loopback());
    assert_ne!(names.address("db"), names.address("api"));
    assert!(names.forwards.is_empty());
    let environment = &made(&plan, "shop-api-1").service.environment;
    assert_eq!(
        environment["DATABASE_URL"],
        "postgres://user:pw@db:5432/shop"
    );
    let db = &made(&plan, "shop-db-1").names;
    assert_eq!(db.address("cache"), names.address("cache"));
}

#[test]
fn ports_that_this_user_may_not_listen_on_are_told_once() {
    let told = |world: &World| -> Vec<String> {
        let notes = world.up().notes.into_iter();
        notes.filter(|note| note.contains("privilege")).collect()
    };
    let mut world = world(&["api", "db"]);
    // At its relay's address every port can be had.
    assert_eq!(told(&world), Vec::<String>::new());
    world.observed.linkage.reach = Some(Reach::Stream);
    let notes = told(&world);
    let [note] = &notes[..] else {
        panic!("{notes:?}");
    };
    let begin = "api cannot be reached by its name on port 80 from other local services";
    assert!(note.starts_with(begin), "{note}");
    world.observed.first_port = 80;
    assert_eq!(told(&world), Vec::<String>::new());
    world.observed.first_port = 1024;
    let plan = world.up();
    carry_out(&mut world, &plan);
    assert_eq!(told(&world), Vec::<String>::new());
}

#[test]
fn a_process_without_a_published_port_gets_one_that_its_user_may_have() {
    let port = |first_port| {
        let mut world = World::new(
            "
services:
  web:
    ports: ['80']
    x-wharf: {process: {command: [web]}}
",
        );
        world.observed.first_port = first_port;
        let environment = made(&world.up(), "shop-web-1").environment.clone();
        assert_eq!(environment["PORT"], environment["PORT_80"]);
        assert_eq!(
            world.claim(environment["PORT"].parse().unwrap()).service,
            "web"
        );
        environment["PORT"].clone()
    };
    assert_eq!(port(0), "80");
    assert_eq!(port(1024), "8080");
    assert_eq!(port(9000), "9000");
}

#[test]
fn without_a_hosts_file_values_are_rewritten() {
    let mut world = world(&["api"]);
    world.observed.linkage.way = Way::Environment;
    let plan = world.up();
    let spec = made(&plan, "shop-api-1");
    let db = spec.names.address("db").unwrap();
    let api = spec.names.address("api").unwrap();
    let environment = &spec.service.environment;
    assert_eq!(
        environment["DATABASE_URL"],
        format!("postgres://user:pw@{db}:5432/shop")
    );
    assert_eq!(environment["DB_HOST"], db.to_string());
    // Port 80 is not for this user, so it is another one at the address.
    assert_eq!(environment["SELF"], format!("http://{api}:20080/"));
    // Not on one of its networks.
    assert_eq!(environment["CACHE"], "http://cache/");
    let forwards: Vec<String> = spec
        .names
        .forwards
        .iter()
        .map(|forward| format!("{} {}:{}", forward.listen, forward.service, forward.port))
        .collect();
    let mut expected = [format!("{db}:5432 db:5432"), format!("{api}:20080 api:80")];
    expected.sort();
    let mut forwards = forwards;
    forwards.sort();
    assert_eq!(forwards, expected);
}

#[test]
fn a_service_that_is_alone_needs_nothing() {
    let world = world(&["lonely"]);
    let plan = world.up();
    assert!(!plan.to_string().contains("wharf"), "{plan}");
    let mut single =
        World::new("services: {api: {x-wharf: {process: {command: [api]}}, ports: ['8080:80']}}");
    single.observed.linkage.way = Way::Hosts;
    assert!(
        !single.up().to_string().contains("wharf"),
        "{}",
        single.up()
    );
}

#[test]
fn without_containers_there_are_no_relays() {
    let mut world = World::new(
        "
services:
  api: {x-wharf: {process: {command: [api]}}, depends_on: [db]}
  db: {x-wharf: {process: {command: [db]}}}
",
    );
    world.observed.linkage.way = Way::Hosts;
    let plan = world.up();
    assert_snapshot!(plan);
    carry_out(&mut world, &plan);
    assert_eq!(world.up().to_string(), "");
}

#[test]
fn an_engine_that_does_not_share_files_gets_another_relay() {
    let mut world = world(&["api"]);
    world.observed.linkage.reach = Some(Reach::Stream);
    let plan = world.up();
    let relay = &made(&plan, "shop-api-wharf-relay-1").service;
    assert_eq!(
        relay.command.as_deref().unwrap_or_default(),
        ["relay", "--idle"]
    );
    assert!(relay.volumes.is_empty());
    let forwarder = &made(&plan, "shop-wharf-forwarder-1").service;
    let command = forwarder.command.clone().unwrap_or_default().join(" ");
    assert!(command.ends_with("--engine --reach stream"), "{command}");
}

#[test]
fn they_end_after_the_services_and_begin_before_them() {
    let mut world = world(&["api"]);
    let plan = world.up();
    carry_out(&mut world, &plan);
    assert_snapshot!(down(&world.observed, &Ending::default()));
    let one = Ending {
        services: names(&["proxy"]),
        ..Ending::default()
    };
    assert!(!stop(&world.observed, &one).to_string().contains("wharf"));
    let stopped = stop(&world.observed, &Ending::default());
    carry_out(&mut world, &stopped);
    let all = world.observed.instances.iter().chain(&world.observed.own);
    assert!(all.clone().all(|instance| !instance.status.is_alive()));
    assert_snapshot!(start(&world.observed, &Launching::default()));
}

#[test]
fn a_relay_whose_network_is_made_anew_is_made_anew() {
    let mut world = world(&["api"]);
    let plan = world.up();
    carry_out(&mut world, &plan);
    for hash in world.observed.network_hashes.values_mut() {
        *hash = "another".to_owned();
    }
    let plan = world.up();
    let text = plan.to_string();
    let at = |what: &str| {
        let place = text.lines().position(|line| line.contains(what));
        place.unwrap_or_else(|| panic!("{what}: {text}"))
    };
    assert!(at("shop-api-wharf-relay-1: remove") < at("network shop_default: remove"));
    assert!(at("network shop_default: create") < at("shop-api-wharf-relay-1: create"));
}

/// The relay is made before anything stops, and starts when the container has stopped: not when it has been removed. On
/// the way back the relay, which resets connections by then, goes when the container is there.
#[test]
fn a_name_changes_hands_at_once() {
    let mut world = world(&["db"]);
    let first = world.up();
    carry_out(&mut world, &first);
    place_locally(&mut world, &["api", "db"]);
    assert_snapshot!(world.up());
    let to_process = world.up();
    carry_out(&mut world, &to_process);
    place_locally(&mut world, &["db"]);
    assert_snapshot!(world.up());
}

#[test]
fn a_fixed_address_is_free_before_it_is_taken() {
    let mut world = world_of(
        "
services:
  api:
    image: api
    networks: {inner: {ipv4_address: 10.9.8.7}}
    x-wharf: {process: {command: [api]}}
  db: {image: db, networks: [inner]}
networks: {inner: {ipam: {config: [{subnet: 10.9.8.0/24}]}}}
",
        &["api"],
    );
    let first = world.up();
    carry_out(&mut world, &first);
    place_locally(&mut world, &[]);
    let back = world.up();
    let [gone, begun] = ["api-wharf-relay-1: stop", "shop-api-1: start"].map(|text| {
        let mut steps = back.steps.iter();
        let found = steps.find(|step| step.action.to_string().contains(text));
        found.unwrap_or_else(|| panic!("{text}: {back}"))
    });
    assert!(begun.needs.contains(&gone.id), "{back}");
}

/// A command that moved a service was killed when it had made the container: another one is made, and what shares its
/// namespace with it.
#[test]
fn a_move_that_was_cut_off_is_made_once_more() {
    let mut world = world_of(
        "
services:
  api: {image: api, x-wharf: {process: {command: [api]}}}
  beside: {image: beside, network_mode: 'service:api'}
",
        &["api"],
    );
    let first = world.up();
    carry_out(&mut world, &first);
    let mut all = world.observed.instances.iter();
    let beside = all.find(|instance| instance.service == "beside");
    let made = Instance {
        id: InstanceId("made".to_owned()),
        name: "shop-api-1".to_owned(),
        service: "api".to_owned(),
        status: Status::Created,
        ..beside.expect("a container").clone()
    };
    world.observed.instances.push(made);
    place_locally(&mut world, &[]);
    assert_snapshot!(world.up());
}

#[test]
fn a_relay_goes_with_the_last_container() {
    let mut world = world(&["api", "db"]);
    let plan = world.up();
    carry_out(&mut world, &plan);
    let before = ids(&world);
    let all: BTreeSet<String> = world.project.services.keys().cloned().collect();
    for name in all {
        if !["api", "db"].contains(&name.as_str()) {
            world.project.services.remove(&name);
        }
    }
    world
        .observed
        .instances
        .retain(|instance| ["api", "db"].contains(&instance.service.as_str()));
    place_locally(&mut world, &["api", "db"]);
    // What an engine would have said is not known: nobody asked it.
    world.observed.linkage.reach = None;
    world.observed.linkage.relay_image.clear();
    let plan = world.up();
    assert!(
        plan.steps
            .iter()
            .all(|step| step.action.to_string().contains("-wharf-relay-1")),
        "{plan}"
    );
    carry_out(&mut world, &plan);
    assert_eq!(world.up().to_string(), "");
    assert!(before.is_superset(&ids(&world)));
}

#[test]
fn a_relay_that_ended_is_started_again() {
    let mut world = world(&["api"]);
    let plan = world.up();
    carry_out(&mut world, &plan);
    for own in &mut world.observed.own {
        own.status = Status::Exited { code: 137 };
    }
    let plan = world.up().to_string();
    assert!(plan.contains("shop-wharf-forwarder-1: start"), "{plan}");
    assert!(plan.contains("shop-api-wharf-relay-1: start"), "{plan}");
    assert!(!plan.contains("create"), "{plan}");
}

#[test]
fn a_relay_has_the_names_of_all_replicas_and_outlives_a_change_of_their_number() {
    let mut world = world(&["db"]);
    world.policy.scale.insert("db".to_owned(), 2);
    let plan = world.up();
    let relay = made(&plan, "shop-db-wharf-relay-1");
    assert_eq!(
        relay.networks[0].aliases,
        ["shop-db-wharf-relay-1", "db", "shop-db-1", "shop-db-2"]
    );
    // An engine that ends in good order brings them back.
    assert_eq!(relay.service.restart, Restart::UnlessStopped);
    carry_out(&mut world, &plan);
    for number in [3, 1] {
        world.policy.scale.insert("db".to_owned(), number);
        let plan = world.up();
        assert!(!plan.to_string().contains("relay-1"), "{plan}");
        carry_out(&mut world, &plan);
    }
}

#[test]
fn a_command_of_its_own_leaves_the_relay_of_its_service_alone() {
    let mut world = world(&["api"]);
    let plan = world.up();
    carry_out(&mut world, &plan);
    let service = Service {
        container_name: Some("shop-api-run-1".to_owned()),
        ports: Vec::new(),
        ..Service::clone(&world.project.services["api"])
    };
    world.policy.once = Some(Once {
        service: Arc::new(service),
        one_off: OneOff {
            slug: "1".to_owned(),
            remove: true,
            aliases: false,
        },
    });
    let plan = world.up().to_string();
    assert!(plan.contains("shop-api-run-1: create"), "{plan}");
    assert!(!plan.contains("relay"), "{plan}");
}

#[test]
fn a_forwarder_that_waits_to_be_started_again_is_started_at_once() {
    let mut world = world(&["api"]);
    let plan = world.up();
    carry_out(&mut world, &plan);
    let own = world.observed.own.iter_mut();
    for forwarder in own.filter(|it| it.role() == Some(Role::Forwarder)) {
        forwarder.status = Status::Restarting;
    }
    let plan = world.up().to_string();
    assert!(
        plan.contains("process shop-wharf-forwarder-1: start"),
        "{plan}"
    );
}

#[test]
fn orphans_have_relays_to_meet_until_they_go() {
    let mut world = world(&["api"]);
    let plan = world.up();
    carry_out(&mut world, &plan);
    // The files have nothing but these two left, and the containers of the others are still there.
    for name in ["proxy", "cache", "lonely"] {
        world.project.services.remove(name);
    }
    place_locally(&mut world, &["api", "db"]);
    let plan = world.up().to_string();
    assert!(plan.contains("shop-db-wharf-relay-1: create"), "{plan}");
    world.policy.remove_orphans = true;
    let plan = world.up().to_string();
    assert!(plan.contains("shop-proxy-1: remove"), "{plan}");
    assert!(!plan.contains("relay-1: create"), "{plan}");
    assert!(plan.contains("shop-api-wharf-relay-1: remove"), "{plan}");
}
