//! `/health`: what the server says about itself, as JSON.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Shared;

#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    service: &'a str,
    version: &'static str,
    active_sessions: usize,
    max_sessions: u32,
    uptime_seconds: u64,
    pid: u32,
}

/// 200 and `ok` while it serves, 503 and `stopping` while it drains.
pub(super) async fn report(State(shared): State<Arc<Shared>>) -> Response {
    let (code, status) = if shared.is_stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else {
        (StatusCode::OK, "ok")
    };
    let health = Health {
        status,
        service: &shared.service,
        version: env!("CARGO_PKG_VERSION"),
        active_sessions: shared.seats.active(),
        max_sessions: shared.seats.max(),
        uptime_seconds: shared.started.elapsed().as_secs(),
        pid: std::process::id(),
    };
    (code, Json(health)).into_response()
}
