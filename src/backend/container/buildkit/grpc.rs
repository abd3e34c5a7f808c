//! gRPC over one HTTP/2 connection, both sides of it: calls to the engine, and answers to the calls that
//! the engine makes back through a session (grpc.io: "gRPC over HTTP2").
//!
//! Only framing, status and streams; what is called is the callers' business.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;

use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tokio::sync::mpsc::{Sender, channel};

/// What a call says of itself.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Window of a stream in bytes: a build context is larger than the 64 KiB of the default.
const WINDOW: u32 = 1 << 20;

/// Messages of an answer that may wait to be sent.
const QUEUE: usize = 16;

/// The largest message that is taken, in bytes: more than any builder sends (its limit is 16 MiB).
const LARGEST: usize = 32 << 20;

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Status {
    /// The code of the gRPC standard.
    pub code: u32,
    /// In words.
    pub message: String,
}

impl Status {
    /// The connection or a message is not as it should be.
    const INTERNAL: u32 = 13;

    pub(super) fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(5, message)
    }

    /// There is no such method.
    pub(super) fn unimplemented() -> Self {
        Self::new(12, "not offered by this session")
    }

    /// A failure of this side.
    pub(super) fn internal(message: impl fmt::Display) -> Self {
        Self::new(Self::INTERNAL, format!("{message}"))
    }

    /// The status in a reply's headers or trailers, if it says that the call failed.
    fn in_headers(headers: &HeaderMap) -> Option<Self> {
        let code: u32 = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        let message = headers
            .get("grpc-message")
            .map(|text| decoded(text.as_bytes()))
            .unwrap_or_default();
        (code != 0).then(|| Self::new(code, message))
    }
}

