//! A project directory with homes of its own, and the proof that nothing of it outlives the test.
//!
//! Everything started through a sandbox has one environment variable of its own value, [`MARKER`].
//! What still has it at the end, or still works in the sandbox's directory, was left behind: that
//! fails the test.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;
use wharf::backend::process::cgroup::{Group, View};
use wharf::backend::process::dirs::Dirs;

use super::process::{self, Process};
use super::running::{Finished, Running, Stable};
use super::terminal::Terminal;
use super::{Engine, eventually};

/// The variable that marks processes.
const MARKER: &str = "WHARF_TEST_SANDBOX";

/// The wharf that is tested.
const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

/// Where one test works.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// Removes the files at the end.
    _files: tempfile::TempDir,
    /// The project directory; its name is the project's.
    directory: PathBuf,
    project: String,
    environment: BTreeMap<OsString, OsString>,
    engine: Option<Engine>,
}

impl Sandbox {
    /// A sandbox from which no engine can be reached.
    pub(crate) fn new() -> Self {
        Self::make(None)
    }

    /// A sandbox whose wharf reaches an engine.
    pub(crate) fn with_engine(engine: &Engine) -> Self {
        Self::make(Some(engine.clone()))
    }

    fn make(engine: Option<Engine>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let files = tempfile::Builder::new().prefix("wharf-").tempdir().unwrap();
        let root = files.path().canonicalize().unwrap();
        let project = format!(
            "t{}x{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = root.join(&project);
        let mut environment = BTreeMap::new();
        for (name, folder) in [
            ("HOME", "home"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_RUNTIME_DIR", "run"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_CACHE_HOME", "cache"),
            ("TMPDIR", "tmp"),
        ] {
            let path = root.join(folder);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            environment.insert(name.into(), path.into());
        }
        fs::create_dir(&directory).unwrap();
        let nowhere = format!("unix://{}/no-engine.sock", root.display());
        let host = engine
            .as_ref()
            .map_or(nowhere, |engine| engine.host.clone());
        environment.insert("DOCKER_HOST".into(), host.into());
        environment.insert("PATH".into(), search_path());
        environment.insert("LANG".into(), "C.UTF-8".into());
        environment.insert(MARKER.into(), project.clone().into());
        Self {
            _files: files,
            directory,
            project,
            environment,
            engine,
        }
    }

    /// The project directory, where everything runs.
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// The name that the project has by its directory.
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// Sets a variable for all that is started from now on.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// The value of a variable that is set for all that is started.
    pub(crate) fn variable(&self, name: &str) -> OsString {
        let value = self.environment.get(std::ffi::OsStr::new(name));
        value.cloned().unwrap_or_default()
    }

    /// Writes a file of the project, making its directories.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs wharf to its end, without a terminal.
    #[track_caller]
    pub(crate) fn wharf(&self, arguments: &[&str]) -> Finished {
        self.spawn(arguments).wait()
    }

    /// Starts wharf in the foreground, without a terminal.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        self.program(WHARF, arguments)
    }

    /// Starts wharf on a terminal.
    pub(crate) fn terminal(&self, arguments: &[&str]) -> Terminal {
        self.on_terminal(WHARF, arguments)
    }

    /// Starts any other program on a terminal.
    pub(crate) fn on_terminal(&self, program: &str, arguments: &[&str]) -> Terminal {
        Terminal::start(&self.command(program, arguments), self.stable())
    }

    /// Starts any other program.
    pub(crate) fn program(&self, program: &str, arguments: &[&str]) -> Running {
        Running::start(self.command(program, arguments), self.stable())
    }

    /// Starts a Python WebSocket server on a port of 127.0.0.1 and waits until it listens. The
    /// options are those of `tests/support/ws_server.py`; a later `--host` wins.
    pub(crate) fn server(&self, port: u16, options: &[&str]) -> Running {
        let port = port.to_string();
        let arguments = [&[ws_server(), "--port", &port], options].concat();
        let server = self.program(python(), &arguments);
        server.wait_for_line("listening on ");
        server
    }

