//! `wharf volumes`

use std::collections::BTreeSet;

use serde_json::json;

use crate::backend::container::VolumeFacts;
use crate::cli::context::Context;
use crate::cli::ps::template_error;
use crate::error::{Error, Result};
use crate::ui::table::Table;
use crate::ui::template::{Fields, Format, LABELS};

const HEADS: [(&str, &str); 10] = [
    ("Driver", "DRIVER"),
    ("Name", "VOLUME NAME"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Scope", "SCOPE"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Availability", "AVAILABILITY"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
];

/// List the volumes of the project
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only volumes that these services use [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// `table`, `json` (one object a line), a Go template, or `table TEMPLATE`
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Names alone
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let format = Format::parse(&args.format).map_err(template_error)?;
    let named = context.name_or_project()?;
    if let Some(project) = named.project() {
        let unknown = args.services.iter().find(|name| {
            !project.services.contains_key(*name) && !project.disabled.contains(*name)
        });
        if let Some(name) = unknown {
            return Err(
                Error::usage(format!("no such service: {name}")).hint("wharf config --services")
            );
        }
    }
    let backends = context.backends()?;
    // Processes use the host's directories.
    let mut volumes = if named.in_engine(context.ui, &backends, false).await? {
        backends.containers.volumes(named.name()).await?
    } else {
        Vec::new()
    };
    if !args.services.is_empty() && !volumes.is_empty() {
        let containers = backends.containers.listed(Some(named.name())).await?;
        let used: BTreeSet<String> = containers
            .into_iter()
            .filter(|container| !container.one_off && args.services.contains(&container.service))
            .flat_map(|container| container.mounts)
            .collect();
        volumes.retain(|volume| used.contains(&volume.name));
    }
    if args.quiet {
        context.ui.lines(volumes.iter().map(|volume| &volume.name));
        return Ok(());
    }
    let fields: Vec<Fields> = volumes.iter().map(fields).collect();
    let lines = format
        .lines(&HEADS, &fields, || {
            let mut table = Table::new(["DRIVER", "VOLUME NAME"]);
            for volume in &volumes {
                table.row([volume.driver.clone(), volume.name.clone()]);
            }
            table
        })
        .map_err(template_error)?;
    context.ui.lines(lines);
    Ok(())
}

fn fields(volume: &VolumeFacts) -> Fields {
    let labels = volume.labels.clone().unwrap_or_default();
    let listed: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut fields = Fields::new();
    let mut put = |key: &str, value: &str| drop(fields.insert(key.to_owned(), json!(value)));
    // The engine tells these only where it is asked to measure everything.
    put("Availability", "N/A");
    put("Driver", &volume.driver);
    put("Group", "N/A");
    put("Labels", &listed.join(","));
    put("Links", "N/A");
    put("Mountpoint", &volume.mountpoint);
    put("Name", &volume.name);
    put("Scope", &volume.scope);
    put("Size", "N/A");
    put("Status", "N/A");
    fields.insert(LABELS.to_owned(), json!(labels));
    fields
}
