//! Services that another program provides: the program is a script that the test writes.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Sandbox, eventually, require_engine};

/// A provider that notes how it was called, and sets what it finds in the file `told`.
const SCRIPT: &str = r#"#!/bin/sh
echo "$*" >> "$PWD/calls"
case "$*" in
  "compose metadata") cat "$PWD/metadata" 2>/dev/null; exit;;
  *" up "*)
    echo '{"type":"info","message":"preparing"}'
    echo '{"type":"debug","message":"not shown"}'
    if [ -e "$PWD/fails" ]; then
      echo 'words for people' >&2
      echo '{"type":"error","message":"no money left"}'
      exit 0
    fi
    echo "{\"type\":\"setenv\",\"message\":\"URL=$(cat "$PWD/told")\"}"
    echo '{"type":"rawsetenv","message":"TOKEN=t=1"}';;
esac
"#;

/// A project with the provider `fakecloud` on the PATH.
fn with_provider(sandbox: &mut Sandbox) {
    let folder = sandbox.path().join("bin");
    std::fs::create_dir_all(&folder).expect("the sandbox can be written to");
    let program = sandbox.write("bin/fakecloud", SCRIPT);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
        .expect("the file is there");
    let given = std::env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(folder).chain(std::env::split_paths(&given));
    let path = std::env::join_paths(places).expect("no folder has a colon");
    sandbox.set("PATH", path);
    sandbox.write("told", "first");
}

/// How the provider was called since the last time, but for `metadata`.
fn calls(sandbox: &Sandbox) -> Vec<String> {
    let file = sandbox.path().join("calls");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    drop(std::fs::remove_file(file));
    text.lines()
        .filter(|line| *line != "compose metadata")
        .map(str::to_owned)
        .collect()
}

const PROCESS: &str = "
services:
  db: {provider: {type: fakecloud, options: {size: 256, tags: [a, b]}}}
  app:
    x-wharf: {process: {command: [sh, -c, 'echo at $$DB_URL $$TOKEN; exec sleep 600']}}
    stop_grace_period: 0s
    depends_on: [db]
";

fn id(sandbox: &Sandbox) -> String {
    let rows = sandbox.wharf(&["ps", "--format", "json"]).expect(0);
    let rows = rows.json_lines();
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0]["ID"].to_string()
}

#[test]
fn a_provider_tells_processes_where_it_is() {
    let mut sandbox = Sandbox::new();
    with_provider(&mut sandbox);
    sandbox.write("compose.yaml", PROCESS);
    let up = |code| sandbox.wharf(&["up", "-d"]).expect(code);
    let planned = sandbox.wharf(&["--dry-run", "up"]).expect(0);
    planned.expect_text("provider db: create");
    assert_eq!(calls(&sandbox), Vec::<String>::new());
    up(0).expect_text("preparing");
    let project = format!("compose --project-name={}", sandbox.project());
    let call = format!("{project} up --size=256 --tags=a --tags=b db");
    assert_eq!(calls(&sandbox), std::slice::from_ref(&call));
    eventually("the process knows what the provider told", || {
        let logs = sandbox.wharf(&["logs", "app"]).expect(0);
        logs.stdout.contains("at first t=1").then_some(())
    });
    let first = id(&sandbox);
    up(0);
    assert_eq!(id(&sandbox), first, "nothing has changed");
    assert_eq!(calls(&sandbox), [call]);
    sandbox.write("told", "second");
    up(0);
    assert_ne!(id(&sandbox), first, "it is told something else");
    let second = id(&sandbox);
    sandbox.write("fails", "");
    let failed = up(1);
    assert!(failed.stderr.contains("no money left"), "{failed}");
    assert!(failed.stderr.contains("words for people"), "{failed}");
    assert_eq!(id(&sandbox), second, "what ran goes on");
    calls(&sandbox);
    sandbox.wharf(&["stop"]).expect(0);
    assert_eq!(calls(&sandbox), Vec::<String>::new(), "it knows no stop");
    sandbox.write(
        "metadata",
        r#"{"description": "x", "up": {"parameters": [{"name": "size"}]}, "stop": {"parameters": []}}"#,
    );
    sandbox.wharf(&["stop"]).expect(0);
    assert_eq!(calls(&sandbox), [format!("{project} stop db")]);
    sandbox.wharf(&["down"]).expect(0);
    assert_eq!(calls(&sandbox), [format!("{project} down db")]);
}

#[test]
fn a_provider_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        PROCESS.replace("fakecloud", "no-such-cloud"),
    );
    let failed = sandbox.wharf(&["up", "-d"]).expect(1);
    assert!(failed.stderr.contains("docker-no-such-cloud"), "{failed}");
    sandbox.until_nothing_runs();
    let refused = sandbox.wharf(&["run", "db", "ls"]).expect(2);
    assert!(refused.stderr.contains("no-such-cloud"), "{refused}");
}

#[test]
fn a_provider_comes_after_its_dependencies_and_before_its_dependents() {
    let engine = require_engine!();
    let mut sandbox = Sandbox::with_engine(&engine);
    with_provider(&mut sandbox);
    let image = engine.busybox();
    let container = format!("image: {image}, pull_policy: never, stop_grace_period: 0s");
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  base: {{{container}, command: [sleep, '600']}}\n  \
             db: {{provider: {{type: fakecloud}}, depends_on: [base]}}\n  \
             app: {{{container}, command: [sleep, '600'], environment: {{TOKEN: mine}}, depends_on: [db]}}\n"
        ),
    );
    let up = sandbox.wharf(&["up", "-d", "--force-recreate"]).expect(0);
    assert!(up.stderr.contains("overrides TOKEN"), "{up}");
    let order: Vec<Option<usize>> = ["base-1: start", "provider db: create", "app-1: create"]
        .iter()
        .map(|text| up.stderr.find(text))
        .collect();
    assert!(order.is_sorted() && order[0].is_some(), "{up}");
    let app = format!("{}-app-1", sandbox.project());
    let environment = engine.ask(&["inspect", "--format", "{{json .Config.Env}}", &app]);
    for variable in ["DB_URL=first", "TOKEN=t=1"] {
        assert!(environment.contains(variable), "{environment}");
    }
    let ids = || engine.of_project("container", sandbox.project());
    let first = ids();
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(ids(), first);
    let down = sandbox.wharf(&["down"]).expect(0);
    let order: Vec<Option<usize>> = ["app-1: stop", "provider db: remove", "base-1: stop"]
        .iter()
        .map(|text| down.stderr.find(text))
        .collect();
    assert!(order.is_sorted() && order[0].is_some(), "{down}");
}
