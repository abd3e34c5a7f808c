//! What a registry knows, asked through the engine, and what its refusals mean.
//!
//! Only looks; pulling and pushing have files of their own.

use bollard::errors::Error;
use http_body_util::BodyExt;
use hyper::{Method, Request};
use serde::Deserialize;

use super::fault::{self, Refusal};
use super::observe::encoded;
use super::{Containers, Engine, LOOK, wire};
use crate::backend::BackendError;
use crate::project::reference::Reference;

/// The reply to `GET /distribution/{name}/json`.
#[derive(Deserialize)]
struct Distribution {
    #[serde(rename = "Descriptor")]
    descriptor: Descriptor,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

impl Containers {
    /// The digest that an image's registry has for it now, e.g. `sha256:…`; the image need not be here.
    pub async fn digest(&self, image: &Reference) -> Result<String, BackendError> {
        let engine = self.engine().await?;
        let name = image.to_string();
        look(engine, &name).await.map_err(|error| {
            refusal(
                engine,
                format!("failed to resolve digest for {name}"),
                &image.registry,
                error,
            )
        })
    }
}

async fn look(engine: &Engine, image: &str) -> Result<String, Error> {
    let path: Vec<String> = image.split('/').map(encoded).collect();
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(format!("/distribution/{}/json", path.join("/")));
    if let Some(identity) = engine.credentials.for_image(image).await {
        request = request.header(wire::REGISTRY_AUTH, identity);
    }
    let request = request
        .body(bollard::body_full(Vec::new().into()))
        .map_err(|err| Error::HttpClientError { err })?;
    let response = tokio::time::timeout(LOOK, engine.wire.checked(request))
        .await
        .map_err(|_| Error::RequestTimeoutError)??;
    let body = response.into_body().collect().await?.to_bytes();
    let reply: Distribution = serde_json::from_slice(&body)?;
    Ok(reply.descriptor.digest)
}

/// The error of a request that the engine passed on to a registry; `action` says what failed.
pub(super) fn refusal(
    engine: &Engine,
    action: String,
    registry: &str,
    error: Error,
) -> BackendError {
    match Refusal::of(error) {
        Ok(refusal) => BackendError::Registry {
            action,
            registry: registry.to_owned(),
            source: Box::new(refusal),
        },
        Err(other) => fault::refused(&engine.info.endpoint, action, other),
    }
}
