//! Holders that are started again after their port was released.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use wharf::port::PortError;
use wharf::port::claim::Claim;
use wharf::port::comeback::{Moment, watch};
use wharf::port::holder::Holder;
use wharf::port::owner::process_facts;
use wharf::port::release::{await_free, consequences, is_free, stop_process};

use super::stage::{Actor, claim, facts, free_port, holders, is_alive, pids, script};

/// Long enough that no test passes by waiting it out.
const LONG: Duration = Duration::from_mins(1);

/// Stops the holders and watches the port: what became of it, and what was said while it was waited for.
fn release(wanted: &Claim, found: &[Holder]) -> (Result<(), PortError>, Option<String>) {
    let since = Moment::now();
    for holder in found {
        stop_process(holder, wanted, LONG).unwrap();
    }
    // A loop without a pause is there before the port was free.
    if let Err(error) = await_free(wanted, found, LONG) {
        return (Err(error), None);
    }
    let mut said = None;
    let result = watch(wanted, found, &[], since, |text| {
        said = Some(text.to_owned());
    });
    (result, said)
}

#[test]
fn a_supervisor_that_waits_a_second_is_named() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut keeper = Actor::play(&["backoff", "127.0.0.1", &port.to_string(), "1"]);
    let found = holders(&wanted);
    let (result, said) = release(&wanted, &found);
    let Err(PortError::TakenAgain { who, hint, .. }) = result else {
        panic!("{result:?}");
    };
    let second = keeper.hear().first().copied().unwrap();
    assert!(who.contains(&format!("pid {second},")), "{who}");
    assert!(who.contains(&format!("pid {},", keeper.pid())), "{who}");
    assert!(who.contains("kept running by"), "{who}");
    let stop = format!("stop what keeps it: kill {}", keeper.pid());
    assert!(hint.is_some_and(|hint| hint.ends_with(&stop)));
    assert!(said.is_some_and(|said| said.contains(&keeper.pid().to_string())));
    // Reported, and neither hunted nor waited for.
    assert!(is_alive(second) && keeper.is_alive());
}

#[test]
fn a_loop_in_any_language_is_met_once_and_named_and_nothing_but_the_server_is_stopped() {
    let loops = [
        (
            "python3",
            "import subprocess, sys
while True: subprocess.run(sys.argv[1:])",
        ),
        ("perl", "while (1) { system(@ARGV); }"),
    ];
    for (program, text) in loops {
        let port = free_port();
        let wanted = claim(port, &["127.0.0.1"]);
        let option = if program == "perl" { "-e" } else { "-c" };
        let server = ["perl", &script(), "serve", "127.0.0.1", &port.to_string()];
        let words = [&[option, text][..], &server].concat();
        let mut keeper = Actor::start_apart(program, &words);
        let found = holders(&wanted);
        let (result, _) = release(&wanted, &found);
        let Err(PortError::TakenAgain { who, hint, .. }) = result else {
            panic!("{program}: {result:?}");
        };
        let kept = format!("kept running by {program} (pid {}", keeper.pid());
        assert!(who.contains(&kept), "{who}");
        let stop = format!("stop what keeps it: kill {}", keeper.pid());
        assert_eq!(hint, Some(stop));
        assert!(keeper.is_alive(), "{program}");
    }
}

#[test]
fn nothing_is_waited_for_where_nobody_is_left_to_start_it_again() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let _server = Actor::play(&["serve", "127.0.0.1", &port.to_string()]);
    let (result, said) = release(&wanted, &holders(&wanted));
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(said, None);
    assert!(is_free(&wanted).unwrap());
}

#[test]
fn what_a_supervisor_ends_with_one_of_its_programs_is_said_beforehand() {
    for (name, says) in [("honcho", true), ("keep-it-up", false)] {
        let port = free_port();
        let wanted = claim(port, &["127.0.0.1"]);
        let text = port.to_string();
        let keeper = Actor::play_as(name, &["orchestra", "127.0.0.1", &text, "1"]);
        let [other, server] = keeper.words[..] else {
            panic!("{:?}", keeper.words);
        };
        let found = holders(&wanted);
        assert_eq!(pids(&found), [server]);
        let expected = format!(
            "honcho (pid {}) ends its other programs when one of them has ended: perl (pid {other})",
            keeper.pid()
        );
        assert_eq!(consequences(&found, &wanted).contains(&expected), says);
    }
}

