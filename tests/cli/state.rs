//! The directories of the state and of the sockets: full, closed, somebody else's, damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::support::running::Finished;
use crate::support::{Sandbox, python};

/// A service that only sleeps.
const SLEEPER: &str = "services:\n  one: {x-wharf: {process: {command: [sleep, '600']}}}\n";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The directory that a variable names.
fn place(sandbox: &Sandbox, variable: &str) -> PathBuf {
    PathBuf::from(sandbox.variable(variable))
}

/// Runs a script that sees file systems of its own in these places.
fn among_mounts(sandbox: &Sandbox, script: &str) -> Finished {
    sandbox
        .program("unshare", &["--mount", "sh", "-c", script])
        .wait()
}

/// Runs a script after `up -d` of a project whose state is on a disk of one megabyte; `fill` fills it.
fn on_a_small_disk(file: &str, script: &str) -> Finished {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", file);
    let script = format!(
        "fill() {{ cat /dev/zero > $XDG_STATE_HOME/fill; }}; \
         mount -t tmpfs -o mode=700,size=1m none $XDG_STATE_HOME; wharf up -d; {script}"
    );
    among_mounts(&sandbox, &script).expect(0)
}

#[test]
fn what_is_full_or_closed_is_told_with_what_helps() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", SLEEPER);
    let mount = "mount -t tmpfs -o mode=700";
    let run = place(&sandbox, "XDG_RUNTIME_DIR").display().to_string();
    let hint = "hint: unset XDG_RUNTIME_DIR ";
    for (options, hint) in [
        ("nr_inodes=1", format!("hint: df -i {run} ")),
        ("nr_inodes=2", format!("hint: df -i {run}/wharf ")),
        ("ro", hint.to_owned()),
    ] {
        let script = format!("{mount},{options} none $XDG_RUNTIME_DIR; wharf up -d");
        let up = among_mounts(&sandbox, &script);
        assert!(up.code() == 1 && up.stderr.contains(&hint), "{up}");
        // It is what helps.
        if options == "ro" {
            let script = format!("{script}; unset XDG_RUNTIME_DIR; wharf up -d && wharf down");
            among_mounts(&sandbox, &script).expect(0);
        }
    }
    let script = format!(
        "{mount},size=1m none $XDG_STATE_HOME; wharf up -d && wharf stop; \
         while [ -e $XDG_STATE_HOME/wharf/projects/*/supervisor.json ]; do sleep 0.05; done; \
         cat /dev/zero > $XDG_STATE_HOME/fill; wharf start; echo code $?; rm $XDG_STATE_HOME/fill; wharf down"
    );
    let start = among_mounts(&sandbox, &script).expect(0);
    assert!(start.stdout.contains("code 1"), "{start}");
    for word in ["No space left on device", "hint: df -h "] {
        assert!(start.stderr.contains(word), "{start}");
    }
}

#[test]
fn where_no_file_can_be_made_a_start_fails_and_is_not_tried_for_ever() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", SLEEPER);
    let script = "mount -t tmpfs -o mode=700,nr_inodes=100 none $XDG_STATE_HOME; wharf up -d; \
                  i=0; while touch $XDG_STATE_HOME/$i 2>/dev/null; do i=$((i+1)); done; \
                  wharf restart -t 0; echo code $?; rm $XDG_STATE_HOME/[0-9]*; wharf start && wharf down";
    let done = among_mounts(&sandbox, script).expect(0);
    assert!(done.stdout.contains("code 1"), "{done}");
    for word in ["No space left on device", "hint: df -i "] {
        assert!(done.stderr.contains(word), "{done}");
    }
}

#[test]
fn what_waits_for_its_next_start_on_a_full_disk_can_be_removed() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let file = "services:\n  one: {restart: always, x-wharf: {process: {command: [sh, -c, 'sleep 0.3; exit 3']}}}\n";
    let script = "fill; until wharf ps -a | grep -q Exited; do sleep 0.05; done; wharf down";
    let down = on_a_small_disk(file, script);
    assert!(!down.stderr.contains("is running"), "{down}");
}

#[test]
fn what_is_stopped_on_a_full_disk_between_two_starts_stays_stopped() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let file = "services:\n  one:\n    deploy: {restart_policy: {condition: any, delay: 60s}}\n    \
         x-wharf: {process: {command: [sh, -c, exit 3]}}\n";
    let script = "until wharf ps -a | grep -q Restarting; do sleep 0.05; done; fill; \
                  wharf stop && wharf ps -a && wharf rm -f && wharf down";
    let done = on_a_small_disk(file, script);
    assert!(done.stdout.contains("Exited (3)"), "{done}");
}

