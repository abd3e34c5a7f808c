//! Both tools as a user runs them: `wharf` and, where it is installed, `docker-compose`, on one project
//! of a [`Lab`].

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::engine::{Lab, docker, docker_if, env, variable};

/// Which tool runs a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Wharf,
    Compose,
}

/// Where Docker Compose is: `DOCKER_COMPOSE`, or on the PATH. Says so where it is not.
pub(crate) fn compose() -> Option<PathBuf> {
    let program = variable("DOCKER_COMPOSE").unwrap_or_else(|| "docker-compose".to_owned());
    let version = Command::new(&program).args(["version", "--short"]).output();
    if version.is_ok_and(|output| output.stdout.starts_with(b"2.")) {
        return Some(program.into());
    }
    println!("SKIPPED: no docker-compose 2.x on the PATH or at DOCKER_COMPOSE");
    None
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Lab {
    /// Writes the compose file.
    pub(crate) fn write(&self, text: &str) {
        self.busybox();
        fs::write(self.directory.path().join("compose.yaml"), text).unwrap();
    }

    /// A command of a tool on this project.
    pub(crate) fn command(&self, tool: Tool, arguments: &[&str]) -> Command {
        let program = match tool {
            Tool::Wharf => PathBuf::from(env!("CARGO_BIN_EXE_wharf")),
            Tool::Compose => compose().expect("asked before"),
        };
        let home = self.directory.path().join("home");
        fs::create_dir_all(home.join("run")).unwrap();
        let mut command = Command::new(program);
        command
            .args(["-p", &self.project.name])
            .args(arguments)
            .current_dir(self.directory.path())
            .env("DOCKER_HOST", &env().variables["DOCKER_HOST"])
            .env("HOME", &home)
            .env("XDG_STATE_HOME", home.join("state"))
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("PARITY_SECRET", "from the environment")
            .env_remove("COMPOSE_FILE")
            .env_remove("COMPOSE_PROJECT_NAME");
        command
    }

    /// Runs a command of a tool.
    pub(crate) fn run(&self, tool: Tool, arguments: &[&str]) -> Ended {
        self.command(tool, arguments).output().unwrap().into()
    }

    /// Runs a command of a tool, which must succeed.
    #[track_caller]
    pub(crate) fn succeeds(&self, tool: Tool, arguments: &[&str]) -> Ended {
        let ended = self.run(tool, arguments);
        assert_eq!(
            ended.code,
            Some(0),
            "{tool:?} {arguments:?}: {}",
            ended.stderr
        );
        ended
    }

    /// The project's containers as the engine shows them, by name.
    pub(crate) fn inspected(&self) -> BTreeMap<String, Value> {
        let label = format!("label=com.docker.compose.project={}", self.project.name);
        let ids = docker(&["ps", "-aq", "--no-trunc", "--filter", &label]);
        if ids.is_empty() {
            return BTreeMap::new();
        }
        // Each by itself: one may be gone by then.
        let all = ids.lines().filter_map(|id| {
            let text = docker_if(&["container", "inspect", id])?;
            let mut one: Vec<Value> = serde_json::from_str(&text).unwrap();
            Some(one.remove(0))
        });
        all.map(|container| {
            let name = container["Name"].as_str().unwrap_or_default();
            let name = name
                .trim_start_matches('/')
                .replace(&self.project.name, "P");
            (name, container)
        })
        .collect()
    }

    /// The ids and states of the project's containers, by name.
    pub(crate) fn states(&self) -> BTreeMap<String, (String, String)> {
        let inspected = self.inspected().into_iter();
        inspected
            .map(|(name, container)| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let state = text(&container["State"]["Status"]);
                (name, (text(&container["Id"]), state))
            })
            .collect()
    }
}

/// The names of containers that are not the same in both.
pub(crate) fn changed(
    before: &BTreeMap<String, (String, String)>,
    after: &BTreeMap<String, (String, String)>,
) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name).map(|(id, _)| id) != after.get(*name).map(|(id, _)| id))
        .cloned()
        .collect()
}
