//! Services as local processes: detached, found again, shown, stopped.

use std::fs;

use rustix::process::Signal;

use crate::support::{Process, Sandbox, eventually, free_port, is_free, websocket};

/// A project with the embedded server.
fn project(sandbox: &Sandbox, port: u16) {
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  ws:\n    ports:\n      - {{target: 8003, published: '{port}', host_ip: 127.0.0.1, app_protocol: ws}}\n    \
             x-wharf: {{process: {{command: [wharf, serve]}}, ready: {{path: /ws}}}}\n"
        ),
    );
}

#[test]
fn up_detached_returns_when_ready_and_the_service_lives_on() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    let up = sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(
        up.stderr.contains(&format!("ws://127.0.0.1:{port}/ws")),
        "{up}"
    );
    let _connection = websocket::connect(port, "/ws").unwrap();
    let row = sandbox
        .wharf(&["ps", "--format", "json"])
        .expect(0)
        .json_lines()
        .remove(0);
    assert_eq!(row["Name"], format!("{}-ws-1", sandbox.project()));
    assert_eq!(row["Service"], "ws");
    assert_eq!(row["Project"], sandbox.project());
    assert_eq!(row["State"], "running");
    assert_eq!(row["Backend"], "process");
    assert_eq!(row["Ready"], true);
    assert_eq!(row["Connections"], 1);
    assert_eq!(row["ExitCode"], 0);
    assert_eq!(row["Publishers"][0]["URL"], "127.0.0.1");
    assert_eq!(row["Publishers"][0]["TargetPort"], 8003);
    assert_eq!(row["Publishers"][0]["PublishedPort"], port);
    assert_eq!(row["Publishers"][0]["Protocol"], "tcp");
    let logs = sandbox.wharf(&["logs"]).expect(0);
    assert!(logs.stdout.contains("listening on"), "{logs}");
    let down = sandbox.wharf(&["down"]).expect(0);
    assert!(is_free(port), "{down}");
    assert!(
        sandbox
            .wharf(&["ps", "-a", "-q"])
            .expect(0)
            .stdout
            .is_empty()
    );
}

/// A parent that ignores SIGCHLD hands that on to what it starts (`execve(2)`).
#[test]
fn exit_codes_are_known_below_a_parent_that_ignores_its_children() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  job: {x-wharf: {process: {command: [sh, -c, 'exit 3']}}}\n",
    );
    let ignoring = "$SIG{CHLD} = 'IGNORE'; exec @ARGV";
    let wharf = env!("CARGO_BIN_EXE_wharf");
    drop(
        sandbox
            .program("perl", &["-e", ignoring, wharf, "up", "-d"])
            .wait()
            .expect(0),
    );
    eventually("the exit code is known", || {
        let listed = sandbox.wharf(&["ps", "-a", "--format", "json"]);
        let row = listed.expect(0).json_lines().pop()?;
        (row["State"] == "exited").then(|| assert_eq!(row["ExitCode"], 3, "{row}"))
    });
    drop(sandbox.wharf(&["down"]).expect(0));
}

#[test]
fn stop_keeps_the_instance_and_start_brings_it_back() {
    let sandbox = Sandbox::new();
    let port = free_port();
    project(&sandbox, port);
    sandbox.wharf(&["up", "-d"]).expect(0);
    sandbox.wharf(&["stop"]).expect(0);
    assert!(is_free(port));
    let row = sandbox
        .wharf(&["ps", "-a", "--format", "json"])
        .expect(0)
        .json_lines()
        .remove(0);
    assert_eq!(row["State"], "exited");
    assert_eq!(
        row["ExitCode"], 0,
        "the embedded server ends cleanly on SIGTERM"
    );
    assert_eq!(row["Publishers"], serde_json::json!([]), "nothing has them");
    sandbox.wharf(&["start"]).expect(0);
    websocket::connect(port, "/ws").unwrap();
    sandbox.wharf(&["restart"]).expect(0);
    websocket::connect(port, "/ws").unwrap();
}

