//! What a server says about itself: `GET /health` as JSON, for `status`.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::{connect, http};

/// A health report is a screenful; more is something else.
const LONGEST: usize = 64 * 1024;

/// The JSON object under `/health`, if there is one within `timeout`. A 503 may carry one, too: that is
/// how servers say that they are not well.
pub async fn health(address: SocketAddr, timeout: Duration) -> Option<serde_json::Value> {
    let by = Instant::now() + timeout;
    let stream = connect(address, by).await.ok()?;
    let exchange = http::ask(stream, address, "/health", by).await.ok()?;
    if !matches!(exchange.status(), 200..=299 | 503) {
        return None;
    }
    let body = exchange.body(LONGEST, by).await?;
    serde_json::from_slice(&body)
        .ok()
        .filter(serde_json::Value::is_object)
}
