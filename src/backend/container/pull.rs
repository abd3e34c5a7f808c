//! Pulling an image: one request, its progress as lines.

use bollard::errors::Error;
use futures_util::TryStreamExt;
use hyper::http::request;
use hyper::{Method, Request};
use serde_json::Value;

use super::observe::encoded;
use super::{Engine, PATIENCE, registry, wire};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::project::reference::Reference;

/// Pulls `image` for a platform, or for the engine's own.
pub(super) async fn image(
    engine: &Engine,
    subject: &str,
    image: &str,
    platform: Option<&str>,
    events: &Events,
) -> Result<(), BackendError> {
    let (name, tag) = reference(image);
    let mut path = format!(
        "/images/create?fromImage={}&tag={}",
        encoded(name),
        encoded(tag)
    );
    if let Some(platform) = platform.or(engine.platform.as_deref()) {
        path.push_str("&platform=");
        path.push_str(&encoded(platform));
    }
    let done = async {
        let mut request = Request::builder().method(Method::POST).uri(path);
        let identity = engine.credentials.for_image(image).await;
        engine.credentials.tell(events);
        if let Some(identity) = identity {
            request = request.header(wire::REGISTRY_AUTH, identity);
        }
        followed(engine, request, subject, events).await
    };
    let registry = Reference::parse(image).map(|image| image.registry);
    done.await.map_err(|error| {
        let action = format!("cannot pull image {image}");
        registry::refusal(engine, action, &registry.unwrap_or_default(), error)
    })
}

/// Makes the request of a pull or a push, and tells what it says until it is over.
pub(super) async fn followed(
    engine: &Engine,
    request: request::Builder,
    subject: &str,
    events: &Events,
) -> Result<(), Error> {
    let request = request
        .body(bollard::body_full(Vec::new().into()))
        .map_err(|err| Error::HttpClientError { err })?;
    let response = tokio::time::timeout(PATIENCE, engine.wire.checked(request))
        .await
        .map_err(|_| Error::RequestTimeoutError)??;
    let mut lines = std::pin::pin!(wire::json_lines(response.into_body()));
    while let Some(message) = lines.try_next().await? {
        told(&message, subject, events)?;
    }
    Ok(())
}

/// Tells one message of a pull or a push; an error in it ends the whole.
fn told(message: &Value, subject: &str, events: &Events) -> Result<(), Error> {
    let error = message["errorDetail"]["message"]
        .as_str()
        .or(message["error"].as_str());
    if let Some(error) = error {
        return Err(Error::DockerStreamError {
            error: error.to_owned(),
        });
    }
    // Bars move many times a second; only what a line can say is told.
    if let Some(status) = message["status"].as_str()
        && message["progress"].as_str().is_none_or(str::is_empty)
    {
        let line = match message["id"].as_str() {
            Some(id) => format!("{id}: {status}"),
            None => status.to_owned(),
        };
        events.send(Event::Progress {
            subject: subject.to_owned(),
            line,
        });
    }
    Ok(())
}

/// Splits a reference into its name and its tag or digest.
pub(super) fn reference(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split() {
        for (image, parts) in [
            ("busybox", ("busybox", "latest")),
            ("a/b:1", ("a/b", "1")),
            ("localhost:5000/a", ("localhost:5000/a", "latest")),
            ("localhost:5000/a:2", ("localhost:5000/a", "2")),
            ("a@sha256:00", ("a", "sha256:00")),
        ] {
            assert_eq!(reference(image), parts);
        }
    }
}
