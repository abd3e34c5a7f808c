//! One stack, half local, half in containers: names and dependencies from every side, on a real engine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::support::running::Finished;
use crate::support::{Engine, Process, Sandbox, eventually, free_port, require_engine};

/// The tiers, from the front to the back, and the container port of each.
const TIERS: [(&str, u16); 3] = [("proxy", 8080), ("api", 8003), ("db", 8080)];

/// The directories of shared libraries of the wharf under test: mounted, it runs in any container.
fn libraries() -> Vec<PathBuf> {
    ["/lib", "/lib64", "/usr/lib"]
        .into_iter()
        .map(PathBuf::from)
        .filter(|path| path.is_dir())
        .collect()
}

/// Three tiers, each as a container and as a process. `proxy` and `db` are web servers on the same container port
/// that say their names, `api` is a WebSocket server.
fn three_tiers(sandbox: &Sandbox, image: &str, networks: &str) {
    let libraries: Vec<String> = libraries()
        .iter()
        .map(|path| format!("      - '{0}:{0}:ro'\n", path.display()))
        .collect();
    let libraries = libraries.concat();
    for name in ["proxy", "db"] {
        sandbox.write(&format!("www/{name}/who"), name);
    }
    let mut text = vec!["services:\n".to_owned()];
    for (name, after) in [("proxy", "depends_on: [api]"), ("db", "")] {
        let published = free_port();
        text.push(format!(
            "  {name}:\n    image: {image}\n    pull_policy: never\n    stop_grace_period: 0s\n    {after}\n    \
             command: [httpd, -f, -p, '8080', -h, /www]\n    volumes: ['./www/{name}:/www:ro']\n    \
             ports: [{{target: 8080, published: '{published}', host_ip: 127.0.0.1, app_protocol: http}}]\n    {networks}\n    \
             x-wharf: {{process: {{command: [sh, -c, 'exec busybox httpd -f -p 127.0.0.1:$$PORT -h www/{name}']}}, ready: {{path: /who}}}}\n"
        ));
    }
    text.push(format!(
        "  api:\n    image: {image}\n    pull_policy: never\n    stop_grace_period: 1s\n    depends_on: [db]\n    \
         command: [/wharf, serve, --host, 0.0.0.0, --port, '8003']\n    volumes:\n      - '{}:/wharf:ro'\n{libraries}    \
         ports: [{{target: 8003, published: '{}', host_ip: 127.0.0.1, app_protocol: ws}}]\n    {networks}\n    \
         x-wharf: {{process: {{command: [sh, -c, 'exec wharf serve --port $$PORT']}}, ready: {{path: /ws}}}}\n",
        env!("CARGO_BIN_EXE_wharf"),
        free_port(),
    ));
    sandbox.write("compose.yaml", text.concat());
}

/// Runs a shell line beside a service, wherever it runs.
fn beside(sandbox: &Sandbox, service: &str, line: &str) -> Finished {
    sandbox.wharf(&["exec", "-T", service, "busybox", "sh", "-c", line])
}

/// What answers under a name and port, asked from a service: the body, or the first line of a WebSocket
/// handshake.
fn ask(sandbox: &Sandbox, from: &str, to: &str, port: u16) -> String {
    if to == "api" {
        return ask_api(sandbox, from, to);
    }
    let line = format!("busybox timeout 10 busybox wget -q -O - http://{to}:{port}/who");
    beside(sandbox, from, &line).stdout.trim().to_owned()
}

/// What the WebSocket server says first to a service that asks at a name or address.
fn ask_api(sandbox: &Sandbox, from: &str, to: &str) -> String {
    let line = format!(
        "(printf 'GET /ws HTTP/1.1\\r\\nHost: api\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\
         Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n' \
         ; exec busybox sleep 1) | busybox timeout 5 busybox nc -w 5 {to} 8003 | busybox head -n 1"
    );
    beside(sandbox, from, &line).stdout.trim().to_owned()
}

/// Asks until the answer is the right one: a connection that was open while a server was replaced may be lost.
fn expect_answers(sandbox: &Sandbox, case: &str) {
    for (from, _) in TIERS {
        for (to, port) in TIERS {
            if from == to {
                continue;
            }
            let answer = ask(sandbox, from, to, port);
            let expected = if to == "api" {
                "HTTP/1.1 101 Switching Protocols"
            } else {
                to
            };
            assert_eq!(answer, expected, "{case}: {from} asks {to}:{port}");
        }
    }
}

