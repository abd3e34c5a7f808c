//! Services that another program provides, as far as a plan knows of them.

use wharf::plan::Plan;
use wharf::project::model::Variables;

use crate::world::World;

const STACK: &str = "
services:
  db:
    provider: {type: fakecloud, options: {size: 256}}
  app:
    image: busybox
    command: [sleep, '1000']
    environment: {X: y, SECRET: mine}
    depends_on: [db]
  other:
    provider: {type: fakecloud}
    depends_on: [app]
  bare:
    image: busybox
    depends_on: [db]
";

fn told(url: &str) -> Variables {
    let pairs = [("URL", url), ("TOKEN", "s")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    Variables {
        prefixed: pairs.into(),
        ..Variables::default()
    }
}

fn steps(plan: &Plan) -> Vec<String> {
    plan.steps
        .iter()
        .map(|step| step.action.to_string())
        .collect()
}

/// The expected values are labels of containers that Docker Compose 2.40.3 made under such a provider.
#[test]
fn what_a_provider_tells_is_in_the_hash() {
    let world = World::new(STACK);
    let before = &world.project.services["app"].config_hash;
    assert!(before.starts_with("2f15cc249e94d800"), "{before}");
    for (url, hash) in [
        (
            "http://x/1",
            "2c8d7735ca8b646d0a3942c2419dfb92351e53a3eae2bdfd7682680ed25dee7a",
        ),
        (
            "http://x/2",
            "6a37d6d67257e98e6f8a2cd46a64c0b2a451fb44720acf62bc2a05dce107abb5",
        ),
    ] {
        let (project, overridden) = world.project.with_provided("db", &told(url));
        assert_eq!(project.services["app"].config_hash, hash);
        assert_eq!(project.services["app"].environment["DB_URL"], url);
        assert_eq!(project.services["bare"].environment["DB_TOKEN"], "s");
        assert_eq!(project.services["other"].environment.len(), 0);
        assert!(overridden.is_empty());
        let (again, _) = project.with_provided("db", &told(url));
        assert_eq!(again.services["app"].config_hash, hash);
    }
    let (project, _) = world.project.with_provided("db", &Variables::default());
    assert_eq!(&project.services["app"].config_hash, before);
}

#[test]
fn providers_come_before_what_depends_on_them_and_need_what_they_depend_on() {
    let mut world = World::new(STACK);
    assert_eq!(
        world
            .placement
            .services(wharf::state::BackendKind::Container)
            .count(),
        2
    );
    let plan = world.up();
    let all = steps(&plan);
    let place = |text: &str| all.iter().position(|step| step == text).expect(text);
    assert!(place("provider db: create") < place("container shop-app-1: create"));
    assert!(place("container shop-app-1: start") < place("provider other: create"));
    // The second one needs what the first one tells.
    assert_eq!(steps(&plan.providing()), ["provider db: create"]);
    world.policy.provided.insert("db".to_owned());
    let due = steps(&world.up().providing());
    assert_eq!(
        due.last().map(String::as_str),
        Some("provider other: create")
    );
    assert!(
        due.contains(&"container shop-app-1: start".to_owned()),
        "{due:?}"
    );
    assert!(
        !due.contains(&"container shop-bare-1: start".to_owned()),
        "{due:?}"
    );
    world.policy.provided.insert("other".to_owned());
    assert!(world.up().providing().steps.is_empty());
}
