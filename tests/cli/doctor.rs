//! `wharf doctor`: what is said about this machine is true, and the exit code says whether the project can run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::engine_double::{EngineDouble, Stock, mute};
use crate::support::{Sandbox, free_port, python, require_engine, ws_server};

/// The report, and the exit code.
fn report(sandbox: &Sandbox) -> (Value, i32) {
    let finished = sandbox.wharf(&["doctor", "--format", "json"]);
    let report = serde_json::from_str(&finished.stdout);
    (
        report.unwrap_or_else(|error| panic!("{error}: {finished}")),
        finished.code(),
    )
}

/// The one finding whose check starts so.
fn finding(findings: &Value, check: &str) -> Value {
    let all = findings.as_array().expect("a list");
    let starts = |finding: &&Value| {
        let name = finding["check"].as_str();
        name.is_some_and(|name| name.starts_with(check))
    };
    let mut found = all.iter().filter(starts);
    let first = found
        .next()
        .unwrap_or_else(|| panic!("{check}: {findings:#}"));
    first.clone()
}

fn runtime(sandbox: &Sandbox, file: &str) -> PathBuf {
    let home = sandbox.path().parent();
    home.expect("the project directory has one")
        .join("run")
        .join(file)
}

fn local(sandbox: &Sandbox, port: u16) {
    let file = json!({"services": {"api": {
        "ports": [{"target": port, "published": port.to_string(), "host_ip": "127.0.0.1"}],
        "x-wharf": {"process": {"command": [python(), ws_server(), "--port", port.to_string()]}},
    }}});
    sandbox.write("compose.yaml", file.to_string());
}

#[test]
fn without_a_file_the_machine_alone_is_looked_at() {
    let sandbox = Sandbox::new();
    let (report, code) = report(&sandbox);
    assert_eq!(
        (code, &report["project"], &report["fit"]),
        (0, &Value::Null, &json!(true))
    );
    let machine = &report["machine"];
    assert_eq!(finding(machine, "engine unix://")["state"], "missing");
    assert_eq!(finding(machine, "state directory")["state"], "ok");
    for finding in machine.as_array().unwrap() {
        assert_eq!(
            finding["state"] != "ok",
            finding["hint"].is_string(),
            "{finding:#}"
        );
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(report["kernel"], release.trim());
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let range = range.split_whitespace().collect::<Vec<_>>().join(" to ");
    let said = finding(machine, "ports of outgoing connections");
    assert!(
        said["detail"].as_str().unwrap().contains(&range),
        "{said:#}"
    );
    let table = sandbox.wharf(&["doctor"]).expect(0);
    for finding in machine.as_array().unwrap() {
        assert!(
            table.stdout.contains(finding["check"].as_str().unwrap()),
            "{table}"
        );
    }
    assert!(table.stdout.contains("No compose file here"), "{table}");
}

#[test]
fn a_project_of_processes_is_fit_without_an_engine() {
    let sandbox = Sandbox::new();
    local(&sandbox, free_port());
    let (report, code) = report(&sandbox);
    assert_eq!(code, 0, "{report:#}");
    let project = &report["project"];
    assert_eq!(project["name"], sandbox.project());
    let place = finding(&project["findings"], "a place for local services");
    assert_eq!(
        (&place["state"], &place["services"]),
        (&json!("ok"), &json!(["api"]))
    );
}

#[test]
fn a_container_without_an_engine_is_missing_one() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", "services:\n  db: {image: busybox}\n");
    let (report, code) = report(&sandbox);
    assert_eq!((code, &report["fit"]), (1, &json!(false)));
    let engine = finding(&report["project"]["findings"], "an engine");
    assert_eq!(
        (&engine["state"], &engine["services"]),
        (&json!("missing"), &json!(["db"]))
    );
    let table = sandbox.wharf(&["doctor"]).expect(1);
    assert!(
        table
            .stdout
            .ends_with("One thing that the project needs is missing.\n"),
        "{table}"
    );
    assert_eq!(table.stderr, "");
}

