//! The supervisor is killed at many points of a start and of a stop; each time the system itself is asked
//! how many instances there are.

use std::time::Duration;

use wharf::plan::step::Action;
use wharf::state::Status;

use crate::stage::{Stage, command, name};

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
        stage.up(crate::stage::shell("web", script)).await.unwrap();
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