/// Where each service runs and by which id, by service.
fn ids(sandbox: &Sandbox) -> BTreeMap<String, (String, String)> {
    let rows = sandbox
        .wharf(&["ps", "--format", "json", "--no-trunc"])
        .expect(0);
    rows.json_lines()
        .into_iter()
        .map(|row| {
            let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            (word("Service"), (word("Backend"), word("ID")))
        })
        .collect()
}

fn place(sandbox: &Sandbox, local: &[&str]) {
    let rest: Vec<&str> = TIERS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !local.contains(name))
        .collect();
    let (local, rest) = (local.join(","), rest.join(","));
    let mut arguments = vec!["up", "-d"];
    for (flag, names) in [("--local", &local), ("--container", &rest)] {
        if !names.is_empty() {
            arguments.extend([flag, names.as_str()]);
        }
    }
    sandbox.wharf(&arguments).expect(0);
}

/// All eight placements, each next to the one before but for one service, whose neighbours stay as they are.
fn in_all_placements(engine: &Engine, sandbox: &Sandbox, networks: &str) {
    three_tiers(sandbox, engine.busybox(), networks);
    let mut before: BTreeMap<String, (String, String)> = BTreeMap::new();
    // A Gray code: one bit changes at a time.
    for number in 0..8_usize {
        let code = number ^ (number >> 1);
        let local: Vec<&str> = TIERS
            .iter()
            .enumerate()
            .filter(|(at, _)| code >> at & 1 == 1)
            .map(|(_, (name, _))| *name)
            .collect();
        place(sandbox, &local);
        let now = ids(sandbox);
        let case = format!("local: {local:?}");
        for (name, _) in TIERS {
            let expected = if local.contains(&name) {
                "process"
            } else {
                "container"
            };
            assert_eq!(now[name].0, expected, "{case}: {name}");
        }
        let moved = before
            .iter()
            .filter(|(name, id)| now[*name] != **id)
            .count();
        assert_eq!(
            moved,
            usize::from(!before.is_empty()),
            "{case}: {before:?} {now:?}"
        );
        expect_answers(sandbox, &case);
        before = now;
    }
}

#[test]
fn every_pair_talks_by_name_in_every_placement() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    in_all_placements(&engine, &sandbox, "");
    // Nothing of wharf's own is in the list, and `down` leaves nothing.
    let rows = sandbox.wharf(&["ps", "--format", "json"]).expect(0);
    assert_eq!(rows.json_lines().len(), 3, "{rows}");
    sandbox.wharf(&["down"]).expect(0);
    assert!(engine.of_project("container", sandbox.project()).is_empty());
    assert!(engine.of_project("network", sandbox.project()).is_empty());
}

#[test]
fn a_service_moves_under_traffic_and_its_neighbours_stay() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    three_tiers(&sandbox, engine.busybox(), "");
    place(&sandbox, &["api"]);
    let before = ids(&sandbox);
    // From a container and from a process at the same time, as fast as they are answered.
    let loops = ["proxy", "api"].map(|from| {
        let line = "until [ \"$word\" = stop ]; do \
                    word=$(busybox timeout 2 busybox wget -q -O - http://db:8080/who); echo \"$word\"; done";
        let traffic = sandbox.spawn(&["exec", "-T", from, "busybox", "sh", "-c", line]);
        traffic.wait_for_line("db");
        traffic
    });
    let moves = [&["api", "db"][..], &["api"], &["api", "db"], &["api"]];
    for (number, local) in moves.into_iter().enumerate() {
        place(&sandbox, local);
        let now = ids(&sandbox);
        for name in ["proxy", "api"] {
            assert_eq!(now[name], before[name], "{local:?}");
        }
        // What is written now can only be told by the server that took over.
        let word = format!("move {number}");
        sandbox.write("www/db/who", &word);
        for traffic in &loops {
            traffic.wait_for_line(&word);
            assert!(!traffic.process().ended());
        }
    }
    sandbox.write("www/db/who", "stop");
    for traffic in loops {
        traffic.wait().expect(0);
    }
}

