//! `wharf graph`: the stack as a picture: services, where they run, their ports and what they depend on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::backend::Backend as _;
use crate::backend::router::Backends;
use crate::cli::context::{Context, with_choices, without_engine};
use crate::cli::ports::{self, Row, State};
use crate::cli::up::placed_name;
use crate::error::{Error, Result};
use crate::plan::placement::{Placement, Wishes, place};
use crate::project::model::Project;
use crate::state::{BackendKind, Instance};
use crate::ui::graph::{Graph, PortLine, PortState, mermaid, svg, tree};

/// Draw the stack: services, where they run, their ports, and what they depend on
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to draw, with what they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Draw services as local processes: these (comma-separated), or without a value all that can
    #[arg(long, value_name = "SERVICE,...", num_args = 0..=1, default_missing_value = "*", value_delimiter = ',', value_parser = placed_name)]
    local: Vec<String>,
    /// Draw services as containers: these (comma-separated), or without a value all that can
    #[arg(long, value_name = "SERVICE,...", num_args = 0..=1, default_missing_value = "*", value_delimiter = ',', value_parser = placed_name)]
    container: Vec<String>,
    /// How to draw it
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "tree")]
    format: Format,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for a terminal
    Tree,
    /// A flowchart for Markdown pages
    Mermaid,
    /// A picture
    Svg,
    /// What the others are made from
    Json,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let project = context.load(&args.services, false)?;
    let wishes = Wishes::of(&args.local, &args.container);
    let backends = context.backends()?;
    let graph = graph(context, &backends, &project, &wishes).await?;
    let text = match args.format {
        Format::Tree => tree(&graph),
        Format::Mermaid => mermaid(&graph),
        Format::Svg => svg(&graph),
        Format::Json => serde_json::to_string_pretty(&graph).map_err(Error::failed)? + "\n",
    };
    if let Some(path) = &args.output {
        let path = context.env.current_dir.join(path);
        return std::fs::write(&path, text)
            .map_err(|error| Error::failed(error).detail(format!("writing {}", path.display())));
    }
    context.ui.lines(text.lines());
    Ok(())
}

async fn graph(
    context: &Context,
    backends: &Backends,
    project: &Project,
    wishes: &Wishes,
) -> Result<Graph> {
    let mut instances = backends.processes.observe(&project.name).await?;
    let wishes = &with_choices(project, wishes, backends)?;
    let mut placement = place(project, wishes)?;
    let mut containers_known = true;
    let mut remote = false;
    if placement.needs_engine() {
        match backends.containers.reachable().await {
            Ok(engine) => {
                remote = !engine.local;
                instances.extend(backends.containers.observe(&project.name).await?);
            }
            Err(error) => {
                (placement, containers_known) = without_engine(project, wishes, placement)?;
                context.ui.note(if containers_known {
                    format!("{error}: all services are drawn as local processes, as `up` would start them")
                } else {
                    format!("{error}: the state of containers is not known")
                });
            }
        }
    }
    let rows = ports::rows(context, project, &placement, &instances, remote).await?;
    let ports = port_lines(project, &placement, &instances, rows);
    Ok(Graph::of(
        project,
        &placement,
        &instances,
        containers_known,
        &ports,
    ))
}

/// The ports of every service: those that were looked up, and those that the engine chooses.
fn port_lines(
    project: &Project,
    placement: &Placement,
    instances: &[Instance],
    rows: Vec<Row>,
) -> BTreeMap<String, Vec<PortLine>> {
    let mut lines: BTreeMap<String, Vec<PortLine>> = BTreeMap::new();
    for row in rows {
        let (published, protocol) = (row.port.port, row.port.protocol);
        let of_instance = instances
            .iter()
            .filter(|instance| instance.service == row.service)
            .flat_map(|instance| &instance.publishers)
            .find(|port| port.published == published && port.protocol == protocol)
            .map(|port| port.target);
        let target = of_instance.or_else(|| {
            let mut declared = project.services.get(&row.service)?.ports.iter();
            let port = declared.find(|port| {
                let range = port.published;
                let fits = range.is_some_and(|(a, b)| (a..=b).contains(&published));
                fits && port.protocol == protocol
            });
            port.map(|port| port.target)
        });
        let everywhere = row
            .port
            .addresses
            .iter()
            .any(std::net::IpAddr::is_unspecified);
        let address = row.port.addresses.first().filter(|_| !everywhere);
        lines.entry(row.service).or_default().push(PortLine {
            number: row.number,
            address: address.map(ToString::to_string),
            published: Some(published),
            target,
            protocol,
            state: match row.state {
                State::Free => PortState::Free,
                State::Ours => PortState::Ours,
                State::Held => PortState::Held,
                State::InUse => PortState::InUse,
                State::Remote => PortState::Unknown,
            },
            holders: match row.state {
                State::Held => row.holders,
                State::Free | State::Ours | State::InUse | State::Remote => Vec::new(),
            },
        });
    }
    // What the engine has chosen is among those that were looked up.
    for service in project.services.values() {
        if placement.of(&service.name) == BackendKind::Process {
            continue;
        }
        for port in service.ports.iter().filter(|port| port.published.is_none()) {
            let own = lines.entry(service.name.clone()).or_default();
            let is_chosen = own
                .iter()
                .any(|line| line.target == Some(port.target) && line.protocol == port.protocol);
            if !is_chosen {
                own.push(PortLine {
                    number: 1,
                    address: port.host_ip.map(|ip| ip.to_string()),
                    published: None,
                    target: Some(port.target),
                    protocol: port.protocol,
                    state: PortState::Free,
                    holders: Vec::new(),
                });
            }
        }
    }
    lines
}
