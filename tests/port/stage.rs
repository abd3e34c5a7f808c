//! Sets the scene: processes that hold ports in every odd way. Everything started here ends here; nothing
//! is signalled but by the handle of a child, or as the process group of such a child.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process_group};
use wharf::port::claim::{Claim, Protocol};
use wharf::port::holder::{Holder, ProcessFacts, Who};
use wharf::port::owner::look_up;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port that is free on all addresses, for TCP and UDP, and given to one test only.
pub(crate) fn free_port() -> u16 {
    loop {
        let v6 = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0"));
        let port = v6.unwrap().local_addr().unwrap().port();
        let is_new = GIVEN.lock().unwrap().insert(port);
        if is_new && UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn claim(port: u16, addresses: &[&str]) -> Claim {
    Claim {
        service: "ws".into(),
        number: 1,
        addresses: addresses
            .iter()
            .map(|address| address.parse::<IpAddr>().unwrap())
            .collect(),
        port,
        protocol: Protocol::Tcp,
    }
}

pub(crate) fn udp(claim: Claim) -> Claim {
    Claim {
        protocol: Protocol::Udp,
        ..claim
    }
}

/// The holders of one claim.
pub(crate) fn holders(claim: &Claim) -> Vec<Holder> {
    look_up(std::slice::from_ref(claim))
        .unwrap()
        .held
        .into_iter()
        .flat_map(|held| held.holders)
        .collect()
}

pub(crate) fn pids(holders: &[Holder]) -> Vec<u32> {
    holders.iter().filter_map(pid).collect()
}

pub(crate) fn pid(holder: &Holder) -> Option<u32> {
    facts(holder).map(|facts| facts.pid)
}

pub(crate) fn facts(holder: &Holder) -> Option<&ProcessFacts> {
    match &holder.who {
        Who::Process(facts) => Some(facts),
        Who::Unit { main, .. } => main.as_deref(),
        Who::Container(_) | Who::Unknown { .. } | Who::Kernel => None,
    }
}

/// Whether a process with this pid runs (a zombie does not).
pub(crate) fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(") ")?.1.starts_with(['Z', 'X'])))
        == Some(false)
}

/// A process of the test, in a session or group of its own.
pub(crate) struct Actor {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// What it said when it was ready.
    pub(crate) words: Vec<u32>,
}

impl Actor {
    /// Starts `actor.pl` with these words and waits until it is ready.
    pub(crate) fn play(words: &[&str]) -> Self {
        Self::play_as("perl", words)
    }

    /// As [`Actor::play`], under another name in argv\[0\].
    pub(crate) fn play_as(name: &str, words: &[&str]) -> Self {
        let mut command = Command::new("perl");
        command.arg0(name).arg(script()).args(words);
        Self::start(command)
    }

    /// Starts a program in a session without a terminal and waits for its first line.
    pub(crate) fn start_apart(program: &str, words: &[&str]) -> Self {
        let mut command = Command::new("setsid");
        command.arg(program).args(words);
        Self::start(command)
    }

    pub(crate) fn start(command: Command) -> Self {
        Self::start_with(command, "")
    }

    /// As [`Actor::start`]; `line` is what it reads first.
    pub(crate) fn start_with(mut command: Command, line: &str) -> Self {
        // setsid(1) forks if it already leads a group.
        if command.get_program() != "setsid" {
            command.process_group(0);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut actor = Self {
            child,
            stdin,
            stdout,
            words: Vec::new(),
        };
        if !line.is_empty() {
            actor.say(line);
        }
        actor.words = actor.hear();
        actor
    }

    /// Waits for the next line and returns the numbers in it.
    pub(crate) fn hear(&mut self) -> Vec<u32> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(
            line.starts_with("ready") || line == "accepted\n",
            "it said {line:?}"
        );
        line.split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // While the child is not reaped, nobody else can have its group.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _gone = kill_process_group(group, Signal::KILL);
        }
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The path of the script that all actors play.
pub(crate) fn script() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/port/actor.pl")
        .display()
        .to_string()
}

/// Whether the test may do what only root may; says so if not.
pub(crate) fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {what} needs root");
    }
    root
}

/// Runs one test of this program again, in namespaces of its own and with a variable that says so.
pub(crate) fn in_namespaces(which: &[&str], test: &str, variable: &str) {
    in_namespaces_with(which, test, variable, "1");
}

/// As [`in_namespaces`], with something to say in the variable.
pub(crate) fn in_namespaces_with(which: &[&str], test: &str, variable: &str, value: &str) {
    let output = Command::new("unshare")
        .args(which)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(variable, value)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}