    /// The processes that carry this sandbox's mark or work in its directory.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let entry = format!("{MARKER}={}", self.project);
        process::all()
            .filter(|process| process.belongs_to(&entry, self.home()) && !process.ended())
            .collect()
    }

    /// Waits until none of them is left: supervisors go by themselves.
    #[track_caller]
    pub(crate) fn until_nothing_runs(&self) {
        eventually("nothing of the project runs", || {
            self.processes().is_empty().then_some(())
        });
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env_clear()
            .envs(&self.environment);
        command
    }

    fn stable(&self) -> Stable {
        vec![
            (self.directory.display().to_string(), "[DIR]"),
            (self.home().display().to_string(), "[HOME]"),
            (WHARF.to_owned(), "[WHARF]"),
            (self.project.clone(), "[PROJECT]"),
        ]
    }

    /// Takes everything down and returns what should not have been there afterwards.
    fn clean_up(&self) -> Vec<String> {
        let mut left = Vec::new();
        // Not every project of a test can be loaded, or reach an engine. What counts is what is left.
        let mut down = None;
        if ["compose.yaml", "compose.yml"]
            .iter()
            .any(|name| self.directory.join(name).exists())
        {
            let arguments = ["down", "--remove-orphans", "--volumes", "--timeout", "1"];
            down = Some(self.wharf(&arguments));
        }
        if let Some(engine) = &self.engine {
            for kind in ["container", "network", "volume"] {
                for id in engine.of_project(kind, &self.project) {
                    left.push(format!("{kind} {id}"));
                    let force: &[&str] = if kind == "network" { &[] } else { &["--force"] };
                    drop(engine.docker(&[&[kind, "rm"], force, &[&id]].concat()));
                }
            }
        }
        // What was told to end may need a moment; what was not told is still there after it.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let mut processes = self.processes();
        while !processes.is_empty() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(20));
            processes = self.processes();
        }
        for process in processes {
            left.push(format!(
                "process {}: {}",
                process.pid(),
                process.command_line()
            ));
            process.signal(Signal::KILL);
        }
        eventually("every process of the sandbox ended", || {
            self.processes().is_empty().then_some(())
        });
        for group in self.groups() {
            left.push(format!("control group {}", group.path().display()));
            drop(group.remove());
        }
        if let Some(down) = down.filter(|_| !left.is_empty()) {
            left.push(format!("although {down}"));
        }
        left
    }

    /// The control groups of its projects.
    fn groups(&self) -> Vec<Group> {
        let state = self.home().join("state/wharf");
        let mut projects = vec![self.project.clone()];
        for entry in fs::read_dir(state.join("projects"))
            .into_iter()
            .flatten()
            .flatten()
        {
            projects.extend(entry.file_name().into_string());
        }
        projects.sort_unstable();
        projects.dedup();
        let dirs = Dirs::new(state, self.home().join("run/wharf"));
        let places = View::new().delegated();
        let mut found = Vec::new();
        for project in projects.iter().filter_map(|name| dirs.project(name).ok()) {
            let tag = project.tag();
            let groups = places.iter().flat_map(|at| Group::of_project(at, &tag));
            found.extend(groups.map(|(_, group)| group));
        }
        found
    }

    /// Everything of the sandbox lies in it.
    fn home(&self) -> &Path {
        self.directory
            .parent()
            .expect("the project directory has one")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let left = self.clean_up();
        // The first failure is the one to read.
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        }
    }
}

/// The directory of the tested wharf, then the path of whoever runs the tests.
fn search_path() -> OsString {
    let own = Path::new(WHARF).parent().unwrap().to_owned();
    let given = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&given))).unwrap()
}

/// The Python WebSocket server of the tests.
pub(crate) fn ws_server() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/ws_server.py")
}

/// Python: the system's own where there is one, because a version manager's is a script that needs
/// its own home.
pub(crate) fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() {
        "/usr/bin/python3"
    } else {
        "python3"
    }
}
