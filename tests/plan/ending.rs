//! What ends, in which order, and what is replaced.

use insta::assert_snapshot;
use wharf::plan::down::{self, DEPENDS_ON_LABEL, Ending};
use wharf::plan::launch::{self, Launching};
use wharf::plan::policy::Policy;
use wharf::plan::step::Action;
use wharf::state::{BackendKind, InstanceId, PortSpan, Status};

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

/// Gives the client another dependency.
fn depend(world: &mut World, label: &str) {
    for instance in &mut world.observed.instances {
        if instance.service == "client" {
            let label = label.to_owned();
            instance.labels.insert(DEPENDS_ON_LABEL.to_owned(), label);
        }
    }
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
    let mut world = running();
    depend(&mut world, "ws:service_healthy:true");
    assert_snapshot!(launch::restart(&world.observed, &Launching::default()));
}

#[test]
fn restart_takes_those_along_that_are_to_run_anew() {
    let mut world = running();
    let mut launching = Launching {
        services: names(&["ws"]),
        ..Launching::default()
    };
    let restarted = |world: &World, launching: &Launching| {
        let plan = launch::restart(&world.observed, launching).to_string();
        plan.contains("client")
    };
    assert!(!restarted(&world, &launching), "it depends without restart");
    depend(&mut world, "ws:service_started:true");
    assert!(restarted(&world, &launching));
    launching.no_deps = true;
    assert!(!restarted(&world, &launching));
}

#[test]
fn without_restart_nothing_orders_a_restart() {
    let world = running();
    let plan = launch::restart(&world.observed, &Launching::default());
    for step in &plan.steps {
        assert!(step.needs.len() <= 1, "only its own stop or start: {plan}");
    }
}

#[test]
fn replicas_whose_ports_the_engine_picks_start_last_and_in_turn() {
    let mut world = running();
    let first = world.observed.instances[0].clone();
    for (number, picks_ports) in [(2, true), (3, false), (4, true)] {
        let mut replica = first.clone();
        replica.id = InstanceId(format!("replica{number}"));
        replica.name = format!("replica-{number}");
        replica.number = number;
        let (first, last) = (8000, if picks_ports { 8010 } else { 8000 });
        replica.asked_ports = vec![PortSpan { first, last }];
        world.observed.instances.push(replica);
    }
    let service = first.service.clone();
    world
        .observed
        .instances
        .retain(|instance| instance.service == service);
    assert_snapshot!(launch::restart(&world.observed, &Launching::default()));
}

#[test]
fn who_has_less_choice_of_ports_starts_first() {
    let mut world = running();
    for instance in &mut world.observed.instances {
        instance.status = Status::Exited { code: 0 };
        let (first, last) = match instance.service.as_str() {
            "client" => (8000, 8010),
            _ => (8003, 8003),
        };
        instance.asked_ports = vec![PortSpan { first, last }];
    }
    let plan = launch::start(&world.observed, &Launching::default());
    let start_of = |service: &str| {
        let mut steps = plan.steps.iter();
        let step = steps.find(|step| {
            matches!(&step.action, Action::Start { instance } if instance.service == service)
        });
        step.unwrap_or_else(|| panic!("{service}: {plan}"))
    };
    assert!(
        start_of("client").needs.contains(&start_of("ws").id),
        "{plan}"
    );
    assert!(
        !start_of("ws").needs.contains(&start_of("client").id),
        "{plan}"
    );
}

#[test]
fn start_brings_the_dependencies_up_first() {
    let mut world = running();
    depend(&mut world, "ws:service_healthy:false");
    for instance in &mut world.observed.instances {
        instance.status = Status::Exited { code: 0 };
    }
    let launching = Launching {
        services: names(&["client"]),
        checked: names(&["ws"]),
        ..Launching::default()
    };
    assert_snapshot!(launch::start(&world.observed, &launching));
}

#[test]
fn a_stopped_service_in_the_middle_still_orders_the_others() {
    let mut world = running();
    let mut top = world.observed.instances[0].clone();
    top.service = "top".to_owned();
    top.name = "shop-top-1".to_owned();
    top.id.0.push('3');
    let label = "client:service_started:false".to_owned();
    top.labels.insert(DEPENDS_ON_LABEL.to_owned(), label);
    world.observed.instances.push(top);
    for instance in &mut world.observed.instances {
        if instance.service == "client" {
            instance.status = Status::Exited { code: 0 };
        }
    }
    assert_snapshot!(down::stop(&world.observed, &Ending::default()));
}

#[test]
fn a_one_off_goes_with_the_orphans_only() {
    let mut world = running();
    for instance in &mut world.observed.instances {
        instance.one_off = instance.service == "client";
    }
    let mut ending = Ending {
        leave_one_offs: true,
        enabled: Some(names(&["ws", "client"])),
        ..Ending::default()
    };
    let left = down::down(&world.observed, &ending);
    assert!(!left.to_string().contains("client"), "{left}");
    assert_eq!(left.notes.len(), 1, "{:?}", left.notes);
    let signalled = down::kill(&world.observed, &ending, "HUP");
    assert!(!signalled.to_string().contains("client"), "{signalled}");
    ending.remove_orphans = true;
    let all = down::down(&world.observed, &ending);
    assert!(all.to_string().contains("client"), "{all}");
}

#[test]
fn rm_takes_what_does_not_run_unless_it_stops_it() {
    let mut world = running();
    for instance in &mut world.observed.instances {
        if instance.service == "client" {
            instance.status = Status::Exited { code: 0 };
        }
    }
    let plan = down::remove(&world.observed, &Ending::default(), false);
    assert_eq!(plan.steps.len(), 1, "{plan}");
    assert_snapshot!(down::remove(&world.observed, &Ending::default(), true));
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
    let [note] = plan.notes.as_slice() else {
        panic!("{:?}", plan.notes);
    };
    assert!(
        note.contains("whose profile is off are left alone: shop-client-1"),
        "{note}"
    );
}

#[test]
fn what_could_not_be_ended_is_said_and_no_kill_is_promised() {
    let mut world = running();
    let note = |world: &World| {
        let notes = world.up().notes;
        let found = notes.iter().find(|note| note.contains("as somebody asked"));
        found.cloned().unwrap_or_default()
    };
    world.observed.instances[0].ending = true;
    assert!(note(&world).contains("`wharf kill "), "{}", note(&world));
    let left = "still there after SIGKILL: pid 7 (x) in state D";
    world.observed.instances[0].survivors = Some(left.to_owned());
    let note = note(&world);
    assert!(note.ends_with(&format!("could not be: {left}")), "{note}");
}
