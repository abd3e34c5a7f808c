//! One project, both tools in turn: whatever one of them did, the other goes on with it.

use crate::engine::lab;
use crate::tools::{Tool, changed, compose};

const FILE: &str = "
services:
  web: {image: IMAGE, command: ['sh', '-c', 'echo hello; exec sleep 600'], init: true, scale: 2, depends_on: {db: {condition: service_healthy}}}
  db: {image: IMAGE, command: sleep 600, init: true, volumes: ['data:/data'], healthcheck: {test: ['CMD', 'true'], interval: 1s}}
  side: {image: IMAGE, command: sleep 600, init: true, network_mode: 'service:db'}
volumes: {data: {}}
";

#[test]
fn each_command_of_one_goes_on_with_what_the_other_did() {
    let lab = lab!();
    if compose().is_none() {
        return;
    }
    lab.write(&FILE.replace("IMAGE", lab.busybox()));
    for (one, other) in [(Tool::Wharf, Tool::Compose), (Tool::Compose, Tool::Wharf)] {
        let context = format!("{one:?} then {other:?}");
        lab.succeeds(one, &["up", "-d"]);
        let first = lab.states();
        assert_eq!(first.len(), 4, "{context}");
        // Listed, with the same words.
        let listed = lab
            .succeeds(other, &["ps", "-a", "--format", "json"])
            .stdout;
        let mut listed: Vec<String> = listed
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|entry| format!("{} {}", entry["Name"], entry["State"]).replace('"', ""))
            .collect();
        listed.sort_unstable();
        let expected: Vec<String> = first
            .keys()
            .map(|name| format!("{} running", name.replace('P', &lab.project.name)))
            .collect();
        assert_eq!(listed, expected, "{context}");
        let logs = lab
            .succeeds(other, &["logs", "--no-log-prefix", "web"])
            .stdout;
        assert_eq!(logs.matches("hello").count(), 2, "{context}: {logs}");
        // Left alone.
        lab.succeeds(other, &["up", "-d"]);
        assert_eq!(changed(&first, &lab.states()), [""; 0], "{context}");
        // Stopped by one, started by the other.
        lab.succeeds(other, &["stop", "-t", "0"]);
        assert!(
            lab.states().values().all(|(_, state)| state == "exited"),
            "{context}"
        );
        lab.succeeds(one, &["start"]);
        assert!(
            lab.states().values().all(|(_, state)| state == "running"),
            "{context}"
        );
        lab.succeeds(other, &["restart", "-t", "0", "web"]);
        lab.succeeds(one, &["up", "-d", "--scale", "web=1"]);
        assert_eq!(lab.states().len(), 3, "{context}");
        lab.succeeds(other, &["up", "-d"]);
        assert_eq!(changed(&first, &lab.states()), ["P-web-2"], "{context}");
        lab.succeeds(other, &["down", "-v", "-t", "0"]);
        assert!(lab.states().is_empty(), "{context}");
        let label = format!("label=com.docker.compose.project={}", lab.project.name);
        for kind in ["network", "volume"] {
            let left = crate::engine::docker(&[kind, "ls", "-q", "--filter", &label]);
            assert_eq!(left, "", "{context}: {kind}");
        }
    }
}

const WITH_HOOKS: &str = "
services:
  web:
    image: IMAGE
    command: sleep 600
    init: true
    post_start: [{command: [sh, -c, 'echo post >> /hooks']}]
    pre_stop: [{command: [sh, -c, 'echo pre >> /hooks']}]
";

/// What a container made by the other tool does not record is in the compose file: its hooks. What both
/// record is the same: the env files that were asked for.
#[test]
fn the_hooks_of_the_file_run_in_what_the_other_tool_made() {
    let lab = lab!();
    if compose().is_none() {
        return;
    }
    lab.write(&WITH_HOOKS.replace("IMAGE", lab.busybox()));
    for env in ["one.env", "two.env"] {
        std::fs::write(lab.directory.path().join(env), "A=1\n").unwrap();
    }
    let name = format!("{}-web-1", lab.project.name);
    let hooks = || crate::engine::docker(&["exec", &name, "cat", "/hooks"]);
    let env_files = || {
        let label = "{{index .Config.Labels \"com.docker.compose.project.environment_file\"}}";
        crate::engine::docker(&["inspect", "--format", label, &name])
    };
    let mut seen = Vec::new();
    for tool in [Tool::Compose, Tool::Wharf] {
        lab.succeeds(
            tool,
            &["--env-file", "one.env", "--env-file", "two.env", "up", "-d"],
        );
        seen.push(env_files());
        lab.succeeds(Tool::Wharf, &["stop"]);
        lab.succeeds(Tool::Wharf, &["start"]);
        assert_eq!(hooks(), "post\npre\npost", "{tool:?}");
        lab.succeeds(tool, &["down", "-t", "-1"]);
    }
    assert!(seen[0].ends_with("/two.env"), "{seen:?}");
    assert_eq!(seen[0], seen[1]);
}
