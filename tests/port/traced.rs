//! A holder that another process traces: a debugger has a person in front of it, and gets its signals first.

use std::process::Command;
use std::time::Duration;

use wharf::port::release::{await_free, consequences, stop_process};

use super::stage::{Actor, claim, facts, free_port, holders};

/// Long enough that no test passes by waiting it out.
const LONG: Duration = Duration::from_mins(1);

/// A tracer of this name with a server below it; one that `passes` signals on, or keeps them.
fn trace(name: &str, passes: bool, port: u16) -> Actor {
    let text = "import ctypes, os, signal, socket, sys, time
c = ctypes.CDLL(None)
c.ptrace.argtypes = [ctypes.c_long] * 4
c.prctl.argtypes = [ctypes.c_int] + [ctypes.c_char_p] + [ctypes.c_long] * 3
name, passes, port = sys.argv[1], sys.argv[2] == 'true', int(sys.argv[3])
server = os.fork()
if not server:
    c.ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('127.0.0.1', port)); s.listen()
    print('ready', os.getpid(), flush=True)
    while True: time.sleep(600)
c.prctl(15, name.encode(), 0, 0, 0)
while True:
    _, status = os.waitpid(server, 0)
    if not os.WIFSTOPPED(status): break
    kind = os.WSTOPSIG(status)
    if kind == signal.SIGSTOP: c.ptrace(7, server, 0, 0)
    elif passes: c.ptrace(7, server, 0, kind)
while True: time.sleep(600)
";
    let mut command = Command::new("python3");
    let passes = passes.to_string();
    command.args(["-c", text, name, &passes, &port.to_string()]);
    Actor::start(command)
}

#[test]
fn a_server_in_a_debugger_takes_a_persons_word_and_is_not_said_to_ignore_signals() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut debugger = trace("gdb", false, port);
    let found = holders(&wanted);
    let tracer = facts(&found[0]).unwrap().tracer.clone().unwrap();
    assert_eq!((&*tracer.name, tracer.pid), ("gdb", debugger.pid()));
    let said = consequences(&found, &wanted);
    let words = format!("gdb (pid {}) debugs it: ", debugger.pid());
    assert!(said[0].starts_with(&words), "{said:?}");
    assert_eq!(found[0].obstacle(false).as_ref(), said.first());
    assert_eq!(found[0].obstacle(true), None);
    let stopped = stop_process(&found[0], &wanted, Duration::from_millis(300)).unwrap();
    await_free(&wanted, &found, LONG).unwrap();
    assert!(stopped.killed);
    let held_by = format!("gdb (pid {})", debugger.pid());
    assert_eq!(stopped.held_by, Some(held_by));
    assert!(debugger.is_alive(), "the debugger itself goes on");
}

#[test]
fn who_only_looks_on_is_in_nobodys_way() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let tracer = trace("strace", true, port);
    let found = holders(&wanted);
    let said = consequences(&found, &wanted);
    let words = format!(
        "strace (pid {}) traces it and lets signals through",
        tracer.pid()
    );
    assert_eq!(said, [words]);
    assert_eq!(found[0].obstacle(false), None);
    let stopped = stop_process(&found[0], &wanted, LONG).unwrap();
    await_free(&wanted, &found, LONG).unwrap();
    assert!(!stopped.killed);
    assert_eq!(stopped.held_by, None);
}
