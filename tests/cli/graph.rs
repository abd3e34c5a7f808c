//! `wharf graph`: the stack drawn from its files, from what runs, and from who holds its ports.

use std::fs;

use serde_json::{Value, json};

use crate::engine_double::{EngineDouble, Stock};
use crate::support::{Sandbox, free_port, python, require_engine, ws_server};

/// Two local services and their ports.
fn local(sandbox: &Sandbox, api: u16, front: u16) {
    let server = |port: u16| {
        json!({
            "command": [python(), ws_server(), "--port", port.to_string()],
        })
    };
    let service = |port: u16, depends_on: Value| {
        json!({
            "ports": [{"target": port, "published": port.to_string(), "host_ip": "127.0.0.1"}],
            "depends_on": depends_on,
            "x-wharf": {"process": server(port)},
        })
    };
    let file = json!({"services": {
        "api": service(api, json!({})),
        "front": service(front, json!({"api": {"condition": "service_started", "restart": true}})),
        "probe": service(free_port(), json!({"front": {"condition": "service_started"}, "api": {"condition": "service_started"}})),
    }});
    sandbox.write("compose.yaml", file.to_string());
}

#[test]
fn a_stack_of_processes_is_drawn_without_an_engine() {
    let sandbox = Sandbox::new();
    let (api, front) = (free_port(), free_port());
    local(&sandbox, api, front);
    let socket = sandbox.path().parent().unwrap().join("run/docker.sock");
    let engine = EngineDouble::listen(&socket, Stock::default());
    let finished = sandbox.wharf(&["graph"]).expect(0);
    assert_eq!(finished.stderr, "");
    assert_eq!(engine.asked(), Vec::<String>::new());
    let lines: Vec<&str> = finished.stdout.lines().collect();
    let find = |start: &str| {
        let mut found = lines.iter().filter(|line| line.starts_with(start));
        let line = found
            .next()
            .unwrap_or_else(|| panic!("{start}: {finished}"));
        (*line).to_owned()
    };
    assert!(find("probe").contains("process"), "{finished}");
    assert!(
        find("├─ api (started)").contains(&format!("127.0.0.1:{api}")),
        "{finished}"
    );
    assert!(
        find("└─ front (started)").contains(&format!("127.0.0.1:{front}")),
        "{finished}"
    );
    assert!(
        find("   └─ api (started, restart)").ends_with("see above"),
        "{finished}"
    );
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{finished}"
    );
}

#[test]
fn a_held_port_is_marked_and_its_holder_named() {
    let sandbox = Sandbox::new();
    let (api, front) = (free_port(), free_port());
    local(&sandbox, api, front);
    let server = sandbox.server(api, &[]);
    let finished = sandbox.wharf(&["graph", "api"]).expect(0);
    assert!(
        finished.stdout.contains(&format!("127.0.0.1:{api} !")),
        "{finished}"
    );
    let holder = format!("127.0.0.1:{api} of api: held by ");
    assert!(finished.stdout.contains(&holder), "{finished}");
    assert!(
        finished.stdout.contains(&server.pid().to_string()),
        "{finished}"
    );
    assert!(!finished.stdout.contains("front"), "{finished}");
    let json = &sandbox
        .wharf(&["graph", "--format", "json"])
        .expect(0)
        .stdout;
    let graph: Value = serde_json::from_str(json).unwrap();
    assert_eq!(graph["services"][0]["ports"][0]["state"], "held");
    assert_eq!(graph["services"][1]["ports"][0]["state"], "free");
    let svg = sandbox
        .wharf(&["graph", "--format", "svg"])
        .expect(0)
        .stdout
        .clone();
    assert!(svg.contains("box process taken"), "{svg}");
}

