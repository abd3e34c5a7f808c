//! `wharf ls`

use std::collections::{BTreeMap, BTreeSet};

use clap::builder::PossibleValue;
use serde_json::json;

use crate::backend::Backend as _;
use crate::cli::context::Context;
use crate::cli::row::Row;
use crate::error::{Error, Result};
use crate::ui::table::Table;
use crate::ui::template;

const CONFIG_FILES: &str = "com.docker.compose.project.config_files";

/// List the projects that run, in containers and as processes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Projects that have ended too
    #[arg(short, long)]
    all: bool,
    /// Names alone
    #[arg(short, long)]
    quiet: bool,
    /// `name=PART`: only projects whose names match; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// `table` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "table", ignore_case = true, value_parser = [PossibleValue::new("table").alias(""), PossibleValue::new("json")])]
    format: String,
}

/// One project.
#[derive(Default)]
struct Project {
    /// How many instances there are in each state.
    states: BTreeMap<String, usize>,
    files: BTreeSet<String>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let names = args
        .filter
        .iter()
        .map(|filter| match filter.split_once('=') {
            Some(("name", pattern)) => Ok(pattern),
            Some((other, _)) => Err(Error::usage(format!("invalid filter '{other}'"))),
            None => Err(Error::usage("bad format of filter (expected name=value)")),
        })
        .collect::<Result<Vec<&str>>>()
        .map_err(|error| error.hint("wharf ls --filter name=web"))?;
    let backends = context.backends()?;
    let mut rows = Vec::new();
    for project in backends.processes.projects()? {
        match backends.processes.observe(&project).await {
            Ok(instances) => rows.extend(instances.iter().map(Row::of_process)),
            // What is wrong with one is no reason to be silent about the others.
            Err(error) => context
                .ui
                .note(format!("project {project} is left out: {error}")),
        }
    }
    backends.processes.note_unlisted()?;
    context.ui.warn_all(backends.processes.take_notes());
    match backends.containers.reachable().await {
        Ok(_) => {
            let containers = backends.containers.listed(None).await?;
            rows.extend(containers.into_iter().map(Row::of_container));
        }
        Err(error) => context
            .ui
            .note(format!("{error}: projects in containers are not seen")),
    }
    let mut projects: BTreeMap<String, Project> = BTreeMap::new();
    for row in rows.iter().filter(|row| args.all || row.is_alive()) {
        if !names.is_empty() && !names.iter().any(|name| matches(&row.project, name)) {
            continue;
        }
        let project = projects.entry(row.project.clone()).or_default();
        *project.states.entry(row.state.clone()).or_default() += 1;
        let files = row.labels.get(CONFIG_FILES).into_iter();
        project.files.extend(
            files
                .flat_map(|files| files.split(','))
                // A process of a provider has none.
                .filter(|file| !file.is_empty())
                .map(str::to_owned),
        );
    }
    if args.quiet {
        context.ui.lines(projects.keys());
        return Ok(());
    }
    if args.format.eq_ignore_ascii_case("json") {
        let all = projects.iter().map(|(name, project)| {
            json!({ "Name": name, "Status": project.status(), "ConfigFiles": project.files() })
        });
        context.ui.data(template::json(&all.collect()));
        return Ok(());
    }
    let mut table = Table::new(["NAME", "STATUS", "CONFIG FILES"]).wide();
    for (name, project) in &projects {
        table.row([name.clone(), project.status(), project.files()]);
    }
    context.ui.lines(table.lines());
    Ok(())
}

impl Project {
    /// `exited(1), running(2)`
    fn status(&self) -> String {
        let states = self.states.iter();
        let each: Vec<String> = states.map(|(state, n)| format!("{state}({n})")).collect();
        each.join(", ")
    }

    fn files(&self) -> String {
        if self.files.is_empty() {
            return "N/A".to_owned();
        }
        let files: Vec<&str> = self.files.iter().map(String::as_str).collect();
        files.join(",")
    }
}

/// A part of the name; `^` ties it to the beginning and `$` to the end.
fn matches(name: &str, pattern: &str) -> bool {
    let (begins, pattern) = pattern
        .strip_prefix('^')
        .map_or((false, pattern), |rest| (true, rest));
    let (ends, pattern) = pattern
        .strip_suffix('$')
        .map_or((false, pattern), |rest| (true, rest));
    match (begins, ends) {
        (true, true) => name == pattern,
        (true, false) => name.starts_with(pattern),
        (false, true) => name.ends_with(pattern),
        (false, false) => name.contains(pattern),
    }
}
