//! `wharf compose …`: wharf as the provider of a service under Docker Compose.
//!
//! A service with `provider: {type: wharf, options: {command: …}}` makes Docker Compose run
//! `wharf compose --project-name=P up|down|stop --OPTION=VALUE SERVICE` and read JSON lines from its output
//! (github.com/docker/compose, docs/extension.md). The service is a process of project P, as if wharf had
//! read the file itself. Nothing but such lines may go to standard output.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as _, Subcommand};
use serde_json::{Value, json};

use crate::backend::router::Backends;
use crate::backend::{Backend as _, Made, in_one_line};
use crate::cli::carry_out::outcome;
use crate::cli::context::Context;
use crate::cli::settle::settle;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::execute;
use crate::plan::Plan;
use crate::plan::down::{self, Ending};
use crate::plan::placement::{Wishes, place};
use crate::plan::policy::Policy;
use crate::project::model::{Conflict, ProcessForm, Project, Service, ServiceExtension};
use crate::state::{Observed, Status};

/// How long a process is looked at: one that ends sooner did not come up.
const FIRST_LOOK: Duration = Duration::from_millis(300);

/// Provide a service to Docker Compose (which runs this itself)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The project that the service belongs to
    #[arg(long, value_name = "NAME")]
    project_name: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say which options there are
    Metadata,
    /// Start the service; nothing happens where it runs as asked
    Up(Wanted),
    /// Stop and remove the service
    Down(Wanted),
    /// Stop the service
    Stop(Wanted),
}

#[derive(Debug, clap::Args)]
struct Wanted {
    #[command(flatten)]
    options: Options,
    /// The service
    service: String,
}

/// `provider.options`, as in a compose file that wharf reads itself.
#[derive(Debug, Default, clap::Args)]
struct Options {
    /// Command to run, in one text or one word a time
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    command: Vec<String>,
    /// Directory to run it in [default: the current directory]
    #[arg(long = "working_dir", value_name = "DIR")]
    working_dir: Option<PathBuf>,
    /// Run as this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// A variable, KEY=VALUE; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    environment: Vec<String>,
    /// Command to run when `wharf watch` rebuilds the service
    #[arg(long, value_name = "COMMAND")]
    build: Option<String>,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let (action, wanted) = match &args.action {
        Action::Metadata => {
            context.ui.data(metadata().to_string());
            return Ok(());
        }
        Action::Up(wanted) => ("up", wanted),
        Action::Down(wanted) => ("down", wanted),
        Action::Stop(wanted) => ("stop", wanted),
    };
    let done = act(context, args, action, wanted).await;
    if let Err(error) = &done {
        let mut message = in_one_line(error);
        for line in error.details.iter().chain(&error.advice()) {
            message = format!("{message}\n{line}");
        }
        tell(context, "error", &message);
    }
    done
}

async fn act(context: &Context, args: &Args, action: &str, wanted: &Wanted) -> Result<()> {
    let name = args
        .project_name
        .as_deref()
        .or_else(|| context.env.get("COMPOSE_PROJECT_NAME"))
        .ok_or_else(|| {
            Error::usage("which project the service belongs to is not said")
                .hint("--project-name NAME")
        })?;
    let backends = context.backends()?;
    let _alone = context.lock(&backends, name).await?;
    if action != "up" {
        let observed = Observed {
            instances: backends.processes.observe(name).await?,
            ..Observed::default()
        };
        let ending = Ending {
            services: BTreeSet::from([wanted.service.clone()]),
            ..Ending::default()
        };
        let plan = if action == "down" {
            down::down(&observed, &ending)
        } else {
            down::stop(&observed, &ending)
        };
        return carry_out(context, &backends, &plan).await;
    }
    let project = project(context, name, wanted)?;
    let placement = place(&project, &Wishes::default())?;
    let mut policy = Policy {
        on_conflict: Some(Conflict::Fail),
        ignore_orphans: true,
        ..Policy::default()
    };
    let settled = settle(context, &backends, &project, &placement, &mut policy).await?;
    carry_out(context, &backends, &settled.plan).await?;
    if settled.plan.steps.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(FIRST_LOOK).await;
    let instances = backends.processes.observe(name).await?;
    let mine = instances
        .iter()
        .filter(|instance| instance.service == wanted.service);
    for instance in mine {
        if let Status::Exited { code } = instance.status
            && code != 0
        {
            return Err(
                Error::failed(format!("{} exited with code {code}", instance.name))
                    .hint(format!("wharf -p {name} logs {}", wanted.service)),
            );
        }
    }
    Ok(())
}

