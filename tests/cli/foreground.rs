//! `up` in the foreground: lines with names, Ctrl-C, and nothing left behind.

use rustix::process::Signal;

use crate::support::{Sandbox, eventually, free_port, is_free};

/// A server whose grandchild ignores SIGTERM and whose great-grandchild left its session.
const FAMILY: &str = "
import os, signal, subprocess, sys, time
subprocess.Popen(['sh', '-c', 'trap \"\" TERM; while :; do sleep 1; done'])
subprocess.Popen(['setsid', '-f', 'sleep', '600'])
print('family is up', flush=True)
print('an error', file=sys.stderr, flush=True)
signal.signal(signal.SIGTERM, lambda *_: (print('goodbye', flush=True), sys.exit(0)))
while True:
    time.sleep(600)
";

fn family(sandbox: &Sandbox) {
    sandbox.write("family.py", FAMILY);
    sandbox.write(
        "compose.yaml",
        "services:\n  family:\n    stop_grace_period: 1s\n    x-wharf: {process: {command: [python3, family.py]}}\n",
    );
}

#[test]
fn the_first_interrupt_stops_gracefully_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    family(&sandbox);
    let up = sandbox.spawn(&["up"]);
    assert_eq!(up.wait_for_line("family is up"), "family-1  | family is up");
    up.wait_for_line("an error");
    up.signal(Signal::INT);
    let finished = up.wait().expect(130);
    assert!(
        finished.stdout.contains("family-1  | goodbye\n"),
        "{finished}"
    );
    assert!(
        finished.stderr.contains("family-1  | an error\n"),
        "{finished}"
    );
    sandbox.until_nothing_runs();
}

#[test]
fn the_second_interrupt_kills() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  stubborn:\n    stop_grace_period: 10m\n    x-wharf: {process: {command: [sh, -c, 'trap \"\" TERM; echo up; while :; do sleep 1; done']}}\n",
    );
    let up = sandbox.spawn(&["up"]);
    up.wait_for_line("| up");
    up.signal(Signal::INT);
    up.wait_for_line("again to kill");
    up.signal(Signal::INT);
    up.wait().expect(130);
    sandbox.until_nothing_runs();
}

#[test]
fn ctrl_c_on_a_terminal_reaches_wharf_alone() {
    let sandbox = Sandbox::new();
    let port = free_port();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  ws:\n    ports: [{{target: 8003, published: '{port}', host_ip: 127.0.0.1, app_protocol: ws}}]\n    \
             x-wharf: {{process: {{command: [wharf, serve]}}, ready: {{path: /ws}}}}\n"
        ),
    );
    let mut terminal = sandbox.terminal(&["up"]);
    terminal.wait_for("is ready");
    terminal.type_text("\x03");
    let finished = terminal.wait().expect(130);
    assert!(
        finished.stdout.contains("ws-1 exited with code 0"),
        "{finished}"
    );
    assert!(is_free(port));
}

#[test]
fn up_ends_when_everything_ended() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  once:\n    x-wharf: {process: {command: [sh, -c, 'echo done; exit 4']}}\n",
    );
    let finished = sandbox.wharf(&["up"]).expect(0);
    assert!(finished.stdout.contains("once-1  | done\n"), "{finished}");
    assert!(
        finished.stdout.starts_with("Attaching to once-1\n")
            && finished.stdout.contains("once-1 exited with code 4\n"),
        "{finished}"
    );
    sandbox.wharf(&["up", "--exit-code-from", "once"]).expect(4);
}

#[test]
fn an_end_that_the_restart_policy_answers_is_told_as_such() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  bad:\n    deploy: {restart_policy: {condition: on-failure, max_attempts: 1, delay: 500ms}}\n    \
         x-wharf: {process: {command: [sh, -c, 'echo up; exit 3']}}\n",
    );
    let up = sandbox.spawn(&["up"]);
    up.wait_for_line("bad-1 exited with code 3 (restarting)");
    let up = up.wait().expect(0);
    let ends: Vec<&str> = up
        .stdout
        .lines()
        .filter(|line| line.contains("exited"))
        .collect();
    assert_eq!(
        ends,
        [
            "bad-1 exited with code 3 (restarting)",
            "bad-1 exited with code 3"
        ]
    );
}

#[test]
fn killing_wharf_itself_leaves_the_service_to_the_next_command() {
    let sandbox = Sandbox::new();
    family(&sandbox);
    let up = sandbox.spawn(&["up"]);
    up.wait_for_line("family is up");
    up.signal(Signal::KILL);
    drop(up.wait());
    let rows = sandbox
        .wharf(&["ps", "--format", "json"])
        .expect(0)
        .json_lines();
    assert_eq!(rows[0]["State"], "running");
    let logs = sandbox.wharf(&["logs"]).expect(0);
    assert_eq!(logs.stdout.matches("family is up").count(), 1, "{logs}");
    sandbox.wharf(&["down"]).expect(0);
    sandbox.until_nothing_runs();
}

