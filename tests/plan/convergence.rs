//! Execute a plan, observe, plan again: nothing is left to do.

use wharf::backend::Made;
use wharf::backend::fake::Fake;
use wharf::event::Events;
use wharf::execute::{Report, execute};
use wharf::plan::Plan;
use wharf::state::{Fingerprint, Status};

use crate::world::World;

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