#[test]
fn over_an_exec_stream_too() {
    let engine = require_engine!();
    let mut sandbox = Sandbox::with_engine(&engine);
    sandbox.set("WHARF_RELAY", "stream");
    three_tiers(&sandbox, engine.busybox(), "");
    for local in [&["api"][..], &["proxy", "db"]] {
        place(&sandbox, local);
        expect_answers(&sandbox, &format!("local: {local:?}"));
    }
}

#[test]
fn over_ipv6_too() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    three_tiers(&sandbox, engine.busybox(), "");
    // A private range (RFC 4193) of this run's own.
    let subnet = format!(
        "fd77:{:x}:{:x}::/64",
        std::process::id() & 0xffff,
        free_port()
    );
    let networks = format!(
        "networks: {{default: {{enable_ipv6: true, ipam: {{config: [{{subnet: '{subnet}'}}]}}}}}}\n"
    );
    sandbox.write("compose.override.yaml", networks);
    place(&sandbox, &["api"]);
    // From the process: the name leads to the container's address of that family.
    let line = "import socket\n\
                s = socket.socket(socket.AF_INET6)\n\
                s.settimeout(10)\n\
                s.connect(socket.getaddrinfo('db', 8080, socket.AF_INET6)[0][4])\n\
                s.sendall(b'GET /who HTTP/1.0\\r\\n\\r\\n')\n\
                print(s.makefile().read().split()[-1], s.getpeername()[0])";
    let python = crate::support::python();
    let answer = sandbox
        .wharf(&["exec", "-T", "api", python, "-c", line])
        .expect(0);
    let address = |name: &str| {
        let name = format!("{}-{name}-1", sandbox.project());
        let template = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";
        engine.ask(&["inspect", "--format", template, &name])
    };
    assert_eq!(answer.stdout.trim(), format!("db {}", address("db")));
    // From a container: the name has the relay's address of that family, and the process answers there.
    let relay = address("api-wharf-relay");
    assert!(relay.starts_with("fd77:"), "{relay}");
    let resolved = beside(&sandbox, "proxy", "busybox nslookup api 2>&1");
    assert!(resolved.stdout.contains(&relay), "{resolved}");
    assert_eq!(
        ask_api(&sandbox, "proxy", &relay),
        "HTTP/1.1 101 Switching Protocols"
    );
}

#[test]
fn with_names_in_the_environment_replaced() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let image = engine.busybox();
    sandbox.write("www/who", "db");
    let local = free_port();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  db:\n    image: {image}\n    pull_policy: never\n    stop_grace_period: 0s\n    \
             command: [httpd, -f, -p, '8080', -h, /www]\n    volumes: ['./www:/www:ro']\n    expose: ['8080']\n    \
             x-wharf: {{process: {{command: [sh, -c, 'exec busybox httpd -f -p 8080 -h www']}}}}\n  \
             api:\n    image: {image}\n    depends_on: [db]\n    ports: ['127.0.0.1:{local}:80']\n    \
             environment: {{UPSTREAM: 'http://db:8080/who', DB_HOST: db}}\n    \
             x-wharf: {{process: {{names: environment, command: [sh, -c, 'exec busybox httpd -f -p 127.0.0.1:$$PORT']}}}}\n"
        ),
    );
    let shown = sandbox.wharf(&["up", "-d", "--local", "api"]).expect(0);
    let answer = beside(&sandbox, "api", "busybox wget -q -O - $UPSTREAM");
    assert_eq!(answer.stdout, "db", "{answer} {shown}");
    let answer = beside(
        &sandbox,
        "api",
        "busybox wget -q -O - http://$DB_HOST:8080/who",
    );
    assert_eq!(answer.stdout, "db", "{answer}");
    let effective = sandbox
        .wharf(&["config", "--effective", "api", "--format", "json"])
        .expect(0)
        .json_lines()
        .remove(0);
    assert_eq!(effective["names"], "environment");
    let rewritten = effective["rewritten"].as_array().unwrap();
    let upstream = rewritten
        .iter()
        .find(|value| value["variable"] == "UPSTREAM");
    assert_eq!(upstream.unwrap()["from"], "http://db:8080/who");
}