/// The project as far as it is known here: this one service.
fn project(context: &Context, name: &str, wanted: &Wanted) -> Result<Project> {
    let Options {
        command,
        working_dir,
        user,
        environment,
        build,
    } = &wanted.options;
    let split = |text: &str| {
        shell_words::split(text)
            .map_err(|_| Error::usage(format!("`{text}` is not a command: a quote is not closed")))
    };
    let command = match command.as_slice() {
        [] => {
            return Err(Error::usage(format!(
                "the provider of service `{}` has no command",
                wanted.service
            ))
            .hint("provider: {type: wharf, options: {command: …}}"));
        }
        [line] => split(line)?,
        words => words.to_vec(),
    };
    let directory = context.env.current_dir.clone();
    let environment = environment
        .iter()
        .map(|entry| match entry.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (entry.clone(), None),
        })
        .collect();
    let service = Service {
        name: wanted.service.clone(),
        wharf: ServiceExtension {
            process: Some(ProcessForm {
                command: Some(command),
                working_dir: Some(
                    working_dir
                        .as_ref()
                        .map_or_else(|| directory.clone(), |path| directory.join(path)),
                ),
                build: build.as_deref().map(split).transpose()?,
                environment,
                user: user.clone(),
                names: None,
                healthcheck: None,
            }),
            ..ServiceExtension::default()
        },
        ..Service::default()
    };
    Ok(Project::of_services(name, directory, [service]))
}

/// Executes a plan and tells about it in the protocol's words.
async fn carry_out(context: &Context, backends: &Backends, plan: &Plan) -> Result<()> {
    let (events, mut receiver) = Events::channel();
    let made = Made::default();
    let report = {
        let mut executing = std::pin::pin!(execute::execute(plan, backends, &made, &events));
        loop {
            tokio::select! {
                biased;
                Some(event) = receiver.recv() => relay(context, &event),
                report = &mut executing => break report,
            }
        }
    };
    while let Ok(event) = receiver.try_recv() {
        relay(context, &event);
    }
    outcome(plan, report)
}

fn relay(context: &Context, event: &Event) {
    match event {
        Event::StepDone { text, .. } | Event::Note(text) | Event::Warning(text) => {
            tell(context, "info", text);
        }
        Event::Ready { name, url, .. } => tell(context, "info", &format!("{name} is ready: {url}")),
        Event::StepStarted { text, .. } | Event::Progress { line: text, .. } => {
            tell(context, "debug", text);
        }
        Event::StepFailed { .. } | Event::Log { .. } | Event::Exited { .. } => {}
    }
}

fn tell(context: &Context, kind: &str, message: &str) {
    context
        .ui
        .data(json!({ "type": kind, "message": message }).to_string());
}

/// Which options there are, taken from the command line itself.
fn metadata() -> Value {
    let command = Options::augment_args(clap::Command::new("up"));
    let parameters: Vec<Value> = command
        .get_arguments()
        .filter_map(|argument| {
            Some(json!({
                "name": argument.get_long()?,
                "description": argument.get_help()?.to_string(),
                "required": argument.get_id() == "command",
                "type": "string",
            }))
        })
        .collect();
    json!({
        "description": "Run services as processes of this machine",
        "up": { "parameters": parameters },
        "down": { "parameters": [] },
        "stop": { "parameters": [] },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_those_that_a_compose_file_may_have() {
        let metadata = metadata();
        let names: Vec<&str> = metadata["up"]["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert_eq!(
            names,
            ["command", "working_dir", "user", "environment", "build"]
        );
        assert_eq!(metadata["up"]["parameters"][0]["required"], true);
    }
}
