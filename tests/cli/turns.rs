//! Two commands on one project: one that only waits lets the other in, and no second copy of a service runs.

use rustix::process::Signal;

use crate::support::running::Running;
use crate::support::{Process, Sandbox, eventually};

/// `d` waits for `h`, which is healthy once there is a file `ok`; `o` stands alone.
const WAITING: &str = "services:\n  h:\n    x-wharf: {process: {command: [sleep, '1000']}}\n    \
    healthcheck: {test: 'test -f ok', interval: 100ms, retries: 100000}\n  \
    d: {x-wharf: {process: {command: [sleep, '1000']}}, depends_on: {h: {condition: service_healthy}}}\n  \
    o: {x-wharf: {process: {command: [sleep, '1000']}}}\n";

/// An `up -d` that waits for `h`.
fn waiting(sandbox: &Sandbox) -> Running {
    sandbox.write("compose.yaml", WAITING);
    let up = sandbox.spawn(&["up", "-d"]);
    up.wait_for_line("-h-1: start");
    up
}

fn services(sandbox: &Sandbox) -> Vec<String> {
    let rows = sandbox.wharf(&["ps", "--format", "json"]).expect(0);
    let rows = rows.json_lines();
    let name = |row: &serde_json::Value| row["Service"].as_str().unwrap_or_default().to_owned();
    rows.iter().map(name).collect()
}

#[test]
fn what_ends_services_gets_in_while_up_waits() {
    for command in [
        &["stop", "-t", "0", "h"][..],
        &["stop"],
        &["down"],
        &["restart", "h"],
        &["rm", "-sf", "h"],
    ] {
        let sandbox = Sandbox::new();
        let up = waiting(&sandbox);
        sandbox.wharf(command).expect(0);
        let words = "another command has changed what this one was waiting for";
        let up = up.wait().expect(1).expect_text(words);
        let named = format!("{}` (pid ", command.join(" "));
        assert!(up.stderr.contains(&named), "{up}");
        assert!(!services(&sandbox).contains(&"d".to_owned()), "{up}");
        sandbox.wharf(&["down", "-t", "0"]).expect(0);
    }
}

#[test]
fn an_up_goes_on_after_a_command_that_took_nothing_from_it() {
    let sandbox = Sandbox::new();
    let up = waiting(&sandbox);
    sandbox
        .wharf(&["run", "--rm", "--no-deps", "h", "true"])
        .expect(0);
    // Nobody waits for it, and whoever asks later gets in as the first one did.
    for command in [
        &["restart", "o"][..],
        &["restart", "o"],
        &["stop", "-t", "0", "o"],
    ] {
        sandbox.wharf(command).expect(0);
    }
    sandbox.write("ok", "");
    up.wait().expect(0);
    assert_eq!(services(&sandbox), ["d", "h"]);
    sandbox.wharf(&["down", "-t", "0"]).expect(0);
}

#[test]
fn what_is_for_some_services_gets_in_too() {
    let sandbox = Sandbox::new();
    let up = waiting(&sandbox);
    for command in [
        &["scale", "o=2"][..],
        &["stop", "-t", "0", "o"],
        &["start", "o"],
        &["create"],
        &["up", "-d", "--force-recreate", "o"],
    ] {
        sandbox.wharf(command).expect(0);
    }
    sandbox.write("ok", "");
    up.wait().expect(0);
    assert_eq!(services(&sandbox), ["d", "h", "o"]);
    sandbox.wharf(&["down", "-t", "0"]).expect(0);
}

#[test]
fn whoever_waits_plans_again_when_another_one_has_done_a_part_of_it() {
    let sandbox = Sandbox::new();
    let text = WAITING.replace(
        "d: {x-wharf: {process: {command: [sleep, '1000']}}",
        "d: {x-wharf: {process: {command: [sh, -c, 'echo hello; exec sleep 1000']}}",
    );
    let text = text.replace("service_healthy}", "service_healthy, restart: true}");
    sandbox.write("compose.yaml", &text);
    sandbox.write("ok", "");
    sandbox.wharf(&["up", "-d"]).expect(0);
    for command in [
        &["up"][..],
        &["start"],
        &["restart"],
        &["scale", "d=1", "o=1"],
    ] {
        if command != ["restart"] {
            sandbox.wharf(&["stop", "-t", "0"]).expect(0);
        }
        std::fs::remove_file(sandbox.path().join("ok")).unwrap();
        let first = sandbox.spawn(command);
        first.wait_for_line("-h-1: start");
        let second = sandbox.spawn(&["up", "-d", "d"]);
        second.wait_for_line("-h-1 is up to date");
        sandbox.write("ok", "");
        second.wait().expect(0);
        if command == ["up"] {
            // It goes on in front.
            first.wait_for_line("hello");
            first.signal(Signal::INT);
            first.wait().expect(130);
            assert!(services(&sandbox).is_empty());
        } else {
            first.wait().expect(0);
            assert_eq!(services(&sandbox), ["d", "h", "o"], "{command:?}");
        }
    }
    sandbox.wharf(&["down", "-t", "0"]).expect(0);
}

