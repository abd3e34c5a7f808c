//! A supervisor that has no descriptor left knows less, and so does less; it takes nothing for ended.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use wharf::state::Status;

use crate::stage::{Stage, shell};

#[tokio::test]
async fn what_a_killed_keeper_leaves_lives_on_where_the_supervisor_cannot_look() {
    let descriptors = |pid: u32| -> Vec<u64> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .map(|name| name.to_str().unwrap().parse().unwrap())
            .collect()
    };
    let stage = Stage::new();
    stage
        .up(shell("web", "echo up; exec sleep 600"))
        .await
        .unwrap();
    stage.line("web", "up").await;
    let record = stage.record("web");
    let (main, keeper) = (record.process().unwrap(), record.keeper().unwrap());
    let supervisor = stage.supervisor().unwrap().pid;
    let pid = Pid::from_raw(i32::try_from(supervisor).unwrap());
    let most = descriptors(supervisor).into_iter().max().unwrap() + 1;
    let before = rustix::process::getrlimit(Resource::Nofile);
    let limit = |current| {
        let maximum = before.maximum;
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap();
    };
    limit(Some(most));
    let socket = stage.dirs().project("stage").unwrap().socket();
    let mut clients = Vec::new();
    while (descriptors(supervisor).len() as u64) < most {
        let mut client = BufReader::new(UnixStream::connect(&socket).unwrap());
        // It greets whom it has let in.
        client.read_line(&mut String::new()).unwrap();
        clients.push(client);
    }
    stage.kill_keeper("web");
    // What has happened before a question is settled before the answer.
    let mut client = clients.pop().unwrap();
    while wharf::backend::process::run::ProcessId::of(keeper.pid) == Some(keeper) {
        std::thread::yield_now();
    }
    client
        .get_mut()
        .write_all(b"{\"request\":\"ping\"}\n")
        .unwrap();
    client.read_line(&mut String::new()).unwrap();
    assert!(main.is_alive());
    limit(before.maximum);
    drop((client, clients));
    let status = stage.instance("web").await.status;
    assert_eq!(status, Status::Running);
    stage.stop("web", None).await.unwrap();
    assert!(!main.is_alive());
}
