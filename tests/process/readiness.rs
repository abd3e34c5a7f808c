//! Ready means that the instance itself has answered.

use std::net::SocketAddr;

use wharf::backend::BackendError;
use wharf::event::Event;
use wharf::state::{ProbeKind, Readiness};

use crate::stage::{Stage, command, free_port, shell};

fn answers(port: u16, timeout_ms: u64) -> Readiness {
    Readiness {
        probe: ProbeKind::Http { path: "/".into() },
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        target: port,
        timeout_ms,
    }
}

#[tokio::test]
async fn a_server_is_ready_when_it_answers() {
    let mut stage = Stage::new();
    let port = free_port();
    let argv = [
        "python3",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        &port.to_string(),
    ];
    stage.up(command("web", &argv)).await.unwrap();
    stage
        .await_ready("web", answers(port, 30_000))
        .await
        .unwrap();
    let event = stage.receiver.try_recv().unwrap();
    let Event::Ready { name, url, .. } = event else {
        panic!("{event:?}");
    };
    assert_eq!(name, "stage-web-1");
    assert_eq!(url, format!("http://127.0.0.1:{port}/"));
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn an_end_before_the_answer_is_an_error_with_the_last_lines() {
    let stage = Stage::new();
    stage
        .up(shell("web", "echo cannot bind >&2; exit 98"))
        .await
        .unwrap();
    let error = stage
        .await_ready("web", answers(free_port(), 600_000))
        .await
        .unwrap_err();
    let BackendError::ExitedEarly {
        code, last_lines, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(code, 98);
    assert_eq!(last_lines, ["cannot bind"]);
}

#[tokio::test]
async fn silence_is_an_error_that_says_what_was_found() {
    let stage = Stage::new();
    stage
        .up(shell("web", "echo here; exec sleep 600"))
        .await
        .unwrap();
    stage.line("web", "here").await;
    let error = stage
        .await_ready("web", answers(free_port(), 300))
        .await
        .unwrap_err();
    let BackendError::NotReady {
        last, last_lines, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(last, "nobody is listening");
    assert_eq!(last_lines, ["here"]);
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn a_server_on_another_port_is_told_from_none() {
    let stage = Stage::new();
    let port = free_port();
    let text = port.to_string();
    let argv = ["python3", "-m", "http.server", "--bind", "127.0.0.1", &text];
    stage.up(command("web", &argv)).await.unwrap();
    stage
        .await_ready("web", answers(port, 30_000))
        .await
        .unwrap();
    let elsewhere = free_port();
    let error = stage
        .await_ready("web", answers(elsewhere, 300))
        .await
        .unwrap_err();
    let BackendError::NotReady { last, .. } = error else {
        panic!("{error}");
    };
    let wanted = format!("nobody listens on 127.0.0.1:{elsewhere}; it listens on 127.0.0.1:{port}");
    assert_eq!(last, wanted);
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn the_answer_of_another_process_does_not_count() {
    let stage = Stage::new();
    let port = free_port();
    let argv = [
        "python3",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        &port.to_string(),
    ];
    stage.up(command("other", &argv)).await.unwrap();
    stage
        .await_ready("other", answers(port, 30_000))
        .await
        .unwrap();
    let other = stage.instance("other").await.pid.unwrap();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let error = stage
        .await_ready("web", answers(port, 500))
        .await
        .unwrap_err();
    let BackendError::AnsweredByOther { who, .. } = error else {
        panic!("{error}");
    };
    assert!(who.starts_with(&format!("pid {other} (python3 ")), "{who}");
    stage.stop("web", None).await.unwrap();
    stage.stop("other", None).await.unwrap();
}