#[test]
fn a_killed_supervisor_loses_neither_the_service_nor_its_output() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  count:\n    x-wharf:\n      process:\n        command: [python3, -c, \"import os, time\\ni=0\\nwhile True:\\n  os.write(1, b'line %d\\\\n' % i); i+=1; time.sleep(0.01)\"]\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let row = sandbox
        .wharf(&["ps", "--format", "json"])
        .expect(0)
        .json_lines()
        .remove(0);
    let pid = u32::try_from(row["Pid"].as_u64().unwrap()).unwrap();
    let supervisor = sandbox
        .processes()
        .into_iter()
        .find(|process| process.command_line().contains(" supervise "))
        .expect("a supervisor");
    eventually("some output", || {
        let logs = sandbox.wharf(&["logs", "--no-log-prefix"]).expect(0);
        logs.stdout.contains("line 20\n").then_some(())
    });
    supervisor.signal(Signal::KILL);
    supervisor.wait_end();
    let process = Process::open(pid).expect("the service lives");
    sandbox.wharf(&["stop"]).expect(0);
    assert!(process.ended());
    let logs = sandbox.wharf(&["logs", "--no-log-prefix"]).expect(0).stdout;
    let expected: Vec<String> = (0..logs.lines().count())
        .map(|i| format!("line {i}"))
        .collect();
    let logs: Vec<&str> = logs.lines().collect();
    assert_eq!(logs, expected, "no line is missing and none is repeated");
}

#[test]
fn a_server_that_exits_fails_up_with_its_last_lines() {
    let sandbox = Sandbox::new();
    let port = free_port();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  ws:\n    ports: [{{target: 1, published: '{port}', app_protocol: ws}}]\n    \
             x-wharf: {{process: {{command: [sh, -c, 'echo no database >&2; exit 3']}}}}\n"
        ),
    );
    for arguments in [&["up", "-d"][..], &["up"]] {
        let failed = sandbox.wharf(arguments).expect(1);
        assert!(failed.stderr.contains("exited with code 3"), "{failed}");
        assert!(failed.stderr.contains("no database"), "{failed}");
    }
}

#[test]
fn a_server_that_never_answers_fails_up_and_says_what_was_found() {
    let sandbox = Sandbox::new();
    let port = free_port();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  ws:\n    ports: [{{target: 1, published: '{port}', host_ip: 127.0.0.1, app_protocol: ws}}]\n    \
             x-wharf:\n      process: {{command: [sh, -c, 'echo only http; exec python3 -m http.server --bind 127.0.0.1 $$PORT 2>/dev/null']}}\n      ready: {{timeout: 2s}}\n"
        ),
    );
    let failed = sandbox.wharf(&["up", "-d"]).expect(1);
    assert!(
        failed
            .stderr
            .contains("listening, but no WebSocket handshake"),
        "{failed}"
    );
    failed
        .expect_text("only http")
        .expect_text("hint: wharf logs ws");
}

#[test]
fn an_answer_of_somebody_else_is_not_ready() {
    let sandbox = Sandbox::new();
    let port = free_port();
    // The service itself listens nowhere; somebody else takes the port once the plan is made.
    let server = crate::support::ws_server();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  ws:\n    ports: [{{target: 1, published: '{port}', host_ip: 127.0.0.1, app_protocol: ws}}]\n    \
             x-wharf:\n      process: {{command: [sh, -c, 'touch started; exec sleep 600']}}\n      ready: {{timeout: 5s}}\n"
        ),
    );
    let script =
        format!("while ! [ -e started ]; do sleep 0.02; done; exec python3 {server} --port {port}");
    let stranger = sandbox.program("sh", &["-c", &script]);
    let failed = sandbox.wharf(&["up", "-d"]).expect(1);
    assert!(
        failed.stderr.contains(&stranger.pid().to_string()),
        "{failed}"
    );
    assert!(!stranger.process().ended());
    stranger.signal(Signal::KILL);
}

