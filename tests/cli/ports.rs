//! `wharf ports`, `who`, `free` and `next-port`: who has a port, on whichever engine or in whichever process,
//! and what is left alone.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine_double::{EngineDouble, Stock, mute};
use crate::support::own_engine::OwnEngine;
use crate::support::running::Running;
use crate::support::{
    Process, Sandbox, eventually, free_port, is_free, python, require_engine, websocket, ws_server,
};

const ID: &str = "9f8e7d6c5b4a9f8e7d6c5b4a9f8e7d6c5b4a9f8e7d6c5b4a9f8e7d6c5b4a9f8e";

/// A port as `--format json` prints it, and the exit code.
fn who(sandbox: &Sandbox, port: &str) -> (Value, i32) {
    let finished = sandbox.wharf(&["who", port, "--format", "json"]);
    let code = finished.code();
    (finished.json_lines().remove(0), code)
}

/// The server of the tests under another name, as an engine's port proxy has one.
fn proxy(sandbox: &Sandbox, name: &str, port: u16) -> Running {
    let script = format!("exec -a {name} {} {} --port {port}", python(), ws_server());
    let proxy = sandbox.program("bash", &["-c", &script]);
    proxy.wait_for_line("listening on ");
    proxy
}

fn runtime(sandbox: &Sandbox, file: &str) -> PathBuf {
    let home = sandbox.path().parent();
    home.expect("the project directory has one")
        .join("run")
        .join(file)
}

fn listed(port: u16) -> Value {
    json!([{
        "Id": ID, "Names": ["/pod-web"], "Image": "nginx", "Command": "nginx -g", "Created": 1_700_000_000,
        "Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"},
        "Ports": [{"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": port, "Type": "tcp"}],
    }])
}

#[test]
fn where_no_engine_answers_ports_are_listed_as_up_would_place_them() {
    let sandbox = Sandbox::new();
    let port = free_port();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  web:\n    image: web\n    ports: ['127.0.0.1:{port}:80']\n    \
             x-wharf: {{process: {{command: [web]}}}}\n"
        ),
    );
    let ports = || {
        let rows = sandbox.wharf(&["ports", "--format", "json"]).expect(0);
        rows.json_lines().remove(0)
    };
    assert_eq!(ports()["backend"], "process");
    // Nobody knows how else it would run.
    sandbox.write(
        "compose.yaml",
        format!("services:\n  web:\n    image: web\n    ports: ['127.0.0.1:{port}:80']\n"),
    );
    assert_eq!(ports()["backend"], "container");
}

