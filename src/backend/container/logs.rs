//! Output of containers as events: what is there, and what comes.
//!
//! Following goes on over restarts of the same container and ends when all have ended. Lines of one
//! instance, and its end after them, are told in their order.

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt, TryStreamExt};
use serde_json::Value;

use super::fault::is_missing;
use super::lines::{Line, Lines};
use super::{Containers, Engine, observe, ready};
use crate::backend::{BackendError, LogOptions};
use crate::event::{Event, Events};
use crate::state::{Instance, Status};

const SECOND: i64 = 1_000_000_000;

/// Tells the lines of these containers; with `follow`, until all have ended.
pub(super) async fn follow(
    containers: &Containers,
    instances: &[Instance],
    options: &LogOptions,
    events: &Events,
) -> Result<(), BackendError> {
    if instances.is_empty() {
        return Ok(());
    }
    let engine = containers.engine().await?;
    let done = if options.follow && options.until.is_none() {
        Following {
            engine,
            instances,
            options,
            events,
        }
        .run()
        .await
    } else {
        let all: FuturesUnordered<_> = instances
            .iter()
            .map(|instance| {
                let span = Span::onwards(options, options.follow, &instance.name);
                async move {
                    tell(engine, instance, span, events).await?;
                    Ok::<(), Error>(())
                }
            })
            .collect();
        all.try_collect::<()>().await
    };
    done.map_err(|error| engine.refused("read the output of containers", error))
}

/// How much earlier than its start a container may write: the engine notes the start when it has happened.
const EARLY: i64 = SECOND / 2;

/// The last `n` lines of a container, both outputs: of its last run, where that wrote anything.
pub(super) async fn last_lines(engine: &Engine, id: &str, n: u64) -> Result<Vec<String>, Error> {
    let started = match observe::inspect(engine, id).await? {
        Some(container) => container.state.started_at.parse::<jiff::Timestamp>().ok(),
        None => None,
    };
    let since = started.and_then(|started| i64::try_from(started.as_nanosecond()).ok());
    let since = since.map(|since| since.saturating_sub(EARLY));
    let found = tail(engine, id, n, since).await?;
    if found.is_empty() && since.is_some() {
        return tail(engine, id, n, None).await;
    }
    Ok(found)
}

async fn tail(engine: &Engine, id: &str, n: u64, since: Option<i64>) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let span = Span {
        tail: Some(n),
        since,
        ..Span::default()
    };
    read(engine, id, span, |line| {
        found.push(String::from_utf8_lossy(&line.bytes).into_owned());
    })
    .await?;
    Ok(found)
}

/// Which part of a container's output.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    follow: bool,
    tail: Option<u64>,
    /// Nothing earlier.
    since: Option<i64>,
    /// Nothing that was told already: nothing up to here.
    after: Option<i64>,
    /// Nothing later.
    until: Option<i64>,
    /// It was asked for before; what went wrong then was said then.
    again: bool,
}

impl Span {
    pub(super) fn of(options: &LogOptions, follow: bool) -> Self {
        Self {
            follow,
            tail: options.tail,
            since: options.since,
            after: None,
            until: options.until,
            again: false,
        }
    }

    /// Without what was told of this container already.
    fn onwards(options: &LogOptions, follow: bool, name: &str) -> Self {
        let Some(told) = options.told.get(name) else {
            return Self::of(options, follow);
        };
        Self {
            after: Some(*told),
            tail: None,
            again: true,
            ..Self::of(options, follow)
        }
    }

    /// The engine counts whole seconds and may send a little too much.
    pub(super) fn contains(&self, time: i64) -> bool {
        self.since.is_none_or(|since| time >= since)
            && self.after.is_none_or(|after| time > after)
            && self.until.is_none_or(|until| time <= until)
    }
}