#[test]
fn dependents_wait_for_an_answer_and_hear_of_moved_ports() {
    let sandbox = Sandbox::new();
    let port = free_port();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  ws:\n    ports: [{{target: 8003, published: '{port}', host_ip: 127.0.0.1, app_protocol: ws}}]\n    \
             x-wharf: {{process: {{command: [wharf, serve]}}, ready: {{path: /ws}}}}\n  \
             client:\n    depends_on: {{ws: {{condition: service_healthy}}}}\n    \
             x-wharf: {{process: {{command: [sh, -c, 'echo port is $$WS_PORT; exec sleep 600']}}}}\n"
        ),
    );
    let _holder = sandbox.server(port, &[]);
    sandbox
        .wharf(&["up", "-d", "--on-conflict", "move"])
        .expect(0);
    let rows = sandbox
        .wharf(&["ps", "ws", "--format", "json"])
        .expect(0)
        .json_lines();
    let moved = rows[0]["Publishers"][0]["PublishedPort"].as_u64().unwrap();
    eventually("the client says its line", || {
        let logs = sandbox.wharf(&["logs", "client"]).expect(0);
        logs.stdout
            .contains(&format!("port is {moved}"))
            .then_some(())
    });
}

#[test]
fn logs_end_with_their_reader_and_change_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  loud:\n    x-wharf: {process: {command: [sh, -c, 'printf \"a\\0b\\033[1mc\\n\"; exec yes x']}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    // Without the end of the reader this would go on for ever.
    let first = sandbox
        .program("sh", &["-c", "wharf logs -f --no-log-prefix | head -n 1"])
        .wait()
        .expect(0);
    assert_eq!(first.stdout, "a\0b\u{1b}[1mc\n");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn logs_of_a_project_that_is_named_are_shown_whatever_file_is_here() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  here:\n    x-wharf: {process: {command: [sh, -c, exit]}}\n",
    );
    sandbox.write(
        "other/compose.yaml",
        "services:\n  there:\n    x-wharf: {process: {command: [echo, there]}}\n",
    );
    let name = format!("{}-other", sandbox.project());
    let file = ["-f", "other/compose.yaml", "-p", &name];
    sandbox.wharf(&[&file[..], &["up"]].concat()).expect(0);
    for more in [&["--no-log-prefix"][..], &["--no-log-prefix", "-f"]] {
        let logs = sandbox.wharf(&[&["-p", &name, "logs"], more].concat());
        assert_eq!(logs.expect(0).stdout, "there\n");
    }
    sandbox.wharf(&["-p", &name, "down"]).expect(0);
}

#[test]
fn logs_that_are_followed_up_to_a_moment_end_then() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  clock:\n    x-wharf: {process: {command: [sh, -c, 'while echo tick; do sleep 0.05; done']}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let lines = |until: u64| {
        let until = until.to_string();
        // A clock that never stops: without the moment this would go on for ever.
        let logs = sandbox.wharf(&["logs", "-f", "--no-log-prefix", "--until", &until]);
        logs.expect(0).stdout.lines().count()
    };
    let one_second = lines(now + 1);
    let two_seconds = lines(now + 3);
    assert!(one_second < two_seconds, "{one_second} {two_seconds}");
    // What has passed is shown as it is without `-f`.
    assert_eq!(lines(now + 1), one_second);
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn the_lines_of_two_runs_are_not_joined() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  once:\n    x-wharf: {process: {command: [sh, -c, 'echo one; printf two']}}\n",
    );
    sandbox.wharf(&["up"]).expect(0);
    sandbox.wharf(&["up"]).expect(0);
    let logs = sandbox.wharf(&["logs", "--no-log-prefix"]).expect(0);
    assert_eq!(logs.stdout, "one\ntwo\none\ntwo\n");
    let last = sandbox
        .wharf(&["logs", "--no-log-prefix", "--tail", "-1"])
        .expect(0);
    assert_eq!(last.stdout, logs.stdout);
}

