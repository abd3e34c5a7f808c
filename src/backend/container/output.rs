//! Output of one container as a stream that reads only as far as it is asked.

use std::collections::VecDeque;
use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::errors::Error;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use super::fault::is_missing;
use super::lines::{Line, Lines};
use super::logs::{Span, messages};
use super::{Containers, Engine};
use crate::backend::merge::Output;
use crate::backend::{BackendError, LogOptions};
use crate::event::Event;
use crate::state::Instance;

struct Reading<'a> {
    engine: &'a Engine,
    name: &'a str,
    span: Span,
    messages: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send + 'a>>,
    lines: Lines,
    ready: VecDeque<Line>,
    over: bool,
    /// A last line without its end is left to whoever follows.
    is_followed: bool,
}

impl Containers {
    /// The lines of a container that are there now; the last one only if it is whole or nobody follows. A container
    /// without readable output has a warning.
    pub fn output<'a>(&'a self, instance: &'a Instance, options: &LogOptions) -> Output<'a> {
        let (span, is_followed) = (Span::of(options, false), options.follow);
        let opened = stream::once(async move {
            let engine = self.engine().await?;
            let reading = Reading {
                engine,
                name: &instance.name,
                span,
                messages: Box::pin(messages(engine, &instance.id.0, span)),
                lines: Lines::default(),
                ready: VecDeque::new(),
                over: false,
                is_followed,
            };
            Ok::<_, BackendError>(stream::try_unfold(reading, |mut reading| async move {
                let next = reading.next().await?;
                Ok::<_, BackendError>(next.map(|event| (event, reading)))
            }))
        });
        Box::pin(opened.try_flatten())
    }
}

impl Reading<'_> {
    async fn next(&mut self) -> Result<Option<Event>, BackendError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(Event::Log {
                    name: self.name.to_owned(),
                    stream: line.stream,
                    time: line.time,
                    line: line.bytes,
                }));
            }
            if self.over {
                return Ok(None);
            }
            let found = match self.messages.next().await {
                Some(Ok(message)) => self.lines.push(&message),
                None => {
                    self.over = true;
                    if self.is_followed {
                        return Ok(None);
                    }
                    self.lines.rest().collect()
                }
                Some(Err(error)) if is_missing(&error) => return Ok(None),
                Some(Err(Error::DockerResponseServerError { message, .. })) => {
                    self.over = true;
                    let line = format!("{}: no output to show: {message}", self.name);
                    return Ok(Some(Event::Warning(line)));
                }
                Some(Err(error)) => {
                    return Err(self.engine.refused("read the output of containers", error));
                }
            };
            let span = self.span;
            self.ready
                .extend(found.into_iter().filter(|line| span.contains(line.time)));
        }
    }
}
