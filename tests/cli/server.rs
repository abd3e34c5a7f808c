//! `wharf server …`: one server without a compose file.

use crate::support::{Sandbox, free_port, is_free, websocket};

#[test]
fn the_embedded_server_from_start_to_stop() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let number = port.to_string();
    sandbox
        .wharf(&["server", "status", "--port", &number])
        .expect(1)
        .expect_text("is available");
    let start = sandbox
        .wharf(&["server", "start", "--port", &number, "--background"])
        .expect(0);
    assert!(
        start.stderr.contains(&format!("ws://127.0.0.1:{port}/ws")),
        "{start}"
    );
    let _connection = websocket::connect(port, "/ws").unwrap();
    let status = sandbox
        .wharf(&["server", "status", "--format", "json", "--port", &number])
        .expect(0);
    let answer = status.json_lines().remove(0);
    let server = &answer["servers"][0];
    assert_eq!(server["port"], port);
    assert_eq!(server["state"], "running");
    assert_eq!(server["connections"], 1);
    assert!(server["pid"].as_u64().is_some() && server["age_seconds"].as_u64().is_some());
    assert!(
        server["command"].as_str().unwrap().contains("serve"),
        "{server}"
    );
    assert_eq!(server["details"]["active_sessions"], 1, "{server}");
    assert_eq!(answer["port"]["available"], false);
    sandbox.wharf(&["server", "stop"]).expect(0);
    assert!(is_free(port));
    sandbox
        .wharf(&["server", "status", "--port", &number])
        .expect(1);
    // A server of somebody else's on any address of the machine has the port.
    let other = sandbox.server(port, &["--host", "127.0.0.2"]);
    let status = sandbox
        .wharf(&["server", "status", "--port", &number])
        .expect(1);
    assert!(status.stdout.contains("127.0.0.2"), "{status}");
    assert!(!status.stdout.contains("is available"), "{status}");
    sandbox
        .wharf(&["server", "status", "--port", &number, "--host", "127.0.0.1"])
        .expect(1)
        .expect_text("is available");
    drop(other);
}

#[test]
fn an_earlier_server_is_asked_about_replaced_or_left() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let number = port.to_string();
    let start = ["server", "start", "--port", &number, "--background"];
    sandbox.wharf(&start).expect(0);
    let pids = |sandbox: &Sandbox| -> Vec<u64> {
        let status = sandbox
            .wharf(&["server", "status", "--format", "json"])
            .expect(0);
        let answer = status.json_lines().remove(0);
        let servers = answer["servers"].as_array().unwrap();
        servers
            .iter()
            .map(|server| server["pid"].as_u64().unwrap())
            .collect()
    };
    let first = pids(&sandbox);
    let refused = sandbox.wharf(&start).expect(5);
    assert!(refused.stderr.contains("--force"), "{refused}");
    assert!(refused.stderr.contains(&first[0].to_string()), "{refused}");
    assert_eq!(pids(&sandbox), first);
    sandbox
        .wharf(&[&start[..], &["--force"]].concat())
        .expect(0);
    assert_ne!(pids(&sandbox), first);
    websocket::connect(port, "/ws").unwrap();
    sandbox
        .wharf(&[&start[..], &["--on-conflict", "move"]].concat())
        .expect(0);
    assert_eq!(
        pids(&sandbox).len(),
        2,
        "the earlier one runs on beside the new one"
    );
    sandbox.wharf(&["server", "stop"]).expect(0);
}

#[test]
fn a_foreign_holder_is_replaced_by_force_or_avoided() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let number = port.to_string();
    let old = sandbox.server(port, &[]);
    let start = ["server", "start", "--port", &number, "--background"];
    sandbox.wharf(&start).expect(5);
    let moved = sandbox
        .wharf(&[&start[..], &["--on-conflict", "move"]].concat())
        .expect(0);
    assert!(moved.stderr.contains("is taken; using"), "{moved}");
    assert!(!old.process().ended());
    sandbox
        .wharf(&[&start[..], &["--force"]].concat())
        .expect(0);
    assert!(old.process().ended());
    websocket::connect(port, "/ws").unwrap();
    sandbox.wharf(&["server", "stop"]).expect(0);
}

#[test]
fn any_command_is_run_and_told_for_what_it_is() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let number = port.to_string();
    let http = [
        "python3",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        &number,
    ];
    let start = ["server", "start", "--port", &number, "--background", "--"];
    let started = sandbox.wharf(&[&start[..], &http].concat()).expect(0);
    assert!(
        started
            .stderr
            .contains("listening, but no WebSocket handshake"),
        "{started}"
    );
    let status = sandbox.wharf(&["server", "status"]).expect(0);
    assert!(
        status
            .stdout
            .contains("listening, but no WebSocket handshake"),
        "{status}"
    );
    assert!(status.stdout.contains("http.server"), "{status}");
    sandbox.wharf(&["server", "restart"]).expect(0);
    sandbox.wharf(&["server", "stop"]).expect(0);
    assert!(is_free(port));
    let ws = ["python3", crate::support::ws_server(), "--port", &number];
    let started = sandbox.wharf(&[&start[..], &ws].concat()).expect(0);
    assert!(started.stderr.contains("WebSocket handshake"), "{started}");
    assert!(
        !started.stderr.contains("no WebSocket handshake"),
        "{started}"
    );
    sandbox.wharf(&["server", "stop"]).expect(0);
}

#[test]
fn in_the_foreground_it_ends_with_ctrl_c() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let number = port.to_string();
    let server = sandbox.spawn(&["server", "start", "--port", &number]);
    server.wait_for_line("is ready");
    server.signal(rustix::process::Signal::INT);
    server.wait().expect(130);
    assert!(is_free(port));
    sandbox.wharf(&["server", "stop"]).expect(0);
}