#[test]
fn a_server_is_named_and_freed_and_its_client_lives() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let (free, code) = who(&sandbox, &text);
    assert_eq!(code, 0);
    assert_eq!(
        free,
        json!({"port": port, "protocol": "tcp", "addresses": ["0.0.0.0", "::"], "holders": []})
    );
    let server = sandbox.server(port, &[]);
    let neighbour = sandbox.server(port, &["--host", "127.0.0.2"]);
    let (held, code) = who(&sandbox, &text);
    assert_eq!(code, 1);
    let pids: Vec<u64> = held["holders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|holder| holder["pid"].as_u64().unwrap())
        .collect();
    let mut expected = vec![u64::from(server.pid()), u64::from(neighbour.pid())];
    expected.sort_unstable();
    assert_eq!(pids, expected, "{held}");
    assert_eq!(held["addresses"], json!(["127.0.0.1", "127.0.0.2"]));
    let holder = &held["holders"][0];
    assert_eq!(
        (&holder["kind"], &holder["release"], &holder["protected"]),
        (&json!("process"), &json!("signal"), &json!(false))
    );
    assert_eq!(holder["cwd"], json!(sandbox.path().to_str().unwrap()));
    assert!(holder["command"].as_str().unwrap().contains("ws_server.py"));
    assert!(holder["age_seconds"].as_u64().is_some() && holder["started"].is_string());
    let said = sandbox.wharf(&["who", &text]).expect(1);
    assert!(
        said.stdout.contains(&format!("wharf free {text}")),
        "{said}"
    );

    // A client whose far end is the port, and a bystander with the number among its words.
    let client = sandbox.program(
        python(),
        &[
            "-c",
            "import socket,sys,time; s=socket.create_connection(('127.0.0.2', int(sys.argv[1]))); print('up', flush=True); time.sleep(600)",
            &text,
        ],
    );
    client.wait_for_line("up");
    let refused = sandbox.wharf(&["free", &text]).expect(1);
    assert!(refused.stderr.contains("--force"), "{refused}");
    assert!(
        refused.stderr.contains(&server.pid().to_string()),
        "{refused}"
    );
    let rehearsed = sandbox
        .wharf(&["free", &text, "--force", "--dry-run"])
        .expect(0);
    assert!(rehearsed.stdout.contains("would stop"), "{rehearsed}");
    assert!(!server.process().ended() && !neighbour.process().ended());

    let freed = sandbox
        .wharf(&["free", &text, "--force", "--format", "json"])
        .expect(0);
    assert_eq!(freed.json_lines()[0]["holders"], json!([]));
    assert!(server.process().ended() && neighbour.process().ended());
    assert!(!client.process().ended() && is_free(port));
    // What is free already needs no word.
    sandbox.wharf(&["free", &text]).expect(0);

    let history = sandbox
        .wharf(&["ports", "--history", "--format", "json"])
        .expect(0)
        .json_lines();
    assert_eq!(history.len(), 2);
    let entry = &history[0];
    assert_eq!(
        (&entry["port"], &entry["outcome"], &entry["answer"]),
        (&json!(port), &json!("stopped"), &json!("--force"))
    );
    assert!(
        entry["by"]
            .as_str()
            .unwrap()
            .starts_with(&format!("wharf free {text}"))
    );
    assert!(
        entry["holder"]["command"]
            .as_str()
            .unwrap()
            .contains("ws_server.py")
    );
    let table = sandbox.wharf(&["ports", "--history"]).expect(0);
    assert!(table.stdout.contains(&format!("{port}/tcp")), "{table}");
    client.signal(Signal::KILL);
}

/// A process that has the port among its words, as an editor may.
fn reader(sandbox: &Sandbox, port: &str) -> Running {
    let words = "import time; print('up', flush=True); time.sleep(600)";
    let reader = sandbox.program(python(), &["-c", words, "notes-about-port", port]);
    reader.wait_for_line("up");
    reader
}

fn actor(sandbox: &Sandbox, words: &[&str]) -> Running {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/port/actor.pl");
    let actor = sandbox.program("perl", &[&[script], words].concat());
    actor.wait_for_line("ready");
    actor
}

#[test]
fn a_holder_that_comes_back_a_second_later_is_reported_once() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let keeper = actor(&sandbox, &["backoff", "127.0.0.1", &text, "1"]);
    let reader = reader(&sandbox, &text);
    let freed = sandbox
        .wharf(&["free", &text, "--force", "--format", "json"])
        .expect(1);
    assert!(freed.stderr.contains("is taken again, by"), "{freed}");
    let hint = format!("stop what keeps it: kill {}", keeper.pid());
    assert!(freed.stderr.contains(&hint), "{freed}");
    let row = freed.json_lines().remove(0);
    let second = row["holders"][0]["pid"].as_u64().unwrap();
    assert!(!keeper.process().ended() && !reader.process().ended());
    // One was stopped, and its successor was not.
    let history = sandbox
        .wharf(&["ports", "--history", "--format", "json"])
        .expect(0)
        .json_lines();
    assert_eq!(history.len(), 1);
    assert_ne!(history[0]["holder"]["pid"], json!(second));
    // Told what keeps it, a person ends that.
    keeper.signal(Signal::KILL);
    reader.signal(Signal::KILL);
    sandbox.wharf(&["free", &text, "--force"]).expect(0);
    assert!(is_free(port));
}

#[test]
fn workers_are_said_to_have_ended_with_their_master() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let master = actor(&sandbox, &["prefork", "127.0.0.1", &text, "3"]);
    let (held, _) = who(&sandbox, &text);
    assert_eq!(held["holders"].as_array().unwrap().len(), 4, "{held}");
    let freed = sandbox.wharf(&["free", &text, "--force"]).expect(0);
    let with = format!("ended with perl (pid {})", master.pid());
    assert_eq!(freed.stderr.matches(&with).count(), 3, "{freed}");
    assert!(!freed.stderr.contains("by itself"), "{freed}");
    let history = sandbox
        .wharf(&["ports", "--history", "--format", "json"])
        .expect(0)
        .json_lines();
    assert_eq!(history.len(), 4);
    assert!(history.iter().all(|entry| entry["outcome"] == "stopped"));
}

