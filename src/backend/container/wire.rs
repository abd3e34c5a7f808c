//! The connection under bollard: one HTTP/1.1 exchange per request, with the API version in its path.
//!
//! bollard 0.21 computes a versioned path and then loses it, so every request would run at the engine's
//! newest version; here the negotiated version is put in front. The same connection serves replies
//! that must be decoded leniently ([`Wire::get`]), for engines whose words the generated types do not know.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bollard::BollardRequest;
use bollard::errors::Error;
use futures_util::{Stream, stream};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use hyper::http::uri::PathAndQuery;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::connect::Endpoint;
use super::{ssh, tls};
use crate::backend::BackendError;
use crate::project::Env;

/// Who we are at the registry that a request is passed on to.
pub(super) const REGISTRY_AUTH: &str = "X-Registry-Auth";

/// A connection could not even be made; tells an absent engine from one that answers badly.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect")]
pub(super) struct Unconnected(#[source] io::Error);

impl Unconnected {
    /// What the system said.
    pub(super) fn reason(self) -> io::Error {
        self.0
    }
}

/// A connection that is kept for the next request.
type Kept = SendRequest<Body>;

/// The body of a [`BollardRequest`].
type Body =
    Either<Full<Bytes>, StreamBody<Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>> + Send>>>>;

/// The way to one engine.
#[derive(Debug)]
pub(super) struct Wire {
    endpoint: Endpoint,
    /// Where programs are looked for.
    path: Option<String>,
    /// `/v1.41`, once negotiated.
    prefix: OnceLock<String>,
    /// What TLS needs, read when it is first needed.
    tls: OnceLock<Arc<ClientConfig>>,
    /// Connections that cost more than a request, and the one that the engine was greeted on.
    kept: Mutex<Vec<Kept>>,
}

impl Wire {
    /// Connects to nothing yet.
    pub(super) fn new(endpoint: Endpoint, env: &Env) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            path: env.get("PATH").map(str::to_owned),
            prefix: OnceLock::new(),
            tls: OnceLock::new(),
            kept: Mutex::new(Vec::new()),
        })
    }

    /// From now on every request is made at this API version; the first call counts.
    pub(super) fn speak(&self, version: ApiVersion) {
        self.prefix.get_or_init(|| format!("/v{version}"));
    }

    /// Sends one request: over a connection of its own where making one is cheap.
    pub(super) async fn send(&self, request: BollardRequest) -> Result<Response<Incoming>, Error> {
        let (response, connection) = self.send_over(request).await?;
        let costly = match &self.endpoint {
            Endpoint::Unix(_) | Endpoint::Tcp(_) => false,
            Endpoint::Tls { .. } | Endpoint::Ssh(_) => true,
        };
        if costly && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.keep(connection);
        }
        Ok(response)
    }

    /// Sends one request; returns what it was sent over, too.
    async fn send_over(
        &self,
        mut request: BollardRequest,
    ) -> Result<(Response<Incoming>, Kept), Error> {
        self.address(&mut request)?;
        if let Some(mut kept) = self.take_kept() {
            match kept.try_send_request(request).await {
                Ok(response) => return Ok((response, kept)),
                // Closed by the engine in the same moment; it has not seen the request.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
        match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unconnected)?;
                exchange(handshake(stream).await?, request).await
            }
            Endpoint::Tcp(authority) => {
                let stream = TcpStream::connect(authority.as_str()).await;
                let stream = stream.map_err(unconnected)?;
                exchange(handshake(stream).await?, request).await
            }
            Endpoint::Tls { authority, files } => {
                let config = if let Some(config) = self.tls.get() {
                    Arc::clone(config)
                } else {
                    let config = tls::config(files).map_err(|error| {
                        unconnected(io::Error::new(io::ErrorKind::InvalidInput, error))
                    })?;
                    Arc::clone(self.tls.get_or_init(|| config))
                };
                let stream = tls::connect(config, authority).await;
                let sender = handshake(stream.map_err(unconnected)?).await?;
                // A server that refuses our certificate says so when it is first asked.
                let sent = exchange(sender, request).await;
                sent.map_err(|error| {
                    if let Error::HyperResponseError { err } = error {
                        unconnected(io::Error::other(err))
                    } else {
                        error
                    }
                })
            }
            Endpoint::Ssh(host) => {
                let (stream, last_words) =
                    ssh::connect(host, self.path.as_deref()).map_err(unconnected)?;
                let sent = async {
                    let sender = handshake(stream).await?;
                    exchange(sender, request).await
                };
                match sent.await {
                    Err(Error::HyperResponseError { err }) => {
                        Err(unconnected(last_words.explain(err).await))
                    }
                    other => other,
                }
            }
        }
    }

    fn keep(&self, connection: Kept) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(connection);
    }

    /// A kept connection that is free.
    fn take_kept(&self) -> Option<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|sender| !sender.is_closed());
        let free = kept.iter().position(SendRequest::is_ready)?;
        Some(kept.swap_remove(free))
    }

    /// Asks for a connection of another protocol and takes it over.
    pub(super) async fn hijack(
        &self,
        request: hyper::http::request::Builder,
        protocol: &str,
    ) -> Result<Upgraded, Error> {
        let request = request
            .method(Method::POST)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, protocol)
            .body(bollard::body_full(Bytes::new()))?;
        let response = self.send(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(hyper::upgrade::on(response).await?);
        }
        Err(refusal(response).await)
    }

    /// The engine's version and the newest API it speaks: the headers of `GET /_ping`, which costs the
    /// engine nothing (`/version` makes it run other programs). The next request goes over the same connection.
    pub(super) async fn hello(&self) -> Result<(String, ApiVersion), Error> {
        let request = Request::builder()
            .method(Method::GET)
            .uri("/_ping")
            .body(bollard::body_full(Bytes::new()))?;
        let (response, mut connection) = self.send_over(request).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let (head, body) = response.into_parts();
        body.collect().await?;
        if connection.ready().await.is_ok() {
            self.keep(connection);
        }
        let header = |name: &str| head.headers.get(name)?.to_str().ok();
        let api = header("Api-Version")
            .and_then(ApiVersion::parse)
            .ok_or_else(|| Error::HttpHeaderNotFoundError("Api-Version".to_owned()))?;
        // `Docker/20.10.24 (linux)`
        let server = header("Server").unwrap_or_default();
        let version = server.split_whitespace().next().unwrap_or_default();
        let version = version
            .split_once('/')
            .map_or(version, |(_, version)| version);
        Ok((version.to_owned(), api))
    }

    /// The body of a GET reply; a status of 400 and above is the engine's error message.
    pub(super) async fn get(&self, path_and_query: &str) -> Result<Bytes, Error> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(path_and_query)
            .body(bollard::body_full(Bytes::new()))?;
        let response = self.checked(request).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }

    /// Sends a request; a status of 400 and above is the engine's error message.
    pub(super) async fn checked(
        &self,
        request: BollardRequest,
    ) -> Result<Response<Incoming>, Error> {
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    /// Puts in what the request has to say about where it goes.
    fn address(&self, request: &mut BollardRequest) -> Result<(), Error> {
        *request.uri_mut() = self.origin_form(request.uri())?;
        let host = match &self.endpoint {
            Endpoint::Unix(_) | Endpoint::Ssh(_) => "docker",
            Endpoint::Tcp(authority) | Endpoint::Tls { authority, .. } => authority.as_str(),
        };
        if let Ok(host) = HeaderValue::from_str(host) {
            request.headers_mut().insert(HOST, host);
        }
        Ok(())
    }

    /// Path and query as HTTP/1.1 wants them (RFC 9112 §3.2.1), behind the API version.
    fn origin_form(&self, uri: &Uri) -> Result<Uri, Error> {
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let prefix = self.prefix.get().map_or("", String::as_str);
        Ok(format!("{prefix}{path}").parse()?)
    }
}

