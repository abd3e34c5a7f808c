//! A log with a limit goes on in a new file; readers see one log.

use std::collections::BTreeMap;

use wharf::backend::{Backend as _, LogOptions};
use wharf::event::{Event, Events};
use wharf::project::model::{Logging, Service};

use crate::stage::{PROJECT, Stage, name, shell};

fn limited(script: &str, size: &str, files: &str) -> Service {
    let options = [("max-size", size), ("max-file", files)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    Service {
        logging: Some(Logging {
            driver: None,
            options: BTreeMap::from(options),
        }),
        ..shell("web", script)
    }
}

fn segments(stage: &Stage) -> Vec<u64> {
    let project = stage.dirs().project(PROJECT).expect("a project's name");
    let instance = project.instance(&name("web")).expect("an instance's name");
    instance.segments().expect("a directory that can be read")
}

#[tokio::test]
async fn what_is_kept_is_read_as_one_log_up_to_the_last_line() {
    let mut stage = Stage::new();
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done";
    stage.up(limited(script, "4k", "3")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let kept = segments(&stage);
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(kept[0] > 0);
    let lines = stage.lines("web", LogOptions::default()).await;
    assert!(lines.len() > 700 && lines.len() < 1500, "{}", lines.len());
    let first = 2000 - lines.len();
    for (at, (_, line)) in lines.iter().enumerate() {
        assert_eq!(line, &format!("line {}", first + at));
    }
    // More than the last file holds.
    let tail = LogOptions {
        tail: Some(600),
        ..LogOptions::default()
    };
    assert_eq!(stage.lines("web", tail).await, lines[lines.len() - 600..]);
}

#[tokio::test]
async fn a_follower_goes_on_across_files_and_restarts_of_the_supervisor() {
    let stage = Stage::new();
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); \
                  if [ $((i % 300)) = 0 ]; then while [ ! -e go$i ]; do sleep 0.01; done; fi; done";
    stage.up(limited(script, "4k", "20")).await.unwrap();
    for round in 1..=10 {
        stage
            .line("web", &format!("line {}", round * 300 - 1))
            .await;
        if round % 4 == 0 {
            stage.kill_supervisor();
        }
        let go = stage.root.path().join(format!("go{}", round * 300));
        std::fs::write(go, "").unwrap();
    }
    assert_eq!(stage.exit_code("web").await, 0);
    assert!(segments(&stage).len() > 5);
}

#[tokio::test]
async fn a_follower_that_is_too_slow_says_that_lines_are_gone() {
    let stage = Stage::new();
    let script = "echo begin; while [ ! -e go ]; do sleep 0.01; done; \
                  i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; echo end";
    stage.up(limited(script, "4k", "3")).await.unwrap();
    let instances = [stage.instance("web").await];
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let (events, mut receiver) = Events::channel();
    let processes = stage.another();
    let mut following = std::pin::pin!(processes.follow(&instances, &options, &events));
    let mut told = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(event) = receiver.recv() => {
                if told.is_empty() {
                    // It reads nothing meanwhile.
                    std::fs::write(stage.root.path().join("go"), "").unwrap();
                    assert_eq!(stage.exit_code("web").await, 0);
                }
                told.push(event);
            }
            outcome = &mut following => break outcome.unwrap(),
        }
    }
    while let Ok(event) = receiver.try_recv() {
        told.push(event);
    }
    let is_warning = |event: &&Event| matches!(event, Event::Warning(_));
    assert_eq!(told.iter().filter(is_warning).count(), 1);
    let Some(Event::Warning(said)) = told.iter().find(is_warning) else {
        unreachable!("counted above");
    };
    assert_eq!(
        said,
        "lines of stage-web-1 were rotated away before they could be shown"
    );
    // Where it stands: behind what was read before, in front of what is still there.
    assert!(matches!(&told[0], Event::Log { line, .. } if line == b"begin"));
    assert!(!matches!(&told[told.len() - 1], Event::Warning(_)));
}
