//! `execute`: what runs, what it says, and that nothing of it stays.

use std::time::Duration;

use serde_json::json;
use wharf::server::Options;

use crate::client::{Client, PATIENCE, Running, lives, start, wait_for_the_end};

fn shell() -> Running {
    start(Options {
        allow: vec![
            "sh".to_owned(),
            "/bin/cat".to_owned(),
            "no-such-program".to_owned(),
        ],
        grace: Duration::from_millis(200),
        ..Options::default()
    })
}

fn script(text: &str) -> serde_json::Value {
    json!({"command": "sh", "args": ["-c", text]})
}

#[tokio::test]
async fn output_streams_and_the_exit_code_returns() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    let (stdout, stderr, response) = client
        .execute(script("printf 'grün\\n'; printf oops >&2; exit 3"))
        .await;
    assert_eq!(stdout, "grün\n");
    assert_eq!(stderr, "oops");
    assert_eq!(response["result"]["exit_code"], 3);
    assert_eq!(response["result"]["timed_out"], false);
    assert_eq!(response["result"]["signal"], json!(null));
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn output_arrives_while_the_command_runs() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    client
        .request("execute", script("echo $$; exec sleep 1000"))
        .await;
    let pids = client.pids().await;
    assert!(lives(pids[0]));
    // And other calls are answered meanwhile.
    assert_eq!(client.call("ping", json!([])).await["result"], "pong");
    let sessions = client.call("sessions", json!([])).await;
    assert_eq!(sessions["result"]["sessions"][0]["commands"], 1);
    drop(client);
    wait_for_the_end(&pids).await;
    server.end().await;
}

