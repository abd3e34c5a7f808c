//! The engine under test, a project of its own for each test, and the steps to send it through.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use wharf::backend::container::Containers;
use wharf::backend::{Backend, BackendError, Made};
use wharf::event::{Event, Events};
use wharf::plan::step::{
    Action, Attachment, Cause, InstanceSpec, ProjectIdentity, SettledPort, Step, StepId, Target,
    Which,
};
use wharf::port::claim::Protocol;
use wharf::project::Env;
use wharf::project::model::{Network, NetworkAttachment, Service};
use wharf::state::{BackendKind, Fingerprint, Instance, InstanceId};

/// Ends a test that needs an engine where there is none: loudly if one was promised.
macro_rules! lab {
    () => {
        match $crate::engine::Lab::new() {
            Some(lab) => lab,
            None => return,
        }
    };
}
pub(crate) use lab;

/// The image of all test services.
const BUSYBOX: &str = "wharf-test-container-busybox";

/// A project on the engine at `DOCKER_HOST`. Everything it made is removed at the end.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) project: Arc<ProjectIdentity>,
    pub(crate) containers: Containers,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) made: Made,
    pub(crate) events: Events,
    pub(crate) received: UnboundedReceiver<Event>,
    next_step: u32,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads the environment it was started with"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The environment of wharf in these tests.
pub(crate) fn env() -> Env {
    let host = variable("DOCKER_HOST").unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    Env {
        variables: BTreeMap::from([("DOCKER_HOST".to_owned(), host)]),
        current_dir: PathBuf::from("/"),
    }
}

fn output_of(arguments: &[&str]) -> std::process::Output {
    Command::new("docker")
        .args(arguments)
        .env("DOCKER_HOST", &env().variables["DOCKER_HOST"])
        .env("DOCKER_BUILDKIT", "0")
        .output()
        .unwrap()
}

