//! `post_start` and `pre_stop`: commands in a container that runs.
//!
//! They are recorded in labels, so that every later invocation (and `down` without a compose file) knows
//! them without the service. Where a container records none, because another tool made it, those of the
//! compose file count.

use std::collections::BTreeMap;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::{Stream, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::lines::{Line, Lines};
use super::{Containers, Engine, labels};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::project::model::{self, Project, Service};

/// How many lines of output go into an error.
const KEPT: usize = 20;

/// How much of each, in bytes.
const WIDEST: usize = 4096;

/// A hook as its label has it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hook {
    command: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default)]
    privileged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    working_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    environment: Vec<String>,
}

/// By service, the labels that its containers would record.
pub(super) type Declared = BTreeMap<String, BTreeMap<String, String>>;

impl Containers {
    /// Makes the hooks of the compose file known, for containers that record none. The first call counts.
    pub fn declare(&self, project: &Project) {
        self.shared.declared.get_or_init(|| {
            let services = project.services.values();
            services
                .map(|service| (service.name.clone(), recorded(service)))
                .filter(|(_, hooks)| !hooks.is_empty())
                .collect()
        });
    }
}

/// The labels that record a service's hooks.
pub(super) fn recorded(service: &Service) -> BTreeMap<String, String> {
    [
        (labels::POST_START, &service.post_start),
        (labels::PRE_STOP, &service.pre_stop),
    ]
    .into_iter()
    .filter(|(_, hooks)| !hooks.is_empty())
    .filter_map(|(label, hooks)| {
        let hooks: Vec<Hook> = hooks.iter().map(Hook::of).collect();
        Some((label.to_owned(), serde_json::to_string(&hooks).ok()?))
    })
    .collect()
}

impl Hook {
    pub(super) fn of(hook: &model::Hook) -> Self {
        Self {
            command: hook.command.clone(),
            user: hook.user.clone(),
            privileged: hook.privileged,
            working_dir: hook.working_dir.clone(),
            environment: hook.environment.clone(),
        }
    }
}

/// A container's hooks, as its label or else its service in the compose file has them.
fn hooks_of<'a>(
    declared: Option<&'a Declared>,
    label: &str,
    labels: &'a BTreeMap<String, String>,
) -> Option<&'a String> {
    let of_file = || {
        let is_one_off = labels
            .get(labels::ONE_OFF)
            .is_some_and(|word| word == "True");
        let service = labels.get(labels::SERVICE).filter(|_| !is_one_off)?;
        declared?.get(service)?.get(label)
    };
    labels.get(label).or_else(of_file)
}

/// Runs the hooks that are recorded under a label, one after the other; the first failure ends it.
pub(super) async fn run(
    containers: &Containers,
    engine: &Engine,
    id: &str,
    name: &str,
    label: &'static str,
    labels: &BTreeMap<String, String>,
    events: &Events,
) -> Result<(), BackendError> {
    let Some(text) = hooks_of(containers.shared.declared.get(), label, labels) else {
        return Ok(());
    };
    let what = label.rsplit('.').next().unwrap_or(label);
    let hooks: Vec<Hook> = serde_json::from_str(text).map_err(|_| {
        BackendError::Unsupported(format!("{name}: its label {label} cannot be read"))
    })?;
    for hook in hooks {
        let command = hook.command.join(" ");
        let (code, last_lines) = execute(engine, id, name, hook, events)
            .await
            .map_err(|error| engine.refused(format!("run `{command}` in {name}"), error))?;
        if code != 0 {
            return Err(BackendError::Hook {
                name: name.to_owned(),
                what: what.to_owned(),
                service: labels.get(labels::SERVICE).cloned(),
                command,
                code,
                last_lines,
            });
        }
    }
    Ok(())
}

/// Passes the output of a command on as that of an instance, until it ends; its last lines.
pub(super) async fn told(
    mut output: impl Stream<Item = Result<LogOutput, Error>> + Unpin,
    name: &str,
    events: &Events,
) -> Result<Vec<String>, Error> {
    let mut last_lines = Vec::new();
    let mut tell = |line: Line| {
        if last_lines.len() == KEPT {
            last_lines.remove(0);
        }
        let shown = &line.bytes[..line.bytes.len().min(WIDEST)];
        last_lines.push(String::from_utf8_lossy(shown).into_owned());
        events.send(Event::Log {
            name: name.to_owned(),
            stream: line.stream,
            time: line.time,
            line: line.bytes,
        });
    };
    let mut lines = Lines::untimed();
    while let Some(message) = output.try_next().await? {
        lines.push(&message).into_iter().for_each(&mut tell);
    }
    lines.rest().for_each(&mut tell);
    Ok(last_lines)
}

/// Runs a command; its output is the instance's. Its exit code and last lines.
pub(super) async fn execute(
    engine: &Engine,
    id: &str,
    name: &str,
    hook: Hook,
    events: &Events,
) -> Result<(i32, Vec<String>), Error> {
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(hook.command),
        user: hook.user,
        privileged: Some(hook.privileged),
        working_dir: hook.working_dir,
        env: Some(hook.environment),
        ..ExecConfig::default()
    };
    let exec = engine.docker.create_exec(id, config).await?.id;
    let started = engine
        .docker
        .start_exec(&exec, None::<StartExecOptions>)
        .await?;
    let last_lines = match started {
        StartExecResults::Attached { output, .. } => told(output, name, events).await?,
        StartExecResults::Detached => Vec::new(),
    };
    let code = engine.docker.inspect_exec(&exec).await?.exit_code;
    // Gone before it could be asked: nothing is known against it.
    let code = i32::try_from(code.unwrap_or(0)).unwrap_or(i32::MAX);
    Ok((code, last_lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_records_counts_before_the_file() {
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect()
        };
        let declared = Declared::from([("web".to_owned(), text(&[(labels::PRE_STOP, "file")]))]);
        let found = |pairs: &[(&str, &str)]| {
            hooks_of(Some(&declared), labels::PRE_STOP, &text(pairs)).cloned()
        };
        let service = (labels::SERVICE, "web");
        let own = (labels::PRE_STOP, "label");
        assert_eq!(found(&[service, own]).as_deref(), Some("label"));
        assert_eq!(found(&[service]).as_deref(), Some("file"));
        assert_eq!(found(&[service, (labels::ONE_OFF, "True")]), None);
        assert_eq!(found(&[(labels::SERVICE, "db")]), None);
    }
}
