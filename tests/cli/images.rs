//! Images: digests, pulls, pushes and builds against a registry on loopback (Debian's
//! `docker-registry`).

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use crate::support::running::Running;
use crate::support::{Engine, Sandbox, eventually, free_port, require_engine};

/// `user` with the password `secret`, by bcrypt.
const PASSWORDS: &str = "user:$2b$04$yI5m072tZ408LCATFAVKn.LY7JYOMf6DSkg76bT3f2bMAjub372M6\n";

/// The same for the Docker configuration.
const AUTH: &str = "dXNlcjpzZWNyZXQ=";

/// A registry of this test alone.
struct Registry {
    _server: Running,
    host: String,
}

impl Registry {
    /// Starts one, with a password or without; `None` where it is not installed.
    fn start(sandbox: &Sandbox, private: bool) -> Option<Self> {
        if !Path::new("/usr/bin/docker-registry").exists() {
            println!("skipped: docker-registry is not installed");
            return None;
        }
        let port = free_port();
        let passwords = sandbox.write("registry/passwords", PASSWORDS);
        let storage = sandbox.path().join("registry/storage");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            storage.display()
        );
        if private {
            config += &format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                passwords.display()
            );
        }
        let config = sandbox.write("registry/config.yaml", config);
        let config = config.display().to_string();
        let server = sandbox.program("/usr/bin/docker-registry", &["serve", &config]);
        eventually("the registry listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        Some(Self {
            _server: server,
            host: format!("127.0.0.1:{port}"),
        })
    }

    /// A Docker configuration directory that knows the password.
    fn login(&self, sandbox: &Sandbox) -> String {
        let text = format!(r#"{{"auths": {{"{}": {{"auth": "{AUTH}"}}}}}}"#, self.host);
        let file = sandbox.write("docker/config.json", text);
        file.parent().unwrap().display().to_string()
    }

    /// Puts busybox into it and returns its digest there; the local tag is gone again.
    fn fill(&self, engine: &Engine, image: &str) -> String {
        engine.ask(&["tag", engine.busybox(), image]);
        engine.ask(&["push", "--quiet", image]);
        let name = engine.ask(&["inspect", "--format", "{{index .RepoDigests 0}}", image]);
        engine.ask(&["image", "rm", image]);
        let (_, digest) = name.split_once('@').unwrap();
        digest.to_owned()
    }
}

#[test]
fn config_pins_images_by_what_their_registry_has() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let Some(registry) = Registry::start(&sandbox, false) else {
        return;
    };
    let host = &registry.host;
    let image = format!("{host}/{}/web:1", sandbox.project());
    let digest = registry.fill(&engine, &image);
    let fixed = "1".repeat(64);
    let files = |web: &str| {
        format!(
            "services:\n  web: {{image: '{web}'}}\n  fixed: {{image: 'fixed:2@sha256:{fixed}'}}\n  \
             built: {{build: .}}\n"
        )
    };
    sandbox.write("pinned.yaml", files(&image));
    let shown = sandbox.wharf(&["-f", "pinned.yaml", "config", "--lock-image-digests"]);
    assert_eq!(
        shown.expect(0).stdout,
        format!(
            "services:\n  built: {{}}\n  fixed:\n    image: docker.io/library/fixed@sha256:{fixed}\n  \
             web:\n    image: {image}@{digest}\n"
        )
    );
    let shown = sandbox
        .wharf(&["-f", "pinned.yaml", "config", "--resolve-image-digests"])
        .expect(0);
    assert!(shown.stdout.contains(&format!("image: {image}@{digest}\n")));

    let missing = format!("{host}/{}/nothing:1", sandbox.project());
    sandbox.write("missing.yaml", files(&missing));
    let shown = sandbox
        .wharf(&["-f", "missing.yaml", "config", "--resolve-image-digests"])
        .expect(1);
    assert!(shown.stdout.is_empty(), "{shown}");
    assert!(
        shown
            .stderr
            .contains(&format!("failed to resolve digest for {missing}")),
        "{shown}"
    );
    assert!(shown.stderr.contains("manifest unknown"), "{shown}");
}

#[test]
fn config_pins_without_an_engine_where_nothing_is_to_be_asked() {
    let sandbox = Sandbox::new();
    let fixed = "1".repeat(64);
    sandbox.write(
        "pinned.yaml",
        format!("services:\n  web: {{image: 'web@sha256:{fixed}'}}\n"),
    );
    let shown = sandbox.wharf(&["-f", "pinned.yaml", "config", "--lock-image-digests"]);
    assert_eq!(
        shown.expect(0).stdout,
        format!("services:\n  web:\n    image: docker.io/library/web@sha256:{fixed}\n")
    );
    sandbox.write("open.yaml", "services:\n  web: {image: web}\n");
    sandbox
        .wharf(&["-f", "open.yaml", "config", "--lock-image-digests"])
        .expect(4);
}
