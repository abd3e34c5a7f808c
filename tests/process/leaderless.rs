//! A process lives as long as any of its threads does, whatever has become of the first one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use wharf::state::Status;

use crate::stage::{Stage, command, shell};

/// A program whose first thread ends at once, while another one goes on.
const PROGRAM: &str = "import ctypes, threading, time
def go_on():
    while True: time.sleep(0.02)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).pthread_exit(None)
";

/// Waits until the first thread of a process has ended.
async fn until_leaderless(pid: u32) {
    let has_ended = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.starts_with(" Z"))
    };
    while !has_ended() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_service_lives_and_ends_as_a_whole() {
    let kills: [fn(&Stage); 3] = [
        |_| {},
        Stage::kill_supervisor,
        |stage| stage.kill_keeper("web"),
    ];
    for kill in kills {
        let stage = Stage::new();
        stage
            .up(command("web", &["python3", "-c", PROGRAM]))
            .await
            .unwrap();
        let pid = stage.instance("web").await.pid.unwrap();
        until_leaderless(pid).await;
        kill(&stage);
        let web = stage.instance("web").await;
        assert_eq!((web.status, web.pid), (Status::Running, Some(pid)));
        assert!(!web.ending);
        stage.stop("web", Some(Duration::ZERO)).await.unwrap();
        assert!(!is_there(pid));
        stage.remove("web").await.unwrap();
    }
}

#[tokio::test]
async fn one_that_has_left_its_session_and_its_environment_ends_with_the_run() {
    let stage = Stage::new();
    let script = "env -i \"PATH=$PATH\" setsid python3 -c \"$1\" & echo escapee $!; exec sleep 600";
    let mut web = shell("web", script);
    web.command
        .as_mut()
        .unwrap()
        .extend(["sh".to_owned(), PROGRAM.to_owned()]);
    stage.up(web).await.unwrap();
    let line = stage.line("web", "escapee ").await;
    let pid = line.rsplit(' ').next().unwrap().parse().unwrap();
    until_leaderless(pid).await;
    stage.stop("web", Some(Duration::ZERO)).await.unwrap();
    assert!(!is_there(pid));
}
