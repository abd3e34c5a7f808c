//! Log lines and ends of instances as events: what is there, and on request what will come.

use std::collections::VecDeque;
use std::fs::File;

use futures_util::future::try_join_all;

use super::Record;
use super::client::Client;
use super::dirs::{InstanceDir, failed};
use super::logs::{Line, Reader};
use super::notes::Notes;
use super::observe::{catch_up, needs_supervisor};
use super::watch::Watch;
use crate::backend::{BackendError, LogOptions};
use crate::event::{Event, Events};
use crate::state::{Instance, Status};

/// One instance that is being followed.
#[derive(Debug)]
struct Followed {
    name: String,
    service: String,
    dir: InstanceDir,
    reader: Reader,
    /// Which instance of that name: a later one is none of ours.
    created_id: Option<String>,
    /// The run whose end was told.
    told: Option<String>,
    /// What the keepers of its runs note: still there when the instance was removed a moment after its end.
    notes: Option<File>,
    over: bool,
}

/// Delivers lines, oldest first for each instance.
pub(super) async fn follow(
    client: &Client,
    instances: &[Instance],
    options: &LogOptions,
    events: &Events,
) -> Result<(), BackendError> {
    let mut projects: Vec<&str> = instances
        .iter()
        .map(|instance| instance.project.as_str())
        .collect();
    projects.sort_unstable();
    projects.dedup();
    let each = projects.into_iter().map(|project| {
        let members: Vec<&Instance> = instances
            .iter()
            .filter(|instance| instance.project == project)
            .collect();
        follow_project(client, project, members, options, events)
    });
    try_join_all(each).await.map(drop)
}

async fn follow_project(
    client: &Client,
    project: &str,
    instances: Vec<&Instance>,
    options: &LogOptions,
    events: &Events,
) -> Result<(), BackendError> {
    let project_dir = client.dirs.project(project)?;
    let mut dirs = Vec::new();
    for instance in &instances {
        dirs.push(project_dir.instance(&instance.name)?);
    }
    // Before the first look, so that nothing falls between.
    let mut watch = if options.follow {
        Some(Watch::new(client, project, &dirs, true)?)
    } else {
        None
    };
    let records = Record::read_all(&project_dir)?;
    let asked = |record: &&Record| instances.iter().any(|each| each.name == record.spec.name);
    if records.iter().filter(asked).any(needs_supervisor) {
        catch_up(client, project).await;
    }
    let mut followed = Vec::new();
    for (instance, dir) in instances.into_iter().zip(&dirs) {
        followed.push(Followed::begin(instance, dir, options, events).await?);
    }
    let Some(watch) = &mut watch else {
        return Ok(());
    };
    loop {
        let mut alive = false;
        // One that has ended may be started again by another command while the others live.
        for each in &mut followed {
            alive |= each.go_on(watch, options, events).await?;
        }
        if followed.iter().all(|each| each.over) {
            return Ok(());
        }
        watch.changed(alive).await?;
    }
}

impl Followed {
    /// Delivers what is there.
    async fn begin(
        instance: &Instance,
        dir: &InstanceDir,
        options: &LogOptions,
        events: &Events,
    ) -> Result<Self, BackendError> {
        let told = options.told.get(&instance.name);
        let tail = options.tail.filter(|_| told.is_none());
        let reader = match (told, tail) {
            (Some(told), _) => Reader::open_after(dir, *told),
            (None, Some(lines)) => Reader::open_near_end(dir, lines),
            (None, None) => Reader::open(dir),
        }
        .map_err(|error| unreadable(dir, error))?;
        let record = Record::read(dir)?;
        let mut followed = Self {
            name: instance.name.clone(),
            service: instance.service.clone(),
            dir: dir.clone(),
            reader,
            told: record
                .as_ref()
                .and_then(|it| old_end(instance, it, options)),
            created_id: record.map(|record| record.created_id),
            notes: None,
            over: false,
        };
        let Some(lines) = tail else {
            followed.read(options, events).await?;
            if !options.follow {
                followed.finish(|line| tell(&instance.name, line, options, events))?;
            }
            return Ok(followed);
        };
        let limit = usize::try_from(lines).unwrap_or(usize::MAX);
        let mut last = VecDeque::new();
        let mut keep = |line: Line| last_wanted(&mut last, line, limit, options);
        while followed.portion(&mut keep, events)? {
            tokio::task::yield_now().await;
        }
        if !options.follow {
            followed.finish(&mut keep)?;
        }
        for line in last {
            tell(&instance.name, line, options, events);
        }
        Ok(followed)
    }

