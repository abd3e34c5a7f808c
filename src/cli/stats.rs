//! `wharf stats`

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::backend::container::Containers;
use crate::backend::router::Backends;
use crate::backend::usage::Usage;
use crate::backend::{Backend as _, BackendError};
use crate::cli::context::{Context, Named};
use crate::cli::ps::template_error;
use crate::cli::row::Row;
use crate::error::{Error, Result};
use crate::state::Instance;
use crate::ui::size::{binary, decimal};
use crate::ui::table::Table;
use crate::ui::template::{Fields, Format};

/// Between two readings of a running display.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between the first two readings of processes: a rate needs two, and a person is waiting.
const FIRST: Duration = Duration::from_millis(500);

/// Readings under way at once: the engine is only waiting.
const WIDTH: usize = 64;

const HEADS: [(&str, &str); 9] = [
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
    ("Container", "CONTAINER"),
];

/// Show what the instances use: processors, memory, networks, disks
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to show [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Ended instances too
    #[arg(short, long)]
    all: bool,
    /// `table`, `json` (one object a line), a Go template, or `table TEMPLATE`
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Once, and end
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
}

impl Args {
    fn asks_for(&self, row: &Row) -> bool {
        let service = self.services.is_empty() || self.services.contains(&row.service);
        service && (self.all || row.is_alive())
    }
}

/// An instance and what it uses; `None`: it does not run.
type Reading = (Row, Option<Usage>);

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let format = Format::parse(&args.format).map_err(template_error)?;
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let in_engine = named.in_engine(context.ui, &backends, false).await?;
    let watching = async {
        let (mut readings, mut before) = first(&named, &backends, in_engine, args).await?;
        loop {
            let next = tokio::time::Instant::now() + INTERVAL;
            show(context, args, &format, &readings, &before)?;
            if args.no_stream || crate::ui::lost().is_some() {
                return Ok(());
            }
            before = by_id(&readings);
            // Some engines take most of the interval for a reading.
            let read = read(&named, &backends, in_engine, args);
            let pause = tokio::time::sleep_until(next);
            readings = futures_util::future::join(read, pause).await.0?;
        }
    };
    tokio::select! {
        done = watching => done,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(Error::failed)?;
            Err(Error::interrupted())
        }
    }
}

fn by_id(readings: &[Reading]) -> BTreeMap<String, Usage> {
    let known = |(row, usage): &Reading| Some((row.id.clone(), (*usage)?));
    readings.iter().filter_map(known).collect()
}

/// The first readings that a rate can be told of, and those before them.
async fn first(
    named: &Named,
    backends: &Backends,
    in_engine: bool,
    args: &Args,
) -> Result<(Vec<Reading>, BTreeMap<String, Usage>)> {
    let mut readings = of_processes(named, backends, args).await?;
    let mut before = by_id(&readings);
    let mut containers = Vec::new();
    if in_engine {
        for (row, usages) in of_containers(named, backends, args, Containers::usages).await? {
            before.extend(usages.map(|(before, _)| (row.id.clone(), before)));
            containers.push((row, usages.map(|(_, now)| now)));
        }
    }
    if !before.is_empty() {
        if containers.iter().all(|(_, usage)| usage.is_none()) {
            tokio::time::sleep(FIRST).await;
        }
        readings = of_processes(named, backends, args).await?;
    }
    readings.extend(containers);
    readings.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    Ok((readings, before))
}

/// One reading of every instance that is to be shown, by name.
async fn read(
    named: &Named,
    backends: &Backends,
    in_engine: bool,
    args: &Args,
) -> Result<Vec<Reading>> {
    let mut readings = of_processes(named, backends, args).await?;
    if in_engine {
        readings.extend(of_containers(named, backends, args, Containers::usage).await?);
    }
    readings.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    Ok(readings)
}