#[test]
fn the_shape_is_the_documented_one_field_by_field() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let server = sandbox.server(port, &[]);
    // A process of this user is no engine's: none is asked, and this one would never answer.
    mute(&runtime(&sandbox, "docker.sock"));
    let seen = sandbox.wharf(&["who", &port.to_string(), "--format", "json"]);
    assert_eq!((seen.code(), seen.stderr.as_str()), (1, ""), "{seen}");
    let mut row = seen.json_lines().remove(0);
    let holder = row["holders"][0].take();
    assert_eq!(
        row,
        json!({"port": port, "protocol": "tcp", "addresses": ["127.0.0.1"], "holders": [null]})
    );
    let read = |file: &str| std::fs::read(format!("/proc/{}/{file}", server.pid())).unwrap();
    let command: Vec<String> = String::from_utf8(read("cmdline"))
        .unwrap()
        .trim_end_matches('\0')
        .split('\0')
        .map(str::to_owned)
        .collect();
    let link = |file: &str| std::fs::read_link(format!("/proc/{}/{file}", server.pid())).unwrap();
    let started: jiff::Timestamp = holder["started"].as_str().unwrap().parse().unwrap();
    let now = jiff::Timestamp::now();
    assert!(started <= now, "{holder}");
    let age = holder["age_seconds"].as_i64().unwrap();
    assert!(
        (now.as_second() - started.as_second() - age).abs() <= 2,
        "{holder}"
    );
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(
        holder,
        json!({
            "kind": "process", "pid": server.pid(), "uid": uid, "user": holder["user"],
            "command": shell_words::join(&command),
            "cwd": link("cwd"), "exe": link("exe"),
            "started": holder["started"], "age_seconds": age,
            "container": null, "unit": null, "protected": false, "reason": null, "release": "signal",
        })
    );
}

