//! From the listener to HTTP: accepts connections and serves each as HTTP/1.1.
//!
//! A connection leaves this file when it is upgraded; from then on its session counts, not its task.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::routes::{Peer, routes};
use super::{Phase, Shared, reached};

/// Connections besides the sessions: health checks, refused upgrades, idle browsers.
const SPARE: usize = 64;

/// How long a client may take to send the head of a request, and a connection may idle between two.
const HEAD: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes.
const LARGEST_HEAD: usize = 16 * 1024;

/// A pause when the process or the machine has no descriptor left, so as not to spin until one is free.
const NO_DESCRIPTOR: Duration = Duration::from_millis(50);

/// Lets connections in, as many as there is room for.
pub(super) struct Doors {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
}

impl Doors {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let room = Arc::new(Semaphore::new(shared.seats.max() as usize + SPARE));
        Self { shared, room }
    }

    /// Accepts for ever; the caller stops by dropping the future. Each connection becomes a task of
    /// `connections`.
    pub(super) async fn accept(&self, listener: &TcpListener, connections: &mut JoinSet<()>) {
        loop {
            // Without room, clients wait in the kernel's queue instead of in our memory.
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else {
                return;
            };
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        if !is_about_one_connection(&error) {
                            sleep(NO_DESCRIPTOR).await;
                        }
                        continue;
                    }
                },
                // Finished tasks are collected here, else the set would grow with every connection.
                Some(_) = connections.join_next() => continue,
            };
            connections.spawn(serve(stream, peer, Arc::clone(&self.shared), permit));
        }
    }
}

/// accept(2): errors of the new connection are reported by `accept`, and the listener is well.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}

/// Serves one connection until it ends, is upgraded, or the server stops.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
) {
    // Small frames must not wait for acknowledgements; a failure only costs time.
    drop(stream.set_nodelay(true));
    let mut phase = shared.phase.clone();
    let router = routes(shared).layer(Extension(Peer(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // A broken connection is the client's affair: there is nobody left to tell.
    tokio::select! {
        ended = connection.as_mut() => drop(ended),
        () = reached(&mut phase, Phase::Stopping) => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}
