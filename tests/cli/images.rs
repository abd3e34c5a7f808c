//! Images: digests, pulls, pushes and builds against a registry on loopback (Debian's
//! `docker-registry`).

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use crate::support::engine::skipped;
use wharf::project::reference::HUB;

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
            skipped("docker-registry is not installed");
            return None;
        }
        let port = free_port();
        let passwords = sandbox.write("registry/passwords", PASSWORDS);
        let storage = sandbox.path().join("registry/storage");
        let auth = if private {
            let file = passwords.display();
            format!("auth: {{htpasswd: {{realm: test, path: {file}}}}}\n")
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n{auth}",
            storage.display()
        );
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
}

/// Puts busybox into a registry and returns its digest there; the local tag is gone again.
fn fill(engine: &Engine, config: Option<&str>, image: &str) -> String {
    engine.ask(&["tag", engine.busybox(), image]);
    let push = ["push", "--quiet", image];
    let global: Vec<&str> = config
        .into_iter()
        .flat_map(|path| ["--config", path])
        .collect();
    engine.ask(&[global.as_slice(), &push].concat());
    let name = engine.ask(&["inspect", "--format", "{{index .RepoDigests 0}}", image]);
    engine.ask(&["image", "rm", image]);
    let (_, digest) = name.split_once('@').unwrap();
    digest.to_owned()
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
    let digest = fill(&engine, None, &image);
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
            "services:\n  built: {{}}\n  fixed:\n    image: {HUB}/library/fixed@sha256:{fixed}\n  \
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
        format!("services:\n  web:\n    image: {HUB}/library/web@sha256:{fixed}\n")
    );
    sandbox.write("open.yaml", "services:\n  web: {image: web}\n");
    sandbox
        .wharf(&["-f", "open.yaml", "config", "--lock-image-digests"])
        .expect(4);
}

#[test]
fn images_are_pulled_built_and_pushed_with_the_configured_credentials() {
    let engine = require_engine!();
    let mut sandbox = Sandbox::with_engine(&engine);
    let Some(registry) = Registry::start(&sandbox, true) else {
        return;
    };
    let (host, project) = (&registry.host, sandbox.project().to_owned());
    let (base, made) = (
        format!("{host}/{project}/base:1"),
        format!("{host}/{project}/made:1"),
    );
    let login = registry.login(&sandbox);
    fill(&engine, Some(&login), &base);
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  base: {{image: '{base}'}}\n  same: {{image: '{base}'}}\n  \
             made:\n    image: '{made}'\n    build: {{context: ., args: [WORD]}}\n  \
             local: {{build: .}}\n  missing: {{image: '{host}/{project}/missing:1', profiles: [more]}}\n"
        ),
    );
    sandbox.write(
        "Dockerfile",
        format!("FROM {base}\nARG WORD\nENV SAID=$WORD\nCMD [\"true\"]\n"),
    );
    let refused = sandbox.wharf(&["pull", "base"]).expect(1);
    assert!(
        refused
            .stderr
            .contains(&format!("cannot pull image {base}")),
        "{refused}"
    );
    assert!(
        refused.stderr.contains("no basic auth credentials"),
        "{refused}"
    );
    assert!(
        refused.stderr.contains(&format!("docker login {host}")),
        "{refused}"
    );

    sandbox.set("DOCKER_CONFIG", login);
    // The base image comes from the registry: the builder has the credentials too.
    let built = sandbox
        .wharf(&["build", "--build-arg", "WORD=hello"])
        .expect(0);
    assert!(built.stderr.contains("build for made"), "{built}");
    assert!(built.stderr.contains("build for local"), "{built}");
    let said = engine.ask(&["inspect", "--format", "{{json .Config.Env}}", &made]);
    assert!(said.contains("SAID=hello"), "{said}");
    assert!(
        sandbox
            .wharf(&["build", "--quiet"])
            .expect(0)
            .stderr
            .is_empty()
    );
    assert!(
        sandbox
            .wharf(&["build", "base"])
            .expect(0)
            .stdout
            .is_empty()
    );

    let pushed = sandbox.wharf(&["push"]).expect(0);
    assert!(
        pushed.stderr.contains(&format!("image {made}: push")),
        "{pushed}"
    );
    assert!(pushed.stderr.contains("local: not pushed"), "{pushed}");
    engine.ask(&["image", "rm", &made]);
    let pulled = sandbox.wharf(&["pull"]).expect(0);
    for image in [&base, &made] {
        engine.ask(&["inspect", image]);
        assert!(
            pulled.stderr.contains(&format!("image {image}: pull")),
            "{pulled}"
        );
    }
    assert!(
        pulled
            .stderr
            .contains("same: not pulled, base has the same image"),
        "{pulled}"
    );
    let pulled = sandbox
        .wharf(&["pull", "--policy", "missing", "--ignore-buildable"])
        .expect(0);
    assert!(
        pulled
            .stderr
            .contains("base: not pulled, its image is here"),
        "{pulled}"
    );

    let all = ["--profile", "more", "pull"];
    sandbox.wharf(&[&all[..], &["--quiet"]].concat()).expect(1);
    let forgiven = sandbox
        .wharf(&[&all[..], &["--ignore-pull-failures"]].concat())
        .expect(0);
    assert!(forgiven.stderr.contains("missing:1"), "{forgiven}");
    for image in [&base, &made, &format!("{project}-local")] {
        engine.ask(&["image", "rm", "--force", image]);
    }
}