#[test]
fn what_is_left_of_an_interrupted_stop_is_the_instance() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  half:\n    stop_grace_period: 5m\n    x-wharf:\n      process:\n        command:\n          - sh\n          - -c\n          \
         - |\n            sh -c 'trap \"\" TERM; echo child; while :; do sleep 0.05; done' &\n            \
         trap 'echo bye; exit 3' TERM\n            wait\n",
    );
    let logs = |text: &str| {
        eventually(text, || {
            let logs = sandbox.wharf(&["logs"]).expect(0);
            (logs.stdout.matches(text).count() > 0).then_some(())
        });
    };
    sandbox.wharf(&["up", "-d"]).expect(0);
    logs("child");
    let stop = sandbox.spawn(&["stop"]);
    logs("bye");
    stop.signal(Signal::INT);
    stop.wait_for_line("again to leave at once");
    stop.signal(Signal::INT);
    stop.wait().expect(130);
    let row = sandbox.wharf(&["ps", "-a", "--format", "json"]).expect(0);
    assert_eq!(row.json_lines()[0]["State"], "running");
    let kill = sandbox.wharf(&["kill"]).expect(0);
    assert!(kill.stderr.contains("kill"), "{kill}");
    assert!(!kill.stderr.contains("nothing to kill"), "{kill}");
    let row = sandbox.wharf(&["ps", "-a", "--format", "json"]).expect(0);
    assert_eq!(row.json_lines()[0]["State"], "exited");
    assert_eq!(row.json_lines()[0]["ExitCode"], 3);
    sandbox.wharf(&["down"]).expect(0);
}

/// A service that does not end when asked, and says that it was.
const STUBBORN: &str = "services:\n  slow:\n    stop_grace_period: 10m\n    x-wharf: {process: {command: [sh, -c, \
    'trap \"echo asked\" TERM; echo up; while :; do sleep 0.05; done']}}\n";

#[test]
fn a_stop_under_way_is_cut_short_by_others() {
    for shorter in [
        &["kill"][..],
        &["kill", "-s", "KILL", "slow"],
        &["stop", "-t", "0"],
        &["down", "-t", "0"],
        &["up", "-d", "-t", "0"],
        &["up", "-d", "-t", "0", "slow"],
    ] {
        let sandbox = Sandbox::new();
        sandbox.write("compose.yaml", STUBBORN);
        sandbox.wharf(&["up", "-d"]).expect(0);
        let logs = sandbox.spawn(&["logs", "-f", "--no-log-prefix"]);
        logs.wait_for_line("up");
        let stopping = sandbox.spawn(&["stop"]);
        logs.wait_for_line("asked");
        sandbox.wharf(shorter).expect(0);
        stopping.wait().expect(0);
        sandbox.wharf(&["down", "-t", "0"]).expect(0);
        logs.wait();
    }
}

