//! From a process of this machine to containers.

use std::os::unix::fs::MetadataExt as _;

use crate::stage::{Stage, eventually, is_root, talk};

fn sleep() -> Vec<String> {
    vec!["sleep".to_owned(), "600".to_owned()]
}

#[tokio::test]
async fn a_container_that_is_near_is_in_the_hosts_file_as_long_as_it_runs() {
    // The loopback address is one of this machine's: it has a leg.
    let stage = Stage::new("127.0.0.1");
    stage.engine.start("db", "10.77.0.2", &[5432], false);
    stage.run("api", &[], sleep()).await;
    stage.forward(true);
    stage.sync(&[]).await;
    assert_eq!(stage.resolve("api", "db"), ["10.77.0.2"]);
    assert_eq!(stage.resolve("api", "stage-db-1"), ["10.77.0.2"]);
    assert_eq!(stage.resolve("api", "api"), ["127.0.0.1"]);
    let before = std::fs::metadata(stage.hosts("api")).unwrap();
    stage.engine.start("db", "10.77.0.3", &[], false);
    eventually("the second one is there", || {
        (stage.resolve("api", "db") == ["10.77.0.2", "10.77.0.3"]).then_some(())
    });
    stage.engine.die("db");
    eventually("its name has gone", || {
        stage.resolve("api", "db").is_empty().then_some(())
    });
    let after = std::fs::metadata(stage.hosts("api")).unwrap();
    assert_eq!(after.ino(), before.ino());
    assert!(after.len() >= before.len());
}

#[tokio::test]
async fn a_container_that_is_far_is_reached_through_the_relay() {
    if !is_root() {
        return;
    }
    let stage = Stage::new("192.0.2.1");
    stage.run("api", &[], sleep()).await;
    stage.forward(true);
    let relay = stage.relay("api");
    stage.engine.start("api", "10.77.0.9", &[], true);
    stage.sync(&["api"]).await;
    // Its address means something in the relay's namespace alone.
    let listener = relay.inside(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    stage.engine.start("db", "127.0.0.1", &[port], false);
    stage.sync(&["api"]).await;
    let [address] = &stage.resolve("api", "db")[..] else {
        panic!("{:?}", stage.resolve("api", "db"));
    };
    assert!(address.starts_with("127."), "{address}");
    let server = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        stream.write_all(b"a database").unwrap();
        heard
    });
    let stream = std::net::TcpStream::connect(format!("{address}:{port}")).unwrap();
    assert_eq!(talk(stream, "select").unwrap(), "a database");
    assert_eq!(server.join().unwrap(), "select");
    // Nobody listens there any more.
    let stream = std::net::TcpStream::connect(format!("{address}:{port}")).unwrap();
    assert!(talk(stream, "").is_err());
}
