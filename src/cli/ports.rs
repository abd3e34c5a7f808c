//! `wharf ports`: every port of the project and who has it now; with `--history`, what was ever stopped for a
//! port.

use std::net::SocketAddr;

use serde::Serialize;

use crate::backend::Backend as _;
use crate::backend::router::Backends;
use crate::cli::context::{Context, Named, with_choices, without_engine};
use crate::cli::who::{Seen, look, look_without_engines};
use crate::error::{Error, Result};
use crate::plan::Inputs;
use crate::plan::claims::{Wanted, all, of};
use crate::plan::conflicts;
use crate::plan::placement::{Placement, Wishes, place};
use crate::plan::policy::Policy;
use crate::port::audit::Entry;
use crate::port::one_line;
use crate::port::owner::Depth;
use crate::port::release::first_permitted;
use crate::port::report::{Means, PortReport};
use crate::project::model::Project;
use crate::state::{BackendKind, Instance, Observed};
use crate::ui::table::Table;
use crate::ui::time::age;

/// List the project's ports: free, its own, or held by somebody else
///
/// Exits with 1 if somebody else has one of them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to list [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// What was stopped for a port so far, in any project: when, by which command and answer
    #[arg(long, conflicts_with = "services")]
    history: bool,
    /// `table` or `json` (one object a line)
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// One port of the project.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) service: String,
    pub(super) number: u32,
    backend: BackendKind,
    pub(super) state: State,
    #[serde(flatten)]
    pub(super) port: PortReport,
    /// Who has it, in words.
    #[serde(skip)]
    pub(super) holders: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Nobody has it.
    Free,
    /// An instance of this project has it.
    Ours,
    /// Somebody else has it.
    Held,
    /// An outgoing connection has it.
    InUse,
    /// It is a port of another machine.
    Remote,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let backends = context.backends()?;
    if args.history {
        return history(context, args, &backends);
    }
    let named = if args.services.is_empty() {
        context.name_or_project()?
    } else {
        Named::Project(Box::new(context.load(&args.services, true)?))
    };
    let (instances, remote) = instances(&backends, &named).await?;
    let is_silent = remote.is_none();
    let remote = remote.unwrap_or_default();
    let rows = match named.project() {
        Some(project) => {
            let wishes = with_choices(project, &Wishes::default(), &backends)?;
            let mut placement = place(project, &wishes)?;
            if is_silent && placement.needs_engine() {
                (placement, _) = without_engine(project, &wishes, placement)?;
            }
            let wanted = wanted(project, &placement, &instances);
            look_up(context, named.name(), &wanted, &instances, remote).await?
        }
        None => look_up(context, named.name(), &of(&instances), &instances, remote).await?,
    };
    if args.format == "json" {
        for row in &rows {
            context
                .ui
                .data(serde_json::to_string(row).map_err(Error::failed)?);
        }
    } else {
        let mut table = Table::new(["SERVICE", "ADDRESS", "PROTOCOL", "BACKEND", "STATE"]);
        for row in &rows {
            table.row(row.cells());
        }
        table.lines().iter().for_each(|line| context.ui.data(line));
    }
    context.ui.warn_all(backends.processes.misled(named.name()));
    let taken = |row: &Row| matches!(row.state, State::Held | State::InUse);
    if rows.iter().any(taken) {
        // For scripts: `up` would have to ask. The answer itself was printed.
        Err(Error::service(1))
    } else {
        Ok(())
    }
}

/// The project's instances, and whether its containers are on another machine. Without an engine that
/// answers there are none, and that is not known.
async fn instances(backends: &Backends, named: &Named) -> Result<(Vec<Instance>, Option<bool>)> {
    let mut instances = backends.processes.observe(named.name()).await?;
    let has_containers = named.project().is_none_or(|project| {
        project
            .services
            .values()
            .any(|service| service.has_container_form())
    });
    let mut remote = None;
    if has_containers && let Ok(engine) = backends.containers.reachable().await {
        remote = Some(!engine.local);
        instances.extend(backends.containers.observe(named.name()).await?);
    }
    Ok((instances, remote))
}

/// The ports of a project, looked up for other commands; for one that needs no engine, none is asked unless a
/// holder may be a container. `remote`: its containers are on another machine.
pub(super) async fn rows(
    context: &Context,
    project: &Project,
    placement: &Placement,
    instances: &[Instance],
    remote: bool,
) -> Result<Vec<Row>> {
    if !placement.needs_engine() {
        return rows_without_engines(context, project, placement, instances).await;
    }
    let wanted = wanted(project, placement, instances);
    look_up(context, &project.name, &wanted, instances, remote).await
}

/// The same where no engine answers, or none is needed.
pub(super) async fn rows_without_engines(
    context: &Context,
    project: &Project,
    placement: &Placement,
    instances: &[Instance],
) -> Result<Vec<Row>> {
    let wanted = wanted(project, placement, instances);
    let claims: Vec<_> = wanted.iter().map(|wanted| wanted.claim.clone()).collect();
    let mut seen = look_without_engines(context, &claims).await?;
    leave_out_own(context, &project.name, &mut seen).await?;
    Ok(rows_of(&wanted, &seen, instances))
}

async fn look_up(
    context: &Context,
    project: &str,
    wanted: &[Wanted],
    instances: &[Instance],
    remote: bool,
) -> Result<Vec<Row>> {
    let here = |wanted: &&Wanted| !(remote && wanted.backend == BackendKind::Container);
    let local: Vec<_> = wanted
        .iter()
        .filter(here)
        .map(|wanted| wanted.claim.clone())
        .collect();
    let mut seen = look(context, Depth::Everybody, &local).await?;
    leave_out_own(context, project, &mut seen).await?;
    Ok(rows_of(wanted, &seen, instances))
}

