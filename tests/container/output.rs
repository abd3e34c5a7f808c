//! Output of containers as events.

use std::time::Duration;

use wharf::backend::{Backend, LogOptions};
use wharf::event::{Event, Stream};
use wharf::plan::step::Action;
use wharf::project::model::Restart;

use crate::engine::{docker, lab};

/// Lines with their stream, and ends with their code, of one instance.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Out(String),
    Err(String),
    Exited(i32),
}

fn told(events: Vec<Event>, instance: &str) -> Vec<Told> {
    events
        .into_iter()
        .filter_map(|event| {
            if let Event::Log {
                name, stream, line, ..
            } = event
            {
                let line = String::from_utf8(line).unwrap();
                let one = match stream {
                    Stream::Stdout => Told::Out(line),
                    Stream::Stderr => Told::Err(line),
                };
                (name == instance).then_some(one)
            } else if let Event::Exited { name, code, .. } = event {
                (name == instance).then_some(Told::Exited(code))
            } else {
                None
            }
        })
        .collect()
}

fn out(line: &str) -> Told {
    Told::Out(line.to_owned())
}

#[tokio::test]
async fn lines_come_by_stream_and_the_end_after_them() {
    let mut lab = lab!();
    lab.default_network().await;
    let line = "sleep 0.5; echo one; sleep 0.2; echo two >&2; sleep 0.2; printf three; exit 4";
    let spec = lab.spec(lab.shell("web", line));
    let name = spec.name.clone();
    lab.up(spec).await.unwrap();
    let seen = lab.observe().await;
    lab.told();
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    lab.containers
        .follow(&seen, &options, &lab.events)
        .await
        .unwrap();
    assert_eq!(
        told(lab.told(), &name),
        [
            out("one"),
            Told::Err("two".to_owned()),
            out("three"),
            Told::Exited(4)
        ]
    );

    // What is over is told without news of its end, unless that is in the time asked for.
    let seen = lab.observe().await;
    let since = LogOptions {
        since: Some(seen[0].started.unwrap() * 1_000_000_000),
        ..options.clone()
    };
    lab.containers
        .follow(&seen, &since, &lab.events)
        .await
        .unwrap();
    assert_eq!(told(lab.told(), &name).pop(), Some(Told::Exited(4)));
    lab.containers
        .follow(&seen, &options, &lab.events)
        .await
        .unwrap();
    let again = told(lab.told(), &name);
    assert_eq!(again.len(), 3);
    let last = LogOptions {
        tail: Some(1),
        ..LogOptions::default()
    };
    lab.containers
        .follow(&seen, &last, &lab.events)
        .await
        .unwrap();
    assert_eq!(told(lab.told(), &name), [out("three")]);
}

#[tokio::test]
async fn a_span_of_time_is_kept_to_the_nanosecond() {
    let mut lab = lab!();
    lab.default_network().await;
    let spec = lab.spec(lab.shell("web", "for i in 1 2 3 4; do echo $i; sleep 0.01; done"));
    let name = spec.name.clone();
    let id = lab.up(spec).await.unwrap();
    let target = lab.target("web", &id);
    lab.perform(Action::AwaitCompleted { instance: target })
        .await
        .unwrap();
    let seen = lab.observe().await;
    lab.told();
    let all = LogOptions::default();
    lab.containers
        .follow(&seen, &all, &lab.events)
        .await
        .unwrap();
    let times: Vec<i64> = lab
        .told()
        .into_iter()
        .filter_map(|event| {
            let Event::Log { time, .. } = event else {
                return None;
            };
            Some(time)
        })
        .collect();
    assert_eq!(times.len(), 4);
    assert!(times.is_sorted());
    let span = LogOptions {
        since: Some(times[1]),
        until: Some(times[2]),
        ..LogOptions::default()
    };
    lab.containers
        .follow(&seen, &span, &lab.events)
        .await
        .unwrap();
    assert_eq!(told(lab.told(), &name), [out("2"), out("3")]);
}

#[tokio::test]
async fn a_line_longer_than_the_engine_s_messages_is_one_line() {
    let mut lab = lab!();
    lab.default_network().await;
    let line = "sleep 0.5; head -c 40000 /dev/zero | tr '\\0' x; echo; echo end";
    let spec = lab.spec(lab.shell("web", line));
    let name = spec.name.clone();
    lab.up(spec).await.unwrap();
    let seen = lab.observe().await;
    lab.told();
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    lab.containers
        .follow(&seen, &options, &lab.events)
        .await
        .unwrap();
    let told = told(lab.told(), &name);
    assert_eq!(
        told,
        [out(&"x".repeat(40_000)), out("end"), Told::Exited(0)]
    );
}

#[tokio::test]
async fn a_terminal_s_lines_lose_their_carriage_return() {
    let mut lab = lab!();
    lab.default_network().await;
    let mut service = lab.shell("web", "sleep 0.5; echo one; printf '\\001two\\n'");
    service.tty = true;
    let spec = lab.spec(service);
    let name = spec.name.clone();
    lab.up(spec).await.unwrap();
    let seen = lab.observe().await;
    lab.told();
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    lab.containers
        .follow(&seen, &options, &lab.events)
        .await
        .unwrap();
    let told = told(lab.told(), &name);
    assert_eq!(told, [out("one"), out("\u{1}two"), Told::Exited(0)]);
}

#[tokio::test]
async fn following_goes_on_over_restarts() {
    let mut lab = lab!();
    lab.default_network().await;
    let mut service = lab.shell("web", "echo run; exit 3");
    service.restart = Restart::OnFailure(Some(2));
    let spec = lab.spec(service);
    let name = spec.name.clone();
    lab.up(spec).await.unwrap();
    let seen = lab.observe().await;
    lab.told();
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    lab.containers
        .follow(&seen, &options, &lab.events)
        .await
        .unwrap();
    let told = told(lab.told(), &name);
    let runs = told.iter().filter(|one| **one == out("run")).count();
    assert_eq!(runs, 3, "{told:?}");
    assert_eq!(told.last(), Some(&Told::Exited(3)));
}

#[tokio::test]
async fn a_container_that_somebody_starts_again_is_followed_again() {
    let mut lab = lab!();
    lab.default_network().await;
    let spec = lab.spec(lab.shell("web", "echo run; sleep 60"));
    let name = spec.name.clone();
    let web = lab.up(spec).await.unwrap();
    // Keeps the following alive while the first is down.
    let other = lab
        .up(lab.spec(lab.shell("other", "sleep 60")))
        .await
        .unwrap();
    let seen = lab.observe().await;
    lab.told();
    let containers = lab.containers.clone();
    let events = lab.events.clone();
    let following = tokio::spawn(async move {
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        containers.follow(&seen, &options, &events).await
    });
    let mut all = Vec::new();
    for wanted in [out("run"), Told::Exited(137), out("run"), Told::Exited(137)] {
        let next = tokio::time::timeout(Duration::from_mins(1), async {
            loop {
                let event = lab.received.recv().await.expect("an event");
                if let Some(one) = told(vec![event], &name).pop() {
                    break one;
                }
            }
        });
        let next = next
            .await
            .unwrap_or_else(|_| panic!("{wanted:?} after {all:?}"));
        assert_eq!(next, wanted, "after {all:?}");
        match (&next, all.len()) {
            (Told::Out(_), _) => drop(docker(&["kill", &web.0])),
            (Told::Exited(_), 1) => drop(docker(&["start", &web.0])),
            (Told::Exited(_), _) => drop(docker(&["kill", &other.0])),
            (Told::Err(_), _) => {}
        }
        all.push(next);
    }
    following.await.unwrap().unwrap();
}