/// A terminal with a shell that reads what is typed, and the first line that is typed there.
fn typed(line: &str) -> Actor {
    let mut command = Command::new("setsid");
    // Neither a prompt nor what was typed comes back.
    let shell = "stty -echo; echo ready; exec bash --norc --noediting -i 2>/dev/null";
    command.args(["script", "-qfc", shell, "/dev/null"]);
    let mut terminal = Actor::start(command);
    terminal.say(line);
    terminal.words = terminal.hear();
    terminal
}

#[test]
fn a_loop_on_a_terminal_is_met_while_a_client_lingers() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let directory = tempfile::tempdir().unwrap();
    let client = directory.path().join("docker");
    fs::write(&client, "#!/bin/sh\necho ready $PPID\nsleep 0.4\n").unwrap();
    fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
    let client = client.display();
    let server = format!("perl {} serve 127.0.0.1 {port}", script());
    let terminal = typed(&format!("while :; do {client}; {server}; done"));
    let shell = process_facts(terminal.words[0]).unwrap();
    // What was there before is told by the clock of the kernel's ticks.
    let uptime = || fs::read("/proc/uptime").unwrap();
    for _ in 0..2 {
        let before = uptime();
        while uptime() == before {}
    }
    let result = watch(&wanted, &[], &[shell], Moment::now(), |_| {});
    assert!(
        matches!(result, Err(PortError::TakenAgain { .. })),
        "{result:?}"
    );
}

#[test]
fn a_shell_at_its_prompt_is_not_waited_for() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut terminal = typed(&format!("perl {} serve 127.0.0.1 {port}", script()));
    let (result, said) = release(&wanted, &holders(&wanted));
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(said, None);
    assert!(terminal.is_alive());
}

#[test]
fn a_watchdog_that_is_no_ancestor_is_met_and_its_session_named() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let (script, text) = (script(), port.to_string());
    let words = [script.as_str(), "watchdog", "127.0.0.1", text.as_str()];
    let mut watchdog = Actor::start_apart("perl", &words);
    let found = holders(&wanted);
    let first = watchdog.words.first().copied().unwrap();
    assert_eq!(pids(&found), [first]);
    let parent = facts(found.first().unwrap()).unwrap().ancestors.first();
    if parent.is_none_or(|(pid, _)| *pid != 1) {
        println!("skipped: orphans do not become children of the first process here");
        return;
    }
    let (result, _) = release(&wanted, &found);
    let Err(PortError::TakenAgain { who, hint, .. }) = result else {
        panic!("{result:?}");
    };
    let second = watchdog.hear().first().copied().unwrap();
    assert!(who.contains(&format!("pid {second},")), "{who}");
    assert!(who.contains("it is the command that was stopped"), "{who}");
    let hint = hint.unwrap_or_default();
    assert!(hint.contains(&format!("pid {},", watchdog.pid())), "{hint}");
    assert!(is_alive(second) && watchdog.is_alive());
}

/// A process that looks as a forwarder of wharf's does.
fn forwarder(directory: &Path, port: u16) -> Actor {
    let perl = ["/usr/bin/perl", "/bin/perl"];
    let perl = perl.into_iter().find(|path| Path::new(path).exists());
    let program = directory.join("wharf");
    fs::copy(perl.unwrap(), &program).unwrap();
    fs::copy(script(), directory.join("forward")).unwrap();
    let mut command = Command::new(&program);
    command
        .args(["forward", "serve", "127.0.0.1", &port.to_string()])
        .current_dir(directory);
    Actor::start(command)
}

#[test]
fn a_forwarder_that_closes_by_itself_is_no_comeback() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let door = forwarder(directory.path(), port);
    // One that stays is told as anybody is.
    let error = await_free(&wanted, &[], Duration::ZERO).unwrap_err();
    assert!(
        matches!(&error, PortError::TakenAgain { who, .. } if who.contains("wharf (pid")),
        "{error:?}"
    );
    let (asked, begun) = (wanted.clone(), Arc::new(Barrier::new(2)));
    let there = Arc::clone(&begun);
    let waiting = std::thread::spawn(move || {
        there.wait();
        await_free(&asked, &[], LONG)
    });
    begun.wait();
    drop(door);
    waiting.join().unwrap().unwrap();
}
