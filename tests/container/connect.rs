//! The same engine reached by other ways: through `ssh`, and through TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use wharf::backend::container::Containers;
use wharf::backend::{Backend, BackendError};

use crate::build::{action, built};
use crate::engine::{Lab, docker, env, lab};

/// Test certificates: an authority, an engine on 127.0.0.1 and a client, valid for a hundred years.
const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/container/tls");

/// The engine's socket; what these tests put in front of it takes no other address.
fn socket() -> Option<String> {
    let env = env();
    let host = env.variables.get("DOCKER_HOST")?;
    let socket = host.strip_prefix("unix://").map(str::to_owned);
    if socket.is_none() {
        println!("skipped: DOCKER_HOST is not a socket");
    }
    socket
}

fn containers(variables: &[(&str, &str)]) -> Containers {
    let mut env = env();
    for (name, value) in variables {
        env.variables
            .insert((*name).to_owned(), (*value).to_owned());
    }
    Containers::new(&env)
}

/// Lists, and builds with `BuildKit`: plain requests, and connections that are taken over.
async fn use_it(lab: &mut Lab, way: Containers) {
    lab.containers = way;
    assert!(
        lab.containers
            .observe(&lab.project.name)
            .await
            .unwrap()
            .is_empty()
    );
    let service = built(lab, "FROM BASE\nCOPY kept /kept\n");
    let build = action(lab, service);
    lab.perform(build).await.unwrap();
    let name = format!("{}-web", lab.project.name);
    assert_eq!(
        docker(&["run", "--rm", "--net=none", &name, "cat", "/kept"]),
        "kept"
    );
}

#[tokio::test]
async fn an_engine_is_reached_through_ssh() {
    let mut lab = lab!();
    let Some(socket) = socket() else {
        return;
    };
    // Stands for ssh and for the machine behind it.
    let programs = lab.directory.path().join("programs");
    let log = lab.directory.path().join("ssh.log");
    fs::create_dir(&programs).unwrap();
    let ssh = programs.join("ssh");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\ncase \"$*\" in *nowhere*) echo 'no route to nowhere' >&2; exit 255;; esac\n\
         DOCKER_HOST=unix://{socket} exec docker system dial-stdio\n",
        log.display()
    );
    fs::write(&ssh, script).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        programs.display(),
        std::env::var_os("PATH").unwrap().display()
    );

    let far = containers(&[("DOCKER_HOST", "ssh://me@far:2222"), ("PATH", &path)]);
    assert!(!far.reachable().await.unwrap().local);
    use_it(&mut lab, far).await;
    let calls = fs::read_to_string(&log).unwrap();
    let wanted = "-o ConnectTimeout=30 -T -l me -p 2222 -- far docker system dial-stdio";
    assert!(calls.lines().all(|call| call == wanted), "{calls}");
    // One for all requests, one each for the build and its session.
    assert!(calls.lines().count() <= 4, "{calls}");

    // The same, as a context of the Docker client has it.
    let stored = context(&lab, "far", "host=ssh://me@far:2222");
    let named = containers(&[
        ("DOCKER_HOST", ""),
        ("DOCKER_CONTEXT", "far"),
        ("DOCKER_CONFIG", &stored),
        ("PATH", &path),
    ]);
    assert!(!named.reachable().await.unwrap().local);
    drop(named);
    let calls = fs::read_to_string(&log).unwrap();
    assert!(calls.lines().all(|call| call == wanted), "{calls}");

    let nowhere = containers(&[("DOCKER_HOST", "ssh://nowhere"), ("PATH", &path)]);
    let error = nowhere.reachable().await.unwrap_err();
    let BackendError::EngineUnreachable { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(source.to_string(), "no route to nowhere");
}

/// Has the Docker client keep a context; the directory of its configuration.
fn context(lab: &Lab, name: &str, endpoint: &str) -> String {
    let config = lab.directory.path().join("config").display().to_string();
    let made = Command::new("docker")
        .args(["context", "create", name, "--docker", endpoint])
        .env("DOCKER_CONFIG", &config)
        .env_remove("DOCKER_HOST")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{error}");
    config
}

/// Takes TLS off in front of the engine's socket, for clients with a certificate.
async fn tls(socket: String) -> (u16, JoinHandle<()>) {
    let file = |name: &str| format!("{CERTIFICATES}/{name}");
    let certificate = |name: &str| CertificateDer::from_pem_file(file(name)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.pem")).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate("server-cert.pem")],
            PrivateKeyDer::from_pem_file(file("server-key.pem")).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, socket) = (acceptor.clone(), socket.clone());
            tokio::spawn(async move {
                // Clients without a certificate are turned away here.
                let Ok(mut client) = acceptor.accept(stream).await else {
                    return;
                };
                let mut engine = UnixStream::connect(&socket).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut client, &mut engine).await);
            });
        }
    });
    (port, serving)
}

#[tokio::test]
async fn an_engine_is_reached_through_tls() {
    let mut lab = lab!();
    let Some(socket) = socket() else {
        return;
    };
    let (port, serving) = tls(socket).await;
    let host = format!("tcp://127.0.0.1:{port}");
    let secure = [("DOCKER_HOST", host.as_str()), ("DOCKER_TLS_VERIFY", "1")];
    let with =
        |directory: &str| containers(&[&secure[..], &[("DOCKER_CERT_PATH", directory)]].concat());
    use_it(&mut lab, with(CERTIFICATES)).await;

    // The same, as a context of the Docker client has it.
    let file = |name: &str| format!("{CERTIFICATES}/{name}.pem");
    let (ca, cert, key) = (file("ca"), file("cert"), file("key"));
    let stored = context(
        &lab,
        "secure",
        &format!("host={host},ca={ca},cert={cert},key={key}"),
    );
    let named = containers(&[
        ("DOCKER_HOST", ""),
        ("DOCKER_CONTEXT", "secure"),
        ("DOCKER_CONFIG", &stored),
    ]);
    let seen = named.observe(&lab.project.name).await.unwrap();
    assert!(seen.is_empty(), "{seen:?}");
    let bare = context(&lab, "bare", &format!("host={host}"));
    let named = containers(&[
        ("DOCKER_HOST", ""),
        ("DOCKER_CONTEXT", "bare"),
        ("DOCKER_CONFIG", &bare),
    ]);
    let error = named.reachable().await;
    assert!(
        matches!(error, Err(BackendError::EngineUnreachable { .. })),
        "{error:?}"
    );

    // Whose certificate is of another authority is not the engine.
    let strange = lab.directory.path().join("strange");
    fs::create_dir(&strange).unwrap();
    fs::copy(format!("{CERTIFICATES}/cert.pem"), strange.join("ca.pem")).unwrap();
    let error = with(&strange.display().to_string()).reachable().await;
    assert!(
        matches!(error, Err(BackendError::EngineUnreachable { .. })),
        "{error:?}"
    );
    let nowhere = with("/nonexistent").reachable().await.unwrap_err();
    let BackendError::EngineUnreachable { source, .. } = &nowhere else {
        panic!("{nowhere:?}");
    };
    assert!(
        source.to_string().contains("/nonexistent/ca.pem"),
        "{source}"
    );

    // A client that nobody knows, and that asks for nobody's certificate: turned away by the engine.
    let unknown = containers(&[
        ("DOCKER_HOST", host.as_str()),
        ("DOCKER_TLS", "1"),
        ("DOCKER_CERT_PATH", "/nonexistent"),
    ]);
    assert!(matches!(
        unknown.reachable().await,
        Err(BackendError::EngineUnreachable { .. })
    ));
    serving.abort();
}
