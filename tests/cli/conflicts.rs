//! A needed port is held: who is named, what is stopped, what is left alone.

use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;

use crate::support::{
    Process, Sandbox, eventually, free_port, require_engine, websocket, ws_server,
};

/// A project whose service is a Python WebSocket server on a loopback port.
fn project(sandbox: &Sandbox, port: u16) {
    project_with(sandbox, port, &[]);
}

fn project_with(sandbox: &Sandbox, port: u16, options: &[&str]) {
    let options: Vec<String> = options
        .iter()
        .map(|option| format!(", '{option}'"))
        .collect();
    let options = options.concat();
    let server = ws_server();
    // The port comes in PORT, as a local server would take it.
    let script = format!("exec python3 {server} --port $$PORT \"$@\"");
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  ws:\n    ports:\n      - {{target: {port}, published: '{port}', host_ip: 127.0.0.1, app_protocol: ws}}\n    \
             x-wharf:\n      process: {{command: [sh, -c, '{script}', sh{options}]}}\n      ready: {{path: /, timeout: 20s}}\n"
        ),
    );
}

#[test]
fn without_a_terminal_the_holder_is_named_and_nothing_changes() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let old = sandbox.server(port, &[]);
    let refused = sandbox.wharf(&["up", "-d"]).expect(5);
    let pid = old.pid().to_string();
    for text in [
        "ws_server.py",
        &pid,
        "--force",
        "--on-conflict move",
        &port.to_string(),
    ] {
        assert!(refused.stderr.contains(text), "no `{text}` in {refused}");
    }
    assert!(!old.process().ended());
    assert_eq!(sandbox.wharf(&["ps", "--all", "-q"]).expect(0).stdout, "");
}

#[test]
fn force_stops_it_and_the_new_server_answers() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let old = sandbox.server(port, &[]);
    let up = sandbox.wharf(&["up", "-d", "--force"]).expect(0);
    assert!(old.process().ended());
    assert!(
        up.stderr.contains(&format!("ws://127.0.0.1:{port}/")),
        "{up}"
    );
    let mut connection = websocket::connect(port, "/").unwrap();
    assert_eq!(websocket::ask(&mut connection, "hello"), "hello");
}

#[test]
fn a_prefork_server_goes_with_all_its_holders() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let old = sandbox.server(port, &["--prefork", "3"]);
    let workers = old.process().children();
    assert_eq!(workers.len(), 3);
    sandbox.wharf(&["up", "-d", "--force"]).expect(0);
    assert!(old.process().ended());
    assert!(workers.iter().all(Process::ended));
    websocket::connect(port, "/").unwrap();
}

#[test]
fn a_holder_that_ignores_sigterm_is_killed_after_its_grace() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let old = sandbox.server(port, &["--ignore-term"]);
    let up = sandbox.wharf(&["up", "-d", "--force", "-t", "1"]).expect(0);
    assert!(old.process().ended());
    assert!(up.stderr.contains("ignored SIGTERM"), "{up}");
    websocket::connect(port, "/").unwrap();
}

#[test]
fn a_holder_whose_supervisor_restarts_it_goes_with_its_supervisor() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let keeper = sandbox.server(port, &["--respawn"]);
    let finished = sandbox.wharf(&["up", "-d", "--force"]);
    if finished.code() == 0 {
        assert!(keeper.process().ended());
        websocket::connect(port, "/").unwrap();
    } else {
        // Where the supervisor cannot be told from a program with work of its own, the return of the
        // holder is reported once, with its name: before the new server starts, or when that was slower.
        let finished = finished.expect(1);
        let returned = ["is taken again", "is taken, by"];
        let is_told = returned.iter().any(|words| finished.stderr.contains(words));
        assert!(is_told, "{finished}");
        let hint = format!("stop what keeps it: kill {}", keeper.pid());
        assert!(finished.stderr.contains(&hint), "{finished}");
        keeper.signal(Signal::TERM);
        drop(keeper.wait());
    }
}

#[test]
fn a_client_whose_own_port_it_is_is_left_alone() {
    let sandbox = Sandbox::new();
    let (port, far) = (free_port(), free_port());
    project(&sandbox, port);
    // A connection from 127.0.0.1:port to somewhere else: nobody listens on the port.
    let listener = TcpListener::bind(("127.0.0.1", far)).unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 2], port)).into())
        .unwrap();
    socket
        .connect(&std::net::SocketAddr::from(([127, 0, 0, 1], far)).into())
        .unwrap();
    let client: TcpStream = socket.into();
    let up = sandbox.wharf(&["up", "-d", "--force"]).expect(0);
    assert!(!up.stderr.contains("stopped "), "{up}");
    let (_accepted, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    assert!(client.peer_addr().is_ok());
    websocket::connect(port, "/").unwrap();
}

#[test]
fn a_listener_on_another_address_is_no_conflict() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let other = sandbox.server(port, &["--host", "127.0.0.2"]);
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(!other.process().ended());
    websocket::connect(port, "/").unwrap();
}

#[test]
fn move_takes_the_next_free_port_and_tells_the_process() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let old = sandbox.server(port, &[]);
    let up = sandbox
        .wharf(&["up", "-d", "--on-conflict", "move"])
        .expect(0);
    assert!(!old.process().ended());
    let row = sandbox
        .wharf(&["ps", "--format", "json"])
        .expect(0)
        .json_lines()
        .remove(0);
    let moved = u16::try_from(row["Publishers"][0]["PublishedPort"].as_u64().unwrap()).unwrap();
    assert!(moved > port, "{row}");
    assert!(
        up.stderr.contains(&format!("ws://127.0.0.1:{moved}/")),
        "{up}"
    );
    websocket::connect(moved, "/").unwrap();
}

