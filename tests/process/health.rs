//! Healthchecks are run by the supervisor, and waiting for them ends with their verdict.

use std::time::Duration;

use wharf::backend::BackendError;
use wharf::plan::step::Action;
use wharf::project::model::{HealthTest, Healthcheck, Service};
use wharf::state::Health;

use crate::stage::{Stage, process, shell, target};

fn checked(script: &str, test: &str) -> Service {
    let mut service = shell("web", script);
    service.healthcheck = Some(Healthcheck {
        test: Some(HealthTest::Shell(test.into())),
        interval: Some(Duration::from_millis(50)),
        timeout: Some(Duration::from_secs(5)),
        retries: Some(2),
        start_period: None,
        start_interval: None,
    });
    service
}

async fn await_healthy(stage: &Stage) -> Result<(), BackendError> {
    let instance = target("web");
    stage.act(Action::AwaitHealthy { instance }).await.map(drop)
}

#[tokio::test]
async fn a_passing_test_makes_it_healthy() {
    let stage = Stage::new();
    stage
        .up(checked("exec sleep 600", "test -e well"))
        .await
        .unwrap();
    assert_eq!(stage.instance("web").await.health, Some(Health::Starting));
    std::fs::write(stage.root.path().join("well"), "").unwrap();
    await_healthy(&stage).await.unwrap();
    assert_eq!(stage.instance("web").await.health, Some(Health::Healthy));
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn failures_in_a_row_are_an_error_with_the_last_lines() {
    let stage = Stage::new();
    stage
        .up(checked("echo hello; exec sleep 600", "exit 1"))
        .await
        .unwrap();
    let error = await_healthy(&stage).await.unwrap_err();
    let BackendError::NotReady {
        last, last_lines, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(last, "its healthcheck says unhealthy");
    assert_eq!(last_lines, ["hello"]);
    assert_eq!(stage.instance("web").await.health, Some(Health::Unhealthy));
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn a_test_that_hangs_fails_and_is_ended() {
    let stage = Stage::new();
    let mut service = checked("exec sleep 600", "echo $$ >> hung; exec sleep 600");
    if let Some(check) = &mut service.healthcheck {
        check.timeout = Some(Duration::from_millis(50));
    }
    stage.up(service).await.unwrap();
    assert!(await_healthy(&stage).await.is_err());
    stage.stop("web", None).await.unwrap();
    let hung = std::fs::read_to_string(stage.root.path().join("hung")).unwrap();
    for pid in hung.lines() {
        let gone = wharf::backend::process::run::ProcessId::of(pid.parse().unwrap())
            .is_none_or(|id| !id.is_alive());
        assert!(gone, "{pid}");
    }
}

#[tokio::test]
async fn an_end_is_not_waited_out() {
    let stage = Stage::new();
    stage.up(checked("exit 5", "true")).await.unwrap();
    let error = await_healthy(&stage).await.unwrap_err();
    assert!(
        matches!(error, BackendError::ExitedEarly { code: 5, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn completion_is_a_matter_of_the_code() {
    let stage = Stage::new();
    let completed = || Action::AwaitCompleted {
        instance: target("web"),
    };
    stage.up(shell("web", "exit 0")).await.unwrap();
    stage.act(completed()).await.unwrap();
    stage.up(shell("web", "echo why; exit 6")).await.unwrap();
    let error = stage.act(completed()).await.unwrap_err();
    let BackendError::ExitedEarly {
        code, last_lines, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(code, 6);
    assert_eq!(last_lines, ["why"]);
}

/// Leaves its session, its parent and its environment.
const STRAY: &str =
    "test -s stray || (setsid env -i sh -c 'echo $$ > stray; exec /bin/sleep 600' &)";

async fn stray(stage: &Stage) -> wharf::backend::process::run::ProcessId {
    await_healthy(stage).await.expect("a check that passes");
    let path = stage.root.path().join("stray");
    loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if text.ends_with('\n') {
            return process(text.trim());
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_check_leaves_behind_ends_with_the_run() {
    let stage = Stage::new();
    stage.up(checked("exec sleep 600", STRAY)).await.unwrap();
    let stray = stray(&stage).await;
    assert!(stray.is_alive());
    stage.stop("web", None).await.unwrap();
    assert!(!stray.is_alive());
}

#[tokio::test]
async fn what_a_check_leaves_behind_ends_with_the_run_without_a_group_too() {
    let stage = Stage::new();
    let script = "until test -e go; do sleep 0.02; done; exec sleep 600";
    let mut service = checked(script, &format!("test -e go || exit 1; {STRAY}"));
    if let Some(healthcheck) = &mut service.healthcheck {
        healthcheck.retries = Some(1_000_000);
    }
    stage.up(service).await.unwrap();
    if let Some(group) = stage.record("web").group() {
        // What is in it goes up, and it is no more.
        let above = group.path().parent().unwrap().join("cgroup.procs");
        while group.path().is_dir() {
            for id in group.members() {
                drop(std::fs::write(&above, id.pid.to_string()));
            }
            drop(group.remove());
        }
    }
    std::fs::write(stage.root.path().join("go"), "").unwrap();
    let stray = stray(&stage).await;
    assert!(stray.is_alive());
    stage.stop("web", None).await.unwrap();
    assert!(!stray.is_alive());
}