#[test]
fn logs_follow_until_the_end() {
    let sandbox = Sandbox::new();
    family(&sandbox);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let logs = sandbox.spawn(&["logs", "-f"]);
    logs.wait_for_line("family is up");
    sandbox.wharf(&["down"]).expect(0);
    let finished = logs.wait().expect(0);
    assert!(finished.stdout.contains("goodbye"), "{finished}");
}

#[test]
fn last_words_are_heard_of_what_is_removed_at_once() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  web: {x-wharf: {process: {command: [sh, -c, \
         'trap \"echo goodbye; exit 3\" TERM; echo here; while :; do sleep 0.1; done']}}}\n",
    );
    for command in [&["scale", "web=0"][..], &["down"], &["rm", "-fs"]] {
        let up = sandbox.spawn(&["up"]);
        up.wait_for_line("web-1  | here");
        let logs = sandbox.spawn(&["logs", "-f"]);
        logs.wait_for_line("web-1  | here");
        // It has given the project's lock away when another one has had it.
        sandbox.wharf(&["up", "-d"]).expect(0);
        // Those who look are late.
        for late in [&up, &logs] {
            late.signal(Signal::STOP);
        }
        sandbox.wharf(command).expect(0);
        for late in [&up, &logs] {
            late.signal(Signal::CONT);
        }
        let (up, logs) = (up.wait().expect(0), logs.wait().expect(0));
        for told in [&up.stdout, &logs.stdout] {
            assert!(told.contains("web-1  | goodbye"), "{command:?}: {up}{logs}");
        }
        for told in [&up.stdout, &logs.stderr] {
            let end = "web-1 exited with code 3";
            assert!(told.contains(end), "{command:?}: {up}{logs}");
        }
    }
}

#[test]
fn an_end_before_the_logs_were_asked_for_is_no_news() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  once: {x-wharf: {process: {command: [sh, -c, 'echo done; exit 4']}}}\n",
    );
    sandbox.wharf(&["up"]).expect(0);
    let logs = sandbox.wharf(&["logs", "-f"]).expect(0);
    assert!(logs.stdout.contains("once-1  | done"), "{logs}");
    assert!(!logs.stderr.contains("exited"), "{logs}");
    let logs = sandbox.wharf(&["logs", "-f", "--since", "1h"]).expect(0);
    assert!(logs.stderr.contains("once-1 exited with code 4"), "{logs}");
}

#[test]
fn what_is_there_is_followed_in_order_of_time() {
    let sandbox = Sandbox::new();
    let says = |numbers: &str| {
        format!(
            "{{x-wharf: {{process: {{command: [sh, -c, 'for n in {numbers}; do until [ -e $$n ]; do sleep 0.02; done; \
             printf \"line $$n\\n$$n\"; done; exec sleep 600']}}}}}}"
        )
    };
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  one: {}\n  two: {}\n",
            says("1 3 5 7"),
            says("2 4 6 8")
        ),
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let go_on = |number: u32| {
        sandbox.write(&number.to_string(), "");
        eventually("the next line is there", || {
            let logs = sandbox.wharf(&["logs", "--no-log-prefix"]).expect(0);
            logs.stdout
                .contains(&format!("line {number}\n"))
                .then_some(())
        });
    };
    (1..=6).for_each(go_on);
    let whole = sandbox.spawn(&["logs", "-f", "--no-log-prefix"]);
    // Of each: a whole one, and the beginning of the next.
    let last = sandbox.spawn(&["logs", "-f", "--no-log-prefix", "--tail", "2"]);
    whole.wait_for_line("line 6");
    last.wait_for_line("line 6");
    (7..=8).for_each(go_on);
    for (logs, from) in [(whole, 1), (last, 5)] {
        logs.wait_for_line("line 8");
        logs.signal(Signal::INT);
        let told = logs.wait().expect(130);
        // What has no line end waits for it.
        let line = |number| match number {
            1 | 2 => format!("line {number}\n"),
            _ => format!("{}line {number}\n", number - 2),
        };
        let expected: Vec<String> = (from..=8).map(line).collect();
        assert_eq!(told.stdout, expected.concat());
    }
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn the_exit_code_of_a_service_counts_that_was_stopped_because_another_ended() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  short: {x-wharf: {process: {command: [sh, -c, 'exit 5']}}}\n  \
         long: {x-wharf: {process: {command: [sh, -c, 'trap \"exit 9\" TERM; while :; do sleep 0.1; done']}}}\n",
    );
    sandbox
        .wharf(&["up", "--exit-code-from", "short"])
        .expect(5);
    let up = sandbox.wharf(&["up", "--exit-code-from", "long"]);
    // 9, or 143 where it was stopped before it had set its trap.
    assert!([9, 143].contains(&up.code()), "{up}");
}

#[test]
fn what_is_just_being_started_when_another_ends_is_heard_too() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:
  short: {x-wharf: {process: {command: [sh, -c, 'exit 5']}}}
  slow:
    post_start: [{command: [sh, -c, 'until [ -e go ]; do sleep 0.1; done']}]
    x-wharf: {process: {command: [sh, -c, 'trap \"exit 9\" TERM; while :; do sleep 0.1; done']}}
