//! The supervisor is killed at many points of a start, of a run and of a stop; each time the system itself is
//! asked how many instances there are, and the log what they wrote.

use std::time::Duration;

use rustix::process::Signal;
use wharf::backend::LogOptions;
use wharf::backend::process::run::ProcessId;
use wharf::event::Stream;
use wharf::plan::step::Action;
use wharf::state::Status;

use crate::stage::{PROJECT, Stage, command, name, shell, until_readable};

/// The points in time, counted from the request.
fn points() -> impl Iterator<Item = Duration> {
    (0..24).map(|point| Duration::from_micros(point * 400))
}

#[tokio::test]
async fn a_start_comes_to_one_instance_wherever_the_supervisor_is_killed() {
    let stage = Stage::new();
    for point in points() {
        let spec = stage.spec(command("web", &["sleep", "600"]));
        stage.act(Action::Create(Box::new(spec))).await.unwrap();
        let (started, ()) = tokio::join!(stage.start("web"), async {
            tokio::time::sleep(point).await;
            stage.kill_whoever_supervises();
        });
        let id = started.unwrap();
        let instance = stage.instance("web").await;
        assert_eq!(instance.status, Status::Running, "{point:?}");
        assert_eq!(instance.id, id, "{point:?}");
        assert_eq!(stage.started(), [instance.pid.unwrap()], "{point:?}");
        stage.stop("web", None).await.unwrap();
        assert_eq!(stage.started(), Vec::<u32>::new(), "{point:?}");
    }
}

#[tokio::test]
async fn a_stop_leaves_nothing_wherever_the_supervisor_is_killed() {
    let stage = Stage::new();
    for point in points() {
        let script = "trap '' TERM; sleep 600 & echo up; wait; exec sleep 600";
        stage.up(shell("web", script)).await.unwrap();
        stage.line("web", "up").await;
        let grace = Some(Duration::from_millis(3));
        let (stopped, ()) = tokio::join!(stage.stop("web", grace), async {
            tokio::time::sleep(point).await;
            stage.kill_whoever_supervises();
        });
        stopped.unwrap();
        assert_eq!(stage.started(), Vec::<u32>::new(), "{point:?}");
        let status = stage.instance("web").await.status;
        assert!(!status.is_alive(), "{point:?}: {status:?}");
    }
    assert!(
        stage
            .processes
            .tree_pids("stage", &name("web"))
            .unwrap()
            .is_empty()
    );
}

/// Writes to both streams, more than a pipe holds, notes each execution, and ends with a code of its own.
const TALKER: &str = "echo run >> runs; i=0; while [ $i -lt 400 ]; do \
    echo out $i 0123456789012345678901234567890123456789; echo err $i >&2; i=$((i+1)); done; \
    printf end; exit 7";

#[tokio::test]
async fn a_run_keeps_its_output_and_its_code_wherever_the_supervisor_is_killed() {
    let mut stage = Stage::new();
    for point in points() {
        let spec = stage.spec(shell("web", TALKER));
        stage.act(Action::Create(Box::new(spec))).await.unwrap();
        let (started, ()) = tokio::join!(stage.start("web"), async {
            tokio::time::sleep(point).await;
            stage.kill_whoever_supervises();
        });
        started.unwrap();
        // A second one while it runs, and nobody asks until it has ended.
        stage.kill_whoever_supervises();
        while stage
            .record("web")
            .run
            .is_some_and(|run| run.code.is_none())
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(stage.exit_code("web").await, 7, "{point:?}");
        let runs = std::fs::read_to_string(stage.root.path().join("runs")).unwrap();
        assert_eq!(runs, "run\n", "{point:?}");
        std::fs::remove_file(stage.root.path().join("runs")).unwrap();
        let lines = stage.lines("web", LogOptions::default()).await;
        let of = |wanted| -> Vec<&str> {
            lines
                .iter()
                .filter(|(stream, _)| *stream == wanted)
                .map(|(_, line)| line.as_str())
                .collect()
        };
        let out = of(Stream::Stdout);
        let err = of(Stream::Stderr);
        assert_eq!((out.len(), err.len()), (401, 400), "{point:?}");
        for at in 0..400 {
            assert!(out[at].starts_with(&format!("out {at} ")), "{point:?}");
            assert_eq!(err[at], format!("err {at}"), "{point:?}");
        }
        assert_eq!(out[400], "end", "{point:?}");
        assert_eq!(stage.started(), Vec::<u32>::new(), "{point:?}");
    }
}

#[tokio::test]
async fn a_start_comes_to_one_instance_or_none_wherever_its_keeper_is_killed() {
    let stage = Stage::new();
    // Brings the supervisor up, whose children the keepers are, and keeps it.
    stage.up(command("other", &["sleep", "601"])).await.unwrap();
    let supervisor = stage.supervisor().unwrap();
    let other = stage.record("other").keeper().unwrap();
    for point in points() {
        let spec = stage.spec(command("web", &["sleep", "600"]));
        stage.act(Action::Create(Box::new(spec))).await.unwrap();
        let (started, ()) = tokio::join!(stage.start("web"), async {
            tokio::time::sleep(point).await;
            let pid = supervisor.pid;
            let children =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            for child in children.split_whitespace() {
                let keeper = ProcessId::of(child.parse().unwrap());
                if let Some(keeper) = keeper.filter(|keeper| *keeper != other) {
                    keeper.signal(Signal::KILL).unwrap();
                }
            }
        });
        let pid = stage.instance("web").await.pid;
        let others = stage.instance("other").await.pid;
        let mut expected: Vec<u32> = pid.into_iter().chain(others).collect();
        expected.sort_unstable();
        assert_eq!(stage.started(), expected, "{point:?}");
        assert_eq!(started.is_ok(), pid.is_some(), "{point:?}: {started:?}");
        stage.stop("web", None).await.unwrap();
        assert_eq!(stage.started(), Vec::from_iter(others), "{point:?}");
    }
    stage.stop("other", None).await.unwrap();
}

#[tokio::test]
async fn output_that_a_killed_keeper_has_not_recorded_is_recorded_after_it() {
    let mut stage = Stage::new();
    let script = "trap 'echo; seq 1 1000; printf last; : > written' USR1; printf first; \
                  while :; do sleep 0.02; done";
    stage.up(shell("web", script)).await.unwrap();
    let record = stage.record("web");
    let (main, supervisor) = (record.process().unwrap(), stage.supervisor().unwrap());
    let ended = stage.main_end("web");
    // So that it sees the end of both in one turn.
    supervisor.signal(Signal::STOP).unwrap();
    stage.kill_keeper("web");
    main.signal(Signal::USR1).unwrap();
    while !stage.root.path().join("written").exists() {
        std::thread::yield_now();
    }
    main.signal(Signal::KILL).unwrap();
    until_readable(&ended);
    supervisor.signal(Signal::CONT).unwrap();
    assert_eq!(stage.exit_code("web").await, 137);
    let lines = stage.lines("web", LogOptions::default()).await;
    let lines: Vec<&str> = lines.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(lines.len(), 1002, "{lines:?}");
    assert_eq!(lines[0], "first");
    assert_eq!(lines[1000..], ["1000", "last"]);
    // What the next run writes begins a line of its own.
    let dir = stage.dirs().project(PROJECT).unwrap();
    let dir = dir.instance(&name("web")).unwrap();
    let log = std::fs::read(dir.log(Stream::Stdout, 0)).unwrap();
    assert!(log.ends_with(b"\nlast\n"));
}
