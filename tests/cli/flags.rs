//! The options before the command's name and those of `up`, by what they do.

use std::fs;

use crate::support::{Sandbox, free_port};

/// Services that sleep, as processes.
fn sleepers(names: &[&str]) -> String {
    let services = names
        .iter()
        .map(|name| format!("  {name}: {{x-wharf: {{process: {{command: [sleep, '600']}}}}}}\n"));
    std::iter::once("services:\n".to_owned())
        .chain(services)
        .collect()
}

fn ids(sandbox: &Sandbox, arguments: &[&str]) -> Vec<String> {
    let rows = sandbox.wharf(&[arguments, &["ps", "--format", "json"]].concat());
    let mut rows = rows.expect(0).json_lines();
    rows.sort_by_key(|row| row["Service"].to_string());
    rows.iter().map(|row| row["ID"].to_string()).collect()
}

#[test]
fn a_limit_holds_for_steps_at_work() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", sleepers(&["a", "b", "c", "d"]));
    let up = sandbox
        .wharf(&["--parallel", "1", "--progress", "json", "up", "-d"])
        .expect(0);
    let (mut at_work, mut done) = (0, 0);
    for line in up.stderr.lines() {
        let step: serde_json::Value = serde_json::from_str(line).unwrap();
        match step["status"].as_str().unwrap() {
            "Creating" | "Starting" => at_work += 1,
            "Created" | "Started" => {
                at_work -= 1;
                done += 1;
            }
            other => panic!("{other} in {up}"),
        }
        assert!(at_work <= 1, "{up}");
        let id = step["id"].as_str().unwrap();
        assert!(id.starts_with("Process "), "{id}");
    }
    assert_eq!(done, 8, "{up}");
}

#[test]
fn json_progress_is_json_to_the_last_line() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", sleepers(&["a"]));
    let told = |arguments: &[&str], code| -> Vec<serde_json::Value> {
        let all = [&["--progress", "json"], arguments].concat();
        let done = sandbox.wharf(&all).expect(code);
        let lines = done.stderr.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{done}")))
            .collect()
    };
    told(&["up", "-d"], 0);
    let again = told(&["up", "-d"], 0);
    let id = format!("Process {}-a-1", sandbox.project());
    let running = serde_json::json!({ "id": id, "status": "Running" });
    assert_eq!(again, [running]);
    let failed = told(&["up", "-d", "nosuch"], 2);
    let last = failed.last().expect("it says why");
    assert_eq!(last["error"], true);
    assert_eq!(last["message"], "no such service: nosuch");
    told(&["down"], 0);
    let nothing = told(&["down", "a"], 0);
    let text = nothing[0]["text"].as_str().unwrap_or_default();
    assert!(text.ends_with("has no instances of a"), "{text}");
}

#[test]
fn run_publishes_one_way_or_the_other() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", sleepers(&["a"]));
    sandbox
        .wharf(&["run", "-P", "-p", "1:2", "a"])
        .expect(2)
        .expect_text("--service-ports and --publish are incompatible");
}

#[test]
fn settings_come_from_the_environment_and_from_the_env_file() {
    let mut sandbox = Sandbox::new();
    sandbox.write("compose.yaml", sleepers(&["a"]));
    sandbox.write(".env", "COMPOSE_PARALLEL_LIMIT=many\n");
    sandbox
        .wharf(&["up", "-d"])
        .expect(2)
        .expect_text("COMPOSE_PARALLEL_LIMIT");
    sandbox.write(".env", "COMPOSE_PROGRESS=quiet\n");
    sandbox.wharf(&["up", "-d"]).expect_exactly(0, "", "");
    sandbox.write(".env", "");
    sandbox.set("COMPOSE_STATUS_STDOUT", "1");
    let down = sandbox.wharf(&["down"]).expect(0);
    assert!(down.stdout.contains("a-1: remove"), "{down}");
    sandbox.set("COMPOSE_COMPATIBILITY", "true");
    sandbox.wharf(&["up", "-d"]).expect(0);
    let rows = sandbox.wharf(&["ps", "--format", "json"]).expect(0);
    let name = format!("{}_a_1", sandbox.project());
    assert_eq!(rows.json_lines()[0]["Name"], name);
}

