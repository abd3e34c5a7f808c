//! `wharf doctor`: what this machine can do, what the project needs of it, and what to do about the difference.

use serde::Serialize;

use crate::backend::Backend as _;
use crate::backend::router::Backends;
use crate::cli::context::{Context, with_choices};
use crate::cli::ports::{self, Row, State as PortState};
use crate::doctor::facts::Machine;
use crate::doctor::findings::{findings, is_useless};
use crate::doctor::gather::gather;
use crate::doctor::needs::{Hold, PortNeed, needs};
use crate::doctor::{Finding, State};
use crate::error::{Error, Result};
use crate::plan::placement::{Wishes, place, place_without_engine};
use crate::project::model::Project;
use crate::project::{self, Disk, LoadErrorKind};
use crate::ui::{BAD, DIM, GOOD, NAME, WARN, report};

/// Where lines end.
const WIDTH: usize = 100;

/// Before and between columns.
const GAP: usize = 2;

/// Say what this machine can do, and whether it is all that the project needs
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// `table` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// All that was found out.
#[derive(Serialize)]
struct Report {
    /// wharf's own version.
    version: &'static str,
    /// The kernel's release.
    kernel: String,
    /// Whether nothing that is needed is missing.
    fit: bool,
    /// About the machine.
    machine: Vec<Finding>,
    /// About the project, where there is one.
    project: Option<ProjectReport>,
    /// Why the project could not be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct ProjectReport {
    name: String,
    findings: Vec<Finding>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let backends = context.backends()?;
    let dirs = crate::backend::process::Dirs::from_env(&context.env).map_err(Error::from)?;
    // A file that cannot be read is a mistake to be told; no file at all is none.
    let options = context.load_options(&[], false);
    let project = match project::load(&options, &context.env, &Disk) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(report::diagnostic);
            Ok(Some(loaded.project))
        }
        Err(error) if error.kind == LoadErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::from(error)),
    };
    let machine = gather(&backends.containers, &dirs).await;
    let (project, broken) = match project {
        Ok(Some(project)) => {
            let findings = project_findings(context, &backends, &project, &machine).await?;
            let name = project.name.clone();
            (Some(ProjectReport { name, findings }), None)
        }
        Ok(None) => (None, None),
        Err(error) => (None, Some(error)),
    };
    let fit = match &project {
        Some(project) => project
            .findings
            .iter()
            .all(|finding| finding.state != State::Missing),
        None => broken.is_none() && !is_useless(&machine),
    };
    let all = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: machine.kernel.clone(),
        fit,
        machine: findings(&machine),
        project,
        error: broken.as_ref().map(ToString::to_string),
    };
    if args.format == "json" {
        let text = serde_json::to_string_pretty(&all).map_err(Error::failed)?;
        context.ui.data(text);
    } else {
        context.ui.lines(lines(&all));
    }
    match broken {
        Some(error) => Err(error),
        None if fit => Ok(()),
        // For scripts. What is missing was printed.
        None => Err(Error::service(1)),
    }
}

async fn project_findings(
    context: &Context,
    backends: &Backends,
    project: &Project,
    machine: &Machine,
) -> Result<Vec<Finding>> {
    // A file of choices that cannot be read is found when `up` needs it.
    let wishes = with_choices(project, &Wishes::default(), backends).unwrap_or_default();
    let wished = place(project, &wishes)?;
    let needs_engine = wished.needs_engine() && machine.engine().is_none();
    // As `up` would place them.
    let placement = match place_without_engine(project, &wishes) {
        Ok(placement) if needs_engine => placement,
        Ok(_) | Err(_) => wished.clone(),
    };
    // An unreadable ledger is a finding about the state directory, not a reason to say nothing.
    let mut instances = backends
        .processes
        .observe(&project.name)
        .await
        .unwrap_or_default();
    let mut remote = false;
    if placement.needs_engine()
        && let Some((engine, _)) = machine.engine()
    {
        remote = !engine.local;
        let observed = backends.containers.observe(&project.name).await;
        instances.extend(observed.unwrap_or_default());
    }
    let rows = if machine.engine().is_some() {
        ports::rows(context, project, &placement, &instances, remote).await
    } else {
        // None is waited for once more.
        ports::rows_without_engines(context, project, &placement, &instances).await
    };
    let unknown = rows.as_ref().err().map(|error| {
        Finding::reduced(
            "ports",
            format!("who has them cannot be looked up: {error}"),
            "wharf ports",
        )
    });
    let ports: Vec<PortNeed> = rows
        .iter()
        .flatten()
        .filter(|row| row.state != PortState::Remote)
        .map(port_need)
        .collect();
    let mut all = needs(project, &wished, &placement, machine, &ports);
    all.extend(unknown);
    Ok(all)
}