    /// Delivers what has been added, and the end if there was one; whether the instance is alive.
    async fn go_on(
        &mut self,
        watch: &Watch<'_>,
        options: &LogOptions,
        events: &Events,
    ) -> Result<bool, BackendError> {
        // The entry first: once it says that a run has ended, the log of that run is complete.
        let record = watch.read(&self.dir)?;
        let Some(record) = record.filter(|now| self.created_id.as_ref() == Some(&now.created_id))
        else {
            self.tell_removed(options, events);
            self.over = true;
            return Ok(false);
        };
        if self.notes.is_none() {
            self.notes = File::open(self.dir.notes()).ok();
        }
        self.read(options, events).await?;
        if let Some(run) = &record.run
            && let Some(code) = run.code
            && run.finished.is_some()
            && record.status != Status::Running
            && self.told.as_ref() != Some(&run.id)
        {
            let name = self.name.clone();
            self.reader.flush(|line| tell(&name, line, options, events));
            if let Some(starvation) = record.starvation() {
                events.send(Event::Note(starvation));
            }
            events.send(Event::Exited {
                name,
                service: self.service.clone(),
                code,
                restarts: record.status == Status::Restarting,
            });
            if let Some(abandonment) = record.abandonment() {
                events.send(Event::Note(abandonment));
            }
            self.told = Some(run.id.clone());
        }
        self.over = matches!(record.status, Status::Exited { .. } | Status::Dead);
        Ok(record.status.is_alive())
    }

    /// Delivers the last lines of an instance that was removed, and its end, as far as they can still be had.
    fn tell_removed(&mut self, options: &LogOptions, events: &Events) {
        if self.over {
            return;
        }
        let name = self.name.clone();
        // Where its directory went while it was read, there is nothing more.
        let deliver = |line| tell(&name, line, options, events);
        drop(self.reader.finish_removed(deliver));
        self.reader.flush(|line| tell(&name, line, options, events));
        let ended = self.notes.as_ref().and_then(Notes::of);
        if let Some((run, notes)) = ended
            && let Some((code, _)) = notes.exit
            && self.told.as_ref() != Some(&run)
        {
            events.send(Event::Exited {
                name,
                service: self.service.clone(),
                code,
                restarts: false,
            });
            self.told = Some(run);
        }
    }

    async fn read(&mut self, options: &LogOptions, events: &Events) -> Result<(), BackendError> {
        let name = self.name.clone();
        while self.portion(|line| tell(&name, line, options, events), events)? {
            // The receiver may run on this very thread; a long log must not pile up.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn portion(
        &mut self,
        deliver: impl FnMut(Line),
        events: &Events,
    ) -> Result<bool, BackendError> {
        let more = self.reader.read(deliver);
        if self.reader.take_gap() {
            events.send(Event::Warning(format!(
                "lines of {} were rotated away before they could be shown",
                self.name
            )));
        }
        more.map_err(|error| unreadable(&self.dir, error))
    }

    fn finish(&mut self, deliver: impl FnMut(Line)) -> Result<(), BackendError> {
        self.reader
            .finish(deliver)
            .map_err(|error| unreadable(&self.dir, error))
    }
}

fn unreadable(dir: &InstanceDir, error: std::io::Error) -> BackendError {
    failed("read the output in", dir.path(), error)
}

/// Keeps the last lines of those that are wanted.
pub(super) fn last_wanted(
    last: &mut VecDeque<Line>,
    line: Line,
    limit: usize,
    options: &LogOptions,
) {
    if is_wanted(&line, options) {
        last.push_back(line);
        if last.len() > limit {
            last.pop_front();
        }
    }
}

pub(super) fn is_wanted(line: &Line, options: &LogOptions) -> bool {
    options.since.is_none_or(|since| line.time >= since)
        && options.until.is_none_or(|until| line.time <= until)
}

fn tell(name: &str, line: Line, options: &LogOptions, events: &Events) {
    if is_wanted(&line, options) {
        events.send(Event::Log {
            name: name.to_owned(),
            stream: line.stream,
            time: line.time,
            line: line.text,
        });
    }
}

/// The run whose end is no news: it was over when the instance was observed, and before the time that is asked for.
fn old_end(instance: &Instance, record: &Record, options: &LogOptions) -> Option<String> {
    let ended = |status: &Status| matches!(status, Status::Exited { .. } | Status::Dead);
    let run = record.run.as_ref()?;
    let is_asked_for = options
        .since
        .is_some_and(|since| run.finished >= Some(since));
    (ended(&instance.status) && ended(&record.status) && !is_asked_for).then(|| run.id.clone())
}