#[test]
fn containers_of_podman_are_named_and_stopped_by_podman() {
    let engine = require_engine!();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a Podman of one's own needs root");
        return;
    }
    let sandbox = Sandbox::with_engine(&engine);
    if sandbox
        .program("sh", &["-c", "command -v podman"])
        .wait()
        .code()
        != 0
    {
        return crate::support::engine::skipped("podman is not installed");
    }
    let home = sandbox.path().parent().unwrap().to_owned();
    let socket = runtime(&sandbox, "podman/podman.sock");
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let url = format!("unix://{}", socket.display());
    // Its bridge, its ports, its mounts and its leases are nobody else's.
    let script = "mount --make-rprivate / && mount -t tmpfs none /run && mkdir -p /var/lib/cni && \
        mount -t tmpfs none /var/lib/cni && ip link set lo up && exec podman --root \"$0/podman\" \
        --runroot \"$0/podman-run\" --storage-driver vfs --cgroup-manager cgroupfs --events-backend file \
        system service --time=0 \"$1\"";
    let service = sandbox.program(
        "unshare",
        &[
            "--net",
            "--mount",
            "sh",
            "-c",
            script,
            home.to_str().unwrap(),
            url.as_str(),
        ],
    );
    let podman = |words: &[&str]| {
        sandbox
            .program(
                "podman",
                &[&["--remote", "--url", url.as_str()][..], words].concat(),
            )
            .wait()
    };
    eventually("podman answers", || {
        (podman(&["version"]).code() == 0).then_some(())
    });
    let (image, archive) = (engine.busybox(), home.join("image.tar"));
    let archive = archive.to_str().unwrap();
    engine.ask(&["save", "--output", archive, image]);
    podman(&["load", "--input", archive]).expect(0);
    let run = |options: &[&str], command: &[&str]| {
        // Podman asks for more of these than a container of the tests may have.
        let limits = ["--ulimit", "nofile=256:256", "--ulimit", "nproc=256:256"];
        let words = [
            &["run", "--detach", "--stop-timeout", "1"][..],
            &limits[..],
            options,
            &[image][..],
            command,
        ];
        podman(&words.concat()).expect(0).stdout.trim().to_owned()
    };
    let web = run(&["--publish", "8080:80"], &["httpd", "-f", "-p", "80"]);
    let hosted = run(
        &["--network", "host"],
        &["httpd", "-f", "-p", "127.0.0.1:8081"],
    );
    let sibling = run(&["--publish", "8082:80"], &["httpd", "-f", "-p", "80"]);
    let reader = reader(&sandbox, "8080");
    let namespace = format!("--net=/proc/{}/ns/net", service.pid());
    let wharf = |words: &[&str]| {
        sandbox
            .program("nsenter", &[&[namespace.as_str(), "wharf"], words].concat())
            .wait()
    };
    eventually("the server listens", || {
        (wharf(&["who", "8081"]).code() == 1).then_some(())
    });
    let rows = wharf(&["who", "8080", "8081", "8082", "--format", "json"])
        .expect(1)
        .json_lines();
    for (row, id) in rows.iter().zip([&web, &hosted, &sibling]) {
        assert_eq!(row["holders"].as_array().unwrap().len(), 1, "{row}");
        let holder = &row["holders"][0];
        assert_eq!(
            (
                &holder["container"]["id"],
                &holder["container"]["engine"],
                &holder["release"]
            ),
            (&json!(id), &json!(url), &json!("engine-stop")),
            "{row}"
        );
    }
    // It is asked for what does not run as well, in words that it knows.
    let words = [
        "create",
        "--ulimit",
        "nofile=256:256",
        "--ulimit",
        "nproc=256:256",
        "--publish",
        "8085:80",
        image,
        "httpd",
    ];
    let kept = podman(&words).expect(0).stdout.trim().to_owned();
    let rows = wharf(&["who", "8080", "8085", "--format", "json"])
        .expect(1)
        .json_lines();
    assert_eq!(rows[0]["holders"][0]["container"]["id"], json!(web));
    assert_eq!(rows[1]["reserved"][0]["id"], json!(kept));
    wharf(&["free", "8080-8081", "--force"]).expect(0);
    let running = podman(&["ps", "--quiet", "--no-trunc"]).expect(0).stdout;
    assert_eq!(running.trim(), sibling);
    assert!(!service.process().ended() && !reader.process().ended());
    podman(&["rm", "--force", "--all"]).expect(0);
    reader.signal(Signal::KILL);
    service.signal(Signal::TERM);
    service.wait();
}

#[test]
fn on_a_terminal_free_asks() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let server = sandbox.server(port, &[]);
    let mut terminal = sandbox.terminal(&["free", &text]);
    let screen = terminal.wait_for("stop it?");
    assert!(
        screen.contains(&format!("pid {}", server.pid())),
        "{screen}"
    );
    terminal.type_text("perhaps\nn\n");
    let kept = terminal.wait().expect(1);
    assert!(kept.stdout.contains("not an answer"), "{kept}");
    assert!(!server.process().ended());
    let mut terminal = sandbox.terminal(&["free", &text, "--signal", "int"]);
    terminal.wait_for("stop it?");
    terminal.type_text("y\n");
    terminal.wait().expect(0);
    assert!(server.process().ended());
}

#[test]
fn what_is_protected_is_not_freed() {
    let sandbox = Sandbox::new();
    let port = free_port();
    // It could be stopped, and would be for nothing.
    let neighbour = sandbox.server(port, &["--host", "127.0.0.2"]);
    // The holder is an ancestor of wharf.
    let program = format!(
        "import socket,subprocess,sys\ns=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         s.bind(('127.0.0.1', {port})); s.listen()\n\
         subprocess.call(['wharf','who','{port}','--format','json'])\n\
         sys.exit(subprocess.call(['wharf','free','{port}','--force','--signal','KILL']))"
    );
    let refused = sandbox
        .program("python3", &["-c", &program])
        .wait()
        .expect(1);
    assert!(
        refused.stderr.contains("wharf will not stop it"),
        "{refused}"
    );
    let row = refused.json_lines().remove(0);
    let holders = row["holders"].as_array().unwrap();
    assert_eq!(holders.len(), 2, "{row}");
    let mut protected = holders.iter().filter(|holder| holder["protected"] == true);
    let holder = protected.next().unwrap();
    assert_eq!(holder["release"], "none");
    let reason = holder["reason"].as_str().unwrap();
    assert!(reason.contains("runs inside it"), "{row}");
    assert!(protected.next().is_none());
    assert!(!neighbour.process().ended());
    sandbox
        .wharf(&["ports", "--history", "--format", "json"])
        .expect_exactly(0, "", "");
}

