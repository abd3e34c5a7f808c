//! `wharf logs`

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use crate::backend::happening::Span;
use crate::backend::router::Backends;
use crate::backend::{Backend as _, BackendError, LogOptions, merge};
use crate::cli::context::{Context, Named};
use crate::cli::events::happenings;
use crate::cli::moment::moment_of;
use crate::cli::replica::replica;
use crate::error::{Error, Result};
use crate::event::{Event, Events, end_in_words};
use crate::state::{BackendKind, Instance};
use crate::ui::logs::LogWriter;

/// Show the output of the services
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to show [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Go on with new lines
    #[arg(short, long)]
    follow: bool,
    /// Only this replica of the service
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = replica)]
    index: Option<u32>,
    /// Only the last lines of each instance
    #[arg(
        short = 'n',
        long,
        value_name = "LINES",
        default_value = "all",
        allow_hyphen_values = true
    )]
    tail: String,
    /// Show the time of arrival of every line
    #[arg(short, long)]
    timestamps: bool,
    /// Nothing before this time (RFC 3339, Unix seconds, or an age such as 10m)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Nothing after this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Leave the names in front of the lines out
    #[arg(long)]
    no_log_prefix: bool,
    /// Without colours
    #[arg(long)]
    no_color: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let sight = named.sight(context.ui, &backends, &args.services).await?;
    let (instances, rest) = sight.parts();
    named.check_services(&args.services, &instances)?;
    let instances = args.chosen(context, &named, instances);
    if let Some(index) = args.index.filter(|index| *index > 0) {
        let [service] = args.services.as_slice() else {
            return Err(Error::usage("--index requires one service to be selected")
                .hint("wharf logs --index 1 SERVICE"));
        };
        if instances.is_empty() {
            return Err(
                Error::failed(format!("service \"{service}\" has no container #{index}"))
                    .hint(format!("wharf ps --all {service}")),
            );
        }
    }
    let options = LogOptions {
        follow: args.follow,
        tail: tail(&args.tail),
        since: moment_of("--since", args.since.as_deref())?,
        // As for the engine, the beginning of all time is no limit.
        until: moment_of("--until", args.until.as_deref())?.filter(|until| *until != 0),
        ..LogOptions::default()
    };
    let names = instances.iter().map(|instance| instance.name.as_str());
    let screen = Screen {
        context,
        writer: LogWriter::new(named.name(), names)
            .timestamps(args.timestamps)
            .prefix(!args.no_log_prefix)
            .colours(!args.no_color)
            // As in Compose: `logs | grep` sees everything.
            .merged(),
    };
    let showing = async {
        if args.follow {
            let scene = Following {
                named: &named,
                backends: &backends,
                args,
                options: &options,
                screen: &screen,
                seen: BTreeMap::new(),
            };
            scene.run(instances).await
        } else {
            screen
                .show_merged(&backends, &instances, &options, |_, _| {})
                .await
        }
    };
    let shown = tokio::select! {
        shown = showing => shown,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(Failure::Output)?;
            return Err(Error::interrupted());
        }
    };
    match shown {
        // A reader that went away (`| head`) has seen what it wanted.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        shown => {
            shown?;
            rest.done()
        }
    }
}

impl Args {
    /// Those that are to be shown, by name. Where no service is named, those of the file's services that `up` attaches to,
    /// as with Docker Compose: none whose profile is off. Of a project that is meant by its name alone, all.
    fn chosen(
        &self,
        context: &Context,
        named: &Named,
        mut instances: Vec<Instance>,
    ) -> Vec<Instance> {
        let is_named = |service: &str| match context.declared(named) {
            Some(project) if self.services.is_empty() => project
                .services
                .get(service)
                .is_some_and(|service| service.attach != Some(false)),
            _ => self.services.is_empty() || self.services.iter().any(|name| name == service),
        };
        instances.retain(|instance| {
            !instance.one_off
                && is_named(&instance.service)
                && self
                    .index
                    .is_none_or(|index| index == 0 || index == instance.number)
        });
        instances.sort_by(|a, b| a.name.cmp(&b.name));
        instances
    }
}

/// Why showing ended early.
enum Failure {
    /// The stream takes nothing more.
    Output(io::Error),
    /// The lines cannot be had.
    Lines(Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Self::Lines(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Lines(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Output(error) => {
                Self::failed("cannot write the output").detail(error.to_string())
            }
            Failure::Lines(error) => error,
        }
    }
}

/// Where lines go.
struct Screen<'a> {
    context: &'a Context,
    writer: LogWriter,
}

