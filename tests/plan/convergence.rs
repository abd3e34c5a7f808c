//! Execute a plan, observe, plan again: nothing is left to do.

use std::num::NonZeroUsize;
use std::sync::Arc;

use wharf::backend::Made;
use wharf::backend::fake::Fake;
use wharf::event::{Event, Events};
use wharf::execute::{Report, execute, execute_at_most};
use wharf::plan::Plan;
use wharf::plan::step::{Action, Step};
use wharf::port::holder::Who;
use wharf::project::model::{Conflict, Volume};
use wharf::state::{Fingerprint, Instance, Status};

use crate::world::{World, container, load, python};

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
fn nothing_is_ended_before_all_images_are_there() {
    let mut world = World::new("services: {a: {image: a}, b: {image: b}, c: {image: c}}");
    again(&mut world);
    world.project = load("services: {a: {image: a, command: x}, b: {image: b2}, c: {image: c}}");
    let plan = world.up();
    let is_pull = |step: &&Step| matches!(step.action, Action::Pull { .. });
    let pull = plan.steps.iter().find(is_pull).expect("b2 is missing").id;
    let ends = plan
        .steps
        .iter()
        .filter(|step| matches!(step.action, Action::Stop { .. } | Action::Remove { .. }));
    let waits = |step: &Step| {
        let mut open = step.needs.clone();
        while let Some(need) = open.pop() {
            if need == pull {
                return true;
            }
            open.extend(
                plan.steps
                    .iter()
                    .filter(|s| s.id == need)
                    .flat_map(|s| &s.needs),
            );
        }
        false
    };
    let ends: Vec<bool> = ends.map(waits).collect();
    assert_eq!(ends, [true; 4], "{plan}");
}

#[test]
fn nothing_is_ended_before_all_is_made_that_can_be() {
    let mut world = World::new("services: {a: {image: a}, b: {image: b}}");
    again(&mut world);
    world.project = load(
        "
services:
  a: {image: a, command: x}
  b: {image: b, command: x}
  c: {image: b}
  d: {image: b, network_mode: 'service:a'}
",
    );
    let plan = world.up();
    let at = |text: &str| {
        let mut steps = plan.steps.iter();
        steps.position(|step| step.action.to_string() == text)
    };
    let of = |at: Option<usize>| &plan.steps[at.expect("it is planned")];
    let creates = ["a", "b", "c"].map(|name| {
        let text = format!("container shop-{name}-1: create");
        of(at(&text)).id
    });
    for name in ["a", "b"] {
        let stop = of(at(&format!("container shop-{name}-1: stop")));
        assert_eq!(stop.needs, creates, "{plan}");
    }
    // What shares something of a container that is made anew is made from the new one.
    let removal = of(at("container shop-a-1: remove")).id;
    assert!(
        of(at("container shop-d-1: create"))
            .needs
            .contains(&removal),
        "{plan}"
    );
    let mut before = std::collections::BTreeSet::new();
    for step in &plan.steps {
        assert!(
            step.needs.iter().all(|need| before.contains(need)),
            "{plan}"
        );
        before.insert(step.id);
    }
    assert_eq!(again(&mut world).to_string(), "");
}

#[test]
fn a_replica_more_is_nothing_to_who_shares_the_first_one() {
    let mut world = World::new(
        "
services:
  a: {image: a, scale: 2}
  b: {image: b, network_mode: 'service:a', volumes_from: [a]}
  c: {image: b, depends_on: {a: {condition: service_started, restart: true}}}
",
    );
    again(&mut world);
    let without = |world: &mut World, name: &str| {
        world.observed.instances.retain(|it| it.name != name);
        world.up().to_string()
    };
    let more = without(&mut world, "shop-a-2");
    assert!(more.contains("shop-a-2: start"), "{more}");
    assert!(
        !more.contains("shop-b") && !more.contains("shop-c"),
        "{more}"
    );
    // The first one is another matter.
    again(&mut world);
    let first = without(&mut world, "shop-a-1");
    assert!(first.contains("container shop-b-1: create"), "{first}");
}

#[test]
fn what_cannot_be_made_costs_nothing_that_runs() {
    let mut world = World::new("services: {a: {image: a}, b: {image: b}}");
    again(&mut world);
    world.project = load("services: {a: {image: a, command: x}, b: {image: b, command: x}}");
    let fake = Fake::new(world.observed.clone());
    fake.fail("container shop-b-1: create");
    let report = carry_out(&world.up(), &fake);
    assert_eq!(report.failed.len(), 1);
    let ends = ["stop", "remove"].map(|what| format!("container shop-a-1: {what}"));
    assert!(!fake.performed().iter().any(|text| ends.contains(text)));
}

