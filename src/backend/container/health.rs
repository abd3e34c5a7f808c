//! Waiting for a healthcheck to pass.
//!
//! The engine runs the test for the first time when one interval (30 s by default) is over. So that
//! nobody waits for that, the same test is run here from the start, at short intervals; when it passes
//! once, the engine would say healthy, too. What the engine says counts as well: the event stream tells
//! when it changes, and a slow look in between covers an event that was missed.

use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::{StreamExt, TryStreamExt};

use super::observe::verdict;
use super::reply::Inspected;
use super::{Engine, ready};
use crate::backend::BackendError;
use crate::state::Health;

/// The longest time without a look of one's own.
const AT_LEAST: Duration = Duration::from_secs(5);

/// The pause after the first run of the test; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long one run may take where the healthcheck does not say it.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits for the healthcheck's verdict.
pub(super) async fn healthy(engine: &Engine, id: &str, name: &str) -> Result<(), BackendError> {
    let begun = Instant::now();
    let refused = |error| engine.refused(format!("wait for {name}"), error);
    let changes = ready::changes(engine, &[id], &["health_status", "die", "start"])
        .await
        .map_err(refused)?;
    let mut changes = std::pin::pin!(changes);
    let first = ready::alive(engine, id, name).await?;
    let mut own = std::pin::pin!(own_check(engine, id, &first));
    loop {
        let container = ready::alive(engine, id, name).await?;
        let health = container.state.health.as_ref();
        match health.and_then(|health| verdict(&health.status)) {
            Some(Health::Healthy) => return Ok(()),
            Some(Health::Starting) => {}
            Some(Health::Unhealthy) => {
                let said = health
                    .and_then(|health| health.log.last())
                    .map(|log| log.output.trim())
                    .filter(|output| !output.is_empty())
                    .map_or_else(String::new, |output| format!(" ({output})"));
                return Err(BackendError::NotReady {
                    name: name.to_owned(),
                    seconds: begun.elapsed().as_secs(),
                    last: format!("its healthcheck says unhealthy{said}"),
                    last_lines: ready::last_lines(engine, id).await,
                });
            }
            // Between two runs there is no verdict yet.
            None if container.state.restarting => {}
            None => {
                return Err(BackendError::Unsupported(format!(
                    "{name} is to be waited for until it is healthy, and has no healthcheck"
                )));
            }
        }
        tokio::select! {
            () = &mut own => return Ok(()),
            change = tokio::time::timeout(AT_LEAST, changes.next()) => {
                if let Ok(Some(Err(error))) = change {
                    return Err(refused(error));
                }
            }
        }
    }
}

/// Runs the container's test until it passes; never returns if there is none.
async fn own_check(engine: &Engine, id: &str, container: &Inspected) {
    let Some(argv) = test(container) else {
        return std::future::pending().await;
    };
    let limit = container
        .config
        .healthcheck
        .as_ref()
        .and_then(|check| u64::try_from(check.timeout).ok())
        .filter(|nanoseconds| *nanoseconds > 0)
        .map_or(DEFAULT_TIMEOUT, Duration::from_nanos);
    let mut pause = FIRST_PAUSE;
    loop {
        // A run that cannot be made (the container is between two runs) is a run that failed.
        let passed = tokio::time::timeout(limit, passes(engine, id, &argv)).await;
        if matches!(passed, Ok(Ok(true))) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The command of a container's healthcheck, as the engine runs it.
fn test(container: &Inspected) -> Option<Vec<String>> {
    let check = container.config.healthcheck.as_ref()?;
    match check.test.split_first()? {
        (kind, argv) if kind == "CMD" => Some(argv.to_vec()),
        (kind, line) if kind == "CMD-SHELL" => {
            let shell = &container.config.shell;
            let mut argv = if shell.is_empty() {
                vec!["/bin/sh".to_owned(), "-c".to_owned()]
            } else {
                shell.clone()
            };
            argv.extend_from_slice(line);
            Some(argv)
        }
        _ => None,
    }
}

/// Runs a command in the container; whether it ended with code 0.
async fn passes(engine: &Engine, id: &str, argv: &[String]) -> Result<bool, Error> {
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(argv.to_vec()),
        ..ExecConfig::default()
    };
    let exec = engine.docker.create_exec(id, config).await?.id;
    let started = engine
        .docker
        .start_exec(&exec, None::<StartExecOptions>)
        .await?;
    if let StartExecResults::Attached { mut output, .. } = started {
        // Its output ends when it does.
        while output.try_next().await?.is_some() {}
    }
    Ok(engine.docker.inspect_exec(&exec).await?.exit_code == Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(config: &str) -> Inspected {
        let text = format!(r#"{{"Id": "x", "State": {{}}, "Config": {config}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_test_is_run_as_the_engine_runs_it() {
        for (config, argv) in [
            ("{}", None),
            (r#"{"Healthcheck": {"Test": ["NONE"]}}"#, None),
            (
                r#"{"Healthcheck": {"Test": ["CMD", "a", "b c"]}}"#,
                Some(vec!["a", "b c"]),
            ),
            (
                r#"{"Healthcheck": {"Test": ["CMD-SHELL", "a || b"]}}"#,
                Some(vec!["/bin/sh", "-c", "a || b"]),
            ),
            (
                r#"{"Shell": ["bash", "-ec"], "Healthcheck": {"Test": ["CMD-SHELL", "a"]}}"#,
                Some(vec!["bash", "-ec", "a"]),
            ),
        ] {
            let found = test(&container(config));
            let found: Option<Vec<&str>> = found
                .as_ref()
                .map(|argv| argv.iter().map(String::as_str).collect());
            assert_eq!(found, argv, "{config}");
        }
    }
}