#[test]
fn words_of_the_past_are_understood() {
    let sandbox = Sandbox::new();
    sandbox.write("x/compose.yaml", sleepers(&["a"]));
    let said = sandbox
        .wharf(&[
            "--verbose",
            "--no-ansi",
            "--workdir",
            "x",
            "config",
            "--services",
        ])
        .expect(0);
    assert_eq!(said.stdout, "a\n");
    assert!(said.stderr.contains("--project-directory"), "{said}");
    for command in [
        &["commit", "web", "image:1"][..],
        &["export", "-o", "x.tar", "web"],
        &["publish", "--help"],
        &["bridge", "convert"],
        &["alpha", "viz"],
    ] {
        let refused = sandbox.wharf(command).expect(1);
        assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
        assert!(refused.stderr.contains("on purpose"), "{refused}");
    }
    for arguments in [&["-v"][..], &["--version"], &["version"]] {
        let said = sandbox.wharf(arguments).expect(0);
        assert!(said.stdout.starts_with("wharf version "), "{said}");
    }
    sandbox.wharf(&[]).expect(2).expect_text("Usage: wharf");
}

#[test]
fn a_dry_run_says_the_plan_and_changes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", sleepers(&["a"]));
    let plan = sandbox.wharf(&["--dry-run", "up", "-d"]).expect(0);
    assert!(plan.stdout.contains("a-1: start"), "{plan}");
    assert_eq!(ids(&sandbox, &[]), Vec::<String>::new());
    sandbox.wharf(&["up", "-d"]).expect(0);
    let before = ids(&sandbox, &[]);
    for command in ["stop", "restart", "down"] {
        let plan = sandbox.wharf(&[command, "--dry-run"]).expect(0);
        assert!(plan.stdout.contains("a-1: stop"), "{plan}");
    }
    assert_eq!(ids(&sandbox, &[]), before);
    // What cannot be planned is not done either.
    let port = free_port().to_string();
    sandbox
        .wharf(&[
            "--dry-run",
            "server",
            "start",
            "--background",
            "--port",
            &port,
        ])
        .expect(2);
}

#[test]
fn what_was_named_is_made_anew_and_its_dependencies_when_asked() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  db: {x-wharf: {process: {command: [sleep, '600']}}}\n  \
         web: {depends_on: [db], x-wharf: {process: {command: [sleep, '600']}}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let first = ids(&sandbox, &[]);
    sandbox
        .wharf(&["up", "-d", "--force-recreate", "web"])
        .expect(0);
    let second = ids(&sandbox, &[]);
    assert_eq!(first[0], second[0], "the dependency stays");
    assert_ne!(first[1], second[1]);
    sandbox
        .wharf(&["up", "-d", "--always-recreate-deps", "web"])
        .expect(0);
    let third = ids(&sandbox, &[]);
    assert_ne!(second[0], third[0]);
    assert_eq!(second[1], third[1], "it is what it should be");
}

#[test]
fn a_failure_ends_everything_and_a_success_does_not() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  good: {x-wharf: {process: {command: [sh, -c, 'echo fine']}}}\n  \
         bad: {x-wharf: {process: {command: [sh, -c, 'while [ ! -e go ]; do sleep 0.05; done; exit 6']}}}\n  \
         long: {x-wharf: {process: {command: [sleep, '600']}}}\n",
    );
    let up = sandbox.spawn(&["up", "--abort-on-container-failure", "--no-color"]);
    up.wait_for_line("good-1 exited with code 0");
    sandbox.write("go", "");
    up.wait_for_line("bad-1 exited with code 6");
    up.wait().expect(6);
}

