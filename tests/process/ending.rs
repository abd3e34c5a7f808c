//! Stopping means that nothing is left.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use wharf::backend::BackendError;
use wharf::backend::process::run::ProcessId;
use wharf::state::Status;

use crate::stage::{Stage, command, exited, process, shell};

#[tokio::test]
async fn a_polite_service_ends_with_its_own_code() {
    let stage = Stage::new();
    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done";
    stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "up").await;
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.instance("web").await.status, exited(7));
}

#[tokio::test]
async fn the_declared_stop_signal_is_sent() {
    let stage = Stage::new();
    let mut service = shell(
        "web",
        "trap 'exit 9' INT; trap '' TERM; echo up; while :; do sleep 0.05; done",
    );
    service.stop_signal = Some("SIGINT".into());
    stage.up(service).await.unwrap();
    stage.line("web", "up").await;
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.instance("web").await.status, exited(9));
}

#[tokio::test]
async fn a_grandchild_that_ignores_the_stop_signal_is_killed_after_the_grace_period() {
    let stage = Stage::new();
    let script = "sh -c 'trap \"\" TERM; echo grandchild $$; while :; do sleep 0.05; done' & wait";
    stage.up(shell("web", script)).await.unwrap();
    let grandchild = process(&stage.line("web", "grandchild ").await);
    stage
        .stop("web", Some(Duration::from_millis(200)))
        .await
        .unwrap();
    assert!(!grandchild.is_alive());
    assert!(!stage.instance("web").await.status.is_alive());
}

#[tokio::test]
async fn a_daemon_that_left_session_and_parent_is_ended_too() {
    let stage = Stage::new();
    let script = "(setsid sh -c 'echo escapee $$; exec sleep 600' &) ; exec sleep 600";
    stage.up(shell("web", script)).await.unwrap();
    let escapee = process(&stage.line("web", "escapee ").await);
    let main = stage.instance("web").await.pid.unwrap();
    let tree = stage.processes.tree_pids("stage", "stage-web-1").unwrap();
    assert!(
        tree.contains(&main) && tree.contains(&escapee.pid),
        "{tree:?}"
    );
    stage.stop("web", None).await.unwrap();
    assert!(!escapee.is_alive());
}

#[tokio::test]
async fn what_has_nothing_but_the_runs_id_is_ended_too() {
    let stage = Stage::new();
    let script = "echo run $WHARF_RUN_ID; exec sleep 600";
    stage.up(shell("web", script)).await.unwrap();
    let line = stage.line("web", "run ").await;
    // No descendant, in no session and no group of it: somebody has handed its environment on.
    let mut stranger = Command::new("setsid")
        .args(["sleep", "600"])
        .env("WHARF_RUN_ID", line.trim_start_matches("run "))
        .spawn()
        .unwrap();
    let pid = ProcessId::of(stranger.id()).unwrap();
    let reaper = std::thread::spawn(move || stranger.wait().unwrap());
    stage.stop("web", None).await.unwrap();
    assert!(!pid.is_alive());
    // As in a container: not asked, since nothing is left of the service.
    assert_eq!(reaper.join().unwrap().signal(), Some(9));
}

#[tokio::test]
async fn what_the_main_process_leaves_behind_ends_with_it() {
    let stage = Stage::new();
    let script = "sleep 600 & echo left $!; exit 0";
    stage.up(shell("web", script)).await.unwrap();
    let left = stage.line("web", "left ").await;
    assert_eq!(stage.exit_code("web").await, 0);
    assert!(!std::path::Path::new(&format!("/proc/{left}")).exists());
}

#[tokio::test]
async fn a_child_forked_during_the_kill_does_not_survive() {
    let stage = Stage::new();
    // Each generation ignores SIGTERM and starts the next one all the time.
    let script = "trap 'sleep 600 & sleep 600 &' TERM; echo up; while :; do sleep 0.01; done";
    stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "up").await;
    let id = stage.instance("web").await.id;
    stage
        .stop("web", Some(Duration::from_millis(100)))
        .await
        .unwrap();
    let all = wharf::backend::process::tree::Snapshot::take().unwrap();
    assert_eq!(all.tree(&id.0, None, None, &[]), []);
}

