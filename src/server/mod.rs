//! The embedded WebSocket server: `wharf serve`.
//!
//! `/ws` speaks JSON-RPC 2.0 (`echo`, `ping`, `sessions`, `execute`), `/health` and `/healthz` answer
//! plain HTTP. [`run`] binds, serves and drains; each part of it is a file. It prints nothing, reads no
//! environment and installs no signal handler for its own end: the caller does, and passes the end in as
//! a future.

mod accept;
mod allow;
mod execute;
mod group;
mod health;
mod methods;
mod origin;
mod routes;
mod rpc;
mod seat;
mod session;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use accept::Doors;
use allow::AllowList;
use origin::Origins;
use seat::Seats;

/// Connections that wait for `accept`.
const BACKLOG: u32 = 1024;

/// How long the end may take after everything was cut: what remains is memory to give back.
const AFTER_CUT: Duration = Duration::from_secs(1);

/// How the server runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to listen on.
    pub host: IpAddr,
    /// The port to listen on; 0 for one that the kernel chooses.
    pub port: u16,
    /// The name that `/health` shows.
    pub service: String,
    /// How many WebSocket connections may be open at once; at least 1.
    pub max_sessions: u32,
    /// What `execute` may run: names to be found on `path`, or absolute paths. Empty: nothing.
    pub allow: Vec<String>,
    /// Browser origins that may connect besides loopback and this host: `scheme://host[:port]`, `null`, or
    /// `*` for any.
    pub allow_origin: Vec<String>,
    /// How long connections may take to close once the server stops.
    pub drain: Duration,
    /// The value of `PATH`, on which allowed names are looked up. Relative entries are ignored.
    pub path: String,
    /// The largest message that is read, in bytes.
    pub max_message: usize,
    /// How long a client may refuse to read before it is cut off.
    pub stall: Duration,
    /// How often an idle client is sent a ping; two of them without any sign of life end the session.
    pub keepalive: Duration,
    /// How long a command has between SIGTERM and SIGKILL.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 8003,
            service: "wharf".to_owned(),
            max_sessions: 100,
            allow: Vec::new(),
            allow_origin: Vec::new(),
            drain: Duration::from_secs(5),
            path: String::new(),
            max_message: 1024 * 1024,
            stall: Duration::from_secs(30),
            keepalive: Duration::from_secs(20),
            grace: Duration::from_secs(2),
        }
    }
}

/// Why the server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another socket listens on the address (EADDRINUSE).
    #[error("{address} is taken: another server listens there")]
    Taken {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// An entry of the allow list is neither a plain name nor an absolute path.
    #[error("`{entry}` cannot be allowed: name a command or give its absolute path")]
    Allow {
        /// The entry.
        entry: String,
    },
    /// An entry of the allowed origins is not an origin.
    #[error("`{entry}` is not an origin: write it like `http://localhost:3000`, `null` or `*`")]
    Origin {
        /// The entry.
        entry: String,
    },
    /// A server for nobody.
    #[error("the number of sessions must be at least 1")]
    NoSessions,
}

/// The three parts of a server's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Connections are accepted and answered.
    Serving,
    /// No new ones; the open ones are being closed.
    Stopping,
    /// The drain time is over: everything ends at once.
    Cut,
}

/// Resolves once `phase` is `wanted` or later. A server that is gone counts as later.
async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    drop(phase.wait_for(|now| *now >= wanted).await);
}

/// What all connections share.
struct Shared {
    service: String,
    started: Instant,
    seats: Seats,
    origins: Origins,
    allow: AllowList,
    phase: watch::Receiver<Phase>,
    max_message: usize,
    stall: Duration,
    keepalive: Duration,
    grace: Duration,
}

impl Shared {
    fn is_stopping(&self) -> bool {
        *self.phase.borrow() >= Phase::Stopping
    }
}

/// A server that listens and does not accept yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    drain: Duration,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Checks the options and listens. Needs a running tokio runtime with I/O and time.
    ///
    /// # Errors
    /// An option that makes no sense, or an address that cannot be listened on.
    pub fn bind(options: Options) -> Result<Self, ServerError> {
        if options.max_sessions == 0 {
            return Err(ServerError::NoSessions);
        }
        let allow = AllowList::new(&options.allow, &options.path)?;
        let origins = Origins::new(&options.allow_origin)?;
        let asked = SocketAddr::new(options.host, options.port);
        let listener = listen(asked).map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse {
                ServerError::Taken { address: asked }
            } else {
                ServerError::Listen {
                    address: asked,
                    source,
                }
            }
        })?;
        let address = listener
            .local_addr()
            .map_err(|source| ServerError::Listen {
                address: asked,
                source,
            })?;
        let (phase, watching) = watch::channel(Phase::Serving);
        Ok(Self {
            listener,
            address,
            phase,
            drain: options.drain,
            shared: Arc::new(Shared {
                service: options.service,
                started: Instant::now(),
                seats: Seats::new(options.max_sessions),
                origins,
                allow,
                phase: watching,
                max_message: options.max_message,
                stall: options.stall,
                // A timer needs a period.
                keepalive: options.keepalive.max(Duration::from_millis(1)),
                grace: options.grace,
            }),
        })
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves, then closes every connection (a WebSocket with code 1012, service
    /// restart) and returns when all are closed, or after the drain time. Commands that still run are
    /// ended; none outlives this call.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let doors = Doors::new(Arc::clone(&self.shared));
        tokio::select! {
            () = doors.accept(&self.listener, &mut connections) => {}
            () = shutdown => {}
        }
        drop(self.listener);
        self.phase.send_replace(Phase::Stopping);
        let drained = timeout(self.drain, async {
            while connections.join_next().await.is_some() {}
            self.shared.seats.all_left().await;
        });
        if drained.await.is_err() {
            self.phase.send_replace(Phase::Cut);
            // Past this, only a process that the kernel itself cannot kill is left.
            drop(
                timeout(AFTER_CUT, async {
                    connections.shutdown().await;
                    self.shared.seats.all_left().await;
                })
                .await,
            );
        }
    }
}

/// Binds, tells the address, serves until `shutdown` resolves and drains.
///
/// # Errors
/// As [`Server::bind`]; nothing fails after that.
pub async fn run(
    options: Options,
    on_listening: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let server = Server::bind(options)?;
    on_listening(server.local_addr());
    server.serve(shutdown).await;
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Connections of an earlier server in TIME_WAIT must not keep the next one from its port. On Linux
    // this never lets two sockets listen on one address (socket(7)).
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
