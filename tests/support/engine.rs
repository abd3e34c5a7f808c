//! The Docker Engine of the tests, reached through the `docker` command: what wharf does is checked
//! from outside.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::eventually;
use super::running::{Finished, Running};

/// An engine that answers.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    /// Its address, as `DOCKER_HOST` takes it.
    pub(crate) host: String,
}

/// The engine, or the end of the test: with `WHARF_REQUIRE_ENGINE=1` by failure, else with a
/// printed reason.
macro_rules! require_engine {
    () => {
        match $crate::support::Engine::required(module_path!()) {
            Some(engine) => engine,
            None => return,
        }
    };
}
pub(crate) use require_engine;

/// Says that a test is skipped; where skipping is not allowed, fails it.
pub(crate) fn skipped(why: &str) {
    assert!(
        std::env::var_os("WHARF_REQUIRE_ENGINE").is_none_or(|set| set != "1"),
        "{why}"
    );
    println!("skipped: {why}");
}

impl Engine {
    /// The engine at `DOCKER_HOST`, or at the usual socket, if it answers.
    pub(crate) fn find() -> Option<Self> {
        let host = std::env::var_os("DOCKER_HOST").filter(|host| !host.is_empty());
        let host = host.map_or("unix:///var/run/docker.sock".to_owned(), |host| {
            host.to_string_lossy().into_owned()
        });
        let engine = Self { host };
        let version = engine
            .command(&["version", "--format", "{{.Server.Version}}"])
            .output()
            .ok()?;
        version.status.success().then_some(engine)
    }

    /// What [`require_engine!`](require_engine) asks.
    pub(crate) fn required(test: &str) -> Option<Self> {
        let engine = Self::find();
        if engine.is_none() {
            skipped(&format!("no Docker Engine answers ({test})"));
        }
        engine
    }

    /// Runs `docker` with arguments.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Finished {
        Running::start(self.command(arguments), Vec::new()).wait()
    }

    /// Runs `docker` with arguments, which must succeed, and returns what it printed, trimmed.
    #[track_caller]
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        self.docker(arguments).expect(0).stdout.trim().to_owned()
    }

    /// An image made of a static busybox and nothing else, every applet in `/bin`; built when it is
    /// missing or not the present one, which the engine's cache knows.
    pub(crate) fn busybox(&self) -> &'static str {
        const NAME: &str = "wharf-test-busybox";
        let context = tempfile::tempdir().unwrap();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        fs::copy(
            busybox.expect("a static busybox"),
            context.path().join("busybox"),
        )
        .unwrap();
        let recipe = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
        fs::write(context.path().join("Dockerfile"), recipe).unwrap();
        // The builder that every engine has; the other one is a plug-in of the client.
        let mut command = self.command(&["build", "--quiet", "--tag", NAME]);
        command.arg(context.path()).env("DOCKER_BUILDKIT", "0");
        drop(Running::start(command, Vec::new()).wait().expect(0));
        NAME
    }

    /// Runs a container of [`Engine::busybox`] in the background: `docker run OPTIONS IMAGE
    /// COMMAND`.
    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> Container {
        let arguments = [&["run", "--detach"], options, &[self.busybox()], command].concat();
        Container {
            id: self.ask(&arguments),
            engine: self.clone(),
        }
    }

    /// The ids of everything of one kind (`container`, `network`, `volume`) that carries a
    /// project's label.
    pub(crate) fn of_project(&self, kind: &str, project: &str) -> Vec<String> {
        let filter = format!("label=com.docker.compose.project={project}");
        let all: &[&str] = if kind == "container" { &["--all"] } else { &[] };
        let arguments = [&[kind, "ls", "--quiet", "--filter", &filter], all].concat();
        self.ask(&arguments).lines().map(str::to_owned).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .env("DOCKER_HOST", &self.host)
            .env_remove("DOCKER_CONTEXT");
        command
    }
}

/// A container that a test started. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its id, 64 hex digits.
    pub(crate) id: String,
    engine: Engine,
}

impl Container {
    /// Whether it runs; false after its removal too.
    pub(crate) fn runs(&self) -> bool {
        self.engine
            .docker(&["inspect", "--format", "{{.State.Running}}", &self.id])
            .stdout
            .trim()
            == "true"
    }

    /// Waits until it no longer runs.
    pub(crate) fn wait_end(&self) {
        eventually("the container ended", || (!self.runs()).then_some(()));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(
            self.engine
                .docker(&["rm", "--force", "--volumes", &self.id]),
        );
    }
}
