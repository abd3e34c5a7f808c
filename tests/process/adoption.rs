//! Killing the supervisor loses nothing: services live, their output is complete, the next command takes
//! over.

use std::time::Duration;

use wharf::backend::LogOptions;
use wharf::project::model::Restart;
use wharf::state::Status;

use crate::stage::{Stage, exited, process, shell, until_readable};

#[tokio::test]
async fn a_service_lives_on_and_its_output_has_neither_gap_nor_repetition() {
    let mut stage = Stage::new();
    // Writes until a file appears, so that it is busy writing whenever the supervisor is killed.
    let script = "i=0; while [ ! -e enough ]; do echo line $i; i=$((i+1)); done; echo last $i";
    stage.up(shell("web", script)).await.unwrap();
    let id = stage.instance("web").await.id;
    for round in 1..=5 {
        // Far enough into the output for the supervisor to be in the midst of its work.
        stage.line("web", &format!("line {}", round * 1000)).await;
        stage.kill_supervisor();
        // The next command finds it running, and starts no second one.
        assert_eq!(stage.start("web").await.unwrap(), id);
        assert_eq!(stage.instance("web").await.status, Status::Running);
    }
    stage.line("web", "line 9000").await;
    std::fs::write(stage.root.path().join("enough"), "").unwrap();
    // Whoever waits is served by a new supervisor.
    assert_eq!(stage.exit_code("web").await, 0);
    assert_eq!(stage.instance("web").await.id, id);
    let lines = stage.lines("web", LogOptions::default()).await;
    let (last, numbered) = lines.split_last().unwrap();
    for (wanted, (_, line)) in numbered.iter().enumerate() {
        assert_eq!(line, &format!("line {wanted}"));
    }
    assert_eq!(last.1, format!("last {}", numbered.len()));
}

#[tokio::test]
async fn the_next_stop_works_on_what_a_dead_supervisor_left() {
    let stage = Stage::new();
    let script = "sleep 600 & echo child $!; wait";
    stage.up(shell("web", script)).await.unwrap();
    let child = process(&stage.line("web", "child ").await);
    stage.kill_supervisor();
    let another = stage.another();
    another.stop("stage", "stage-web-1", None).await.unwrap();
    assert!(!child.is_alive());
    assert!(!stage.instance("web").await.status.is_alive());
}

#[tokio::test]
async fn an_end_without_a_supervisor_is_known_with_its_output() {
    let mut stage = Stage::new();
    let script =
        "echo up; while [ ! -e go ]; do sleep 0.01; done; echo late; echo later >&2; exit 7";
    stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "up").await;
    let ended = stage.main_end("web");
    stage.kill_supervisor();
    std::fs::write(stage.root.path().join("go"), "").unwrap();
    until_readable(&ended);
    assert!(stage.supervisor().is_none());
    assert_eq!(stage.exit_code("web").await, 7);
    let mut lines = stage.lines("web", LogOptions::default()).await;
    lines.sort();
    let text: Vec<_> = lines.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(text, ["late", "up", "later"]);
}

#[tokio::test]
async fn without_keeper_and_supervisor_the_code_is_unknown_and_nothing_is_left() {
    let stage = Stage::new();
    let script = "sleep 600 & echo child $!; echo main $$; wait";
    stage.up(shell("web", script)).await.unwrap();
    let child = process(&stage.line("web", "child ").await);
    let main = process(&stage.line("web", "main ").await);
    let ended = main.open().unwrap();
    stage.kill_supervisor();
    stage.kill_keeper("web");
    main.signal(rustix::process::Signal::KILL).unwrap();
    until_readable(&ended);
    // It counts as alive until its child has gone, too: whoever looks starts a supervisor, which sees to that.
    let code = stage.exit_code("web").await;
    assert_eq!(code, wharf::backend::process::UNKNOWN_CODE);
    stage.stop("web", None).await.unwrap();
    assert!(!child.is_alive());
}

