//! What leaves its run by forking and ending all the time, on a machine without control groups, and what leaves its user.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Sandbox, eventually, python};

/// A generation ignores every signal, starts the next one in a session of its own and ends; each leaves its mark. All
/// of it is over after half a minute, whatever happens.
const SERVICE: &str = "\
import os, signal, time
end = time.time() + 30
mark = os.open('mark', os.O_WRONLY | os.O_CREAT, 0o600)
if os.fork() == 0:
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    os.setsid()
    while time.time() < end:
        os.pwrite(mark, str(time.time()).encode(), 0)
        if os.fork(): os._exit(0)
        os.setsid()
    os._exit(0)
time.sleep(600)
";

#[test]
fn what_forks_and_ends_all_the_time_is_ended_whoever_was_killed_before() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: hiding the control groups needs root");
        return;
    }
    for victims in [
        &[][..],
        &["keeper of"],
        &[" supervise --project"],
        &[" supervise --project", "keeper of"],
    ] {
        let sandbox = Sandbox::new();
        sandbox.write("service.py", SERVICE);
        sandbox.write(
            "compose.yaml",
            format!(
                "services:\n  web:\n    stop_grace_period: 200ms\n    \
                 x-wharf: {{process: {{command: [{}, service.py]}}}}\n",
                python()
            ),
        );
        let wharf = |words: &str| {
            let script = format!(
                "awk '$3 == \"cgroup2\" {{print $2}}' /proc/mounts | xargs -r umount -l; exec wharf {words}"
            );
            let words = ["--mount", "sh", "-c", script.as_str()];
            sandbox.program("unshare", &words).wait()
        };
        wharf("up -d").expect(0);
        let mark = || std::fs::read_to_string(sandbox.path().join("mark")).ok();
        let first = eventually("the first generation has come", mark);
        eventually("another one has come", || mark().filter(|it| *it != first));
        let killed: Vec<_> = sandbox
            .processes()
            .into_iter()
            .filter(|process| {
                let line = process.command_line();
                victims.iter().any(|words| line.contains(words))
            })
            .collect();
        assert!(killed.len() >= victims.len(), "{victims:?}");
        for process in &killed {
            process.signal(Signal::KILL);
        }
        for process in &killed {
            process.wait_end();
        }
        let stop = wharf("stop").expect(0);
        let last = mark();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(mark(), last, "{victims:?}: {stop}");
        wharf("down").expect(0);
    }
}

#[test]
fn what_has_become_roots_is_not_said_to_survive() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can make a program that becomes root");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services: {m: {stop_grace_period: 0s, x-wharf: {process: {command: [./become, --reuid, '0', sleep, '600']}}}}\n",
    );
    let made = "cp \"$(command -v setpriv)\" become; chmod 4755 become; chmod -R a+rwX \"$HOME/..\"; \
                chmod 700 \"$XDG_RUNTIME_DIR\"; chmod 4755 become";
    sandbox.program("sh", &["-c", made]).wait().expect(0);
    let nobody = |words: &str| {
        let line = format!(
            "exec setpriv --reuid 65534 --regid 65534 --clear-groups env XDG_STATE_HOME=\"$TMPDIR/s\" \
             XDG_RUNTIME_DIR=\"$TMPDIR/r\" wharf {words}"
        );
        sandbox.program("sh", &["-c", &line]).wait()
    };
    nobody("up -d").expect(0);
    let left = eventually("it has become root's", || {
        let mut all = sandbox.processes().into_iter();
        all.find(|process| process.command_line().starts_with("sleep"))
    });
    let told = format!(
        "may not be signalled: pid {} (sleep), which is of user root by now",
        left.pid()
    );
    let hint = format!("hint: sudo kill -KILL {}", left.pid());
    let stopped = nobody("stop").expect(1).expect_text(&told);
    let stopped = stopped.expect_text(&hint);
    for words in ["after SIGKILL", "ps -o"] {
        assert!(!stopped.stderr.contains(words), "{stopped}");
    }
    let again = nobody("up -d").expect(1).expect_text(&told);
    assert!(!again.stderr.contains("wharf kill"), "{again}");
    left.signal(Signal::KILL);
    left.wait_end();
    nobody("down").expect(0);
}
