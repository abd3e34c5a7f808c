//! From nothing to a running container and back to nothing.

use std::net::Ipv4Addr;
use std::time::Duration;

use wharf::backend::BackendError;
use wharf::event::Event;
use wharf::plan::step::Action;
use wharf::project::model::Hook;
use wharf::state::Status;

use crate::engine::{docker, env, free_port, inspect, lab, published};

#[tokio::test]
async fn a_service_comes_up_and_goes_down() {
    let mut lab = lab!();
    let network = lab.default_network().await;
    let id = lab
        .up(lab.spec(lab.shell(
            "web",
            "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done",
        )))
        .await
        .unwrap();
    let seen = lab.observe().await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].id, id);
    assert_eq!(seen[0].status, Status::Running);
    assert_eq!((seen[0].service.as_str(), seen[0].number), ("web", 1));
    assert_eq!(seen[0].stop_grace, Some(1));
    assert_eq!(seen[0].networks, std::slice::from_ref(&network.name));
    let pid = inspect(&id.0)["State"]["Pid"].as_u64();
    assert_eq!(seen[0].pid.map(u64::from), pid);

    let target = lab.target("web", &id);
    lab.perform(Action::Stop {
        instance: target.clone(),
        grace: Some(Duration::from_secs(10)),
    })
    .await
    .unwrap();
    assert_eq!(lab.observe().await[0].status, Status::Exited { code: 3 });
    assert_eq!(lab.containers.exit_code(&id.0).await.unwrap(), Some(3));
    assert_eq!(lab.containers.last_lines(&id.0, 5).await.unwrap(), ["up"]);

    for _ in 0..2 {
        // What is gone already is done.
        lab.perform(Action::Remove {
            instance: target.clone(),
            volumes: true,
        })
        .await
        .unwrap();
        lab.perform(Action::RemoveNetwork {
            name: network.name.clone(),
            project: lab.project.name.clone(),
        })
        .await
        .unwrap();
    }
    assert_eq!(lab.observe().await, []);
    let left = docker(&["network", "ls", "--format", "{{.Name}}"]);
    assert!(!left.lines().any(|name| name == network.name));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let mut lab = lab!();
    lab.default_network().await;
    let port = free_port();
    let held = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut spec = lab.spec(lab.shell("web", "sleep 60"));
    spec.ports = vec![published(80, Some(port), Ipv4Addr::LOCALHOST)];
    let id = lab.create(spec).await.unwrap();
    let instance = lab.target("web", &id);
    let start = Action::Start { instance };
    let error = lab.perform(start.clone()).await.unwrap_err();
    let BackendError::PortTaken { address, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*address, Some((Ipv4Addr::LOCALHOST, port).into()));

    // The same by a container, whose facts say who it is.
    drop(held);
    lab.perform(start.clone()).await.unwrap();
    let mut other = lab.spec(lab.shell("other", "sleep 60"));
    other.ports = vec![published(80, Some(port), Ipv4Addr::LOCALHOST)];
    let error = lab.up(other).await.unwrap_err();
    let BackendError::PortTaken { address, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*address, Some((Ipv4Addr::LOCALHOST, port).into()));
    let census = lab.containers.census(false).await;
    let (ports, running) = (census.published, census.running);
    let holder = ports.iter().find(|one| one.port == port).unwrap();
    assert_eq!(holder.container.id, id.0);
    assert_eq!(holder.ip, Ipv4Addr::LOCALHOST);
    assert_eq!(holder.container.project.as_ref(), Some(&lab.project.name));
    assert_eq!(holder.container.engine, env().variables["DOCKER_HOST"]);
    assert!(running.contains(&holder.container));

    lab.containers
        .stop_foreign(&id.0, None, None)
        .await
        .unwrap();
    assert_eq!(inspect(&id.0)["State"]["Running"], false);
    lab.perform(Action::Start {
        instance: lab.target("other", &lab.observe().await[0].id),
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn hooks_run_after_the_start_and_before_the_stop() {
    let mut lab = lab!();
    lab.default_network().await;
    let hook = |line: &str| Hook {
        command: ["sh", "-c", line].map(str::to_owned).to_vec(),
        user: None,
        privileged: false,
        working_dir: Some("/tmp".to_owned()),
        environment: vec!["WORD=from the hook".to_owned()],
    };
    let mut service = lab.shell(
        "web",
        "mkdir -p /tmp; trap 'cat /tmp/said; exit' TERM; while :; do sleep 0.1; done",
    );
    service.working_dir = None;
    service.post_start = vec![hook("echo $WORD $PWD"), hook("echo second >&2")];
    service.pre_stop = vec![hook("echo last words > /tmp/said; exit 9")];
    let spec = lab.spec(service.clone());
    let name = spec.name.clone();
    let id = lab.create(spec).await.unwrap();
    let target = lab.target("web", &id);
    for _ in 0..2 {
        // The second time it runs already.
        lab.perform(Action::Start {
            instance: target.clone(),
        })
        .await
        .unwrap();
    }
    let told: Vec<String> = lab
        .told()
        .into_iter()
        .filter_map(|event| {
            let Event::Log { name: of, line, .. } = event else {
                return None;
            };
            assert_eq!(of, name);
            String::from_utf8(line).ok()
        })
        .collect();
    assert_eq!(told, ["from the hook /tmp", "second"]);

    // A fresh backend, as a later invocation has it.
    lab.containers = wharf::backend::container::Containers::new(&env());
    lab.perform(Action::Stop {
        instance: target,
        grace: Some(Duration::from_secs(10)),
    })
    .await
    .unwrap();
    let told = format!("{:?}", lab.told());
    assert!(told.contains("pre_stop hook"), "{told}");
    assert!(told.contains("exited with code 9"), "{told}");
    assert_eq!(
        lab.containers.last_lines(&id.0, 5).await.unwrap(),
        ["last words"]
    );

    service.name = "failing".to_owned();
    service.post_start = vec![hook("echo oops; exit 4")];
    let error = lab.up(lab.spec(service)).await.unwrap_err();
    let BackendError::Hook {
        what,
        code,
        last_lines,
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!((what.as_str(), *code), ("post_start", 4));
    assert_eq!(last_lines, &["oops"]);
}
