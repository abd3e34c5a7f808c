//! All that a service writes is recorded, in order, with the last lines before its end.

use wharf::backend::LogOptions;
use wharf::event::Stream;

use crate::stage::{Stage, exited, shell};

#[tokio::test]
async fn every_line_is_there_in_order_up_to_the_last() {
    let mut stage = Stage::new();
    let script = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; printf 'no end'";
    stage.up(shell("web", script)).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    assert_eq!(stage.instance("web").await.status, exited(0));
    let lines = stage.lines("web", LogOptions::default()).await;
    let wanted: Vec<_> = (0..5000)
        .map(|i| format!("line {i}"))
        .chain(["no end".to_owned()])
        .map(|line| (Stream::Stdout, line))
        .collect();
    assert!(lines == wanted, "{} lines", lines.len());
}

#[tokio::test]
async fn both_streams_are_told_apart() {
    let mut stage = Stage::new();
    stage
        .up(shell("web", "echo out; echo err >&2; exit 3"))
        .await
        .unwrap();
    assert_eq!(stage.exit_code("web").await, 3);
    let mut lines = stage.lines("web", LogOptions::default()).await;
    lines.sort();
    assert_eq!(
        lines,
        [
            (Stream::Stdout, "out".to_owned()),
            (Stream::Stderr, "err".to_owned())
        ]
    );
}

#[tokio::test]
async fn a_service_may_open_its_own_standard_output_by_name() {
    let mut stage = Stage::new();
    stage
        .up(shell("web", "echo one; echo two > /dev/stdout; echo three"))
        .await
        .unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let lines = stage.lines("web", LogOptions::default()).await;
    let text: Vec<_> = lines.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(text, ["one", "two", "three"]);
}
