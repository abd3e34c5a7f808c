//! The supervisor as a process: never a second one, small, private, gone when it is not needed.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::stage::{Stage, exited, shell};

fn supervise(stage: &Stage) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command
        .args(["supervise", "--project", "stage", "--state-dir"])
        .arg(stage.dirs().state())
        .arg("--runtime-dir")
        .arg(stage.dirs().runtime())
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[tokio::test]
async fn many_commands_at_once_start_one_supervisor_and_one_instance() {
    let stage = Stage::new();
    let spec = stage.spec(shell("web", "echo run $$; exec sleep 600"));
    stage
        .act(wharf::plan::step::Action::Create(Box::new(spec)))
        .await
        .unwrap();
    let commands: Vec<_> = (0..8).map(|_| stage.another()).collect();
    let ids = futures_util::future::join_all(commands.iter().map(|command| async {
        wharf::backend::Backend::perform(
            command,
            &wharf::plan::step::Step {
                id: wharf::plan::step::StepId(1),
                action: wharf::plan::step::Action::Start {
                    instance: crate::stage::target("web"),
                },
                cause: wharf::plan::step::Cause::Missing,
                needs: Vec::new(),
            },
            &wharf::backend::Made::default(),
            &stage.events,
        )
        .await
        .unwrap()
        .unwrap()
    }))
    .await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let tree = stage.processes.tree_pids("stage", "stage-web-1").unwrap();
    assert_eq!(tree.len(), 1);
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn a_second_supervisor_replaces_one_that_cannot_be_reached() {
    let stage = Stage::new();
    stage
        .up(shell("web", "echo up; exec sleep 600"))
        .await
        .unwrap();
    stage.line("web", "up").await;
    let first = stage.supervisor().unwrap();
    // Somebody has cleaned the runtime directory.
    let socket = stage.dirs().project("stage").unwrap().socket();
    std::fs::remove_file(&socket).unwrap();
    let another = stage.another();
    another.stop("stage", "stage-web-1", None).await.unwrap();
    assert!(!first.is_alive());
    assert!(!stage.instance("web").await.status.is_alive());
}

#[tokio::test]
async fn one_whose_card_is_damaged_is_found_or_replaced() {
    let stage = Stage::new();
    stage
        .up(shell("web", "echo up; exec sleep 600"))
        .await
        .unwrap();
    stage.line("web", "up").await;
    let first = stage.supervisor().unwrap();
    let project = stage.dirs().project("stage").unwrap();
    std::fs::write(project.supervisor_card(), "{\"garbage").unwrap();
    let another = stage.another();
    another.stop("stage", "stage-web-1", None).await.unwrap();
    assert!(first.is_alive());
    // Nor is it where it usually is: the lock says who it is.
    stage.start("web").await.unwrap();
    std::fs::remove_file(project.supervisor_card()).unwrap();
    std::fs::remove_file(project.socket()).unwrap();
    let another = stage.another();
    another.stop("stage", "stage-web-1", None).await.unwrap();
    assert!(!first.is_alive());
    assert!(!stage.instance("web").await.status.is_alive());
}

#[tokio::test]
async fn it_leaves_when_nothing_is_alive_and_nobody_is_connected() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let supervisor = stage.supervisor().unwrap();
    let fd = supervisor.open().unwrap();
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.instance("web").await.status, exited(143));
    assert!(supervisor.is_alive(), "we are still connected");
    let (socket, card) = {
        let project = stage.dirs().project("stage").unwrap();
        (project.socket(), project.supervisor_card())
    };
    let mut stage = stage;
    stage.processes = stage.another();
    let mut fds = [rustix::event::PollFd::new(
        &fd,
        rustix::event::PollFlags::IN,
    )];
    let timeout = rustix::event::Timespec::try_from(Duration::from_mins(1)).unwrap();
    assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)).unwrap(), 1);
    assert!(!socket.exists() && !card.exists());
}