#[tokio::test]
async fn the_supervisor_does_the_work_of_a_keeper_that_was_killed() {
    let mut stage = Stage::new();
    let script = "i=0; while [ ! -e go ]; do echo line $i; i=$((i+1)); done; echo last $i; exit 7";
    stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "line 1000").await;
    stage.kill_keeper("web");
    stage.line("web", "line 5000").await;
    std::fs::write(stage.root.path().join("go"), "").unwrap();
    // It has become the supervisor's child.
    assert_eq!(stage.exit_code("web").await, 7);
    let lines = stage.lines("web", LogOptions::default()).await;
    let (last, numbered) = lines.split_last().unwrap();
    for (wanted, (_, line)) in numbered.iter().enumerate() {
        assert_eq!(line, &format!("line {wanted}"));
    }
    assert_eq!(last.1, format!("last {}", numbered.len()));
}

#[tokio::test]
async fn whatever_looks_at_a_service_gets_its_output_flowing_again() {
    let mut stage = Stage::new();
    // Far more than a pipe holds, so that it can only end if somebody reads.
    let script =
        "echo up; while [ ! -e go ]; do sleep 0.02; done; seq 1 200000; touch done; exec sleep 600";
    stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "up").await;
    stage.kill_supervisor();
    std::fs::write(stage.root.path().join("go"), "").unwrap();
    assert_eq!(stage.instance("web").await.status, Status::Running);
    assert!(stage.supervisor().is_some());
    stage.line("web", "200000").await;
    let lines = stage.lines("web", LogOptions::default()).await;
    assert_eq!(lines.len(), 200_001);
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn a_restart_policy_goes_on_under_the_next_supervisor() {
    let stage = Stage::new();
    let mut service = shell("web", "echo run $$; exec sleep 600");
    service.restart = Restart::Always;
    let first = stage.up(service).await.unwrap();
    let main = process(&stage.line("web", "run ").await);
    stage.kill_supervisor();
    // Following brings a new supervisor, which adopts the process and sees it end.
    let instance = stage.instance("web").await;
    let (events, mut receiver) = wharf::event::Events::channel();
    let another = stage.another();
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let instances = [instance];
    let following = wharf::backend::Backend::follow(&another, &instances, &options, &events);
    tokio::select! {
        outcome = following => panic!("{outcome:?}"),
        () = async {
            main.signal(rustix::process::Signal::KILL).unwrap();
            let mut runs = 0;
            while runs < 2 {
                let event = receiver.recv().await.unwrap();
                if let wharf::event::Event::Log { line, .. } = event {
                    assert!(line.starts_with(b"run "));
                    runs += 1;
                }
            }
        } => {}
    }
    let again = stage.instance("web").await;
    assert_eq!(again.status, Status::Running);
    assert_ne!(again.id, first);
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn a_stop_goes_on_under_the_next_supervisor() {
    let stage = Stage::new();
    let script = "trap '' TERM; echo up $$; while :; do sleep 0.05; done";
    stage.up(shell("web", script)).await.unwrap();
    let main = process(&stage.line("web", "up ").await);
    let another = stage.another();
    let stopping = another.stop("stage", "stage-web-1", Some(Duration::from_millis(500)));
    let killing = async {
        // The ledger says that the stop was heard.
        loop {
            let project = stage.dirs().project("stage").unwrap();
            let dir = project.instance("stage-web-1").unwrap();
            let record = wharf::backend::process::Record::read(&dir)
                .unwrap()
                .unwrap();
            if !record.wanted {
                break;
            }
            tokio::task::yield_now().await;
        }
        stage.kill_supervisor();
    };
    let (stopped, ()) = tokio::join!(stopping, killing);
    stopped.unwrap();
    assert!(!main.is_alive());
}

#[tokio::test]
async fn another_boot_leaves_a_clean_end() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let main = stage.instance("web").await.pid.unwrap();
    stage.kill_supervisor();
    let project = stage.dirs().project("stage").unwrap();
    let dir = project.instance("stage-web-1").unwrap();
    let mut record = wharf::backend::process::Record::read(&dir)
        .unwrap()
        .unwrap();
    let process = record.process().unwrap();
    record.run.as_mut().unwrap().boot_id = "another".into();
    record.write(&dir).unwrap();
    let status = stage.instance("web").await.status;
    assert_eq!(status, exited(wharf::backend::process::UNKNOWN_CODE));
    // The pid may be anybody's after a reboot: it is left alone.
    stage.stop("web", None).await.unwrap();
    assert!(process.is_alive());
    assert_eq!(process.pid, main);
    process.signal(rustix::process::Signal::KILL).unwrap();
}
