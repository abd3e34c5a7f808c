//! Values of options: what Docker Compose takes is taken, and what is none is told with what would be.

use crate::support::{Sandbox, eventually};

const TWO: &str = "services:
  api:
    image: nothing:1
    x-wharf: {backend: process, process: {command: [sh, -c, 'echo here; exec sleep 600']}}
    deploy: {replicas: 2}
  web:
    image: nothing:1
    x-wharf: {backend: process, process: {command: [sleep, '600']}}
";

#[test]
fn a_replica_below_1_is_any() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    sandbox.wharf(&["up", "-d"]).expect(0);
    for index in ["0", "-1"] {
        eventually("both replicas are shown", || {
            let logs = sandbox.wharf(&["logs", "--index", index, "api"]).expect(0);
            (logs.stdout.matches("| here").count() == 2).then_some(())
        });
        sandbox.wharf(&["logs", "--index", index]).expect(0);
        sandbox
            .wharf(&["exec", "-T", "--index", index, "api", "true"])
            .expect(0);
        sandbox
            .wharf(&["attach", "--no-stdin", "--index", index, "nosuch"])
            .expect(2)
            .expect_text("no such service: nosuch");
    }
    sandbox
        .wharf(&["exec", "--index", "one", "api", "true"])
        .expect(2)
        .expect_text("it is not the number of a replica, such as 1");
}

#[test]
fn seconds_are_whole_and_without_a_limit_below_1() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    for seconds in ["-1", "0", "60"] {
        let up = ["up", "-d", "--wait", "--wait-timeout", seconds];
        sandbox.wharf(&up).expect(0);
    }
    sandbox
        .wharf(&["start", "--wait", "--wait-timeout", "0"])
        .expect(0);
    for option in ["--wait-timeout", "--timeout"] {
        sandbox
            .wharf(&["up", "-d", "--wait", option, "1m30s"])
            .expect(2)
            .expect_text("it is given in seconds, as 90");
    }
    // Times may begin with a sign.
    sandbox.wharf(&["logs", "--until", "-1m"]).expect(0);
    sandbox
        .wharf(&["events", "--since", "-f"])
        .expect(2)
        .expect_text("--since -f: not a time");
}

#[test]
fn what_is_empty_counts_as_not_given() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    let unset = ["--ansi", "", "--progress", "", "--project-directory", ""];
    let call = |words: &[&str]| sandbox.wharf(&[&unset, words].concat()).expect(0);
    call(&["up", "-d", "--exit-code-from", ""]);
    for command in ["ps", "ls", "config"] {
        call(&[command, "--format", ""]);
    }
    assert_eq!(
        call(&["ps", "-q", "--filter", ""]).stdout.lines().count(),
        3
    );
    call(&["down", "--rmi", ""]);
}

#[test]
fn a_place_is_chosen_for_what_is_started() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    sandbox
        .wharf(&["up", "-d", "--local", "api", "web"])
        .expect(2)
        .expect_text("--local is for `api`, which is not started: only `web` was asked for")
        .expect_text("wharf up --local=api,web api web")
        .expect_text("wharf up --local=api\n");
    for word in ["--local=", "--container=api,"] {
        sandbox
            .wharf(&["up", "-d", word])
            .expect(2)
            .expect_text("the name of a service is missing");
    }
    sandbox
        .wharf(&["up", "-d", "--local=api, web", "web", "api"])
        .expect(0);
}

#[test]
fn a_service_that_there_is_not_is_answered_by_those_that_there_are() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TWO);
    for words in [&["up", "-d", "nosuch"][..], &["run", "nosuch"]] {
        sandbox
            .wharf(words)
            .expect(2)
            .expect_text("the project has: api, web");
    }
    sandbox
        .wharf(&["start", "web", "api"])
        .expect(1)
        .expect_text("hint: wharf up -d web api\n");
}
