//! Services as containers, on a real engine.

use std::net::TcpStream;

use crate::support::{Sandbox, eventually, free_port, is_free, require_engine, websocket};

/// A project whose service is a busybox web server in a container.
fn web(sandbox: &Sandbox, image: &str, port: u16) {
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  web:\n    image: {image}\n    pull_policy: never\n    \
             command: [sh, -c, 'echo serving; echo trouble >&2; exec httpd -f -p 80']\n    stop_grace_period: 0s\n    \
             ports: [{{target: 80, published: '{port}', host_ip: 127.0.0.1, app_protocol: http}}]\n"
        ),
    );
}

#[test]
fn a_container_comes_up_is_listed_logged_and_taken_down() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let port = free_port();
    web(&sandbox, engine.busybox(), port);
    let up = sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(
        up.stderr.contains(&format!("http://127.0.0.1:{port}/")),
        "{up}"
    );
    let row = sandbox
        .wharf(&["ps", "--format", "json"])
        .expect(0)
        .json_lines()
        .remove(0);
    assert_eq!(row["Backend"], "container");
    assert_eq!(row["State"], "running");
    assert_eq!(row["Ready"], true);
    assert_eq!(row["Name"], format!("{}-web-1", sandbox.project()));
    assert_eq!(row["Publishers"][0]["PublishedPort"], port);
    let logs = sandbox.wharf(&["logs"]).expect(0);
    assert!(logs.stdout.contains("web-1  | serving\n"), "{logs}");
    assert!(logs.stdout.contains("web-1  | trouble\n"), "{logs}");
    let ids = engine.of_project("container", sandbox.project());
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(
        engine.of_project("container", sandbox.project()),
        ids,
        "nothing changed"
    );
    sandbox.wharf(&["stop"]).expect(0);
    assert!(is_free(port));
    sandbox.wharf(&["down"]).expect(0);
    for kind in ["container", "network"] {
        assert!(
            engine.of_project(kind, sandbox.project()).is_empty(),
            "{kind}"
        );
    }
}

#[test]
fn a_process_holds_the_port_of_a_container() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let port = free_port();
    web(&sandbox, engine.busybox(), port);
    let old = sandbox.server(port, &[]);
    let refused = sandbox.wharf(&["up", "-d"]).expect(5);
    assert!(refused.stderr.contains(&old.pid().to_string()), "{refused}");
    assert!(engine.of_project("container", sandbox.project()).is_empty());
    assert!(
        engine.of_project("network", sandbox.project()).is_empty(),
        "nothing is half-made"
    );
    sandbox.wharf(&["up", "-d", "--force"]).expect(0);
    assert!(old.process().ended());
    TcpStream::connect(("127.0.0.1", port)).unwrap();
}

#[test]
fn in_the_foreground_containers_stop_with_wharf() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let port = free_port();
    web(&sandbox, engine.busybox(), port);
    let up = sandbox.spawn(&["up"]);
    assert_eq!(up.wait_for_line("serving"), "web-1  | serving");
    up.wait_for_line("is ready");
    up.signal(rustix::process::Signal::INT);
    up.wait().expect(130);
    assert!(is_free(port));
}

#[test]
fn a_container_that_exits_fails_up_with_its_last_lines() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let (image, port) = (engine.busybox(), free_port());
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  web:\n    image: {image}\n    pull_policy: never\n    command: [sh, -c, 'echo no database; exit 3']\n    \
             ports: [{{target: 80, published: '{port}', app_protocol: http}}]\n"
        ),
    );
    let failed = sandbox.wharf(&["up", "-d"]).expect(1);
    assert!(failed.stderr.contains("exited with code 3"), "{failed}");
    assert!(failed.stderr.contains("no database"), "{failed}");
}

