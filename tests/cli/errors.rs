//! What goes wrong is said with place, cause and hint, and nothing is half-started.

use crate::support::{Sandbox, free_port, python};

#[test]
fn no_engine_names_the_services_that_need_one() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services: {db: {image: db}, web: {image: web}}\n",
    );
    let failed = sandbox.wharf(&["up", "-d"]).expect(4);
    assert!(failed.stderr.contains("`db`, `web`"), "{failed}");
    assert!(failed.stderr.contains("hint:"), "{failed}");
}

#[test]
fn an_unreadable_file_and_a_missing_one() {
    let sandbox = Sandbox::new();
    let failed = sandbox.wharf(&["-f", "nowhere.yaml", "up"]);
    assert_ne!(failed.code(), 0);
    assert!(failed.stderr.contains("nowhere.yaml"), "{failed}");
    let failed = sandbox.wharf(&["up"]);
    assert_ne!(failed.code(), 0);
    assert!(failed.stderr.contains("compose.yaml"), "{failed}");
}

#[test]
fn invalid_files_are_shown_with_their_place() {
    let cases = [
        ("services:\n  a: [\n", "compose.yaml:"),
        ("services:\n  a:\n    imag: x\n", "image"),
        (
            "services:\n  a: {image: x, x-wharf: {proces: {}}}\n",
            "process",
        ),
        ("services:\n  a: {image: x, ports: ['70000:80']}\n", "70000"),
    ];
    for (text, expected) in cases {
        let sandbox = Sandbox::new();
        sandbox.write("compose.yaml", text);
        let failed = sandbox.wharf(&["up", "-d"]).expect(3);
        assert!(failed.stderr.contains("compose.yaml:"), "{failed}");
        assert!(
            failed.stderr.contains(expected),
            "no `{expected}` in {failed}"
        );
        std::fs::remove_file(sandbox.path().join("compose.yaml")).unwrap();
    }
}

#[test]
fn an_unknown_service_is_a_mistake_of_the_command_line() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services: {a: {x-wharf: {process: {command: [sleep, '600']}}}}\n",
    );
    for command in ["up", "stop", "logs", "ps", "down", "start", "restart"] {
        let failed = sandbox.wharf(&[command, "b"]).expect(2);
        assert!(failed.stderr.contains("no such service: b"), "{failed}");
    }
}

#[test]
fn a_command_that_does_not_exist() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services: {a: {x-wharf: {process: {command: [no-such-program]}}}}\n",
    );
    let failed = sandbox.wharf(&["up", "-d"]).expect(1);
    assert!(failed.stderr.contains("no-such-program"), "{failed}");
    assert!(failed.stderr.contains("hint:"), "{failed}");
}

#[test]
fn what_ends_without_its_port_is_told() {
    let sandbox = Sandbox::new();
    let port = free_port();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  a:\n    ports: ['{port}:80']\n    \
             x-wharf: {{process: {{command: [sh, -c, 'echo first; echo no config >&2; exit 3']}}}}\n"
        ),
    );
    sandbox
        .wharf(&["up", "-d"])
        .expect(0)
        .expect_text("has exited with code 3 and never listened on")
        .expect_text("its last line: no config");
}

#[test]
fn who_has_the_port_that_a_program_wanted_instead_of_its_own_is_told() {
    let sandbox = Sandbox::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, other) = (free_port(), taken.local_addr().unwrap().port());
    let project = |code: u8, protocol: &str| {
        format!(
            "services:\n  a:\n    ports: [{{target: {other}, published: '{port}'{protocol}}}]\n    \
             x-wharf: {{process: {{command: [sh, -c, 'echo in use; exit {code}']}}}}\n"
        )
    };
    let me = format!("(pid {},", std::process::id());
    // Where it is asked whether it answers, its end is a failure.
    for (protocol, outcome) in [("", 0), (", app_protocol: http", 1)] {
        sandbox.write("compose.yaml", project(1, protocol));
        sandbox
            .wharf(&["up", "-d"])
            .expect(outcome)
            .expect_text(&format!("wanted {other}/tcp, its port in a container"))
            .expect_text(&format!("here it is to listen on {port}, its $PORT"))
            .expect_text(&format!("{other}/tcp is taken by"))
            .expect_text(&me);
    }
    // What has done its work wanted no port.
    sandbox.write("compose.yaml", project(0, ""));
    let done = sandbox.wharf(&["up", "-d"]).expect(0);
    assert!(!done.stderr.contains("is taken by"), "{done}");
}

