//! What is done to a container that exists besides starting, stopping and removing it: signals, freezing,
//! waiting for its end; and the removal of images.

use bollard::errors::Error;
use bollard::query_parameters::{KillContainerOptionsBuilder, RemoveImageOptions};

use super::fault::{has_status, is_missing};
use super::perform::says;
use super::{Containers, Engine, ready};
use crate::backend::BackendError;

impl Containers {
    /// Waits until a container does not run; its exit code.
    pub async fn wait_end(&self, id: &str, name: &str) -> Result<i32, BackendError> {
        let engine = self.engine().await?;
        ready::next_end(engine, id)
            .await
            .map_err(|error| engine.refused(format!("wait for {name}"), error))?
            .ok_or_else(|| ready::removed(name))
    }
}

/// Sends a signal, by name or number as the engine understands them. One that has ended needs none.
pub(super) async fn kill(
    engine: &Engine,
    id: &str,
    name: &str,
    signal: &str,
) -> Result<(), BackendError> {
    let options = KillContainerOptionsBuilder::new().signal(signal).build();
    match engine.docker.kill_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) if is_missing(&error) || has_ended(&error) => Ok(()),
        Err(error) => Err(engine.refused(format!("send {signal} to {name}"), error)),
    }
}

fn has_ended(error: &Error) -> bool {
    has_status(error, 409) && says(error, "is not running")
}

/// Freezes a container; one that is frozen already is an error, as for the engine.
pub(super) async fn pause(engine: &Engine, id: &str, name: &str) -> Result<(), BackendError> {
    let done = engine.docker.pause_container(id).await;
    done.map_err(|error| engine.refused(format!("pause {name}"), error))
}

/// Lets a frozen container go on; one that is not frozen is an error, as for the engine.
pub(super) async fn unpause(engine: &Engine, id: &str, name: &str) -> Result<(), BackendError> {
    let done = engine.docker.unpause_container(id).await;
    done.map_err(|error| engine.refused(format!("unpause {name}"), error))
}

/// Removes an image's name, and the image with its last one. Whether it is gone: what other containers use
/// stays.
pub(super) async fn remove_image(engine: &Engine, name: &str) -> Result<bool, BackendError> {
    let removed = engine
        .docker
        .remove_image(name, None::<RemoveImageOptions>, None)
        .await;
    match removed {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(true),
        Err(error) if has_status(&error, 409) => Ok(false),
        Err(error) => Err(engine.refused(format!("remove image {name}"), error)),
    }
}
