//! Command by command: what both tools print about one project, and what both make of one state.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::engine::{Lab, lab};
use crate::tools::{Tool, compose};

const FILE: &str = r#"
services:
  web: {image: IMAGE, command: ['sh', '-c', 'echo one; echo two; exec sleep 600'], init: true, scale: 2, ports: ["127.0.0.1::80"], labels: {l: "1"}, depends_on: [db]}
  db: {image: IMAGE, command: sleep 600, init: true, volumes: ['data:/data'], healthcheck: {test: ['CMD', 'true'], interval: 1s}}
  job: {image: IMAGE, command: ['sh', '-c', 'echo done; exit 3']}
  extra: {image: "IMAGE${TAG:-}", command: sleep 600, profiles: [p]}
volumes: {data: {}}
"#;

/// What shows something, and how it ends.
const SHOWN: [&[&str]; 44] = [
    &["ps", "-q"],
    &["ps", "-aq"],
    &["ps", "--services"],
    &["ps", "--status", "exited", "--services"],
    &["ps", "-a", "--filter", "status=exited", "-q"],
    &[
        "ps",
        "-a",
        "--format",
        "{{.Name}} {{.Service}} {{.State}} {{.ExitCode}} {{.Ports}}",
    ],
    &["ls", "-q", "--filter", "name=PROJECT"],
    &["images", "-q"],
    &["port", "web", "80"],
    &["port", "--index", "2", "web", "80"],
    &["port", "web", "81"],
    &["volumes", "-q"],
    &["stats", "--no-stream", "--format", "{{.Name}} {{.ID}}"],
    &["logs", "--no-color", "web"],
    &[
        "logs",
        "--no-color",
        "--no-log-prefix",
        "--tail",
        "1",
        "web",
    ],
    &["logs", "--no-color", "--index", "2", "web"],
    &["exec", "-T", "web", "sh", "-c", "echo $0; exit 7"],
    &["exec", "-T", "--index", "2", "web", "hostname"],
    &[
        "exec",
        "-T",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "web",
        "sh",
        "-c",
        "echo $A; pwd",
    ],
    &["exec", "-T", "job", "true"],
    &["run", "--rm", "-T", "--no-deps", "job"],
    &["run", "--rm", "-T", "--entrypoint", "echo", "job", "a", "b"],
    &["cp", "web:/bin/nope", "-"],
    &["wait", "job"],
    &["config"],
    &["config", "web"],
    &["config", "--no-interpolate"],
    &["config", "--no-normalize"],
    &["config", "--services"],
    &["config", "-q", "--services"],
    &["config", "--services", "--volumes"],
    &["config", "--volumes"],
    &["config", "--networks"],
    &["config", "--images"],
    &["config", "--profiles"],
    &["config", "--models"],
    &["config", "--variables"],
    &["config", "--hash", "*"],
    &["config", "-q", "--hash", "web"],
    &["config", "-q"],
    &["config", "-q", "--environment"],
    &["--profile", "p", "config", "--services"],
    &["pull", "--policy", "missing", "-q", "db"],
    &["top", "nope"],
];

/// What changes something; each goes on with what the one before has left.
const CHANGES: [&[&str]; 20] = [
    &["create"],
    &["up", "-d"],
    &["pause", "web"],
    &["unpause"],
    &["kill", "-s", "KILL", "db"],
    &["start"],
    &["stop", "-t", "0", "web"],
    &["restart", "-t", "0", "web"],
    &["scale", "web=1"],
    &["up", "-d", "--scale", "web=3", "--no-recreate"],
    &["rm", "-fs", "web"],
    &["up", "-d", "--no-deps", "web"],
    &["--profile", "p", "up", "-d", "extra"],
    &["up", "-d", "--force-recreate", "-t", "0"],
    &["run", "-d", "--name", "PROJECT-once", "job", "sleep", "600"],
    &["up", "-d", "nope"],
    &["stop", "-t", "0"],
    &["start", "db"],
    &["down", "-t", "0", "web"],
    &["down", "-v", "-t", "0", "--remove-orphans"],
];

