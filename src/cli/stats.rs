//! `wharf stats`

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::backend::Backend as _;
use crate::backend::router::Backends;
use crate::backend::usage::Usage;
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

/// Between the first two readings: a rate needs two, and a person is waiting.
const FIRST: Duration = Duration::from_millis(500);

/// Readings under way at once.
const WIDTH: usize = 16;

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

/// An instance and what it uses; `None`: it does not run.
type Reading = (Row, Option<Usage>);

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let format = Format::parse(&args.format).map_err(template_error)?;
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let in_engine = named.in_engine(context.ui, &backends, false).await?;
    let watching = async {
        let mut before = BTreeMap::new();
        let mut pause = FIRST;
        // Where nothing runs there is no rate to wait for.
        let mut first = read(&named, &backends, in_engine, args).await?;
        if first.iter().any(|(_, usage)| usage.is_some()) {
            before = by_id(&first);
            tokio::time::sleep(pause).await;
            first = read(&named, &backends, in_engine, args).await?;
        }
        let mut readings = first;
        loop {
            show(context, args, &format, &readings, &before)?;
            if args.no_stream || crate::ui::lost().is_some() {
                return Ok(());
            }
            before = by_id(&readings);
            pause = INTERVAL;
            tokio::time::sleep(pause).await;
            readings = read(&named, &backends, in_engine, args).await?;
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

/// One reading of every instance that is to be shown, by name.
async fn read(
    named: &Named,
    backends: &Backends,
    in_engine: bool,
    args: &Args,
) -> Result<Vec<Reading>> {
    let asked = |row: &Row| {
        let service = args.services.is_empty() || args.services.contains(&row.service);
        service && (args.all || row.is_alive())
    };
    let processes = backends.processes.observe(named.name()).await?;
    let processes: Vec<(Row, &Instance)> = processes
        .iter()
        .map(|instance| (Row::of_process(instance), instance))
        .filter(|(row, _)| asked(row))
        .collect();
    let instances: Vec<&Instance> = processes.iter().map(|(_, instance)| *instance).collect();
    let usages = backends.processes.usage(&instances)?;
    let rows = processes.into_iter().map(|(row, _)| row);
    let mut readings: Vec<Reading> = rows.zip(usages).collect();
    if in_engine {
        let containers = backends.containers.listed(Some(named.name())).await?;
        let rows: Vec<Row> = containers
            .into_iter()
            .map(Row::of_container)
            .filter(asked)
            .collect();
        let read: Vec<Reading> = stream::iter(rows)
            .map(|row| async {
                let usage = if row.is_alive() {
                    backends.containers.usage(&row.id).await?
                } else {
                    None
                };
                Ok::<_, Error>((row, usage))
            })
            .buffered(WIDTH)
            .try_collect()
            .await?;
        readings.extend(read);
    }
    readings.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    Ok(readings)
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
