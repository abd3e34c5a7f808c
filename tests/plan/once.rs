//! What `run` plans: one more instance, and nothing that the replicas notice.

use std::sync::Arc;

use insta::assert_snapshot;
use wharf::backend::Made;
use wharf::backend::fake::Fake;
use wharf::event::Events;
use wharf::plan::policy::Once;
use wharf::plan::step::{Action, OneOff};
use wharf::project::model::Service;

use crate::world::{World, container};

const SHOP: &str = "
services:
  api:
    image: api
    networks: {default: {aliases: [site]}}
    depends_on: {db: {condition: service_healthy}}
    ports: ['127.0.0.1:8003:80']
  db:
    image: db
    healthcheck: {test: [CMD, 'true']}
";

/// `run api migrate`.
fn run(world: &mut World, with_ports: bool, aliases: bool) {
    let mut service = Service::clone(&world.project.services["api"]);
    service.container_name = Some("shop-api-run-0123456789ab".to_owned());
    service.command = Some(vec!["migrate".to_owned()]);
    if !with_ports {
        service.ports.clear();
    }
    world.policy.once = Some(Once {
        service: Arc::new(service),
        one_off: OneOff {
            slug: "0123456789ab".repeat(5),
            remove: true,
            aliases,
        },
    });
}

#[tokio::test(flavor = "current_thread")]
async fn the_replica_stays_and_the_dependency_is_waited_for() {
    let mut world = World::new(SHOP);
    let fake = Fake::new(world.observed.clone());
    let (events, _watching) = Events::channel();
    let report = wharf::execute::execute(&world.up(), &fake, &Made::default(), &events).await;
    assert!(report.failed.is_empty());
    world.observed = fake.observed();
    run(&mut world, false, false);
    let plan = world.up();
    assert_snapshot!(plan);
    let spec = plan.steps.iter().find_map(|step| {
        if let Action::Create(spec) = &step.action {
            Some(spec)
        } else {
            None
        }
    });
    let spec = spec.expect("an instance is made");
    assert_eq!(spec.number, 0);
    assert_eq!(spec.networks[0].aliases, ["shop-api-run-0123456789ab"]);
    run(&mut world, false, true);
    let named = world.up().to_string();
    assert_eq!(named, plan.to_string(), "aliases change nothing else");
}

#[test]
fn its_ports_are_claimed_like_any_other() {
    let mut world = World::new(SHOP);
    run(&mut world, true, false);
    world.hold(8003, vec![container(8003)], &[8004]);
    let plan = world.up();
    assert_eq!(plan.questions.len(), 1);
    assert_eq!(plan.questions[0].next, Some(8004));
}
