//! HTTP/1.1: one GET and the head of its response. Redirects are answers, not ways to follow.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::witness::{Beginning, Witness};
use super::{Awaited, Miss, authority, rooted};

type Body = Empty<Bytes>;
type Connection = http1::Connection<TokioIo<Witness>, Body>;

/// A response whose connection is still open.
pub(super) struct Exchange {
    response: Response<Incoming>,
    link: Link,
    // Dropping the sender would tell the connection to end.
    _sender: http1::SendRequest<Body>,
}

impl Exchange {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The body, if it arrives whole by `by` and has at most `limit` bytes.
    pub(super) async fn body(mut self, limit: usize, by: Instant) -> Option<Bytes> {
        let body = Limited::new(self.response.into_body(), limit).collect();
        let whole = timeout_at(by, self.link.during(body)).await.ok()?.ok()?;
        Some(whole.to_bytes())
    }
}

/// The connection's own work, which goes on while something else is awaited.
struct Link(Option<Pin<Box<Connection>>>);

impl Link {
    /// Awaits `work` and keeps the connection moving. The end of the connection is not an error here:
    /// `work` learns of it and tells better what it lost.
    async fn during<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = Box::pin(work);
        poll_fn(|context| {
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(output);
            }
            if let Some(connection) = &mut self.0
                && connection.as_mut().poll(context).is_ready()
            {
                self.0 = None;
            }
            // The connection's progress is the work's: look again at once.
            work.as_mut().poll(context)
        })
        .await
    }
}

/// Sends `GET path` and waits for the head of the response.
pub(super) async fn ask(
    stream: TcpStream,
    address: SocketAddr,
    path: &str,
    by: Instant,
) -> Result<Exchange, Miss> {
    let request = Request::get(rooted(path))
        .header(HOST, authority(address))
        .header(USER_AGENT, concat!("wharf/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .body(Body::new())
        .map_err(|_| Miss::BadPath {
            path: path.to_owned(),
        })?;
    let (witness, beginning) = Witness::new(stream);
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(witness)).await?;
        let mut link = Link(Some(Box::pin(connection)));
        let response = link.during(sender.send_request(request)).await?;
        Ok(Exchange {
            response,
            link,
            _sender: sender,
        })
    };
    match timeout_at(by, exchange).await {
        Ok(Ok(exchange)) => Ok(exchange),
        Ok(Err(error)) => Err(miss(&error, &beginning)),
        Err(_) => Err(Miss::TimedOut {
            awaited: Awaited::Response,
        }),
    }
}

fn miss(error: &hyper::Error, beginning: &Beginning) -> Miss {
    match beginning.describe() {
        None => Miss::ClosedEarly,
        Some(detail) if error.is_parse() => Miss::NotHttp { detail },
        Some(detail) => Miss::NotHttp {
            detail: format!("{detail} and closed the connection"),
        },
    }
}