/// Runs `docker` and returns what it printed; `None` if it speaks of something that is not there.
#[track_caller]
pub(crate) fn docker_if(arguments: &[&str]) -> Option<String> {
    let output = output_of(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("No such container") {
        return None;
    }
    assert!(output.status.success(), "docker {arguments:?}: {error}");
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// Runs `docker`, which must succeed, and returns what it printed.
#[track_caller]
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = output_of(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What the engine says about something.
#[track_caller]
pub(crate) fn inspect(what: &str) -> Value {
    let text = docker(&["inspect", what]);
    let mut all: Vec<Value> = serde_json::from_str(&text).unwrap();
    all.remove(0)
}

/// A port that is free on this machine just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Says that a test is skipped; where skipping is not allowed, fails it.
pub(crate) fn skipped(why: &str) {
    assert!(
        variable("WHARF_REQUIRE_ENGINE").is_none_or(|value| value != "1"),
        "{why}"
    );
    println!("skipped: {why}");
}

impl Lab {
    /// A lab, if an engine answers.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let answers = Command::new("docker")
            .args(["version", "--format", "{{.Server.Version}}"])
            .env("DOCKER_HOST", &env().variables["DOCKER_HOST"])
            .output();
        if !answers.is_ok_and(|output| output.status.success()) {
            skipped("no engine answers at DOCKER_HOST");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let name = format!(
            "wharftest{}x{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let (events, received) = Events::channel();
        Some(Self {
            project: Arc::new(ProjectIdentity {
                name,
                working_dir: directory.path().to_owned(),
                config_files: vec![directory.path().join("compose.yaml")],
                env_files: Vec::new(),
            }),
            containers: Containers::new(&env()),
            directory,
            made: Made::default(),
            events,
            received,
            next_step: 0,
        })
    }

    /// An image of busybox and nothing else; the same for all tests.
    pub(crate) fn busybox(&self) -> &'static str {
        static BUILT: OnceLock<()> = OnceLock::new();
        BUILT.get_or_init(|| self.build_busybox());
        BUSYBOX
    }

    fn build_busybox(&self) {
        let context = self.directory.path().join("busybox-context");
        std::fs::create_dir_all(&context).unwrap();
        let source = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .expect("a static busybox");
        std::fs::copy(source, context.join("busybox")).unwrap();
        std::fs::write(
            context.join("Dockerfile"),
            "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"/bin\"]\nENV PATH=/bin\n",
        )
        .unwrap();
        let output = Command::new("docker")
            .args(["build", "-q", "-t", BUSYBOX, "."])
            .current_dir(&context)
            .env("DOCKER_HOST", &env().variables["DOCKER_HOST"])
            .env("DOCKER_BUILDKIT", "0")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Performs an action as a step of its own.
    pub(crate) async fn perform(
        &mut self,
        action: Action,
    ) -> Result<Option<InstanceId>, BackendError> {
        self.next_step += 1;
        let step = Step {
            id: StepId(self.next_step),
            action,
            cause: Cause::Missing,
            needs: Vec::new(),
        };
        let made = self
            .containers
            .perform(&step, &self.made, &self.events)
            .await?;
        if let Some(id) = &made {
            self.made.put(step.id, id.clone());
        }
        Ok(made)
    }

    /// What the last step did in place of what was asked.
    pub(crate) fn said(&self) -> Option<String> {
        self.made.said(StepId(self.next_step))
    }

    /// The project's default network, made.
    pub(crate) async fn default_network(&mut self) -> Arc<Network> {
        let network = Arc::new(Network {
            key: "default".to_owned(),
            name: format!("{}_default", self.project.name),
            ..Network::default()
        });
        self.perform(Action::CreateNetwork {
            network: Arc::clone(&network),
            project: Arc::clone(&self.project),
        })
        .await
        .unwrap();
        network
    }

    /// A service of busybox that runs a shell line.
    pub(crate) fn shell(&self, name: &str, line: &str) -> Service {
        Service {
            name: name.to_owned(),
            image: Some(self.busybox().to_owned()),
            command: Some(vec!["sh".to_owned(), "-c".to_owned(), line.to_owned()]),
            networks: BTreeMap::from([("default".to_owned(), NetworkAttachment::default())]),
            stop_grace_period: Some(std::time::Duration::from_secs(1)),
            ..Service::default()
        }
    }

    /// The spec of a service's first instance, in the project's default network.
    pub(crate) fn spec(&self, service: Service) -> InstanceSpec {
        InstanceSpec {
            project: Arc::clone(&self.project),
            backend: BackendKind::Container,
            name: format!("{}-{}-1", self.project.name, service.name),
            number: 1,
            fingerprint: Fingerprint("0".repeat(64)),
            image: service.image.clone().unwrap_or_default(),
            ports: Vec::new(),
            environment: BTreeMap::new(),
            networks: vec![Attachment {
                key: "default".to_owned(),
                network: format!("{}_default", self.project.name),
                aliases: vec![service.name.clone()],
            }],
            volumes: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            replaces: None,
            inherits: true,
            readiness: None,
            one_off: None,
            names: wharf::naming::Names::default(),
            service: Arc::new(service),
        }
    }

    /// Makes a container.
    pub(crate) async fn create(&mut self, spec: InstanceSpec) -> Result<InstanceId, BackendError> {
        let made = self.perform(Action::Create(Box::new(spec))).await?;
        Ok(made.expect("Create makes an instance"))
    }

    /// Makes a container and starts it.
    pub(crate) async fn up(&mut self, spec: InstanceSpec) -> Result<InstanceId, BackendError> {
        let service = spec.service.name.clone();
        let id = self.create(spec).await?;
        let instance = self.target(&service, &id);
        self.perform(Action::Start { instance }).await?;
        Ok(id)
    }

    /// A container as the target of a step.
    pub(crate) fn target(&self, service: &str, id: &InstanceId) -> Target {
        Target {
            backend: BackendKind::Container,
            project: self.project.name.clone(),
            service: service.to_owned(),
            name: format!("{}-{service}-1", self.project.name),
            which: Which::Existing(id.clone()),
            role: None,
        }
    }

    /// What the backend sees of the project.
    pub(crate) async fn observe(&self) -> Vec<Instance> {
        self.containers.observe(&self.project.name).await.unwrap()
    }

    /// All events so far.
    pub(crate) fn told(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }
}

/// A published TCP port.
pub(crate) fn published(target: u16, host: Option<u16>, ip: Ipv4Addr) -> SettledPort {
    SettledPort {
        target,
        published: host,
        addresses: vec![ip.into()],
        protocol: Protocol::Tcp,
        app_protocol: None,
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let label = format!("label=com.docker.compose.project={}", self.project.name);
        for (list, remove) in [
            (&["ps", "-aq"][..], &["rm", "-fv"][..]),
            (&["network", "ls", "-q"], &["network", "rm"]),
            (&["volume", "ls", "-q"], &["volume", "rm"]),
            (&["image", "ls", "-q"], &["image", "rm", "-f"]),
        ] {
            let found = docker(&[list, &["--filter", &label]].concat());
            let found: std::collections::BTreeSet<&str> = found.lines().collect();
            if !found.is_empty() {
                let found: Vec<&str> = found.into_iter().collect();
                let output = output_of(&[remove, &found].concat());
                let error = String::from_utf8_lossy(&output.stderr);
                // An engine under load may lose count of what it has taken out of a network; all containers are gone.
                let is_lost = remove[0] == "network" && error.contains("has active endpoints");
                assert!(output.status.success() || is_lost, "{found:?}: {error}");
            }
        }
    }
}
