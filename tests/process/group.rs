//! A run has a control group where one is delegated to us: then nothing escapes, whoever is killed first.

use std::path::PathBuf;
use std::time::Duration;

use wharf::backend::process::cgroup::View;
use wharf::backend::{Backend, LogOptions};
use wharf::event::{Event, Events};
use wharf::plan::step::Action;
use wharf::project::model::{Hook, Service};
use wharf::state::Status;

use crate::stage::{PROJECT, Stage, exited, process, shell, target};

/// The group of a service's run; `None`, said once, where this machine delegates none.
#[expect(clippy::print_stderr, reason = "what was not tested must be seen")]
fn group(stage: &Stage, service: &str) -> Option<PathBuf> {
    let Some(place) = View::new().find(&std::collections::BTreeSet::new()) else {
        eprintln!("skipped: no control group is delegated to this user");
        return None;
    };
    let group = stage.record(service).group().expect("a group");
    let path = group.path().to_owned();
    assert_eq!(path.parent(), Some(place.dir.as_path()));
    Some(path)
}

fn words(path: &std::path::Path, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path.join(file)).expect("a file of the kernel");
    text.split_whitespace().map(str::to_owned).collect()
}

/// Leaves its session and its parent, forgets its environment, and ignores what asks it to end.
const ESCAPEE: &str =
    "(setsid env -i sh -c 'trap \"\" TERM; echo escapee $$; while :; do /bin/sleep 0.1; done' &)";

#[tokio::test]
async fn what_left_session_parent_and_environment_ends_even_when_the_keeper_was_killed() {
    let stage = Stage::new();
    let script = format!("{ESCAPEE}; exec sleep 600");
    stage.up(shell("web", &script)).await.unwrap();
    let escapee = process(&stage.line("web", "escapee ").await);
    let Some(group) = group(&stage, "web") else {
        stage.stop("web", None).await.unwrap();
        return;
    };
    let main = stage.instance("web").await.pid.unwrap();
    let inside = words(&group, "cgroup.procs");
    assert!(inside.contains(&main.to_string()), "{inside:?}");
    assert!(inside.contains(&escapee.pid.to_string()), "{inside:?}");
    // Without its keeper, its orphans are nobody's children of ours.
    stage.kill_keeper("web");
    stage.kill_supervisor();
    stage
        .stop("web", Some(Duration::from_millis(100)))
        .await
        .unwrap();
    assert!(!escapee.is_alive());
    assert!(!group.exists());
}

#[tokio::test]
async fn a_storm_of_forks_ends_in_one_step() {
    let stage = Stage::new();
    // Never more than about two hundred at a time; each ends by itself within a second.
    let script = "trap '' TERM; echo up; \
                  while :; do i=0; while [ $i -lt 20 ]; do (trap '' TERM; setsid sleep 1 &) ; i=$((i+1)); done; \
                  sleep 0.1; done";
    stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "up").await;
    let group = group(&stage, "web");
    stage
        .processes
        .kill("stage", "stage-web-1", 9)
        .await
        .unwrap();
    assert_eq!(stage.instance("web").await.status, exited(137));
    assert_eq!(stage.started(), Vec::<u32>::new());
    assert!(group.is_none_or(|group| !group.exists()));
}

#[tokio::test]
async fn a_paused_service_is_frozen_and_ends_politely() {
    let stage = Stage::new();
    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done";
    stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "up").await;
    let pause = |instance| Action::Pause { instance };
    stage.act(pause(target("web"))).await.unwrap();
    assert_eq!(stage.instance("web").await.status, Status::Paused);
    if let Some(group) = group(&stage, "web") {
        let events = words(&group, "cgroup.events");
        assert_eq!(events, ["populated", "1", "frozen", "1"]);
    }
    let unpause = Action::Unpause {
        instance: target("web"),
    };
    stage.act(unpause).await.unwrap();
    assert_eq!(stage.instance("web").await.status, Status::Running);
    stage.act(pause(target("web"))).await.unwrap();
    // Whoever takes over lets it go on to end it.
    stage.kill_supervisor();
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.instance("web").await.status, exited(7));
}

