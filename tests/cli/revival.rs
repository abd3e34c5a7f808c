//! Supervisors and forwarders that are killed come back by themselves, as they were.

use rustix::process::Signal;

use crate::support::{Process, Sandbox, eventually};

/// The process with these words. A keeper that was just made has those of its parent for a moment.
pub(crate) fn running(sandbox: &Sandbox, words: &str) -> Option<Process> {
    let mut found = sandbox.processes();
    found.retain(|process| process.command_line().contains(words));
    let children: Vec<u32> = found
        .iter()
        .flat_map(Process::children)
        .map(|child| child.pid())
        .collect();
    found
        .into_iter()
        .find(|process| !children.contains(&process.pid()))
}

#[test]
fn names_come_back_however_supervisor_and_forwarder_are_killed() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  one:\n    x-wharf: {process: {command: [sleep, '600']}}\n  \
         two:\n    x-wharf: {process: {command: [sleep, '600']}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let running = |words: &str| running(&sandbox, words);
    let (supervise, forward) = (" supervise --project", " forward --project");
    for killed_first in [supervise, forward] {
        let killed_last = if killed_first == forward {
            supervise
        } else {
            forward
        };
        let both = [killed_first, killed_last].map(|words| running(words).expect(words));
        for process in &both {
            process.signal(Signal::KILL);
        }
        for process in &both {
            process.wait_end();
        }
        // No command of wharf's is run before they are back.
        for words in [supervise, forward] {
            eventually(words, || running(words));
        }
    }
    // The supervisor alone, before it has started the forwarder again, and its successors as soon as they are there.
    let kill = |words: &str| {
        let process = eventually(words, || running(words));
        process.signal(Signal::KILL);
        process.wait_end();
    };
    kill(forward);
    for _ in 0..3 {
        kill(supervise);
        if let Some(forwarder) = running(forward) {
            forwarder.signal(Signal::KILL);
            forwarder.wait_end();
        }
    }
    for words in [supervise, forward] {
        eventually(words, || running(words));
    }
    sandbox.wharf(&["down"]).expect(0);
    for words in [supervise, forward] {
        eventually(words, || running(words).is_none().then_some(()));
    }
}

#[test]
fn a_supervisor_comes_back_by_itself_beside_its_forwarder_however_often_it_is_killed() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  one:\n    restart: always\n    x-wharf: {process: {command: [sleep, '600']}}\n  \
         two:\n    x-wharf: {process: {command: [sleep, '601']}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let supervisor = || running(&sandbox, " supervise --project");
    let forwarder = eventually("the forwarder", || running(&sandbox, " forward --project"));
    let two = eventually("two", || running(&sandbox, "sleep 601"));
    for _ in 0..3 {
        let supervisor = eventually("a supervisor", supervisor);
        supervisor.signal(Signal::KILL);
        supervisor.wait_end();
    }
    // No command of wharf's is run before it is back, and does what it is there for.
    eventually("a supervisor", supervisor);
    let one = eventually("one", || running(&sandbox, "sleep 600"));
    one.signal(Signal::KILL);
    one.wait_end();
    eventually("it is started again", || running(&sandbox, "sleep 600"));
    assert!(!forwarder.ended() && !two.ended(), "the same processes");
    sandbox.wharf(&["down"]).expect(0);
    sandbox.until_nothing_runs();
}

#[test]
fn one_that_comes_back_by_itself_has_the_limit_of_file_sizes_of_the_first() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  one:\n    restart: always\n    \
         x-wharf: {process: {command: [sh, -c, 'ulimit -f; exec sleep 600']}}\n  \
         two: {x-wharf: {process: {command: [sleep, '601']}}}\n",
    );
    let up = ["-c", "ulimit -S -f 40; exec wharf up -d"];
    sandbox.program("sh", &up).wait().expect(0);
    let output = |lines: usize| {
        eventually("its output", || {
            let logs = sandbox.wharf(&["logs", "--no-log-prefix", "one"]).expect(0);
            (logs.stdout.lines().count() == lines).then_some(logs.stdout)
        })
    };
    output(1);
    let supervisor = || running(&sandbox, " supervise --project");
    let first = eventually("a supervisor", supervisor);
    first.signal(Signal::KILL);
    first.wait_end();
    // No command of wharf's is run before.
    eventually("another one", supervisor);
    let one = eventually("one", || running(&sandbox, "sleep 600"));
    one.signal(Signal::KILL);
    one.wait_end();
    eventually("it is started again", || running(&sandbox, "sleep 600"));
    assert_eq!(output(2), "40\n40\n");
    sandbox.wharf(&["down"]).expect(0);
}
