//! `pre_start`: commands before the first start of a service, as containers and as processes.

use rustix::process::Signal;

use crate::support::{Engine, Sandbox, eventually, require_engine};

fn shop(sandbox: &Sandbox, engine: &Engine, last: &str) {
    let image = engine.busybox();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:
  db:
    image: {image}
    pull_policy: never
    command: [httpd, -f, -p, '80']
    init: true
    volumes: ['data:/data']
  app:
    image: {image}
    pull_policy: never
    init: true
    user: '1000'
    command: [sh, -c, 'cat /data/said; exec sleep 1000']
    environment: {{A: service, B: service}}
    depends_on: [db]
    volumes: ['data:/data', /own]
    secrets: [word]
    pre_start:
      - command: [sh, -c, 'chmod 777 /data /own; echo $$A $$B $$(id -u) $$(cat /run/secrets/word) >> /data/said']
        user: '0'
        environment: {{A: hook}}
      - command: [sh, -c, 'until nc -w 1 db 80 </dev/null; do sleep 0.1; done; : > /own/it && {last}']
volumes: {{data: {{}}}}
secrets: {{word: {{environment: WORD}}}}
"
        ),
    );
}

/// The containers of the project, with their states.
fn containers(engine: &Engine, sandbox: &Sandbox) -> Vec<String> {
    let filter = format!("label=com.docker.compose.project={}", sandbox.project());
    let format = "{{.Names}} {{.State}}";
    let text = engine.ask(&["ps", "-a", "--filter", &filter, "--format", format]);
    let own = format!("{}-", sandbox.project());
    let mut all: Vec<String> = text.lines().map(|line| line.replace(&own, "")).collect();
    all.sort();
    all
}

#[test]
fn a_service_starts_after_its_commands_and_only_if_they_succeed() {
    let engine = require_engine!();
    let mut sandbox = Sandbox::with_engine(&engine);
    sandbox.set("WORD", "secret");
    shop(&sandbox, &engine, "echo no good; exit 3");
    let failed = sandbox.wharf(&["up", "-d"]).expect(1);
    for words in [
        "app-1: its pre_start hook",
        "exited with code 3",
        "no good",
        "not done: container",
    ] {
        assert!(failed.stderr.contains(words), "{failed}");
    }
    assert_eq!(
        containers(&engine, &sandbox),
        ["app-1 created", "db-1 running"]
    );

    // Each has its own output, which is the service's.
    shop(&sandbox, &engine, "echo done by $$(id -u)");
    let up = sandbox.spawn(&["up", "--attach", "app"]);
    let line = up.wait_for_line("done by 1000");
    assert!(line.contains("app-1"), "{line}");
    up.wait_for_line("hook service 0 secret");
    up.signal(Signal::INT);
    let up = up.wait();
    assert!(!up.stderr.contains("pre_start-0"), "{up}");

    // Not where it ran before, nor for a replica more; but where it is made anew.
    let again = sandbox.wharf(&["up", "-d", "--scale", "app=2"]).expect(0);
    assert!(!again.stderr.contains("pre_start"), "{again}");
    let anew = ["up", "-d", "--scale", "app=2", "--force-recreate"];
    let anew = sandbox.wharf(&anew).expect(0);
    assert_eq!(anew.stderr.matches("run pre_start").count(), 2, "{anew}");
    assert_eq!(
        containers(&engine, &sandbox),
        ["app-1 running", "app-2 running", "db-1 running"]
    );
    sandbox.wharf(&["down", "-v"]).expect(0);
}

#[test]
fn start_does_it_too_and_down_takes_along_what_was_left() {
    let engine = require_engine!();
    let mut sandbox = Sandbox::with_engine(&engine);
    sandbox.set("WORD", "secret");
    shop(
        &sandbox,
        &engine,
        "until [ -e /data/go ]; do sleep 0.1; done",
    );
    sandbox.wharf(&["create"]).expect(0);

    // Interrupted: the command goes with it.
    let start = sandbox.spawn(&["start"]);
    let runs = |what: &str| {
        let all = containers(&engine, &sandbox);
        all.iter().any(|it| it == what).then_some(())
    };
    eventually("the command runs", || runs("app-pre_start-1 running"));
    // No list shows it.
    let listed = sandbox.wharf(&["ps", "--all"]).expect(0).stdout;
    assert!(!listed.contains("pre_start"), "{listed}");
    start.signal(Signal::INT);
    assert_eq!(start.wait().code(), 130);
    assert_eq!(
        containers(&engine, &sandbox),
        ["app-1 created", "db-1 running"]
    );

    // Killed: it goes on, and whoever comes next waits for it.
    let killed = sandbox.spawn(&["up", "-d"]);
    eventually("the command runs", || runs("app-pre_start-1 running"));
    killed.signal(Signal::KILL);
    drop(killed.wait());
    assert_eq!(
        containers(&engine, &sandbox),
        ["app-1 created", "app-pre_start-1 running", "db-1 running"]
    );
    let next = sandbox.spawn(&["up", "-d"]);
    next.wait_for_line("app-pre_start-1 still runs");
    let go = ["exec", "-T", "db", "sh", "-c", ": > /data/go"];
    sandbox.wharf(&go).expect(0);
    let next = next.wait();
    assert_eq!(next.code(), 0, "{next}");
    sandbox.wharf(&["down", "-v"]).expect(0);

    let killed = sandbox.spawn(&["up", "-d"]);
    eventually("the command runs", || runs("app-pre_start-1 running"));
    killed.signal(Signal::KILL);
    drop(killed.wait());
    sandbox.wharf(&["down", "-v"]).expect(0);
    assert!(containers(&engine, &sandbox).is_empty());
}

#[test]
fn a_process_has_them_run_in_its_directory() {
    let sandbox = Sandbox::new();
    let write = |last: &str| {
        sandbox.write(
            "compose.yaml",
            format!(
                "services:
  api:
    environment: {{A: service, B: service}}
    pre_start:
      - {{command: [sh, -c, 'echo $$A $$B > said'], environment: {{A: hook}}}}
      - {{command: [sh, -c, '{last}']}}
    x-wharf: {{process: {{command: [sh, -c, 'cat said; exec sleep 600']}}}}
"
            ),
        );
    };
    write("echo never; exit 4");
    let failed = sandbox.wharf(&["up", "-d"]).expect(1);
    assert!(failed.stderr.contains("pre_start hook"), "{failed}");
    write("echo ok; exec sleep 600");
    let up = sandbox.spawn(&["up", "-d"]);
    let sleeps = || {
        let all = sandbox.processes();
        let mut sleeping = all
            .into_iter()
            .filter(|it| it.command_line() == "sleep 600");
        sleeping.next()
    };
    let hook = eventually("the command runs", sleeps);
    up.signal(Signal::INT);
    assert_eq!(up.wait().code(), 130);
    hook.wait_end();

    write("echo ok");
    sandbox.wharf(&["up", "-d"]).expect(0);
    let logs = || {
        let logs = sandbox.wharf(&["logs", "--no-log-prefix"]).expect(0).stdout;
        logs.contains("hook service").then_some(())
    };
    eventually("it has read what they wrote", logs);
    sandbox.wharf(&["stop"]).expect(0);
    let again = sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(!again.stderr.contains("pre_start"), "{again}");
}