#[tokio::test]
async fn a_signal_lets_a_paused_service_go_on() {
    let stage = Stage::new();
    let script = "trap 'exit 7' USR1; echo up; while :; do sleep 0.05; done";
    stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "up").await;
    let send = |signal: &str| Action::Kill {
        instance: target("web"),
        signal: signal.to_owned(),
    };
    let pause = Action::Pause {
        instance: target("web"),
    };
    stage.act(pause).await.unwrap();
    stage.act(send("STOP")).await.unwrap();
    assert_eq!(stage.instance("web").await.status, Status::Paused);
    stage.act(send("USR1")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 7);
    // What has ended needs no signal.
    stage.act(send("USR1")).await.unwrap();
}

#[tokio::test]
async fn limits_are_set_or_named() {
    let mut stage = Stage::new();
    let mut service = shell("web", "exec sleep 600");
    service.pids_limit = Some(50);
    stage.up(service).await.unwrap();
    let place = View::new().find(&["pids"].into());
    if place.is_some_and(|place| place.controllers.contains("pids")) {
        let group = group(&stage, "web").unwrap();
        assert_eq!(words(&group, "pids.max"), ["50"]);
    } else {
        let mut notes = Vec::new();
        while let Ok(event) = stage.receiver.try_recv() {
            if let Event::Note(text) = event {
                notes.push(text);
            }
        }
        assert!(
            notes.iter().any(|note| note.contains("pids_limit")),
            "{notes:?}"
        );
    }
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn what_a_hook_leaves_behind_ends_with_the_run() {
    let stage = Stage::new();
    let leave = "(setsid env -i sh -c 'echo $$ > left; exec /bin/sleep 600' >&- 2>&- &)";
    let wait = "until test -s left; do sleep 0.01; done";
    let service = Service {
        post_start: vec![Hook {
            command: ["sh", "-c", &format!("{leave}; {wait}")]
                .map(str::to_owned)
                .to_vec(),
            user: None,
            privileged: false,
            working_dir: None,
            environment: Vec::new(),
        }],
        ..shell("web", "exec sleep 600")
    };
    stage.up(service).await.unwrap();
    let text = std::fs::read_to_string(stage.root.path().join("left")).unwrap();
    let left = process(text.trim());
    if group(&stage, "web").is_none() {
        left.signal(rustix::process::Signal::KILL).unwrap();
        stage.stop("web", None).await.unwrap();
        return;
    }
    assert!(left.is_alive());
    stage.stop("web", None).await.unwrap();
    assert!(!left.is_alive());
}

#[tokio::test]
async fn what_the_kernel_kills_for_want_of_memory_is_told() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    stage.kill_supervisor();
    // Few machines let a test have a limit: the kernel's file is imitated.
    let root = tempfile::tempdir().unwrap();
    let mut record = stage.record("web");
    let main = record.process().unwrap();
    let run = record.run.as_mut().unwrap();
    let imitated = root.path().join(format!("wharf-0f-{}", run.id));
    std::fs::create_dir(&imitated).unwrap();
    let count = |kills: u32| {
        let text = format!("max 9\noom {kills}\noom_kill {kills}\n");
        std::fs::write(imitated.join("memory.events"), text).unwrap();
    };
    count(0);
    let own = run.cgroup.replace(imitated.clone());
    record.spec.attributes.resources.memory = Some(64 << 20);
    let project = stage.dirs().project(PROJECT).unwrap();
    record
        .write(&project.instance("stage-web-1").unwrap())
        .unwrap();
    // With the next supervisor, which a look has come up.
    let instance = stage.instance("web").await;
    let happenings = stage.processes.happenings(PROJECT, None, true).await;
    let mut happenings = happenings.unwrap().unwrap();
    count(1);
    assert_eq!(happenings.next().await.unwrap().action, "oom");
    count(2);
    main.signal(rustix::process::Signal::KILL).unwrap();
    let mut actions = Vec::new();
    while actions.last().is_none_or(|last| last != "die") {
        actions.push(happenings.next().await.unwrap().action);
    }
    assert_eq!(actions, ["oom", "die"]);
    assert_eq!(stage.exit_code("web").await, 137);
    let (events, mut receiver) = Events::channel();
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let another = stage.another();
    another
        .follow(&[instance], &options, &events)
        .await
        .unwrap();
    let mut told = Vec::new();
    while let Ok(event) = receiver.try_recv() {
        if let Event::Exited { code, .. } = event {
            told.push(code.to_string());
        } else if let Event::Note(note) = event {
            told.push(note);
        }
    }
    let note =
        "the kernel killed processes of stage-web-1: it had reached its memory limit of 64 MiB";
    assert_eq!(told, [note, "137"]);
    if let Some(own) = own {
        drop(std::fs::remove_dir(own));
    }
}
