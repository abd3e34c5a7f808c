//! Between the end of the main process and the end of its tree: what is left is the instance.

use std::time::Duration;

use rustix::process::Signal;
use wharf::backend::BackendError;
use wharf::backend::process::Record;
use wharf::backend::process::run::wall_clock;
use wharf::state::Status;

use crate::ending::Frozen;
use crate::stage::{PROJECT, Stage, exited, name, process, shell, until_readable};

/// Its main process ends when asked; its child does not.
const HALF: &str = "sh -c 'trap \"\" TERM; echo child $$; while :; do sleep 0.05; done' & \
                    trap 'exit 3' TERM; wait";

const LONG: Option<Duration> = Some(Duration::from_mins(5));
const SHORT: Option<Duration> = Some(Duration::from_millis(100));

/// Begins a stop that nobody waits for, and returns when the main process has ended; the child.
async fn half_stopped(stage: &Stage) -> wharf::backend::process::run::ProcessId {
    let service = shell("web", HALF);
    stage.up(service).await.expect("a service that runs");
    let child = process(&stage.line("web", "child ").await);
    let main = stage.main_end("web");
    let asking = stage.another();
    let name = name("web");
    let mut stopping = std::pin::pin!(asking.stop(PROJECT, &name, LONG));
    let ended = tokio::task::spawn_blocking(move || until_readable(&main));
    tokio::select! {
        outcome = &mut stopping => panic!("the child ended too: {outcome:?}"),
        outcome = ended => outcome.expect("a thread that waits"),
    }
    assert!(child.is_alive());
    child
}

#[tokio::test]
async fn what_is_left_of_an_instance_counts_as_alive() {
    let stage = Stage::new();
    let child = half_stopped(&stage).await;
    let instance = stage.instance("web").await;
    assert_eq!((instance.status, instance.pid), (Status::Running, None));
    assert!(instance.ending);
    let error = stage.remove("web").await.unwrap_err();
    assert!(error.to_string().contains("is running"), "{error}");
    assert!(child.is_alive());
    // A later stop joins the one that is under way, and may shorten it.
    stage.stop("web", SHORT).await.unwrap();
    assert!(!child.is_alive());
    let instance = stage.instance("web").await;
    assert_eq!((instance.status, instance.ending), (exited(3), false));
}

#[tokio::test]
async fn what_is_left_of_an_instance_is_killed_at_once() {
    let stage = Stage::new();
    let child = half_stopped(&stage).await;
    stage
        .processes
        .kill(PROJECT, &name("web"), 9)
        .await
        .unwrap();
    assert!(!child.is_alive());
    assert_eq!(stage.instance("web").await.status, exited(3));
}

#[tokio::test]
async fn a_start_during_the_grace_period_begins_after_it() {
    let stage = Stage::new();
    let mut service = shell("web", HALF);
    service.stop_grace_period = Some(Duration::from_millis(500));
    stage.up(service).await.unwrap();
    let child = process(&stage.line("web", "child ").await);
    let main = stage.main_end("web");
    let asking = stage.another();
    let name = name("web");
    {
        let mut stopping = std::pin::pin!(asking.stop(PROJECT, &name, None));
        let ended = tokio::task::spawn_blocking(move || until_readable(&main));
        tokio::select! {
            _ = &mut stopping => {}
            outcome = ended => outcome.unwrap(),
        }
    }
    stage.start("web").await.unwrap();
    assert!(!child.is_alive());
    let instance = stage.instance("web").await;
    assert_eq!((instance.status, instance.ending), (Status::Running, false));
    stage.processes.kill(PROJECT, &name, 9).await.unwrap();
}

#[tokio::test]
async fn a_supervisor_that_takes_over_goes_on_with_the_stop() {
    let stage = Stage::new();
    let child = half_stopped(&stage).await;
    stage.kill_supervisor();
    stage.kill_keeper("web");
    let instance = stage.instance("web").await;
    assert_eq!((instance.status, instance.ending), (Status::Running, true));
    stage.stop("web", SHORT).await.unwrap();
    assert!(!child.is_alive());
    assert_eq!(stage.instance("web").await.status, exited(3));
}

#[tokio::test]
async fn what_a_run_has_left_is_ended_before_the_next_one_begins() {
    let stage = Stage::new();
    let script = "(setsid sh -c 'trap \"\" TERM; echo left $$; exec sleep 600' &); exec sleep 600";
    stage.up(shell("web", script)).await.unwrap();
    let left = process(&stage.line("web", "left ").await);
    let main = stage.record("web").process().unwrap();
    let ended = main.open().unwrap();
    stage.kill_supervisor();
    stage.kill_keeper("web");
    assert!(main.signal(Signal::KILL).unwrap());
    until_readable(&ended);
    // As an earlier version left it: over, although something lives.
    let dir = stage.dirs().project(PROJECT).unwrap();
    let dir = dir.instance(&name("web")).unwrap();
    let mut record = Record::read(&dir).unwrap().unwrap();
    record.status = exited(137);
    record.wanted = false;
    if let Some(run) = &mut record.run {
        run.code = Some(137);
        run.finished = Some(wall_clock());
    }
    record.write(&dir).unwrap();
    assert!(left.is_alive());
    stage.start("web").await.unwrap();
    assert!(!left.is_alive());
    stage
        .processes
        .kill(PROJECT, &name("web"), 9)
        .await
        .unwrap();
    assert_eq!(stage.started(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_child_that_not_even_sigkill_ends_is_reported_by_every_command() {
    let stage = Stage::new();
    stage.up(shell("web", HALF)).await.unwrap();
    let child = process(&stage.line("web", "child ").await);
    let Some(frozen) = Frozen::new(child.pid) else {
        eprintln!("skipped: no process can be put to uninterruptible sleep here");
        stage
            .processes
            .kill(PROJECT, &name("web"), 9)
            .await
            .unwrap();
        return;
    };
    let is_named = |error: BackendError| {
        let BackendError::Unkillable { left, .. } = &error else {
            panic!("another error: {error}");
        };
        assert_eq!(left.len(), 1, "{error}");
        assert_eq!((left[0].pid, left[0].state.as_str()), (child.pid, "D"));
    };
    is_named(stage.stop("web", Some(Duration::ZERO)).await.unwrap_err());
    is_named(stage.stop("web", Some(Duration::ZERO)).await.unwrap_err());
    let killed = stage.processes.kill(PROJECT, &name("web"), 9).await;
    is_named(killed.unwrap_err());
    is_named(stage.start("web").await.unwrap_err());
    assert!(stage.remove("web").await.is_err());
    let instance = stage.instance("web").await;
    assert_eq!((instance.status, instance.ending), (Status::Running, true));
    let said = format!(
        "still there after SIGKILL: pid {} (sh) in uninterruptible sleep (state D)",
        child.pid
    );
    assert_eq!(instance.survivors.as_deref(), Some(said.as_str()));
    // Nobody's memory is needed for that.
    stage.kill_supervisor();
    stage.kill_keeper("web");
    is_named(stage.stop("web", Some(Duration::ZERO)).await.unwrap_err());
    is_named(stage.start("web").await.unwrap_err());
    drop(frozen);
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.started(), Vec::<u32>::new());
    stage.remove("web").await.unwrap();
}