#[test]
fn an_innocent_client_is_nobodys_holder() {
    let sandbox = Sandbox::new();
    let (port, far) = (free_port(), free_port());
    let listener = TcpListener::bind(("127.0.0.1", far)).unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())
        .unwrap();
    socket
        .connect(&std::net::SocketAddr::from(([127, 0, 0, 1], far)).into())
        .unwrap();
    let (_accepted, _) = listener.accept().unwrap();
    let text = port.to_string();
    let (seen, code) = who(&sandbox, &text);
    assert_eq!(seen["holders"], json!([]));
    assert_eq!(code, 1, "it cannot be had all the same");
    let refused = sandbox.wharf(&["free", &text, "--force"]).expect(1);
    assert!(refused.stderr.contains("connection"), "{refused}");
    assert!(socket.peer_addr().is_ok());
}

#[test]
fn the_next_ports_are_free_ones() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let _server = sandbox.server(port, &[]);
    let text = port.to_string();
    let found = sandbox.wharf(&["next-port", &text, "3"]).expect(0);
    let ports: Vec<u16> = found
        .stdout
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!(ports.len(), 3);
    assert!(ports.is_sorted() && ports.iter().all(|free| *free > port && is_free(*free)));
    let rows = sandbox
        .wharf(&["next-port", &text, "--format", "json"])
        .expect(0)
        .json_lines();
    assert_eq!(
        (&rows[0]["port"], &rows[0]["holders"]),
        (&json!(ports[0]), &json!([]))
    );
    sandbox.wharf(&["next-port", "65535", "2"]).expect(1);
    sandbox.wharf(&["next-port", "0"]).expect(2);
    sandbox.wharf(&["who", "70000"]).expect(2);
}

/// A project with one plain TCP server, which declares no protocol.
fn plain(sandbox: &Sandbox, port: u16) {
    let (python, server) = (python(), ws_server());
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  ws:\n    ports: ['127.0.0.1:{port}:{port}']\n    x-wharf: {{process: {{command: [{python}, '{server}', --port, '{port}']}}}}\n"
        ),
    );
}

#[test]
fn the_ports_of_a_project_are_free_ours_or_held() {
    let sandbox = Sandbox::new();
    let port = free_port();
    plain(&sandbox, port);
    let state = |code: i32| -> Value {
        sandbox
            .wharf(&["ports", "--format", "json"])
            .expect(code)
            .json_lines()
            .remove(0)
    };
    let row = state(0);
    assert_eq!(
        (
            &row["service"],
            &row["backend"],
            &row["port"],
            &row["state"]
        ),
        (
            &json!("ws"),
            &json!("process"),
            &json!(port),
            &json!("free")
        )
    );
    assert_eq!(row["addresses"], json!(["127.0.0.1"]));
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(state(0)["state"], "ours");
    let table = sandbox.wharf(&["ports"]).expect(0);
    assert!(
        table
            .stdout
            .contains(&format!("ours: {}-ws-1", sandbox.project())),
        "{table}"
    );
    sandbox.wharf(&["down"]).expect(0);
    let server = sandbox.server(port, &[]);
    let row = state(1);
    assert_eq!(row["state"], "held");
    assert_eq!(row["holders"][0]["pid"], json!(server.pid()));
    // `up` writes down what it stops, and by whose word.
    sandbox.wharf(&["up", "-d", "--force"]).expect(0);
    let entry = sandbox
        .wharf(&["ports", "--history", "--format", "json"])
        .expect(0)
        .json_lines()
        .remove(0);
    assert_eq!(
        (&entry["service"], &entry["holder"]["pid"]),
        (&json!("ws"), &json!(server.pid()))
    );
    assert!(
        entry["answer"]
            .as_str()
            .unwrap()
            .contains("--on-conflict replace")
    );
    assert_eq!(entry["by"], "wharf up -d --force");
}

