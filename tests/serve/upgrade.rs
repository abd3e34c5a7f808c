//! Who gets a WebSocket, and what plain HTTP says.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wharf::probe::{self, Miss};
use wharf::server::{Options, Server, ServerError};
use wharf::state::ProbeKind;

use crate::client::{Client, PATIENCE, start};

/// The whole response to a request that closes its connection.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    raw(address, &request).await
}

#[tokio::test]
async fn the_probe_gets_its_handshake() {
    let server = start(Options::default());
    let kind = ProbeKind::WebSocket {
        path: "/ws".to_owned(),
    };
    let answer = probe::attempt(&kind, server.address, PATIENCE)
        .await
        .unwrap();
    assert_eq!(answer.remote, server.address);
    assert_eq!(answer.what, "WebSocket handshake");
    server.wait_for_sessions(0).await;
    let elsewhere = ProbeKind::WebSocket {
        path: "/other".to_owned(),
    };
    let miss = probe::attempt(&elsewhere, server.address, PATIENCE)
        .await
        .unwrap_err();
    assert_eq!(
        miss.to_string(),
        "listening, but no WebSocket handshake (HTTP 404)"
    );
    server.end().await;
}

#[tokio::test]
async fn health_tells_all_facts() {
    let server = start(Options {
        service: "shop".to_owned(),
        max_sessions: 7,
        ..Options::default()
    });
    let client = Client::connect(server.address).await;
    server.wait_for_sessions(1).await;
    let health = server.health().await;
    let keys: Vec<&str> = health
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "status",
            "service",
            "version",
            "active_sessions",
            "max_sessions",
            "uptime_seconds",
            "pid"
        ]
    );
    assert_eq!(health["status"], "ok");
    assert_eq!(health["service"], "shop");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(health["max_sessions"], 7);
    assert_eq!(health["pid"], json!(std::process::id()));
    assert!(health["uptime_seconds"].is_u64());
    drop(client);
    let healthz = get(server.address, "/healthz").await;
    assert!(healthz.starts_with("HTTP/1.1 200 "), "{healthz}");
    assert!(healthz.ends_with("\r\n\r\nok\n"), "{healthz}");
    server.end().await;
}

#[tokio::test]
async fn plain_requests_to_the_socket_are_told_to_upgrade() {
    let server = start(Options::default());
    let response = get(server.address, "/ws").await.to_ascii_lowercase();
    assert!(response.starts_with("http/1.1 426 "), "{response}");
    assert!(response.contains("upgrade: websocket"), "{response}");
    let old = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n\r\n",
        server.address
    );
    let response = raw(server.address, &old).await.to_ascii_lowercase();
    assert!(response.starts_with("http/1.1 426 "), "{response}");
    assert!(response.contains("sec-websocket-version: 13"), "{response}");
    assert!(get(server.address, "/").await.starts_with("HTTP/1.1 404 "));
    server.end().await;
}

#[tokio::test]
async fn foreign_pages_are_refused() {
    let server = start(Options {
        allow_origin: vec!["https://app.example".to_owned()],
        ..Options::default()
    });
    for origin in ["https://evil.example", "null", "https://app.example:444"] {
        let (status, _) = Client::refused(server.address, &[("origin", origin)]).await;
        assert_eq!(status, 403, "{origin}");
    }
    for origin in ["http://localhost:3000", "https://app.example"] {
        let mut client = Client::connect_with(server.address, &[("origin", origin)])
            .await
            .unwrap();
        assert_eq!(client.call("ping", json!([])).await["result"], "pong");
    }
    server.end().await;
}

#[tokio::test]
async fn a_full_server_says_when_to_come_back() {
    let server = start(Options {
        max_sessions: 1,
        ..Options::default()
    });
    let first = Client::connect(server.address).await;
    let (status, retry) = Client::refused(server.address, &[]).await;
    assert_eq!(status, 503);
    assert_eq!(retry.as_deref(), Some("5"));
    drop(first);
    server.wait_for_sessions(0).await;
    let mut second = Client::connect(server.address).await;
    assert_eq!(second.call("ping", json!([])).await["result"], "pong");
    drop(second);
    server.end().await;
}

#[tokio::test]
async fn an_idle_client_without_a_pulse_loses_its_seat() {
    let server = start(Options {
        keepalive: std::time::Duration::from_millis(200),
        ..Options::default()
    });
    let lively = Client::connect(server.address).await;
    // Reads, and so answers pings, for as long as the other one is there.
    let reading = tokio::spawn(async move {
        let mut lively = lively;
        lively.next().await
    });
    let dead = Client::connect(server.address).await;
    server.wait_for_sessions(2).await;
    server.wait_for_sessions(1).await;
    assert!(!reading.is_finished());
    drop(dead);
    server.end().await;
    assert!(reading.await.unwrap().unwrap().is_close());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let server = start(Options::default());
    let refused = Server::bind(Options {
        port: server.address.port(),
        ..Options::default()
    });
    match refused {
        Err(error @ ServerError::Taken { .. }) => assert_eq!(
            error.to_string(),
            format!("{} is taken: another server listens there", server.address)
        ),
        other => panic!("{other:?}"),
    }
    server.end().await;
}

#[tokio::test]
async fn the_port_is_free_again_at_once() {
    let server = start(Options::default());
    let port = server.address.port();
    // The server closes first, so its end of the connection stays in TIME_WAIT.
    let mut client = Client::connect(server.address).await;
    let done = server.stop();
    assert_eq!(client.close_code().await, Some(1012));
    assert_eq!(client.next().await, None);
    done.await.unwrap();
    let again = Server::bind(Options {
        port,
        ..Options::default()
    })
    .unwrap();
    assert_eq!(again.local_addr().port(), port);
}

#[tokio::test]
async fn senseless_options_are_refused() {
    let bind = |options| Server::bind(Options { port: 0, ..options });
    assert!(matches!(
        bind(Options {
            max_sessions: 0,
            ..Options::default()
        }),
        Err(ServerError::NoSessions)
    ));
    assert!(matches!(
        bind(Options {
            allow: vec!["../sh".to_owned()],
            ..Options::default()
        }),
        Err(ServerError::Allow { .. })
    ));
    assert!(matches!(
        bind(Options {
            allow_origin: vec!["app.example".to_owned()],
            ..Options::default()
        }),
        Err(ServerError::Origin { .. })
    ));
    // TEST-NET-1 (RFC 5737) is nobody's address.
    assert!(matches!(
        bind(Options {
            host: [192, 0, 2, 1].into(),
            ..Options::default()
        }),
        Err(ServerError::Listen { .. })
    ));
}

#[tokio::test]
async fn a_stranger_s_answer_does_not_count() {
    let server = start(Options::default());
    let kind = ProbeKind::WebSocket {
        path: "/ws".to_owned(),
    };
    let mut seen = 0;
    let miss = probe::attempt_with(&kind, server.address, PATIENCE, |answer| {
        seen += 1;
        assert_ne!(answer.local, answer.remote);
        false
    })
    .await;
    assert_eq!(miss, Err(Miss::Stranger));
    assert_eq!(seen, 1);
    server.end().await;
}