#[test]
fn what_runs_is_drawn_with_its_state() {
    let sandbox = Sandbox::new();
    local(&sandbox, free_port(), free_port());
    sandbox.wharf(&["up", "--detach", "api"]).expect(0);
    let json = &sandbox
        .wharf(&["graph", "--format", "json"])
        .expect(0)
        .stdout;
    let graph: Value = serde_json::from_str(json).unwrap();
    let api = &graph["services"][0];
    assert_eq!(
        (&api["name"], &api["state"]),
        (&json!("api"), &json!("running"))
    );
    assert_eq!(api["ports"][0]["state"], "ours");
    assert_eq!(graph["services"][1]["state"], "-");
    assert_eq!(
        graph["services"][1]["depends_on"],
        json!([{"service": "api", "condition": "started", "restart": true, "optional": false}])
    );
}

#[test]
fn without_an_engine_containers_are_drawn_as_far_as_they_are_known() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  db: {image: busybox}\n  web:\n    image: busybox\n    depends_on: {db: {condition: service_healthy}}\n",
    );
    let finished = sandbox.wharf(&["graph"]).expect(0);
    assert!(
        finished
            .stderr
            .contains("the state of containers is not known"),
        "{finished}"
    );
    let web = finished
        .stdout
        .lines()
        .find(|line| line.starts_with("web"))
        .unwrap();
    assert!(
        web.contains("container") && web.contains("unknown"),
        "{finished}"
    );
    let mermaid = sandbox
        .wharf(&["graph", "--format", "mermaid"])
        .expect(0)
        .stdout
        .clone();
    assert!(mermaid.starts_with("flowchart TD\n"), "{mermaid}");
    assert!(mermaid.contains("s1 -->|\"healthy\"| s0"), "{mermaid}");
}

#[test]
fn both_forms_are_drawn_as_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  api:\n    image: busybox\n    x-wharf: {process: {command: [sleep, '600']}}\n  db: {image: busybox}\n",
    );
    let backend = |arguments: &[&str]| {
        let all = [&["graph", "--format", "json"], arguments].concat();
        let graph: Value = serde_json::from_str(&sandbox.wharf(&all).expect(0).stdout).unwrap();
        graph["services"][0]["backend"].clone()
    };
    assert_eq!(backend(&[]), "container");
    assert_eq!(backend(&["--local=api"]), "process");
    assert_eq!(backend(&["--local"]), "process");
    let finished = sandbox.wharf(&["graph", "--local=db"]);
    assert!(
        finished.stderr.contains("`db` has no process form"),
        "{finished}"
    );
    assert_ne!(finished.code(), 0);
}

#[test]
fn a_picture_goes_to_a_file() {
    let sandbox = Sandbox::new();
    local(&sandbox, free_port(), free_port());
    let finished = sandbox
        .wharf(&["graph", "--format", "svg", "-o", "stack.svg"])
        .expect(0);
    assert_eq!(finished.stdout, "");
    let svg = fs::read_to_string(sandbox.path().join("stack.svg")).unwrap();
    assert!(
        svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"),
        "{svg}"
    );
    assert_eq!(svg.matches("<path class=\"edge").count(), 3);
    let finished = sandbox.wharf(&["graph", "-o", "no/such/directory"]);
    assert_eq!(finished.code(), 1, "{finished}");
}

#[test]
fn containers_are_drawn_with_their_state() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let port = free_port();
    let file = format!(
        "services:\n  web:\n    image: {}\n    command: [httpd, -f, -p, '80']\n    ports: ['127.0.0.1:{port}:80']\n",
        engine.busybox()
    );
    sandbox.write("compose.yaml", file);
    sandbox.wharf(&["up", "--detach"]).expect(0);
    let json = &sandbox
        .wharf(&["graph", "--format", "json"])
        .expect(0)
        .stdout;
    let graph: Value = serde_json::from_str(json).unwrap();
    let web = &graph["services"][0];
    assert_eq!(web["state"], "running", "{graph}");
    let expected = json!({"number": 1, "address": "127.0.0.1", "published": port, "target": 80, "protocol": "tcp", "state": "ours", "holders": []});
    assert_eq!(web["ports"], json!([expected]));
}