#[test]
fn commands_work_without_the_runtime_directory() {
    let sandbox = Sandbox::new();
    let sleeper = "{x-wharf: {process: {command: [sleep, '600']}}}";
    sandbox.write(
        "compose.yaml",
        format!("services:\n  a: {sleeper}\n  b: {sleeper}\n"),
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let run = sandbox.path().parent().unwrap().join("run");
    let ids = |sandbox: &Sandbox| sandbox.wharf(&["ps", "-q"]).expect(0).stdout;
    for command in [
        &["restart", "b"][..],
        &["stop", "a"],
        &["up", "-d"],
        &["up", "-d", "--force-recreate"],
    ] {
        // What a cleaner of temporary files takes, and what goes with the last login.
        fs::remove_dir_all(run.join("wharf")).unwrap();
        sandbox.wharf(command).expect(0);
        fs::remove_dir_all(&run).unwrap();
        sandbox.wharf(command).expect(0);
        fs::create_dir(&run).unwrap();
        sandbox.wharf(command).expect(0);
        fs::create_dir_all(run.join("wharf")).unwrap();
    }
    assert_eq!(ids(&sandbox).lines().count(), 2);
    fs::remove_dir_all(&run).unwrap();
    sandbox.wharf(&["down"]).expect(0);
    sandbox.until_nothing_runs();
}

#[test]
fn what_runs_beside_a_service_has_its_limits() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  a:\n    ulimits: {nofile: 123}\n    oom_score_adj: 321\n    \
         post_start: [{command: [sh, -c, 'ulimit -n > hook']}]\n    \
         x-wharf: {process: {command: [sleep, '600']}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let script = "ulimit -n; cat /proc/self/oom_score_adj";
    let exec = sandbox
        .wharf(&["exec", "-T", "a", "sh", "-c", script])
        .expect(0);
    assert_eq!(exec.stdout, "123\n321\n");
    let hook = fs::read_to_string(sandbox.path().join("hook")).unwrap();
    assert_eq!(hook, "123\n");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn an_exec_that_takes_no_notice_ends_with_its_service_as_in_a_container() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  a: {stop_grace_period: 1h, x-wharf: {process: {command: [sleep, '600']}}}\n",
    );
    // A shell in front of somebody ignores SIGTERM.
    let script = "trap '' TERM; echo in; while :; do sleep 0.1; done";
    for end in ["restart", "stop"] {
        sandbox.wharf(&["up", "-d"]).expect(0);
        let inside = sandbox.spawn(&["exec", "-T", "a", "sh", "-c", script]);
        inside.wait_for_line("in");
        sandbox.wharf(&[end, "a"]).expect(0);
        inside.wait().expect(137);
    }
}

#[test]
fn a_command_beside_a_service_finds_what_started_at_the_same_time() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  x: {x-wharf: {process: {command: [sleep, '1000']}}}\n  \
         job: {x-wharf: {process: {command: [sleep, '1000']}}}\n",
    );
    for _ in 0..5 {
        sandbox.wharf(&["up", "-d"]).expect(0);
        sandbox
            .wharf(&["exec", "-T", "job", "grep", "-w", "x", "/etc/hosts"])
            .expect(0);
        sandbox.wharf(&["down", "-t", "0"]).expect(0);
    }
}

