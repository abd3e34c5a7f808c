//! A connection that stops speaking HTTP and goes over to a program's own bytes (Engine API,
//! `ContainerAttach`). bollard's decoder guesses which form the stream has, which loses bytes of a
//! terminal's output; here the form is known.

use bollard::BollardRequest;
use bollard::errors::Error;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::split;

use super::{Engine, wire};
use crate::backend::streams::Streams;

/// Asks for a connection that goes over to the program's own bytes.
pub(super) async fn open(
    engine: &Engine,
    path_and_query: &str,
    body: Option<&Value>,
    tty: bool,
) -> Result<Streams, Error> {
    let mut request: BollardRequest = Request::builder()
        .method(Method::POST)
        .uri(path_and_query)
        .body(bollard::body_full(
            body.map_or_else(Bytes::new, |body| body.to_string().into()),
        ))?;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    if body.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let response = engine.wire.send(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(wire::refusal(response).await);
    }
    let upgraded = hyper::upgrade::on(response).await?;
    let (read, write) = split(TokioIo::new(upgraded));
    Ok(Streams::new(read, write, !tty))
}