/// What the engine has of a container's output.
pub(super) fn messages(
    engine: &Engine,
    id: &str,
    span: Span,
) -> impl Stream<Item = Result<LogOutput, Error>> + Send + use<> {
    let seconds = |time: i64| i32::try_from(time).unwrap_or(i32::MAX);
    let from = span.since.max(span.after);
    let tail = span
        .tail
        .map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let mut options = LogsOptionsBuilder::new()
        .follow(span.follow)
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .tail(&tail);
    if let Some(from) = from {
        options = options.since(seconds(from.div_euclid(SECOND)));
    }
    if let Some(until) = span.until {
        options = options.until(seconds(until.div_euclid(SECOND) + 1));
    }
    engine.docker.logs(id, Some(options.build()))
}

/// Reads lines until the engine ends the stream; returns the time of the last one.
async fn read(
    engine: &Engine,
    id: &str,
    span: Span,
    mut each: impl FnMut(Line),
) -> Result<Option<i64>, Error> {
    let mut messages = std::pin::pin!(messages(engine, id, span));
    let mut lines = Lines::default();
    let mut last = None;
    let mut pass = |line: Line| {
        last = last.max(Some(line.time));
        if span.contains(line.time) {
            each(line);
        }
    };
    while let Some(message) = messages.try_next().await? {
        lines.push(&message).into_iter().for_each(&mut pass);
    }
    lines.rest().for_each(pass);
    Ok(last)
}

/// Tells the lines of one container. A container without readable output has none.
async fn tell(
    engine: &Engine,
    instance: &Instance,
    span: Span,
    events: &Events,
) -> Result<Option<i64>, Error> {
    let told = read(engine, &instance.id.0, span, |line| {
        events.send(Event::Log {
            name: instance.name.clone(),
            stream: line.stream,
            time: line.time,
            line: line.bytes,
        });
    });
    match told.await {
        Ok(last) => Ok(last.max(span.after)),
        Err(error) if is_missing(&error) => Ok(span.after),
        Err(Error::DockerResponseServerError { .. }) if span.again => Ok(span.after),
        Err(Error::DockerResponseServerError { message, .. }) => {
            let line = format!("{}: no output to show: {message}", instance.name);
            events.send(Event::Warning(line));
            Ok(span.after)
        }
        Err(error) => Err(error),
    }
}

/// What became of a container whose output has ended.
enum Outcome {
    /// It ended.
    Ended(i32),
    /// It ended and will be started again by its restart policy.
    Restarting(i32),
    /// It runs again already.
    RunsAgain(Option<i32>),
    /// It never ran.
    NotStarted,
    /// It was removed.
    Gone,
}

/// Following several containers.
struct Following<'a> {
    engine: &'a Engine,
    instances: &'a [Instance],
    options: &'a LogOptions,
    events: &'a Events,
}

/// How far one container is.
#[expect(
    clippy::struct_excessive_bools,
    reason = "four facts, each learnt at another moment"
)]
#[derive(Clone, Copy)]
struct Progress {
    /// The time of the last line told.
    last: Option<i64>,
    /// Its output is being read.
    reading: bool,
    /// It was started while its output was being read.
    started: bool,
    /// It will say nothing more unless somebody starts it.
    ended: bool,
    /// Its next end is news.
    lived: bool,
}

impl Progress {
    /// A run's output is going to be read.
    fn begin(&mut self) {
        self.reading = true;
        self.started = false;
        self.ended = false;
        self.lived = true;
    }
}