impl Screen<'_> {
    /// Shows what is there of all of them in order of time; tells `each` the name and the time of every line.
    async fn show_merged(
        &self,
        backends: &Backends,
        instances: &[Instance],
        options: &LogOptions,
        mut each: impl FnMut(&str, i64),
    ) -> Result<(), Failure> {
        let sources = instances
            .iter()
            .map(|instance| match instance.backend {
                BackendKind::Container => backends.containers.output(instance, options),
                BackendKind::Process => backends.processes.output(instance, options),
            })
            .collect();
        let mut lines = std::pin::pin!(merge::in_order(sources));
        let mut batch = self.writer.batch();
        while let Some(event) = lines.next().await {
            if let Ok(Event::Log {
                name,
                stream,
                time,
                line,
            }) = &event
            {
                each(name, *time);
                batch.line(name, *stream, *time, line)?;
                continue;
            }
            batch.flush()?;
            self.show(&event?)?;
        }
        Ok(batch.flush()?)
    }

    fn show(&self, event: &Event) -> io::Result<()> {
        match event {
            Event::Log {
                name,
                stream,
                time,
                line,
            } => self.writer.line(name, *stream, *time, line)?,
            Event::Exited {
                name,
                code,
                restarts,
                ..
            } => {
                let name = self.writer.short(name);
                let line = end_in_words(name, *code, *restarts);
                self.context.ui.status(line);
            }
            Event::Note(line) => self.context.ui.note(line),
            Event::Warning(line) => self.context.ui.warn(line),
            Event::StepStarted { .. }
            | Event::StepDone { .. }
            | Event::StepFailed { .. }
            | Event::Progress { .. }
            | Event::Ready { .. } => {}
        }
        Ok(())
    }
}

/// What is followed: by what a happening names an instance, since when (in nanoseconds since the Unix
/// epoch).
type Followed = BTreeMap<String, i64>;

/// How long after the last moment that was asked for its lines may take to arrive.
const LATE: Duration = Duration::from_millis(250);

/// When nothing that is to be shown can come any more, unless there is still more to read.
fn last_moment(until: i64) -> Instant {
    let left = u64::try_from(until.saturating_sub(now())).unwrap_or_default();
    Instant::now() + Duration::from_nanos(left) + LATE
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The future of following some instances; which ones it was.
type Group<'a> = Pin<Box<dyn Future<Output = (Followed, Result<(), BackendError>)> + 'a>>;

/// `logs --follow`: goes on with what other commands start, ends when all that was shown has ended and no
/// other command is at work.
struct Following<'a> {
    named: &'a Named,
    backends: &'a Backends,
    args: &'a Args,
    options: &'a LogOptions,
    screen: &'a Screen<'a>,
    /// The time of the last line of each instance, in nanoseconds since the Unix epoch: where to go on with
    /// one that has been started again.
    seen: BTreeMap<String, i64>,
}

