//! An engine of one's own: for tests that need other settings, or that kill it. It has a network and mounts of its own,
//! so its bridge and its ports are nobody else's, and everything that it keeps is in the sandbox.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::json;

use super::process::Process;
use super::running::Running;
use super::{Engine, Sandbox, eventually};

/// It, and its namespaces.
#[derive(Debug)]
pub(crate) struct OwnEngine {
    /// How to reach it.
    pub(crate) engine: Engine,
    /// Keeps the namespaces, whatever becomes of the daemon.
    room: Running,
    daemon: Option<Running>,
    home: PathBuf,
}

impl OwnEngine {
    /// Starts it, without userland proxies, with the image of the tests; `None`, with a printed reason, where that
    /// needs more privileges. Wharf reaches it from this sandbox from now on.
    pub(crate) fn start(sandbox: &mut Sandbox, other: &Engine) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: an engine of one's own needs root");
            return None;
        }
        let home = sandbox.path().parent().unwrap().to_owned();
        let host = format!("unix://{}", home.join("own.sock").display());
        let settings = json!({
            "hosts": [host], "data-root": home.join("data"), "exec-root": home.join("exec"),
            "pidfile": home.join("own.pid"), "userland-proxy": false, "iptables": false, "ip-masq": false,
            "storage-driver": "vfs", "shutdown-timeout": 1,
        });
        fs::write(home.join("daemon.json"), settings.to_string()).unwrap();
        let script =
            "mount --make-rprivate / && ip link set lo up && echo ready && exec sleep infinity";
        let room = ["--net", "--mount", "sh", "-c", script];
        let room = sandbox.program("unshare", &room);
        room.wait_for_line("ready");
        let mut own = Self {
            engine: Engine { host: host.clone() },
            room,
            daemon: None,
            home,
        };
        own.run(sandbox);
        let archive = own.home.join("image.tar");
        let archive = archive.to_str().unwrap();
        other.ask(&["save", "--output", archive, other.busybox()]);
        own.engine.ask(&["load", "--input", archive]);
        sandbox.set("DOCKER_HOST", host);
        Some(own)
    }

    /// Runs the daemon, after [`Self::kill`] once more.
    pub(crate) fn run(&mut self, sandbox: &Sandbox) {
        // What was killed leaves its pid file, which the next one takes for a daemon that runs.
        drop(fs::remove_file(self.home.join("own.pid")));
        // What it starts outlives it, and must not keep its output open.
        let script = "exec dockerd --config-file \"$0/daemon.json\" >>\"$0/daemon.log\" 2>&1";
        let home = self.home.to_str().unwrap();
        self.daemon = Some(self.program(sandbox, "sh", &["-c", script, home]));
        let daemon = self.daemon.as_ref().unwrap();
        let answers = || self.engine.docker(&["version"]).code() == 0;
        eventually("the engine answers, or ended", || {
            (daemon.process().ended() || answers()).then_some(())
        });
        let log = fs::read_to_string(self.home.join("daemon.log"));
        assert!(self.runs(), "{}", log.unwrap_or_default());
    }

    /// Starts a program where the engine's ports can be reached.
    pub(crate) fn program(&self, sandbox: &Sandbox, program: &str, arguments: &[&str]) -> Running {
        let room = self.room.pid().to_string();
        // A namespace of mounts begins in its root.
        let directory = format!("--wdns={}", sandbox.path().display());
        let (net, mount) = ("--net", "--mount");
        let enter = [net, mount, &directory, "--target", &room, program];
        sandbox.program("nsenter", &[&enter[..], arguments].concat())
    }

    /// Kills the daemon, and with it its containerd; containers and what watches them go on.
    pub(crate) fn kill(&mut self) {
        let containerd = self.containerd().unwrap();
        let daemon = self.daemon.take().unwrap();
        daemon.signal(Signal::KILL);
        drop(daemon.wait());
        // As long as it has its pid, the next daemon takes it for one that runs.
        let entry = PathBuf::from(format!("/proc/{}", containerd.pid()));
        eventually("its containerd is gone", || (!entry.exists()).then_some(()));
    }

    fn containerd(&self) -> Option<Process> {
        let file = self.home.join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let own = self.home.to_string_lossy().into_owned();
        Process::open(pid).filter(|it| it.command_line().contains(&own))
    }

    /// Whether the daemon runs.
    pub(crate) fn runs(&self) -> bool {
        let daemon = self.daemon.as_ref();
        daemon.is_some_and(|daemon| !daemon.process().ended())
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::TERM);
            daemon.process().wait_end();
        }
    }
}
