//! wharf in the place of Docker Compose: as a plugin of the Docker client, by its name, and as a provider
//! under it.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::running::Running;
use crate::support::{Sandbox, eventually, require_engine};

const PROCESS: &str =
    "services:\n  a: {x-wharf: {process: {command: [sh, -c, 'echo here; exec sleep 600']}}}\n";

/// wharf by the name of Docker Compose, in the plugin folder of a client's configuration.
fn link(sandbox: &mut Sandbox) -> String {
    let config = sandbox.path().with_file_name("docker");
    let folder = config.join("cli-plugins");
    std::fs::create_dir_all(&folder).expect("the sandbox can be written to");
    let link = folder.join("docker-compose");
    symlink(env!("CARGO_BIN_EXE_wharf"), &link).expect("there is no such file yet");
    sandbox.set("DOCKER_CONFIG", config);
    link.display().to_string()
}

#[test]
fn by_the_name_of_compose_it_behaves_like_it() {
    let mut sandbox = Sandbox::new();
    let link = link(&mut sandbox);
    sandbox.write("compose.yaml", PROCESS);
    let run = |arguments: &[&str]| sandbox.program(&link, arguments).wait();
    let metadata = run(&["docker-cli-plugin-metadata"]).expect(0);
    let metadata: Value = serde_json::from_str(&metadata.stdout).unwrap();
    assert_eq!(metadata["SchemaVersion"], "0.1.0");
    assert!(metadata["Vendor"].is_string());
    let version = run(&["version", "--short"]).expect(0);
    assert!(version.stdout.starts_with("2."), "{version}");
    for arguments in [&["-v"][..], &["--version"], &["compose", "version"]] {
        let said = run(arguments).expect(0);
        assert!(
            said.stdout.starts_with("Docker Compose version 2."),
            "{said}"
        );
    }
    run(&[]).expect(0).expect_text("Usage: docker-compose ");
    run(&["compose", "up", "--help"])
        .expect(0)
        .expect_text("Usage: docker compose up ");
    run(&["help", "compose", "ps"])
        .expect(0)
        .expect_text("Usage: docker compose ps ");
    run(&["--host", "unix:///nowhere", "compose", "up", "-d"]).expect(0);
    let failed = run(&["compose", "start", "-x"]).expect(1);
    assert!(failed.stderr.contains("docker compose"), "{failed}");
    run(&["down"]).expect(0);
}

#[test]
fn the_docker_client_runs_it() {
    let mut sandbox = Sandbox::new();
    link(&mut sandbox);
    if Command::new("docker").arg("--version").output().is_err() {
        println!("skipped: there is no docker command");
        return;
    }
    sandbox.write("compose.yaml", PROCESS);
    let docker = |arguments: &[&str]| sandbox.program("docker", arguments).wait();
    docker(&["--log-level", "warn", "compose", "up", "-d"]).expect(0);
    let rows = docker(&["compose", "ps", "--format", "json"]).expect(0);
    assert_eq!(rows.json_lines()[0]["Service"], "a");
    docker(&["compose", "down", "-t", "0"]).expect(0);
}

#[test]
fn it_ends_when_the_client_says_so() {
    let mut sandbox = Sandbox::new();
    let link = link(&mut sandbox);
    sandbox.write("compose.yaml", PROCESS);
    let address: PathBuf = sandbox.path().join("s");
    let listener = UnixListener::bind(&address).expect("the path is short");
    sandbox.set("DOCKER_CLI_PLUGIN_SOCKET", &address);
    let up = sandbox.program(&link, &["compose", "up"]);
    let (connection, _) = listener.accept().expect("the client is alive");
    up.wait_for_line("a-1  | here");
    drop(connection);
    up.wait().expect(130);
    sandbox.until_nothing_runs();
}

/// Ends when it is told to and `go` is there.
const RELUCTANT: &str = r#"
services:
  a:
    stop_grace_period: 10m
    x-wharf:
      process:
        command: [sh, -c, "trap 'echo ending; until [ -e go ]; do sleep 0.1; done; echo bye; exit 0' TERM; echo here; sleep 600 & wait"]
"#;

/// `up` under a client without a terminal, to which somebody sends SIGINT as one of its process group; the client
/// then closes its connection.
fn interrupted_with_its_client(sandbox: &mut Sandbox) -> Running {
    let link = link(sandbox);
    sandbox.write("compose.yaml", RELUCTANT);
    let address: PathBuf = sandbox.path().join("s");
    let listener = UnixListener::bind(&address).expect("the path is short");
    sandbox.set("DOCKER_CLI_PLUGIN_SOCKET", &address);
    let up = sandbox.program(&link, &["compose", "up"]);
    let (connection, _) = listener.accept().expect("the client is alive");
    up.wait_for_line("a-1  | here");
    up.signal(rustix::process::Signal::INT);
    drop(connection);
    up.wait_for_line("a-1  | ending");
    up
}

