//! A service with `tty` has a terminal of its own, and one with `stdin_open` reads what is typed.

use std::io::Write;

use crate::stage::{PROJECT, Stage, name, shell};

/// Types into a service.
fn type_into(stage: &Stage, service: &str, text: &str) {
    let project = stage.dirs().project(PROJECT).expect("a project's name");
    let path = project
        .instance(&name(service))
        .expect("an instance's name")
        .stdin();
    let mut pipe = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a pipe that is read");
    pipe.write_all(text.as_bytes()).expect("a reader");
}

#[tokio::test]
async fn a_terminal_shows_what_is_typed_and_what_is_answered() {
    let stage = Stage::new();
    let mut service = shell(
        "web",
        "test -t 0 && test -t 1 && test -t 2 && echo terminal; read line; echo got $line; exit 4",
    );
    service.tty = true;
    service.stdin_open = true;
    stage.up(service).await.unwrap();
    stage.line("web", "terminal").await;
    stage.kill_supervisor();
    type_into(&stage, "web", "hello\n");
    assert_eq!(stage.line("web", "got ").await, "hello");
    assert_eq!(stage.exit_code("web").await, 4);
}

#[tokio::test]
async fn an_open_standard_input_stays_open_between_two_who_type() {
    let stage = Stage::new();
    let mut service = shell(
        "web",
        "while read line; do echo got $line; done; echo closed",
    );
    service.stdin_open = true;
    stage.up(service).await.unwrap();
    for line in ["one", "two"] {
        type_into(&stage, "web", &format!("{line}\n"));
        stage.line("web", &format!("got {line}")).await;
    }
    assert!(stage.instance("web").await.status.is_alive());
    stage.stop("web", None).await.unwrap();
}
