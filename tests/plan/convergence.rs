//! Execute a plan, observe, plan again: nothing is left to do.

use wharf::backend::Made;
use wharf::backend::fake::Fake;
use wharf::event::Events;
use wharf::execute::{Report, execute};
use wharf::plan::Plan;
use wharf::plan::step::Action;
use wharf::project::model::Conflict;
use wharf::state::{Fingerprint, Status};

use crate::world::{World, python};

const STACK: &str = "
services:
  web:
    image: web
    ports: ['8080:80']
    depends_on: {api: {condition: service_started}}
  api:
    ports: [{target: 8003, published: '8003', app_protocol: ws}]
    x-wharf: {process: {command: [api]}}
    depends_on: [db]
  db:
    image: db
    volumes: ['data:/data']
    scale: 2
volumes: {data: {}}
";

fn carry_out(plan: &Plan, fake: &Fake) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (events, _receiver) = Events::channel();
    runtime.block_on(execute(plan, fake, &Made::default(), &events))
}

/// Carries the world's plan out and plans again on what came of it.
fn again(world: &mut World) -> Plan {
    let fake = Fake::new(world.observed.clone());
    let report = carry_out(&world.up(), &fake);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    world.observed = fake.observed();
    world.up()
}

#[test]
fn a_second_up_has_nothing_to_do() {
    let mut world = World::new(STACK);
    let second = again(&mut world);
    assert_eq!(second.to_string(), "");
    assert_eq!(world.observed.instances.len(), 4);
}

#[test]
fn whatever_the_state_one_up_is_enough() {
    let mut world = World::new(STACK);
    again(&mut world);
    let settled = world.observed.clone();
    let states = [
        Status::Created,
        Status::Exited { code: 1 },
        Status::Dead,
        Status::Paused,
        Status::Running,
    ];
    for status in states {
        for at in 0..settled.instances.len() {
            for stale in [false, true] {
                world.observed = settled.clone();
                world.observed.instances[at].status = status;
                if stale {
                    world.observed.instances[at].fingerprint = Some(Fingerprint("old".to_owned()));
                }
                let second = again(&mut world);
                assert_eq!(second.to_string(), "", "{status:?} {at} {stale}");
            }
        }
    }
}

#[test]
fn a_changed_service_alone_is_made_anew() {
    let mut world = World::new(STACK);
    again(&mut world);
    let api = world
        .observed
        .instances
        .iter()
        .position(|instance| instance.service == "api");
    let api = api.expect("the api runs");
    world.observed.instances[api].fingerprint = Some(Fingerprint("old".to_owned()));
    let plan = world.up();
    assert!(
        plan.steps
            .iter()
            .all(|step| step.action.to_string().contains("shop-api-1")),
        "{plan}"
    );
}

#[test]
fn a_failed_step_keeps_its_dependents_from_starting() {
    let world = World::new(STACK);
    let fake = Fake::new(world.observed.clone());
    fake.fail("process shop-api-1: start");
    let plan = world.up();
    let report = carry_out(&plan, &fake);
    assert_eq!(report.failed.len(), 1);
    let performed = fake.performed();
    assert!(
        !performed
            .iter()
            .any(|text| text == "container shop-web-1: start"),
        "{performed:?}"
    );
    assert!(
        performed
            .iter()
            .any(|text| text == "container shop-db-1: start")
    );
    let count = report.done.len() + report.failed.len() + report.skipped.len();
    assert_eq!(count, plan.steps.len(), "every step is accounted for");
}

#[test]
fn a_stopped_instance_whose_port_is_taken_is_made_anew_to_move() {
    let mut world = World::new(
        "
services:
  web:
    image: web
    ports: [{target: 80, published: '8003', app_protocol: http}]
",
    );
    again(&mut world);
    world.observed.instances[0].status = Status::Exited { code: 0 };
    // An engine does not say what a stopped container publishes.
    world.observed.instances[0].publishers.clear();
    world.hold(8003, vec![python(8003, None)], &[8004]);
    world.policy.on_conflict = Some(Conflict::Move);
    let plan = world.up();
    let moved = plan.steps.iter().find_map(|step| {
        if let Action::Create(spec) = &step.action {
            spec.ports.first()?.published
        } else {
            None
        }
    });
    assert_eq!(moved, Some(8004), "{plan}");
}

#[test]
fn a_stopped_instance_that_had_moved_needs_the_port_it_was_made_with() {
    for publishers_are_known in [true, false] {
        let mut world = World::new(
            "
services:
  web:
    ports: [{target: 80, published: '8003', app_protocol: http}]
    x-wharf: {process: {command: [serve]}}
",
        );
        world.hold(8003, vec![python(8003, None)], &[8004]);
        world.policy.on_conflict = Some(Conflict::Move);
        again(&mut world);
        world.observed.instances[0].status = Status::Exited { code: 0 };
        if !publishers_are_known {
            world.observed.instances[0].publishers.clear();
        }
        // Nobody is stopped for a port that it does not take.
        world.hold(8003, vec![python(8003, None)], &[8004]);
        world.policy.on_conflict = Some(Conflict::Replace);
        let plan = world.up();
        assert!(!plan.to_string().contains("stop python3"), "{plan}");
        assert!(plan.questions.is_empty());
        // Its own port is looked up, and asked about.
        let claims = wharf::plan::claims(&world.inputs());
        assert!(claims.iter().any(|claim| claim.port == 8004));
        world.observed.held.clear();
        world.hold(8004, vec![python(8004, None)], &[8005]);
        let plan = world.up();
        assert!(
            plan.to_string().contains("port 8004/tcp: stop python3"),
            "{plan}"
        );
    }
}