#[test]
fn of_two_projects_that_race_for_a_port_one_fails_and_names_the_other() {
    let (one, two) = (Sandbox::new(), Sandbox::new());
    for _ in 0..3 {
        let port = free_port();
        plain(&one, port);
        plain(&two, port);
        let (first, second) = (one.spawn(&["up", "-d"]), two.spawn(&["up", "-d"]));
        let (first, second) = (first.wait(), second.wait());
        let (loser, winner, other) = if first.code() == 0 {
            (second, one.project(), &two)
        } else {
            (first, two.project(), &one)
        };
        // One that comes late enough to see the other is told so before it starts anything.
        assert!(matches!(loser.code(), 1 | 5), "{loser}");
        assert!(loser.stderr.contains("ws_server.py"), "{loser}");
        websocket::connect(port, "/").unwrap();
        assert_ne!(winner, other.project());
        one.wharf(&["down"]).expect(0);
        two.wharf(&["down"]).expect(0);
    }
}

/// Says when it was told to end, and does so when it is told by another signal.
const SLOW: &str = r#"
import signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening on", flush=True)
while signal.sigwait({signal.SIGTERM, signal.SIGUSR1}) == signal.SIGTERM:
    print("told", flush=True)
"#;

#[test]
fn of_two_projects_that_free_one_port_the_second_ends_at_once() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    plain(&sandbox, port);
    let server = sandbox.program(python(), &["-c", SLOW, &text]);
    server.wait_for_line("listening on");
    let first = sandbox.spawn(&["up", "-d", "--force"]);
    server.wait_for_line("told");
    let second = sandbox.spawn(&["-p", "another", "up", "-d", "--force"]);
    // The kernel lists who waits for the first one's lock.
    let byte = format!("{port} {port}");
    let waits = || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let mut lines = locks.lines();
        lines.any(|line| line.contains("-> OFDLCK") && line.trim_end().ends_with(&byte))
    };
    while !waits() {
        std::thread::yield_now();
    }
    Process::open(server.pid()).unwrap().signal(Signal::USR1);
    first.wait().expect(0);
    let second = second.wait().expect(5);
    let hint = format!("wharf -p {} stop ", sandbox.project());
    assert!(second.stderr.contains("went to service"), "{second}");
    assert!(second.stderr.contains(&hint), "{second}");
    server.wait();
    sandbox.wharf(&["-p", "another", "down"]).expect(0);
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn what_is_lost_with_a_container_is_said_beforehand() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let proxy = proxy(&sandbox, "rootlessport", port);
    let pid = proxy.pid();
    let volume = "0123456789abcdef".repeat(4);
    let _engine = EngineDouble::listen(
        &runtime(&sandbox, "podman/podman.sock"),
        Stock {
            running: listed(port),
            inspected: json!({
                "Id": ID,
                "State": {"Running": true},
                "Config": {"StopTimeout": 3},
                "HostConfig": {"AutoRemove": true},
                "Mounts": [{"Type": "volume", "Name": volume, "Destination": "/data"}],
            }),
            on_stop: Some(Box::new(move || {
                if let Some(process) = Process::open(pid) {
                    process.signal(Signal::KILL);
                }
            })),
            ..Stock::default()
        },
    );
    let lost = "its engine removes it when it stops, and its anonymous volume /data (0123456789ab)";
    let (held, _) = who(&sandbox, &text);
    let holder = &held["holders"][0];
    assert!(
        holder["consequences"][0].as_str().unwrap().contains(lost),
        "{holder}"
    );
    let refused = sandbox.wharf(&["free", &text]).expect(1);
    assert!(refused.stderr.contains(lost), "{refused}");
    // A file is no person's word for that.
    let compose = format!(
        "x-wharf: {{conflict: replace}}\nservices:\n  web:\n    ports: [\"127.0.0.1:{port}:{port}\"]\n    x-wharf: {{process: {{command: [sleep, \"9\"]}}}}\n"
    );
    sandbox.write("compose.yaml", &compose);
    let up = sandbox.wharf(&["up", "-d"]).expect(5);
    assert!(up.stderr.contains(lost), "{up}");
    let freed = sandbox.wharf(&["free", &text, "--force"]).expect(0);
    assert!(freed.stderr.contains("so its engine removes it"), "{freed}");
    assert!(!freed.stderr.contains("start web"), "{freed}");
}