#[test]
fn a_service_moves_between_its_forms() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let (image, port) = (engine.busybox(), free_port());
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  web:\n    image: {image}\n    pull_policy: never\n    command: [httpd, -f, -p, '80']\n    stop_grace_period: 1s\n    \
             ports: [{{target: 80, published: '{port}', host_ip: 127.0.0.1, app_protocol: http}}]\n    \
             x-wharf: {{process: {{command: [sh, -c, 'exec python3 -m http.server --bind 127.0.0.1 $$PORT']}}}}\n"
        ),
    );
    let backend = |sandbox: &Sandbox| {
        let rows = sandbox
            .wharf(&["ps", "--format", "json"])
            .expect(0)
            .json_lines();
        assert_eq!(rows.len(), 1, "one form at a time");
        rows[0]["Backend"].as_str().unwrap().to_owned()
    };
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(backend(&sandbox), "container");
    sandbox.wharf(&["up", "-d", "--local", "web"]).expect(0);
    assert_eq!(backend(&sandbox), "process");
    sandbox.wharf(&["up", "-d", "--container"]).expect(0);
    assert_eq!(backend(&sandbox), "container");
    eventually("the container answers", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
}

#[test]
fn the_file_that_ships_runs_in_both_forms() {
    let engine = require_engine!();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/compose");
    let binary = format!("{root}/bin/wharf");
    assert!(
        std::path::Path::new(&binary).exists(),
        "{binary} is missing: run `./dev static`"
    );
    let mut sandbox = Sandbox::with_engine(&engine);
    for (name, target) in [
        ("compose.yaml", "compose.yaml"),
        ("Dockerfile", "Dockerfile"),
    ] {
        sandbox.write(target, std::fs::read(format!("{root}/{name}")).unwrap());
    }
    sandbox.write("bin/wharf", "");
    std::fs::copy(&binary, sandbox.path().join("bin/wharf")).unwrap();
    let port = free_port();
    sandbox.set("WHARF_PORT", port.to_string());
    // The file names its project; the sandbox looks for its own.
    sandbox.set("COMPOSE_PROJECT_NAME", sandbox.project().to_owned());
    for form in ["--container", "--local"] {
        let up = sandbox.wharf(&["up", "-d", form]).expect(0);
        assert!(
            up.stderr.contains(&format!("ws://127.0.0.1:{port}/ws")),
            "{up}"
        );
        let mut connection = websocket::connect(port, "/ws").unwrap();
        let answer = websocket::ask(
            &mut connection,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        );
        assert!(answer.contains("\"result\""), "{answer}");
    }
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn a_loop_that_starts_a_container_anew_is_met_whatever_it_waits_with() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let image = engine.busybox();
    for (which, start, wait) in [
        ("w", "run", "docker wait $name"),
        ("p", "run", "while docker inspect $name; do sleep 0.2; done"),
        ("l", "start", "docker logs -f $name"),
    ] {
        let port = free_port();
        let name = format!("{}-{which}", sandbox.project());
        let options = ["--rm", "--stop-timeout", "1", "--name", &name];
        let publish = ["--publish", &format!("{port}:80"), image];
        let server = ["httpd", "-f", "-p", "80"];
        let made = [&options[..], &publish[..], &server[..]].concat();
        let starts = if start == "run" {
            format!("docker run --detach {}", made.join(" "))
        } else {
            let kept = made.get(1..).unwrap_or_default();
            engine.ask(&[&["create"], kept].concat());
            format!("docker start {name}")
        };
        let text = format!("name={name}\nwhile true; do {starts}; {wait}; done >/dev/null 2>&1\n");
        let script = sandbox.write(&format!("{which}.sh"), text);
        let script = script.to_str().unwrap();
        let keeper = sandbox.program("sh", &[script]);
        // The engine listens before it lists the container.
        eventually("the container runs", || {
            let running = ["inspect", "--format", "{{.State.Running}}", &name];
            (engine.docker(&running).stdout.trim() == "true").then_some(())
        });
        let freed = sandbox.wharf(&["free", &port.to_string(), "--force"]);
        let freed = freed.expect(1);
        assert!(freed.stderr.contains(&name), "{}", freed.stderr);
        let hint = format!("kill {}", keeper.pid());
        assert!(freed.stderr.contains(&hint), "{}", freed.stderr);
        assert!(!keeper.process().ended(), "{which}");
        keeper.signal(rustix::process::Signal::KILL);
        keeper.wait();
        engine.docker(&["rm", "--force", &name]);
    }
}
