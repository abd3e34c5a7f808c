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

/// Whether any of its threads goes on; the supervisor that inherits it collects it when it comes to that.
fn lives(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().any(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|rest| !rest.starts_with(['Z', 'X']))
    })
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
async fn one_that_has_left_its_session_ends_with_the_run() {
    // Known by its parent, the keeper, and without that by the run id in its environment.
    let escapes = [("env -i \"PATH=$PATH\"", false), ("env", true)];
    for (environment, loses_keeper) in escapes {
        let stage = Stage::new();
        let escape = format!("(exec {environment} setsid python3 -c \"$1\") &");
        let mut web = shell("web", &format!("{escape} echo escapee $!; exec sleep 600"));
        let words = ["sh".to_owned(), PROGRAM.to_owned()];
        web.command.as_mut().unwrap().extend(words);
        stage.up(web).await.unwrap();
        let line = stage.line("web", "escapee ").await;
        let pid = line.rsplit(' ').next().unwrap().parse().unwrap();
        until_leaderless(pid).await;
        if loses_keeper {
            stage.kill_keeper("web");
        }
        stage.stop("web", Some(Duration::ZERO)).await.unwrap();
        assert!(!lives(pid), "{environment}");
    }
}

#[tokio::test]
async fn its_memory_and_its_words_are_those_of_a_living_thread() {
    let stage = Stage::new();
    stage
        .up(command("web", &["python3", "-c", PROGRAM]))
        .await
        .unwrap();
    let web = stage.instance("web").await;
    until_leaderless(web.pid.unwrap()).await;
    let processes = stage.another();
    let usage = processes.usage(&[&web]).unwrap().remove(0).unwrap();
    assert!(usage.memory > 1 << 20, "{usage:?}");
    let top = processes.top(&[&web]).unwrap().remove(0).unwrap();
    let row = &top.rows[0];
    assert!(row[7].starts_with("python3 -c import"), "{row:?}");
    stage.stop("web", Some(Duration::ZERO)).await.unwrap();
    stage.remove("web").await.unwrap();
}
