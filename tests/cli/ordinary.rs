//! wharf as an ordinary user, and root among that user's files.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::process::Signal;

use crate::revival::running;
use crate::support::running::{Finished, Running};
use crate::support::{Sandbox, eventually, free_port};

/// The user; its group has the same number.
const USER: u32 = 65534;

const SLEEPER: &str =
    "services: {one: {stop_grace_period: 0s, x-wharf: {process: {command: [sleep, '600']}}}}\n";

/// A sandbox that the user may enter, or none where we cannot become that user.
fn open_sandbox() -> Option<Sandbox> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run wharf as somebody else");
        return None;
    }
    let sandbox = Sandbox::new();
    let open = "chmod -R a+rwX \"$HOME/..\"; chmod 700 \"$XDG_RUNTIME_DIR\"; mkdir -m 755 \"$TMPDIR/h\"; \
                chown 65534:65534 \"$TMPDIR/h\"";
    sandbox.program("sh", &["-c", open]).wait().expect(0);
    Some(sandbox)
}

/// Runs a command with the user's home: as the user, or as root where it begins with `sudo -E`.
fn run(sandbox: &Sandbox, command: &str) -> Finished {
    start(sandbox, command).wait()
}

/// The same, which goes on.
fn start(sandbox: &Sandbox, command: &str) -> Running {
    let become_user =
        format!("setpriv --reuid {USER} --regid {USER} --clear-groups env HOME=\"$TMPDIR/h\" ");
    let become_root = format!("env SUDO_UID={USER} HOME=\"$TMPDIR/h\" ");
    let command = match command.strip_prefix("sudo -E ") {
        Some(command) => become_root + command,
        None => become_user + command,
    };
    let line = format!("unset XDG_STATE_HOME XDG_RUNTIME_DIR; exec {command}");
    sandbox.program("sh", &["-c", &line])
}

fn all_below(path: &Path, each: &mut impl FnMut(&Path)) {
    each(path);
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        all_below(&entry.path(), each);
    }
}

#[test]
fn root_makes_nothing_among_the_files_of_a_user() {
    let Some(sandbox) = open_sandbox() else {
        return;
    };
    sandbox.write("compose.yaml", SLEEPER);
    run(&sandbox, "wharf up -d").expect(0);
    let told = "belongs to nobody, who could not use what root makes there";
    let runs = || {
        let ps = run(&sandbox, "wharf ps -q").expect(0);
        ps.stdout
    };
    let before = runs();
    let refused = run(&sandbox, "sudo -E wharf up -d --force-recreate").expect(1);
    refused
        .expect_text(told)
        .expect_text("hint: leave sudo out, as nobody");
    assert_eq!(runs(), before);
    // It may look and end; with or without a supervisor.
    let listed = run(&sandbox, "sudo -E wharf ps -q").expect(0);
    assert_eq!(listed.stdout, before);
    run(&sandbox, "sudo -E wharf stop").expect(0);
    run(&sandbox, "sudo -E wharf start")
        .expect(1)
        .expect_text(told);
    run(&sandbox, "wharf up -d").expect(0);
    run(&sandbox, "sudo -E wharf down").expect(0);
    let home = sandbox.variable("TMPDIR");
    all_below(&Path::new(&home).join("h"), &mut |path| {
        let uid = std::fs::symlink_metadata(path).unwrap().uid();
        assert_eq!(uid, USER, "{}", path.display());
    });
}

#[test]
fn root_follows_what_nobody_supervises() {
    let Some(sandbox) = open_sandbox() else {
        return;
    };
    let script = "until [ -e go ]; do echo tick; sleep 0.1; done; echo last; exit 3";
    sandbox.write(
        "compose.yaml",
        format!("services: {{one: {{x-wharf: {{process: {{command: [sh, -c, '{script}']}}}}}}}}\n"),
    );
    run(&sandbox, "wharf up -d").expect(0);
    let supervisor = eventually("a supervisor", || running(&sandbox, " supervise --project"));
    supervisor.signal(Signal::KILL);
    supervisor.wait_end();
    let logs = start(&sandbox, "sudo -E wharf logs -f");
    let attached = start(&sandbox, "sudo -E wharf attach --no-stdin one");
    logs.wait_for_line("tick");
    attached.wait_for_line("tick");
    sandbox.write("go", "");
    let attached = attached.wait().expect(3);
    assert!(attached.stdout.ends_with("tick\nlast\n"), "{attached}");
    let logs = logs.wait().expect(0);
    logs.expect_text("one-1  | last")
        .expect_text("one-1 exited with code 3");
    let home = sandbox.variable("TMPDIR");
    all_below(&Path::new(&home).join("h"), &mut |path| {
        let uid = std::fs::symlink_metadata(path).unwrap().uid();
        assert_eq!(uid, USER, "{}", path.display());
    });
    run(&sandbox, "wharf down").expect(0);
}

