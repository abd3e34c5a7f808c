//! Reading logs: the tail, a span of time, and following.

use wharf::backend::{Backend, LogOptions};
use wharf::event::{Event, Events};

use crate::stage::{Stage, shell};

fn text(lines: Vec<(wharf::event::Stream, String)>) -> Vec<String> {
    lines.into_iter().map(|(_, line)| line).collect()
}

#[tokio::test]
async fn the_tail_is_the_last_lines() {
    let mut stage = Stage::new();
    stage.up(shell("web", "seq 1 1000")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let options = LogOptions {
        tail: Some(3),
        ..LogOptions::default()
    };
    let lines = text(stage.lines("web", options).await);
    assert_eq!(lines, ["998", "999", "1000"]);
}

#[tokio::test]
async fn following_delivers_what_is_written_meanwhile_and_the_end() {
    let stage = Stage::new();
    let script = "echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; exit 4";
    stage.up(shell("web", script)).await.unwrap();
    let instances = [stage.instance("web").await];
    let (events, mut receiver) = Events::channel();
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let another = stage.another();
    let following = another.follow(&instances, &options, &events);
    let mut seen = Vec::new();
    let watching = async {
        while let Some(event) = receiver.recv().await {
            if let Event::Exited { code, .. } = event {
                seen.push(format!("exit {code}"));
                break;
            }
            let Event::Log { line, .. } = event else {
                panic!("{event:?}");
            };
            let line = String::from_utf8(line).unwrap();
            if line == "one" {
                std::fs::write(stage.root.path().join("go"), "").unwrap();
            }
            seen.push(line);
        }
    };
    let (outcome, ()) = tokio::join!(following, watching);
    outcome.unwrap();
    assert_eq!(seen, ["one", "two", "exit 4"]);
}

#[tokio::test]
async fn a_span_of_time_is_respected() {
    let mut stage = Stage::new();
    stage
        .up(shell(
            "web",
            "echo early; while [ ! -e go ]; do sleep 0.02; done; echo late",
        ))
        .await
        .unwrap();
    stage.line("web", "early").await;
    let between = wharf::backend::process::run::wall_clock();
    std::fs::write(stage.root.path().join("go"), "").unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let since = LogOptions {
        since: Some(between),
        ..LogOptions::default()
    };
    assert_eq!(text(stage.lines("web", since).await), ["late"]);
    let until = LogOptions {
        until: Some(between),
        ..LogOptions::default()
    };
    assert_eq!(text(stage.lines("web", until).await), ["early"]);
}

#[tokio::test]
async fn lines_of_ten_megabytes_and_binary_output_arrive_whole() {
    let stage = Stage::new();
    let script = "head -c 10000000 /dev/zero; echo; printf '\\377\\000\\n'";
    stage.up(shell("web", script)).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let instances = [stage.instance("web").await];
    let (events, mut receiver) = Events::channel();
    stage
        .processes
        .follow(&instances, &LogOptions::default(), &events)
        .await
        .unwrap();
    let mut lines = Vec::new();
    while let Ok(event) = receiver.try_recv() {
        if let Event::Log { line, .. } = event {
            lines.push(line);
        }
    }
    assert_eq!(lines.len(), 2);
    assert!(lines[0].len() == 10_000_000 && lines[0].iter().all(|byte| *byte == 0));
    assert_eq!(lines[1], [0xff, 0]);
}

#[tokio::test]
async fn a_new_instance_of_the_same_name_has_a_log_of_its_own() {
    let mut stage = Stage::new();
    stage.up(shell("web", "echo first")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    stage.up(shell("web", "echo second")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let lines = text(stage.lines("web", LogOptions::default()).await);
    assert_eq!(lines, ["second"]);
    // Starting it again goes on with the same log.
    stage.start("web").await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let lines = text(stage.lines("web", LogOptions::default()).await);
    assert_eq!(lines, ["second", "second"]);
}
