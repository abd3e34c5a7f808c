//! What is asked of a log by time, and lines that are anything but text.

use std::collections::BTreeMap;

use wharf::backend::{Backend, LogOptions};
use wharf::event::{Event, Events};
use wharf::project::model::{Logging, Service};

use crate::stage::{Stage, shell};

/// The lines of a service with their times.
async fn timed(stage: &Stage, options: LogOptions) -> Vec<(i64, Vec<u8>)> {
    let instance = stage.instance("web").await;
    let (events, mut receiver) = Events::channel();
    stage
        .processes
        .follow(&[instance], &options, &events)
        .await
        .expect("a log that can be read");
    let mut lines = Vec::new();
    while let Ok(event) = receiver.try_recv() {
        if let Event::Log { time, line, .. } = event {
            lines.push((time, line));
        }
    }
    lines
}

#[tokio::test]
async fn a_span_of_time_is_found_across_rotations() {
    let stage = Stage::new();
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done";
    let service = Service {
        logging: Some(Logging {
            driver: None,
            options: BTreeMap::from([
                ("max-size".to_owned(), "2k".to_owned()),
                ("max-file".to_owned(), "50".to_owned()),
            ]),
        }),
        ..shell("web", script)
    };
    stage.up(service).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let all = timed(&stage, LogOptions::default()).await;
    assert_eq!(all.len(), 2000);
    assert!(all.is_sorted_by_key(|(time, _)| *time));
    // Each of these is in another segment.
    for (from, to) in [(0, 1999), (150, 1700), (700, 701), (1999, 1999)] {
        let (since, until) = (all[from].0, all[to].0);
        let span = LogOptions {
            since: Some(since),
            until: Some(until),
            ..LogOptions::default()
        };
        let expected: Vec<_> = all
            .iter()
            .filter(|(time, _)| (since..=until).contains(time))
            .cloned()
            .collect();
        assert!(expected.len() > to - from);
        assert_eq!(timed(&stage, span).await, expected, "{from} to {to}");
        let last = LogOptions {
            until: Some(until),
            tail: Some(100),
            ..LogOptions::default()
        };
        let before: Vec<_> = all.iter().filter(|(time, _)| *time <= until).collect();
        let found = timed(&stage, last).await;
        // The last hundred of the log are looked at, and those of them that are too late left out.
        assert!(found.iter().all(|line| before.contains(&line)));
    }
}

#[tokio::test]
async fn a_line_of_ten_megabytes_is_one_line() {
    let stage = Stage::new();
    let script =
        "echo before; head -c 10000000 /dev/zero | tr '\\0' x; echo; echo after; printf end";
    stage.up(shell("web", script)).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let lines = timed(&stage, LogOptions::default()).await;
    let lengths: Vec<usize> = lines.iter().map(|(_, line)| line.len()).collect();
    assert_eq!(lengths, [6, 10_000_000, 5, 3]);
    assert!(lines[1].1.iter().all(|byte| *byte == b'x'));
    let last = LogOptions {
        tail: Some(2),
        ..LogOptions::default()
    };
    assert_eq!(timed(&stage, last).await, lines[2..]);
}

#[tokio::test]
async fn bytes_that_are_no_text_come_back_as_they_were() {
    let stage = Stage::new();
    // Every byte but the line end.
    let script = "i=0; while [ $i -lt 256 ]; do \
                  [ $i = 10 ] || printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done; echo; printf '\\377'";
    stage.up(shell("web", script)).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let lines = timed(&stage, LogOptions::default()).await;
    let every: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    let text: Vec<Vec<u8>> = lines.into_iter().map(|(_, line)| line).collect();
    assert_eq!(text, [every, vec![255]]);
}