/// Sends a request over a fresh connection.
async fn exchange(
    mut sender: Kept,
    request: BollardRequest,
) -> Result<(Response<Incoming>, Kept), Error> {
    let response = sender.send_request(request).await?;
    Ok((response, sender))
}

/// Begins to speak HTTP/1.1 on a connection.
async fn handshake<S>(stream: S) -> Result<Kept, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the last exchange: its errors reach the caller through the response.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(sender)
}

/// The engine's error message, out of a response that is not what was asked for.
pub(super) async fn refusal(response: Response<Incoming>) -> Error {
    let status_code = response.status().as_u16();
    let body = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return error.into(),
    };
    let message = serde_json::from_slice::<Refusal>(&body).map_or_else(
        |_| String::from_utf8_lossy(&body).into_owned(),
        |refusal| refusal.message,
    );
    Error::DockerResponseServerError {
        status_code,
        message,
    }
}

fn unconnected(source: io::Error) -> Error {
    Error::IOError {
        err: io::Error::new(source.kind(), Unconnected(source)),
    }
}

/// The longest line of a streamed reply, in bytes: the engine's are reports of one step each.
const LONGEST_LINE: usize = 16 << 20;

/// The JSON values of a streamed reply, one per line.
pub(super) fn json_lines(body: Incoming) -> impl Stream<Item = Result<Value, Error>> + Send {
    let state = (body, Vec::<u8>::new(), false);
    stream::try_unfold(state, |(mut body, mut buffer, mut ended)| async move {
        loop {
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let line: Vec<u8> = match end {
                Some(end) => buffer.drain(..=end).collect(),
                None if ended => std::mem::take(&mut buffer),
                None => Vec::new(),
            };
            if !line.trim_ascii().is_empty() {
                let value = serde_json::from_slice(&line)?;
                return Ok(Some((value, (body, buffer, ended))));
            }
            if end.is_some() {
                continue;
            }
            if ended {
                return Ok(None);
            }
            if buffer.len() > LONGEST_LINE {
                let error = "a line of the engine's reply does not end";
                return Err(Error::from(io::Error::other(error)));
            }
            match body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        buffer.extend_from_slice(&data);
                    }
                }
                None => ended = true,
            }
        }
    })
}