#[test]
fn what_a_replacement_left_that_was_cut_off_is_no_replica() {
    for is_outdated in [false, true] {
        let mut world = World::new("services: {a: {image: a}}");
        again(&mut world);
        if is_outdated {
            world.project = load("services: {a: {image: a, command: x}}");
        }
        let mut left = world.observed.instances[0].clone();
        left.id = wharf::state::InstanceId("f00d".to_owned());
        left.name = "0123456789ab_shop-a-1".to_owned();
        left.status = Status::Created;
        world.observed.instances.insert(0, left);
        let plan = world.up();
        let removal = "container 0123456789ab_shop-a-1: remove";
        let texts: Vec<String> = plan
            .steps
            .iter()
            .map(|step| step.action.to_string())
            .collect();
        if is_outdated {
            // It may have the name under which the next one waits.
            let create = "container shop-a-1: create";
            assert_eq!(texts[..2], [removal, create], "{plan}");
            assert_eq!(plan.steps[1].needs, [plan.steps[0].id]);
        } else {
            assert_eq!(texts, [removal], "{plan}");
        }
        assert_eq!(again(&mut world).to_string(), "");
        assert_eq!(world.observed.instances.len(), 1);
    }
}

#[test]
fn a_replacement_that_was_cut_off_is_nobody_s_home() {
    let mut world =
        World::new("services: {a: {image: a}, in: {image: b, network_mode: 'service:a'}}");
    again(&mut world);
    let mut all = world.observed.instances.iter();
    let mut left = all.find(|each| each.service == "a").unwrap().clone();
    left.id = wharf::state::InstanceId("f00d".to_owned());
    left.name = "0123456789ab_shop-a-1".to_owned();
    left.status = Status::Created;
    world.observed.instances.insert(0, left);
    let plan = world.up();
    assert_eq!(plan.steps.len(), 1, "{plan}");
    let text = plan.steps[0].action.to_string();
    assert_eq!(text, "container 0123456789ab_shop-a-1: remove");
}

#[test]
fn who_shares_a_container_by_its_name_is_made_anew_with_it() {
    const BEFORE: &str = "
services:
  a: {image: a}
  net: {image: b, network_mode: 'container:shop-a-1', depends_on: [a]}
  pid: {image: b, pid: 'container:shop-a-1', depends_on: [a]}
  vol: {image: b, volumes_from: ['container:shop-a-1:ro'], depends_on: [a]}
  link: {image: b, external_links: ['shop-a-1:a'], depends_on: [a]}
";
    const AFTER: &str = "
services:
  a: {image: a, command: x}
  net: {image: b, network_mode: 'container:shop-a-1', depends_on: [a]}
  pid: {image: b, pid: 'container:shop-a-1', depends_on: [a]}
  vol: {image: b, volumes_from: ['container:shop-a-1:ro'], depends_on: [a]}
  link: {image: b, external_links: ['shop-a-1:a'], depends_on: [a]}
";
    let mut world = World::new(BEFORE);
    assert_eq!(again(&mut world).to_string(), "");
    world.project = load(AFTER);
    let plan = world.up();
    let made: Vec<&str> = plan
        .steps
        .iter()
        .filter_map(|step| {
            let Action::Create(spec) = &step.action else {
                return None;
            };
            Some(spec.service.name.as_str())
        })
        .collect();
    assert_eq!(made, ["a", "net", "pid", "vol"], "{plan}");
}

#[test]
fn who_is_in_the_network_of_a_container_that_is_gone_is_made_anew() {
    let mut world = World::new(
        "
services:
  a: {image: a}
  net: {image: b, network_mode: 'container:shop-a-1', depends_on: [a]}
  far: {image: b, network_mode: 'container:elsewhere'}
",
    );
    again(&mut world);
    let mut all = world.observed.instances.iter();
    let home = all.find(|each| each.service == "a").unwrap().id.clone();
    for (id, is_kept) in [(home.0.as_str(), true), ("f00d", false)] {
        for instance in &mut world.observed.instances {
            if instance.service != "a" {
                instance.shares_network_of = Some(wharf::state::InstanceId(id.to_owned()));
            }
        }
        let plan = world.up();
        let text = plan.to_string();
        assert_eq!(text.is_empty(), is_kept, "{text}");
        assert_eq!(text.contains("container shop-net-1: create"), !is_kept);
        assert!(!text.contains("shop-far-1"), "{text}");
    }
}