#[test]
fn a_container_of_another_engine_is_named_and_stopped_there() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let proxy = proxy(&sandbox, "rootlessport", port);
    let pid = proxy.pid();
    let socket = runtime(&sandbox, "podman/podman.sock");
    let engine = EngineDouble::listen(
        &socket,
        Stock {
            running: listed(port),
            inspected: json!({"Id": ID, "State": {"Running": true}, "Config": {"StopTimeout": 3}}),
            on_stop: Some(Box::new(move || {
                if let Some(process) = Process::open(pid) {
                    process.signal(Signal::KILL);
                }
            })),
            ..Stock::default()
        },
    );
    let (held, _) = who(&sandbox, &text);
    let holder = &held["holders"][0];
    assert_eq!(held["holders"].as_array().unwrap().len(), 1, "{held}");
    assert_eq!(
        (&holder["kind"], &holder["release"]),
        (&json!("container"), &json!("engine-stop"))
    );
    assert_eq!(
        holder["container"],
        json!({
            "id": ID, "name": "pod-web", "image": "nginx", "project": "shop", "service": "web",
            "engine": format!("unix://{}", socket.display()),
        })
    );
    sandbox.wharf(&["free", &text, "--force"]).expect(0);
    let stopped = format!("POST /containers/{ID}/stop");
    assert!(engine.asked().contains(&stopped), "{:?}", engine.asked());
    assert!(is_free(port));
    let history = sandbox.wharf(&["ports", "--history"]).expect(0);
    assert!(
        history.stdout.contains("container pod-web (project shop)"),
        "{history}"
    );
}

#[test]
fn a_swarm_service_is_named_and_never_stopped() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let daemon = proxy(&sandbox, "dockerd", port);
    let services = json!([{
        "ID": "s1", "Spec": {"Name": "shop_web", "Labels": {"com.docker.stack.namespace": "shop"},
            "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}},
        "Endpoint": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": port, "PublishMode": "ingress"}]},
    }]);
    let stock = Stock {
        services,
        ..Stock::default()
    };
    EngineDouble::listen(&runtime(&sandbox, "docker.sock"), stock);
    let (held, _) = who(&sandbox, &text);
    let holder = &held["holders"][0];
    assert_eq!(
        (
            &holder["container"]["name"],
            &holder["release"],
            &holder["protected"]
        ),
        (&json!("shop_web"), &json!("none"), &json!(true))
    );
    let refused = sandbox.wharf(&["free", &text, "--force"]).expect(1);
    assert!(
        refused.stderr.contains("docker service rm shop_web"),
        "{refused}"
    );
    assert!(!daemon.process().ended());
    daemon.signal(Signal::KILL);
}

#[test]
fn a_proxy_without_a_container_is_an_orphan_only_when_every_engine_has_answered() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let orphan = proxy(&sandbox, "docker-proxy", port);
    // No engine of this sandbox answers; the machine's own may.
    EngineDouble::listen(&runtime(&sandbox, "docker.sock"), Stock::default());
    mute(&runtime(&sandbox, "podman/podman.sock"));
    let said = sandbox.wharf(&["who", &text]).expect(1);
    assert!(
        said.stderr.contains("podman.sock does not answer"),
        "{said}"
    );
    assert!(said.stdout.contains("never stopped"), "{said}");
    sandbox.wharf(&["free", &text, "--force"]).expect(1);
    assert!(!orphan.process().ended());
    std::fs::remove_file(runtime(&sandbox, "podman/podman.sock")).unwrap();
    sandbox.wharf(&["free", &text, "--force"]).expect(0);
    assert!(orphan.process().ended());
}

#[test]
fn a_stopped_container_has_its_ports_reserved() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let mut listed = listed(port);
    listed[0]["Ports"] = json!([]);
    let stock = Stock {
        stopped: listed,
        inspected: json!({"Id": ID, "State": {"Running": false}, "Config": {},
            "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": port.to_string()}]}}}),
        ..Stock::default()
    };
    EngineDouble::listen(&runtime(&sandbox, "docker.sock"), stock);
    let text = port.to_string();
    let (free, code) = who(&sandbox, &text);
    assert_eq!((code, &free["holders"]), (0, &json!([])));
    assert_eq!(free["reserved"][0]["name"], "pod-web");
    let next = sandbox.wharf(&["next-port", &text]).expect(0);
    assert_ne!(next.stdout.trim(), text);
}

