//! The end of the server.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use wharf::probe::{self, Miss};
use wharf::server::Options;
use wharf::state::ProbeKind;

use crate::client::{Client, PATIENCE, lives, start};

#[tokio::test]
async fn every_client_is_closed_with_1012() {
    let server = start(Options::default());
    let address = server.address;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connect(address).await);
    }
    let done = server.stop();
    for client in &mut clients {
        match client.next().await {
            Some(Message::Close(Some(frame))) => {
                assert_eq!(u16::from(frame.code), 1012);
                assert_eq!(frame.reason.as_str(), "service restart");
            }
            other => panic!("{other:?}"),
        }
        assert!(client.next().await.is_none());
    }
    timeout(PATIENCE, done).await.unwrap().unwrap();
    let tcp = probe::attempt(&ProbeKind::Tcp, address, PATIENCE).await;
    assert_eq!(tcp, Err(Miss::Refused));
}

#[tokio::test]
async fn a_stuck_client_cannot_hold_the_server() {
    let server = start(Options {
        drain: Duration::from_millis(100),
        ..Options::default()
    });
    // One never answers the close, one floods and reads nothing, one never ends its request.
    let silent = Client::connect(server.address).await;
    let mut flood = Client::connect(server.address).await;
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": ["x".repeat(500_000)]});
    let call = Message::text(call.to_string());
    loop {
        use futures_util::SinkExt;
        let sent = timeout(Duration::from_millis(200), flood.0.send(call.clone())).await;
        if sent.is_err() {
            break;
        }
    }
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nHo").await.unwrap();
    server.wait_for_sessions(2).await;
    // 30 seconds of stall limit are configured, so it is the drain time that ends it.
    timeout(PATIENCE / 2, server.stop()).await.unwrap().unwrap();
    drop((silent, flood, slow));
}

#[tokio::test]
async fn commands_end_with_the_server() {
    let server = start(Options {
        allow: vec!["sh".to_owned()],
        grace: Duration::from_millis(100),
        ..Options::default()
    });
    let mut client = Client::connect(server.address).await;
    let text = "sh -c 'trap \"\" TERM; while :; do sleep 1000; done' & echo $$ $!; wait";
    client
        .request("execute", json!({"command": "sh", "args": ["-c", text]}))
        .await;
    let pids = client.pids().await;
    let done = server.stop();
    assert_eq!(client.close_code().await, Some(1012));
    assert!(client.next().await.is_none());
    timeout(PATIENCE, done).await.unwrap().unwrap();
    assert!(!pids.iter().any(|pid| lives(*pid)), "{pids:?}");
}

#[tokio::test]
async fn commands_end_even_when_the_drain_time_is_too_short_for_them() {
    let server = start(Options {
        allow: vec!["sh".to_owned()],
        grace: PATIENCE * 2,
        drain: Duration::from_millis(50),
        ..Options::default()
    });
    let mut client = Client::connect(server.address).await;
    let text = "trap '' TERM; echo $$; while :; do sleep 1000; done";
    client
        .request("execute", json!({"command": "sh", "args": ["-c", text]}))
        .await;
    let pids = client.pids().await;
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
    crate::client::wait_for_the_end(&pids).await;
}

#[tokio::test]
async fn a_kept_connection_gets_no_new_session_while_the_server_drains() {
    let server = start(Options {
        drain: PATIENCE,
        ..Options::default()
    });
    let address = server.address;
    // This one keeps the server draining: it does not answer the close yet.
    let mut last = Client::connect(address).await;
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n")
        .await
        .unwrap();
    server.wait_for_sessions(1).await;
    let done = server.stop();
    assert_eq!(last.close_code().await, Some(1012));
    // The rest of the head arrives after the stop.
    kept.write_all(
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    .await
    .ok();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut kept, &mut answer)
        .await
        .ok();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 503 "),
        "{answer}"
    );
    assert!(last.next().await.is_none());
    timeout(PATIENCE, done).await.unwrap().unwrap();
}