#[test]
fn a_command_for_local_services_alone_leaves_the_names_of_the_rest() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    three_tiers(&sandbox, engine.busybox(), "");
    place(&sandbox, &["db"]);
    let everything = || {
        sandbox
            .wharf(&["ps", "-a", "-q", "--no-trunc"])
            .expect(0)
            .stdout
    };
    let before = everything();
    assert_eq!(ask(&sandbox, "proxy", "db", 8080), "db");
    sandbox.wharf(&["up", "-d", "db"]).expect(0);
    assert_eq!(everything(), before);
    sandbox
        .wharf(&["up", "-d", "--force-recreate", "db"])
        .expect(0);
    assert_eq!(ask(&sandbox, "proxy", "db", 8080), "db");
}

#[test]
fn a_service_that_is_down_refuses_at_once_and_comes_back() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    three_tiers(&sandbox, engine.busybox(), "");
    place(&sandbox, &["db"]);
    assert_eq!(ask(&sandbox, "proxy", "db", 8080), "db");
    sandbox.wharf(&["stop", "db"]).expect(0);
    let refused = beside(
        &sandbox,
        "proxy",
        "busybox wget -T 20 -O - http://db:8080/who 2>&1",
    );
    assert_ne!(refused.code(), 0, "{refused}");
    assert!(!refused.stdout.contains("timed out"), "{refused}");
    sandbox.wharf(&["start", "db"]).expect(0);
    eventually("the database answers again", || {
        (ask(&sandbox, "proxy", "db", 8080) == "db").then_some(())
    });
}

fn kill_forwarder(sandbox: &Sandbox) {
    let forwarder = eventually("a forwarder", || {
        let mut all = sandbox.processes().into_iter();
        all.find(|process| process.command_line().contains("forward --project"))
    });
    forwarder.signal(rustix::process::Signal::KILL);
    forwarder.wait_end();
}

#[test]
fn names_survive_a_kill_of_the_forwarder_and_of_a_relay() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    three_tiers(&sandbox, engine.busybox(), "");
    place(&sandbox, &["api"]);
    let before = ids(&sandbox);
    kill_forwarder(&sandbox);
    eventually("names work again", || {
        ask(&sandbox, "proxy", "api", 8003)
            .contains("101")
            .then_some(())
    });
    let relay = format!("{}-api-wharf-relay-1", sandbox.project());
    // Its end is its own: one that the engine was asked to kill is not started again.
    let pid = engine.ask(&["inspect", "--format", "{{.State.Pid}}", &relay]);
    let process = Process::open(pid.parse().unwrap()).unwrap();
    process.signal(rustix::process::Signal::KILL);
    process.wait_end();
    eventually("the relay is back", || {
        ask(&sandbox, "proxy", "api", 8003)
            .contains("101")
            .then_some(())
    });
    assert_eq!(ids(&sandbox), before);
    // Docker's own tools see and remove it.
    let filter = format!("label=com.docker.compose.project={}", sandbox.project());
    let names = engine.ask(&["ps", "--filter", &filter, "--format", "{{.Names}}"]);
    assert!(names.lines().any(|name| name == relay), "{names}");
}

#[test]
fn names_survive_the_loss_of_the_directories_of_relays() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    three_tiers(&sandbox, engine.busybox(), "");
    place(&sandbox, &["db"]);
    let before = ids(&sandbox);
    let home = sandbox.path().parent().unwrap().join("state/wharf");
    let relays = home.join("projects").join(sandbox.project()).join("relays");
    std::fs::remove_dir_all(relays.join("db")).unwrap();
    kill_forwarder(&sandbox);
    // No command of wharf's is run before they are back.
    let proxy = format!("{}-proxy-1", sandbox.project());
    let line = "busybox timeout 10 busybox wget -q -O - http://db:8080/who";
    eventually("names work again", || {
        let asked = engine.docker(&["exec", &proxy, "busybox", "sh", "-c", line]);
        (asked.stdout.trim() == "db").then_some(())
    });
    assert_eq!(ids(&sandbox), before);
}

