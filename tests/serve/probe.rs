//! The probe against servers that are not what it looks for.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use wharf::probe::{Awaited, Miss, attempt, health, until_answered, until_answered_with, url};
use wharf::server::{Options, run};
use wharf::state::ProbeKind;

use crate::client::PATIENCE;

/// Long enough for an answer that must not come to prove its absence.
const SHORT: Duration = Duration::from_millis(500);

fn ws() -> ProbeKind {
    ProbeKind::WebSocket {
        path: "/ws".to_owned(),
    }
}

fn http() -> ProbeKind {
    ProbeKind::Http {
        path: "/".to_owned(),
    }
}

/// A server that treats every connection the same way.
async fn server<F>(treat: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(treat(stream));
        }
    });
    address
}

/// Reads the head of a request.
async fn head(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        let byte = stream.read_u8().await.unwrap();
        text.push(byte.into());
    }
    text
}

/// A server that answers every request with the same text and hangs up.
async fn answering(text: impl Into<String>) -> SocketAddr {
    let text: String = text.into();
    server(move |mut stream| {
        let text = text.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    })
    .await
}

/// A server that accepts and says nothing.
async fn silent() -> SocketAddr {
    server(|stream| async move {
        sleep(PATIENCE).await;
        drop(stream);
    })
    .await
}

/// An address of its own, so that no other test's server is given the port meanwhile.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    listener.local_addr().unwrap()
}

async fn miss(kind: &ProbeKind, address: SocketAddr) -> Miss {
    attempt(kind, address, PATIENCE).await.unwrap_err()
}

#[tokio::test]
async fn nobody_listens() {
    let address = nobody().await;
    for kind in [ws(), http(), ProbeKind::Tcp] {
        assert_eq!(miss(&kind, address).await, Miss::Refused, "{kind:?}");
    }
    assert_eq!(Miss::Refused.to_string(), "nobody is listening");
    assert_eq!(health(address, PATIENCE).await, None);
}

#[tokio::test]
async fn a_plain_http_server_is_no_websocket_server() {
    for (text, status) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200),
        ("HTTP/1.0 404 File not found\r\nServer: old\r\n\r\nno", 404),
        ("HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", 301),
    ] {
        let address = answering(text).await;
        let miss = miss(&ws(), address).await;
        assert_eq!(
            miss.to_string(),
            format!("listening, but no WebSocket handshake (HTTP {status})")
        );
        let Miss::NotWebSocket { status: found, .. } = miss else {
            panic!("{miss:?}");
        };
        assert_eq!(found, Some(status));
    }
}

#[tokio::test]
async fn a_switch_to_something_else_is_no_handshake() {
    let address = answering(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    )
    .await;
    assert_eq!(
        miss(&ws(), address).await.to_string(),
        "listening, but no WebSocket handshake (HTTP 101 with the wrong headers)"
    );
}

#[tokio::test]
async fn the_accept_key_is_verified() {
    let upgrade =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    // The key of the example in RFC 6455 §1.3, which is not ours; and none at all.
    for key in ["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", ""] {
        let address = answering(format!("{upgrade}{key}\r\n")).await;
        assert_eq!(miss(&ws(), address).await, Miss::BadAccept);
    }
}

#[tokio::test]
async fn a_server_of_another_protocol_is_quoted() {
    let ssh = server(|mut stream| async move {
        stream.write_all(b"SSH-2.0-example\r\n").await.unwrap();
        head(&mut stream).await;
    })
    .await;
    assert_eq!(
        miss(&ws(), ssh).await.to_string(),
        "listening, but no WebSocket handshake (it answered `SSH-2.0-example`)"
    );
    assert_eq!(
        miss(&http(), ssh).await,
        Miss::NotHttp {
            detail: "it answered `SSH-2.0-example`".to_owned()
        }
    );
    // A TLS alert: unexpected message.
    let tls = server(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(&[21, 3, 3, 0, 2, 2, 10]).await.unwrap();
    })
    .await;
    assert_eq!(
        miss(&ws(), tls).await.to_string(),
        "listening, but no WebSocket handshake (it speaks TLS)"
    );
}

#[tokio::test]
async fn silence_is_told_from_absence() {
    let address = silent().await;
    assert_eq!(
        attempt(&ws(), address, SHORT).await,
        Err(Miss::TimedOut {
            awaited: Awaited::Handshake
        })
    );
    assert_eq!(
        attempt(&http(), address, SHORT).await,
        Err(Miss::TimedOut {
            awaited: Awaited::Response
        })
    );
    assert!(attempt(&ProbeKind::Tcp, address, SHORT).await.is_ok());
    assert_eq!(health(address, SHORT).await, None);
}

#[tokio::test]
async fn a_server_that_hangs_up_has_not_answered() {
    let at_once = server(|stream| async move { drop(stream) }).await;
    let after_the_request = answering("").await;
    for kind in [ws(), http()] {
        assert_eq!(miss(&kind, at_once).await, Miss::ClosedEarly, "{kind:?}");
        assert_eq!(
            miss(&kind, after_the_request).await,
            Miss::ClosedEarly,
            "{kind:?}"
        );
    }
    // As a port forwarder does when there is nobody behind it.
    assert_eq!(miss(&ProbeKind::Tcp, at_once).await, Miss::ClosedEarly);
    let greeting = server(|mut stream| async move {
        stream.write_all(b"the time is now").await.unwrap();
    })
    .await;
    assert!(attempt(&ProbeKind::Tcp, greeting, PATIENCE).await.is_ok());
}

