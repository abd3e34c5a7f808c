//! Forwarders and relays that end, by themselves and by force.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};

use wharf::backend::process::NamesWanted;

use crate::stage::{Stage, eventually, free_port, is_root, talk};

#[tokio::test]
async fn a_forwarder_that_is_killed_leaves_no_listener_and_the_next_one_does_the_same() {
    if !is_root() {
        return;
    }
    let stage = Stage::new("192.0.2.1");
    let port = free_port();
    stage
        .up("api", &[(80, port)], &[format!("127.0.0.1 {port}")])
        .await;
    stage.forward(true);
    let relay = stage.relay("api");
    stage.sync(&["api"]).await;
    eventually("the server answers", || {
        talk(relay.connect("127.0.0.1:80").ok()?, "").ok()
    });
    stage.kill_forwarder();
    let refused = relay.connect("127.0.0.1:80").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    stage.forward(true);
    stage.sync(&["api"]).await;
    let heard = talk(relay.connect("127.0.0.1:80").unwrap(), "");
    assert_eq!(heard.unwrap(), "api");
}

#[tokio::test]
async fn a_relay_that_ends_takes_its_connections_along_and_the_next_one_is_served() {
    if !is_root() {
        return;
    }
    let stage = Stage::new("192.0.2.1");
    let port = free_port();
    stage
        .up("api", &[(80, port)], &[format!("127.0.0.1 {port}")])
        .await;
    stage.forward(true);
    let first = stage.relay("api");
    stage.sync(&["api"]).await;
    let mut connected = eventually("the server answers", || {
        let mut stream = first.connect("127.0.0.1:80").ok()?;
        stream.write_all(b"x").ok()?;
        stream.read_exact(&mut [0]).ok()?;
        Some(stream)
    });
    assert!(stage.end_relay().success());
    let error = connected.read_exact(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let second = stage.relay("api");
    stage.sync(&["api"]).await;
    let heard = talk(second.connect_at_last("127.0.0.1:80"), "");
    assert_eq!(heard.unwrap(), "api");
}

#[tokio::test]
async fn a_forwarder_that_nobody_needs_ends() {
    let stage = Stage::new("192.0.2.1");
    stage.run("api", &[], vec!["true".to_owned()]).await;
    stage.forward(false);
    assert!(stage.forwarders_end().success());
}

#[tokio::test]
async fn sigterm_ends_it() {
    let stage = Stage::new("192.0.2.1");
    let sleep = vec!["sleep".to_owned(), "60".to_owned()];
    stage.run("api", &[], sleep).await;
    stage.forward(false);
    stage.sync(&[]).await;
    let pid = i32::try_from(stage.forwarder_pid()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(stage.forwarders_end().success());
    let left = stage
        .processes
        .sync_names(crate::stage::PROJECT, NamesWanted::default())
        .await;
    let error = left.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("cannot be reached"), "{cause}");
}

#[tokio::test]
async fn a_forwarder_that_was_stopped_is_started_by_whoever_needs_names() {
    let stage = Stage::new("192.0.2.1");
    let sleep = vec!["sleep".to_owned(), "60".to_owned()];
    stage.run("api", &[], sleep).await;
    // What `up` makes of itself: an instance of this name.
    stage.run("wharf-forwarder", &[], stage.forwarding()).await;
    stage.sync(&[]).await;
    stage.stop("wharf-forwarder").await;
    stage.sync(&[]).await;
    assert!(stage.names_socket().exists());
    stage.stop("wharf-forwarder").await;
    stage.stop("api").await;
}

#[tokio::test]
async fn a_forwarder_of_another_version_is_replaced_by_whoever_needs_names() {
    let stage = Stage::new("192.0.2.1");
    let sleep = vec!["sleep".to_owned(), "60".to_owned()];
    stage.run("api", &[], sleep).await;
    stage.run("wharf-forwarder", &[], stage.forwarding()).await;
    stage.sync(&[]).await;
    // In its place, one as another wharf has it.
    let path = stage.names_socket();
    std::fs::remove_file(&path).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let other = std::thread::spawn(move || {
        let (mut asking, _) = listener.accept().unwrap();
        BufReader::new(&asking)
            .read_line(&mut String::new())
            .unwrap();
        let refusal = "the forwarder speaks version 9 and not 1: another wharf started it";
        writeln!(asking, r#"{{"error":"{refusal}"}}"#).unwrap();
    });
    stage.sync(&[]).await;
    other.join().unwrap();
    let notes = stage.processes.take_notes();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("another version of wharf and was replaced")),
        "{notes:?}"
    );
    stage.stop("wharf-forwarder").await;
    stage.stop("api").await;
}