#[test]
fn files_of_root_in_a_users_state_are_told_with_what_gives_them_back() {
    let Some(sandbox) = open_sandbox() else {
        return;
    };
    sandbox.write("compose.yaml", SLEEPER);
    let state = Path::new(&sandbox.variable("TMPDIR")).join("h/.local/state/wharf");
    let made = "mkdir -m 700 -p \"$TMPDIR\"/h/.local/state/wharf/projects; chown 65534 \"$TMPDIR\"/h/.local/state";
    for (closed, made) in [
        (state.clone(), made.to_owned()),
        (
            state.join("projects"),
            format!("{made}; chown 65534 \"$TMPDIR\"/h/.local/state/wharf"),
        ),
    ] {
        sandbox.program("sh", &["-c", &made]).wait().expect(0);
        let hint = format!("sudo chown -R \"$(id -u)\" {}", closed.display());
        for command in ["up -d", "ps", "ls", "down"] {
            let refused = run(&sandbox, &format!("wharf {command}")).expect(1);
            assert!(refused.stderr.trim_end().ends_with(&hint), "{refused}");
        }
    }
    let doctor = run(&sandbox, "wharf doctor");
    assert!(!doctor.stdout.contains("sudo chown"), "{doctor}");
    sandbox
        .program("sh", &["-c", "chown 0 \"$TMPDIR\"/h/.local/state/wharf"])
        .wait()
        .expect(0);
    let doctor = run(&sandbox, "wharf doctor");
    let hint = format!("sudo chown -R \"$(id -u)\" {}", state.display());
    assert!(doctor.stdout.contains(&hint), "{doctor}");
}

#[test]
fn a_project_that_may_not_be_looked_into_is_not_told_as_missing() {
    let Some(sandbox) = open_sandbox() else {
        return;
    };
    sandbox.write("compose.yaml", SLEEPER);
    let made = "mkdir in && cp compose.yaml in && chmod 700 .";
    sandbox.program("sh", &["-c", made]).wait().expect(0);
    let inside =
        format!("cd in && exec setpriv --reuid {USER} --regid {USER} --clear-groups wharf config");
    sandbox
        .program("sh", &["-c", &inside])
        .wait()
        .expect(3)
        .expect_text("cannot read ")
        .expect_text("Permission denied");
}

#[test]
fn a_user_may_be_named_by_the_numbers_of_oneself() {
    let Some(sandbox) = open_sandbox() else {
        return;
    };
    for (user, code) in [
        ("65534:65534", 0),
        ("65534", 0),
        ("65534:1", 1),
        ("1:65534", 1),
    ] {
        sandbox.write(
            "compose.yaml",
            format!("services: {{one: {{user: '{user}', stop_grace_period: 0s, x-wharf: {{process: {{command: [sleep, '600']}}}}}}}}\n"),
        );
        run(&sandbox, "wharf up -d").expect(code);
        run(&sandbox, "wharf down").expect(0);
    }
}

#[test]
fn a_secret_that_may_not_be_read_is_not_to_be_made() {
    let Some(sandbox) = open_sandbox() else {
        return;
    };
    sandbox.write(
        "compose.yaml",
        "services: {one: {secrets: [s], x-wharf: {process: {command: [sleep, '600']}}}}\nsecrets: {s: {file: ./s}}\n",
    );
    sandbox.write("s", "x");
    sandbox.program("chmod", &["600", "s"]).wait().expect(0);
    run(&sandbox, "wharf up -d")
        .expect(1)
        .expect_text("hint: let this user read it, or correct `file` of `s`");
}

