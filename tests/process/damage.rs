//! A supervisor that is frozen, files that are damaged, output that cannot be recorded: each has an outcome.

use std::os::fd::OwnedFd;

use wharf::backend::{Backend, LogOptions};
use wharf::event::Stream;
use wharf::state::Status;

use crate::stage::{PROJECT, Stage, exited, name, shell, until_readable};

#[tokio::test]
async fn a_frozen_supervisor_is_replaced_and_that_is_said() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let pid = stage.instance("web").await.pid;
    let frozen = stage.supervisor().unwrap();
    frozen.signal(rustix::process::Signal::STOP).unwrap();
    let another = stage.another();
    let instances = another.observe(PROJECT).await.unwrap();
    assert_eq!(instances[0].status, Status::Running);
    assert_eq!(instances[0].pid, pid);
    let notes = another.take_notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].contains(&format!("pid {}", frozen.pid)),
        "{notes:?}"
    );
    assert!(!frozen.is_alive());
    another.stop(PROJECT, &name("web"), None).await.unwrap();
    assert_eq!(stage.started(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_frozen_keeper_does_not_keep_a_service_from_ending() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let keeper = stage.record("web").keeper().unwrap();
    assert!(keeper.signal(rustix::process::Signal::STOP).unwrap());
    stage
        .processes
        .stop(PROJECT, &name("web"), None)
        .await
        .unwrap();
    assert_eq!(stage.instance("web").await.status, exited(143));
    assert_eq!(stage.started(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_damaged_entry_is_an_error_that_says_how_to_set_it_aside() {
    let stage = Stage::new();
    stage.up(shell("web", "true")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let project = stage.dirs().project(PROJECT).unwrap();
    let path = project.instance(&name("web")).unwrap().record();
    std::fs::write(&path, "{\"format\": 2, ").unwrap();
    let error = stage.processes.observe(PROJECT).await.unwrap_err();
    let shown = wharf::error::Error::from(error);
    let path = path.display();
    assert_eq!(
        shown.hints,
        [format!(
            "mv {path} {path}.damaged   # sets it aside; `up` makes the instance anew"
        )]
    );
    // As the hint says.
    let hint = &shown.hints[0];
    let moved = std::process::Command::new("sh").args(["-c", hint]).status();
    assert!(moved.unwrap().success());
    assert!(stage.processes.observe(PROJECT).await.unwrap().is_empty());
    stage.up(shell("web", "exit 2")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 2);
}

#[tokio::test]
async fn an_entry_that_the_disk_never_had_is_made_anew() {
    for left in [&b""[..], &[0; 4096]] {
        let mut stage = Stage::new();
        stage.up(shell("web", "true")).await.unwrap();
        assert_eq!(stage.exit_code("web").await, 0);
        let project = stage.dirs().project(PROJECT).unwrap();
        let path = project.instance(&name("web")).unwrap().record();
        std::fs::write(&path, left).unwrap();
        assert!(stage.processes.observe(PROJECT).await.unwrap().is_empty());
        stage.up(shell("web", "exit 2")).await.unwrap();
        assert_eq!(stage.exit_code("web").await, 2);
        assert!(stage.notes().iter().any(|note| note.contains("anew")));
    }
}

#[tokio::test]
async fn an_empty_entry_of_what_lives_is_damage() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let pid = stage.instance("web").await.pid.unwrap();
    stage.kill_supervisor();
    let project = stage.dirs().project(PROJECT).unwrap();
    let path = project.instance(&name("web")).unwrap().record();
    let entry = std::fs::read(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    let error = stage.processes.observe(PROJECT).await.unwrap_err();
    let hint = &wharf::error::Error::from(error).hints[0];
    assert!(hint.starts_with(&format!("kill {pid}; mv ")), "{hint}");
    std::fs::write(&path, entry).unwrap();
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.started(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_log_that_was_torn_with_the_machine_ends_with_a_line() {
    let mut stage = Stage::new();
    stage.up(shell("web", "echo first")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let project = stage.dirs().project(PROJECT).unwrap();
    let dir = project.instance(&name("web")).unwrap();
    let mut record = stage.record("web");
    record.run.as_mut().unwrap().boot_id = "another".into();
    record.write(&dir).unwrap();
    let add = |path: std::path::PathBuf, bytes: &[u8]| {
        let mut text = std::fs::read(&path).unwrap();
        text.extend_from_slice(bytes);
        std::fs::write(&path, text).unwrap();
    };
    add(dir.log(Stream::Stdout, 0), b"sec\0\0\0\0");
    add(dir.index(0), &[0; 40]);
    let line = |text: &str| (Stream::Stdout, text.to_owned());
    let lines = stage.lines("web", LogOptions::default()).await;
    assert_eq!(lines, [line("first"), line("sec")]);
    stage.start("web").await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let lines = stage.lines("web", LogOptions::default()).await;
    assert_eq!(lines, [line("first"), line("sec"), line("first")]);
}

#[tokio::test]
async fn a_lost_entry_of_a_living_instance_does_not_lead_to_a_second_one() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let first = stage.instance("web").await.pid.unwrap();
    stage.kill_supervisor();
    let project = stage.dirs().project(PROJECT).unwrap();
    let path = project.instance(&name("web")).unwrap().record();
    let entry = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = stage.up(shell("web", "exec sleep 600")).await.unwrap_err();
    assert_eq!(
        wharf::error::Error::from(error).hints,
        [format!("kill {first}   # ends it")]
    );
    assert_eq!(stage.started(), [first]);
    std::fs::write(&path, entry).unwrap();
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.started(), Vec::<u32>::new());
}

/// Damages the entry of a living instance, and does what the error says.
async fn follow_the_hint(stage: &Stage, pid: u32, end: &OwnedFd) {
    let project = stage.dirs().project(PROJECT).expect("a project");
    let path = project
        .instance(&name("web"))
        .expect("an instance")
        .record();
    std::fs::write(&path, "{").expect("written");
    let error = stage.processes.observe(PROJECT).await.expect_err("damaged");
    let shown = wharf::error::Error::from(error);
    let hint = &shown.hints[0];
    assert!(hint.starts_with(&format!("kill {pid}; mv ")), "{hint}");
    let done = std::process::Command::new("sh").args(["-c", hint]).status();
    assert!(done.expect("a shell").success());
    until_readable(end);
}

#[tokio::test]
async fn a_damaged_entry_of_a_living_instance_says_how_to_end_it() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let pid = stage.instance("web").await.pid.unwrap();
    let end = stage.main_end("web");
    stage.kill_supervisor();
    follow_the_hint(&stage, pid, &end).await;
    stage.up(shell("web", "exit 2")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 2);
}

#[tokio::test]
async fn a_process_without_keeper_and_entry_is_named() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let pid = stage.instance("web").await.pid.unwrap();
    let end = stage.main_end("web");
    stage.kill_supervisor();
    stage.kill_keeper("web");
    follow_the_hint(&stage, pid, &end).await;
}

#[tokio::test]
async fn an_entry_is_removed_as_a_whole() {
    let stage = Stage::new();
    stage.up(shell("web", "echo old; exit 0")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let project = stage.dirs().project(PROJECT).unwrap();
    let dir = project.instance(&name("web")).unwrap();
    // What a removal leaves that was killed half-way, and what a making leaves.
    let left = project.instances().join(".removed-1-x");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("stdout.log"), "x").unwrap();
    std::fs::remove_file(dir.record()).unwrap();
    assert!(stage.processes.observe(PROJECT).await.unwrap().is_empty());
    stage.up(shell("web", "echo new; exit 0")).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let log = std::fs::read_to_string(dir.log(Stream::Stdout, 0)).unwrap();
    assert_eq!(log, "new\n");
    assert!(!left.exists());
}

#[tokio::test]
async fn output_that_cannot_be_recorded_does_not_keep_a_service_from_ending() {
    let stage = Stage::new();
    let spec = stage.spec(shell("web", "echo lost; exit 5"));
    stage
        .act(wharf::plan::step::Action::Create(Box::new(spec)))
        .await
        .unwrap();
    let project = stage.dirs().project(PROJECT).unwrap();
    let dir = project.instance(&name("web")).unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.log(Stream::Stdout, 0)).unwrap();
    stage.start("web").await.unwrap();
    assert_eq!(stage.exit_code("web").await, 5);
    assert_eq!(stage.instance("web").await.status, exited(5));
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_named() {
    let stage = Stage::new();
    std::fs::write(stage.root.path().join("state"), "in the way").unwrap();
    let error = stage.up(shell("web", "true")).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot create "), "{error}");
}

#[tokio::test]
async fn a_start_is_no_success_where_the_end_before_it_cannot_be_written() {
    let stage = Stage::new();
    stage.up(shell("web", "exec sleep 600")).await.unwrap();
    let main = stage.record("web").process().unwrap();
    let ended = stage.main_end("web");
    let project = stage.dirs().project(PROJECT).unwrap();
    let record = project.instance(&name("web")).unwrap().record();
    let supervisor = stage.supervisor().unwrap();
    // As on a full disk, nothing new can be written: a directory is where the new entry would be.
    let in_the_way = record.with_extension(format!("{}.new", supervisor.pid));
    std::fs::create_dir(&in_the_way).unwrap();
    main.signal(rustix::process::Signal::KILL).unwrap();
    until_readable(&ended);
    for _ in 0..3 {
        let error = stage.start("web").await.unwrap_err();
        assert!(error.to_string().starts_with("cannot write "), "{error}");
    }
    assert_eq!(stage.started(), Vec::<u32>::new());
    std::fs::remove_dir(&in_the_way).unwrap();
    stage.start("web").await.unwrap();
    assert_eq!(stage.started().len(), 1);
    stage.stop("web", None).await.unwrap();
}
