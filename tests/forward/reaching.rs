//! From a relay's network namespace to a process of this machine.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::stage::{SERVER, Stage, eventually, free_port, is_root, talk};

#[tokio::test]
async fn a_process_is_reached_on_its_container_port_and_refused_when_it_is_down() {
    if !is_root() {
        return;
    }
    let stage = Stage::new("192.0.2.1");
    let (actual, extra) = (free_port(), free_port());
    let listens = [format!("127.0.0.1 {actual}"), format!("127.0.0.1 {extra}")];
    stage.up("api", &[(80, actual)], &listens).await;
    stage.forward(true);
    let relay = stage.relay("api");
    stage.sync(&["api"]).await;
    let stream = relay.connect_at_last("127.0.0.1:80");
    // It may take a moment longer to listen than to be started.
    let heard = eventually("the server answers", || {
        talk(relay.connect("127.0.0.1:80").ok()?, "hello ").ok()
    });
    assert_eq!(heard, "hello api", "half-closed, it still answers");
    drop(stream);
    let heard = talk(
        relay.connect_at_last(&format!("127.0.0.1:{extra}")),
        "more ",
    );
    assert_eq!(heard.unwrap(), "more api", "nobody declared this port");
    let heard = talk(relay.connect("[::1]:80").unwrap(), "six ");
    assert_eq!(heard.unwrap(), "six api");

    // Somebody is connected when it ends.
    let mut connected = relay.connect("127.0.0.1:80").unwrap();
    connected.write_all(b"x").unwrap();
    connected.read_exact(&mut [0]).unwrap();
    stage.stop("api").await;
    let mut rest = Vec::new();
    let ended = connected.read_to_end(&mut rest);
    assert!(ended.is_err() || rest.is_empty(), "{rest:?}");
    stage.sync(&["api"]).await;
    let refused = eventually("its ports are closed", || {
        relay.connect("127.0.0.1:80").err()
    });
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    stage.start("api").await;
    stage.sync(&["api"]).await;
    let heard = eventually("it answers again", || {
        talk(relay.connect("127.0.0.1:80").ok()?, "again ").ok()
    });
    assert_eq!(heard, "again api");
}

/// Where control groups of version 2 are.
fn control_groups() -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|mount| mount.contains(" - cgroup2 "))?;
    mount.split(' ').nth(4).map(str::to_owned)
}

#[tokio::test]
async fn a_listener_is_found_wherever_its_process_has_gone() {
    if !is_root() {
        return;
    }
    let stage = Stage::new("192.0.2.1");
    let (actual, other) = (free_port(), free_port());
    // On a port that nobody declared; it leaves its parent and its control group, and comes a moment later.
    let leave = control_groups().map_or_else(String::new, |top| {
        format!("echo $$ > {top}/cgroup.procs || exit; ")
    });
    let server = format!(
        "(sh -c '{leave}sleep 1; exec \"$@\"' sh \"$@\" &) ; \
         exec python3 -c \"$3\" main 127.0.0.1 {actual}"
    );
    let words = ["sh", "-c", &server, "sh", "python3", "-c", SERVER, "away"];
    let mut command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    command.extend(["127.0.0.1".to_owned(), other.to_string()]);
    stage.run("api", &[(80, actual)], command).await;
    stage.forward(true);
    let relay = stage.relay("api");
    stage.sync(&[]).await;
    let begun = Instant::now();
    let heard = eventually("the one that has stayed answers", || {
        talk(relay.connect("127.0.0.1:80").ok()?, "").ok()
    });
    assert_eq!(heard, "main");
    let heard = eventually("the one that has gone answers", || {
        talk(relay.connect(&format!("127.0.0.1:{other}")).ok()?, "").ok()
    });
    assert_eq!(heard, "away");
    let late = "only when all processes of the machine were looked at";
    assert!(begun.elapsed() < Duration::from_secs(30), "{late}");
}

#[tokio::test]
async fn two_services_have_the_same_port() {
    if !is_root() {
        return;
    }
    let stage = Stage::new("192.0.2.1");
    let (one, two) = (free_port(), free_port());
    stage
        .up("api", &[(8080, one)], &[format!("127.0.0.1 {one}")])
        .await;
    stage
        .up("admin", &[(8080, two)], &[format!(":: {two}")])
        .await;
    stage.forward(true);
    let relays = [stage.relay("api"), stage.relay("admin")];
    stage.sync(&["api", "admin"]).await;
    for (relay, service) in relays.iter().zip(["api", "admin"]) {
        let heard = eventually("the server answers", || {
            talk(relay.connect("127.0.0.1:8080").ok()?, "").ok()
        });
        assert_eq!(heard, service);
    }
}

#[tokio::test]
async fn a_thousand_are_connected_at_once() {
    if !is_root() {
        return;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
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
    let mut streams = relay.inside(|| {
        let connect = |_| std::net::TcpStream::connect("127.0.0.1:80").unwrap();
        (0..1_000).map(connect).collect::<Vec<_>>()
    });
    for (number, stream) in (0_u32..).zip(&mut streams) {
        stream.write_all(&number.to_be_bytes()).unwrap();
    }
    for (number, stream) in (0_u32..).zip(&mut streams) {
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(u32::from_be_bytes(heard), number);
    }
    for stream in streams {
        assert_eq!(talk(stream, "").unwrap(), "api");
    }
}