async fn of_processes(named: &Named, backends: &Backends, args: &Args) -> Result<Vec<Reading>> {
    let processes = backends.processes.observe(named.name()).await?;
    let asked: Vec<(Row, &Instance)> = processes
        .iter()
        .map(|instance| (Row::of_process(instance), instance))
        .filter(|(row, _)| args.asks_for(row))
        .collect();
    let instances: Vec<&Instance> = asked.iter().map(|(_, instance)| *instance).collect();
    let usages = backends.processes.usage(&instances)?;
    Ok(asked.into_iter().map(|(row, _)| row).zip(usages).collect())
}

/// What `ask` says of each container.
async fn of_containers<'a, T>(
    named: &Named,
    backends: &'a Backends,
    args: &Args,
    ask: impl AsyncFn(&'a Containers, &str) -> Result<Option<T>, BackendError>,
) -> Result<Vec<(Row, Option<T>)>> {
    let containers = backends.containers.listed(Some(named.name())).await?;
    let rows = containers
        .into_iter()
        .map(Row::of_container)
        .filter(|row| args.asks_for(row));
    let ask = &ask;
    stream::iter(rows)
        .map(|row| async move {
            let usage = if row.is_alive() {
                ask(&backends.containers, &row.id).await?
            } else {
                None
            };
            Ok::<_, Error>((row, usage))
        })
        .buffered(WIDTH)
        .try_collect()
        .await
}

fn show(
    context: &Context,
    args: &Args,
    format: &Format,
    readings: &[Reading],
    before: &BTreeMap<String, Usage>,
) -> Result<()> {
    let rows: Vec<Fields> = readings
        .iter()
        .map(|(row, usage)| fields(row, usage.as_ref(), before.get(&row.id), args.no_trunc))
        .collect();
    let lines = format
        .lines(&HEADS, &rows, || {
            let columns = HEADS.iter().take(8);
            let mut table = Table::new([]);
            table.head(columns.clone().map(|(_, head)| (*head).to_owned()));
            for row in &rows {
                let cell = |(field, _): &(&str, &str)| {
                    row.get(*field)
                        .and_then(|value| value.as_str())
                        .unwrap_or_default()
                        .to_owned()
                };
                table.row(columns.clone().map(cell));
            }
            table
        })
        .map_err(template_error)?;
    let out = anstream::stdout();
    let in_place = !args.no_stream
        && out.is_terminal()
        && matches!(format, Format::Table | Format::Columns { .. });
    if !in_place {
        context.ui.lines(lines);
        return Ok(());
    }
    // From the upper left corner, each line over the one that was there, and nothing below: no flicker.
    let mut text = "\x1b[H".to_owned();
    for line in &lines {
        text.push_str(line);
        text.push_str("\x1b[K\n");
    }
    text.push_str("\x1b[J");
    let mut out = out.into_inner();
    context
        .ui
        .wrote(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    Ok(())
}

/// The fields of `docker stats`.
fn fields(row: &Row, usage: Option<&Usage>, before: Option<&Usage>, full: bool) -> Fields {
    let now = usage.copied().unwrap_or_default();
    let load = before
        .filter(|_| usage.is_some())
        .map_or(0.0, |before| now.load_since(before));
    let pair = |a: String, b: String| format!("{a} / {b}");
    let mut fields = Fields::new();
    let mut put = |key: &str, value: String| drop(fields.insert(key.to_owned(), json!(value)));
    put("BlockIO", pair(decimal(now.read), decimal(now.written)));
    put("CPUPerc", format!("{:.2}%", load * 100.0));
    put("Container", row.id.clone());
    put("ID", row.id(full).to_owned());
    put(
        "MemPerc",
        format!("{:.2}%", share(now.memory, now.memory_limit) * 100.0),
    );
    put(
        "MemUsage",
        pair(binary(now.memory), binary(now.memory_limit)),
    );
    put("Name", row.name.clone());
    put("NetIO", pair(decimal(now.received), decimal(now.sent)));
    put("PIDs", now.tasks.to_string());
    fields
}

#[expect(clippy::cast_precision_loss, reason = "a few digits of it are shown")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
