//! What goes wrong in the middle of `up`: it is said what was done and what was not, and the same command
//! again goes on from there.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::engine::{Lab, docker, lab};
use crate::tools::{Tool, changed};

const UP: &[&str] = &["up", "-d", "-t", "0"];

fn sleeper(lab: &Lab, name: &str, more: &str) -> String {
    let image = lab.busybox();
    format!("  {name}: {{image: {image}, command: sleep 600, init: true, {more}}}\n")
}

fn all_run(lab: &Lab, names: &[&str]) {
    let states = lab.states();
    let running: Vec<&str> = states
        .iter()
        .filter(|(_, (_, state))| state == "running")
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(running, names);
}

#[test]
fn a_name_that_is_taken_is_said_and_the_next_up_goes_on() {
    let lab = lab!();
    lab.write(&format!(
        "services:\n{}{}",
        sleeper(&lab, "a", ""),
        sleeper(&lab, "b", "depends_on: [a]")
    ));
    let name = format!("{}-a-1", lab.project.name);
    docker(&["create", "--name", &name, lab.busybox(), "true"]);
    let ended = lab.run(Tool::Wharf, UP);
    docker(&["rm", &name]);
    assert_eq!(ended.code, Some(1));
    for words in [&name, "already in use", "not done"] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    lab.succeeds(Tool::Wharf, UP);
    all_run(&lab, &["P-a-1", "P-b-1"]);
}

#[test]
fn a_network_that_somebody_else_made_is_left_to_them() {
    let lab = lab!();
    lab.write(&format!("services:\n{}", sleeper(&lab, "a", "")));
    let name = format!("{}_default", lab.project.name);
    docker(&["network", "create", &name]);
    let ended = lab.run(Tool::Wharf, &["down"]);
    let left = docker(&["network", "ls", "--format", "{{.Name}}"]);
    docker(&["network", "rm", &name]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(left.lines().any(|line| line == name), "{left}");
}

#[test]
fn a_container_that_the_engine_was_still_making_is_taken_as_it_is() {
    let lab = lab!();
    lab.write(&format!("services:\n{}", sleeper(&lab, "a", "scale: 6")));
    lab.succeeds(Tool::Wharf, UP);
    // Wherever the first one is cut off: the engine goes on with what it was asked for.
    for pause in [20, 40, 60, 80, 100, 120] {
        lab.succeeds(Tool::Wharf, &["rm", "-sf"]);
        let mut command = lab.command(Tool::Wharf, UP);
        let mut first = command.stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        first.kill().unwrap();
        first.wait().unwrap();
        let again = lab.run(Tool::Wharf, UP);
        assert_eq!(again.code, Some(0), "{}", again.stderr);
    }
}

#[test]
fn an_image_that_cannot_be_had_stops_what_needs_it() {
    let lab = lab!();
    let file = |image: &str| {
        format!(
            "services:\n{}  broken: {{image: '{image}', command: sleep 600}}\n",
            sleeper(&lab, "a", "")
        )
    };
    lab.write(&file("127.0.0.1:1/no/such:image"));
    let ended = lab.run(Tool::Wharf, UP);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("127.0.0.1:1/no/such:image"),
        "{}",
        ended.stderr
    );
    assert!(!lab.states().contains_key("P-broken-1"));
    lab.write(&file(lab.busybox()));
    lab.succeeds(Tool::Wharf, UP);
    all_run(&lab, &["P-a-1", "P-broken-1"]);
}

#[test]
fn a_volume_that_no_engine_here_can_mount_is_not_left_out() {
    let lab = lab!();
    for kind in ["npipe", "cluster"] {
        let more = format!("volumes: [{{type: {kind}, source: here, target: /there}}]");
        lab.write(&format!("services:\n{}", sleeper(&lab, "a", &more)));
        let ended = lab.run(Tool::Wharf, UP);
        assert_eq!(ended.code, Some(1));
        let words = format!("a volume of type {kind} cannot be mounted");
        assert!(ended.stderr.contains(&words), "{}", ended.stderr);
        assert!(lab.states().is_empty());
    }
}