/// Undoes percent-encoding.
pub(super) fn decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = digits.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        if let (b'%', Some(byte)) = (first, byte) {
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Percent-encodes what a header cannot hold.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// One message behind its length.
fn framed(message: &impl Message) -> Bytes {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(body.len() + 5);
    frame.push(0);
    frame.extend(length.to_be_bytes());
    frame.extend(body);
    frame.into()
}

/// The calling side of a connection.
#[derive(Debug)]
pub(super) struct Caller {
    sender: SendRequest<Full<Bytes>>,
}

impl Caller {
    /// Begins to speak HTTP/2.
    pub(super) async fn new(connection: Upgraded) -> Result<Self, Status> {
        let (sender, driver) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .handshake(connection)
            .await
            .map_err(Status::internal)?;
        // Ends with the last call: its errors reach the callers through their answers.
        tokio::spawn(async move { drop(driver.await) });
        Ok(Self { sender })
    }

    /// Calls a method with one message; its answers come one by one.
    pub(super) async fn call(
        &self,
        method: &'static str,
        message: &impl Message,
    ) -> Result<Messages, Status> {
        self.call_within(method, &[], message).await
    }

    /// The same with headers that say what the call is a part of.
    pub(super) async fn call_within(
        &self,
        method: &'static str,
        headers: &[(&'static str, &str)],
        message: &impl Message,
    ) -> Result<Messages, Status> {
        let mut uri = hyper::http::uri::Parts::default();
        uri.scheme = Some(hyper::http::uri::Scheme::HTTP);
        uri.authority = Some(hyper::http::uri::Authority::from_static("localhost"));
        uri.path_and_query = Some(hyper::http::uri::PathAndQuery::from_static(method));
        let uri = Uri::from_parts(uri).map_err(Status::internal)?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(CONTENT_TYPE, GRPC)
            .header(TE, "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(framed(message)))
            .map_err(Status::internal)?;
        let mut sender = self.sender.clone();
        let response = sender
            .send_request(request)
            .await
            .map_err(Status::internal)?;
        if let Some(status) = Status::in_headers(response.headers()) {
            return Err(status);
        }
        if !response.status().is_success() {
            return Err(Status::internal(response.status()));
        }
        Ok(Messages::new(response.into_body()))
    }
}

/// The messages that come in.
#[derive(Debug)]
pub(super) struct Messages {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Messages {
    fn new(body: Incoming) -> Self {
        Self {
            body,
            buffer: Vec::new(),
        }
    }

    /// The next message; `None` after the last.
    pub(super) async fn next<T: Message + Default>(&mut self) -> Result<Option<T>, Status> {
        loop {
            if let Some(message) = self.complete()? {
                return T::decode(message.as_slice())
                    .map(Some)
                    .map_err(Status::internal);
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            match frame.map_err(Status::internal)?.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(other) => {
                    let status = other.trailers_ref().and_then(Status::in_headers);
                    status.map_or(Ok(()), Err)?;
                }
            }
        }
    }

    /// Takes a whole message out of what has come.
    fn complete(&mut self) -> Result<Option<Vec<u8>>, Status> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *head;
        if compressed != 0 {
            return Err(Status::unimplemented());
        }
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(Status::internal)?;
        if length > LARGEST {
            let message = format!("a message of {length} bytes is too large");
            return Err(Status::internal(message));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let message = rest[..length].to_vec();
        self.buffer.drain(..length + 5);
        Ok(Some(message))
    }
}

/// The messages that go out in answer to a call. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Answers(Sender<Frame<Bytes>>);

impl Answers {
    /// Sends one; fails when nobody listens any more.
    pub(super) async fn send(&self, message: &impl Message) -> Result<(), Status> {
        let frame = Frame::data(framed(message));
        self.0.send(frame).await.map_err(|_| gone())
    }

    /// The same from a thread that may wait.
    pub(super) fn send_now(&self, message: &impl Message) -> Result<(), Status> {
        let frame = Frame::data(framed(message));
        self.0.blocking_send(frame).map_err(|_| gone())
    }

    async fn end(self, outcome: Result<(), Status>) {
        let status = outcome.err().unwrap_or(Status::new(0, ""));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(status.code));
        if let Ok(message) = HeaderValue::from_str(&encoded(&status.message)) {
            trailers.insert("grpc-message", message);
        }
        // Whoever went away does not miss it.
        drop(self.0.send(Frame::trailers(trailers)).await);
    }
}

fn gone() -> Status {
    Status::new(1, "the call was given up")
}

/// A call that came in.
#[derive(Debug)]
pub(super) struct Call {
    /// `/package.Service/Method`.
    pub method: String,
    /// What was said beside the messages.
    pub metadata: HeaderMap,
    /// What is said.
    pub messages: Messages,
    /// What is answered.
    pub answers: Answers,
}

/// Answers calls until the connection ends; each runs at the same time as the others.
pub(super) async fn serve<F, A>(connection: Upgraded, answer: F)
where
    F: Fn(Call) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<(), Status>> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let (sender, receiver) = channel(QUEUE);
            let answers = Answers(sender);
            let call = Call {
                method: head.uri.path().to_owned(),
                metadata: head.headers,
                messages: Messages::new(body),
                answers: answers.clone(),
            };
            let answering = answer(call);
            tokio::spawn(async move { answers.end(answering.await).await });
            let frames = stream::unfold(receiver, |mut receiver| async {
                let frame = receiver.recv().await?;
                Some((Ok::<_, Infallible>(frame), receiver))
            });
            let mut response = Response::new(BoxBody::new(StreamBody::new(frames)));
            response.headers_mut().insert(CONTENT_TYPE, GRPC);
            Ok::<_, Infallible>(response)
        }
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .serve_connection(connection, service);
    // It ends when the build does, often without a farewell.
    drop(server.await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_status_survive_a_header() {
        let text = "failed: 100% of \u{e4}\n";
        let header = encoded(text);
        assert_eq!(header, "failed: 100%25 of %C3%A4%0A");
        assert_eq!(decoded(header.as_bytes()), text);
        assert_eq!(decoded(b"50% off"), "50% off");
    }
}
