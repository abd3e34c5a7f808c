//! What commands do and say when the engine that has a part of a project does not answer.

use crate::support::{Sandbox, require_engine};

#[test]
fn local_services_are_there_for_commands_without_an_engine() {
    let mut sandbox = Sandbox::new();
    sandbox.set("DOCKER_HOST", "unix:///nowhere.sock");
    sandbox.write(
        "compose.yaml",
        "services:\n  db: {image: db}\n  api:\n    depends_on: [db]\n    stop_grace_period: 0s\n    \
         x-wharf: {process: {command: [sh, -c, 'echo here; exec sleep 1000']}}\n",
    );
    sandbox.wharf(&["up", "-d", "--no-deps", "api"]).expect(0);
    let said = "nothing is known of `db`";
    for words in [
        &["exec", "-T", "api", "true"][..],
        &["ps", "api"],
        &["logs", "api"],
        &["top", "api"],
        &["restart", "api"],
        &["stop", "api"],
        &["start", "api"],
        &["pause", "api"],
        &["unpause", "api"],
        &["kill", "api"],
        &["rm", "-f", "api"],
    ] {
        let done = sandbox.wharf(words).expect(0);
        assert!(done.stderr.contains(said), "{words:?}: {done}");
    }
    sandbox.wharf(&["up", "-d", "--no-deps", "api"]).expect(0);
    // What can be done is done; the rest was asked for, too.
    let listed = sandbox.wharf(&["ps"]).expect(4);
    assert!(listed.stdout.contains("-api-1"), "{listed}");
    assert!(listed.stderr.contains(said), "{listed}");
    let stopped = sandbox.wharf(&["stop"]).expect(4);
    assert!(stopped.stderr.contains("-api-1: stop"), "{stopped}");
    for words in [&["logs", "db"][..], &["exec", "-T", "db", "true"]] {
        sandbox.wharf(words).expect(4);
    }
    sandbox.wharf(&["start", "api"]).expect(0);
    let down = sandbox.wharf(&["down"]).expect(4);
    assert!(down.stderr.contains("-api-1: remove"), "{down}");
    assert!(down.stderr.contains(said), "{down}");
}

/// Two services that can be either; `db` is a container unless a command line says otherwise.
fn either_form(sandbox: &Sandbox, image: &str) {
    let service = |name: &str, more: &str| {
        format!(
            "  {name}:\n    image: {image}\n    pull_policy: never\n    command: [sleep, '1000']\n    \
             stop_grace_period: 0s\n    {more}\n    x-wharf: {{process: {{command: [sleep, '1000']}}}}\n"
        )
    };
    let services = [service("db", ""), service("api", "depends_on: [db]")];
    sandbox.write("compose.yaml", format!("services:\n{}", services.concat()));
}

#[test]
fn a_container_that_could_be_a_process_is_missed_where_there_was_an_engine() {
    let engine = require_engine!();
    let mut sandbox = Sandbox::with_engine(&engine);
    let answers = sandbox.variable("DOCKER_HOST");
    either_form(&sandbox, engine.busybox());
    sandbox
        .wharf(&["up", "-d", "--local=api", "--container=db"])
        .expect(0);
    sandbox.set("DOCKER_HOST", "unix:///nowhere.sock");
    let said = "nothing is known of `db`";
    for words in [&["ps", "api"][..], &["logs", "api"], &["restart", "api"]] {
        let done = sandbox.wharf(words).expect(0);
        assert!(done.stderr.contains(said), "{words:?}: {done}");
    }
    for words in [&["ps"][..], &["restart"]] {
        let done = sandbox.wharf(words).expect(4);
        assert!(done.stderr.contains(said), "{words:?}: {done}");
    }
    for words in [
        &["ps", "db"][..],
        &["stop", "db"],
        &["start", "db"],
        &["restart", "db"],
        &["kill", "db"],
        &["logs", "db"],
        &["exec", "-T", "db", "true"],
        &["wait", "db"],
        &["cp", "db:/x", "."],
    ] {
        let done = sandbox.wharf(words).expect(4);
        assert!(!done.stderr.contains("nothing to"), "{words:?}: {done}");
    }
    let down = sandbox.wharf(&["down"]).expect(4);
    assert!(down.stderr.contains("-api-1: remove"), "{down}");
    assert!(down.stderr.contains(said), "{down}");
    // Nothing is left that could be ended without it.
    let again = sandbox.wharf(&["down"]).expect(4);
    assert!(!again.stderr.contains("nothing to end"), "{again}");
    assert_ne!(
        engine.of_project("container", sandbox.project()),
        Vec::<String>::new()
    );
    sandbox.set("DOCKER_HOST", answers);
    sandbox.wharf(&["down"]).expect(0);
    // The choice is still there, and nothing that it could mean.
    sandbox.set("DOCKER_HOST", "unix:///nowhere.sock");
    let ended = sandbox.wharf(&["down"]).expect(0);
    assert!(ended.stderr.contains("nothing to end"), "{ended}");
}

#[test]
fn a_project_that_never_had_an_engine_misses_none() {
    let sandbox = Sandbox::new();
    either_form(&sandbox, "any");
    sandbox.wharf(&["up", "-d", "--local"]).expect(0);
    sandbox.wharf(&["rm", "-fs", "db"]).expect(0);
    for words in [
        &["ps"][..],
        &["stop", "db"],
        &["restart"],
        &["logs"],
        &["down"],
    ] {
        let done = sandbox.wharf(words).expect(0);
        assert!(!done.stderr.contains("known of"), "{words:?}: {done}");
    }
}
