//! IS IT READY: one attempt of each kind, and the loop around them.
//!
//! Used by `AwaitReady` steps and by `status` and `ps`. It connects, asks and says precisely what it
//! found. An open [`Probe`] keeps its connection, so that the caller can look up which process accepted
//! it before trusting the answer. It starts nothing, stops nothing and prints nothing.

mod health;
mod http;
mod tcp;
mod websocket;
mod witness;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::state::ProbeKind;

pub use health::health;

/// The pause after the first miss; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The longest single attempt inside [`until_answered`]. A connection that waits in the backlog of a
/// server that is still loading is answered as soon as the server accepts, so giving up early gains
/// nothing; never giving up would hang on a connection that a dying server took with it.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(5);

/// How long a clean goodbye may take; the answer is in hand by then.
const GOODBYE: Duration = Duration::from_millis(100);

/// What answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Our end of the connection.
    pub local: SocketAddr,
    /// The server's end.
    pub remote: SocketAddr,
    /// What the answer was: `WebSocket handshake`, `HTTP 200`, `TCP connection`.
    pub what: String,
}

/// What an attempt waited for when its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The connection.
    Connection,
    /// The response to the WebSocket upgrade.
    Handshake,
    /// The response to an HTTP request.
    Response,
}

/// Why an attempt is not an answer: what was found instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// Nobody listens (ECONNREFUSED).
    #[error("nobody is listening")]
    Refused,
    /// There is no way to the address.
    #[error("cannot connect: {reason}")]
    Unreachable {
        /// The operating system's reason.
        reason: String,
    },
    /// Time was over.
    #[error("{}", late(*.awaited))]
    TimedOut {
        /// What was missing.
        awaited: Awaited,
    },
    /// Something else than a WebSocket server, or no WebSocket endpoint at this path.
    #[error("listening, but no WebSocket handshake ({detail})")]
    NotWebSocket {
        /// The status code, if it was an HTTP response.
        status: Option<u16>,
        /// What was received instead, in words.
        detail: String,
    },
    /// The `Sec-WebSocket-Accept` of the response is wrong or missing (RFC 6455 §4.1).
    #[error("listening, but the WebSocket handshake is wrong (bad Sec-WebSocket-Accept)")]
    BadAccept,
    /// The connection was accepted and then closed without an answer.
    #[error("listening, but closed the connection without an answer")]
    ClosedEarly,
    /// The handshake succeeded, the ping stayed without its pong (RFC 6455 §5.5.3).
    #[error("listening, WebSocket handshake done, but the ping was not answered")]
    NoPong,
    /// An HTTP server that says it cannot serve.
    #[error("listening, but answers HTTP {0}")]
    HttpStatus(u16),
    /// Not an HTTP server.
    #[error("listening, but no HTTP response ({detail})")]
    NotHttp {
        /// What was received instead, in words.
        detail: String,
    },
    /// The path cannot stand in a request.
    #[error("`{path}` is not a path that can be requested")]
    BadPath {
        /// The path.
        path: String,
    },
    /// It answered, but the caller says that it is not the server that was meant.
    #[error("answered, but by another process")]
    Stranger,
}

fn late(awaited: Awaited) -> &'static str {
    match awaited {
        Awaited::Connection => "no connection in time",
        Awaited::Handshake => "listening, but silent: no answer to the WebSocket handshake in time",
        Awaited::Response => "listening, but silent: no HTTP response in time",
    }
}

/// A server that has answered, on a connection that is still open. Dropping it hangs up.
#[derive(Debug)]
pub struct Probe {
    /// The answer.
    pub answer: Answer,
    connection: Connection,
}

/// What keeps the connection open.
enum Connection {
    WebSocket(Box<websocket::Stream>),
    Http(http::Exchange),
    Tcp(TcpStream),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebSocket(_) => "WebSocket",
            Self::Http(_) => "Http",
            Self::Tcp(_) => "Tcp",
        })
    }
}

impl Probe {
    /// Asks once. The whole attempt, from the connection to the answer, takes at most `timeout`.
    ///
    /// # Errors
    /// What was found instead of an answer.
    pub async fn open(
        kind: &ProbeKind,
        address: SocketAddr,
        timeout: Duration,
    ) -> Result<Self, Miss> {
        let by = Instant::now() + timeout;
        let stream = connect(address, by).await?;
        let ends = |error: io::Error| Miss::Unreachable {
            reason: error.to_string(),
        };
        let local = stream.local_addr().map_err(ends)?;
        let remote = stream.peer_addr().map_err(|_| Miss::ClosedEarly)?;
        let (what, connection) = match kind {
            ProbeKind::WebSocket { path } => {
                let open = websocket::ask(stream, address, path, by).await?;
                let what = "WebSocket handshake".to_owned();
                (what, Connection::WebSocket(Box::new(open)))
            }
            ProbeKind::Http { path } => {
                let exchange = http::ask(stream, address, path, by).await?;
                let status = exchange.status();
                if status >= 500 {
                    return Err(Miss::HttpStatus(status));
                }
                (format!("HTTP {status}"), Connection::Http(exchange))
            }
            ProbeKind::Tcp => {
                tcp::ask(&stream, by).await?;
                ("TCP connection".to_owned(), Connection::Tcp(stream))
            }
        };
        Ok(Self {
            answer: Answer {
                local,
                remote,
                what,
            },
            connection,
        })
    }

