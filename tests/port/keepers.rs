//! What is stopped above a holder and beside it, and what is other people's work.

use std::time::Duration;

use wharf::port::claim::Claim;
use wharf::port::holder::Holder;
use wharf::port::release::{await_free, consequences, stop_process};

use super::stage::{Actor, claim, facts, free_port, holders, is_alive, pids, script};

/// Long enough that no test passes by waiting it out.
const LONG: Duration = Duration::from_mins(1);

fn only(claim: &Claim) -> Holder {
    let mut found = holders(claim);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_script_does_what_it_says_after_its_server_whatever_runs_it() {
    for wrapper in [
        &["timeout", "600"][..],
        &["nice", "-n", "5"],
        &["env", "A=1"],
        &["setsid", "--wait"],
        &["stdbuf", "-oL"],
        &["timeout", "600", "timeout", "500"],
    ] {
        let port = free_port();
        let wanted = claim(port, &["127.0.0.1"]);
        let text = format!(
            "perl {} serve 127.0.0.1 {port}; echo ready $$; read line; true",
            script()
        );
        let (program, words) = wrapper.split_first().unwrap();
        let words = [words, &["sh", "-c", &text]].concat();
        let mut shell = Actor::start_apart(program, &words);
        let holder = only(&wanted);
        let server = facts(&holder).unwrap().pid;
        assert!(consequences(std::slice::from_ref(&holder), &wanted).is_empty());
        let stopped = stop_process(&holder, &wanted, LONG).unwrap();
        assert_eq!(stopped.pids, [server], "{wrapper:?}");
        assert_eq!(stopped.supervisor, None, "{wrapper:?}");
        let rest = shell.hear();
        assert!(is_alive(rest[0]), "{wrapper:?}");
    }
}

#[test]
fn who_only_runs_the_server_is_stopped_with_it() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let text = format!("perl {} serve 127.0.0.1 {port} 2>&1; exit", script());
    let mut wrapper = Actor::start_apart("timeout", &["600", "sh", "-c", &text]);
    let said = consequences(&[only(&wanted)], &wanted);
    assert!(said[0].contains("it is there only to run it"), "{said:?}");
    let holder = only(&wanted);
    let stopped = stop_process(&holder, &wanted, LONG).unwrap();
    await_free(&wanted, &[holder], LONG).unwrap();
    assert_eq!(stopped.pids.first(), Some(&wrapper.pid()));
    assert_eq!(stopped.pids.len(), 3);
    assert!(!wrapper.is_alive());
}

#[test]
fn what_a_loop_keeps_beside_its_server_is_work_unless_it_serves_that() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let (script, pipe) = (script(), pipe.display());
    for (before, after, is_work) in [
        // It records what others write.
        (
            format!("mkfifo {pipe}; cat 0<>{pipe} >/dev/null & "),
            "",
            true,
        ),
        (String::new(), " | cat", false),
        ("sleep 600 & ".to_owned(), "", false),
    ] {
        let port = free_port();
        let wanted = claim(port, &["127.0.0.1"]);
        let text =
            format!("{before}while true; do perl {script} serve 127.0.0.1 {port}{after}; done");
        let mut shell = Actor::start_apart("sh", &["-c", &text]);
        let holder = only(&wanted);
        let stopped = stop_process(&holder, &wanted, LONG).unwrap();
        if is_work {
            assert_eq!(stopped.pids, pids(&[holder]), "{text}");
            assert!(shell.is_alive());
        } else {
            assert_eq!(stopped.pids.first(), Some(&shell.pid()), "{text}");
            await_free(&wanted, &[holder], LONG).unwrap();
        }
    }
}

#[test]
fn whatever_a_supervisor_keeps_beside_the_server_is_a_program() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let words = [
        &script(),
        "programs",
        "127.0.0.1",
        &port.to_string(),
        "supervisord",
    ];
    let mut supervisor = Actor::start_apart("perl", &words);
    let holder = only(&wanted);
    let stopped = stop_process(&holder, &wanted, LONG).unwrap();
    assert_eq!(stopped.pids, pids(&[holder]));
    // Its next instance.
    supervisor.hear();
    assert!(supervisor.is_alive());
}
