//! A holder that another process traces: a debugger has a person in front of it, and gets its signals first.

use std::process::Command;
use std::time::Duration;

use wharf::port::release::{await_free, consequences, stop_process};

use super::stage::{Actor, claim, facts, free_port, holders};

/// Long enough that no test passes by waiting it out.
const LONG: Duration = Duration::from_mins(1);

/// What every tracer here begins with.
const PRELUDE: &str = "import ctypes, os, signal, socket, sys, threading, time
c = ctypes.CDLL(None)
c.ptrace.argtypes = [ctypes.c_long] * 4
c.prctl.argtypes = [ctypes.c_int] + [ctypes.c_char_p] + [ctypes.c_long] * 3
";

/// Starts a tracer, and waits until it is ready.
fn play(script: &str, arguments: &[&str]) -> Actor {
    let mut command = Command::new("python3");
    command.args(["-c", &format!("{PRELUDE}{script}")]);
    command.args(arguments);
    Actor::start(command)
}

/// A tracer of this name with a server below it; one that `passes` signals on, or keeps them.
fn trace(name: &str, passes: bool, port: u16) -> Actor {
    let text = "name, passes, port = sys.argv[1], sys.argv[2] == 'true', int(sys.argv[3])
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
    play(text, &[name, &passes.to_string(), &port.to_string()])
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
    let reason = format!("gdb (pid {}) kept the signal from it", debugger.pid());
    let late = stopped.late.unwrap();
    assert_eq!((late.reason, late.others), (reason, Vec::new()));
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
    assert_eq!(stopped.late, None);
}

/// A debugger of a server with two threads, which it does not reap.
const OF_THREADS: &str = "port = int(sys.argv[1])
server = os.fork()
if not server:
    c.ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('127.0.0.1', port)); s.listen()
    def second():
        print('ready', os.getpid(), flush=True)
        while True: time.sleep(600)
    threading.Thread(target=second).start()
    while True: time.sleep(600)
c.prctl(15, b'gdb', 0, 0, 0)
# The stop, the thread as the parent and as the child sees it (in either order).
for _ in range(3):
    pid, status = os.waitpid(-1, 0x40000000)
    c.ptrace(0x4200, pid, 0, 8)
    c.ptrace(7, pid, 0, 0)
while True: time.sleep(600)
";

#[test]
fn a_server_whose_threads_a_debugger_has_not_reaped_is_gone() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut debugger = play(OF_THREADS, &[&port.to_string()]);
    let found = holders(&wanted);
    let stopped = stop_process(&found[0], &wanted, Duration::from_millis(300)).unwrap();
    assert!(stopped.killed);
    await_free(&wanted, &found, LONG).unwrap();
    assert!(debugger.is_alive());
}

/// A debugger beside a server, of what that has started.
const OF_A_WORKER: &str = "port = int(sys.argv[1])
read, write = os.pipe()
if not os.fork():
    worker = os.fork()
    if not worker:
        while True: time.sleep(600)
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('127.0.0.1', port)); s.listen()
    os.write(write, b'%d' % worker)
    while True: time.sleep(600)
worker = int(os.read(read, 20))
c.prctl(15, b'gdb', 0, 0, 0)
c.ptrace(16, worker, 0, 0)
os.waitpid(worker, 0x40000000)
c.ptrace(7, worker, 0, 0)
print('ready', worker, flush=True)
while True: time.sleep(600)
";

#[test]
fn a_worker_in_a_debugger_takes_a_persons_word_and_its_master_is_not_said_to_ignore_signals() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut debugger = play(OF_A_WORKER, &[&port.to_string()]);
    let worker = debugger.words[0];
    let found = holders(&wanted);
    let said = consequences(&found, &wanted);
    let gdb = format!("gdb (pid {})", debugger.pid());
    let words = format!("{gdb} debugs python3 (pid {worker}), which ends with it: ");
    assert!(said[0].starts_with(&words), "{said:?}");
    assert!(found[0].needs_flag());
    assert_eq!(found[0].obstacle(false).as_ref(), said.first());
    assert_eq!(found[0].obstacle(true), None);
    let stopped = stop_process(&found[0], &wanted, Duration::from_millis(300)).unwrap();
    await_free(&wanted, &found, LONG).unwrap();
    let late = stopped.late.unwrap();
    assert_eq!(late.reason, format!("{gdb} kept the signal from it"));
    assert_eq!(late.others, [format!("python3 (pid {worker})")]);
    assert!(debugger.is_alive(), "the debugger itself goes on");
}
