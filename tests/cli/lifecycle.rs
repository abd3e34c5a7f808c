//! The commands that create, freeze, signal, wait for and remove what exists, on containers and on local
//! processes.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Engine, Process, Sandbox, eventually, free_port, require_engine};

/// Three services: `web` runs anew with `db`, `side` does not.
fn containers(sandbox: &Sandbox, image: &str, port: u16) {
    let service = format!("image: {image}\n    pull_policy: never\n    init: true");
    sandbox.write(
        "compose.yaml",
        format!(
            "services:
  db:
    {service}
    command: [sleep, '1000']
    expose: [99]
    volumes: [kept:/kept, /anonymous]
  web:
    {service}
    command: [httpd, -f, -p, '80']
    depends_on: {{db: {{condition: service_started, restart: true}}}}
    ports: ['127.0.0.1:{port}:80']
  side:
    {service}
    command: [sleep, '1000']
    depends_on: [db]
volumes: {{kept: {{}}}}
"
        ),
    );
}

fn rows(sandbox: &Sandbox) -> Vec<Value> {
    let arguments = ["ps", "--all", "--format", "json"];
    let mut rows = sandbox.wharf(&arguments).expect(0).json_lines();
    // Of services alone.
    rows.retain(|row| !text(row, "Labels").contains("wharf.role="));
    rows
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

/// `service state` of every instance, sorted.
fn states(sandbox: &Sandbox) -> Vec<String> {
    sorted(&rows(sandbox))
}

fn sorted(rows: &[Value]) -> Vec<String> {
    let mut states: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {}", text(row, "Service"), text(row, "State")))
        .collect();
    states.sort();
    states
}

/// A service, and one that takes part with its profile only.
const WITH_A_TOOL: &str = "services:
  one: {x-wharf: {process: {command: [sleep, '600']}}}
  tool: {profiles: [tools], x-wharf: {process: {command: [sleep, '600']}}}
";

#[test]
fn a_service_without_an_instance_is_a_failure_only_where_there_is_no_other() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", WITH_A_TOOL);
    let nothing = sandbox.wharf(&["start", "tool"]).expect(1);
    assert!(
        nothing.stderr.contains("`tool` has no instance to start"),
        "{nothing}"
    );
    sandbox.wharf(&["create"]).expect(0);
    let some = sandbox.wharf(&["--profile", "tools", "start"]).expect(0);
    assert!(
        some.stderr.contains("`tool` has no instance to start"),
        "{some}"
    );
    assert_eq!(states(&sandbox), ["one running"]);
    // As long as it takes.
    sandbox.wharf(&["stop", "-t", "-1"]).expect(0);
    assert_eq!(states(&sandbox), ["one exited"]);
}

#[test]
fn down_says_what_it_leaves_of_services_whose_profile_is_off() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", WITH_A_TOOL);
    let left = "instances of services whose profile is off are left alone: [PROJECT]-tool-1 \
                (wharf --profile '*' down removes them)";
    sandbox.wharf(&["--profile", "tools", "up", "-d"]).expect(0);
    sandbox.wharf(&["down"]).expect(0).expect_text(left);
    let again = sandbox.wharf(&["down"]).expect(0).expect_text(left);
    assert!(!again.stderr.contains("has no instances"), "{again}");
    let all = sandbox.wharf(&["--profile", "*", "down"]).expect(0);
    assert!(!all.stderr.contains("left alone"), "{all}");
    sandbox
        .wharf(&["down"])
        .expect(0)
        .expect_text("has no instances");
}

/// What `docker inspect` says of the first replica of a service.
fn inspect(engine: &Engine, sandbox: &Sandbox, service: &str, format: &str) -> String {
    let name = format!("{}-{service}-1", sandbox.project());
    engine.ask(&["inspect", "--format", format, &name])
}

