//! What leaves its run by forking and ending all the time, on a machine without control groups.

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
