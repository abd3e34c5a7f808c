//! Entries of the ledger that are taken away while their runs live: no second copy, and nothing that no command ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::support::{Process, Sandbox, eventually};

const TWO: &str = "services:\n  a: {x-wharf: {process: {command: [sleep, '1000']}}}\n  \
    b: {x-wharf: {process: {command: [sleep, '1000']}}}\n";

fn state(sandbox: &Sandbox) -> PathBuf {
    let projects = sandbox.path().with_file_name("state/wharf/projects");
    projects.join(sandbox.project())
}

fn files_of(sandbox: &Sandbox, service: &str) -> PathBuf {
    let name = format!("{}-{service}-1", sandbox.project());
    state(sandbox).join("instances").join(name)
}

/// The control group that was made for a process, where there can be one.
fn group_of(process: &Process) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    let found = mounts
        .into_iter()
        .map(|mount| mount.join(path))
        .find(|group| group.is_dir());
    found.filter(|group| {
        group
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("wharf-"))
    })
}

/// The processes of the services, by what really runs.
fn running(sandbox: &Sandbox) -> Vec<Process> {
    let all = sandbox.processes().into_iter();
    all.filter(|process| process.command_line().starts_with("sleep"))
        .collect()
}

fn process_of(sandbox: &Sandbox, service: &str) -> Process {
    let rows = sandbox
        .wharf(&["ps", "--format", "json", service])
        .expect(0);
    let pid = rows.json_lines()[0]["Pid"].as_u64();
    let pid = pid.and_then(|pid| u32::try_from(pid).ok());
    Process::open(pid.expect("ps tells the pid")).expect("it lives")
}

fn supervisor(sandbox: &Sandbox) -> Process {
    let all = sandbox.processes().into_iter();
    let mut found = all.filter(|process| process.command_line().contains("supervise"));
    found.next().expect("there is a supervisor")
}

fn remove(path: &std::path::Path) {
    // What is written at the same moment is in the way of its removal.
    eventually("the files are removed", || {
        if path.is_dir() {
            fs::remove_dir_all(path).ok()
        } else {
            fs::remove_file(path).ok()
        }
    });
}

#[test]
fn an_instance_whose_files_are_removed_is_seen_and_can_be_ended() {
    for (command, left) in [
        (&["ps"][..], 2),
        (&["up", "-d"], 2),
        (&["restart", "a"], 2),
        (&["stop"], 0),
        (&["kill", "a"], 1),
        (&["down"], 0),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write("compose.yaml", TWO);
        sandbox.wharf(&["up", "-d"]).expect(0);
        let first = process_of(&sandbox, "a");
        remove(&files_of(&sandbox, "a"));
        let told = format!("-a-1 (pid {}) were removed while it ran", first.pid());
        sandbox.wharf(command).expect(0).expect_text(&told);
        assert_eq!(running(&sandbox).len(), left, "{command:?}");
        assert_eq!(first.ended(), command != ["ps"], "{command:?}");
        sandbox.wharf(&["down", "-t", "0"]).expect(0);
    }
}

#[test]
fn an_entry_that_is_removed_is_written_again() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let first = process_of(&sandbox, "a");
    remove(&files_of(&sandbox, "a").join("instance.json"));
    sandbox
        .wharf(&["up", "-d"])
        .expect(0)
        .expect_text("is written again");
    assert_eq!(process_of(&sandbox, "a").pid(), first.pid());
    sandbox.wharf(&["down", "-t", "0"]).expect(0);
}

#[test]
fn what_a_killed_supervisor_knew_alone_is_ended() {
    for command in [&["up", "-d"][..], &["stop"], &["down"]] {
        let sandbox = Sandbox::new();
        sandbox.write("compose.yaml", TWO);
        sandbox.wharf(&["up", "-d"]).expect(0);
        let first = process_of(&sandbox, "a");
        remove(&files_of(&sandbox, "a"));
        let supervisor = supervisor(&sandbox);
        supervisor.signal(Signal::KILL);
        supervisor.wait_end();
        let told = format!("what it left is stopped: a (pid {})", first.pid());
        sandbox.wharf(command).expect(0).expect_text(&told);
        assert!(first.ended());
        let left = if command[0] == "up" { 2 } else { 0 };
        assert_eq!(running(&sandbox).len(), left, "{command:?}");
        sandbox.wharf(&["down", "-t", "0"]).expect(0);
    }
}

