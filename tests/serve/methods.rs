//! JSON-RPC 2.0 on `/ws`.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use wharf::server::Options;

use crate::client::{Client, start};

#[tokio::test]
async fn every_simple_method_answers() {
    let server = start(Options::default());
    let mut client = Client::connect(server.address).await;
    assert_eq!(
        client.call("echo", json!({"a": [1, "ü"]})).await,
        json!({"jsonrpc": "2.0", "id": 1, "result": {"a": [1, "ü"]}})
    );
    assert_eq!(client.call("ping", json!([])).await["result"], "pong");
    let sessions = client.call("sessions", json!({})).await["result"].clone();
    assert_eq!(sessions["active_sessions"], 1);
    assert_eq!(sessions["max_sessions"], 100);
    assert_eq!(sessions["sessions"][0]["this"], true);
    assert_eq!(
        sessions["sessions"][0]["peer"],
        client.0.get_ref().local_addr().unwrap().to_string()
    );
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn mistakes_have_their_codes() {
    let server = start(Options::default());
    let mut client = Client::connect(server.address).await;
    for (text, code) in [
        ("{", -32700),
        ("[]", -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"nothing"}"#, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"execute"}"#, -32602),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"execute","params":{"command":["sh"]}}"#,
            -32602,
        ),
    ] {
        client.send(text).await;
        assert_eq!(client.receive().await["error"]["code"], code, "{text}");
    }
    // After all that the session is as good as new.
    assert_eq!(client.call("ping", json!([])).await["result"], "pong");
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn notifications_are_never_answered() {
    let server = start(Options::default());
    let mut client = Client::connect(server.address).await;
    client.send(r#"{"jsonrpc":"2.0","method":"ping"}"#).await;
    client.send(r#"{"jsonrpc":"2.0","method":"nothing"}"#).await;
    client
        .send(r#"[{"jsonrpc":"2.0","method":"ping"},{"jsonrpc":"2.0","method":"echo"}]"#)
        .await;
    assert_eq!(
        client.call("echo", json!(["next"])).await["result"][0],
        "next"
    );
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn a_batch_is_answered_as_one() {
    let server = start(Options {
        allow: vec!["echo".to_owned()],
        ..Options::default()
    });
    let mut client = Client::connect(server.address).await;
    client
        .send(
            json!([
                {"jsonrpc": "2.0", "method": "ping", "id": "a"},
                {"jsonrpc": "2.0", "method": "ping"},
                1,
                {"jsonrpc": "2.0", "method": "nothing", "id": 2},
                {"jsonrpc": "2.0", "method": "execute", "id": 3, "params": {"command": "echo"}},
            ])
            .to_string(),
        )
        .await;
    let output = client.receive().await;
    assert_eq!(
        output["params"],
        json!({"id": 3, "stream": "stdout", "data": "\n"})
    );
    let answers = client.receive().await;
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 4);
    assert_eq!(
        answers[0],
        json!({"jsonrpc": "2.0", "id": "a", "result": "pong"})
    );
    assert_eq!(answers[1]["error"]["code"], -32600);
    assert_eq!(answers[1]["id"], Value::Null);
    assert_eq!(answers[2]["error"]["code"], -32601);
    assert_eq!(answers[3]["result"]["exit_code"], 0);
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn bytes_are_read_like_text() {
    use futures_util::SinkExt;
    let server = start(Options::default());
    let mut client = Client::connect(server.address).await;
    let call = br#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#.to_vec();
    client.0.send(Message::binary(call)).await.unwrap();
    assert_eq!(client.receive().await["id"], 9);
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn a_message_too_large_closes_with_1009() {
    let server = start(Options {
        max_message: 1000,
        ..Options::default()
    });
    let mut client = Client::connect(server.address).await;
    client.send("x".repeat(1001)).await;
    assert_eq!(client.close_code().await, Some(1009));
    server.end().await;
}

#[tokio::test]
async fn a_flood_without_reading_is_stopped_by_backpressure_and_then_cut_off() {
    use futures_util::SinkExt;
    let server = start(Options {
        stall: std::time::Duration::from_millis(200),
        ..Options::default()
    });
    let mut client = Client::connect(server.address).await;
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": ["x".repeat(100_000)]});
    let call = Message::text(call.to_string());
    // Answers fill the queue and both sockets; then the server reads no more, and in the end hangs up.
    let flood = async { while client.0.send(call.clone()).await.is_ok() {} };
    tokio::time::timeout(crate::client::PATIENCE, flood)
        .await
        .unwrap();
    server.wait_for_sessions(0).await;
    server.end().await;
}