#[test]
fn a_signal_to_the_client_and_to_wharf_counts_once() {
    let mut sandbox = Sandbox::new();
    let up = interrupted_with_its_client(&mut sandbox);
    sandbox.write("go", "");
    up.wait_for_line("a-1  | bye");
    up.wait().expect(130);
}

#[test]
fn the_second_signal_to_both_kills() {
    let mut sandbox = Sandbox::new();
    let up = interrupted_with_its_client(&mut sandbox);
    up.signal(rustix::process::Signal::INT);
    let ended = up.wait().expect(130);
    assert!(!ended.stdout.contains("bye"), "{ended}");
}

#[test]
fn an_interrupted_restart_says_what_was_done_and_what_was_not() {
    let mut sandbox = Sandbox::new();
    let link = link(&mut sandbox);
    sandbox.write("compose.yaml", RELUCTANT);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let has = |text: &str| {
        eventually(text, || {
            let logs = sandbox.wharf(&["logs"]).expect(0);
            logs.stdout.contains(text).then_some(())
        });
    };
    has("here");
    let restart = sandbox.program(&link, &["compose", "restart"]);
    has("ending");
    restart.signal(rustix::process::Signal::INT);
    restart.wait_for_line("again to leave at once");
    sandbox.write("go", "");
    let ended = restart.wait().expect(130);
    let name = format!("process {}-a-1", sandbox.project());
    for line in [
        "interrupted: `docker compose ps` shows what runs".to_owned(),
        format!("  done: {name}: stop"),
        format!("  not done: {name}: start"),
    ] {
        assert!(ended.stderr.lines().any(|told| told == line), "{ended}");
    }
    assert!(!ended.stderr.contains("goes on"), "{ended}");
}

#[test]
fn a_provider_says_json_lines_and_does_nothing_twice() {
    let sandbox = Sandbox::new();
    let call = |words: &[&str]| sandbox.wharf(&[&["compose"], words].concat());
    let metadata = call(&["metadata"]).expect(0).json_lines().remove(0);
    assert_eq!(metadata["up"]["parameters"][0]["name"], "command");
    let project = format!("--project-name={}", sandbox.project());
    let up = [
        project.as_str(),
        "up",
        "--command=sh -c 'sleep 600; exit $CODE'",
        "--environment=CODE=3",
        "--working_dir=.",
        "api",
    ];
    let said = call(&up).expect(0).json_lines();
    assert!(said.iter().any(|line| line["type"] == "info"), "{said:?}");
    assert_eq!(call(&up).expect(0).stdout, "", "it runs as asked");
    let rows = sandbox.wharf(&["-p", sandbox.project(), "ps", "--format", "json"]);
    let rows = rows.expect(0).json_lines();
    assert_eq!((rows.len(), rows[0]["Service"].as_str()), (1, Some("api")));
    let projects = sandbox.wharf(&["ls", "--format", "json"]).expect(0);
    let all: Value = serde_json::from_str(&projects.stdout).unwrap();
    let mut all = all.as_array().into_iter().flatten();
    let own = all.find(|project| project["Name"] == sandbox.project());
    assert_eq!(own.unwrap()["ConfigFiles"], "N/A");
    call(&[&project, "stop", "api"]).expect(0);
    call(&[&project, "down", "api"]).expect(0);
    call(&[&project, "down", "api"]).expect(0);
    for wrong in [
        &[project.as_str(), "up", "api"][..],
        &[&project, "up", "--command=no-such-program", "api"],
        &[&project, "up", "--command=false", "api"],
    ] {
        let failed = call(wrong);
        assert_ne!(failed.code(), 0, "{failed}");
        let last = failed.json_lines().pop().unwrap();
        assert_eq!(last["type"], "error", "{failed}");
    }
    call(&[&project, "down", "api"]).expect(0);
}

#[test]
fn docker_compose_runs_a_process_through_it() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let version = Command::new("docker-compose")
        .args(["version", "--short"])
        .output();
    if !version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with('2')) {
        println!("skipped: no docker-compose 2.x on the PATH");
        return;
    }
    let image = engine.busybox();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  api:\n    provider: {{type: wharf, options: {{command: sleep 600}}}}\n  \
             web: {{image: {image}, pull_policy: never, command: [sleep, '600'], stop_grace_period: 0s, depends_on: [api]}}\n"
        ),
    );
    let compose = |arguments: &[&str]| {
        sandbox
            .program("docker-compose", arguments)
            .wait()
            .expect(0)
    };
    let running = || {
        let rows = sandbox.wharf(&["ps", "--format", "json"]).expect(0);
        let rows = rows.json_lines();
        let mut all: Vec<String> = rows
            .iter()
            .map(|row| format!("{} {}", row["Service"], row["ID"]))
            .collect();
        all.sort();
        all
    };
    compose(&["up", "-d"]);
    let first = running();
    assert_eq!(first.len(), 2, "{first:?}");
    compose(&["up", "-d"]);
    assert_eq!(running(), first);
    compose(&["down"]);
    assert_eq!(running(), Vec::<String>::new());
}