#[tokio::test]
async fn kill_needs_no_grace_and_prevents_the_restart() {
    let stage = Stage::new();
    let mut service = shell("web", "trap '' TERM; echo up; while :; do sleep 0.05; done");
    service.restart = wharf::project::model::Restart::Always;
    stage.up(service).await.unwrap();
    stage.line("web", "up").await;
    stage
        .processes
        .kill("stage", "stage-web-1", 9)
        .await
        .unwrap();
    assert_eq!(stage.instance("web").await.status, exited(137));
}

#[tokio::test]
async fn a_signal_that_a_user_ends_it_with_prevents_the_restart() {
    // One takes the stop signal for what it is, the other dies of a signal.
    for (signal, code, script) in [
        (
            15,
            3,
            "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done",
        ),
        (1, 129, "echo up; exec sleep 600"),
        (37, 165, "echo up; exec sleep 600"),
    ] {
        let stage = Stage::new();
        let mut service = shell("web", script);
        service.restart = wharf::project::model::Restart::Always;
        stage.up(service).await.unwrap();
        stage.line("web", "up").await;
        let kill = stage.processes.kill("stage", "stage-web-1", signal);
        kill.await.unwrap();
        assert_eq!(stage.exit_code("web").await, code);
        assert_eq!(stage.instance("web").await.status, exited(code));
    }
}

#[tokio::test]
async fn another_signal_goes_to_the_main_process_alone() {
    let stage = Stage::new();
    let script = "trap 'echo got it' USR1; echo up; while :; do sleep 0.05; done";
    stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "up").await;
    stage
        .processes
        .kill("stage", "stage-web-1", 10)
        .await
        .unwrap();
    stage.line("web", "got it").await;
    assert_eq!(stage.instance("web").await.status, Status::Running);
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn each_signal_of_a_user_is_told() {
    let stage = Stage::new();
    let script = "trap : USR1; echo up; while :; do sleep 0.05; done";
    stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "up").await;
    let another = stage.another();
    let happenings = another.happenings("stage", None, true).await;
    let mut happenings = happenings.unwrap().unwrap();
    for signal in [10, 10, 9] {
        let kill = stage.processes.kill("stage", "stage-web-1", signal);
        kill.await.unwrap();
    }
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "die 137") {
        let happening = happenings.next().await.unwrap();
        let of = |name: &str| happening.attributes.get(name).cloned();
        let more = of("signal").or(of("exitCode")).unwrap_or_default();
        told.push(format!("{} {more}", happening.action));
    }
    assert_eq!(told, ["kill 10", "kill 10", "kill 9", "die 137"]);
}

#[tokio::test]
async fn stopping_twice_and_stopping_the_stopped_is_no_error() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let (first, second) = tokio::join!(stage.stop("web", None), stage.stop("web", None));
    first.unwrap();
    second.unwrap();
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn only_what_has_ended_can_be_removed() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    assert!(stage.remove("web").await.is_err());
    stage.stop("web", None).await.unwrap();
    stage.remove("web").await.unwrap();
    assert_eq!(
        wharf::backend::Backend::observe(&stage.processes, "stage")
            .await
            .unwrap(),
        []
    );
    assert_eq!(stage.processes.projects().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_frozen_service_ends_politely_too() {
    let stage = Stage::new();
    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done";
    stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "up").await;
    stage
        .processes
        .kill("stage", "stage-web-1", 19)
        .await
        .unwrap();
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.instance("web").await.status, exited(7));
}

#[tokio::test]
async fn a_process_that_moves_on_all_the_time_is_caught() {
    let stage = Stage::new();
    // Every few milliseconds another process, whose parent has just ended.
    let script = "trap '' TERM; hop() { sleep 0.02; hop & exit; }; hop & echo up; exec sleep 600";
    let id = stage.up(shell("web", script)).await.unwrap();
    stage.line("web", "up").await;
    stage
        .stop("web", Some(Duration::from_millis(100)))
        .await
        .unwrap();
    let all = wharf::backend::process::tree::Snapshot::take().unwrap();
    assert_eq!(all.tree(&id.0, None, None, &[]), []);
}

