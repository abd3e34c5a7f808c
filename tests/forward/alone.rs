//! Projects without containers: processes find each other, and no engine is asked.

use crate::stage::{Stage, eventually, free_port, talk};

#[tokio::test]
async fn a_process_is_found_on_the_port_that_the_file_gives_it() {
    let stage = Stage::new("127.0.0.1");
    let (actual, declared) = (free_port(), free_port());
    stage
        .run("web", &[], vec!["sleep".to_owned(), "600".to_owned()])
        .await;
    stage.forward(false);
    stage.sync(&[]).await;
    assert_eq!(stage.resolve("web", "api"), Vec::<String>::new());
    stage
        .up(
            "api",
            &[(declared, actual)],
            &[format!("127.0.0.1 {actual}")],
        )
        .await;
    let address = eventually("it has a name", || stage.resolve("web", "api").pop());
    assert!(
        address.starts_with("127.") && address != "127.0.0.1",
        "{address}"
    );
    let heard = eventually("its port is there", || {
        let stream = std::net::TcpStream::connect(format!("{address}:{declared}")).ok()?;
        talk(stream, "hello ").ok()
    });
    assert_eq!(heard, "hello api");
    stage.stop("api").await;
    stage.sync(&[]).await;
    assert_eq!(stage.resolve("web", "api"), Vec::<String>::new());
    eventually("its port has gone", || {
        std::net::TcpStream::connect(format!("{address}:{declared}")).err()
    });
}

#[tokio::test]
async fn what_has_its_own_port_is_at_127_0_0_1() {
    let stage = Stage::new("127.0.0.1");
    let port = free_port();
    stage
        .up("api", &[(port, port)], &[format!("127.0.0.1 {port}")])
        .await;
    stage.forward(false);
    stage.sync(&[]).await;
    assert_eq!(stage.resolve("api", "api"), ["127.0.0.1"]);
}
