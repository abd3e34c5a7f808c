//! Restart policies on real processes; the rules themselves are tested in `supervise::lifecycle`.

use wharf::backend::LogOptions;
use wharf::project::model::Restart;

use crate::stage::{Stage, exited, shell};

#[tokio::test]
async fn a_failure_is_tried_again_as_often_as_the_policy_says() {
    let mut stage = Stage::new();
    let mut service = shell("web", "echo try; exit 3");
    service.restart = Restart::OnFailure(Some(2));
    let first = stage.up(service).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 3);
    let instance = stage.instance("web").await;
    assert_eq!(instance.status, exited(3));
    assert_ne!(instance.id, first, "every start is a run of its own");
    assert_eq!(stage.lines("web", LogOptions::default()).await.len(), 3);
}

#[tokio::test]
async fn the_pacing_of_the_deploy_section_is_kept() {
    let mut stage = Stage::new();
    let mut service = shell("web", "echo try");
    service.restart = Restart::Always;
    service.restart_pacing = wharf::project::model::RestartPacing {
        delay: Some(std::time::Duration::from_millis(1)),
        window: None,
        attempts: Some(3),
    };
    stage.up(service).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    assert_eq!(stage.lines("web", LogOptions::default()).await.len(), 4);
}

#[tokio::test]
async fn success_ends_a_policy_of_failures() {
    let mut stage = Stage::new();
    let mut service = shell(
        "web",
        "echo try; [ -e second ] || { touch second; exit 1; }",
    );
    service.restart = Restart::OnFailure(None);
    stage.up(service).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    assert_eq!(stage.lines("web", LogOptions::default()).await.len(), 2);
}

#[tokio::test]
async fn a_signal_to_one_that_waits_for_its_restart_ends_that() {
    let stage = Stage::new();
    let mut service = shell("web", "exit 1");
    service.restart = Restart::Always;
    service.restart_pacing = wharf::project::model::RestartPacing {
        delay: Some(std::time::Duration::from_hours(1)),
        window: None,
        attempts: None,
    };
    stage.up(service).await.unwrap();
    while stage.instance("web").await.status != wharf::state::Status::Restarting {
        tokio::task::yield_now().await;
    }
    let term = rustix::process::Signal::TERM.as_raw();
    let processes = &stage.processes;
    processes.kill("stage", "stage-web-1", term).await.unwrap();
    assert_eq!(stage.instance("web").await.status, exited(1));
}

#[tokio::test]
async fn stopping_ends_every_policy() {
    let stage = Stage::new();
    let mut service = shell("web", "exit 1");
    service.restart = Restart::Always;
    stage.up(service).await.unwrap();
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.instance("web").await.status, exited(1));
    assert_eq!(stage.exit_code("web").await, 1);
}