#[test]
fn builds_are_printed_for_bake() {
    let sandbox = Sandbox::new();
    sandbox.write("Dockerfile", "FROM scratch\n");
    sandbox.write(
        "compose.yaml",
        "services:\n  base: {build: .}\n  web:\n    build:\n      context: .\n      \
         additional_contexts: {base: 'service:base'}\n      args: {A: '1'}\n",
    );
    let dry = sandbox
        .wharf(&["--dry-run", "build", "web"])
        .expect(0)
        .stdout;
    let name = sandbox.project();
    assert!(
        dry.contains(&format!("image {name}-base: build for base")),
        "{dry}"
    );
    let printed = sandbox.wharf(&["build", "web", "--print"]).expect(0).stdout;
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        printed["group"]["default"]["targets"],
        serde_json::json!(["base", "web"])
    );
    let web = &printed["target"]["web"];
    assert_eq!(web["contexts"]["base"], "target:base");
    assert_eq!(web["args"]["A"], "1");
    assert_eq!(
        web["tags"],
        serde_json::json!([format!("{}-web", sandbox.project())])
    );
}

#[test]
fn build_checks_a_dockerfile_and_builds_nothing() {
    let engine = require_engine!();
    let mut sandbox = Sandbox::with_engine(&engine);
    sandbox.set("DOCKER_BUILDKIT", "1");
    let image = format!("{}-web", sandbox.project());
    sandbox.write("compose.yaml", "services: {web: {build: .}}\n");
    sandbox.write("Dockerfile", "FROM scratch\nENV word other\n");
    let checked = sandbox.wharf(&["build", "--check"]).expect(1);
    let version = engine.ask(&["version", "--format", "{{.Server.Version}}"]);
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    let expected = if major < 27 {
        "this engine has no checks"
    } else {
        "LegacyKeyValueFormat"
    };
    assert!(checked.stderr.contains(expected), "{checked}");
    if major >= 27 {
        sandbox.write("Dockerfile", "FROM scratch\nENV word=other\n");
        let checked = sandbox.wharf(&["build", "--check"]).expect(0);
        assert!(checked.stderr.contains("no warnings found"), "{checked}");
    }
    assert_eq!(engine.ask(&["images", "--quiet", &image]), "");
}

#[test]
fn an_image_for_another_platform_costs_no_container() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let image = engine.busybox();
    let compose = |more: &str| {
        let text = format!(
            "services:\n  a: {{image: {image}, pull_policy: never, command: [sleep, '600'], stop_grace_period: 0s{more}}}\n"
        );
        sandbox.write("compose.yaml", text);
    };
    compose("");
    sandbox.wharf(&["up", "-d"]).expect(0);
    let first = engine.of_project("container", sandbox.project());
    compose(", platform: linux/s390x");
    let refused = sandbox.wharf(&["up", "-d"]).expect(1);
    assert!(refused.stderr.contains("not linux/s390x"), "{refused}");
    assert_eq!(engine.of_project("container", sandbox.project()), first);
    let name = format!("{}-a-1", sandbox.project());
    let running = engine.ask(&["inspect", "--format", "{{.State.Running}}", &name]);
    assert_eq!(running.trim(), "true");
}
