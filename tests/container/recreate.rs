//! What `up` makes anew and what it leaves alone, by Docker Compose's rules.

use std::process::Stdio;

use crate::engine::{Lab, docker, inspect, lab};
use crate::tools::{Tool, changed, compose};

const UP: &[&str] = &["up", "-d", "-t", "0"];

/// A service that sleeps, with more keys.
fn sleeper(lab: &Lab, name: &str, more: &str) -> String {
    let image = lab.busybox();
    format!("  {name}: {{image: {image}, command: sleep 600, init: true, {more}}}\n")
}

/// Writes a file and brings it up; what became of the containers.
#[track_caller]
fn up(lab: &Lab, services: &[(&str, &str)], rest: &str, arguments: &[&str]) -> Vec<String> {
    let before = lab.states();
    let services: String = services
        .iter()
        .map(|(name, more)| sleeper(lab, name, more))
        .collect();
    lab.write(&format!("services:\n{services}{rest}"));
    lab.succeeds(Tool::Wharf, &[UP, arguments].concat());
    let after = lab.states();
    assert!(
        after.values().all(|(_, state)| state == "running"),
        "{after:?}"
    );
    changed(&before, &after)
}

#[test]
fn containers_follow_their_configuration_and_their_neighbours() {
    let lab = lab!();
    let more = [
        ("a", "environment: {X: '1'}"),
        (
            "b",
            "depends_on: {a: {condition: service_started, restart: true}}",
        ),
        ("c", "network_mode: 'service:a'"),
        ("d", ""),
    ];
    up(&lab, &more, "", &[]);
    assert_eq!(up(&lab, &more, "", &[]), [""; 0], "nothing changed");
    let began = |name: &str| {
        let name = format!("{}-{name}-1", lab.project.name);
        inspect(&name)["State"]["StartedAt"].clone()
    };
    let (b, d) = (began("b"), began("d"));
    let mut other = more;
    other[0].1 = "environment: {X: '2'}";
    assert_eq!(up(&lab, &other, "", &[]), ["P-a-1", "P-c-1"]);
    assert_ne!(began("b"), b, "restart: true");
    assert_eq!(began("d"), d);
    // Only what is named, and not what it depends on.
    assert_eq!(up(&lab, &other, "", &["--force-recreate", "b"]), ["P-b-1"]);
    assert_eq!(up(&lab, &more, "", &["--no-recreate"]), [""; 0]);
}

#[test]
fn replicas_are_counted_and_keep_their_numbers() {
    let lab = lab!();
    up(&lab, &[("a", "scale: 3")], "", &[]);
    docker(&["rm", "-f", &format!("{}-a-1", lab.project.name)]);
    assert_eq!(up(&lab, &[("a", "scale: 2")], "", &[]), [""; 0]);
    assert_eq!(up(&lab, &[("a", "scale: 3")], "", &[]), ["P-a-4"]);
    assert_eq!(up(&lab, &[("a", "")], "", &[]), ["P-a-3", "P-a-4"]);
    assert_eq!(up(&lab, &[("a", "")], "", &["--scale", "a=2"]), ["P-a-3"]);
}

#[test]
fn what_cannot_be_made_costs_nothing_that_runs() {
    let lab = lab!();
    let services = [("a", "environment: {X: '1'}"), ("b", ""), ("c", "")];
    up(&lab, &services, "", &[]);
    let before = lab.states();
    let file = |secret: &str| {
        format!(
            "services:\n{}{}{}secrets: {{s: {{file: {secret}}}}}\n",
            sleeper(&lab, "a", "secrets: [s]"),
            sleeper(&lab, "b", "environment: {X: '2'}"),
            sleeper(&lab, "c", "container_name: Pc, environment: {X: '2'}")
                .replace("Pc", &format!("{}-other", lab.project.name)),
        )
    };
    lab.write(&file("./none.txt"));
    let ended = lab.run(Tool::Wharf, UP);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("none.txt"), "{}", ended.stderr);
    assert!(ended.stderr.contains("is not replaced"), "{}", ended.stderr);
    assert_eq!(lab.states(), before, "{}", ended.stderr);
    std::fs::write(lab.directory.path().join("some.txt"), "x").unwrap();
    lab.write(&file("./some.txt"));
    lab.succeeds(Tool::Wharf, UP);
    let after = lab.states();
    let names: Vec<_> = after.keys().map(String::as_str).collect();
    assert_eq!(names, ["P-a-1", "P-b-1", "P-other"]);
    assert!(after.values().all(|(_, state)| state == "running"));
}

