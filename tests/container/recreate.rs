//! What `up` makes anew and what it leaves alone, by Docker Compose's rules.

use crate::engine::{Lab, docker, inspect, lab};
use crate::tools::{Tool, changed};

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