#[test]
fn a_server_that_goes_to_the_background_is_told_as_one() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let script = "import os, socket, sys, time\n\
                  s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
                  if os.fork(): os._exit(0)\n\
                  time.sleep(600)\n";
    for restart in ["no", "always"] {
        let project = serde_json::json!({"services": {"web": {
            "ports": [format!("127.0.0.1:{port}:{port}")],
            "restart": restart,
            "x-wharf": {"process": {"command": [python(), "-c", script, port.to_string()]}},
        }}});
        sandbox.write("compose.yaml", project.to_string());
        sandbox
            .wharf(&["up", "-d"])
            .expect(0)
            .expect_text("has exited with code 0 and ")
            .expect_text("have it stay in the foreground");
        sandbox.wharf(&["down"]).expect(0);
    }
}

#[test]
fn two_services_on_one_port_are_refused_before_anything_starts() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let service =
        format!("{{ports: ['{port}:80'], x-wharf: {{process: {{command: [sleep, '600']}}}}}}");
    sandbox.write(
        "compose.yaml",
        format!("services:\n  a: {service}\n  b: {service}\n"),
    );
    let failed = sandbox.wharf(&["up", "-d"]).expect(3);
    assert!(failed.stderr.contains(&port.to_string()), "{failed}");
    assert!(
        sandbox
            .wharf(&["ps", "-a", "-q"])
            .expect(0)
            .stdout
            .is_empty()
    );
}

#[test]
fn a_holder_that_may_not_be_signalled() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run wharf as somebody else");
        return;
    }
    let sandbox = Sandbox::new();
    let port = free_port();
    sandbox.write(
        "compose.yaml",
        format!("services:\n  a:\n    ports: ['127.0.0.1:{port}:80']\n    x-wharf: {{process: {{command: [sleep, '600']}}}}\n"),
    );
    let holder = sandbox.server(port, &[]);
    // As nobody, with homes that nobody may write to.
    let open = "chmod -R a+rwX \"$HOME/..\"; chmod 700 \"$XDG_RUNTIME_DIR\"; \
                exec setpriv --reuid 65534 --regid 65534 --clear-groups env XDG_STATE_HOME=\"$TMPDIR/s\" XDG_RUNTIME_DIR=\"$TMPDIR/r\" wharf up -d --force";
    let refused = sandbox.program("sh", &["-c", open]).wait().expect(5);
    assert!(refused.stderr.contains("root"), "{refused}");
    assert!(!holder.process().ended());
}

#[test]
fn a_hint_for_a_hidden_holder_names_a_command_that_exists() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run wharf as somebody else");
        return;
    }
    let sandbox = Sandbox::new();
    let port = free_port();
    let holder = sandbox.server(port, &[]);
    let open = format!(
        "chmod -R a+rwX \"$HOME/..\"; chmod 700 \"$XDG_RUNTIME_DIR\"; \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups env XDG_STATE_HOME=\"$TMPDIR/s\" XDG_RUNTIME_DIR=\"$TMPDIR/r\" wharf server start --port {port} --background"
    );
    let refused = sandbox.program("sh", &["-c", &open]).wait().expect(5);
    let command = format!("sudo ss -tlnp sport = :{port}");
    assert!(refused.stderr.contains(&command), "{refused}");
    assert!(!holder.process().ended());
}

#[test]
fn an_exit_code_from_an_unknown_service_is_refused_before_anything_starts() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services: {a: {x-wharf: {process: {command: [sleep, '600']}}}}\n",
    );
    let failed = sandbox.wharf(&["up", "--exit-code-from", "b"]).expect(2);
    assert!(failed.stderr.contains("no such service: b"), "{failed}");
    let instances = sandbox.wharf(&["ps", "-a", "-q"]).expect(0);
    assert!(instances.stdout.is_empty(), "{instances}");
}

#[test]
fn what_cannot_be_seen_without_an_engine_is_said() {
    let sandbox = Sandbox::new();
    let down = sandbox.wharf(&["-p", "elsewhere", "down"]).expect(0);
    assert!(down.stderr.contains("does not answer"), "{down}");
    assert!(
        down.stderr.contains("project elsewhere are not seen"),
        "{down}"
    );
}
