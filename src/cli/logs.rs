//! `wharf logs`

use std::io;

use crate::backend::{Backend as _, LogOptions};
use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
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
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Nothing after this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Leave the names in front of the lines out
    #[arg(long)]
    no_log_prefix: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let mut instances = named.instances(context.ui, &backends).await?;
    named.check_services(&args.services, &instances)?;
    instances.retain(|instance| {
        !instance.one_off && (args.services.is_empty() || args.services.contains(&instance.service))
    });
    instances.sort_by(|a, b| a.name.cmp(&b.name));
    let options = LogOptions {
        follow: args.follow,
        tail: tail(&args.tail)?,
        since: args
            .since
            .as_deref()
            .map(|text| moment("--since", text))
            .transpose()?,
        until: args
            .until
            .as_deref()
            .map(|text| moment("--until", text))
            .transpose()?,
    };
    let writer = LogWriter::new(
        named.name(),
        instances.iter().map(|instance| instance.name.as_str()),
    )
    .timestamps(args.timestamps)
    .prefix(!args.no_log_prefix);
    let (events, mut receiver) = Events::channel();
    let mut following = std::pin::pin!(backends.follow(&instances, &options, &events));
    // Both backends deliver each instance in order; those of several are put in the order of arrival.
    let at_once = args.follow || instances.len() < 2;
    let mut lines: Vec<(i64, Event)> = Vec::new();
    let show = |event: Event, lines: &mut Vec<(i64, Event)>| {
        if let Event::Log { time, .. } = &event
            && !at_once
        {
            lines.push((*time, event));
            return Ok(());
        }
        print(context, &writer, &event)
    };
    let shown = loop {
        tokio::select! {
            Some(event) = receiver.recv() => if let Err(error) = show(event, &mut lines) {
                break Err(error);
            },
            result = &mut following => { result?; break Ok(()); }
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(Error::failed)?;
                return Err(Error::interrupted());
            }
        }
    };
    let shown = shown.and_then(|()| {
        while let Ok(event) = receiver.try_recv() {
            show(event, &mut lines)?;
        }
        lines.sort_by_key(|(time, _)| *time);
        lines
            .iter()
            .try_for_each(|(_, event)| print(context, &writer, event))
    });
    match shown {
        // A reader that went away (`| head`) has seen what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        shown => shown
            .map_err(|error| Error::failed("cannot write the output").detail(error.to_string())),
    }
}

fn print(context: &Context, writer: &LogWriter, event: &Event) -> io::Result<()> {
    match event {
        Event::Log {
            name,
            stream,
            time,
            line,
        } => writer.line(name, *stream, *time, line)?,
        Event::Exited { name, code, .. } => {
            context
                .ui
                .status(format!("{} exited with code {code}", writer.short(name)));
        }
        Event::StepStarted { .. }
        | Event::StepDone { .. }
        | Event::StepFailed { .. }
        | Event::Progress { .. }
        | Event::Note(_)
        | Event::Warning(_)
        | Event::Ready { .. } => {}
    }
    Ok(())
}

fn tail(text: &str) -> Result<Option<u64>> {
    if text == "all" {
        return Ok(None);
    }
    let number: i64 = text.parse().map_err(|_| {
        Error::usage(format!("--tail {text}: neither a number nor `all`")).hint("--tail 100")
    })?;
    Ok(u64::try_from(number).ok())
}

/// A point in time as the engine's `since` takes it, in nanoseconds since the Unix epoch.
fn moment(option: &str, text: &str) -> Result<i64> {
    let wrong = || {
        Error::usage(format!("{option} {text}: not a time")).hint(format!(
            "{option} 10m, {option} 2026-01-31T12:00:00Z or {option} 1700000000"
        ))
    };
    let nanoseconds = if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        timestamp.as_nanosecond()
    } else if let Ok(seconds) = text.parse::<f64>() {
        jiff::Timestamp::from_duration(
            jiff::SignedDuration::try_from_secs_f64(seconds).map_err(|_| wrong())?,
        )
        .map_err(|_| wrong())?
        .as_nanosecond()
    } else if let Ok(span) = text.parse::<jiff::SignedDuration>() {
        (jiff::Timestamp::now() - span).as_nanosecond()
    } else if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        local
            .to_zoned(jiff::tz::TimeZone::system())
            .map_err(|_| wrong())?
            .timestamp()
            .as_nanosecond()
    } else {
        return Err(wrong());
    };
    i64::try_from(nanoseconds).map_err(|_| wrong())
}
