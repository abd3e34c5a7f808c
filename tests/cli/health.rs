//! Healthchecks of local services: what they say when they fail, and that they may say much.

use serde_json::json;

use crate::support::Sandbox;

/// A service with this check, and one that waits for it.
fn checked(sandbox: &Sandbox, test: &serde_json::Value, timeout: &str) {
    let sleep = json!({"process": {"command": ["sleep", "600"]}});
    let project = json!({"services": {
        "db": {
            "healthcheck": {"test": test, "interval": "100ms", "timeout": timeout, "retries": 2},
            "x-wharf": sleep,
        },
        "app": {"depends_on": {"db": {"condition": "service_healthy"}}, "x-wharf": sleep},
    }});
    sandbox.write("compose.yaml", project.to_string());
}

#[test]
fn what_a_failing_check_says_is_told() {
    let sandbox = Sandbox::new();
    for (test, timeout, said) in [
        (
            json!([
                "CMD-SHELL",
                "echo looking; echo 'no route to it' >&2; exit 1"
            ]),
            "10s",
            "its healthcheck says unhealthy (no route to it)",
        ),
        (
            json!("seq 3000; echo all wrong; exit 1"),
            "10s",
            "its healthcheck says unhealthy (all wrong)",
        ),
        (
            json!(["CMD", "no-such-program"]),
            "10s",
            "its healthcheck says unhealthy (cannot run `no-such-program`: ",
        ),
        (
            json!("echo begun; sleep 600"),
            "300ms",
            "its healthcheck says unhealthy (it had not ended after 0.3 s)",
        ),
        (
            json!(["CMD", "false"]),
            "10s",
            "its healthcheck says unhealthy\n",
        ),
    ] {
        checked(&sandbox, &test, timeout);
        let failed = sandbox.wharf(&["up", "-d"]).expect(1);
        assert!(failed.stderr.contains(said), "{failed}");
        sandbox.wharf(&["down"]).expect(0);
    }
}

#[test]
fn a_check_that_says_much_does_not_wait_for_a_reader() {
    let sandbox = Sandbox::new();
    checked(&sandbox, &json!("head -c 3000000 /dev/zero"), "10s");
    sandbox.wharf(&["up", "-d"]).expect(0);
    sandbox.wharf(&["down"]).expect(0);
}

/// As those of a container: each is the user's, who may open it once more.
#[test]
fn what_runs_beside_a_service_of_another_user_may_open_its_output() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run a service as somebody else");
        return;
    }
    let sandbox = Sandbox::new();
    let open = ["-c", "chmod -R a+rX \"$HOME/..\""];
    sandbox.program("sh", &open).wait().expect(0);
    let project = json!({"services": {"web": {
        "user": "65534:65534",
        "stop_grace_period": "0s",
        "healthcheck": {"test": "echo fine > /dev/stderr", "interval": "100ms", "retries": 1},
        "post_start": [{"command": ["sh", "-c", "echo hook > /dev/stdout; echo hook > /dev/stderr"]}],
        "x-wharf": {"process": {"command": ["sleep", "600"]}},
    }}});
    sandbox.write("compose.yaml", project.to_string());
    sandbox.wharf(&["up", "-d", "--wait"]).expect(0);
    for options in [&["exec"][..], &["exec", "-T"]] {
        let words = ["web", "sh", "-c", "echo shown > /dev/stdout; exit 3"];
        let shown = sandbox.terminal(&[options, &words].concat()).wait();
        shown.expect(3).expect_text("shown");
    }
    let script = "echo shown > /dev/stdout; echo other > /dev/stderr; exit 3";
    sandbox
        .wharf(&["exec", "-T", "web", "sh", "-c", script])
        .expect_exactly(3, "shown\n", "other\n");
    sandbox.wharf(&["down"]).expect(0);
}
