//! Pulling from a private registry on loopback (Debian's `docker-registry`), where there is one.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf::backend::BackendError;
use wharf::backend::container::Containers;
use wharf::event::Event;
use wharf::plan::step::Action;
use wharf::project::model::Service;

use crate::engine::{Lab, docker, env, free_port, lab, skipped};

/// `user` with the password `secret`, by bcrypt.
const PASSWORDS: &str = "user:$2b$04$yI5m072tZ408LCATFAVKn.LY7JYOMf6DSkg76bT3f2bMAjub372M6\n";

/// The same for the Docker configuration.
const AUTH: &str = "dXNlcjpzZWNyZXQ=";

struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    /// Starts one that asks for a password; `None` where it is not installed.
    fn start(lab: &Lab) -> Option<Self> {
        let directory = lab.directory.path();
        let port = free_port();
        let place = |name: &str| directory.join(name).display().to_string();
        fs::write(place("passwords"), PASSWORDS).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\nauth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            place("storage"),
            place("passwords")
        );
        fs::write(place("registry.yaml"), config).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &place("registry.yaml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            skipped("docker-registry is not installed");
            return None;
        };
        let registry = Self {
            child,
            host: format!("127.0.0.1:{port}"),
        };
        let deadline = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It is our child and was not waited for, so the pid is its own.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn a_private_image_is_pulled_with_the_configured_credentials() {
    let mut lab = lab!();
    let Some(registry) = Registry::start(&lab) else {
        return;
    };
    let image = format!("{}/{}/busybox:1", registry.host, lab.project.name);
    let config = lab.directory.path().join("docker");
    fs::create_dir(&config).unwrap();
    fs::write(
        config.join("config.json"),
        format!(
            r#"{{"auths": {{"{}": {{"auth": "{AUTH}"}}}}}}"#,
            registry.host
        ),
    )
    .unwrap();
    let config = config.display().to_string();
    docker(&["tag", lab.busybox(), &image]);
    docker(&["--config", &config, "push", "-q", &image]);
    docker(&["image", "rm", &image]);

    let pull = Action::Pull {
        service: Arc::new(Service {
            name: "web".to_owned(),
            ..Service::default()
        }),
        image: image.clone(),
    };
    let error = lab.perform(pull.clone()).await.unwrap_err();
    let BackendError::Registry {
        action,
        registry: asked,
        source,
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(*action, format!("cannot pull image {image}"));
    assert_eq!(*asked, registry.host);
    assert!(source.to_string().contains("basic auth"), "{source}");

    let mut env = env();
    env.variables.insert("DOCKER_CONFIG".to_owned(), config);
    lab.containers = Containers::new(&env);
    lab.perform(pull).await.unwrap();
    docker(&["image", "rm", &image]);
    let told = lab.told();
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Progress { subject, line }
            if subject == "web" && line.starts_with("Digest: sha256:"))),
        "{told:?}"
    );
}
