//! Systems that refuse a call: old kernels, sandboxes, limits that others have used up.

use nix::libc;
use rustix::io::Errno;
use rustix::process::Signal;

use crate::support::running::Finished;
use crate::support::{Sandbox, eventually, free_port, python};

/// Runs a program with a call answered by an error number, in it and in whatever it starts (`seccomp(2)`).
const REFUSING: &str = r#"
import ctypes, os, struct, sys
call, error = int(sys.argv[1]), int(sys.argv[2])
def instruction(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)
code = ctypes.create_string_buffer(
    instruction(0x20, 0, 0, 0) + instruction(0x15, 0, 1, call)
    + instruction(6, 0, 0, 0x00050000 | error) + instruction(6, 0, 0, 0x7fff0000))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
program = Program(4, ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program)):
    sys.exit("no filter: " + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[3], sys.argv[3:])
"#;

const TALKER: &str = "services:\n  talker:\n    stop_grace_period: 0s\n    x-wharf: {process: {command: \
                      [sh, -c, 'echo one; echo two >&2; echo three; exec sleep 600']}}\n";

fn refusing(sandbox: &Sandbox, call: i64, error: Errno, command: &[&str]) -> Finished {
    let call = call.to_string();
    let error = error.raw_os_error().to_string();
    let mut words = vec!["-c", REFUSING, &call, &error];
    words.extend(command);
    sandbox.program(python(), &words).wait()
}

#[test]
fn output_that_cannot_be_moved_is_copied() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TALKER);
    for error in [Errno::NOSYS, Errno::INVAL] {
        refusing(&sandbox, libc::SYS_splice, error, &["wharf", "up", "-d"]).expect(0);
        let logs = || {
            let said = sandbox.wharf(&["logs", "--no-log-prefix"]).expect(0);
            let mut lines: Vec<String> = said.stdout.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        eventually("all output is recorded", || {
            (logs() == ["one", "three", "two"]).then_some(())
        });
        sandbox.wharf(&["down"]).expect(0);
    }
}

#[test]
fn nothing_is_started_that_could_not_be_stopped() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TALKER);
    for (call, error, hint) in [
        (libc::SYS_pidfd_open, Errno::NOSYS, "hint: uname -r"),
        (libc::SYS_pidfd_send_signal, Errno::PERM, "hint: docker run"),
    ] {
        let refused = refusing(&sandbox, call, error, &["wharf", "up", "-d"]).expect(1);
        refused
            .expect_text("without which no service could be stopped for sure")
            .expect_text(hint);
        let listed = sandbox.wharf(&["ps", "-q"]).expect(0);
        assert_eq!(listed.stdout, "");
    }
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn a_holder_that_cannot_be_held_is_not_said_to_have_gone() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let server = sandbox.server(port, &[]);
    let port = port.to_string();
    let command = ["wharf", "free", "--force", &port];
    let refused = refusing(&sandbox, libc::SYS_pidfd_open, Errno::NOSYS, &command).expect(1);
    let refused = refused.expect_text("not permitted to stop");
    assert!(!refused.stderr.contains("gone by itself"), "{refused}");
    server.signal(Signal::TERM);
    server.wait();
}

#[test]
fn a_limit_of_watched_files_is_told_as_that() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TALKER);
    let up = ["wharf", "up", "-d"];
    refusing(&sandbox, libc::SYS_inotify_init1, Errno::MFILE, &up)
        .expect(1)
        .expect_text("limit of programs that watch files is reached")
        .expect_text("hint: sudo sysctl fs.inotify.max_user_instances=512");
    sandbox.wharf(&["up", "-d"]).expect(0);
    let follow = ["wharf", "logs", "-f"];
    let refused = refusing(&sandbox, libc::SYS_inotify_add_watch, Errno::NOSPC, &follow).expect(1);
    let refused = refused
        .expect_text("limit of watched directories is reached")
        .expect_text("hint: sudo sysctl fs.inotify.max_user_watches=524288");
    assert!(!refused.stderr.contains("df -"), "{refused}");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn want_of_descriptors_is_told_and_no_panic() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TALKER);
    refusing(
        &sandbox,
        libc::SYS_socketpair,
        Errno::MFILE,
        &["wharf", "ps"],
    )
    .expect(1)
    .expect_text("Too many open files");
    for limit in 4..12 {
        let line = format!("ulimit -n {limit}; exec wharf ps");
        let told = sandbox.program("sh", &["-c", &line]).wait();
        assert!(!told.stderr.contains("panicked"), "{limit}: {told}");
    }
}

#[test]
fn a_place_without_named_pipes_is_told_with_what_chooses_another() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TALKER);
    refusing(
        &sandbox,
        libc::SYS_mknodat,
        Errno::PERM,
        &["wharf", "up", "-d"],
    )
    .expect(1)
    .expect_text("no named pipe can be made there")
    .expect_text("hint: export XDG_STATE_HOME=DIR");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn too_many_processes_are_told_as_that() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TALKER);
    let up = ["wharf", "up", "-d"];
    // How programs are started here differs between C libraries; a keeper is forked.
    sandbox.wharf(&["create"]).expect(0);
    refusing(&sandbox, libc::SYS_clone, Errno::AGAIN, &up)
        .expect(1)
        .expect_text("has as many processes as it may have")
        .expect_text("hint: ulimit -u");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn too_many_open_files_are_told_with_what_permits_more() {
    let sandbox = Sandbox::new();
    sandbox.write("compose.yaml", TALKER);
    let line = "ulimit -n 16; exec wharf up -d";
    sandbox
        .program("sh", &["-c", line])
        .wait()
        .expect(1)
        .expect_text("Too many open files")
        .expect_text("hint: sudo prlimit --nofile=65536 --pid $$   # then wharf down, and again");
    sandbox.wharf(&["down"]).expect(0);
}
