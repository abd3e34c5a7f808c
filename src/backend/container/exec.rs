//! Another program in a container that runs (`exec`).

use std::time::Duration;

use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;

use super::hijack;
use super::{ApiVersion, Containers};
use crate::backend::BackendError;
use crate::backend::streams::{Size, Streams};

/// How long the engine may take to note the end of a program whose output has ended.
const NOTED: Duration = Duration::from_secs(1);

/// How long to wait before asking again.
const AGAIN: Duration = Duration::from_millis(10);

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    /// argv.
    pub command: Vec<String>,
    /// `KEY=value`, on top of the container's environment.
    pub environment: Vec<String>,
    /// `user[:group]`; `None`: the container's.
    pub user: Option<String>,
    /// `None`: the container's.
    pub working_dir: Option<String>,
    /// All privileges.
    pub privileged: bool,
    /// On a terminal of its own.
    pub tty: bool,
    /// With the caller's standard input.
    pub stdin: bool,
    /// The keys that detach, as the Docker configuration writes them; `None`: ctrl-p, ctrl-q.
    pub detach_keys: Option<String>,
}

/// A program that was started.
#[derive(Debug)]
pub struct Executed {
    /// The engine's id for it.
    pub id: String,
    /// Its input and output.
    pub streams: Streams,
}

impl Containers {
    /// Starts a program in the container `id` (called `name`) and connects to it.
    ///
    /// # Errors
    /// The engine's refusal. A program that cannot be found or executed is no refusal: it ends at once,
    /// with code 126 or 127.
    pub async fn exec(
        &self,
        id: &str,
        name: &str,
        exec: &Exec,
        size: Option<Size>,
    ) -> Result<Executed, BackendError> {
        let engine = self.engine().await?;
        let refused = |error| engine.refused(action(exec, name), error);
        let created = self.create_exec(id, exec).await?.map_err(refused)?;
        let mut start = serde_json::json!({ "Detach": false, "Tty": exec.tty });
        // Older engines refuse the field.
        if let Some(size) = size.filter(|_| exec.tty && engine.api >= ApiVersion(1, 42)) {
            start["ConsoleSize"] = serde_json::json!([size.rows, size.columns]);
        }
        let path = format!("/exec/{created}/start");
        let streams = hijack::open(engine, &path, Some(&start), exec.tty)
            .await
            .map_err(refused)?;
        Ok(Executed {
            id: created,
            streams,
        })
    }

    /// Starts a program and leaves it to itself.
    ///
    /// # Errors
    /// As [`Containers::exec`].
    pub async fn exec_detached(
        &self,
        id: &str,
        name: &str,
        exec: &Exec,
    ) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        let refused = |error| engine.refused(action(exec, name), error);
        let created = self.create_exec(id, exec).await?.map_err(refused)?;
        let options = StartExecOptions {
            detach: true,
            tty: exec.tty,
            ..StartExecOptions::default()
        };
        match engine.docker.start_exec(&created, Some(options)).await {
            Ok(StartExecResults::Attached { .. } | StartExecResults::Detached) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }

    /// The exit code of a program whose output has ended; 0 when it goes on nevertheless.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn exec_code(&self, exec: &str, name: &str) -> Result<i32, BackendError> {
        let engine = self.engine().await?;
        let end = tokio::time::Instant::now() + NOTED;
        loop {
            let found = engine.docker.inspect_exec(exec).await.map_err(|error| {
                engine.refused(format!("tell how the program in {name} ended"), error)
            })?;
            if found.running != Some(true) || tokio::time::Instant::now() >= end {
                let code = found.exit_code.unwrap_or(0);
                return Ok(i32::try_from(code).unwrap_or(i32::MAX));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn create_exec(
        &self,
        id: &str,
        exec: &Exec,
    ) -> Result<Result<String, Error>, BackendError> {
        let engine = self.engine().await?;
        let config = ExecConfig {
            attach_stdin: Some(exec.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            detach_keys: exec.detach_keys.clone(),
            tty: Some(exec.tty),
            env: Some(exec.environment.clone()),
            cmd: Some(exec.command.clone()),
            privileged: Some(exec.privileged),
            user: exec.user.clone(),
            working_dir: exec.working_dir.clone(),
            ..ExecConfig::default()
        };
        Ok(engine
            .docker
            .create_exec(id, config)
            .await
            .map(|made| made.id))
    }
}

fn action(exec: &Exec, name: &str) -> String {
    format!("run `{}` in {name}", exec.command.join(" "))
}