/// A process that SIGKILL does not end before it is let go: frozen by a version 1 hierarchy, the kernel has it
/// in uninterruptible sleep.
pub(crate) struct Frozen(PathBuf);

impl Frozen {
    pub(crate) fn new(pid: u32) -> Option<Self> {
        let hierarchy = PathBuf::from("/sys/fs/cgroup/freezer");
        let group = hierarchy.join(format!("wharf-test-{pid}"));
        if !hierarchy.join("cgroup.procs").is_file() || fs::create_dir(&group).is_err() {
            return None;
        }
        let frozen = Self(group);
        fs::write(frozen.0.join("cgroup.procs"), pid.to_string()).expect("a process that lives");
        fs::write(frozen.0.join("freezer.state"), "FROZEN").expect("a group of ours");
        Some(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(fs::write(self.0.join("freezer.state"), "THAWED"));
        // What has ended leaves the group a moment later.
        while fs::remove_dir(&self.0).is_err() {
            std::thread::yield_now();
        }
    }
}

#[tokio::test]
async fn what_not_even_sigkill_ends_is_reported_and_not_forgotten() {
    let stage = Stage::new();
    stage.up(command("web", &["sleep", "600"])).await.unwrap();
    let pid = stage.instance("web").await.pid.unwrap();
    let Some(frozen) = Frozen::new(pid) else {
        eprintln!("skipped: no process can be put to uninterruptible sleep here");
        stage.stop("web", None).await.unwrap();
        return;
    };
    let error = stage.stop("web", Some(Duration::ZERO)).await.unwrap_err();
    let BackendError::Unkillable { name, left } = &error else {
        panic!("another error: {error}");
    };
    assert_eq!((name.as_str(), left.len()), ("stage-web-1", 1));
    assert_eq!(
        error.to_string(),
        format!(
            "stage-web-1: still there after SIGKILL: pid {pid} (sleep) in uninterruptible sleep (state D)"
        )
    );
    assert_eq!(stage.instance("web").await.status, Status::Running);
    assert!(stage.remove("web").await.is_err());
    let error = stage.start("web").await.unwrap_err();
    assert!(error.to_string().contains(&format!("pid {pid} (sleep)")));
    assert_eq!(stage.started(), [pid]);
    drop(frozen);
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.started(), Vec::<u32>::new());
    stage.remove("web").await.unwrap();
}

/// Traces a process and never looks at what becomes of it.
const TRACER: &str = "import ctypes, sys, time
c = ctypes.CDLL(None)
c.ptrace.argtypes = [ctypes.c_long] * 4
if c.ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0: print('traces', flush=True)
time.sleep(600)
";

#[tokio::test]
async fn what_a_tracer_holds_is_told_with_its_tracer() {
    let stage = Stage::new();
    stage.up(command("web", &["sleep", "600"])).await.unwrap();
    let pid = stage.instance("web").await.pid.unwrap();
    let mut tracer = Command::new("python3")
        .args(["-c", TRACER, &pid.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(tracer.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "traces\n");
    let held = format!(
        "pid {pid} (sleep) ended, and python3 (pid {}), which traces it, holds it",
        tracer.id()
    );
    let stopped = stage.stop("web", Some(Duration::ZERO)).await.unwrap_err();
    let started = stage.start("web").await.unwrap_err();
    for error in [stopped, started] {
        assert!(error.to_string().ends_with(&held), "{error}");
        let hints = wharf::error::Error::from(error).hints;
        let release = format!("kill {}; ", tracer.id());
        assert!(hints[0].starts_with(&release), "{hints:?}");
    }
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    stage.stop("web", None).await.unwrap();
    stage.remove("web").await.unwrap();
}
