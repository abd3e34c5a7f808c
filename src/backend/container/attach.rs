//! The main program of a container and a terminal: its streams, its terminal's size, signals, its end.

use bollard::errors::Error;
use bollard::models::ContainerWaitResponse;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder,
    ResizeExecOptionsBuilder,
};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request};
use serde::Deserialize;

use super::fault::is_missing;
use super::hijack;
use super::observe::encoded;
use super::{Containers, Engine, connect, start};
use crate::backend::BackendError;
use crate::backend::streams::{Program, Size, Streams};

/// What a container's main program was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// A terminal.
    pub tty: bool,
    /// A standard input that somebody can write to.
    pub stdin: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    tty: bool,
    #[serde(default)]
    open_stdin: bool,
}

/// The Docker configuration file, as far as terminals go.
#[derive(Deserialize)]
struct Configured {
    #[serde(rename = "detachKeys")]
    detach_keys: Option<String>,
}

/// The end of a container, which is being waited for.
#[derive(Debug)]
pub struct Ending {
    body: Incoming,
    name: String,
    endpoint: String,
}

impl Ending {
    /// Waits for it; the exit code.
    ///
    /// # Errors
    /// The engine went away, or says why it cannot tell.
    pub async fn code(self) -> Result<i32, BackendError> {
        let refused =
            |error| super::fault::refused(&self.endpoint, format!("wait for {}", self.name), error);
        let body = self.body.collect().await;
        let body = body.map_err(|error| refused(error.into()))?.to_bytes();
        let reply: ContainerWaitResponse =
            serde_json::from_slice(&body).map_err(|error| refused(error.into()))?;
        if let Some(message) = reply
            .error
            .and_then(|error| error.message)
            .filter(|message| !message.is_empty())
        {
            return Err(refused(Error::DockerStreamError { error: message }));
        }
        Ok(i32::try_from(reply.status_code).unwrap_or(i32::MAX))
    }
}

impl Containers {
    /// The keys that detach, where the user's Docker configuration names some.
    pub fn detach_keys(&self) -> Option<String> {
        let directory = connect::directory(&self.shared.env)?;
        let text = std::fs::read(directory.join("config.json")).ok()?;
        serde_json::from_slice::<Configured>(&text)
            .ok()?
            .detach_keys
            .filter(|keys| !keys.is_empty())
    }

    /// What the main program of a container was given.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn given(&self, id: &str, name: &str) -> Result<Given, BackendError> {
        let engine = self.engine().await?;
        let path = format!("/containers/{}/json", encoded(id));
        let found: Inspected = engine
            .get(&path)
            .await
            .map_err(|error| engine.refused(format!("inspect {name}"), error))?;
        Ok(Given {
            tty: found.config.tty,
            stdin: found.config.open_stdin,
        })
    }

    /// Connects to a container's main program.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn attach(
        &self,
        id: &str,
        name: &str,
        given: Given,
        detach_keys: Option<&str>,
    ) -> Result<Streams, BackendError> {
        let engine = self.engine().await?;
        let path = format!(
            "/containers/{}/attach?stream=1&stdout=1&stderr=1&stdin={}&detachKeys={}",
            encoded(id),
            u8::from(given.stdin),
            encoded(detach_keys.unwrap_or_default())
        );
        hijack::open(engine, &path, None, given.tty)
            .await
            .map_err(|error| engine.refused(format!("attach to {name}"), error))
    }

    /// Tells a program's terminal its size.
    ///
    /// # Errors
    /// The engine's refusal, also while the program is just being started.
    pub async fn resize(&self, program: &Program, size: Size) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        let (rows, columns) = (i32::from(size.rows), i32::from(size.columns));
        let resized = match program {
            Program::Main(id) => {
                let options = ResizeContainerTTYOptionsBuilder::new().h(rows).w(columns);
                engine
                    .docker
                    .resize_container_tty(id, options.build())
                    .await
            }
            Program::Exec(id) => {
                let options = ResizeExecOptionsBuilder::new().h(rows).w(columns);
                engine.docker.resize_exec(id, options.build()).await
            }
            Program::Pty(_) => Ok(()),
        };
        resized.map_err(|error| engine.refused("resize a terminal", error))
    }

    /// Sends a signal, by its name, to a container's main program. One that has ended is no error.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn signal(&self, id: &str, name: &str, signal: &str) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        match engine.docker.kill_container(id, Some(options)).await {
            Err(error) if !is_missing(&error) && !super::fault::has_status(&error, 409) => {
                Err(engine.refused(format!("send {signal} to {name}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Begins to wait for the end of a container: of its next run, or of the container itself where it is
    /// removed at its end. Returns once the engine watches.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn ending(
        &self,
        id: &str,
        name: &str,
        condition: &'static str,
    ) -> Result<Ending, BackendError> {
        let engine = self.engine().await?;
        let response = waiting(engine, id, condition).await;
        let response =
            response.map_err(|error| engine.refused(format!("wait for {name}"), error))?;
        Ok(Ending {
            body: response.into_body(),
            name: name.to_owned(),
            endpoint: engine.info.endpoint.clone(),
        })
    }

    /// Starts a container that was made for one command.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn start_one_off(&self, id: &str, name: &str) -> Result<(), BackendError> {
        start::container(self.engine().await?, id, name).await
    }

    /// Removes a container whatever its state, with its anonymous volumes. One that is gone is no error.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn discard(&self, id: &str, name: &str) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
        match engine
            .docker
            .remove_container(id, Some(options.build()))
            .await
        {
            // 409: the engine is removing it by itself.
            Err(error) if !is_missing(&error) && !super::fault::has_status(&error, 409) => {
                Err(engine.refused(format!("remove {name}"), error))
            }
            _ => Ok(()),
        }
    }
}

async fn waiting(
    engine: &Engine,
    id: &str,
    condition: &str,
) -> Result<hyper::Response<Incoming>, Error> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!(
            "/containers/{}/wait?condition={condition}",
            encoded(id)
        ))
        .body(bollard::body_full(Bytes::new()))?;
    engine.wire.checked(request).await
}