#[test]
fn a_container_that_cannot_start_leaves_the_others_running() {
    let lab = lab!();
    let file = |command: &str| {
        format!(
            "services:\n{}  b: {{image: {}, command: {command}}}\n{}",
            sleeper(&lab, "a", ""),
            lab.busybox(),
            sleeper(&lab, "c", "depends_on: [b]")
        )
    };
    lab.write(&file("/no/such/program"));
    let ended = lab.run(Tool::Wharf, UP);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("/no/such/program"),
        "{}",
        ended.stderr
    );
    let not_done = format!("container {}-c-1: start", lab.project.name);
    assert!(ended.stderr.contains(&not_done), "{}", ended.stderr);
    let before = lab.states();
    lab.write(&file("sleep 600"));
    lab.succeeds(Tool::Wharf, UP);
    all_run(&lab, &["P-a-1", "P-b-1", "P-c-1"]);
    assert_eq!(changed(&before, &lab.states()), ["P-b-1"]);
}

/// A tool that was killed while it replaced a container leaves the new one under a temporary name.
#[test]
fn a_replacement_that_was_interrupted_is_completed() {
    let lab = lab!();
    lab.write(&format!("services:\n{}", sleeper(&lab, "a", "")));
    lab.succeeds(Tool::Wharf, UP);
    let name = format!("{}-a-1", lab.project.name);
    docker(&["rename", &name, &format!("0123456789ab_{name}")]);
    lab.succeeds(Tool::Wharf, UP);
    all_run(&lab, &["P-a-1"]);
}

/// What is killed before it has written a container's files leaves it under a temporary name, so that it is
/// replaced and not started without them.
#[test]
fn a_container_has_its_name_when_it_has_its_files() {
    let lab = lab!();
    let service = sleeper(&lab, "a", "configs: [{source: k, target: /k}]");
    lab.write(&format!(
        "services:\n{service}configs: {{k: {{content: kept}}}}\n"
    ));
    for more in [&[][..], &["--force-recreate"]] {
        lab.succeeds(Tool::Wharf, &[UP, more].concat());
        let name = format!("{}-a-1", lab.project.name);
        assert_eq!(docker(&["exec", &name, "cat", "/k"]), "kept");
        let id = docker(&["inspect", "--format", "{{.Id}}", &name]);
        let events = docker(&[
            "events",
            "--since=1h",
            // The client counts whole seconds: up to now would leave out what has just happened.
            "--until=-1s",
            "--filter",
            &format!("container={id}"),
            "--format",
            "{{.Action}} {{.Actor.Attributes.name}}",
        ]);
        let steps: Vec<&str> = events
            .lines()
            .filter(|line| line.starts_with("create") || line.starts_with("rename"))
            .collect();
        let [created, renamed] = steps.as_slice() else {
            panic!("{events}");
        };
        assert!(created.ends_with(&format!("_{name}")), "{events}");
        assert_eq!(*renamed, format!("rename {name}"), "{events}");
    }
}

#[test]
fn an_interrupted_up_is_gone_on_with() {
    let lab = lab!();
    lab.write(&format!(
        "services:\n{}{}",
        sleeper(
            &lab,
            "a",
            "healthcheck: {test: ['CMD', 'test', '-e', '/well'], interval: 1h}"
        ),
        sleeper(&lab, "b", "depends_on: {a: {condition: service_healthy}}")
    ));
    let mut command = lab.command(Tool::Wharf, UP);
    let mut up = command.stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    let is_up = || {
        let states = lab.states();
        states
            .get("P-a-1")
            .is_some_and(|(_, state)| state == "running")
            && states.contains_key("P-b-1")
    };
    while !is_up() {
        assert!(Instant::now() < deadline, "never waited for a");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = up.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(sent.success());
    assert_eq!(up.wait().unwrap().code(), Some(130));
    assert_eq!(lab.states()["P-b-1"].1, "created");
    docker(&[
        "exec",
        &format!("{}-a-1", lab.project.name),
        "touch",
        "/well",
    ]);
    let before = lab.states();
    lab.succeeds(Tool::Wharf, UP);
    all_run(&lab, &["P-a-1", "P-b-1"]);
    assert_eq!(changed(&before, &lab.states()), [""; 0]);
}
