//! WebSocket: the opening handshake of RFC 6455 §4 with its `Sec-WebSocket-Accept` verified, then a ping
//! and the pong that carries the same data (§5.5.2, §5.5.3).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::witness::{Beginning, Witness};
use super::{Awaited, Miss, authority, rooted};

/// An open WebSocket.
pub(super) type Stream = WebSocketStream<Witness>;

/// Makes the data of each ping its own.
static PINGS: AtomicU64 = AtomicU64::new(0);

/// Shakes hands and plays ping and pong.
pub(super) async fn ask(
    stream: TcpStream,
    address: SocketAddr,
    path: &str,
    by: Instant,
) -> Result<Stream, Miss> {
    let request = format!("ws://{}{}", authority(address), rooted(path))
        .into_client_request()
        .map_err(|_| Miss::BadPath {
            path: path.to_owned(),
        })?;
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0);
    let (witness, beginning) = Witness::new(stream);
    let handshake = client_async_with_config(request, witness, Some(config));
    let (mut socket, _response) = match timeout_at(by, handshake).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => return Err(miss(&error, &beginning)),
        Err(_) => {
            return Err(Miss::TimedOut {
                awaited: Awaited::Handshake,
            });
        }
    };
    match timeout_at(by, ping(&mut socket)).await {
        Ok(true) => Ok(socket),
        Ok(false) => Err(Miss::ClosedEarly),
        Err(_) => Err(Miss::NoPong),
    }
}

/// Whether our pong came before the end of the connection. What else the server says meanwhile is not for
/// us.
async fn ping(socket: &mut Stream) -> bool {
    let number = PINGS.fetch_add(1, Ordering::Relaxed);
    let data = format!("wharf {} {number}", std::process::id());
    if socket
        .send(Message::Ping(data.clone().into()))
        .await
        .is_err()
    {
        return false;
    }
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Pong(echoed) = message
            && echoed == data.as_bytes()
        {
            return true;
        }
    }
    false
}

/// The closing handshake (§7.1.2), for at most `limit`.
pub(super) async fn close(mut socket: Stream, limit: Duration) {
    let goodbye = async {
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // Whether the server was polite in time changes nothing.
    drop(timeout(limit, goodbye).await);
}

fn miss(error: &Error, beginning: &Beginning) -> Miss {
    if let Error::Protocol(ProtocolError::SecWebSocketAcceptKeyMismatch) = error {
        return Miss::BadAccept;
    }
    if beginning.is_empty() {
        return Miss::ClosedEarly;
    }
    // A response of HTTP/1.0, or with headers that no WebSocket server sends, has a status, too.
    let status = if let Error::Http(response) = error {
        Some(response.status().as_u16())
    } else {
        beginning.http_status()
    };
    let detail = match status {
        Some(101) => "HTTP 101 with the wrong headers".to_owned(),
        Some(status) => format!("HTTP {status}"),
        None => beginning
            .describe()
            .unwrap_or_else(|| "it closed the connection".to_owned()),
    };
    Miss::NotWebSocket { status, detail }
}
