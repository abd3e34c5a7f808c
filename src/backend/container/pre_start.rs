//! `pre_start`: a command in a container of its own, with the volumes of the one that it prepares, which exists and does
//! not run.
//!
//! The engine removes it when it ends, also where nobody waits for that any more. Its name is the same each time: what
//! an earlier command has left is found by it, and no two run at the same time.

use std::sync::Arc;

use bollard::query_parameters::AttachContainerOptionsBuilder;

use super::{Containers, Engine, create, hooks, labels, observe, start};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::naming::{HOOK, PRE_START};
use crate::plan::step::{InstanceSpec, Preparation};
use crate::state::InstanceId;

/// Where it is run.
pub(super) struct Site<'a> {
    pub(super) containers: &'a Containers,
    pub(super) engine: &'a Engine,
    /// The instance that is prepared, whose output its own is.
    pub(super) name: &'a str,
    pub(super) events: &'a Events,
}

impl Site<'_> {
    /// Runs the command of a preparation, before the start of the container `id`. `runs` is told of the container that
    /// is run for it.
    pub(super) async fn run(
        &self,
        id: &str,
        preparation: &Preparation,
        runs: impl Fn(InstanceId),
    ) -> Result<(), BackendError> {
        let mut spec = preparation.spec.clone();
        Arc::make_mut(&mut spec.service)
            .volumes_from
            .push(format!("container:{id}"));
        self.clear(&spec, &runs).await?;
        let own = create::container(self.containers, &spec, self.events).await?;
        runs(own.clone());
        let (code, last_lines) = match self.attached(&own.0, &spec.name).await {
            Ok(ran) => ran,
            Err(error) => {
                // What never ran is not removed by the engine.
                create::remove(self.engine, &own.0).await;
                return Err(error);
            }
        };
        if code == 0 {
            return Ok(());
        }
        let command = preparation.hook.command.join(" ");
        Err(BackendError::Hook {
            name: self.name.to_owned(),
            what: PRE_START.to_owned(),
            service: Some(spec.service.name.clone()),
            command: if command.is_empty() {
                spec.image
            } else {
                command
            },
            code,
            last_lines,
        })
    }

    /// Starts it and stays with it until the engine has removed it; its exit code and last lines.
    async fn attached(&self, id: &str, own_name: &str) -> Result<(i32, Vec<String>), BackendError> {
        let engine = self.engine;
        let refused = |error| engine.refused(format!("attach to {own_name}"), error);
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdout(true)
            .stderr(true)
            .build();
        // Both before the start: it may be over in a moment.
        let output = engine.docker.attach_container(id, Some(options)).await;
        let output = output.map_err(refused)?.output;
        let ending = self.containers.ending(id, own_name, "removed").await?;
        start::container(engine, id, own_name).await?;
        let last_lines = hooks::told(output, self.name, self.events).await;
        let last_lines = last_lines.map_err(refused)?;
        Ok((ending.code().await?, last_lines))
    }

    /// Makes room for it: what an earlier command left behind is removed, and what it started and that still runs is
    /// waited for, since to cut it off could leave its work half done.
    async fn clear(
        &self,
        spec: &InstanceSpec,
        runs: &impl Fn(InstanceId),
    ) -> Result<(), BackendError> {
        let (engine, name) = (self.engine, &spec.name);
        let refused = |error| engine.refused(format!("inspect {name}"), error);
        let Some(found) = observe::inspect(engine, name).await.map_err(refused)? else {
            return Ok(());
        };
        let has = |label: &str, value: &str| {
            let mut labels = found.config.labels.iter();
            labels.any(|(key, is)| key == label && is == value)
        };
        if !has(labels::PROJECT, &spec.project.name) || !has(HOOK, PRE_START) {
            // To make another one says whose it is.
            return Ok(());
        }
        if found.state.running {
            self.events.send(Event::Note(format!(
                "{name} still runs, started by an earlier command: waiting for its end"
            )));
            runs(InstanceId(found.id.clone()));
            let containers = self.containers;
            let ending = containers.ending(&found.id, name, "not-running").await?;
            ending.code().await?;
        }
        self.containers.discard(&found.id, name).await
    }
}