#[test]
fn containers_of_the_engine_are_named_stopped_and_remembered() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let (port, other) = (free_port(), free_port());
    let text = port.to_string();
    let sibling = engine.run(
        &["--publish", &format!("{other}:80")],
        &["httpd", "-f", "-p", "80"],
    );
    let holder = engine.run(
        &[
            "--stop-timeout",
            "1",
            "--restart",
            "always",
            "--publish",
            &format!("{port}:80"),
        ],
        &["httpd", "-f", "-p", "80"],
    );
    eventually("the container is published", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let (held, _) = who(&sandbox, &text);
    assert_eq!(held["holders"].as_array().unwrap().len(), 1, "{held}");
    assert_eq!(held["holders"][0]["container"]["id"], json!(holder.id));
    let reader = reader(&sandbox, &text);
    let client = "import socket,sys,time; s=socket.create_connection(('127.0.0.1', int(sys.argv[1]))); print('up', flush=True); time.sleep(600)";
    let client = sandbox.program(python(), &["-c", client, &text]);
    client.wait_for_line("up");
    sandbox.wharf(&["free", &text, "--force"]).expect(0);
    assert!(!holder.runs() && sibling.runs());
    assert!(!reader.process().ended() && !client.process().ended());
    reader.signal(Signal::KILL);
    client.signal(Signal::KILL);
    // A container on the host's network publishes nothing.
    let near = free_port();
    let hosted = engine.run(
        &["--network", "host", "--restart", "always"],
        &["httpd", "-f", "-p", &format!("127.0.0.1:{near}")],
    );
    eventually("the server listens", || {
        TcpStream::connect(("127.0.0.1", near)).ok()
    });
    let (held, _) = who(&sandbox, &near.to_string());
    assert_eq!(
        held["holders"][0]["container"]["id"],
        json!(hosted.id),
        "{held}"
    );
    sandbox
        .wharf(&["free", &near.to_string(), "--force", "--signal", "KILL"])
        .expect(0);
    assert!(!hosted.runs() && sibling.runs());
    // UDP is a world of its own.
    let datagrams = engine.run(&["--publish", &format!("{port}:80/udp")], &["sleep", "600"]);
    let (tcp, code) = who(&sandbox, &text);
    assert_eq!((code, &tcp["holders"]), (0, &json!([])));
    let (udp, _) = who(&sandbox, &format!("{text}/udp"));
    assert_eq!(udp["holders"].as_array().unwrap().len(), 1, "{udp}");
    assert_eq!(udp["holders"][0]["container"]["id"], json!(datagrams.id));
}

#[test]
fn without_userland_proxies_the_container_is_named_and_the_daemon_lives() {
    let engine = require_engine!();
    let mut sandbox = Sandbox::new();
    let Some(own) = OwnEngine::start(&mut sandbox, &engine) else {
        return;
    };
    let (image, docker) = (engine.busybox(), &own.engine);
    let run = |publish: &str, command: &[&str]| {
        let options = [
            "run",
            "--detach",
            "--stop-timeout",
            "1",
            "--publish",
            publish,
            image,
        ];
        docker.ask(&[&options[..], command].concat())
    };
    let web = run("8080:80", &["httpd", "-f", "-p", "80"]);
    let names = run("127.0.0.1:5353:53/udp", &["sleep", "600"]);
    let wharf = |words: &[&str]| own.program(&sandbox, "wharf", words).wait();
    // Without proxies the daemon itself has the sockets.
    let rows = wharf(&["who", "8080", "5353/udp", "80", "--format", "json"])
        .expect(1)
        .json_lines();
    for (row, id) in rows.iter().zip([&web, &names]) {
        assert_eq!(row["holders"].as_array().unwrap().len(), 1, "{row}");
        assert_eq!(row["holders"][0]["container"]["id"], json!(id), "{row}");
    }
    assert_eq!(rows[2]["holders"], json!([]));
    wharf(&["free", "8080", "--force"]).expect(0);
    let running = docker.ask(&["ps", "--quiet", "--no-trunc"]);
    assert_eq!(running, names);
    assert!(own.runs());
    docker.ask(&["rm", "--force", &web, &names]);
}