#[test]
fn what_starts_together_has_all_names_when_up_has_ended() {
    let sandbox = Sandbox::new();
    let services = ["a", "b", "c"];
    let lines = services.map(|name| {
        format!("  {name}: {{x-wharf: {{process: {{command: [sleep, '1000']}}}}, stop_grace_period: 0s}}\n")
    });
    sandbox.write("compose.yaml", format!("services:\n{}", lines.concat()));
    let state = sandbox.path().parent().unwrap().join("state/wharf");
    let instances = state
        .join("projects")
        .join(sandbox.project())
        .join("instances");
    let has_all = |case: &str| {
        for service in services {
            let name = format!("{}-{service}-1", sandbox.project());
            let file = instances.join(name).join("hosts");
            // Not by a command, which would let the forwarder catch up.
            let text = std::fs::read_to_string(file).unwrap();
            for other in services {
                let is_it = |word: &str| word == other;
                let has = text.split_whitespace().any(is_it);
                assert!(has, "{case}: {service} lacks {other}: {text}");
            }
        }
    };
    sandbox.wharf(&["up", "-d"]).expect(0);
    has_all("up");
    sandbox.wharf(&["stop", "b"]).expect(0);
    sandbox.wharf(&["start", "b"]).expect(0);
    has_all("start");
    sandbox.wharf(&["restart"]).expect(0);
    has_all("restart");
}

#[test]
fn two_projects_with_the_same_services_do_not_meet() {
    let engine = require_engine!();
    let (one, other) = (Sandbox::with_engine(&engine), Sandbox::with_engine(&engine));
    for sandbox in [&one, &other] {
        three_tiers(sandbox, engine.busybox(), "");
        sandbox.write("www/db/who", sandbox.project());
    }
    place(&one, &["api", "db"]);
    place(&other, &["api", "db"]);
    for sandbox in [&one, &other] {
        for from in ["proxy", "api"] {
            assert_eq!(ask(sandbox, from, "db", 8080), sandbox.project(), "{from}");
        }
    }
    // Nor by address, whatever the engine does to keep networks apart.
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let relay = format!("{}-db-wharf-relay-1", one.project());
    let address = engine.ask(&["inspect", "--format", address, &relay]);
    let line = format!(
        "busybox timeout 3 busybox wget -q -O - http://{}:8080/who",
        address.trim()
    );
    assert_eq!(beside(&one, "proxy", &line).stdout.trim(), one.project());
    assert_eq!(beside(&other, "proxy", &line).stdout, "");
}

#[test]
fn relays_are_listed_with_all_that_there_is_and_nowhere_else() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    three_tiers(&sandbox, engine.busybox(), "");
    place(&sandbox, &["api"]);
    let relay = format!("{}-api-wharf-relay-1", sandbox.project());
    let all = ["ps", "--all", "--format", "json"];
    let rows = sandbox.wharf(&all).expect(0).json_lines();
    let row = rows.iter().find(|row| row["Name"] == relay.as_str());
    let row = row.unwrap_or_else(|| panic!("{rows:?}"));
    assert_eq!(
        (&row["Service"], &row["State"]),
        (&"api".into(), &"running".into())
    );
    for arguments in [
        &["ps"] as &[&str],
        &["ps", "--status", "running"],
        &["ps", "-q"],
        &["ls", "--all"],
        &["images"],
        &["top"],
        &["stats", "--no-stream"],
        &["logs"],
        &["events", "--since", "10m", "--until", "0s"],
    ] {
        let told = sandbox.wharf(arguments).expect(0);
        assert!(
            !told.stdout.contains("wharf-relay"),
            "{arguments:?}: {told}"
        );
    }
    assert_eq!(
        sandbox
            .wharf(&["ps", "-q"])
            .expect(0)
            .stdout
            .lines()
            .count(),
        3
    );
}