#[test]
fn what_its_policy_gives_up_on_a_full_disk_has_exited() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let file = "services:\n  one:\n    deploy: {restart_policy: {condition: any, delay: 2s, max_attempts: 1}}\n    \
         x-wharf: {process: {command: [sh, -c, exit 3]}}\n";
    let script = "until wharf ps -a | grep -q Restarting; do sleep 0.05; done; fill; \
                  until wharf ps -a | grep -q Exited; do sleep 0.05; done; wharf rm -f && wharf down";
    on_a_small_disk(file, script);
}

#[test]
fn what_ended_on_a_full_disk_without_its_keeper_is_not_waited_for() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    // The other one keeps the supervisor.
    let two = format!("{SLEEPER}  two: {{x-wharf: {{process: {{command: [sleep, '600']}}}}}}\n");
    let script = "fill; \
                  set -- $(cat $XDG_STATE_HOME/wharf/projects/*/instances/*-one-1/run); kill -9 $3; \
                  wharf stop -t 0 one; wharf start one; echo code $?; \
                  rm $XDG_STATE_HOME/fill; wharf start one && wharf down";
    let done = on_a_small_disk(&two, script);
    assert!(done.stdout.contains("code 1"), "{done}");
}

#[test]
fn what_cannot_be_noted_is_not_paused() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let script = "fill; wharf pause; echo code $?; rm $XDG_STATE_HOME/fill; \
                  wharf exec -T one echo it runs && wharf pause && wharf unpause && wharf down";
    let done = on_a_small_disk(SLEEPER, script);
    for text in ["code 1", "it runs"] {
        assert!(done.stdout.contains(text), "{done}");
    }
}

#[test]
fn a_runtime_directory_that_others_can_change_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", SLEEPER);
    let dir = place(&sandbox, "XDG_RUNTIME_DIR").join("wharf");
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let up = sandbox.wharf(&["up", "-d"]).expect(1);
    let hint = format!("hint: chmod go-w {}", dir.display());
    assert!(up.stderr.contains(&hint), "{up}");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.wharf(&["up", "-d"]).expect(0);
    sandbox.wharf(&["down"]).expect(0);
}

/// Listens at a socket as somebody else and says what a supervisor would.
const IMPOSTOR: &str = "\
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
os.unlink(sys.argv[1]); s.bind(sys.argv[1])
os.setuid(65534)
s.listen(9)
print('listens', flush=True)
while True:
    c, _ = s.accept()
    try:
        c.sendall(sys.argv[2].encode() + b'\\n')
        c.recv(9999)
        c.sendall(b'{\"reply\":\"done\",\"id\":null,\"notes\":[]}\\n')
    except OSError: pass
";

#[test]
fn another_user_at_the_socket_is_not_believed() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", SLEEPER);
    sandbox.write("impostor.py", IMPOSTOR);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let socket = format!("wharf/{}.sock", sandbox.project());
    let socket = place(&sandbox, "XDG_RUNTIME_DIR").join(socket);
    let aside = socket.with_extension("aside");
    fs::rename(&socket, &aside).unwrap();
    fs::write(&socket, "").unwrap();
    let greeting = {
        use std::io::BufRead as _;
        let supervisor = std::os::unix::net::UnixStream::connect(&aside).unwrap();
        let mut line = String::new();
        std::io::BufReader::new(supervisor)
            .read_line(&mut line)
            .unwrap();
        line
    };
    let arguments = ["impostor.py", socket.to_str().unwrap(), greeting.trim()];
    let impostor = sandbox.program(python(), &arguments);
    impostor.wait_for_line("listens");
    for command in [&["stop"][..], &["kill"], &["restart"]] {
        let told = sandbox.wharf(command).expect(1);
        let words = "another user (uid 65534) listens there";
        assert!(told.stderr.contains(words), "{told}");
    }
    impostor.signal(rustix::process::Signal::KILL);
    drop(impostor.wait());
    fs::rename(&aside, &socket).unwrap();
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn an_entry_that_is_no_file_is_named_and_not_waited_for() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", SLEEPER);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let project = place(&sandbox, "XDG_STATE_HOME")
        .join("wharf/projects")
        .join(sandbox.project());
    let instance = format!("instances/{}-one-1", sandbox.project());
    let entry = project.join(instance).join("instance.json");
    let aside = entry.with_extension("aside");
    fs::rename(&entry, &aside).unwrap();
    nix::unistd::mkfifo(&entry, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ps = sandbox.wharf(&["ps"]).expect(1);
    assert!(ps.stderr.contains("it is no regular file"), "{ps}");
    assert!(ps.stderr.contains("hint: kill "), "{ps}");
    fs::rename(&aside, &entry).unwrap();
    let lock = project.join("project.lock");
    fs::rename(&lock, &aside).unwrap();
    fs::create_dir(&lock).unwrap();
    let down = sandbox.wharf(&["down"]).expect(1);
    assert!(down.stderr.contains("hint: mv "), "{down}");
    fs::remove_dir(&lock).unwrap();
    fs::rename(&aside, &lock).unwrap();
    sandbox.wharf(&["down"]).expect(0);
}