/// Lines in an order: neither tool has one for what stands side by side.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn write(lab: &Lab) {
    lab.write(&FILE.replace("IMAGE", lab.busybox()));
}

fn bring_up(lab: &Lab) {
    write(lab);
    lab.succeeds(Tool::Wharf, &["up", "-d"]);
    // Its end is seen by both.
    lab.run(Tool::Wharf, &["wait", "job"]);
}

#[test]
fn both_print_the_same_about_a_project() {
    let lab = lab!();
    if compose().is_none() {
        return;
    }
    bring_up(&lab);
    let mut differing = Vec::new();
    for arguments in SHOWN {
        // Other tests have projects at the same time.
        let given = arguments.iter();
        let given: Vec<String> = given
            .map(|word| word.replace("PROJECT", &lab.project.name))
            .collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        let (ours, theirs) = (lab.run(Tool::Wharf, &given), lab.run(Tool::Compose, &given));
        // A mistake on the command line has a code of its own.
        let is_same = match (ours.code, theirs.code) {
            (Some(2), Some(1)) => true,
            (ours, theirs) => ours == theirs,
        };
        if !is_same || sorted(&ours.stdout) != sorted(&theirs.stdout) {
            differing.push(format!("{arguments:?}\n{ours:#?}\n{theirs:#?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// What `ps` tells in both tools and does not count in seconds.
const KEYS: [&str; 17] = [
    "Command",
    "CreatedAt",
    "ExitCode",
    "ID",
    "Image",
    "Labels",
    "LocalVolumes",
    "Mounts",
    "Name",
    "Names",
    "Networks",
    "Ports",
    "Project",
    "Publishers",
    "Service",
    "Size",
    "State",
];

#[test]
fn both_list_the_same_objects() {
    let lab = lab!();
    if compose().is_none() {
        return;
    }
    bring_up(&lab);
    let objects = |tool, arguments: &[&str]| {
        let told = lab.succeeds(tool, arguments).stdout;
        let lines = told.lines().map(|line| {
            let mut object: Value = serde_json::from_str(line).unwrap();
            if let Some(object) = object.as_object_mut() {
                object.retain(|key, _| KEYS.contains(&key.as_str()));
                if let Some(labels) = object.get_mut("Labels") {
                    let text = labels.as_str().unwrap_or_default().to_owned();
                    let mut all: Vec<&str> = text.split(',').collect();
                    all.sort_unstable();
                    *labels = all.join(",").into();
                }
            }
            object.to_string()
        });
        let mut lines: Vec<String> = lines.collect();
        lines.sort_unstable();
        lines
    };
    let arguments = ["ps", "-a", "--format", "json"];
    let ours = objects(Tool::Wharf, &arguments);
    assert_eq!(ours.len(), 4);
    assert_eq!(ours, objects(Tool::Compose, &arguments));
    // The processes of a container, without the time that they took.
    let processes = |tool| {
        let told = lab.succeeds(tool, &["top"]).stdout;
        let rows = told.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().take(5).collect();
            words.join(" ")
        });
        let mut rows: Vec<String> = rows.collect();
        rows.sort_unstable();
        rows
    };
    assert_eq!(processes(Tool::Wharf), processes(Tool::Compose));
}

#[test]
fn both_leave_the_same_behind() {
    let lab = lab!();
    if compose().is_none() {
        return;
    }
    write(&lab);
    let after = |tool| {
        let mut all = Vec::new();
        for arguments in CHANGES {
            let arguments: Vec<String> = arguments
                .iter()
                .map(|word| word.replace("PROJECT", &lab.project.name))
                .collect();
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let ended = lab.run(tool, &words);
            let states = lab.states().into_iter();
            let states: BTreeMap<String, String> = states
                .map(|(name, (_, state))| (name, state))
                // It ends by itself in its own time.
                .filter(|(name, _)| name != "P-job-1")
                .collect();
            all.push((arguments.join(" "), ended.code == Some(0), states));
        }
        all
    };
    assert_eq!(after(Tool::Wharf), after(Tool::Compose));
}