#[test]
fn what_an_earlier_file_made_in_the_engine_is_found_and_removed() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let local = "services:\n  web: {x-wharf: {process: {command: [sleep, '600']}}}\n  \
                 job: {x-wharf: {process: {command: [sleep, '600']}}}\n";
    let both = format!(
        "{local}  db: {{image: {}, pull_policy: never, init: true, command: [sleep, '600']}}\n",
        engine.busybox()
    );
    let orphan = format!("{}-db-1", sandbox.project());
    let of_project = |kind: &str| engine.of_project(kind, sandbox.project());
    let left = || {
        sandbox.write("compose.yaml", &both);
        sandbox.wharf(&["up", "-d"]).expect(0);
        sandbox.write("compose.yaml", local);
    };
    left();
    let table = sandbox.wharf(&["ps"]).expect(0);
    assert!(table.stdout.contains(&orphan), "{table}");
    let up = sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(up.stderr.contains("orphans of this project"), "{up}");
    sandbox
        .wharf(&["up", "-d", "--remove-orphans", "-t", "0"])
        .expect(0);
    let removed = sandbox.wharf(&["ps"]).expect(0);
    assert!(!removed.stdout.contains(&orphan), "{removed}");
    sandbox.wharf(&["down"]).expect(0);
    assert_eq!(of_project("container"), Vec::<String>::new());
    assert_eq!(of_project("network"), Vec::<String>::new());
    // Another tool's work, or that of another state directory: nothing is known of it here.
    left();
    let traces = |name: &str| {
        let projects = sandbox.path().with_file_name("state/wharf/projects");
        projects.join(sandbox.project()).join(name)
    };
    std::fs::remove_file(traces("traces")).unwrap();
    std::fs::remove_dir_all(traces("relays")).unwrap();
    let down = sandbox
        .wharf(&["down", "--remove-orphans", "-t", "0"])
        .expect(0);
    assert_eq!(of_project("container"), Vec::<String>::new(), "{down}");
    assert_eq!(of_project("network"), Vec::<String>::new(), "{down}");
}

#[test]
fn a_forwarder_that_was_killed_often_is_there_when_up_has_ended() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    three_tiers(&sandbox, engine.busybox(), "");
    place(&sandbox, &["api"]);
    // Ten ends without a pause; then each doubles the pause before the next start.
    for _ in 0..16 {
        kill_forwarder(&sandbox);
    }
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(ask(&sandbox, "proxy", "api", 8003).contains("101"));
}

#[test]
fn the_choice_is_remembered_until_it_is_changed() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    three_tiers(&sandbox, engine.busybox(), "");
    sandbox.wharf(&["up", "-d", "--local", "db"]).expect(0);
    let before = ids(&sandbox);
    assert_eq!(before["db"].0, "process");
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(ids(&sandbox), before, "nothing changed");
    let table = sandbox.wharf(&["ps"]).expect(0);
    assert!(table.stdout.contains("(process, --local)"), "{table}");
    let rows = sandbox.wharf(&["ps", "--format", "json"]).expect(0);
    for row in rows.json_lines() {
        assert_eq!(row["Chosen"], row["Service"] == "db", "{row}");
    }
    sandbox.wharf(&["down"]).expect(0);
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(ids(&sandbox)["db"].0, "process");
    sandbox.wharf(&["up", "-d", "--container", "db"]).expect(0);
    assert_eq!(ids(&sandbox)["db"].0, "container");
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(ids(&sandbox)["db"].0, "container");
}

#[test]
fn names_by_a_static_program_by_python_and_by_getent() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    three_tiers(&sandbox, engine.busybox(), "");
    place(&sandbox, &["api"]);
    let ask = |words: &[&str]| {
        let arguments = [&["exec", "-T", "api"], words].concat();
        sandbox.wharf(&arguments).expect(0).stdout
    };
    let by_getent = ask(&["getent", "ahostsv4", "db"]);
    let address = by_getent.split_whitespace().next().unwrap_or_default();
    let python = "import socket; print(socket.gethostbyname('db'))";
    assert_eq!(
        ask(&[crate::support::python(), "-c", python]).trim(),
        address
    );
    let hosts = ask(&["busybox", "cat", "/etc/hosts"]);
    assert!(hosts.contains(address), "{hosts}");
    // The machine's own file is as it was.
    let machine = std::fs::read_to_string("/etc/hosts").unwrap();
    assert!(!machine.contains(address), "{machine}");
}

#[test]
fn local_services_without_an_engine_find_each_other() {
    let sandbox = Sandbox::new();
    for name in ["one", "two"] {
        sandbox.write(&format!("www/{name}/who"), name);
    }
    let (one, two) = (free_port(), free_port());
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  one:\n    ports: ['127.0.0.1:{one}:8080']\n    \
             x-wharf: {{process: {{command: [sh, -c, 'exec busybox httpd -f -p 127.0.0.1:$$PORT -h www/one']}}}}\n  \
             two:\n    ports: ['127.0.0.1:{two}:8080']\n    \
             x-wharf: {{process: {{command: [sh, -c, 'exec busybox httpd -f -p 127.0.0.1:$$PORT -h www/two']}}}}\n"
        ),
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    for (from, to) in [("one", "two"), ("two", "one")] {
        eventually("the name works", || {
            (ask(&sandbox, from, to, 8080) == to).then_some(())
        });
    }
}

