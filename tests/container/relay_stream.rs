//! A relay that is reached through the engine alone: a command in its container, and connections over its
//! standard streams.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wharf::forward::stream::Relay;

use crate::engine::{Lab, docker, inspect, lab};
use crate::relay_image::loaded;

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(20);

/// A container that has the name `api` on the project's network, and nothing that it does not need.
async fn relay(lab: &mut Lab) -> (String, String) {
    let image = loaded(lab).await;
    lab.default_network().await;
    let network = format!("{}_default", lab.project.name);
    let label = format!("com.docker.compose.project={}", lab.project.name);
    let id = docker(&[
        "run",
        "-d",
        "--label",
        &label,
        "--network",
        &network,
        "--network-alias",
        "api",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--user",
        "65534:65534",
        &image,
        "relay",
        "--idle",
    ]);
    (id, network)
}

/// What a shell in another container of the network says.
async fn other(lab: &Lab, network: &str, line: &str) -> String {
    let (image, network, line) = (lab.busybox(), network.to_owned(), line.to_owned());
    let run = tokio::task::spawn_blocking(move || {
        docker(&[
            "run",
            "--rm",
            "--network",
            &network,
            image,
            "sh",
            "-c",
            &line,
        ])
    });
    run.await.unwrap()
}

/// How many processes are in a container.
fn processes(id: &str) -> usize {
    docker(&["top", id, "-o", "pid"]).lines().count() - 1
}

async fn eventually(what: impl Fn() -> bool) {
    let holds = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.unwrap();
}

#[tokio::test]
async fn containers_and_processes_meet_over_the_engine_s_stream() {
    let mut lab = lab!();
    let (id, network) = relay(&mut lab).await;
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = server.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut client, _)) = server.accept().await {
            let mut heard = String::new();
            client.read_to_string(&mut heard).await.unwrap();
            client
                .write_all(heard.to_uppercase().as_bytes())
                .await
                .unwrap();
        }
    });
    let stream = Relay::open(&lab.containers, &id, "relay").await.unwrap();
    assert_eq!(processes(&id), 2);
    // A port that is privileged elsewhere.
    let mut listener = stream.listen(80).await.unwrap();
    let carrying = tokio::spawn(async move {
        while let Ok(mut connection) = listener.accept().await {
            let mut there = TcpStream::connect(address).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut connection, &mut there).await);
        }
    });
    let line = "for i in 1 2 3; do echo hello $i | nc api 80; done";
    let said = other(&lab, &network, line).await;
    assert_eq!(said, "HELLO 1\nHELLO 2\nHELLO 3");
    let line =
        "dd if=/dev/zero bs=1M count=20 2>/dev/null | tr '\\0' a | nc api 80 | tr -d A | wc -c";
    assert_eq!(other(&lab, &network, line).await, "0");

    // The other way round.
    let spec = lab.spec(lab.shell("db", "exec nc -ll -p 5432 -e echo from the database"));
    let db = lab.up(spec).await.unwrap();
    let ip = inspect(&db.0)["NetworkSettings"]["Networks"][&network]["IPAddress"].clone();
    let address = format!("{}:5432", ip.as_str().unwrap()).parse().unwrap();
    let dialled = async {
        loop {
            if let Ok(connection) = stream.dial(address).await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut connection = tokio::time::timeout(PATIENCE, dialled).await.unwrap();
    let mut heard = String::new();
    connection.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "from the database\n");
    drop(connection);

    // Nobody listens once the forwarder has gone, and the relay is there for the next one.
    carrying.abort();
    drop(stream);
    eventually(|| processes(&id) == 1).await;
    let line = "nc api 80 </dev/null 2>/dev/null || echo refused";
    assert_eq!(other(&lab, &network, line).await, "refused");
    let stream = Relay::open(&lab.containers, &id, "relay").await.unwrap();
    let _listener = stream.listen(80).await.unwrap();
    docker(&["kill", &id]);
    tokio::time::timeout(PATIENCE, stream.gone()).await.unwrap();
    assert!(Relay::open(&lab.containers, &id, "relay").await.is_err());
    serving.abort();
}
