//! A home directory that several pid or time namespaces share, as with containers to develop in: what runs in one of them
//! is not judged by ids in another.

use rustix::process::Signal;

use crate::support::running::Finished;
use crate::support::{Process, Sandbox};

/// Two services, one with a policy that starts it again.
const TWO: &str = "services:\n  \
    one: {x-wharf: {process: {command: [sleep, '1000']}}, restart: always}\n  \
    two: {x-wharf: {process: {command: [sleep, '1000']}}}\n";

/// With pids of its own.
const PIDS: &[&str] = &["--pid", "--fork", "--mount-proc", "--kill-child"];

/// With start times of its own.
const TIMES: &[&str] = &["--time", "--boottime", "100000", "--fork"];

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a script without control groups; their namespaces too, where there are some.
fn inside(sandbox: &Sandbox, namespaces: &[&str], script: &str) -> Finished {
    let script =
        format!("awk '$3 == \"cgroup2\" {{print $2}}' /proc/mounts | xargs -r umount -l; {script}");
    let words = [&["--mount"], namespaces, &["sh", "-c", &script]].concat();
    sandbox.program("unshare", &words).wait()
}

/// The services that run, by their pids.
fn sleepers(sandbox: &Sandbox) -> Vec<u32> {
    let all = sandbox.processes();
    let is_service = |process: &&Process| process.command_line().contains("sleep 1000");
    let mut pids: Vec<u32> = all.iter().filter(is_service).map(Process::pid).collect();
    pids.sort_unstable();
    pids
}

/// SIGKILL to those with one of these words in their command lines.
fn kill(sandbox: &Sandbox, victims: &[&str]) {
    let all = sandbox.processes();
    let is_meant = |process: &&Process| {
        let line = process.command_line();
        victims.iter().any(|words| line.contains(words))
    };
    let killed: Vec<&Process> = all.iter().filter(is_meant).collect();
    assert!(killed.len() >= victims.len(), "{victims:?}");
    for process in &killed {
        process.signal(Signal::KILL);
    }
    for process in &killed {
        process.wait_end();
    }
}

#[test]
fn what_runs_in_other_namespaces_is_left_alone_and_shown() {
    if !is_root() {
        println!("skipped: namespaces need root");
        return;
    }
    for (namespaces, kind) in [(PIDS, "pid"), (TIMES, "time")] {
        for victims in [
            &[][..],
            &[" supervise --project"],
            &[" supervise --project", "keeper of"],
        ] {
            let sandbox = Sandbox::new();
            sandbox.write("compose.yaml", TWO);
            inside(&sandbox, &[], "wharf up -d").expect(0);
            let before = sleepers(&sandbox);
            assert_eq!(before.len(), 2);
            kill(&sandbox, victims);
            let refusal = format!("runs in another {kind} namespace");
            for command in [
                "ps -a",
                "up -d",
                "up -d --force-recreate",
                "restart one",
                "stop -t 0",
                "kill one",
                "exec one true",
                "down",
                "logs",
                "ls",
            ] {
                let done = inside(&sandbox, namespaces, &format!("exec wharf {command}"));
                let is_look = matches!(command, "ps -a" | "logs" | "ls");
                assert_eq!(done.code(), i32::from(!is_look), "{command} {done}");
                if command == "ps -a" {
                    assert_eq!(done.stdout.matches(" Up ").count(), 2, "{done}");
                }
                assert!(
                    command == "logs" || done.stderr.contains(&refusal),
                    "{command} {done}"
                );
                assert_eq!(sleepers(&sandbox), before, "{victims:?} {command} {done}");
            }
            // Where they run nothing has happened.
            inside(&sandbox, &[], "wharf up -d").expect(0);
            assert_eq!(sleepers(&sandbox), before, "{victims:?}");
            inside(&sandbox, &[], "wharf down -t 0").expect(0);
            assert!(sleepers(&sandbox).is_empty());
        }
    }
}

#[test]
fn a_supervisor_does_not_come_up_beside_what_runs_elsewhere() {
    if !is_root() {
        println!("skipped: namespaces need root");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    inside(&sandbox, &[], "wharf up -d").expect(0);
    let before = sleepers(&sandbox);
    let supervisor = sandbox
        .processes()
        .into_iter()
        .find(|process| process.command_line().contains(" supervise --project"))
        .unwrap();
    let line = supervisor.command_line();
    let (_, words) = line.split_once(' ').unwrap();
    let script = format!("wharf {words} </dev/null | cat");
    for victims in [&[][..], &[" supervise --project"]] {
        kill(&sandbox, victims);
        let other = inside(&sandbox, PIDS, &script);
        assert!(other.stdout.contains("another pid namespace"), "{other}");
        assert_eq!(sleepers(&sandbox), before);
    }
    inside(&sandbox, &[], "wharf down -t 0").expect(0);
}

#[test]
fn what_ended_with_its_namespace_is_started_again_in_another() {
    if !is_root() {
        println!("skipped: namespaces need root");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    for _ in 0..2 {
        let up = "wharf up -d && wharf ps --format '{{.Name}} {{.State}}'";
        let up = inside(&sandbox, PIDS, up).expect(0);
        assert_eq!(up.stdout.matches("running").count(), 2, "{up}");
        assert!(sleepers(&sandbox).is_empty());
    }
    // Out here, too.
    let ps = sandbox.wharf(&["ps", "-a"]).expect(0);
    assert!(!ps.stderr.contains("namespace"), "{ps}");
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(sleepers(&sandbox).len(), 2);
    sandbox.wharf(&["down", "-t", "0"]).expect(0);
}

#[test]
fn a_damaged_entry_of_what_runs_elsewhere_has_no_pid_to_end() {
    if !is_root() {
        println!("skipped: namespaces need root");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services: {one: {x-wharf: {process: {command: [sleep, '1000']}}}}\n",
    );
    inside(&sandbox, &[], "wharf up -d").expect(0);
    let before = sleepers(&sandbox);
    kill(&sandbox, &[" supervise --project"]);
    let projects = sandbox.path().with_file_name("state/wharf/projects");
    let instances = projects.join(sandbox.project()).join("instances");
    let entry = instances
        .join(format!("{}-one-1", sandbox.project()))
        .join("instance.json");
    let whole = std::fs::read(&entry).unwrap();
    std::fs::write(&entry, "x").unwrap();
    let refused = inside(&sandbox, PIDS, "wharf up -d");
    assert!(
        refused.code() == 1 && refused.stderr.contains("hint: its process runs in another"),
        "{refused}"
    );
    let hint = format!("hint: kill {};", before[0]);
    let refused = inside(&sandbox, &[], "wharf up -d");
    assert!(refused.stderr.contains(&hint), "{refused}");
    assert_eq!(sleepers(&sandbox), before);
    std::fs::write(&entry, whole).unwrap();
    inside(&sandbox, &[], "wharf down -t 0").expect(0);
}