#[test]
fn only_what_was_named_is_shown_unless_asked() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  db: {x-wharf: {process: {command: [sh, -c, 'echo i am the db']}}}\n  \
         web: {depends_on: {db: {condition: service_completed_successfully}}, \
         x-wharf: {process: {command: [sh, -c, 'echo i am the web']}}}\n",
    );
    let up = sandbox.wharf(&["up", "web"]).expect(0);
    assert!(up.stdout.contains("web-1  | i am the web"), "{up}");
    assert!(!up.stdout.contains("i am the db"), "{up}");
    let up = sandbox
        .wharf(&["up", "web", "--attach-dependencies"])
        .expect(0);
    assert!(up.stdout.contains("db-1   | i am the db"), "{up}");
    for flags in [
        &["-d", "--watch"][..],
        &["--wait", "--attach", "db"],
        &["-d", "--abort-on-container-failure"],
        &["--no-recreate", "-V"],
        &["--attach", "db", "--attach-dependencies"],
    ] {
        sandbox.wharf(&[&["up"], flags].concat()).expect(2);
    }
}

#[test]
fn up_returns_when_what_was_named_has_ended_and_leaves_the_rest() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  db: {x-wharf: {process: {command: [sleep, '600']}}}\n  \
         web: {depends_on: [db], x-wharf: {process: {command: [sh, -c, 'echo bye']}}}\n",
    );
    let up = sandbox.wharf(&["up", "web"]).expect(0);
    assert!(up.stdout.contains("web-1  | bye"), "{up}");
    let rows = sandbox.wharf(&["ps", "--format", "json"]).expect(0);
    let rows = rows.json_lines();
    assert_eq!((rows.len(), rows[0]["Service"].as_str()), (1, Some("db")));
}

#[test]
fn waiting_for_what_runs_and_for_what_ends() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  once: {x-wharf: {process: {command: ['true']}}}\n  \
         web: {depends_on: {once: {condition: service_completed_successfully}}, \
         x-wharf: {process: {command: [sleep, '600']}}}\n  \
         lost: {profiles: [lost], x-wharf: {process: {command: ['true']}}}\n  \
         sick: {profiles: [sick], x-wharf: {process: {command: [sleep, '600'], \
         healthcheck: {test: [CMD, 'false'], interval: 100ms, retries: 100000}}}}\n",
    );
    sandbox.wharf(&["up", "--wait"]).expect(0);
    sandbox
        .wharf(&["up", "--wait", "lost"])
        .expect(1)
        .expect_text("lost-1 exited with code 0");
    sandbox
        .wharf(&["up", "--wait", "--wait-timeout", "1", "sick"])
        .expect(1)
        .expect_text("after 1 s");
    // The sandbox takes down what is enabled.
    sandbox
        .wharf(&["--profile", "*", "down", "--timeout", "0"])
        .expect(0);
}

#[test]
fn orphans_are_removed_or_passed_over_as_the_environment_says() {
    let mut sandbox = Sandbox::new();
    sandbox.write("compose.yaml", sleepers(&["old", "new"]));
    sandbox.wharf(&["up", "-d"]).expect(0);
    sandbox.write("compose.yaml", sleepers(&["new"]));
    sandbox.wharf(&["up", "-d"]).expect(0).expect_text("old-1");
    sandbox.set("COMPOSE_IGNORE_ORPHANS", "1");
    let up = sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(!up.stderr.contains("old-1"), "{up}");
    sandbox.wharf(&["up", "-d", "--remove-orphans"]).expect(2);
    sandbox.set("COMPOSE_IGNORE_ORPHANS", "0");
    sandbox.set("COMPOSE_REMOVE_ORPHANS", "true");
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(ids(&sandbox, &["--all-resources"]).len(), 1);
}

#[test]
fn keys_detach_and_can_be_switched_off() {
    let mut sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  a: {x-wharf: {process: {command: [sh, -c, 'echo here; exec sleep 600']}}}\n",
    );
    let mut terminal = sandbox.terminal(&["up"]);
    let screen = terminal.wait_for("a-1  | here");
    assert!(screen.contains("d detach"), "{screen}");
    terminal.type_text("d");
    terminal.wait().expect(0).expect_text("detached");
    assert_eq!(ids(&sandbox, &[]).len(), 1, "it goes on");
    sandbox.set("COMPOSE_MENU", "0");
    let mut terminal = sandbox.terminal(&["up", "--force-recreate"]);
    terminal.wait_for("a-1  | here");
    terminal.type_text("d\x03");
    let finished = terminal.wait().expect(130);
    assert!(!finished.stdout.contains("detach"), "{finished}");
    assert!(fs::exists(sandbox.path()).unwrap());
}
