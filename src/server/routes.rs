//! The paths of the server, and who may open a WebSocket.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::header::{CONNECTION, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};

use super::{Shared, health, session};

/// Seconds after which a refused client may try again.
const TRY_AGAIN: &str = "5";

/// A session's read buffer, in bytes: requests are short, and many sessions idle.
const READ_BUFFER: usize = 8 * 1024;

/// The client's end of the connection.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// All paths.
pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/ws", get(upgrade))
        .route("/health", get(health::report))
        .route("/healthz", get(async || "ok\n"))
        .with_state(shared)
}

async fn upgrade(
    State(shared): State<Arc<Shared>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return not_a_handshake(rejection),
    };
    if !shared.origins.admit(&headers) {
        let reason = "this origin may not connect; start the server with --allow-origin ORIGIN\n";
        return (StatusCode::FORBIDDEN, reason).into_response();
    }
    if shared.is_stopping() {
        return unavailable("the server is stopping\n");
    }
    let Some(seat) = shared.seats.take(peer) else {
        return unavailable("all sessions are taken\n");
    };
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(shared.max_message)
        .max_frame_size(shared.max_message)
        .on_upgrade(move |socket| session::run(socket, seat, shared))
}

fn unavailable(reason: &'static str) -> Response {
    let headers = [(RETRY_AFTER, TRY_AGAIN), (CONNECTION, "close")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, reason).into_response()
}

/// RFC 6455 §4.2.2 and §4.4: a request without a usable upgrade is told what would be one.
fn not_a_handshake(rejection: WebSocketUpgradeRejection) -> Response {
    let plain_http = matches!(
        rejection,
        WebSocketUpgradeRejection::InvalidConnectionHeader(_)
            | WebSocketUpgradeRejection::InvalidUpgradeHeader(_)
            | WebSocketUpgradeRejection::InvalidWebSocketVersionHeader(_)
    );
    if !plain_http {
        return rejection.into_response();
    }
    let headers = [
        (UPGRADE, "websocket"),
        (CONNECTION, "Upgrade"),
        (SEC_WEBSOCKET_VERSION, "13"),
    ];
    let reason = "this is a WebSocket endpoint (version 13)\n";
    (StatusCode::UPGRADE_REQUIRED, headers, reason).into_response()
}