/// The project's own forwarder is in nobody's way: it lets go of what a service is about to take.
async fn leave_out_own(context: &Context, project: &str, seen: &mut [Seen]) -> Result<()> {
    if seen.iter().all(|seen| seen.holders.is_empty()) {
        return Ok(());
    }
    let mut own = context.backends()?.processes.everything(project).await?;
    own.retain(|instance| instance.role().is_some());
    for seen in seen {
        seen.holders
            .retain(|holder| conflicts::own(&own, holder).is_none());
    }
    Ok(())
}

fn rows_of(wanted: &[Wanted], seen: &[Seen], instances: &[Instance]) -> Vec<Row> {
    wanted
        .iter()
        .map(|wanted| {
            let seen = seen.iter().find(|seen| seen.claim == wanted.claim);
            Row::of(wanted, seen, instances)
        })
        .collect()
}

fn wanted(project: &Project, placement: &Placement, instances: &[Instance]) -> Vec<Wanted> {
    let observed = Observed {
        instances: instances.to_vec(),
        first_port: first_permitted(),
        ..Observed::default()
    };
    // Which configuration an instance has does not matter to who has its ports.
    let policy = Policy {
        recreate: crate::plan::policy::Recreate::Never,
        ..Policy::default()
    };
    all(&Inputs {
        project,
        placement,
        observed: &observed,
        policy: &policy,
    })
}

impl Row {
    fn of(wanted: &Wanted, seen: Option<&Seen>, instances: &[Instance]) -> Self {
        let claim = &wanted.claim;
        let own = |seen: &Seen| -> Option<Vec<String>> {
            seen.holders
                .iter()
                .map(|holder| Some(conflicts::own(instances, holder)?.name.clone()))
                .collect()
        };
        let (state, mut holders) = match seen {
            None => (State::Remote, Vec::new()),
            Some(seen) if seen.is_free() => (State::Free, Vec::new()),
            Some(seen) if seen.in_use => (State::InUse, Vec::new()),
            Some(seen) => match own(seen) {
                Some(names) => (State::Ours, names),
                None => (
                    State::Held,
                    seen.holders
                        .iter()
                        .map(crate::port::holder::Holder::describe)
                        .collect(),
                ),
            },
        };
        holders.dedup();
        let report = seen.map_or_else(|| PortReport::of(claim, &[]), Seen::report);
        Self {
            service: claim.service.clone(),
            number: claim.number,
            backend: wanted.backend,
            state,
            port: PortReport {
                addresses: claim.addresses.clone(),
                ..report
            },
            holders,
        }
    }

    fn cells(&self) -> [String; 5] {
        let addresses: Vec<String> = self
            .port
            .addresses
            .iter()
            .map(|ip| SocketAddr::new(*ip, self.port.port).to_string())
            .collect();
        let holders = self.holders.join("; ");
        [
            self.service.clone(),
            addresses.join(", "),
            self.port.protocol.to_string(),
            self.backend.to_string(),
            match self.state {
                State::Free => "free".to_owned(),
                State::Ours => format!("ours: {holders}"),
                State::Held => format!("held by {holders}"),
                State::InUse => "in use by an outgoing connection".to_owned(),
                State::Remote => "on the engine's machine".to_owned(),
            },
        ]
    }
}

fn history(context: &Context, args: &Args, backends: &Backends) -> Result<()> {
    let log = backends.releases();
    let entries = log.read().map_err(|error| {
        Error::failed(format!("cannot read {}", log.path().display())).detail(error.to_string())
    })?;
    if args.format == "json" {
        for entry in &entries {
            context
                .ui
                .data(serde_json::to_string(entry).map_err(Error::failed)?);
        }
        return Ok(());
    }
    let mut table = Table::new(["TIME", "PORT", "OUTCOME", "HOLDER", "AGE", "BY", "ANSWER"]);
    for entry in &entries {
        let cells = [
            local_time(&entry.time),
            format!("{}/{}", entry.port, entry.protocol),
            entry.outcome.word().to_owned(),
            holder(entry),
            entry.holder.age_seconds.map_or_else(|| "-".to_owned(), age),
            entry.by.clone(),
            entry.answer.clone(),
        ];
        // The log may hold anything: command lines, names of directories, labels.
        table.row(cells.map(|cell| one_line(&cell)));
    }
    table.lines().iter().for_each(|line| context.ui.data(line));
    Ok(())
}

fn local_time(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(
        |_| time.to_owned(),
        |time| {
            time.to_zoned(jiff::tz::TimeZone::system())
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string()
        },
    )
}

/// A holder of the log in one cell.
fn holder(entry: &Entry) -> String {
    let found = &entry.holder;
    let mut text = match (&found.container, &found.unit) {
        (Some(container), _) => match &container.project {
            Some(project) => format!("container {} (project {project})", container.name),
            None => format!("container {}", container.name),
        },
        (None, Some(unit)) => unit.clone(),
        (None, None) => found.command.clone().unwrap_or_else(|| "?".to_owned()),
    };
    if let Some(of) = &found.service {
        text = format!("{of}: {text}");
    }
    if let Some(pid) = found.pid {
        text = format!("pid {pid}: {text}");
    }
    let place = match (&found.cwd, entry.release) {
        (Some(cwd), Means::Signal) => format!(" (in {cwd})"),
        _ => String::new(),
    };
    let after = entry.supervisor.as_ref().map_or_else(String::new, |first| {
        // Most run in the same directory.
        format!(", after {}", first.strip_suffix(&place).unwrap_or(first))
    });
    text + &place + &after
}