#[tokio::test]
async fn long_output_is_whole_and_in_order() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    let (stdout, _, response) = client
        .execute(script(
            "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done",
        ))
        .await;
    let lines = stdout.lines().enumerate();
    assert_eq!(lines.clone().count(), 20000);
    for (number, line) in lines {
        assert_eq!(line, format!("line {number}"));
    }
    assert_eq!(response["result"]["exit_code"], 0);
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn arguments_are_never_a_shell_s() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    let args = json!({"command": "/bin/cat", "args": ["/dev/null; echo hacked"]});
    let (stdout, stderr, response) = client.execute(args).await;
    assert_eq!(stdout, "");
    assert!(stderr.contains("/dev/null; echo hacked"), "{stderr}");
    assert_eq!(response["result"]["exit_code"], 1);
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn only_what_is_allowed_runs() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    for command in [
        "cat",
        "/bin/sh",
        "./sh",
        "/bin/../bin/cat",
        "sh -c true",
        "",
    ] {
        let response = client.call("execute", json!({"command": command})).await;
        assert_eq!(response["error"]["code"], -32001, "{command}");
    }
    let missing = client.call("execute", json!(["no-such-program"])).await;
    assert_eq!(missing["error"]["code"], -32002);
    for params in [
        json!({"command": "sh", "cwd": "relative"}),
        json!({"command": "sh", "cwd": "/no/such/directory"}),
        json!({"command": "sh", "timeout_ms": 0}),
        json!({"command": "sh", "args": ["a\u{0}b"]}),
        json!({"command": "sh", "env": {"A": "b"}}),
    ] {
        let response = client.call("execute", params.clone()).await;
        assert_eq!(response["error"]["code"], -32602, "{params}");
    }
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn nothing_runs_without_an_allow_list() {
    let server = start(Options::default());
    let mut client = Client::connect(server.address).await;
    let response = client.call("execute", json!({"command": "sh"})).await;
    assert_eq!(response["error"]["code"], -32001);
    let message = response["error"]["message"].as_str().unwrap();
    assert!(message.contains("--allow"), "{message}");
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn the_directory_is_the_asked_one() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    let here = tempfile::tempdir().unwrap();
    let here = here.path().canonicalize().unwrap();
    let (stdout, _, _) = client
        .execute(json!({"command": "sh", "args": ["-c", "pwd -P"], "cwd": here}))
        .await;
    assert_eq!(stdout.trim(), here.to_str().unwrap());
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    // The child ignores SIGTERM, so it takes SIGKILL.
    let mut params =
        script("sh -c 'trap \"\" TERM; while :; do sleep 1000; done' & echo $$ $!; wait");
    params["timeout_ms"] = json!(300);
    client.request("execute", params).await;
    let pids = client.pids().await;
    let response = client.receive().await;
    assert_eq!(response["result"]["timed_out"], true);
    assert_eq!(response["result"]["exit_code"], 128 + 15);
    assert_eq!(response["result"]["signal"], 15);
    assert!(
        !pids.iter().any(|pid| lives(*pid)),
        "gone before the answer"
    );
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn what_a_command_leaves_in_its_group_ends_with_it() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    let (stdout, _, response) = client.execute(script("sleep 1000 & echo $!; exit 0")).await;
    assert_eq!(response["result"]["exit_code"], 0);
    assert!(!lives(stdout.trim().parse().unwrap()));
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn one_that_left_the_group_does_not_hold_up_the_answer() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    let here = tempfile::tempdir().unwrap();
    let there = here.path().join("there");
    let there = there.display();
    let text = format!(
        "setsid sh -c 'echo $$; : > {there}; exec sleep 1000' & \
         until [ -e {there} ]; do sleep 0.01; done; exit 5"
    );
    let (stdout, _, response) = client.execute(script(&text)).await;
    let stray: i32 = stdout.trim().parse().unwrap();
    assert_eq!(response["result"]["exit_code"], 5);
    let stray = nix::unistd::Pid::from_raw(stray);
    nix::sys::signal::kill(stray, nix::sys::signal::Signal::SIGKILL).unwrap();
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_commands_along() {
    for rudely in [false, true] {
        let server = shell();
        let mut client = Client::connect(server.address).await;
        let tree = "sh -c 'trap \"\" TERM; while :; do sleep 1000; done' & \
                    sleep 1000 & echo $$ $! ; wait";
        client.request("execute", script(tree)).await;
        let pids = client.pids().await;
        if rudely {
            drop(client);
        } else {
            client.0.close(None).await.unwrap();
            assert!(client.next().await.is_none_or(|message| message.is_close()));
        }
        wait_for_the_end(&pids).await;
        server.wait_for_sessions(0).await;
        server.end().await;
    }
}

#[tokio::test]
async fn output_that_nobody_reads_stops_the_command_not_the_server() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    client
        .request(
            "execute",
            script("echo $$; while :; do echo yyyyyyyyyyyyyyyy; done"),
        )
        .await;
    let pid = client.pids_of_flood().await;
    // The command comes to rest in write(2): its pipe, the queue and both sockets are full.
    let blocked = async {
        loop {
            let before = written(pid);
            tokio::time::sleep(Duration::from_millis(200)).await;
            if before == written(pid) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, blocked).await.unwrap();
    assert!(lives(pid));
    assert_eq!(server.health().await["status"], "ok");
    drop(client);
    wait_for_the_end(&[pid]).await;
    server.end().await;
}

/// proc(5): bytes that a process has written.
fn written(pid: u32) -> Option<String> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines()
        .find(|line| line.starts_with("wchar"))
        .map(str::to_owned)
}

impl Client {
    /// The number on the first line of a flood.
    async fn pids_of_flood(&mut self) -> u32 {
        let message = self.receive().await;
        let data = message["params"]["data"].as_str().unwrap();
        data.lines().next().unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn a_session_runs_only_so_many_commands() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    for _ in 0..8 {
        client
            .request("execute", script("echo $$; exec sleep 1000"))
            .await;
    }
    let mut pids = Vec::new();
    for _ in 0..8 {
        pids.extend(client.pids().await);
    }
    let response = client.call("execute", script("true")).await;
    assert_eq!(response["error"]["code"], -32003);
    drop(client);
    wait_for_the_end(&pids).await;
    server.end().await;
}

#[tokio::test]
async fn a_notification_runs_and_says_nothing() {
    let server = shell();
    let mut client = Client::connect(server.address).await;
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("done");
    let text = format!("echo loud; echo x > {}", file.display());
    let call = json!({"jsonrpc": "2.0", "method": "execute", "params": script(&text)});
    client.send(call.to_string()).await;
    let done = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, done).await.unwrap();
    assert_eq!(client.call("ping", json!([])).await["result"], "pong");
    drop(client);
    server.end().await;
}