fn port_need(row: &Row) -> PortNeed {
    let held = match row.state {
        PortState::Free | PortState::Ours | PortState::Remote => None,
        PortState::InUse => Some(Hold {
            by: "an outgoing connection, which will pass".to_owned(),
            releasable: true,
        }),
        PortState::Held => Some(Hold {
            by: row.holders.join("; "),
            releasable: !row.port.holders.iter().any(|holder| holder.protected),
        }),
    };
    PortNeed {
        service: row.service.clone(),
        port: row.port.port,
        protocol: row.port.protocol,
        held,
    }
}

/// The table, with a hint below every line that is not as it could be.
fn lines(report: &Report) -> Vec<String> {
    let mut lines = vec![format!(
        "{NAME}This machine{NAME:#} (Linux {}, wharf {})",
        report.kernel, report.version
    )];
    table(&report.machine, &mut lines);
    let mut missing = 0;
    match &report.project {
        Some(project) => {
            lines.push(String::new());
            lines.push(format!("{NAME}Project {}{NAME:#} needs", project.name));
            if project.findings.is_empty() {
                lines.push(format!("{:GAP$}nothing that is not always there", ""));
            }
            table(&project.findings, &mut lines);
            missing = project
                .findings
                .iter()
                .filter(|finding| finding.state == State::Missing)
                .count();
        }
        None if report.fit => {}
        None => missing = 1,
    }
    lines.push(String::new());
    if report.error.is_some() {
        lines.push(format!(
            "{BAD}The project cannot be loaded, so what it needs is not known.{BAD:#}"
        ));
        return lines;
    }
    lines.push(match (report.project.is_some(), missing) {
        (true, 0) => format!("{GOOD}Nothing that the project needs is missing.{GOOD:#}"),
        (true, 1) => format!("{BAD}One thing that the project needs is missing.{BAD:#}"),
        (true, count) => format!("{BAD}{count} things that the project needs are missing.{BAD:#}"),
        (false, 0) => "No compose file here: what a project needs was not looked at.".to_owned(),
        (false, _) => format!("{BAD}Neither containers nor local processes can run here.{BAD:#}"),
    });
    lines
}

fn table(findings: &[Finding], lines: &mut Vec<String>) {
    const STATES: usize = 7;
    let length = |text: &str| text.chars().count();
    let checks = findings
        .iter()
        .map(|finding| length(&finding.check))
        .max()
        .unwrap_or(0)
        .min(34);
    let left = GAP + checks + GAP + STATES + GAP;
    for finding in findings {
        let style = match finding.state {
            State::Ok => GOOD,
            State::Reduced => WARN,
            State::Missing => BAD,
        };
        let mut detail = finding.detail.clone();
        if !finding.services.is_empty() {
            detail = format!("{detail} ({})", finding.services.join(", "));
        }
        let mut check = finding.check.as_str();
        if length(check) > checks {
            lines.push(format!("{:GAP$}{check}", ""));
            check = "";
        }
        for (index, words) in wrapped(&detail, WIDTH.saturating_sub(left))
            .iter()
            .enumerate()
        {
            let word = if index == 0 { finding.state.word() } else { "" };
            let check = if index == 0 { check } else { "" };
            lines.push(format!(
                "{:GAP$}{check:checks$}{:GAP$}{style}{word:STATES$}{style:#}{:GAP$}{words}",
                "", "", ""
            ));
        }
        if let Some(hint) = &finding.hint {
            // In one piece, whatever its length: it is there to be pasted.
            lines.push(format!("{:left$}{DIM}${DIM:#} {hint}", ""));
        }
    }
}

/// A text in lines of at most so many characters, where words are not longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_stand_below_what_they_are_for() {
        let finding = |check: &str, state, hint: Option<&str>| Finding {
            check: check.to_owned(),
            state,
            detail: "words ".repeat(20).trim_end().to_owned(),
            hint: hint.map(str::to_owned),
            services: Vec::new(),
        };
        let mut lines = Vec::new();
        let all = [
            finding("a", State::Ok, None),
            finding(
                "a check with a name that is longer than its column",
                State::Missing,
                Some("do it"),
            ),
        ];
        table(&all, &mut lines);
        let plain: Vec<String> = lines
            .iter()
            .map(|line| anstream::adapter::strip_str(line).to_string())
            .collect();
        assert!(
            plain.iter().all(|line| line.chars().count() <= WIDTH),
            "{plain:#?}"
        );
        assert!(
            plain.last().is_some_and(|line| line.ends_with("$ do it")),
            "{plain:#?}"
        );
        assert!(plain[0].contains("ok") && plain[0].contains("words words"));
    }
}