",
    );
    let up = sandbox.spawn(&["up", "--exit-code-from", "slow"]);
    up.wait_for_line("short-1 exited with code 5");
    sandbox.write("go", "");
    let up = up.wait();
    // 9, or 143 where it was stopped before it had set its trap.
    assert!([9, 143].contains(&up.code()), "{up}");
    assert!(up.stdout.contains("slow-1 exited with code"), "{up}");
}

#[test]
fn who_is_not_attached_is_not_stayed_for_and_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:
  short: {x-wharf: {process: {command: [sh, -c, 'exit 3']}}}
  long: {attach: false, x-wharf: {process: {command: [sleep, '600']}}}
",
    );
    for arguments in [&["up"][..], &["up", "--attach", "short"]] {
        sandbox.wharf(arguments).expect(0);
        let rows = ["ps", "-a", "--format", "{{.Service}} {{.State}}"];
        let rows = sandbox.wharf(&rows).expect(0);
        assert!(rows.stdout.contains("long running"), "{rows}");
        assert!(rows.stdout.contains("short exited"), "{rows}");
    }
}

#[test]
fn a_service_that_never_ran_has_no_exit_code() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:
  short: {x-wharf: {process: {command: [sh, -c, 'exit 0']}}}
  ill:
    healthcheck: {test: [CMD, 'false'], start_period: 1h}
    x-wharf: {process: {command: [sleep, '600']}}
  tests:
    depends_on: {ill: {condition: service_healthy}}
    x-wharf: {process: {command: ['true']}}
",
    );
    let up = sandbox
        .wharf(&["up", "--exit-code-from", "tests"])
        .expect(1);
    assert!(up.stderr.contains("service `tests` did not run"), "{up}");
    sandbox.until_nothing_runs();
}

#[test]
fn a_service_that_another_command_restarts_is_still_in_the_foreground() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  one:\n    x-wharf: {process: {command: [sh, -c, 'echo x >> runs; echo run $$(wc -l < runs); exec sleep 600']}}\n",
    );
    let up = sandbox.spawn(&["up"]);
    up.wait_for_line("one-1  | run 1");
    sandbox.wharf(&["restart"]).expect(0);
    up.wait_for_line("one-1  | run 2");
    up.signal(Signal::INT);
    up.wait().expect(130);
    sandbox.until_nothing_runs();
}

#[test]
fn output_keeps_its_bytes_and_limits_that_say_nothing_are_none() {
    let sandbox = Sandbox::new();
    let writer = r"{process: {command: [sh, -c, 'printf ''a\r\nb\r\r\nc\r''']}}";
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  pipe: {{x-wharf: {writer}}}\n  term: {{tty: true, x-wharf: {writer}}}\n"
        ),
    );
    let logs = |words: &[&str]| {
        let words = [&["logs", "--no-log-prefix"][..], words].concat();
        sandbox.wharf(&words).expect(0).stdout
    };
    let up = sandbox.wharf(&["up", "--no-log-prefix", "pipe"]).expect(0);
    let written = "a\r\nb\r\r\nc\r\n";
    assert!(up.stdout.contains(written), "{up}");
    assert_eq!(logs(&["pipe"]), written);
    sandbox.wharf(&["up", "term"]).expect(0);
    // A terminal makes two characters of a line end, also of the one that a run without one is given.
    assert_eq!(logs(&["term"]), "a\r\nb\r\r\nc\n");
    for (words, lines) in [
        (["--since", ""], 3),
        (["--until", ""], 3),
        (["--until", "0"], 3),
        (["--until", "1"], 0),
        (["--since", "9999999999"], 0),
        (["--tail", ""], 3),
        (["--tail", "most"], 3),
        (["--tail", "1.5"], 3),
        (["--tail", "2"], 2),
    ] {
        let told = logs(&[words[0], words[1], "pipe"]);
        assert_eq!(told.lines().count(), lines, "{words:?}");
    }
}

#[test]
fn what_goes_to_the_background_is_told_whenever_it_does() {
    let sandbox = Sandbox::new();
    let daemon =
        "setsid sh -c \"touch there; exec sleep 600\" & until [ -e there ]; do sleep 0.01; done";
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  daemon: {{x-wharf: {{process: {{command: [sh, -c, '{daemon}']}}}}}}\n  \
             job: {{x-wharf: {{process: {{command: [sh, -c, 'sleep 600 & exit 0']}}}}}}\n"
        ),
    );
    let told = "daemon-1 has ended with its first process, as a container does, and what that left running was killed (";
    sandbox.wharf(&["up", "-d"]).expect(0);
    eventually("both have ended", || {
        let listed = sandbox.wharf(&["ps", "-q"]).expect(0);
        listed.stdout.is_empty().then_some(())
    });
    for words in [&["logs"][..], &["logs", "-f", "--since", "1h"]] {
        let said = sandbox.wharf(words).expect(0);
        assert!(said.stderr.contains(told), "{said}");
        assert_eq!(said.stderr.matches("first process").count(), 1, "{said}");
    }
}
