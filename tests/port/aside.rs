//! What a person has opened from a server and goes on using lives on; what serves the server ends with it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::pty::openpty;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use wharf::port::release::{await_free, consequences, stop_process};

use super::stage::{Actor, claim, free_port, holders, is_alive, script};

/// Long enough that no test passes by waiting it out.
const LONG: Duration = Duration::from_mins(1);

/// A process in a session of its own: it ends with the test, however that ends.
struct Apart(OwnedFd);

impl Apart {
    fn of(pid: u32) -> Self {
        let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        Self(pidfd_open(pid, PidfdFlags::empty()).unwrap())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _gone = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// Stops the server that has started `command` in a session of its own; whether that lives, and what was said.
fn lives_on(terminal: &str, program: &str, command: &[&str]) -> (bool, Vec<String>) {
    let port = free_port();
    let text = port.to_string();
    let wanted = claim(port, &["127.0.0.1"]);
    let words = ["opened", "127.0.0.1", &text, terminal, program];
    let server = Actor::play(&[&words, command].concat());
    let apart = server.words[0];
    let _ended = Apart::of(apart);
    let found = holders(&wanted);
    let said = consequences(&found, &wanted);
    assert!(said[0].contains(&format!("(pid {apart})")), "{said:?}");
    let stopped = stop_process(&found[0], &wanted, LONG).unwrap();
    await_free(&wanted, &found, LONG).unwrap();
    let lives = is_alive(apart);
    assert_eq!(stopped.pids.contains(&apart), !lives, "{command:?}");
    (lives, said)
}

#[test]
fn a_browser_that_a_server_has_opened_lives_on() {
    for (name, option, is_used) in [
        ("firefox", "http://localhost:8003", true),
        ("chrome", "http://localhost:8003", true),
        ("xdg-open", "http://localhost:8003", true),
        // Started by a program for a test: it is driven, and nobody has a tab in it.
        ("chrome", "--headless", false),
        ("worker", "", false),
    ] {
        let script = script();
        let command = [name, &script, "idle", option];
        let (lives, said) = lives_on("-", "perl", &command);
        assert_eq!(lives, is_used, "{command:?}");
        let words = if is_used {
            "what is not stopped with it: perl"
        } else {
            "what it has started ends with it: perl"
        };
        assert!(said[0].starts_with(words), "{said:?}");
    }
}

#[test]
fn what_a_watcher_has_opened_is_no_program_of_its() {
    for (opened, is_opened) in [("firefox", true), ("code", true), ("worker", false)] {
        let port = free_port();
        let text = port.to_string();
        let wanted = claim(port, &["127.0.0.1"]);
        let words = ["opens", "127.0.0.1", &text, "nodemon", opened];
        let mut keeper = Actor::play(&words);
        let apart = keeper.words[0];
        let _ended = Apart::of(apart);
        keeper.hear();
        let found = holders(&wanted);
        let said = consequences(&found, &wanted);
        let stopped = stop_process(&found[0], &wanted, LONG).unwrap();
        let is_first = stopped.pids.first() == Some(&keeper.pid());
        assert_eq!(is_first, is_opened, "{opened}: {said:?}");
        assert!(is_alive(apart), "{opened}");
        if is_opened {
            await_free(&wanted, &found, LONG).unwrap();
            let lives = format!("what is not stopped with it: perl (pid {apart})");
            assert!(said.contains(&lives), "{said:?}");
        }
    }
}

#[test]
fn a_shell_on_a_terminal_of_its_own_lives_on() {
    for (command, is_used) in [
        (&["sh", "-i"][..], true),
        (&["sh", "-c", "sleep 600; true"], false),
    ] {
        let terminal = openpty(None, None).unwrap();
        let name = nix::unistd::ttyname(&terminal.slave).unwrap();
        let (lives, said) = lives_on(name.to_str().unwrap(), "sh", command);
        assert_eq!(lives, is_used, "{command:?} {said:?}");
    }
}

#[test]
fn a_shell_whose_terminal_the_server_keeps_is_hung_up_and_that_is_said() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let words = [
        "-c",
        "import pty,socket,sys,time
s=socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen()
pid,end=pty.fork()
if not pid: s.close(); import os; os.execvp('sh', ['sh', '-i'])
import os; os.read(end, 1); print('ready', pid, flush=True); time.sleep(600)",
        &port.to_string(),
    ];
    let server = Actor::start_apart("python3", &words);
    let said = consequences(&holders(&wanted), &wanted);
    let words = format!(
        "what loses its terminal with it: sh (pid {})",
        server.words[0]
    );
    assert_eq!(said, [words]);
}