#[test]
fn images_are_renewed_for_containers_that_may_stay() {
    let mut world = World::new(STACK);
    assert_eq!(again(&mut world).to_string(), "");
    world.policy.pull = true;
    let pulled: Vec<String> = world
        .up()
        .steps
        .iter()
        .map(|step| step.action.to_string())
        .collect();
    assert_eq!(pulled, ["image db: pull", "image web: pull"]);
    world.policy.images_done = true;
    assert_eq!(world.up().to_string(), "");
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
fn what_is_ending_ends_before_it_is_started_again() {
    let mut world = World::new(STACK);
    again(&mut world);
    let of_api = |instance: &&mut Instance| instance.service == "api";
    let api = world.observed.instances.iter_mut().find(of_api).unwrap();
    api.ending = true;
    let name = api.name.clone();
    let plan = world.up();
    let steps: Vec<String> = plan
        .steps
        .iter()
        .map(|step| step.action.to_string())
        .collect();
    let of_it = |what: &str| format!("process {name}: {what}");
    let at = |what: &str| steps.iter().position(|step| *step == of_it(what));
    assert!(
        at("stop").is_some() && at("stop") < at("start"),
        "{steps:?}"
    );
    assert!(
        plan.notes[0].contains("waiting for its end, 10 s at most; `wharf kill api`"),
        "{:?}",
        plan.notes
    );
}

#[test]
fn a_replica_that_was_lost_gets_its_own_number_again() {
    let mut world = World::new("services:\n  a: {image: a, scale: 3}\n");
    again(&mut world);
    world
        .observed
        .instances
        .retain(|instance| instance.number != 1);
    assert!(
        world
            .up()
            .to_string()
            .contains("container shop-a-4: create")
    );
    world.policy.given.insert("shop-a-1".to_owned());
    let plan = world.up().to_string();
    assert!(plan.contains("container shop-a-1: create"), "{plan}");
    assert!(!plan.contains("shop-a-4"), "{plan}");
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
    let touched: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|step| step.action.changes())
        .collect();
    assert!(!touched.is_empty());
    assert!(
        touched.iter().all(|target| target.name == "shop-api-1"),
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
        let Action::Create(spec) = &step.action else {
            return None;
        };
        spec.ports.first().and_then(|port| port.published)
    });
    assert_eq!(moved, Some(8004), "{plan}");
}

#[test]
fn what_an_engine_is_starting_already_is_not_in_its_own_way() {
    let mut world = World::new("services: {web: {image: web, ports: ['8080:80']}}");
    again(&mut world);
    world.observed.instances[0].status = Status::Created;
    let mut holder = container(8080);
    if let Who::Container(facts) = &mut holder.who {
        facts.id.clone_from(&world.observed.instances[0].id.0);
        facts.project = Some("shop".to_owned());
    }
    world.hold(8080, vec![holder], &[]);
    let plan = world.up();
    assert!(plan.questions.is_empty(), "{:?}", plan.questions);
    let texts = plan.steps.iter().map(|step| step.action.to_string());
    assert_eq!(texts.collect::<Vec<_>>(), ["container shop-web-1: start"]);
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

#[test]
fn containers_that_pick_from_a_range_start_one_after_the_other() {
    let mut world = World::new(
        "
services:
  a: {image: a, ports: ['9000-9010:80'], scale: 3}
  b: {image: b, ports: ['9100:80']}
  c: {image: c, ports: ['9005:80']}
",
    );
    world.policy.no_start = true;
    again(&mut world);
    world.policy.no_start = false;
    let plan = world.up();
    let starts: Vec<_> = plan
        .steps
        .iter()
        .filter(|step| matches!(step.action, Action::Start { .. }))
        .collect();
    let [b, c, picking @ ..] = starts.as_slice() else {
        panic!("{plan}");
    };
    assert_eq!(picking.len(), 3, "{plan}");
    assert!(b.needs.is_empty() && c.needs.is_empty(), "{plan}");
    // What may have a port of somebody who has no choice comes after that one.
    assert_eq!(picking[0].needs, [c.id], "{plan}");
    for pair in picking.windows(2) {
        assert!(pair[1].needs.contains(&pair[0].id), "{plan}");
    }
}

#[test]
fn a_limit_of_one_carries_out_everything() {
    let world = World::new(STACK);
    let fake = Fake::new(world.observed.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (events, mut receiver) = Events::channel();
    let plan = world.up();
    let made = Made::default();
    let limit = NonZeroUsize::new(1);
    let report = runtime.block_on(execute_at_most(&plan, &fake, &made, &events, limit));
    assert!(report.failed.is_empty() && report.skipped.is_empty());
    let mut at_work = 0;
    while let Ok(event) = receiver.try_recv() {
        if let Event::StepStarted { text, .. } = &event {
            at_work += i32::from(!text.contains("wait"));
        } else if let Event::StepDone { text, .. } = &event {
            at_work -= i32::from(!text.contains("wait"));
        }
        assert!(at_work <= 1);
    }
}

#[test]
fn resources_that_nobody_uses_are_made_when_asked() {
    let mut world = World::new(
        "
services: {a: {image: a}}
volumes: {data: {}}
",
    );
    // Loading leaves out what no service uses, unless it was asked not to.
    let volume = Volume {
        key: "data".to_owned(),
        name: "shop_data".to_owned(),
        ..Volume::default()
    };
    let volumes = &mut world.project.volumes;
    volumes.insert("data".to_owned(), Arc::new(volume));
    assert!(!world.up().to_string().contains("volume shop_data: create"));
    world.policy.all_resources = true;
    assert!(world.up().to_string().contains("volume shop_data: create"));
}
