//! `pre_start`: before a service runs for the first time, and only then.

use insta::assert_snapshot;
use wharf::backend::Made;
use wharf::backend::fake::Fake;
use wharf::event::Events;
use wharf::plan::step::{Action, Preparation};
use wharf::plan::{Plan, placement};
use wharf::state::Status;

use crate::world::World;

const SHOP: &str = "
services:
  api:
    image: api
    scale: 2
    user: '1000'
    entrypoint: [serve]
    restart: always
    ports: ['80']
    depends_on: {db: {condition: service_healthy}}
    volumes: [data:/data]
    environment: {A: service, B: service}
    pre_start:
      - {command: [migrate]}
      - {command: [seed], per_replica: true, image: tools, user: root, environment: {A: hook}}
      - {}
  db:
    image: db
    healthcheck: {test: [CMD, 'true']}
volumes: {data: {}}
";

async fn carry_out(world: &mut World) {
    let fake = Fake::new(world.observed.clone());
    let (events, _watching) = Events::channel();
    let report = wharf::execute::execute(&world.up(), &fake, &Made::default(), &events).await;
    assert!(
        report.failed.is_empty() && report.skipped.is_empty(),
        "{report:?}"
    );
    world.observed = fake.observed();
}

fn preparations(plan: &Plan) -> Vec<&Preparation> {
    let mut all = Vec::new();
    for step in &plan.steps {
        if let Action::PreStart { preparation, .. } = &step.action {
            all.push(&**preparation);
        }
    }
    all
}

#[tokio::test(flavor = "current_thread")]
async fn what_comes_first_is_done_once_until_the_service_is_made_anew() {
    let mut world = World::new(SHOP);
    assert_snapshot!(world.up());
    carry_out(&mut world).await;
    assert_eq!(world.up().to_string(), "");

    // Neither what was stopped nor what is added runs for the first time.
    for instance in &mut world.observed.instances {
        instance.status = Status::Exited { code: 0 };
    }
    assert!(preparations(&world.up()).is_empty());
    for instance in &mut world.observed.instances {
        instance.status = Status::Running;
    }
    world
        .observed
        .instances
        .retain(|it| it.name != "shop-api-2");
    // But what is done for each replica is done for one more.
    let plan = world.up();
    let more = preparations(&plan);
    let names: Vec<&str> = more.iter().map(|it| it.spec.name.as_str()).collect();
    assert_eq!(names, ["shop-api-pre_start-1-2"]);

    // A start that failed at one of them is its first still.
    for instance in &mut world.observed.instances {
        if instance.service == "api" {
            instance.status = Status::Created;
        }
    }
    assert_eq!(preparations(&world.up()).len(), 4);
}

#[test]
fn its_container_is_like_the_services_but_for_what_reaches_it() {
    let plan = World::new(SHOP).up();
    let all = preparations(&plan);
    let names: Vec<&str> = all.iter().map(|it| it.spec.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "shop-api-pre_start-0",
            "shop-api-pre_start-1-1",
            "shop-api-pre_start-2",
            "shop-api-pre_start-1-2"
        ]
    );
    let [migrate, seed, image, _] = all.as_slice() else {
        panic!("{names:?}");
    };
    let of = |preparation: &Preparation| {
        let spec = &preparation.spec;
        let service = &spec.service;
        let variables: Vec<String> = service
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        format!(
            "{} {:?} {:?} {:?} {}",
            spec.image,
            service.command,
            service.entrypoint,
            service.user,
            variables.join(" ")
        )
    };
    assert_eq!(
        of(migrate),
        r#"api Some(["migrate"]) None Some("1000") A=service B=service"#
    );
    assert_eq!(
        of(seed),
        r#"tools Some(["seed"]) None Some("root") A=hook B=service"#
    );
    assert_eq!(
        of(image),
        r#"api None None Some("1000") A=service B=service"#
    );
    for preparation in all {
        let service = &preparation.spec.service;
        assert!(service.ports.is_empty() && service.volumes.is_empty());
        assert!(!service.restart_given);
        assert_eq!(service.labels["com.docker.compose.hook"], "pre_start");
    }
}

#[test]
fn a_process_leaves_out_what_is_for_another_image() {
    let mut world = World::new(
        "
services:
  api:
    image: api
    pre_start: [{command: [migrate]}, {command: [seed], image: tools}]
    x-wharf: {process: {command: [serve]}}
",
    );
    let wishes = placement::Wishes {
        local: placement::Selection::Everybody,
        ..placement::Wishes::default()
    };
    world.placement = placement::place(&world.project, &wishes).unwrap();
    let plan = world.up();
    assert_snapshot!(plan);
    assert!(
        plan.notes[0].contains("1 of its pre_start commands"),
        "{:?}",
        plan.notes
    );
}