#[test]
fn an_engine_that_is_closed_to_a_user_is_told_from_one_that_is_silent() {
    let Some(sandbox) = open_sandbox() else {
        return;
    };
    let port = free_port();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  only: {{image: x}}\n  both:\n    image: x\n    stop_grace_period: 0s\n    ports: ['127.0.0.1:{port}:80']\n    \
             x-wharf: {{process: {{command: [sh, -c, 'exec busybox httpd -f -p 127.0.0.1:$$PORT']}}}}\n"
        ),
    );
    let socket = Path::new(&sandbox.variable("TMPDIR")).join("engine.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let told = "may not be asked by this user";
    for (group, mode, hint) in [
        (0, 0o600, "hint: wharf doctor "),
        (1, 0o660, "hint: sudo usermod -aG daemon \"$USER\""),
    ] {
        chown(&socket, None, Some(group)).unwrap();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode)).unwrap();
        let with = |command: &str| {
            run(
                &sandbox,
                &format!("env DOCKER_HOST=unix://{} {command}", socket.display()),
            )
        };
        for command in [
            "wharf up -d",
            "wharf up -d only",
            "wharf ps",
            "wharf exec only true",
        ] {
            let refused = with(command).expect(4).expect_text(told).expect_text(hint);
            assert!(!refused.stderr.contains("start the engine"), "{refused}");
        }
        let up = with("wharf up -d both").expect(0);
        let note = format!("{told}, so `both` runs as a local process");
        up.expect_text(&note);
        // Its ports are those of the process that it is.
        let ports = with("wharf ports both --format json").expect(0);
        let row = ports.json_lines().remove(0);
        assert_eq!(
            (&row["backend"], &row["state"]),
            (&"process".into(), &"ours".into()),
            "{ports}"
        );
        with("wharf down").expect(4);
    }
}

#[test]
fn a_holder_that_another_wharf_keeps_is_said_to_be_so() {
    let Some(sandbox) = open_sandbox() else {
        return;
    };
    let port = free_port();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  web:\n    stop_grace_period: 0s\n    ports: ['127.0.0.1:{port}:80']\n    \
             x-wharf: {{process: {{command: [sh, -c, 'exec busybox httpd -f -p 127.0.0.1:$$PORT']}}}}\n"
        ),
    );
    run(&sandbox, "wharf up -d").expect(0);
    // As root, with files of its own.
    let who = sandbox.wharf(&["who", &port.to_string()]).expect(1);
    let project = sandbox.project();
    let told = format!(
        "keeps it, as a service of project {project}, and may start it again: sudo -u nobody "
    );
    assert!(who.stdout.contains(&told), "{who}");
    assert!(
        who.stdout.contains(&format!("wharf -p {project} stop web")),
        "{who}"
    );
    run(&sandbox, "wharf down").expect(0);
}

#[test]
fn what_a_user_may_not_have_is_told_before_anything_ends() {
    let Some(sandbox) = open_sandbox() else {
        return;
    };
    let stack = |more: &str| {
        format!(
            "services: {{one: {{{more}, stop_grace_period: 0s, x-wharf: {{process: {{command: [sleep, '600']}}}}}}}}\n"
        )
    };
    sandbox.write("compose.yaml", stack("oom_score_adj: 500"));
    run(&sandbox, "wharf up -d").expect(0);
    let before = run(&sandbox, "wharf ps -q").expect(0).stdout;
    for (more, told) in [
        ("oom_score_adj: -900", "oom_score_adj of -900 is below"),
        (
            "user: root",
            "service one is to run as user `root`, which only root can do",
        ),
        (
            "ulimits: {memlock: -1}",
            "ulimit memlock of unlimited is above",
        ),
    ] {
        sandbox.write("compose.yaml", stack(more));
        let line = "prlimit --memlock=65536 wharf up -d";
        run(&sandbox, line).expect(1).expect_text(told);
        assert_eq!(run(&sandbox, "wharf ps -q").expect(0).stdout, before);
    }
    run(&sandbox, "wharf down").expect(0);
}