#[tokio::test]
async fn it_takes_little_memory_and_its_files_are_private() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let supervisor = stage.supervisor().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", supervisor.pid)).unwrap();
    let resident: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse().ok())
        .unwrap();
    assert!(resident < 12 * 1024, "{resident} KiB");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let project = stage.dirs().project("stage").unwrap();
    let dir = project.instance("stage-web-1").unwrap();
    assert_eq!(mode(&project.socket()), 0o600);
    assert_eq!(mode(stage.dirs().runtime()), 0o700);
    assert_eq!(mode(stage.dirs().state()), 0o700);
    assert_eq!(mode(dir.path()), 0o700);
    for file in [
        dir.record(),
        dir.index(0),
        dir.log(wharf::event::Stream::Stdout, 0),
        dir.fifo(wharf::event::Stream::Stderr),
        project.supervisor_card(),
        project.supervisor_log(),
    ] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn a_supervisor_that_cannot_work_says_why_to_who_started_it() {
    let stage = Stage::new();
    let project = stage.dirs().project("stage").unwrap();
    project.create().unwrap();
    // Something else is where its socket must be.
    std::fs::create_dir(project.socket()).unwrap();
    let output = supervise(&stage).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("\"message\":\"cannot listen at /"), "{said}");
    let error = stage.up(shell("web", "true")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot start the supervisor of project stage"
    );
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("cannot listen at "), "{source}");
}

#[tokio::test]
async fn an_entry_of_a_newer_format_is_refused_by_name() {
    let stage = Stage::new();
    stage.up(shell("web", "true")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let project = stage.dirs().project("stage").unwrap();
    let path = project.instance("stage-web-1").unwrap().record();
    std::fs::write(&path, r#"{"format": 99, "future": true}"#).unwrap();
    let error = wharf::backend::Backend::observe(&stage.processes, "stage")
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with("cannot read "), "{error}");
    assert!(error.to_string().contains("format 99"), "{error}");
}

#[tokio::test]
async fn a_command_knows_that_the_one_before_was_killed() {
    let stage = Stage::new();
    let killed = stage.processes.lock("stage", &stage.events).await.unwrap();
    assert!(!killed.follows_a_killed_command());
    let path = stage.dirs().project("stage").unwrap().command_lock();
    let left = std::fs::read(&path).unwrap();
    drop(killed);
    let next = stage.processes.lock("stage", &stage.events).await.unwrap();
    assert!(!next.follows_a_killed_command(), "it was given back");
    drop(next);
    // What the kernel leaves of a command that was killed: the file as it was, and no lock.
    std::fs::write(&path, left).unwrap();
    let after = stage.processes.lock("stage", &stage.events).await.unwrap();
    assert!(after.follows_a_killed_command());
    drop(after);
    let later = stage.processes.lock("stage", &stage.events).await.unwrap();
    assert!(!later.follows_a_killed_command());
}

#[tokio::test]
async fn the_second_command_waits_for_the_first_and_says_so() {
    let mut stage = Stage::new();
    let first = stage.processes.lock("stage", &stage.events).await.unwrap();
    // Nobody waits for itself: as if our parent had it.
    let path = stage.dirs().state().join("projects/stage/project.lock");
    let signed = std::fs::read_to_string(&path).unwrap();
    let pid = |pid: u32| format!("\"pid\":{pid}");
    let ours = pid(std::process::id());
    assert!(signed.contains(&ours), "{signed}");
    let theirs = pid(std::os::unix::process::parent_id());
    std::fs::write(&path, signed.replace(&ours, &theirs)).unwrap();
    let another = stage.another();
    let (events, mut receiver) = wharf::event::Events::channel();
    let waiting = another.lock("stage", &events);
    let watching = async {
        let event = receiver.recv().await.unwrap();
        assert!(
            matches!(&event, wharf::event::Event::Note(text) if text.contains("waiting")),
            "{event:?}"
        );
        drop(first);
    };
    let (second, ()) = tokio::join!(waiting, watching);
    drop(second.unwrap());
    assert!(stage.receiver.try_recv().is_err());
}

#[tokio::test]
async fn without_its_ledger_it_starts_nothing_again_and_ends() {
    let stage = Stage::new();
    let go = stage.root.path().join("go");
    let script = format!(
        "echo up; until [ -e {} ]; do sleep 0.05; done",
        go.display()
    );
    let mut service = shell("web", &script);
    service.restart = wharf::project::model::Restart::Always;
    stage.up(service).await.unwrap();
    stage.line("web", "up").await;
    let supervisor = stage.supervisor().unwrap();
    let ended = supervisor.open().unwrap();
    let main = stage.record("web").process().unwrap();
    let mut stage = stage;
    // It stays as long as anybody is connected.
    stage.processes = stage.another();
    std::fs::remove_dir_all(stage.dirs().state()).unwrap();
    assert!(main.is_alive() && supervisor.is_alive());
    std::fs::write(&go, "").unwrap();
    tokio::task::spawn_blocking(move || crate::stage::until_readable(&ended))
        .await
        .unwrap();
    assert!(!main.is_alive());
}
