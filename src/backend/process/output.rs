//! Output of one instance as a stream that reads only as far as it is asked.

use std::collections::VecDeque;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::dirs::{InstanceDir, failed};
use super::follow::{is_wanted, last_wanted};
use super::logs::{Line, Reader};
use super::observe::{catch_up, needs_supervisor};
use super::{Processes, Record};
use crate::backend::merge::Output;
use crate::backend::{BackendError, LogOptions};
use crate::event::Event;
use crate::state::Instance;

struct Reading {
    dir: InstanceDir,
    reader: Option<Reader>,
    ready: VecDeque<Line>,
}

impl Processes {
    /// The lines of an instance that are there now; the last one only if it is whole or nobody follows.
    pub fn output<'a>(&'a self, instance: &'a Instance, options: &LogOptions) -> Output<'a> {
        let options = options.clone();
        let opened = stream::once(async move {
            let dir = self.dirs().project(&instance.project)?;
            let dir = dir.instance(&instance.name)?;
            if Record::read(&dir)?.as_ref().is_some_and(needs_supervisor) {
                catch_up(&self.client, &instance.project).await;
            }
            // Whoever had it start may have been told nothing: its end may have come later.
            let note = if options.follow {
                None
            } else {
                Record::read(&dir)?.and_then(|record| record.abandonment())
            };
            let reading = Reading::begin(dir, &options)?;
            let lines =
                stream::try_unfold((reading, options), |(mut reading, options)| async move {
                    let line = reading.next(&options).await?;
                    Ok::<_, BackendError>(line.map(|line| (line, (reading, options))))
                });
            let lines = lines.map(move |line| {
                line.map(|line: Line| Event::Log {
                    name: instance.name.clone(),
                    stream: line.stream,
                    time: line.time,
                    line: line.text,
                })
            });
            // Whoever follows is told with the end.
            Ok::<_, BackendError>(lines.chain(stream::iter(note.map(|note| Ok(Event::Note(note))))))
        });
        Box::pin(opened.try_flatten())
    }
}

impl Reading {
    fn begin(dir: InstanceDir, options: &LogOptions) -> Result<Self, BackendError> {
        let unreadable = |error| failed("read the output in", dir.path(), error);
        let Some(lines) = options.tail else {
            let reader = Reader::open(&dir).map_err(unreadable)?;
            return Ok(Self {
                dir,
                reader: Some(reader),
                ready: VecDeque::new(),
            });
        };
        let mut reader = Reader::open_near_end(&dir, lines).map_err(unreadable)?;
        let mut last = VecDeque::new();
        let limit = usize::try_from(lines).unwrap_or(usize::MAX);
        let mut keep = |line| last_wanted(&mut last, line, limit, options);
        if options.follow {
            while reader.read(&mut keep).map_err(unreadable)? {}
        } else {
            reader.finish(keep).map_err(unreadable)?;
        }
        Ok(Self {
            dir,
            reader: None,
            ready: last,
        })
    }

    async fn next(&mut self, options: &LogOptions) -> Result<Option<Line>, BackendError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let Some(reader) = &mut self.reader else {
                return Ok(None);
            };
            let ready = &mut self.ready;
            let mut is_past = false;
            let mut keep = |line: Line| {
                is_past |= options.until.is_some_and(|until| line.time > until);
                if is_wanted(&line, options) {
                    ready.push_back(line);
                }
            };
            let more = reader.read(&mut keep).and_then(|more| {
                if !more && !options.follow {
                    reader.finish(&mut keep)?;
                }
                Ok(more)
            });
            let more =
                more.map_err(|error| failed("read the output in", self.dir.path(), error))?;
            // One that writes faster than it is read has no end.
            if !more || is_past {
                self.reader = None;
            }
            // Files are always ready; whoever else waits on this thread must have a turn.
            tokio::task::yield_now().await;
        }
    }
}
