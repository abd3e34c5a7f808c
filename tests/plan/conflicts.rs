//! The conflict table, row by row.

use insta::assert_snapshot;
use wharf::plan::Plan;
use wharf::plan::policy::Choice;
use wharf::plan::step::Action;
use wharf::port::holder::{Holder, Who};
use wharf::project::model::Conflict;

use crate::world::{World, container, python};

const WS: &str = "
services:
  ws:
    ports: [{target: 8003, published: '8003', host_ip: 127.0.0.1, app_protocol: ws}]
    x-wharf: {process: {command: [serve]}}
  client:
    depends_on: [ws]
    x-wharf: {process: {command: [client]}}
";

fn held_by(holder: Holder) -> World {
    let mut world = World::new(WS);
    world.hold(8003, vec![holder], &[8004, 8005]);
    world
}

fn frees(plan: &Plan) -> bool {
    plan.steps
        .iter()
        .any(|step| matches!(step.action, Action::FreePort { .. }))
}

#[test]
fn a_foreign_process_is_a_question_with_three_answers() {
    let plan = held_by(python(8003, None)).up();
    let [question] = plan.questions.as_slice() else {
        panic!("{:?}", plan.questions)
    };
    assert_eq!(
        question.choices,
        [Choice::Replace, Choice::Move, Choice::Abort]
    );
    assert_eq!(question.next, Some(8004));
    assert_eq!(question.settled, None);
    assert!(!frees(&plan));
}

#[test]
fn force_stops_it_after_all_that_can_fail() {
    let mut world = held_by(python(8003, None));
    world.policy.on_conflict = Some(Conflict::Replace);
    assert_snapshot!(world.up());
}

#[test]
fn an_answer_counts_like_a_flag() {
    let mut world = held_by(container(8003));
    world
        .policy
        .answers
        .insert(world.claim(8003), Choice::Replace);
    let plan = world.up();
    assert!(plan.questions.is_empty());
    assert!(frees(&plan));
}

#[test]
fn a_move_is_told_to_the_process_and_to_dependents() {
    let mut world = held_by(container(8003));
    world.policy.on_conflict = Some(Conflict::Move);
    let plan = world.up();
    assert_snapshot!(plan);
    let variables = |name: &str| {
        let created = plan.steps.iter().find_map(|step| {
            let Action::Create(spec) = &step.action else {
                return None;
            };
            (spec.service.name == name).then(|| spec.environment.clone())
        });
        created.expect("the service is created")
    };
    assert_eq!(
        variables("ws").get("PORT").map(String::as_str),
        Some("8004")
    );
    assert_eq!(
        variables("ws").get("PORT_8003").map(String::as_str),
        Some("8004")
    );
    assert_eq!(
        variables("client").get("WS_PORT").map(String::as_str),
        Some("8004")
    );
}

#[test]
fn a_protected_holder_is_never_stopped_whatever_the_flags() {
    for rule in [
        None,
        Some(Conflict::Ask),
        Some(Conflict::Replace),
        Some(Conflict::Fail),
    ] {
        let mut holder = python(8003, None);
        holder.protected = Some("it is your own shell".to_owned());
        let mut world = held_by(holder);
        world.policy.on_conflict = rule;
        world
            .policy
            .answers
            .insert(world.claim(8003), Choice::Replace);
        let plan = world.up();
        assert!(!frees(&plan), "{rule:?}");
        let [question] = plan.questions.as_slice() else {
            panic!("{rule:?}")
        };
        assert_eq!(question.choices, [Choice::Move, Choice::Abort]);
        assert_eq!(question.obstacle.as_deref(), Some("it is your own shell"));
    }
}

#[test]
fn what_may_not_be_signalled_is_explained() {
    let mut holder = python(8003, None);
    if let Who::Process(facts) = &mut holder.who {
        facts.signalable = false;
    }
    let mut world = held_by(holder);
    world.policy.on_conflict = Some(Conflict::Replace);
    let plan = world.up();
    assert!(!frees(&plan));
    let obstacle = plan.questions[0].obstacle.as_deref();
    assert_eq!(
        obstacle,
        Some("it belongs to dev, and you may not signal it: sudo kill 4711")
    );
}

#[test]
fn fail_fails_and_names_the_rule() {
    let mut world = held_by(python(8003, None));
    world.policy.on_conflict = Some(Conflict::Fail);
    let plan = world.up();
    assert_eq!(
        plan.questions[0].settled.as_deref(),
        Some("--on-conflict fail")
    );
}

#[test]
fn the_compose_file_may_decide() {
    let mut world = World::new(
        "
x-wharf: {conflict: move}
services:
  a:
    ports: ['127.0.0.1:8003:8003']
    x-wharf: {process: {command: [a]}, conflict: replace}
  b:
    ports: ['127.0.0.1:8004:8003']
    x-wharf: {process: {command: [b]}}
",
    );
    world.hold(8003, vec![python(8003, None)], &[8005]);
    world.hold(8004, vec![python(8004, None)], &[8005]);
    assert_snapshot!(world.up());
}

