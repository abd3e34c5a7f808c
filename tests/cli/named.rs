//! What was named on the command line, what came along as a dependency, and the words of `run`.

use std::fs;

use rustix::process::Signal;

use crate::support::{Sandbox, eventually, free_port};

/// A database, a job that is done before the tests, and tests that fail.
const TESTS: &str = "services:
  db: {x-wharf: {process: {command: [sleep, '600']}}}
  job: {x-wharf: {process: {command: ['true']}}}
  tests:
    depends_on: {db: {condition: service_started}, job: {condition: service_completed_successfully}}
    x-wharf: {process: {command: [sh, -c, 'echo testing; sleep 0.2; exit 7']}}
";

fn states(sandbox: &Sandbox) -> String {
    let rows = ["ps", "-a", "--format", "{{.Service}} {{.State}}"];
    sandbox.wharf(&rows).expect(0).stdout
}

#[test]
fn a_job_that_others_wait_for_aborts_nothing_that_was_named() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TESTS);
    for flags in [
        &["--abort-on-container-exit"][..],
        &["--exit-code-from", "tests"],
        &["--abort-on-container-failure", "--attach-dependencies"],
    ] {
        let up = sandbox.wharf(&[&["up"], flags, &["tests"]].concat());
        let up = up
            .expect(7)
            .expect_text("not stopped, as only what was named is");
        assert!(up.stdout.contains("tests-1  | testing"), "{up}");
        assert_eq!(
            states(&sandbox),
            "db running\njob exited\ntests exited\n",
            "{up}"
        );
    }
}

#[test]
fn a_job_that_is_done_aborts_nothing_and_one_that_fails_does() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TESTS);
    for flags in [
        &["--abort-on-container-exit"][..],
        &["--exit-code-from", "tests"],
    ] {
        let up = sandbox.wharf(&[&["up"], flags].concat()).expect(7);
        assert!(up.stdout.contains("tests-1  | testing"), "{up}");
        assert_eq!(
            states(&sandbox),
            "db exited\njob exited\ntests exited\n",
            "{up}"
        );
    }
    sandbox.write("compose.yaml", TESTS.replace("['true']", "['false']"));
    let up = sandbox
        .wharf(&["up", "--abort-on-container-exit"])
        .expect(1);
    assert!(!up.stdout.contains("testing"), "{up}");
    // Who is asked for its exit code ends it, whatever waits for it.
    sandbox.write("compose.yaml", TESTS);
    sandbox.wharf(&["up", "--exit-code-from", "job"]).expect(0);
}

#[test]
fn an_interrupt_stops_what_was_named_and_leaves_what_ran_before() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:
  db: {x-wharf: {process: {command: [sleep, '600']}}}
  web:
    depends_on: [db]
    x-wharf: {process: {command: [sh, -c, 'echo here; exec sleep 600']}}
",
    );
    sandbox.wharf(&["up", "-d", "db"]).expect(0);
    let up = sandbox.spawn(&["up", "web"]);
    up.wait_for_line("web-1  | here");
    up.signal(Signal::INT);
    let up = up.wait().expect(130);
    assert_eq!(states(&sandbox), "db running\nweb exited\n", "{up}");
    // Without names, all of it is ended.
    let up = sandbox.spawn(&["up"]);
    up.wait_for_line("web-1  | here");
    up.signal(Signal::INT);
    let up = up.wait().expect(130);
    assert_eq!(states(&sandbox), "db exited\nweb exited\n", "{up}");
}

#[test]
fn the_end_of_what_was_named_is_the_end_whatever_is_shown() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:
  db: {x-wharf: {process: {command: [sh, -c, 'echo here; echo > up; exec sleep 600']}}}
  web: {depends_on: [db], x-wharf: {process: {command: [sh, -c, 'until [ -e up ]; do sleep 0.05; done; sleep 0.3']}}}
  off: {profiles: [off], x-wharf: {process: {command: ['true']}}}
",
    );
    let up = ["up", "--attach-dependencies", "web"];
    let up = sandbox.wharf(&up).expect(0);
    assert!(up.stdout.contains("db-1   | here"), "{up}");
    sandbox.wharf(&["up", "--attach", "db", "web"]).expect(0);
    // Who has no output may be left out all the same.
    sandbox
        .wharf(&["up", "--no-attach", "off", "web"])
        .expect(0);
    sandbox.wharf(&["up", "--attach", "off", "web"]).expect(2);
    assert_eq!(states(&sandbox), "db running\nweb exited\n");
}