#[derive(serde::Deserialize)]
struct Refusal {
    message: String,
}

/// Whether the error means that nobody listens there (or that we may not connect).
pub(super) fn is_unconnected(error: &Error) -> bool {
    let Error::IOError { err } = error else {
        return false;
    };
    err.get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Unconnected>)
}

/// A version of the Engine API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ApiVersion(pub u16, pub u16);

impl ApiVersion {
    /// The newest version that bollard's types describe.
    pub(super) const NEWEST: Self = Self(1, 53);
    /// The oldest that wharf was written for: Docker Engine 20.10.
    pub(super) const OLDEST: Self = Self(1, 41);
    /// A `BuildKit` that knows named contexts (Docker Engine 23).
    pub(super) const V1_42: Self = Self(1, 42);
    /// Several networks at `create`, `start_interval`, hardware addresses per network.
    pub(super) const V1_44: Self = Self(1, 44);

    /// A part of a volume as a mount.
    pub(super) const V1_45: Self = Self(1, 45);
    /// Networks without IPv4, images as mounts, the priority of gateways.
    pub(super) const V1_48: Self = Self(1, 48);
    /// Names of interfaces.
    pub(super) const V1_49: Self = Self(1, 49);

    /// Whether this version can do what came with `needed`; if not, an error that names both.
    pub(super) fn offers(
        self,
        needed: Self,
        engine: &str,
        who: &str,
        what: &str,
    ) -> Result<(), BackendError> {
        if self >= needed {
            return Ok(());
        }
        Err(BackendError::Unsupported(format!(
            "{who}: {what} needs API {needed} (Docker Engine {engine}), and this engine has {self}"
        )))
    }

    /// Major and minor number.
    pub(super) fn numbers(self) -> (u32, u32) {
        (self.0.into(), self.1.into())
    }

    /// Reads `1.41`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_goes_in_front_of_the_path() {
        let wire = Wire::new(Endpoint::Unix("/run/engine.sock".into()), &Env::default());
        let uri: Uri = "http://docker/containers/json?all=true".parse().unwrap();
        assert_eq!(wire.origin_form(&uri).unwrap(), "/containers/json?all=true");
        wire.speak(ApiVersion(1, 41));
        wire.speak(ApiVersion(1, 44));
        assert_eq!(
            wire.origin_form(&uri).unwrap(),
            "/v1.41/containers/json?all=true"
        );
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(ApiVersion::parse("1.9").unwrap() < ApiVersion::OLDEST);
        assert!(ApiVersion::parse("1.51").unwrap() > ApiVersion::V1_44);
        assert_eq!(ApiVersion::parse("newest"), None);
    }

    /// An engine that answers everything with its version, and so many requests a connection. Tells after each
    /// request how many connections there were.
    async fn engine(
        per_connection: usize,
    ) -> (Arc<Wire>, tokio::sync::mpsc::UnboundedReceiver<usize>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (served, counts) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            for connection in 1.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                for _ in 0..per_connection {
                    let mut asked = Vec::new();
                    while !asked.ends_with(b"\r\n\r\n") {
                        asked.push(stream.read_u8().await.unwrap());
                    }
                    let reply =
                        "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\n{}";
                    stream.write_all(reply.as_bytes()).await.unwrap();
                    served.send(connection).unwrap();
                }
            }
        });
        (Wire::new(Endpoint::Tcp(address), &Env::default()), counts)
    }

    #[tokio::test]
    async fn the_request_after_the_greeting_goes_over_the_same_connection() {
        let (wire, mut counts) = engine(2).await;
        wire.hello().await.unwrap();
        assert_eq!(counts.recv().await, Some(1));
        wire.get("/info").await.unwrap();
        assert_eq!(counts.recv().await, Some(1));
        wire.get("/info").await.unwrap();
        assert_eq!(counts.recv().await, Some(2));
    }

    #[tokio::test]
    async fn an_engine_that_closes_after_the_greeting_gets_another_connection() {
        let (wire, mut counts) = engine(1).await;
        wire.hello().await.unwrap();
        assert_eq!(counts.recv().await, Some(1));
        wire.get("/info").await.unwrap();
        assert_eq!(counts.recv().await, Some(2));
    }

    #[tokio::test]
    async fn an_absent_engine_is_told_from_a_bad_reply() {
        let wire = Wire::new(
            Endpoint::Unix("/nonexistent/engine.sock".into()),
            &Env::default(),
        );
        let error = wire.get("/info").await.unwrap_err();
        assert!(is_unconnected(&error), "{error}");
    }
}