impl Following<'_> {
    async fn run(&self) -> Result<(), Error> {
        let ids: Vec<&str> = self
            .instances
            .iter()
            .map(|instance| instance.id.0.as_str())
            .collect();
        let changes = ready::changes(self.engine, &ids, &["start", "destroy"]).await?;
        let mut changes = std::pin::pin!(changes.fuse());
        let mut progress: Vec<Progress> = self
            .instances
            .iter()
            .map(|instance| Progress {
                last: None,
                reading: true,
                started: false,
                ended: false,
                lived: self.lived(instance),
            })
            .collect();
        let mut reading: FuturesUnordered<_> = (0..self.instances.len())
            .map(|which| {
                let name = &self.instances[which].name;
                self.one(which, Span::onwards(self.options, true, name))
            })
            .collect();
        while progress.iter().any(|one| !one.ended) {
            tokio::select! {
                // The end of a run is told before the start of the next.
                biased;
                Some(done) = reading.next() => {
                    let (which, last, outcome) = done?;
                    let one = &mut progress[which];
                    one.last = last;
                    one.reading = false;
                    if self.settle(which, &outcome, one) || one.started {
                        one.begin();
                        reading.push(self.one(which, self.onwards(last)));
                    }
                }
                Some(change) = changes.next() => {
                    let change = change?;
                    let Some(which) = self.about(&change) else { continue };
                    let started = change["Action"].as_str() == Some("start");
                    let one = &mut progress[which];
                    if one.reading {
                        one.started |= started;
                    } else if started {
                        one.begin();
                        let span = self.onwards(one.last);
                        reading.push(self.one(which, span));
                    } else {
                        one.ended = true;
                    }
                }
                else => break,
            }
        }
        Ok(())
    }

    /// Whether the end of an instance is news: it lived when it was observed, or it ended within the
    /// time that is asked for.
    fn lived(&self, instance: &Instance) -> bool {
        let ended = matches!(instance.status, Status::Exited { .. } | Status::Dead);
        let since = self.options.since.map(|since| since.div_euclid(SECOND));
        !ended || since.is_some_and(|since| instance.finished >= Some(since))
    }

    /// From the last line told, or from now on as far as the options allow.
    fn onwards(&self, last: Option<i64>) -> Span {
        Span {
            after: last,
            tail: if last.is_some() {
                None
            } else {
                self.options.tail
            },
            ..Span::of(self.options, true)
        }
    }

    fn about(&self, change: &Value) -> Option<usize> {
        let id = change["Actor"]["ID"].as_str()?;
        self.instances
            .iter()
            .position(|instance| instance.id.0 == id)
    }

    /// Reads one container's output until it ends, and finds out why it did.
    async fn one(&self, which: usize, span: Span) -> Result<(usize, Option<i64>, Outcome), Error> {
        let instance = &self.instances[which];
        let before = observe::inspect(self.engine, &instance.id.0).await?;
        let Some(before) = before else {
            return Ok((which, span.after, Outcome::Gone));
        };
        let mut last = tell(self.engine, instance, span, self.events).await?;
        loop {
            // A stream that follows may end before the last lines came.
            let rest = Span {
                after: last,
                follow: false,
                again: true,
                tail: if last.is_some() { None } else { span.tail },
                ..span
            };
            last = tell(self.engine, instance, rest, self.events).await?;
            let Some(now) = observe::inspect(self.engine, &instance.id.0).await? else {
                return Ok((which, last, Outcome::Gone));
            };
            let code = observe::exit_code(&now.state);
            let outcome = match observe::status(&now.state) {
                Status::Created => Outcome::NotStarted,
                Status::Restarting => Outcome::Restarting(code),
                Status::Exited { .. } | Status::Dead | Status::Removing => Outcome::Ended(code),
                Status::Running | Status::Paused
                    if now.state.started_at != before.state.started_at =>
                {
                    let began = &before.state.started_at;
                    let code = ready::end_since(self.engine, &instance.id.0, began).await?;
                    Outcome::RunsAgain(code)
                }
                // The output ended before the container did, or it cannot be read.
                Status::Running | Status::Paused => {
                    ready::next_end(self.engine, &instance.id.0).await?;
                    continue;
                }
            };
            return Ok((which, last, outcome));
        }
    }

    /// Tells how a run ended; whether to go on reading at once.
    fn settle(&self, which: usize, outcome: &Outcome, one: &mut Progress) -> bool {
        let instance = &self.instances[which];
        let tell = |code: i32, restarts: bool| {
            self.events.send(Event::Exited {
                name: instance.name.clone(),
                service: instance.service.clone(),
                code,
                restarts,
            });
        };
        match outcome {
            Outcome::Ended(code) => {
                if one.lived {
                    tell(*code, false);
                }
                one.ended = true;
                one.lived = false;
                false
            }
            Outcome::Restarting(code) => {
                tell(*code, true);
                false
            }
            Outcome::RunsAgain(code) => {
                if let Some(code) = code {
                    tell(*code, true);
                }
                true
            }
            Outcome::NotStarted => false,
            Outcome::Gone => {
                one.ended = true;
                false
            }
        }
    }
}