    /// Says goodbye as the protocol wants it, so that the server logs no broken connection.
    pub async fn close(self) -> Answer {
        match self.connection {
            Connection::WebSocket(stream) => websocket::close(*stream, GOODBYE).await,
            Connection::Http(exchange) => drop(exchange),
            Connection::Tcp(stream) => drop(stream),
        }
        self.answer
    }
}

/// One attempt.
///
/// # Errors
/// What was found instead of an answer.
pub async fn attempt(
    kind: &ProbeKind,
    address: SocketAddr,
    timeout: Duration,
) -> Result<Answer, Miss> {
    attempt_with(kind, address, timeout, |_| true).await
}

/// One attempt whose answer counts only if `trust` says so. While `trust` runs the connection is open, so
/// the pair of addresses leads to the process that accepted it.
///
/// # Errors
/// What was found instead of an answer; [`Miss::Stranger`] if it was not trusted.
pub async fn attempt_with(
    kind: &ProbeKind,
    address: SocketAddr,
    timeout: Duration,
    trust: impl FnOnce(&Answer) -> bool,
) -> Result<Answer, Miss> {
    let probe = Probe::open(kind, address, timeout).await?;
    let trusted = trust(&probe.answer);
    let answer = probe.close().await;
    if trusted {
        Ok(answer)
    } else {
        Err(Miss::Stranger)
    }
}

/// Asks again and again, with short growing pauses, until there is an answer or `deadline` has passed.
///
/// # Errors
/// What the last conclusive attempt found.
pub async fn until_answered(
    kind: &ProbeKind,
    address: SocketAddr,
    deadline: Duration,
) -> Result<Answer, Miss> {
    until_answered_with(kind, address, deadline, |_| true).await
}

/// [`until_answered`], with [`attempt_with`] as the attempt.
///
/// # Errors
/// What the last conclusive attempt found.
pub async fn until_answered_with(
    kind: &ProbeKind,
    address: SocketAddr,
    deadline: Duration,
    mut trust: impl FnMut(&Answer) -> bool,
) -> Result<Answer, Miss> {
    let by = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    let mut found: Option<Miss> = None;
    loop {
        let left = by.saturating_duration_since(Instant::now());
        let budget = left.min(LONGEST_ATTEMPT);
        match attempt_with(kind, address, budget, &mut trust).await {
            Ok(answer) => return Ok(answer),
            // An attempt that the deadline cut to nearly nothing says nothing about the server.
            Err(Miss::TimedOut { .. } | Miss::NoPong)
                if found.is_some() && budget < LONGEST_PAUSE => {}
            Err(miss @ Miss::BadPath { .. }) => return Err(miss),
            Err(miss) => found = Some(miss),
        }
        let now = Instant::now();
        if now >= by {
            return Err(found.unwrap_or(Miss::TimedOut {
                awaited: Awaited::Connection,
            }));
        }
        sleep(pause.min(by - now)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What a user would type to reach it: `ws://127.0.0.1:8003/ws`, `http://…`, `tcp://…`.
pub fn url(kind: &ProbeKind, address: SocketAddr) -> String {
    let authority = authority(address);
    match kind {
        ProbeKind::WebSocket { path } => format!("ws://{authority}{}", rooted(path)),
        ProbeKind::Http { path } => format!("http://{authority}{}", rooted(path)),
        ProbeKind::Tcp => format!("tcp://{authority}"),
    }
}

/// Connects by `by`.
async fn connect(address: SocketAddr, by: Instant) -> Result<TcpStream, Miss> {
    let stream = match timeout_at(by, TcpStream::connect(reachable(address))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(Miss::Refused);
        }
        Ok(Err(error)) => {
            return Err(Miss::Unreachable {
                reason: error.to_string(),
            });
        }
        Err(_) => {
            return Err(Miss::TimedOut {
                awaited: Awaited::Connection,
            });
        }
    };
    // A connect to a free port of the ephemeral range may be given that very port as its own and meet
    // itself (simultaneous open, RFC 9293 §3.5): a connection without any server.
    if let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr())
        && local == remote
    {
        return Err(Miss::Refused);
    }
    // Small frames must not wait for acknowledgements; a failure only costs time.
    drop(stream.set_nodelay(true));
    Ok(stream)
}

/// The wildcard address is one to listen on; a client connects to loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => return address,
    };
    SocketAddr::new(ip, address.port())
}

/// `host:port` for a URL: without the zone of an IPv6 address, which URLs cannot carry.
fn authority(address: SocketAddr) -> String {
    let address = reachable(address);
    SocketAddr::new(address.ip(), address.port()).to_string()
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}