#[test]
fn a_ledger_that_is_moved_away_starts_no_second_copy() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let first = process_of(&sandbox, "a");
    let group = group_of(&first);
    fs::rename(state(&sandbox), sandbox.path().join("moved")).unwrap();
    let named = format!("a (pid {})", first.pid());
    for command in ["ps", "ls"] {
        sandbox.wharf(&[command]).expect(0).expect_text(&named);
    }
    assert!(!first.ended());
    sandbox.wharf(&["up", "-d"]).expect(0).expect_text(&named);
    assert!(first.ended());
    assert!(group.is_none_or(|group| !group.exists()));
    assert_eq!(running(&sandbox).len(), 2);
    sandbox.wharf(&["down", "-t", "0"]).expect(0);
}

/// Ends what has a mark of the sandbox as nothing does that cleans up.
fn kill(mut processes: Vec<Process>) {
    // No keeper lives to see the end of the supervisor, and to have another one come.
    processes.sort_by_key(|process| process.command_line().contains("supervise"));
    for process in &processes {
        process.signal(Signal::KILL);
    }
    for process in processes {
        process.wait_end();
    }
}

#[test]
fn no_group_outlives_those_who_knew_of_it() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let groups: Vec<PathBuf> = running(&sandbox).iter().filter_map(group_of).collect();
    kill(sandbox.processes());
    remove(&state(&sandbox));
    sandbox.wharf(&["down"]).expect(0);
    let left: Vec<&PathBuf> = groups.iter().filter(|group| group.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_has_cleared_its_environment_is_known_by_its_group() {
    for command in [&["up", "-d"][..], &["down"]] {
        let sandbox = Sandbox::new();
        let words = "env, -i, sh, -c, 'echo up; sleep 1000'";
        let service = |words: &str| format!("{{x-wharf: {{process: {{command: [{words}]}}}}}}");
        let (a, b) = (service(words), service("sleep, '1000'"));
        sandbox.write("compose.yaml", format!("services: {{a: {a}, b: {b}}}\n"));
        sandbox.wharf(&["up", "-d"]).expect(0);
        eventually("its environment is cleared", || {
            let logs = sandbox.wharf(&["logs", "a"]).expect(0);
            logs.stdout.contains("up").then_some(())
        });
        let first = process_of(&sandbox, "a");
        if group_of(&first).is_none() {
            println!("skipped: no control group can be made here");
            sandbox.wharf(&["down", "-t", "0"]).expect(0);
            return;
        }
        let mut others = sandbox.processes();
        others.retain(|process| {
            let line = process.command_line();
            line.contains("supervise") || line.starts_with("keeper of")
        });
        let second = process_of(&sandbox, "b");
        kill(others);
        assert!(!first.ended());
        remove(&state(&sandbox));
        let told = [
            format!("pid {} (sh)", first.pid()),
            format!("b (pid {})", second.pid()),
        ];
        let done = sandbox.wharf(command).expect(0);
        done.expect_text(&told[0]).expect_text(&told[1]);
        assert!(first.ended() && second.ended());
        sandbox.wharf(&["down", "-t", "0"]).expect(0);
    }
}

#[test]
fn what_has_other_files_at_the_same_place_is_left_alone() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: namespaces need root");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    let home = sandbox.path().with_file_name("state");
    fs::create_dir_all(&home).unwrap();
    let script = format!("mount -t tmpfs none {} && wharf up -d", home.display());
    let words = ["--mount", "sh", "-c", &script];
    sandbox.program("unshare", &words).wait().expect(0);
    let others = running(&sandbox);
    assert_eq!(others.len(), 2);
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(others.iter().all(|process| !process.ended()));
    assert_eq!(running(&sandbox).len(), 4);
    sandbox.wharf(&["down", "-t", "0"]).expect(0);
    assert!(others.iter().all(|process| !process.ended()));
    let there = others[0].pid().to_string();
    let script = format!("cd {} && wharf down -t 0", sandbox.path().display());
    let words = ["-t", &there, "--mount", "sh", "-c", &script];
    sandbox.program("nsenter", &words).wait().expect(0);
}