#[test]
fn two_moves_take_two_ports() {
    let mut world = World::new(
        "
x-wharf: {conflict: move}
services:
  a: {ports: ['127.0.0.1:8003:8003'], x-wharf: {process: {command: [a]}}}
  b: {ports: ['127.0.0.1:8004:8003'], x-wharf: {process: {command: [b]}}}
",
    );
    world.hold(8003, vec![python(8003, None)], &[8005, 8006]);
    world.hold(8004, vec![python(8004, None)], &[8005, 8006]);
    let moved: Vec<u16> = world
        .up()
        .steps
        .iter()
        .filter_map(|step| {
            if let Action::MovePort { to, .. } = step.action {
                Some(to)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(moved, [8005, 8006]);
}

#[test]
fn a_port_nobody_counts_on_moves_without_a_question() {
    let mut world = World::new(
        "
services:
  a: {ports: ['8003'], x-wharf: {process: {command: [a]}}}
",
    );
    world.hold(8003, vec![python(8003, None)], &[8010]);
    let plan = world.up();
    assert!(plan.questions.is_empty());
    assert!(
        plan.steps
            .iter()
            .any(|step| matches!(step.action, Action::MovePort { to: 8010, .. }))
    );
}

#[test]
fn two_replicas_cannot_share_a_port() {
    let mut world = World::new(WS);
    world.policy.scale.insert("ws".to_owned(), 2);
    let plan = world.up();
    let [question] = plan.questions.as_slice() else {
        panic!("{:?}", plan.questions)
    };
    let obstacle = question.obstacle.as_deref();
    assert_eq!(
        obstacle,
        Some("replica 1 of service `ws` of this project takes it")
    );
}

#[test]
fn a_process_must_take_the_port_that_was_freed_or_moved_for_it() {
    let waits = |plan: &Plan| {
        plan.steps
            .iter()
            .filter_map(|step| {
                let Action::AwaitReady { readiness, .. } = &step.action else {
                    return None;
                };
                Some(readiness.address.port())
            })
            .collect::<Vec<_>>()
    };
    let process = "
services:
  web:
    ports: ['8003:8003']
    x-wharf: {process: {command: [serve]}}
";
    let container = "services: {web: {image: web, ports: ['8003:8003']}}";
    // Nothing declares a protocol: on a free port, that it runs is all that is asked.
    assert_eq!(waits(&World::new(process).up()), Vec::<u16>::new());
    for (text, rule, expected) in [
        (process, Conflict::Replace, vec![8003]),
        (process, Conflict::Move, vec![8004]),
        (container, Conflict::Replace, vec![]),
    ] {
        let mut world = World::new(text);
        world.hold(8003, vec![python(8003, None)], &[8004]);
        world.policy.on_conflict = Some(rule);
        assert_eq!(waits(&world.up()), expected, "{rule:?} {text}");
    }
}

/// The ports that the made instances are to have.
fn published(plan: &Plan) -> Vec<(String, Option<u16>)> {
    plan.steps
        .iter()
        .filter_map(|step| {
            let Action::Create(spec) = &step.action else {
                return None;
            };
            Some((spec.name.clone(), spec.ports.first()?.published))
        })
        .collect()
}

#[test]
fn processes_with_the_same_container_port_get_a_port_each() {
    let mut world = World::new(
        "
services:
  a: {ports: [{target: 8080}], x-wharf: {process: {command: [serve]}}}
  b: {ports: [{target: 8080}], scale: 2, x-wharf: {process: {command: [serve]}}}
",
    );
    let protocol = world.claim(8080).protocol;
    world
        .observed
        .free_ports
        .insert((8080, protocol), vec![8081, 8082]);
    let plan = world.up();
    assert!(plan.questions.is_empty(), "{:?}", plan.questions);
    let mut ports: Vec<_> = published(&plan).into_iter().map(|(_, port)| port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [Some(8080), Some(8081), Some(8082)]);
}

#[test]
fn a_range_leaves_a_port_to_the_service_that_can_have_no_other() {
    let world = World::new(
        "
services:
  a: {ports: ['127.0.0.1:9000-9004:80'], scale: 3, x-wharf: {process: {command: [serve]}}}
  b: {ports: ['127.0.0.1:9001:80'], x-wharf: {process: {command: [serve]}}}
",
    );
    let plan = world.up();
    assert!(plan.questions.is_empty(), "{:?}", plan.questions);
    let mut ports: Vec<_> = published(&plan).into_iter().collect();
    ports.sort_unstable();
    let ports: Vec<_> = ports.into_iter().filter_map(|(_, port)| port).collect();
    assert_eq!(ports.len(), 4);
    assert_eq!(ports[3], 9001);
    assert_eq!(ports.iter().filter(|port| **port == 9001).count(), 1);
}