#[test]
fn a_dry_run_prints_the_plan_and_does_nothing() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let old = sandbox.server(port, &[]);
    let plan = sandbox.wharf(&["up", "--dry-run", "--force"]).expect(0);
    for text in [
        "create",
        "stop python3",
        "start",
        "--on-conflict replace",
        "WebSocket handshake",
    ] {
        assert!(plan.stdout.contains(text), "no `{text}` in {plan}");
    }
    assert!(!old.process().ended());
    assert_eq!(sandbox.wharf(&["ps", "-a", "-q"]).expect(0).stdout, "");
}

#[test]
fn an_earlier_instance_of_the_project_is_replaced_without_a_question() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let pid = |sandbox: &Sandbox| {
        sandbox
            .wharf(&["ps", "--format", "json"])
            .expect(0)
            .json_lines()[0]["Pid"]
            .as_u64()
            .unwrap()
    };
    let before = pid(&sandbox);
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(pid(&sandbox), before, "nothing changed, so it is kept");
    let process = Process::open(u32::try_from(before).unwrap()).unwrap();
    project_with(&sandbox, port, &["--delay", "10"]);
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(process.ended());
    assert_ne!(pid(&sandbox), before);
    websocket::connect(port, "/").unwrap();
}

#[test]
fn on_a_terminal_a_person_is_asked_and_replaces() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let old = sandbox.server(port, &[]);
    let mut terminal = sandbox.terminal(&["up", "-d"]);
    let screen = terminal.wait_for("your choice");
    for text in [
        "ws_server.py",
        &format!("pid {}", old.pid()),
        "eplace",
        "ove: use port",
        "bort",
    ] {
        assert!(screen.contains(text), "no `{text}` in {screen}");
    }
    assert!(!old.process().ended());
    terminal.type_text("r\n");
    terminal.wait().expect(0);
    assert!(old.process().ended());
    websocket::connect(port, "/").unwrap();
}

#[test]
fn on_a_terminal_a_person_may_abort_or_move() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let old = sandbox.server(port, &[]);
    let mut terminal = sandbox.terminal(&["up", "-d"]);
    terminal.wait_for("your choice");
    terminal.type_text("nonsense\n");
    terminal.wait_for("not an answer");
    terminal.type_text("a\n");
    let aborted = terminal.wait().expect(130);
    assert!(aborted.stdout.contains("nothing was changed"), "{aborted}");
    assert_eq!(sandbox.wharf(&["ps", "-a", "-q"]).expect(0).stdout, "");
    let mut terminal = sandbox.terminal(&["up", "-d"]);
    terminal.wait_for("your choice");
    terminal.type_text("move\n");
    terminal.wait().expect(0);
    assert!(!old.process().ended());
}

#[test]
fn the_compose_file_may_forbid_to_ask() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let old = sandbox.server(port, &[]);
    let refused = sandbox
        .wharf(&["up", "-d", "--on-conflict", "fail"])
        .expect(5);
    assert!(refused.stderr.contains("--on-conflict fail"), "{refused}");
    assert!(!old.process().ended());
}

#[test]
fn a_protected_holder_survives_force() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    // The holder is an ancestor of wharf: a shell script that listens and calls it.
    let program = format!(
        "import socket,subprocess,sys\ns=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         s.bind(('127.0.0.1', {port})); s.listen()\nsys.exit(subprocess.call(['wharf','up','-d','--force']))"
    );
    let refused = sandbox
        .program("python3", &["-c", &program])
        .wait()
        .expect(5);
    assert!(refused.stderr.contains("will not stop it"), "{refused}");
}

#[test]
fn a_container_is_stopped_by_its_engine() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let port = free_port();
    project(&sandbox, port);
    let publish = format!("{port}:80");
    let holder = engine.run(&["--publish", &publish], &["httpd", "-f", "-p", "80"]);
    eventually("the container is published", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let refused = sandbox.wharf(&["up", "-d"]).expect(5);
    assert!(refused.stderr.contains("container "), "{refused}");
    assert!(refused.stderr.contains(&holder.id[..12]), "{refused}");
    assert!(holder.runs());
    sandbox.wharf(&["up", "-d", "--force"]).expect(0);
    assert!(!holder.runs());
    websocket::connect(port, "/").unwrap();
}

#[test]
fn a_container_on_another_address_is_no_conflict() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let port = free_port();
    project(&sandbox, port);
    let publish = format!("127.0.0.2:{port}:80");
    let other = engine.run(&["--publish", &publish], &["httpd", "-f", "-p", "80"]);
    sandbox.wharf(&["up", "-d", "--force"]).expect(0);
    assert!(other.runs());
    websocket::connect(port, "/").unwrap();
}

#[test]
fn a_server_that_does_not_listen_where_it_was_moved_to_fails_up() {
    let sandbox = Sandbox::new();
    let port = free_port();
    // It knows its port by itself, and declares no protocol that would be waited for.
    let server = ws_server();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  ws:\n    ports: ['127.0.0.1:{port}:{port}']\n    x-wharf: {{process: {{command: [python3, '{server}', --port, '{port}']}}}}\n"
        ),
    );
    let old = sandbox.server(port, &[]);
    let up = sandbox
        .wharf(&["up", "-d", "--on-conflict", "move"])
        .expect(1);
    assert!(up.stderr.contains("in use"), "{up}");
    assert!(!old.process().ended());
    let up = sandbox.wharf(&["down"]).expect(0);
    assert!(!old.process().ended(), "{up}");
    let up = sandbox.wharf(&["up", "-d", "--force"]).expect(0);
    assert!(old.process().ended(), "{up}");
}
