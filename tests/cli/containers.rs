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
fn a_service_whose_profile_is_off_is_seen_where_it_is_named() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let image = engine.busybox();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  a:\n    profiles: [x]\n    image: {image}\n    pull_policy: never\n    init: true\n    \
             command: [sleep, '1000']\n"
        ),
    );
    sandbox.wharf(&["up", "-d", "a"]).expect(0);
    let name = format!("{}-a-1", sandbox.project());
    let state = || engine.ask(&["inspect", "--format", "{{.State.Status}}", &name]);
    assert_eq!(state(), "running");
    sandbox.wharf(&["stop", "-t", "1", "a"]).expect(0);
    assert_eq!(state(), "exited");
    sandbox.wharf(&["--profile", "x", "down"]).expect(0);
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
fn what_up_in_front_cannot_prepare_costs_nothing_that_runs() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let image = engine.busybox();
    let write = |command: &str, other: &str| {
        sandbox.write(
            "compose.yaml",
            format!(
                "services:\n  a: {{image: {image}, pull_policy: never, command: {command}, stop_grace_period: 0s}}\n  \
                 b: {{image: '{other}', command: sleep 600, stop_grace_period: 0s}}\n"
            ),
        );
    };
    let running = || engine.of_project("container", sandbox.project());
    write("sleep 600", image);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let before = running();
    // A registry that refuses, and one that never answers.
    write("sleep 700", &format!("127.0.0.1:{}/x:1", free_port()));
    let failed = sandbox.wharf(&["up"]).expect(1);
    let goes_on = "what ran goes on: [PROJECT]-a-1, [PROJECT]-b-1";
    failed.expect_text(goes_on);
    assert_eq!(running(), before);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    write(
        "sleep 700",
        &format!("{}/x:1", silent.local_addr().unwrap()),
    );
    let up = sandbox.spawn(&["up"]);
    up.wait_for_line("-a-1: create");
    up.signal(rustix::process::Signal::INT);
    up.wait().expect(130).expect_text(goes_on);
    assert_eq!(running(), before, "what was made for a is removed again");
    let filter = format!("label=com.docker.compose.project={}", sandbox.project());
    let up = engine.ask(&["ps", "--quiet", "--filter", &filter]);
    assert_eq!(up.lines().count(), 2, "both run");
}

#[test]
fn a_name_that_a_one_off_has_is_freed_by_its_hint() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let (image, name) = (engine.busybox(), format!("{}-x", sandbox.project()));
    sandbox.write(
        "compose.yaml",
        format!("services:\n  a: {{image: {image}, pull_policy: never, command: sleep 600, stop_grace_period: 0s}}\n"),
    );
    let run = ["run", "-d", "--name", &name, "a"];
    let first = sandbox.wharf(&run).expect(0);
    let create = format!("{name}: create");
    assert!(!first.stderr.contains(&create), "{first}");
    let second = sandbox.wharf(&run).expect(1);
    let hint = format!("docker rm -f {name}");
    assert!(second.stderr.contains(&hint), "{second}");
    assert!(!second.stderr.contains("wharf rm"), "{second}");
    engine.ask(&["rm", "-f", &name]);
    sandbox.wharf(&run).expect(0);
}

#[test]
fn a_namespace_is_that_of_the_replica_and_not_of_what_was_left() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let image = engine.busybox();
    let write = |command: &str| {
        sandbox.write(
            "compose.yaml",
            format!(
                "services:\n  a: {{image: {image}, pull_policy: never, command: {command}, stop_grace_period: 0s}}\n  \
                 in: {{image: {image}, pull_policy: never, command: sleep 600, stop_grace_period: 0s, network_mode: 'service:a'}}\n  \
                 by: {{image: {image}, pull_policy: never, command: sleep 600, stop_grace_period: 0s, \
                 depends_on: [a], network_mode: 'container:{}-a-1'}}\n",
                sandbox.project()
            ),
        );
    };
    write("sleep 600");
    sandbox.wharf(&["up", "-d"]).expect(0);
    let of = |service: &str, form: &str| {
        let name = format!("{}-{service}-1", sandbox.project());
        engine.ask(&["inspect", "--format", form, &name])
    };
    // What a killed recreate leaves, as the first of all names.
    let left = format!("000000000000_{}-a-1", sandbox.project());
    let labels: Vec<String> = [
        "project",
        "service",
        "oneoff",
        "container-number",
        "config-hash",
    ]
    .iter()
    .map(|key| {
        let value = of(
            "a",
            &format!("{{{{index .Config.Labels \"com.docker.compose.{key}\"}}}}"),
        );
        format!("--label=com.docker.compose.{key}={value}")
    })
    .collect();
    let make = || {
        let create = [
            "create", "--name", &left, &labels[0], &labels[1], &labels[2], &labels[3], &labels[4],
        ];
        engine.ask(&[&create[..], &[image, "sleep", "600"]].concat());
    };
    make();
    let run = sandbox.wharf(&["run", "--rm", "-T", "--no-deps", "in", "echo", "hi"]);
    assert_eq!(run.expect(0).stdout, "hi\n");
    let before = ["a", "in", "by"].map(|service| of(service, "{{.Id}}"));
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(
        ["a", "in", "by"].map(|service| of(service, "{{.Id}}")),
        before
    );
    assert!(
        !engine
            .ask(&["ps", "-a", "--format", "{{.Names}}"])
            .contains(&left)
    );
    // Who is in the network by the container's name goes with it, too.
    write("sleep 700");
    make();
    sandbox.wharf(&["up", "-d"]).expect(0);
    for service in ["in", "by"] {
        assert_ne!(of(service, "{{.Id}}"), before[1]);
        assert_eq!(
            of(service, "{{.HostConfig.NetworkMode}} {{.State.Running}}"),
            format!("container:{} true", of("a", "{{.Id}}"))
        );
    }
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