#[test]
fn links_extra_hosts_hostnames_and_shared_namespaces_go_along() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let image = engine.busybox();
    let web = |name: &str| {
        sandbox.write(&format!("www/{name}/who"), name);
        format!(
            "{{image: {image}, pull_policy: never, stop_grace_period: 0s, volumes: ['./www/{name}:/www:ro'], \
             command: [httpd, -f, -p, '8090', -h, /www], "
        )
    };
    let container = |name: &str, more: &str| format!("  {name}: {}{more}}}\n", web(name));
    sandbox.write(
        "compose.yaml",
        [
            "services:\n",
            &container("db", "hostname: db-host, expose: ['8090']"),
            &container("beside", "network_mode: 'service:web'"),
            "  web:\n    hostname: web-host\n    links: ['db:database']\n    \
             extra_hosts: ['far:10.0.0.9', 'host.docker.internal:host-gateway']\n    stop_grace_period: 0s\n    \
             x-wharf: {process: {command: [sleep, '1000']}}\n",
            "  job:\n    stop_grace_period: 0s\n    x-wharf: {process: {command: [sleep, '1000']}}\n",
        ]
        .concat(),
    );
    let up = sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(!up.stderr.contains("extra_hosts"), "{up}");
    let has = |from: &str, name: &str| {
        let line = format!("grep -E '[[:space:]]{name}( |$)' /etc/hosts");
        beside(&sandbox, from, &line).stdout
    };
    assert!(has("web", "far").starts_with("10.0.0.9"));
    assert!(has("web", "host[.]docker[.]internal").starts_with("127.0.0.1"));
    assert_eq!(has("job", "far"), "");
    let answers = |from: &str, name: &str, expected: &str| {
        eventually("the name works", || {
            (ask(&sandbox, from, name, 8090) == expected).then_some(())
        });
    };
    answers("web", "database", "db");
    answers("web", "db-host", "db");
    // In the relay's namespace, by each of its names.
    for (from, name) in [("job", "web"), ("job", "web-host"), ("db", "web-host")] {
        answers(from, name, "beside");
    }
    // Also where a command did not have the container that lives there in view.
    for arguments in [
        &["up", "-d", "--force-recreate", "--no-deps", "web"][..],
        &["restart", "web"],
    ] {
        sandbox.wharf(arguments).expect(0);
        answers("job", "web", "beside");
    }
    sandbox.wharf(&["down"]).expect(0);
    sandbox.wharf(&["up", "-d", "web", "job"]).expect(0);
    sandbox.wharf(&["up", "-d"]).expect(0);
    answers("job", "web", "beside");
    // With the dot at its end that says that it is the whole name.
    answers("job", "db.", "db");
}

#[test]
fn a_link_leads_to_its_service_wherever_that_moves() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let image = engine.busybox();
    sandbox.write("www/who", "db");
    let server = "[httpd, -f, -p, '8090', -h, ./www]";
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  db:\n    image: {image}\n    pull_policy: never\n    stop_grace_period: 0s\n    \
             working_dir: /\n    volumes: ['./www:/www:ro']\n    command: {server}\n    expose: ['8090']\n    \
             x-wharf: {{process: {{command: [busybox, httpd, -f, -p, '127.0.0.1:8090', -h, www], \
             working_dir: .}}}}\n  \
             web:\n    image: {image}\n    pull_policy: never\n    stop_grace_period: 0s\n    links: ['db:database']\n    \
             command: [sleep, '1000']\n    x-wharf: {{process: {{command: [sleep, '1000']}}}}\n"
        ),
    );
    let answers = || {
        eventually("the link works", || {
            (ask(&sandbox, "web", "database", 8090) == "db").then_some(())
        });
    };
    // Made while its service is local, made while that moves, and made beside its container.
    for words in [
        &["--local", "db", "--container", "web"][..],
        &["--container", "db"],
        &["--local", "db,web"],
        &["--container", "db,web"],
        &["--local", "db"],
        &["--container", "db"],
    ] {
        sandbox
            .wharf(&[&["up", "-d"][..], words].concat())
            .expect(0);
        answers();
    }
}