#[tokio::test]
async fn a_handshake_without_pong_is_not_enough() {
    let address = server(|stream| async move {
        // The handshake is done, and then nothing is read any more.
        let socket = tokio_tungstenite::accept_async(stream).await;
        sleep(PATIENCE).await;
        drop(socket);
    })
    .await;
    assert_eq!(attempt(&ws(), address, SHORT).await, Err(Miss::NoPong));
    let closing = server(|stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        drop(socket.close(None).await);
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    assert_eq!(miss(&ws(), closing).await, Miss::ClosedEarly);
}

#[tokio::test]
async fn a_server_that_talks_first_still_counts() {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    let address = server(|stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        for message in [
            Message::text("welcome"),
            Message::Pong(b"not yours".to_vec().into()),
        ] {
            socket.send(message).await.unwrap();
        }
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    let answer = attempt(&ws(), address, PATIENCE).await.unwrap();
    assert_eq!(answer.remote, address);
}

#[tokio::test]
async fn http_counts_below_500() {
    for (status, ready) in [
        (200, true),
        (204, true),
        (302, true),
        (404, true),
        (500, false),
        (503, false),
    ] {
        let address = answering(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")).await;
        match attempt(&http(), address, PATIENCE).await {
            Ok(answer) => {
                assert!(ready, "{status}");
                assert_eq!(answer.what, format!("HTTP {status}"));
            }
            Err(miss) => {
                assert!(!ready, "{status}: {miss}");
                assert_eq!(miss, Miss::HttpStatus(status));
            }
        }
    }
    // Without a length the body ends with the connection.
    let old = answering("HTTP/1.0 200 OK\r\n\r\nhello").await;
    assert_eq!(
        attempt(&http(), old, PATIENCE).await.unwrap().what,
        "HTTP 200"
    );
}

#[tokio::test]
async fn health_is_a_json_object_or_nothing() {
    let body = r#"{"status":"ok","n":1}"#;
    for status in [200, 503] {
        let text = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let address = answering(text).await;
        assert_eq!(
            health(address, PATIENCE).await,
            Some(json!({"status": "ok", "n": 1}))
        );
    }
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    assert!(health(answering(chunked).await, PATIENCE).await.is_some());
    let old = format!("HTTP/1.0 200 OK\r\n\r\n{body}");
    assert!(health(answering(old).await, PATIENCE).await.is_some());
    let huge = format!(
        "HTTP/1.0 200 OK\r\n\r\n{{\"a\":\"{}\"}}",
        "x".repeat(70_000)
    );
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        "HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}",
        huge.as_str(),
    ] {
        assert_eq!(
            health(answering(text).await, PATIENCE).await,
            None,
            "{text:.60}"
        );
    }
}

#[tokio::test]
async fn it_waits_for_a_server_that_comes_late() {
    let address = nobody().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let late = async {
        sleep(SHORT).await;
        let options = Options {
            host: address.ip(),
            port: address.port(),
            ..Options::default()
        };
        run(options, |at| assert_eq!(at, address), async {
            drop(stopped.await);
        })
        .await
    };
    let kind = ws();
    let wait = async {
        let answer = until_answered(&kind, address, PATIENCE).await;
        stop.send(()).unwrap();
        answer
    };
    let (served, answer) = timeout(PATIENCE, async { tokio::join!(late, wait) })
        .await
        .unwrap();
    served.unwrap();
    assert_eq!(answer.unwrap().remote, address);
}

#[tokio::test]
async fn the_last_finding_is_reported() {
    assert_eq!(
        until_answered(&ws(), nobody().await, SHORT).await,
        Err(Miss::Refused)
    );
    let http = answering("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").await;
    assert!(matches!(
        until_answered(&ws(), http, SHORT).await,
        Err(Miss::NotWebSocket {
            status: Some(404),
            ..
        })
    ));
    assert!(matches!(
        until_answered(&ws(), silent().await, SHORT).await,
        Err(Miss::TimedOut {
            awaited: Awaited::Handshake
        })
    ));
}

#[tokio::test]
async fn a_stranger_is_asked_again_until_the_right_one_answers() {
    let address = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let mut asked = 0;
    let answer = until_answered_with(&http(), address, PATIENCE, |_| {
        asked += 1;
        asked == 3
    })
    .await;
    assert!(answer.is_ok());
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn the_wildcard_address_is_asked_on_loopback() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let wildcard = SocketAddr::from(([0, 0, 0, 0], port));
    let answer = attempt(&ProbeKind::Tcp, wildcard, PATIENCE).await.unwrap();
    assert_eq!(answer.remote, listener.local_addr().unwrap());
}

#[tokio::test]
async fn a_path_that_cannot_be_requested_is_named_at_once() {
    let address = silent().await;
    let path = "/a b".to_owned();
    for kind in [
        ProbeKind::WebSocket { path: path.clone() },
        ProbeKind::Http { path: path.clone() },
    ] {
        let miss = until_answered(&kind, address, PATIENCE).await;
        assert_eq!(miss, Err(Miss::BadPath { path: path.clone() }));
    }
}

#[test]
fn urls_are_what_a_user_would_type() {
    let v4 = SocketAddr::from(([127, 0, 0, 1], 8003));
    assert_eq!(url(&ws(), v4), "ws://127.0.0.1:8003/ws");
    assert_eq!(url(&ProbeKind::Tcp, v4), "tcp://127.0.0.1:8003");
    let wildcard = SocketAddr::from(([0, 0, 0, 0], 80));
    assert_eq!(url(&http(), wildcard), "http://127.0.0.1:80/");
    let v6: SocketAddr = "[::1]:8003".parse().unwrap();
    let bare = ProbeKind::WebSocket {
        path: "ws?a=1".to_owned(),
    };
    assert_eq!(url(&bare, v6), "ws://[::1]:8003/ws?a=1");
}