/// In whatever state a killed command leaves a replacement.
#[test]
fn what_is_left_of_a_replacement_becomes_one_container() {
    let lab = lab!();
    let image = lab.busybox();
    let file = |value: u32| {
        let line = "trap 'echo told' TERM; while :; do sleep 1; done";
        lab.write(&format!(
            "services:\n  a: {{image: {image}, command: [sh, -c, \"{line}\"], stop_grace_period: 1s, environment: {{X: '{value}'}}, volumes: [/data]}}\n"
        ));
    };
    let name = format!("{}-a-1", lab.project.name);
    let stages = [
        ("stopped", 1),
        ("stopped", 2),
        ("stopped", 3),
        ("removed", 2),
    ];
    for tool in [Tool::Wharf, Tool::Compose] {
        if tool == Tool::Compose && compose().is_none() {
            return;
        }
        // Docker Compose fails once at what it leaves itself in the other cases.
        let takes = |next: u32| tool == Tool::Wharf || next == 2;
        for (stage, next) in stages.into_iter().filter(|(_, next)| takes(*next)) {
            let context = format!("{tool:?} {stage} {next}");
            file(1);
            lab.succeeds(Tool::Wharf, UP);
            docker(&["exec", &name, "sh", "-c", "echo kept > /data/x"]);
            file(2);
            let mut command = lab.command(Tool::Wharf, &["up", "-d"]);
            let mut replacing = command.stderr(Stdio::null()).spawn().unwrap();
            while !docker(&["logs", &name]).contains("told") {
                let ended = replacing.try_wait().unwrap();
                assert_eq!(ended, None, "{context}");
            }
            replacing.kill().unwrap();
            replacing.wait().unwrap();
            let left: Vec<String> = lab.states().into_keys().collect();
            assert_eq!(left.len(), 2, "{context}: {left:?}");
            if stage == "removed" {
                docker(&["rm", "-f", &name]);
            }
            file(next);
            lab.succeeds(tool, &["up", "-d"]);
            let told = lab.succeeds(Tool::Wharf, &["up", "-d"]).stderr;
            let states: Vec<(String, String)> = lab
                .states()
                .into_iter()
                .map(|(name, (_, state))| (name, state))
                .collect();
            let wanted = [("P-a-1".to_owned(), "running".to_owned())];
            assert_eq!(states, wanted, "{context}: {told}");
            let data = docker(&["exec", &name, "cat", "/data/x"]);
            assert_eq!(data, "kept", "{context}");
            lab.succeeds(Tool::Wharf, &["down", "-v", "-t", "0"]);
        }
    }
}

#[test]
fn networks_and_volumes_that_changed_are_made_anew() {
    let lab = lab!();
    let services = [("a", "volumes: ['data:/data']"), ("b", "networks: [far]")];
    let rest = |network: &str, volume: &str| {
        format!("networks: {{far: {{labels: {{x: '{network}'}}}}}}\nvolumes: {{data: {volume}}}\n")
    };
    let label = |kind: &str, name: &str| {
        let name = format!("{}_{name}", lab.project.name);
        let format = "{{index .Labels \"x\"}}";
        docker(&[kind, "inspect", "--format", format, &name])
    };
    up(&lab, &services, &rest("1", "{labels: {x: '1'}}"), &[]);
    assert_eq!(
        up(&lab, &services, &rest("2", "{labels: {x: '1'}}"), &[]),
        ["P-b-1"]
    );
    assert_eq!(label("network", "far"), "2");
    // Data is lost only when somebody says so.
    let changed = rest("2", "{labels: {x: '2'}}");
    assert_eq!(up(&lab, &services, &changed, &[]), [""; 0]);
    assert_eq!(label("volume", "data"), "1");
    assert_eq!(up(&lab, &services, &changed, &["--yes"]), ["P-a-1"]);
    assert_eq!(label("volume", "data"), "2");
    // Another name is another volume, and the old one stays.
    let renamed = rest("2", &format!("{{name: {}_other}}", lab.project.name));
    assert_eq!(up(&lab, &services, &renamed, &[]), ["P-a-1"]);
    assert_eq!(label("volume", "data"), "2");
    // A container that lost its network gets it back.
    let network = format!("{}_far", lab.project.name);
    docker(&[
        "network",
        "disconnect",
        &network,
        &format!("{}-b-1", lab.project.name),
    ]);
    assert_eq!(up(&lab, &services, &renamed, &[]), ["P-b-1"]);
}

#[test]
fn what_others_made_is_not_taken_over() {
    let lab = lab!();
    let name = format!("{}_default", lab.project.name);
    docker(&["network", "create", &name]);
    lab.write(&format!("services:\n{}", sleeper(&lab, "a", "")));
    let ended = lab.run(Tool::Wharf, UP);
    docker(&["network", "rm", &name]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("was not made by this project"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("external: true"), "{}", ended.stderr);
}

#[test]
fn orphans_are_named_unless_nobody_wants_to_know() {
    let lab = lab!();
    up(&lab, &[("a", ""), ("gone", "")], "", &[]);
    lab.write(&format!("services:\n{}", sleeper(&lab, "a", "")));
    let told = lab.succeeds(Tool::Wharf, UP).stderr;
    let orphan = format!("{}-gone-1", lab.project.name);
    assert!(told.contains("orphans") && told.contains(&orphan), "{told}");
    let mut quiet = lab.command(Tool::Wharf, UP);
    let told = quiet
        .env("COMPOSE_IGNORE_ORPHANS", "true")
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&told.stderr).contains("orphans"));
    lab.succeeds(Tool::Wharf, &[UP, &["--remove-orphans"]].concat());
    assert_eq!(lab.states().into_keys().collect::<Vec<_>>(), ["P-a-1"]);
}

#[test]
fn a_dependency_that_is_not_required_may_fail() {
    let lab = lab!();
    let file = |required: bool| {
        let image = lab.busybox();
        let after = format!(
            "depends_on: {{once: {{condition: service_completed_successfully, required: {required}}}}}"
        );
        format!(
            "services:\n{}  once: {{image: {image}, command: 'false'}}\n",
            sleeper(&lab, "a", &after)
        )
    };
    lab.write(&file(true));
    assert_eq!(lab.run(Tool::Wharf, UP).code, Some(1));
    assert_eq!(lab.states()["P-a-1"].1, "created");
    lab.write(&file(false));
    let told = lab.succeeds(Tool::Wharf, UP).stderr;
    assert!(told.contains("not required"), "{told}");
    assert_eq!(lab.states()["P-a-1"].1, "running");
}