#[test]
fn what_is_not_attached_is_shown_where_nothing_else_would_be() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:
  quiet: {attach: false, x-wharf: {process: {command: [echo, psst]}}}
  web: {x-wharf: {process: {command: [echo, here]}}}
",
    );
    let up = sandbox.wharf(&["up", "quiet"]).expect(0);
    assert!(up.stdout.contains("quiet-1  | psst"), "{up}");
    let up = sandbox.wharf(&["up"]).expect(0);
    assert!(!up.stdout.contains("psst"), "{up}");
    let up = sandbox
        .wharf(&["up", "--no-attach", "quiet", "quiet"])
        .expect(0);
    assert!(!up.stdout.contains("psst"), "{up}");
}

#[test]
fn a_job_that_is_run_again_is_stayed_for_where_its_dependents_go_on() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:
  job: {x-wharf: {process: {command: [sh, -c, 'sleep 0.3; echo done >> runs; [ ! -e bad ]']}}}
  web:
    depends_on: {job: {condition: service_completed_successfully}}
    x-wharf: {process: {command: [sleep, '600']}}
",
    );
    let runs =
        || fs::read_to_string(sandbox.path().join("runs")).map_or(0, |runs| runs.lines().count());
    sandbox.wharf(&["up", "-d"]).expect(0);
    sandbox.wharf(&["up", "-d"]).expect(0);
    assert_eq!(runs(), 2);
    sandbox.wharf(&["start"]).expect(0);
    assert_eq!(runs(), 3);
    sandbox.write("bad", "");
    // A failure in front stops nothing that ran before.
    for command in [
        &["up", "-d"][..],
        &["up", "--wait", "web"],
        &["start"],
        &["up"],
    ] {
        let failed = sandbox.wharf(command).expect(1);
        failed.expect_text("job-1 exited with code 1");
        assert_eq!(states(&sandbox), "job exited\nweb running\n");
    }
}

#[test]
fn a_dependency_that_is_found_unhealthy_fails_up_beside_what_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:
  db:
    healthcheck: {test: [CMD-SHELL, '[ -e well ]'], interval: 100ms, retries: 1}
    x-wharf: {process: {command: [sleep, '600']}}
  web:
    depends_on: {db: {condition: service_healthy}}
    x-wharf: {process: {command: [sleep, '600']}}
",
    );
    sandbox.write("well", "");
    sandbox.wharf(&["up", "-d"]).expect(0);
    sandbox.wharf(&["up", "-d"]).expect(0);
    fs::remove_file(sandbox.path().join("well")).unwrap();
    eventually("the database is unhealthy", || {
        let health = ["ps", "db", "--format", "{{.Health}}"];
        let health = sandbox.wharf(&health).expect(0);
        (health.stdout == "unhealthy\n").then_some(())
    });
    let up = sandbox.wharf(&["up", "-d"]).expect(1);
    up.expect_text("db-1 is not ready: its healthcheck says unhealthy");
    assert_eq!(states(&sandbox), "db running\nweb running\n");
}

#[test]
fn start_goes_on_without_what_is_not_required() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:
  job: {x-wharf: {process: {command: ['false']}}}
  ill:
    healthcheck: {test: [CMD, 'false'], interval: 100ms, retries: 1}
    x-wharf: {process: {command: [sleep, '600']}}
  web:
    depends_on:
      job: {condition: service_completed_successfully, required: false}
      ill: {condition: service_healthy, required: false}
    x-wharf: {process: {command: [sleep, '600']}}
",
    );
    sandbox.wharf(&["create"]).expect(0);
    let start = sandbox.wharf(&["start", "web"]).expect(0);
    start.expect_text("it is not required");
    assert_eq!(states(&sandbox), "ill running\njob exited\nweb running\n");
}

#[test]
fn words_of_run_follow_the_entrypoint() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:
  own: {entrypoint: [echo, from], command: [here], x-wharf: {process: {}}}
  other: {entrypoint: [echo, from], x-wharf: {process: {command: [echo, bare]}}}