#[test]
fn a_project_of_containers_goes_through_its_states() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let port = free_port();
    containers(&sandbox, engine.busybox(), port);
    let started = |service: &str| inspect(&engine, &sandbox, service, "{{.State.StartedAt}}");

    let nothing = sandbox.wharf(&["start"]).expect(1);
    assert!(nothing.stderr.contains("no instance to start"), "{nothing}");
    sandbox.wharf(&["create"]).expect(0);
    assert_eq!(
        states(&sandbox),
        ["db created", "side created", "web created"]
    );
    sandbox.wharf(&["create"]).expect(0);
    assert_eq!(
        states(&sandbox),
        ["db created", "side created", "web created"]
    );
    let closed = sandbox.wharf(&["port", "web", "80"]).expect(1);
    assert!(closed.stderr.contains("not running"), "{closed}");

    // A service brings along what it depends on, and nothing else.
    sandbox.wharf(&["start", "web"]).expect(0);
    assert_eq!(
        states(&sandbox),
        ["db running", "side created", "web running"]
    );
    sandbox.wharf(&["start", "--wait"]).expect(0);
    let open = sandbox.wharf(&["port", "web", "80"]).expect(0);
    assert_eq!(open.stdout, format!("127.0.0.1:{port}\n"));
    assert_eq!(
        sandbox.wharf(&["port", "db", "99"]).expect(0).stdout,
        ":0\n"
    );
    sandbox
        .wharf(&["port", "--protocol", "udp", "web", "80"])
        .expect(1);
    sandbox
        .wharf(&["port", "--index", "2", "web", "80"])
        .expect(1);

    // A restart takes along what is to run anew.
    let before = ["db", "web", "side"].map(started);
    sandbox
        .wharf(&["restart", "--timeout", "0", "db"])
        .expect(0);
    let after = ["db", "web", "side"].map(started);
    assert!(before[0] != after[0] && before[1] != after[1], "{after:?}");
    assert_eq!(before[2], after[2]);
    sandbox
        .wharf(&["restart", "--no-deps", "-t", "0", "db"])
        .expect(0);
    assert_eq!(started("web"), after[1]);

    // Frozen and thawed; `up` thaws too, and makes nothing anew.
    let id = inspect(&engine, &sandbox, "db", "{{.Id}}");
    sandbox.wharf(&["pause", "db"]).expect(0);
    assert_eq!(
        inspect(&engine, &sandbox, "db", "{{.State.Status}}"),
        "paused"
    );
    let again = sandbox.wharf(&["pause", "db"]).expect(1);
    assert!(again.stderr.contains("already paused"), "{again}");
    sandbox.wharf(&["start", "db"]).expect(1);
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(
        inspect(&engine, &sandbox, "db", "{{.State.Status}}"),
        "running"
    );
    assert_eq!(inspect(&engine, &sandbox, "db", "{{.Id}}"), id);
    sandbox.wharf(&["pause"]).expect(0);
    sandbox.wharf(&["unpause"]).expect(0);
    assert_eq!(
        states(&sandbox),
        ["db running", "side running", "web running"]
    );

    // Who waits learns the code.
    let waiting = sandbox.spawn(&["wait", "side", "web"]);
    waiting.wait_for_line("waiting for");
    sandbox.wharf(&["kill", "-s", "TERM", "side"]).expect(0);
    let line = waiting.wait_for_line("exited with status code 143");
    assert!(line.starts_with("container \""), "{line}");
    sandbox.wharf(&["kill", "web"]).expect(0);
    waiting.wait().expect(137);
    sandbox.wharf(&["wait", "web"]).expect(1);

    // Only what does not run goes, unless it is stopped first.
    let gone = sandbox.wharf(&["rm", "--force"]).expect(0);
    let project = sandbox.project();
    let expected = format!("Going to remove {project}-side-1, {project}-web-1\n");
    assert_eq!(gone.stdout, expected);
    assert_eq!(states(&sandbox), ["db running"]);
    let asked = sandbox.wharf(&["rm", "--stop"]).expect(0);
    assert!(asked.stdout.contains("Going to remove"), "{asked}");
    assert_eq!(states(&sandbox), ["db running"], "nobody said yes");
    let planned = sandbox.wharf(&["--dry-run", "rm", "--stop"]).expect(0);
    assert!(planned.stdout.contains("-db-1: remove"), "{planned}");
    assert_eq!(states(&sandbox), ["db running"], "nothing was done");
    sandbox.wharf(&["rm", "-fsv", "db"]).expect(0);
    assert_eq!(states(&sandbox), Vec::<String>::new());
    let volumes = engine.of_project("volume", project);
    assert_eq!(volumes, [format!("{project}_kept")]);
}

