//! TCP: an accepted connection that stays, or on which the server speaks.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::Miss;

/// A port forwarder (`docker-proxy`, a VM's relay) accepts first and hangs up when it finds nobody behind
/// the port: on one machine within a millisecond. A server that stays connected this long has answered.
const HANG_UP: Duration = Duration::from_millis(20);

/// Waits until the connection has proved to be one.
pub(super) async fn ask(stream: &TcpStream, by: Instant) -> Result<(), Miss> {
    let by = by.min(Instant::now() + HANG_UP);
    let mut first = [0];
    match timeout_at(by, stream.peek(&mut first)).await {
        Ok(Ok(0) | Err(_)) => Err(Miss::ClosedEarly),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}