#[test]
fn nothing_works_where_no_engine_is_and_nothing_can_be_kept() {
    let mut sandbox = Sandbox::new();
    let file = sandbox.write("file", "");
    sandbox.set("XDG_STATE_HOME", file.join("below"));
    let (report, code) = report(&sandbox);
    assert_eq!(code, 1, "{report:#}");
    let state = finding(&report["machine"], "state directory");
    assert_eq!(state["state"], "missing");
    assert!(
        state["detail"].as_str().unwrap().contains("no directory"),
        "{state:#}"
    );
}

#[test]
fn services_that_are_local_for_want_of_an_engine_need_a_place() {
    let mut sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  db: {image: busybox, x-wharf: {process: {command: [sleep, '60']}}}\n",
    );
    let (fit, code) = report(&sandbox);
    assert_eq!(code, 0, "{fit:#}");
    let file = sandbox.write("file", "");
    sandbox.set("XDG_STATE_HOME", file.join("below"));
    let (report, code) = report(&sandbox);
    assert_eq!((code, &report["fit"]), (1, &json!(false)), "{report:#}");
    let place = finding(&report["project"]["findings"], "a place for local services");
    assert_eq!(
        (&place["state"], &place["services"]),
        (&json!("missing"), &json!(["db"]))
    );
}

#[test]
fn a_held_port_is_what_up_resolves_and_its_holder_is_named() {
    let sandbox = Sandbox::new();
    let port = free_port();
    local(&sandbox, port);
    let server = sandbox.server(port, &[]);
    let (report, code) = report(&sandbox);
    assert_eq!(code, 0, "{report:#}");
    let held = finding(&report["project"]["findings"], &format!("port {port}/tcp"));
    assert_eq!(held["state"], "reduced");
    let pid = server.pid().to_string();
    assert!(held["detail"].as_str().unwrap().contains(&pid), "{held:#}");
    assert_eq!(held["hint"], format!("wharf free {port}"));
}

#[test]
fn a_port_of_outgoing_connections_is_warned_about() {
    let sandbox = Sandbox::new();
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let last: u16 = range.split_whitespace().last().unwrap().parse().unwrap();
    local(&sandbox, last);
    let (report, _) = report(&sandbox);
    let reserved = fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap();
    if reserved.trim().is_empty() {
        let warning = finding(&report["project"]["findings"], "published ports");
        assert_eq!(
            warning["hint"],
            format!("sudo sysctl -w net.ipv4.ip_local_reserved_ports={last}")
        );
    }
}

#[test]
fn a_file_that_is_wrong_is_reported_after_the_machine() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", "services:\n  db: {imagine: busybox}\n");
    let finished = sandbox.wharf(&["doctor"]).expect(3);
    assert!(finished.stderr.contains("imagine"), "{finished}");
    assert!(finished.stdout.contains("state directory"), "{finished}");
}

#[test]
fn an_engine_that_says_nothing_is_given_up_and_said_to_be_silent() {
    let mut sandbox = Sandbox::new();
    let socket = runtime(&sandbox, "mute.sock");
    mute(&socket);
    let host = format!("unix://{}", socket.display());
    sandbox.set("DOCKER_HOST", &host);
    let (report, code) = report(&sandbox);
    assert_eq!(code, 0, "{report:#}");
    let engine = finding(&report["machine"], &format!("engine {host}"));
    assert!(
        engine["detail"].as_str().unwrap().contains("two seconds"),
        "{engine:#}"
    );
}

#[test]
fn every_engine_is_found_and_the_current_one_named_so() {
    let mut sandbox = Sandbox::new();
    let (own, other) = (
        runtime(&sandbox, "own.sock"),
        runtime(&sandbox, "podman/podman.sock"),
    );
    let doubles = [&own, &other].map(|socket| EngineDouble::listen(socket, Stock::default()));
    sandbox.set("DOCKER_HOST", format!("unix://{}", own.display()));
    let (report, _) = report(&sandbox);
    let machine = &report["machine"];
    let found = finding(machine, &format!("engine unix://{}", own.display()));
    let detail = found["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("Podman 4.3.1, API 1.41 (DOCKER_HOST)"),
        "{detail}"
    );
    assert!(detail.contains("volume.subpath"), "{detail}");
    let found = finding(machine, &format!("engine unix://{}", other.display()));
    assert!(
        found["detail"]
            .as_str()
            .unwrap()
            .contains("its usual socket"),
        "{found:#}"
    );
    assert_eq!(finding(machine, "BuildKit")["state"], "reduced");
    for double in doubles {
        let asked = double.asked();
        assert!(
            asked.iter().any(|request| request.ends_with("/_ping")),
            "{asked:?}"
        );
        let changes = asked.iter().filter(|request| !request.starts_with("GET"));
        assert!(
            changes
                .clone()
                .all(|request| request.starts_with("POST /grpc")),
            "{asked:?}"
        );
    }
}