#[test]
fn down_takes_what_it_is_told_to_and_no_more() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    containers(&sandbox, engine.busybox(), free_port());
    let project = sandbox.project();
    sandbox.wharf(&["up", "-d", "--scale", "side=2"]).expect(0);
    let labelled = |service: &str, one_off: &str| {
        let labels = [
            ("project", project),
            ("service", service),
            ("oneoff", one_off),
            ("config-hash", "x"),
        ]
        .map(|(key, value)| format!("--label=com.docker.compose.{key}={value}"));
        let options: Vec<&str> = labels.iter().map(String::as_str).collect();
        engine.run(
            &[options.as_slice(), &["--init"]].concat(),
            &["sleep", "1000"],
        )
    };
    let (one_off, orphan) = (labelled("side", "True"), labelled("gone", "False"));

    // One service with its volume; the network stays, as others use it.
    sandbox
        .wharf(&["down", "-t", "0", "--volumes", "db"])
        .expect(0);
    assert_eq!(
        states_of_replicas(&sandbox),
        ["side running", "side running", "web running"]
    );
    assert!(engine.of_project("volume", project).is_empty());
    assert_eq!(engine.of_project("network", project).len(), 1);

    sandbox.wharf(&["scale", "--no-deps", "side=1"]).expect(0);
    assert_eq!(
        states_of_replicas(&sandbox),
        ["side running", "web running"]
    );
    let wrong = sandbox.wharf(&["scale", "side"]).expect(2);
    assert!(wrong.stderr.contains("SERVICE=N"), "{wrong}");

    // A one-off is nobody's but who started it. Who names the project means all that has the name.
    sandbox.wharf(&["stop", "-t", "0"]).expect(0);
    assert!(one_off.runs() && orphan.runs());
    sandbox.wharf(&["-p", project, "stop", "-t", "0"]).expect(0);
    assert!(one_off.runs() && !orphan.runs());
    fs::rename(
        sandbox.path().join("compose.yaml"),
        sandbox.path().join("away"),
    )
    .unwrap();
    let down = sandbox.wharf(&["-p", project, "down", "-t", "0"]).expect(0);
    assert!(down.stderr.contains("one-off"), "{down}");
    assert_eq!(engine.of_project("container", project).len(), 1);
    assert!(one_off.runs());
    sandbox
        .wharf(&["-p", project, "down", "-t", "0", "--remove-orphans"])
        .expect(0);
    assert!(!one_off.runs());
    assert!(engine.of_project("network", project).is_empty());
}

/// As [`states`], by the project's name, and of the declared services alone.
fn states_of_replicas(sandbox: &Sandbox) -> Vec<String> {
    let arguments = ["-p", sandbox.project(), "ps", "--all", "--format", "json"];
    let mut rows = sandbox.wharf(&arguments).expect(0).json_lines();
    let is_other = |row: &Value| {
        ["oneoff=True", "wharf.role="]
            .iter()
            .any(|label| text(row, "Labels").contains(label))
    };
    rows.retain(|row| !is_other(row) && row["Service"] != "gone");
    sorted(&rows)
}

#[test]
fn rmi_removes_images_that_are_named_after_their_service() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let project = sandbox.project();
    let own = format!("{project}-tagged:1");
    sandbox.write(
        "Dockerfile",
        format!("FROM {}\nLABEL who={project}\n", engine.busybox()),
    );
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  plain: {{build: ., command: [sleep, '9'], init: true}}\n  \
             tagged: {{build: ., image: '{own}', command: [sleep, '9'], init: true}}\n"
        ),
    );
    sandbox.wharf(&["create", "--quiet-pull", "-y"]).expect(0);
    let plain = format!("{project}-plain");
    let exists = |name: &str| engine.docker(&["image", "inspect", name]).code() == 0;
    assert!(exists(&plain) && exists(&own));
    sandbox.wharf(&["down", "--rmi", "local"]).expect(0);
    assert!(!exists(&plain) && exists(&own));
    sandbox.wharf(&["create"]).expect(0);
    sandbox.wharf(&["down", "--rmi", "all"]).expect(0);
    assert!(!exists(&plain) && !exists(&own));
}

/// A process with a child, which both end on SIGTERM; and one that depends on it.
fn processes(sandbox: &Sandbox) {
    sandbox.write(
        "compose.yaml",
        "services:
  db:
    ports: ['127.0.0.1::90']
    x-wharf: {process: {command: [sh, -c, 'trap \"kill $$!; exit 7\" TERM; while :; do sleep 1000 & wait; done']}}
  web:
    depends_on: {db: {condition: service_started, restart: true}}
    x-wharf: {process: {command: [sleep, '1000']}}
",
    );
}

fn process(sandbox: &Sandbox, service: &str) -> Process {
    let rows = rows(sandbox);
    rows.iter()
        .find(|row| row["Service"] == service)
        .and_then(|row| u32::try_from(row["Pid"].as_u64()?).ok())
        .and_then(Process::open)
        .expect("it lives")
}

/// The state letter of `proc_pid_stat(5)`.
fn letter(process: &Process) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.chars().next()
}

/// By a signal, or with its control group, whose mount is one of two places.
fn is_frozen(process: &Process) -> bool {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    letter(process) == Some('T')
        || own.is_some_and(|own| {
            ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
                .iter()
                .any(|mount| {
                    let events = fs::read_to_string(format!("{mount}/{own}/cgroup.events"));
                    events.is_ok_and(|events| events.contains("frozen 1"))
                })
        })
}

