//! What a service manager ends by the group: a session, a unit, the machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::revival::running;
use crate::support::running::Running;
use crate::support::{Process, Sandbox, eventually};

fn supervisor(sandbox: &Sandbox) -> Option<Process> {
    running(sandbox, " supervise --project")
}

/// A service manager that sends SIGTERM to these processes and stays until there is a file `enough`.
fn manager(sandbox: &Sandbox, told: &[&Process]) -> Running {
    let program = sandbox.path().join("systemd");
    fs::copy("/bin/sh", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let pids: Vec<String> = told
        .iter()
        .map(|process| process.pid().to_string())
        .collect();
    let script = format!(
        "kill -TERM {}; while ! [ -e enough ]; do sleep 0.05; done",
        pids.join(" ")
    );
    sandbox.program(program.to_str().unwrap(), &["-c", &script])
}

#[test]
fn what_a_service_manager_ends_is_stopped_and_not_started_again() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  one:\n    restart: always\n    x-wharf: {process: {command: [sleep, '600']}}\n  \
         two:\n    restart: always\n    stop_signal: SIGINT\n    x-wharf: {process: {command: \
         [sh, -c, 'trap \"echo bye; exit 3\" INT; trap \"\" TERM; echo up; while :; do sleep 0.05; done']}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    eventually("two is up", || {
        let logs = sandbox.wharf(&["logs", "two"]).expect(0);
        logs.stdout.contains("up").then_some(())
    });
    let supervisor = eventually("a supervisor", || supervisor(&sandbox));
    let one = eventually("one", || running(&sandbox, "sleep 600"));
    let manager = manager(&sandbox, &[&supervisor, &one]);
    supervisor.wait_end();
    sandbox.write("enough", "");
    manager.wait().expect(0);
    // No command of wharf's is run before.
    sandbox.until_nothing_runs();
    let listed = sandbox.wharf(&["ps", "--all"]).expect(0);
    for state in ["Exited (143)", "Exited (3)"] {
        assert!(listed.stdout.contains(state), "{listed}");
    }
    let logs = sandbox.wharf(&["logs", "two"]).expect(0);
    assert!(logs.stdout.contains("bye"), "{logs}");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn what_is_asked_for_meanwhile_is_started_by_another_supervisor() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  slow:\n    stop_grace_period: 3s\n    x-wharf: {process: {command: \
         [sh, -c, 'trap \"\" TERM; echo up; while :; do sleep 0.05; done']}}\n  \
         late:\n    profiles: [more]\n    x-wharf: {process: {command: [sleep, '601']}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    eventually("slow is up", || {
        let logs = sandbox.wharf(&["logs", "slow"]).expect(0);
        logs.stdout.contains("up").then_some(())
    });
    let first = eventually("a supervisor", || supervisor(&sandbox));
    let manager = manager(&sandbox, &[&first]);
    let log = PathBuf::from(sandbox.variable("XDG_STATE_HOME"))
        .join("wharf/projects")
        .join(sandbox.project())
        .join("supervisor.log");
    eventually("it knows", || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        said.contains("ends all that runs here").then_some(())
    });
    sandbox.wharf(&["up", "-d", "late"]).expect(0);
    sandbox.write("enough", "");
    manager.wait().expect(0);
    first.wait_end();
    let listed = sandbox.wharf(&["ps", "late"]).expect(0);
    assert!(listed.stdout.contains("Up "), "{listed}");
    sandbox.wharf(&["--profile", "more", "down"]).expect(0);
}

#[test]
fn sigterm_from_anybody_else_ends_the_supervisor_alone() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  one: {x-wharf: {process: {command: [sleep, '600']}}}\n  \
         two: {x-wharf: {process: {command: [sleep, '601']}}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let services =
        ["sleep 600", "sleep 601"].map(|words| eventually(words, || running(&sandbox, words)));
    let first = eventually("a supervisor", || supervisor(&sandbox));
    first.signal(Signal::TERM);
    first.wait_end();
    eventually("another one", || supervisor(&sandbox));
    assert!(services.iter().all(|service| !service.ended()));
    sandbox.wharf(&["down"]).expect(0);
}
