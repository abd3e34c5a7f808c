//! The harness itself: a test that looks at the world through it needs it to tell the truth.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    Process, Sandbox, eventually, free_port, is_free, python, require_engine, websocket, ws_server,
};

#[test]
fn free_ports_differ_and_are_free() {
    let (one, other) = (free_port(), free_port());
    assert_ne!(one, other);
    let sandbox = Sandbox::new();
    let server = sandbox.server(one, &[]);
    assert!(!is_free(one) && is_free(other));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), 0);
    assert!(is_free(one));
}

#[test]
fn the_python_server_speaks_websocket() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let _server = sandbox.server(port, &[]);
    let mut connection = websocket::connect(port, "/any").unwrap();
    for text in ["", "häfen", &"x".repeat(70_000)] {
        assert_eq!(websocket::ask(&mut connection, text), text);
    }
    connection.close(None).unwrap();
    assert_eq!(websocket::close_code(&mut connection), None);
}

#[test]
fn a_prefork_server_has_children_that_hold_the_port_and_end_with_it() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let server = sandbox.server(port, &["--prefork", "3"]);
    let children = server.process().children();
    assert_eq!(children.len(), 3);
    websocket::connect(port, "/").unwrap();
    server.signal(Signal::TERM);
    children.iter().for_each(Process::wait_end);
}

#[test]
fn a_respawning_server_comes_back() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let keeper = sandbox.server(port, &["--respawn"]);
    let first = keeper.process().children().remove(0);
    first.signal(Signal::KILL);
    first.wait_end();
    eventually("another server answers", || {
        websocket::connect(port, "/").ok()
    });
    keeper.signal(Signal::TERM);
    assert_eq!(keeper.wait().code(), 0);
}

#[test]
fn a_server_may_ignore_sigterm() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let server = sandbox.server(port, &["--ignore-term"]);
    server.signal(Signal::TERM);
    // A signal is taken before the program goes on: what answers now has survived it.
    let mut connection = websocket::connect(port, "/").unwrap();
    assert_eq!(
        websocket::ask(&mut connection, "still there?"),
        "still there?"
    );
    assert!(!server.process().ended());
}

#[test]
fn a_mute_server_accepts_and_never_answers() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let _server = sandbox.server(port, &["--mute"]);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    assert_eq!(
        stream.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn output_is_compared_without_what_changes() {
    let mut sandbox = Sandbox::new();
    sandbox
        .set("GREETING", "good morning")
        .write("a/b.txt", "text\n");
    let script = "cat a/b.txt; pwd; echo '{\"a\": 1}' > j; echo \"$GREETING $WHARF_TEST_SANDBOX\" >&2; exit 7";
    let finished = sandbox.program("sh", &["-c", script]).wait();
    assert!(finished.stdout.contains(sandbox.path().to_str().unwrap()));
    assert!(finished.stderr.contains(sandbox.project()));
    finished
        .expect_exactly(7, "text\n[DIR]\n", "good morning [PROJECT]\n")
        .expect_text("good")
        .expect(7);
    let json = sandbox.program("cat", &["j"]).wait().json_lines();
    assert_eq!(json[0]["a"], 1);
}

#[test]
fn a_death_by_signal_has_the_shells_code() {
    let sandbox = Sandbox::new();
    let sleeper = sandbox.program("sleep", &["600"]);
    assert_eq!(
        Process::open(sleeper.pid()).unwrap().command_line(),
        "sleep 600"
    );
    sleeper.signal(Signal::TERM);
    assert_eq!(sleeper.wait().code(), 143);
}

#[test]
fn a_terminal_shows_questions_and_takes_answers() {
    let sandbox = Sandbox::new();
    let script = "import os, sys\n\
                  assert os.isatty(0) and os.isatty(2) and open('/dev/tty')\n\
                  print('\\x1b[1mreally?\\x1b[0m', end=' ', flush=True)\n\
                  print('got ' + input())\n\
                  print('columns', os.get_terminal_size().columns)";
    let path = sandbox.write("ask.py", script);
    let mut terminal = sandbox.on_terminal(python(), &[path.to_str().unwrap()]);
    assert_eq!(terminal.wait_for("? "), "really? ");
    assert!(!terminal.process().ended());
    terminal.type_text("yes\n");
    let finished = terminal.wait().expect(0);
    assert!(
        finished.stdout.ends_with("got yes\ncolumns 120\n"),
        "{finished}"
    );

    // Not Python: its own handler notes a signal and looks for the note before it reads, so one
    // that comes between the two leaves it waiting.
    let mut terminal = sandbox.on_terminal("sh", &["-c", "printf 'really? '; read answer"]);
    terminal.wait_for("? ");
    terminal.type_text("\x03");
    assert_eq!(terminal.wait().code(), 130);
}

#[test]
fn what_is_left_behind_is_found() {
    let sandbox = Sandbox::new();
    let script = "setsid sleep 600 >/dev/null 2>&1 & echo $!";
    let pid = sandbox
        .program("sh", &["-c", script])
        .wait()
        .expect(0)
        .stdout
        .trim()
        .parse()
        .unwrap();
    let orphan = Process::open(pid).unwrap();
    assert!(
        sandbox
            .processes()
            .iter()
            .any(|process| process.pid() == orphan.pid())
    );
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(sandbox))).unwrap_err();
    let message = end.downcast_ref::<String>().unwrap();
    assert!(
        message.contains(&format!("process {pid}: sleep 600")),
        "{message}"
    );
    orphan.wait_end();
}

#[test]
fn wharf_itself_runs_in_the_sandbox() {
    let sandbox = Sandbox::new();
    sandbox.wharf(&["--version"]).expect(0);
    sandbox.spawn(&["--version"]).wait().expect(0);
    sandbox.terminal(&["--version"]).wait().expect(0);
}

#[test]
fn the_engine_runs_busybox_and_publishes_ports() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let port = free_port();
    let label = format!("com.docker.compose.project={}", sandbox.project());
    let publish = format!("127.0.0.1:{port}:80");
    let container = engine.run(
        &["--label", &label, "--publish", &publish],
        &["httpd", "-f", "-p", "80"],
    );
    assert!(container.runs());
    assert!(
        container
            .id
            .starts_with(&engine.of_project("container", sandbox.project())[0])
    );
    eventually("httpd answers", || {
        let why = websocket::connect(port, "/").unwrap_err();
        why.contains("404").then_some(())
    });
    engine.ask(&["kill", &container.id]);
    container.wait_end();
    drop(container);
    assert_eq!(
        engine.of_project("container", sandbox.project()),
        Vec::<String>::new()
    );
}

#[test]
fn a_slow_server_is_waited_for_by_its_line() {
    let sandbox = Sandbox::new();
    let port = free_port().to_string();
    let server = sandbox.program(python(), &[ws_server(), "--port", &port, "--delay", "200"]);
    let line = server.wait_for_line("listening on ");
    assert_eq!(
        line,
        format!("listening on 127.0.0.1:{port}, pid {}", server.pid())
    );
}