impl Following<'_> {
    async fn run(mut self, instances: Vec<Instance>) -> Result<(), Failure> {
        let span = Span::default();
        let mut changes = happenings(self.named, self.screen.context, self.backends, span).await?;
        let (events, mut receiver) = Events::channel();
        let mut groups: FuturesUnordered<Group<'_>> = FuturesUnordered::new();
        let mut followed = keys(&instances);
        let told = self.show_backlog(&instances).await?;
        let options = LogOptions {
            told,
            ..self.options.clone()
        };
        groups.push(follow(
            self.backends,
            instances,
            followed.clone(),
            options,
            events.clone(),
        ));
        let mut over = self.options.until.map(last_moment);
        loop {
            tokio::select! {
                // What has been written is shown before anything else is decided.
                biased;
                Some(event) = receiver.recv() => {
                    self.show(event, &mut receiver)?;
                    // There may be more of what was written before.
                    over = over.map(|over| over.max(Instant::now() + LATE));
                }
                Some((ended, outcome)) = groups.next() => {
                    outcome?;
                    followed.retain(|key, since| ended.get(key) != Some(since));
                }
                Some(change) = changes.next() => {
                    let change = change?;
                    let key = match change.backend {
                        BackendKind::Container => change.id.clone(),
                        BackendKind::Process => change.name.clone(),
                    };
                    match change.action.as_str() {
                        // Another process with the name of one that is followed.
                        "create" if followed.get(&key).is_some_and(|at| *at < change.time) => {
                            followed.remove(&key);
                        }
                        "start" if !followed.contains_key(&key) => {
                            let found = self.alive().await?;
                            let new: Vec<Instance> = found
                                .into_iter()
                                .filter(|instance| key_of(instance) == key)
                                .collect();
                            self.push(new, &mut followed, &mut groups, &events);
                        }
                        _ => {}
                    }
                    continue;
                }
                () = at(over) => return Ok(()),
            }
            if !groups.is_empty() {
                continue;
            }
            if let Ok(event) = receiver.try_recv() {
                self.show(event, &mut receiver)?;
            }
            // What a command at work has stopped it may be about to start.
            let found = {
                let (unheard, _) = Events::channel();
                let lock = self.backends.processes.lock(self.named.name(), &unheard);
                let _alone = lock.await?;
                self.alive().await?
            };
            if found.is_empty() {
                return Ok(());
            }
            self.push(found, &mut followed, &mut groups, &events);
        }
    }

    /// Shows what is there by now in order of time; up to where that is of each instance.
    async fn show_backlog(
        &mut self,
        instances: &[Instance],
    ) -> Result<BTreeMap<String, i64>, Failure> {
        // Nothing is to be put in order, or each instance tells its own.
        if self.options.tail == Some(0) || instances.len() < 2 {
            return Ok(BTreeMap::new());
        }
        let until = Some(self.options.until.unwrap_or(i64::MAX).min(now()));
        let options = LogOptions {
            until,
            ..self.options.clone()
        };
        let named = instances.iter().map(|instance| (instance.name.clone(), 0));
        let mut told: BTreeMap<String, i64> = named.collect();
        let each = |name: &str, time: i64| {
            if let Some(last) = told.get_mut(name) {
                *last = time;
            }
        };
        self.screen
            .show_merged(self.backends, instances, &options, each)
            .await?;
        let shown = told.iter().filter(|(_, time)| **time > 0);
        self.seen
            .extend(shown.map(|(name, time)| (name.clone(), *time)));
        // The beginning of a line is the last one, too.
        let is_unheard = |one: &&Instance| {
            options.tail.is_some()
                && one.backend == BackendKind::Process
                && told.get(&one.name) == Some(&0)
        };
        let unheard: Vec<&Instance> = instances.iter().filter(is_unheard).collect();
        for one in unheard {
            told.remove(&one.name);
        }
        Ok(told)
    }

    /// Those of the services that live now.
    async fn alive(&self) -> Result<Vec<Instance>, Failure> {
        let ui = self.screen.context.ui;
        let mut found = self.args.chosen(
            self.screen.context,
            self.named,
            self.named
                .sight(ui, self.backends, &self.args.services)
                .await?
                .instances,
        );
        found.retain(|instance| instance.status.is_alive());
        Ok(found)
    }

    /// Follows more instances, each from its last line on that was shown.
    fn push<'b>(
        &self,
        instances: Vec<Instance>,
        followed: &mut Followed,
        groups: &mut FuturesUnordered<Group<'b>>,
        events: &Events,
    ) where
        Self: 'b,
    {
        for instance in instances {
            let key = keys(std::slice::from_ref(&instance));
            followed.extend(key.clone());
            let mut options = self.options.clone();
            if let Some(last) = self.seen.get(&instance.name) {
                options.since = options.since.max(Some(last + 1));
                options.tail = None;
            }
            groups.push(follow(
                self.backends,
                vec![instance],
                key,
                options,
                events.clone(),
            ));
        }
    }

    /// Shows this event and all that are there already: a burst of lines is not written line by line.
    fn show(&mut self, first: Event, more: &mut UnboundedReceiver<Event>) -> io::Result<()> {
        let mut batch = self.screen.writer.batch();
        let mut next = Some(first);
        while let Some(event) = next {
            if let Event::Log {
                name,
                stream,
                time,
                line,
            } = &event
            {
                match self.seen.get_mut(name) {
                    Some(last) => *last = *time,
                    None => drop(self.seen.insert(name.clone(), *time)),
                }
                batch.line(name, *stream, *time, line)?;
            } else {
                batch.flush()?;
                self.screen.show(&event)?;
            }
            next = more.try_recv().ok();
        }
        batch.flush()
    }
}

fn follow(
    backends: &Backends,
    instances: Vec<Instance>,
    keys: Followed,
    options: LogOptions,
    events: Events,
) -> Group<'_> {
    Box::pin(async move {
        let outcome = backends.follow(&instances, &options, &events).await;
        (keys, outcome)
    })
}

/// By what a happening names an instance: a process has another id after each start.
fn key_of(instance: &Instance) -> String {
    match instance.backend {
        BackendKind::Container => instance.id.0.clone(),
        BackendKind::Process => instance.name.clone(),
    }
}

/// These instances, observed now.
fn keys(instances: &[Instance]) -> Followed {
    let now = now();
    instances
        .iter()
        .map(|instance| (key_of(instance), now))
        .collect()
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Whatever is no number is `all`, as the engine has it.
fn tail(text: &str) -> Option<u64> {
    let number: i64 = text.parse().ok()?;
    u64::try_from(number).ok()
}
