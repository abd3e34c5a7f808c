//! What ends, in which order, and what is replaced.

use insta::assert_snapshot;
use wharf::plan::down::{self, DEPENDS_ON_LABEL, Ending};
use wharf::plan::policy::Policy;
use wharf::state::{BackendKind, Status};

use crate::world::{World, names, python};

const PAIR: &str = "
services:
  ws:
    ports: ['127.0.0.1:8003:8003']
    x-wharf: {process: {command: [serve]}}
  client:
    depends_on: [ws]
    x-wharf: {process: {command: [client]}}
";

/// The pair, running, as `up` left it.
fn running() -> World {
    let mut world = World::new(PAIR);
    let fake = wharf::backend::fake::Fake::new(world.observed.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (events, _receiver) = wharf::event::Events::channel();
    let made = wharf::backend::Made::default();
    let report = runtime.block_on(wharf::execute::execute(&world.up(), &fake, &made, &events));
    assert!(report.failed.is_empty());
    world.observed = fake.observed();
    for instance in &mut world.observed.instances {
        if instance.service == "client" {
            let label = "ws:service_started:false".to_owned();
            instance.labels.insert(DEPENDS_ON_LABEL.to_owned(), label);
        }
    }
    world
}

#[test]
fn down_stops_dependents_first() {
    let world = running();
    let ending = Ending {
        enabled: Some(names(&["ws", "client"])),
        ..Ending::default()
    };
    assert_snapshot!(down::down(&world.observed, &ending));
}

#[test]
fn stop_of_one_service_leaves_the_other() {
    let world = running();
    let ending = Ending {
        services: names(&["client"]),
        ..Ending::default()
    };
    assert_snapshot!(down::stop(&world.observed, &ending));
}

#[test]
fn restart_stops_in_one_order_and_starts_in_the_other() {
    let world = running();
    assert_snapshot!(down::restart(&world.observed, &names(&[]), None));
}

#[test]
fn an_orphan_that_holds_the_port_is_an_earlier_instance() {
    let mut world = running();
    for instance in &mut world.observed.instances {
        if instance.service == "ws" {
            instance.service = "old".to_owned();
            instance.name = "shop-old-1".to_owned();
        }
    }
    let id = world
        .observed
        .instances
        .iter()
        .find(|instance| instance.service == "old");
    let id = id.expect("the orphan").id.0.clone();
    world.hold(8003, vec![python(8003, Some(&id))], &[]);
    assert_snapshot!(world.up());
}

#[test]
fn an_earlier_container_gives_way_to_the_process() {
    let mut world = running();
    for instance in &mut world.observed.instances {
        if instance.service == "ws" {
            instance.backend = BackendKind::Container;
        }
    }
    assert_snapshot!(world.up());
}

#[test]
fn scaling_down_drops_the_highest_numbers() {
    let mut world = running();
    let mut second = world.observed.instances[0].clone();
    second.number = 2;
    second.name = format!("shop-{}-2", second.service);
    second.id.0.push('2');
    second.status = Status::Running;
    world.observed.instances.push(second);
    assert_snapshot!(world.up());
}

#[test]
fn force_recreate_makes_all_anew() {
    let mut world = running();
    let recreate = wharf::plan::policy::Recreate::Always("--force-recreate");
    world.policy = Policy {
        recreate,
        ..Policy::default()
    };
    assert_snapshot!(world.up());
}

#[test]
fn a_service_whose_profile_is_off_is_left_alone_and_is_no_orphan() {
    let world = running();
    let ending = Ending {
        enabled: Some(names(&["ws"])),
        disabled: names(&["client"]),
        remove_orphans: true,
        ..Ending::default()
    };
    let plan = down::down(&world.observed, &ending);
    assert!(!plan.to_string().contains("client"), "{plan}");
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);
}
