//! `wharf ps`

use crate::backend::router::Backends;
use crate::cli::context::{Context, Named};
use crate::cli::row::{Row, check_services, rows};
use crate::error::{Error, Result};
use crate::state::BackendKind;
use crate::ui::table::Table;
use crate::ui::template::{Fields, Format};

/// The columns of the table, and those that a template's table may have.
const HEADS: [(&str, &str); 19] = [
    ("Name", "NAME"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("Service", "SERVICE"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("ID", "CONTAINER ID"),
    ("CreatedAt", "CREATED AT"),
    ("State", "STATE"),
    ("Project", "PROJECT"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Backend", "BACKEND"),
    ("Connections", "CONNECTIONS"),
];

/// List the instances of the services
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to list [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Ended instances, those of `run`, and the relays of local services too
    #[arg(short, long)]
    all: bool,
    /// Ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Names of services alone
    #[arg(long = "services")]
    only_services: bool,
    /// Only instances in these states: paused, restarting, removing, running, dead, created, exited
    #[arg(long, value_name = "STATE")]
    status: Vec<String>,
    /// `status=STATE`
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `table`, `json` (one object a line), a Go template, or `table TEMPLATE`
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Do not shorten long values
    #[arg(long)]
    no_trunc: bool,
    /// Instances of services that the project does not have (any more) too
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    orphans: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let format = Format::parse(&args.format).map_err(template_error)?;
    let states = states(args)?;
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let (mut found, rest) = rows(&named, context, &backends, &args.services).await?;
    if args.all && backends.processes.has_relays(named.name())? {
        add_relays(&mut found, named.name(), &backends).await?;
    }
    check_services(&named, &args.services, &found)?;
    let all = args.all || !states.is_empty();
    found.retain(|row| {
        let asked = args.services.is_empty() || args.services.contains(&row.service);
        let state = if states.is_empty() {
            all || row.is_alive()
        } else {
            states.contains(&row.state)
        };
        asked && state && (all || !row.one_off) && (args.orphans || is_declared(&named, row))
    });
    if args.quiet {
        context.ui.lines(found.iter().map(|row| &row.id));
        return rest.done();
    }
    if args.only_services {
        let mut names: Vec<&str> = found.iter().map(|row| row.service.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        context.ui.lines(names);
        return rest.done();
    }
    if format.shows(&args.format, ".Pid") {
        let containers = |row: &&Row| row.backend == BackendKind::Container && row.is_alive();
        let ids: Vec<&str> = found
            .iter()
            .filter(containers)
            .map(|row| row.id.as_str())
            .collect();
        if !ids.is_empty() {
            let pids = backends.containers.pids(&ids).await?;
            for row in &mut found {
                let pid = pids.get(&row.id).copied();
                row.pid = row.pid.or(pid.filter(|pid| *pid != 0));
            }
        }
    }
    let found = futures_util::future::join_all(found.into_iter().map(Row::ask)).await;
    let fields: Vec<Fields> = match format {
        Format::Table => Vec::new(),
        Format::Json | Format::Each(_) | Format::Columns { .. } => {
            found.iter().map(|row| row.fields(args.no_trunc)).collect()
        }
    };
    let lines = format
        .lines(&HEADS, &fields, || {
            let mut table = Table::new([
                "NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS",
            ]);
            for row in &found {
                table.row(row.cells(args.no_trunc));
            }
            table
        })
        .map_err(template_error)?;
    context.ui.lines(lines);
    rest.done()
}

/// Relays are instances of the services that they stand for, as `docker compose ps --all` shows them.
async fn add_relays(found: &mut Vec<Row>, project: &str, backends: &Backends) -> Result<()> {
    // Without an engine there are none.
    if backends.containers.reachable().await.is_ok() {
        let relays = backends.containers.listed_relays(project).await?;
        found.extend(relays.into_iter().map(Row::of_container));
        found.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(())
}

/// A wrong `--format`.
pub(super) fn template_error(error: crate::ui::template::FormatError) -> Error {
    Error::usage(error).hint("--format 'table {{.Name}}\\t{{.Status}}'")
}

/// The states of `--status` and of `--filter`.
fn states(args: &Args) -> Result<Vec<String>> {
    let mut states = args.status.clone();
    for filter in args.filter.iter().filter(|filter| !filter.is_empty()) {
        match filter.split_once('=') {
            Some(("status", state)) => states.push(state.to_owned()),
            Some(("source", _)) => {
                return Err(Error::usage("--filter source=…: not implemented")
                    .hint("--filter status=running"));
            }
            Some((name, _)) => {
                return Err(
                    Error::usage(format!("unknown filter {name}")).hint("--filter status=running")
                );
            }
            None => {
                return Err(
                    Error::usage("arguments to --filter should be in form KEY=VAL")
                        .hint("--filter status=running"),
                );
            }
        }
    }
    Ok(states)
}

fn is_declared(named: &Named, row: &Row) -> bool {
    // As with Docker Compose, one whose profile is off counts as none of the project's.
    named
        .project()
        .is_some_and(|project| project.services.contains_key(&row.service))
}