#[test]
fn what_only_waits_for_others_ends_at_the_first_interrupt() {
    let sandbox = Sandbox::new();
    let up = waiting(&sandbox);
    let second = sandbox.spawn(&["up", "-d"]);
    second.wait_for_line("another wharf is working on project");
    second.signal(Signal::INT);
    second
        .wait()
        .expect(130)
        .expect_text("interrupted: nothing was done");
    sandbox.write("ok", "");
    up.wait().expect(0);
    sandbox.wharf(&["down", "-t", "0"]).expect(0);

    sandbox.write(
        "compose.yaml",
        "services:\n  a:\n    stop_grace_period: 1h\n    x-wharf: {process: {command: [sh, -c, \"trap 'echo told' TERM; \
        while :; do sleep 0.1; done\"]}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let stop = sandbox.spawn(&["stop"]);
    let logs = sandbox.spawn(&["logs", "-f"]);
    logs.wait_for_line("told");
    stop.signal(Signal::KILL);
    stop.wait();
    let up = sandbox.spawn(&["--progress", "json", "up", "-d"]);
    up.wait_for_line("as somebody asked before");
    up.wait_for_line("Stopping");
    up.signal(Signal::INT);
    up.wait()
        .expect(130)
        .expect_text("still under way: process [PROJECT]-a-1: stop")
        .expect_text("not done: process [PROJECT]-a-1: start");
    sandbox.wharf(&["kill"]).expect(0);
    sandbox.wharf(&["down", "-t", "0"]).expect(0);
    logs.wait();
}

#[test]
fn who_has_to_wait_is_told_for_whom() {
    let sandbox = Sandbox::new();
    let up = waiting(&sandbox);
    let second = sandbox.spawn(&["up", "-d"]);
    let line = second.wait_for_line("another wharf is working on project");
    assert!(
        line.contains(&format!("up -d` (pid {})", up.pid())),
        "{line}"
    );
    sandbox.write("ok", "");
    up.wait().expect(0);
    second.wait().expect(0);
    sandbox.wharf(&["down", "-t", "0"]).expect(0);
}

/// However late it looks: `docker compose wait` hears of the end of a container from the engine, which keeps it.
#[test]
fn who_waits_for_an_end_learns_the_code_also_when_nothing_is_left_of_it() {
    for commands in [
        &[&["rm", "-sf"][..]][..],
        &[&["down"]],
        &[&["restart"], &["restart"]],
        &[&["up", "-d", "--force-recreate", "o"]],
    ] {
        let sandbox = Sandbox::new();
        sandbox.write("compose.yaml", WAITING);
        sandbox.wharf(&["up", "-d", "o"]).expect(0);
        let wait = sandbox.spawn(&["wait", "o"]);
        wait.wait_for_line("waiting for");
        wait.signal(Signal::STOP);
        for command in commands {
            sandbox.wharf(command).expect(0);
        }
        wait.signal(Signal::CONT);
        let ended = wait.wait().expect(143);
        let told = format!(
            "process \"{}-o-1\" exited with status code 143\n",
            sandbox.project()
        );
        assert_eq!(ended.stdout, told, "{commands:?}");
        sandbox.wharf(&["down", "-t", "0"]).expect(0);
    }
}

#[test]
fn what_runs_without_its_ledger_is_ended_before_another_copy_starts() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services: {a: {x-wharf: {process: {command: [sleep, '1000']}}}}\n",
    );
    let pid = || {
        let rows = sandbox.wharf(&["ps", "--format", "json"]).expect(0);
        let pid = rows.json_lines()[0]["Pid"].as_u64().unwrap();
        u32::try_from(pid).unwrap()
    };
    for also_its_keeper in [false, true] {
        sandbox.wharf(&["up", "-d"]).expect(0);
        let first = Process::open(pid()).unwrap();
        let state = sandbox
            .path()
            .with_file_name("state/wharf/projects")
            .join(sandbox.project());
        if also_its_keeper {
            let named = format!("keeper of {}-a-1", sandbox.project());
            let mut all = sandbox.processes().into_iter();
            let keeper = all
                .find(|one| one.command_line().starts_with(&named))
                .unwrap();
            keeper.signal(Signal::KILL);
            keeper.wait_end();
        }
        // Of another project, and with its errors in this one's directory.
        let notes = std::fs::File::create(state.join("notes")).unwrap();
        let mut bystander = std::process::Command::new("sleep")
            .arg("1000")
            .env("WHARF_RUN_ID", "bystander")
            .env("WHARF_PROJECT", "other")
            .stderr(notes)
            .spawn()
            .unwrap();
        // What is written at the same moment is in the way of its removal.
        eventually("the state is removed", || {
            std::fs::remove_dir_all(&state).ok()
        });
        sandbox
            .wharf(&["up", "-d"])
            .expect(0)
            .expect_text("what it left is stopped: ")
            .expect_text(&format!("a (pid {})", first.pid()));
        assert!(first.ended());
        assert_ne!(pid(), first.pid());
        assert!(bystander.try_wait().unwrap().is_none());
        bystander.kill().unwrap();
        bystander.wait().unwrap();
        sandbox.wharf(&["down", "-t", "0"]).expect(0);
    }
}