#[test]
fn no_group_outlives_an_entry_that_is_set_aside() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let first = process_of(&sandbox, "a");
    let group = group_of(&first);
    kill(vec![supervisor(&sandbox)]);
    let entry = files_of(&sandbox, "a").join("instance.json");
    fs::write(&entry, "x").unwrap();
    let told = sandbox.wharf(&["up", "-d"]).expect(1);
    let hint = told
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("hint: "));
    let hint = hint.expect("there is something to paste").to_owned();
    sandbox.program("sh", &["-c", &hint]).wait().expect(0);
    first.wait_end();
    sandbox.wharf(&["down"]).expect(0);
    assert!(group.is_none_or(|group| !group.exists()));
}

#[test]
fn what_cannot_be_made_does_not_end_what_runs() {
    let sandbox = Sandbox::new();
    let file = |more: &str, top: &str| {
        let service = "services: {a: {x-wharf: {process: {command: [sleep, '1000']}}";
        sandbox.write("compose.yaml", format!("{service}{more}}}}}\n{top}\n"));
    };
    file("", "");
    sandbox.wharf(&["up", "-d"]).expect(0);
    let first = process_of(&sandbox, "a");
    for (more, top, words) in [
        (
            ", secrets: [s]",
            "secrets: {s: {file: ./none}}",
            "which s is to come from",
        ),
        (
            ", user: no-such-user",
            "",
            "there is no user `no-such-user`",
        ),
        (
            ", working_dir: /no-such-directory",
            "",
            "/no-such-directory is not there",
        ),
        (", stop_signal: SIGNONE", "", "is not a signal"),
        (
            ", ulimits: {core: {soft: 2, hard: 1}}",
            "",
            "its soft limit may not be above",
        ),
        (", ulimits: {nofile: -1}", "", "sysctl fs.nr_open"),
    ] {
        file(more, top);
        sandbox
            .wharf(&["up", "-d"])
            .expect(1)
            .expect_text(words)
            .expect_text("nothing was changed: what runs of service a goes on");
        assert!(!first.ended(), "{more}");
    }
    let script = |name: &str, first_line: &str, mode: u32| {
        let path = sandbox.write(name, format!("{first_line}\nexec sleep 1000\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    script("orphan", "#!/no-such/interpreter", 0o755);
    script("private", "#!/bin/sh", 0o700);
    let mut cases = vec![
        (
            "no-such-program",
            "",
            "check that `no-such-program` is installed",
        ),
        ("./orphan", "", "/no-such/interpreter, which"),
    ];
    if rustix::process::geteuid().is_root() {
        // Its directory is root's own as well.
        cases.push(("./private", ", user: '65534'", "may not"));
    }
    for (program, more, words) in cases {
        sandbox.write(
            "compose.yaml",
            format!("services: {{a: {{x-wharf: {{process: {{command: [{program}]}}}}{more}}}}}\n"),
        );
        sandbox.wharf(&["up", "-d"]).expect(1).expect_text(words);
        assert!(!first.ended(), "{program}");
    }
    file(", environment: {X: '1'}", "");
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(first.ended());
    sandbox.wharf(&["down", "-t", "0"]).expect(0);
}

#[test]
fn events_tell_who_was_signalled_restarted_and_entered() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let events = sandbox.spawn(&["events", "--json", "--since", "10m", "a"]);
    events.wait_for_line("\"action\":\"start\"");
    // Each is told before the next one makes it the past.
    sandbox.wharf(&["stop", "a"]).expect(0);
    events.wait_for_line("\"action\":\"stop\"");
    sandbox.wharf(&["restart", "a"]).expect(0);
    events.wait_for_line("\"action\":\"restart\"");
    sandbox
        .wharf(&["exec", "-T", "a", "sh", "-c", "exit 3"])
        .expect(3);
    events.wait_for_line("\"action\":\"exec_die\"");
    sandbox.wharf(&["kill", "a"]).expect(0);
    events.wait_for_line("\"exitCode\":\"137\"");
    sandbox.wharf(&["down"]).expect(0);
    events.wait_for_line("\"action\":\"destroy\"");
    events.signal(Signal::INT);
    let told = events.wait().expect(130).json_lines();
    let text = |event: &serde_json::Value, name: &str| {
        event["attributes"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let actions: Vec<String> = told
        .iter()
        .map(|event| {
            let action = event["action"].as_str().unwrap_or_default();
            format!(
                "{action} {}{}",
                text(event, "signal"),
                text(event, "exitCode")
            )
        })
        .collect();
    assert_eq!(
        actions,
        [
            "create ",
            "start ",
            "kill 15",
            "die 143",
            "stop ",
            "start ",
            "restart ",
            "exec_create: sh -c exit 3 ",
            "exec_start: sh -c exit 3 ",
            "exec_die 3",
            "kill 9",
            "die 137",
            "destroy ",
        ]
    );
}

#[test]
fn events_tell_all_of_a_restart_to_those_who_are_late() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let events = sandbox.spawn(&["events", "--json", "--since", "10m", "a"]);
    events.wait_for_line("\"action\":\"start\"");
    events.signal(Signal::STOP);
    sandbox.wharf(&["restart", "a"]).expect(0);
    events.signal(Signal::CONT);
    events.wait_for_line("\"action\":\"restart\"");
    events.signal(Signal::INT);
    let told = events.wait().expect(130).json_lines();
    let actions = told.iter().map(|event| event["action"].as_str().unwrap());
    let actions: Vec<&str> = actions.collect();
    let (before, after) = (
        ["create", "start"],
        ["kill", "die", "stop", "start", "restart"],
    );
    assert_eq!(actions, [&before[..], &after].concat());
    let attributes = |number: usize| &told[number]["attributes"];
    assert_eq!(attributes(3)["exitCode"], "143");
    assert_eq!(attributes(3)["run"], attributes(1)["run"]);
    assert_ne!(attributes(3)["run"], attributes(5)["run"]);
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn a_restart_shortens_the_stop_that_is_under_way() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  a:\n    x-wharf: {process: {command: [sh, -c, \"trap '' TERM; echo up; while :; do sleep 1; \
         done\"]}}\n    stop_grace_period: 1h\n",
    );
    for (runs, command) in [
        (1, &["restart", "-t", "0", "a"][..]),
        (2, &["stop", "-t", "0", "a"]),
    ] {
        sandbox.wharf(&["up", "-d"]).expect(0);
        eventually("its handler is set", || {
            let logs = sandbox.wharf(&["logs", "a"]).expect(0);
            (logs.stdout.matches("up").count() == runs).then_some(())
        });
        let stop = sandbox.spawn(&["stop"]);
        eventually("it is being stopped", || {
            let rows = sandbox.wharf(&["ps", "-a", "--format", "json"]).expect(0);
            let entry = fs::read_to_string(files_of(&sandbox, "a").join("instance.json")).ok()?;
            (rows.code() == 0 && entry.contains("\"wanted\":false")).then_some(())
        });
        let told = sandbox.wharf(command).expect(0);
        stop.wait().expect(0);
        if command[0] == "stop" {
            told.expect_text("another command was stopping");
        }
    }
    sandbox.wharf(&["down", "-t", "0"]).expect(0);
}