#[test]
fn what_secrets_and_configs_are_copied_from_is_read_again_before_each_run() {
    let sandbox = Sandbox::new();
    sandbox.write("key", "one\n");
    sandbox.write("conf", "one\n");
    sandbox.write(
        "compose.yaml",
        "services:
  api:
    secrets: [{source: key, mode: 0440}]
    configs: [conf]
    restart: always
    x-wharf: {process: {command: [sh, -c, 'cat $$WHARF_SECRETS_DIR/key $$WHARF_CONFIGS_DIR/conf; stat -c %a $$WHARF_SECRETS_DIR/key; exec sleep 600']}}
secrets: {key: {file: ./key}}
configs: {conf: {file: ./conf}}
",
    );
    let last = |expected: &str| {
        eventually("it has read them", || {
            let logs = sandbox.wharf(&["logs", "--no-log-prefix", "--tail", "3"]);
            (logs.stdout == expected).then_some(())
        });
    };
    sandbox.wharf(&["up", "-d"]).expect(0);
    last("one\none\n440\n");
    sandbox.write("key", "two\n");
    sandbox.wharf(&["restart"]).expect(0);
    last("two\none\n440\n");
    sandbox.write("conf", "three\n");
    sandbox.wharf(&["stop"]).expect(0);
    sandbox.wharf(&["start"]).expect(0);
    last("two\nthree\n440\n");
    // By its policy.
    sandbox.write("key", "four\n");
    let sleeper = eventually("it sleeps", || {
        let mut all = sandbox.processes().into_iter();
        all.find(|it| it.command_line() == "sleep 600")
    });
    sleeper.signal(Signal::KILL);
    last("four\nthree\n440\n");
    // What is gone, or could be waited for without an end, stays as it was.
    fs::remove_file(sandbox.path().join("key")).unwrap();
    nix::unistd::mkfifo(&sandbox.path().join("key"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::remove_file(sandbox.path().join("conf")).unwrap();
    let restarted = sandbox.wharf(&["restart"]).expect(0);
    for told in [
        "key of secrets stays as it was",
        "conf of configs stays as it was",
    ] {
        assert!(restarted.stderr.contains(told), "{restarted}");
    }
    last("four\nthree\n440\n");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn a_limit_of_file_sizes_is_the_services_alone() {
    let sandbox = Sandbox::new();
    let script = "ulimit -f; i=0; while [ $$i -lt 3000 ]; do i=$$((i+1)); echo a line of some length $$i; done; \
                  exec sleep 600";
    sandbox.write(
        "compose.yaml",
        format!("services:\n  a: {{x-wharf: {{process: {{command: [sh, -c, '{script}']}}}}}}\n"),
    );
    let up = ["-c", "ulimit -f 40; exec wharf up -d"];
    sandbox.program("sh", &up).wait().expect(0);
    let last = eventually("all is recorded", || {
        let logs = sandbox.wharf(&["logs", "--no-log-prefix"]).expect(0);
        logs.stdout.contains("length 3000\n").then_some(logs)
    });
    // What it writes is longer than what it may write to a file.
    assert!(
        last.stdout.starts_with("40\n") && last.stdout.len() > 40 * 1024,
        "{last}"
    );
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn a_project_that_is_started_beside_a_service_does_not_end_with_it() {
    let sandbox = Sandbox::new();
    for (file, service) in [("compose.yaml", "a"), ("other.yaml", "b")] {
        sandbox.write(
            file,
            format!(
                "services:\n  {service}:\n    x-wharf: {{process: {{command: [sleep, '600']}}}}\n"
            ),
        );
    }
    sandbox.wharf(&["up", "-d"]).expect(0);
    let other = format!("{}-other", sandbox.project());
    let other = |command: &[&str]| {
        [&["-f", "other.yaml", "-p", &other][..], command]
            .concat()
            .join(" ")
    };
    let up = format!("exec wharf {}", other(&["up", "-d"]));
    sandbox
        .wharf(&["exec", "-T", "a", "sh", "-c", &up])
        .expect(0);
    sandbox.wharf(&["stop", "a"]).expect(0);
    let words = other(&["ps", "--format", "json"]);
    let words: Vec<&str> = words.split(' ').collect();
    let rows = sandbox.wharf(&words).expect(0).json_lines();
    assert_eq!(rows[0]["State"], "running", "{rows:?}");
    let words = other(&["down"]);
    let words: Vec<&str> = words.split(' ').collect();
    sandbox.wharf(&words).expect(0);
}

#[test]
fn one_secret_at_two_places_is_one_file() {
    let sandbox = Sandbox::new();
    sandbox.write("key", "sesame");
    sandbox.write(
        "compose.yaml",
        "services:\n  a:\n    secrets: [key, {source: key, target: /etc/a/key}]\n    \
         x-wharf: {process: {command: [sh, -c, 'cat $$WHARF_SECRETS_DIR/key']}}\nsecrets: {key: {file: ./key}}\n",
    );
    let up = if rustix::process::geteuid().is_root() {
        // Root may write to what is closed: as nobody, with homes of his own.
        let words = "chmod -R a+rwX \"$HOME/..\"; exec setpriv --reuid 65534 --regid 65534 --clear-groups \
                     env XDG_STATE_HOME=\"$TMPDIR/s\" XDG_RUNTIME_DIR=\"$TMPDIR/r\" wharf up";
        sandbox.program("sh", &["-c", words]).wait()
    } else {
        sandbox.wharf(&["up"])
    };
    let up = up.expect(0);
    assert!(up.stdout.contains("sesame"), "{up}");
}