",
    );
    let said = |words: &[&str]| {
        sandbox
            .wharf(&[&["run", "--rm"], words].concat())
            .expect(0)
            .stdout
    };
    assert_eq!(said(&["own"]), "from here\n");
    assert_eq!(said(&["own", "there"]), "from there\n");
    assert_eq!(
        said(&["--entrypoint", "echo to", "own", "there"]),
        "to there\n"
    );
    assert_eq!(said(&["other"]), "bare\n");
    assert_eq!(said(&["other", "echo", "words"]), "words\n");
}

/// An engine does so with a container; without one, whoever looks next does.
#[test]
fn what_run_was_to_remove_goes_at_its_end_whatever_became_of_run() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  a: {x-wharf: {process: {command: [sleep, '600']}}}\n",
    );
    let until = |file: &str| format!("echo begun; until test -f {file}; do sleep 0.02; done");
    let rows = || {
        let rows = ["ps", "-a", "--format", "{{.Name}} {{.State}}"];
        sandbox.wharf(&rows).expect(0).stdout
    };
    let kept = || {
        let dir = std::path::PathBuf::from(sandbox.variable("XDG_STATE_HOME"))
            .join("wharf/projects")
            .join(sandbox.project())
            .join("instances");
        let names = fs::read_dir(dir)
            .unwrap()
            .flatten()
            .map(|it| it.file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.contains("-run-")).count()
    };
    // With a supervisor that came up before it, and without.
    for (round, has_supervisor) in [false, true].into_iter().enumerate() {
        if has_supervisor {
            sandbox.wharf(&["up", "-d"]).expect(0);
        }
        let file = format!("ok{round}");
        let script = until(&file);
        let run = sandbox.spawn(&["run", "-T", "--rm", "a", "sh", "-c", &script]);
        run.wait_for_line("begun");
        run.signal(Signal::KILL);
        run.process().wait_end();
        assert!(rows().contains("-run-"), "it goes on");
        sandbox.write(&file, "");
        run.wait();
        eventually("it has gone", || (!rows().contains("-run-")).then_some(()));
        assert_eq!(kept(), 0);
    }
    let script = until("ok2");
    sandbox
        .wharf(&["run", "-d", "--rm", "a", "sh", "-c", &script])
        .expect(0);
    assert!(rows().contains("-run-"), "it goes on");
    sandbox.write("ok2", "");
    eventually("it has gone", || (!rows().contains("-run-")).then_some(()));
    assert_eq!(kept(), 0);
    // What was not to go stays to be looked at.
    sandbox.wharf(&["run", "-T", "a", "true"]).expect(0);
    assert!(rows().contains("exited"), "{}", rows());
    sandbox.wharf(&["down", "--remove-orphans"]).expect(0);
    assert_eq!(rows(), "");
}

#[test]
fn what_is_to_be_typed_names_the_project_that_was_named() {
    let sandbox = Sandbox::new();
    let file = "services: {web: {x-wharf: {process: {command: [sleep, '600']}}}}\n";
    sandbox.write("my dev.yaml", file);
    let refused = sandbox.wharf(&["-f", "my dev.yaml", "exec", "web", "true"]);
    let hint = "wharf -f 'my dev.yaml' up -d web";
    refused.expect(1).expect_text(&format!("hint: {hint}\n"));
    sandbox.program("sh", &["-c", hint]).wait().expect(0);
    let refused = sandbox.wharf(&["-f", "my dev.yaml", "stop", "nosuch"]);
    refused
        .expect(2)
        .expect_text("hint: wharf -f 'my dev.yaml' config --services\n");
    let refused = sandbox.wharf(&["-f", "my dev.yaml", "ls", "--filter", "x"]);
    refused
        .expect(2)
        .expect_text("hint: wharf ls --filter name=web\n");
    // Notes as well.
    let port = free_port();
    let job = format!(
        "services: {{web: {{ports: ['127.0.0.1:{port}:80'], x-wharf: {{process: {{command: [sh, -c, 'exit 3']}}}}}}}}\n"
    );
    sandbox.write("my dev.yaml", job);
    sandbox
        .wharf(&["-f", "my dev.yaml", "up", "-d"])
        .expect(0)
        .expect_text("see it whole: wharf -f 'my dev.yaml' logs web\n");
    sandbox
        .wharf(&["-f", "my dev.yaml", "down", "-t", "0"])
        .expect(0);
}
