//! `wharf top`

use crate::backend::Backend as _;
use crate::backend::usage::Processes;
use crate::cli::context::Context;
use crate::error::Result;
use crate::state::Instance;
use crate::ui::table::Table;

/// Show the processes of the services
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to show [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let processes = backends.processes.observe(named.name()).await?;
    context.ui.warn_all(backends.processes.take_notes());
    let asked = |service: &String| args.services.is_empty() || args.services.contains(service);
    let rest = named
        .rest(context.ui, &backends, &args.services, &processes)
        .await?;
    let processes: Vec<&Instance> = processes
        .iter()
        .filter(|instance| asked(&instance.service))
        .collect();
    let mut shown: Vec<(String, String, u32, Option<Processes>)> = backends
        .processes
        .top(&processes)?
        .into_iter()
        .zip(&processes)
        .map(|(top, each)| (each.name.clone(), each.service.clone(), each.number, top))
        .collect();
    if rest.in_engine {
        let mut containers = backends.containers.listed(Some(named.name())).await?;
        containers.retain(|each| {
            asked(&each.service) && matches!(each.state.as_str(), "running" | "paused")
        });
        let tops = containers
            .iter()
            .map(|container| backends.containers.top(&container.id));
        let tops = futures_util::future::try_join_all(tops).await?;
        shown.extend(
            containers
                .into_iter()
                .zip(tops)
                .map(|(each, top)| (each.name, each.service, each.number, top)),
        );
    }
    shown.sort_by(|a, b| a.0.cmp(&b.0));
    let mut titles: Vec<&str> = Vec::new();
    for title in shown
        .iter()
        .filter_map(|each| each.3.as_ref())
        .flat_map(|top| &top.titles)
    {
        if !titles.contains(&title.as_str()) {
            titles.push(title);
        }
    }
    if titles.is_empty() {
        return rest.done();
    }
    let mut table = Table::new(["SERVICE", "#"]).narrow();
    table.head(titles.iter().map(|title| (*title).to_owned()));
    for (_, service, number, top) in &shown {
        let Some(top) = top else { continue };
        for row in &top.rows {
            let number = if *number == 0 {
                String::new()
            } else {
                number.to_string()
            };
            let value = |title: &&str| {
                let at = top.titles.iter().position(|each| each == title);
                // What a container has no column for is unknown.
                let cell = at.and_then(|at| row.get(at)).cloned();
                cell.unwrap_or_else(|| "-".to_owned())
            };
            let cells = [service.clone(), number].into_iter();
            table.row(cells.chain(titles.iter().map(value)));
        }
    }
    context.ui.lines(table.lines());
    rest.done()
}