#[test]
fn what_an_old_engine_lacks_is_missing_only_where_it_is_used() {
    let mut sandbox = Sandbox::new();
    let socket = runtime(&sandbox, "own.sock");
    let _double = EngineDouble::listen(&socket, Stock::default());
    sandbox.set("DOCKER_HOST", format!("unix://{}", socket.display()));
    sandbox.write("compose.yaml", "services:\n  db: {image: busybox}\n");
    let (fit, code) = report(&sandbox);
    assert_eq!(code, 0, "{fit:#}");
    sandbox.write(
        "compose.yaml",
        "services:\n  db:\n    image: busybox\n    volumes:\n      - {type: volume, source: data, target: /d, volume: {subpath: a}}\nvolumes: {data: {}}\n",
    );
    let (unfit, code) = report(&sandbox);
    assert_eq!(code, 1, "{unfit:#}");
    let subpath = finding(&unfit["project"]["findings"], "volume.subpath");
    assert_eq!(
        (&subpath["state"], &subpath["services"]),
        (&json!("missing"), &json!(["db"]))
    );
}

#[test]
fn helpers_and_the_plug_in_are_looked_for() {
    let sandbox = Sandbox::new();
    let docker = sandbox.path().parent().unwrap().join("home/.docker");
    fs::create_dir_all(docker.join("cli-plugins")).unwrap();
    fs::write(
        docker.join("config.json"),
        r#"{"credsStore": "wharf-tests-none"}"#,
    )
    .unwrap();
    std::os::unix::fs::symlink("nothing", docker.join("cli-plugins/docker-compose")).unwrap();
    let (broken, _) = report(&sandbox);
    let helpers = finding(&broken["machine"], "credential helpers");
    assert!(
        helpers["detail"]
            .as_str()
            .unwrap()
            .contains("docker-credential-wharf-tests-none")
    );
    assert_eq!(
        finding(&broken["machine"], "docker compose")["state"],
        "reduced"
    );
}

#[test]
fn a_state_directory_that_is_open_to_others_is_said_to_be() {
    let sandbox = Sandbox::new();
    let state = sandbox.path().parent().unwrap().join("state/wharf");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let (report, _) = report(&sandbox);
    let found = finding(&report["machine"], "state directory");
    assert_eq!(found["hint"], format!("chmod 700 {}", state.display()));
}

#[test]
fn the_engine_that_answers_is_described() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let (report, code) = report(&sandbox);
    assert_eq!(code, 0, "{report:#}");
    let found = finding(&report["machine"], &format!("engine {}", engine.host));
    let version = engine.ask(&[
        "version",
        "--format",
        "{{.Server.Version}}, API {{.Server.APIVersion}}",
    ]);
    let detail = found["detail"].as_str().unwrap();
    assert!(
        detail.starts_with(&format!("Docker {}", version.trim())),
        "{detail} {version}"
    );
    let stream = finding(&report["machine"], "local services in containers");
    assert!(stream["detail"].is_string());
}

#[test]
fn an_engine_that_says_nothing_is_waited_for_once() {
    let mut sandbox = Sandbox::new();
    let path = sandbox.path().join("mute.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    sandbox.set("DOCKER_HOST", format!("unix://{}", path.display()));
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  web: {{image: web, ports: ['127.0.0.1:{}:80']}}\n",
            free_port()
        ),
    );
    let doctor = sandbox.wharf(&["doctor"]).expect(1);
    assert!(!doctor.stderr.contains("does not answer"), "{doctor}");
    listener.set_nonblocking(true).unwrap();
    let asked = std::iter::from_fn(|| listener.accept().ok());
    assert_eq!(asked.count(), 1, "{doctor}");
    fs::remove_file(path).unwrap();
}