#[test]
fn a_frozen_process_stays_frozen_whoever_looks_after_it() {
    let sandbox = Sandbox::new();
    processes(&sandbox);
    sandbox.wharf(&["create"]).expect(0);
    assert_eq!(states(&sandbox), ["db created", "web created"]);
    sandbox.wharf(&["start"]).expect(0);
    let main = process(&sandbox, "db");
    let child = eventually("its child", || main.children().pop());
    sandbox.wharf(&["pause"]).expect(0);
    assert_eq!(states(&sandbox), ["db paused", "web paused"]);
    assert!(is_frozen(&main) && is_frozen(&child));
    sandbox.wharf(&["pause", "db"]).expect(1);
    let refused = sandbox.wharf(&["exec", "db", "true"]).expect(1);
    let hint = "is paused: `wharf unpause db` first";
    assert!(refused.stderr.contains(hint), "{refused}");

    let supervisors = sandbox.processes();
    let supervisor = supervisors
        .iter()
        .find(|process| process.command_line().contains(" supervise "))
        .expect("a supervisor");
    supervisor.signal(Signal::KILL);
    supervisor.wait_end();
    assert_eq!(states(&sandbox), ["db paused", "web paused"]);
    assert!(is_frozen(&main));

    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(states(&sandbox), ["db running", "web running"]);
    assert!(!main.ended() && !child.ended(), "the same processes");
    sandbox.wharf(&["unpause"]).expect(1);
    eventually("both run", || {
        let runs = |process| letter(process) == Some('S') && !is_frozen(process);
        (runs(&main) && runs(&child)).then_some(())
    });

    // A frozen one is stopped all the same.
    sandbox.wharf(&["pause", "web"]).expect(0);
    let web = process(&sandbox, "web");
    sandbox.wharf(&["stop", "-t", "20", "web"]).expect(0);
    assert!(web.ended());
    assert_eq!(states(&sandbox), ["db running", "web exited"]);
}

#[test]
fn processes_are_signalled_waited_for_and_removed_like_containers() {
    let sandbox = Sandbox::new();
    processes(&sandbox);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let (db, web) = (process(&sandbox, "db"), process(&sandbox, "web"));
    let child = eventually("its child", || db.children().pop());
    let port = sandbox.wharf(&["port", "db", "90"]).expect(0).stdout;
    assert!(
        port.starts_with("127.0.0.1:") && !port.ends_with(":0\n"),
        "{port}"
    );

    sandbox.wharf(&["restart", "db"]).expect(0);
    assert!(
        db.ended() && child.ended() && web.ended(),
        "web runs anew with db"
    );
    sandbox.wharf(&["restart", "--no-deps", "db"]).expect(0);

    let waiting = sandbox.spawn(&["wait", "db", "--down-project"]);
    waiting.wait_for_line("waiting for");
    let bad = sandbox.wharf(&["kill", "--signal", "NOPE", "db"]).expect(1);
    assert!(bad.stderr.contains("`NOPE` is not a signal"), "{bad}");
    sandbox
        .wharf(&["kill", "--signal", "SIGTERM", "db"])
        .expect(0);
    let ended = waiting.wait().expect(7);
    let name = format!(
        "process \"{}-db-1\" exited with status code 7",
        sandbox.project()
    );
    assert!(ended.stdout.contains(&name), "{ended}");
    assert!(states(&sandbox).is_empty(), "the project is down");

    sandbox.wharf(&["up", "-d"]).expect(0);
    sandbox.wharf(&["scale", "web=3"]).expect(0);
    assert_eq!(rows(&sandbox).len(), 4);
    let db = process(&sandbox, "db");
    sandbox.wharf(&["kill", "db"]).expect(0);
    assert!(db.ended());
    let mut terminal = sandbox.terminal(&["rm"]);
    let screen = terminal.wait_for("(y/N)");
    assert!(
        screen.contains("-db-1") && !screen.contains("-web-1"),
        "{screen}"
    );
    terminal.type_text("n\n");
    terminal.wait().expect(0);
    assert_eq!(rows(&sandbox).len(), 4);
    let mut terminal = sandbox.terminal(&["rm"]);
    terminal.wait_for("(y/N)");
    terminal.type_text("y\n");
    terminal.wait().expect(0);
    assert_eq!(rows(&sandbox).len(), 3);
    sandbox.wharf(&["rm", "-fs"]).expect(0);
    assert!(rows(&sandbox).is_empty());
    let nothing = sandbox.wharf(&["kill"]).expect(0);
    assert!(nothing.stderr.contains("nothing to kill"), "{nothing}");
}
