//! When images are pulled and when they are built.

use wharf::plan::Plan;
use wharf::plan::images::builds;
use wharf::plan::step::Action;
use wharf::project::model::PullPolicy;

use crate::world::{World, load};

/// One word for each image step: `pull x`, `build x`, `pull or build x`.
fn images(plan: &Plan) -> Vec<String> {
    let word = |action: &Action| {
        if let Action::Pull { image, .. } = action {
            Some(format!("pull {image}"))
        } else if let Action::Build {
            image, pull_first, ..
        } = action
        {
            let or = if *pull_first { "pull or " } else { "" };
            Some(format!("{or}build {image}"))
        } else {
            None
        }
    };
    plan.steps
        .iter()
        .filter_map(|step| word(&step.action))
        .collect()
}

const POLICIES: &str = "
services:
  always: {image: always, pull_policy: always}
  both: {image: both, build: .}
  build: {image: build, build: ., pull_policy: build}
  daily: {image: daily, pull_policy: daily}
  built: {build: .}
  missing: {image: missing, pull_policy: missing}
  never: {image: never, build: ., pull_policy: never}
";

#[test]
fn what_is_missing_is_pulled_or_built() {
    let mut world = World::new(POLICIES);
    world.observed.images.clear();
    assert_eq!(
        images(&world.up()),
        [
            "pull always",
            "pull or build both",
            "build build",
            "build shop-built",
            "pull daily",
            "pull missing",
            "build never",
        ]
    );
}

#[test]
fn what_is_there_is_renewed_as_its_policy_says() {
    let mut world = World::new(POLICIES);
    let built = "shop-built".to_owned();
    world.observed.images.insert(built, "sha256:1".to_owned());
    assert_eq!(images(&world.up()), ["pull always", "build build"]);

    world.observed.stale.insert("daily".to_owned());
    assert_eq!(
        images(&world.up()),
        ["pull always", "build build", "pull daily"]
    );
    world.policy.images_done = true;
    assert!(images(&world.up()).is_empty(), "they were renewed");
}

#[test]
fn the_command_line_is_above_the_policies() {
    let mut world = World::new(POLICIES);
    world.policy.pull_policy = Some(PullPolicy::Never);
    world.observed.images.clear();
    let plan = world.up();
    let problems: Vec<&str> = plan
        .problems
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].contains("--pull never"), "{problems:?}");
    assert_eq!(
        images(&plan),
        [
            "build both",
            "build build",
            "build shop-built",
            "build never"
        ]
    );
    world.policy.no_build = true;
    assert_eq!(world.up().problems.len(), 7);
}

#[test]
fn a_base_is_built_before_what_starts_from_it() {
    let project = load(
        "
services:
  app:
    build: {context: ., additional_contexts: {base: 'service:base', other: 'docker-image://x'}}
  base: {build: .}
  apart: {build: .}
",
    );
    let plan = builds(&project, &["app".to_owned()]);
    assert_eq!(images(&plan), ["build shop-base", "build shop-app"]);
    assert_eq!(plan.steps[1].needs, [plan.steps[0].id]);
    assert_eq!(images(&builds(&project, &[])).len(), 3);
}
