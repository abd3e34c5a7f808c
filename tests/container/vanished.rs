//! What is removed between the look and the deed: by an engine that takes back what it was making for a killed command,
//! or by somebody who does not ask for the project's lock. The command looks again.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::engine::{Lab, docker, docker_if, env, inspect, lab};
use crate::tools::{Ended, Tool};

/// What is said before the next look.
const WORDS: &str = "planned anew";

/// A way to the engine on which the first container that is to be started is removed right before.
struct Thief {
    socket: PathBuf,
    /// The id of that container.
    taken: Arc<Mutex<Option<String>>>,
}

impl Thief {
    fn beside(lab: &Lab) -> Option<Self> {
        let host = env().variables["DOCKER_HOST"].clone();
        let engine = PathBuf::from(host.strip_prefix("unix://")?);
        let socket = lab.directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let taken = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&taken);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { break };
                let (engine, seen) = (engine.clone(), Arc::clone(&seen));
                std::thread::spawn(move || drop(carry(client, &engine, &seen)));
            }
        });
        Some(Self { socket, taken })
    }

    fn run(&self, lab: &Lab, arguments: &[&str]) -> Ended {
        let mut command = lab.command(Tool::Wharf, arguments);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        command.output().unwrap().into()
    }

    fn taken(&self) -> Option<String> {
        self.taken.lock().unwrap().clone()
    }
}

/// Passes a connection on, request by request as they come.
fn carry(
    mut client: UnixStream,
    engine: &Path,
    taken: &Mutex<Option<String>>,
) -> std::io::Result<()> {
    let mut engine = UnixStream::connect(engine)?;
    let (mut answers, mut back) = (engine.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        // Either side may go away first.
        drop(std::io::copy(&mut answers, &mut back));
        drop(back.shutdown(Shutdown::Write));
    });
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = client.read(&mut buffer)?;
        if read == 0 {
            return engine.shutdown(Shutdown::Write);
        }
        if let Some(id) = started(&String::from_utf8_lossy(&buffer[..read])) {
            let mut taken = taken.lock().unwrap();
            if taken.is_none() {
                docker(&["rm", "-f", &id]);
                *taken = Some(id);
            }
        }
        engine.write_all(&buffer[..read])?;
    }
}

/// The container that a request is to start.
fn started(request: &str) -> Option<String> {
    let path = request.strip_prefix("POST ")?.split(' ').next()?;
    let (_, id) = path.split_once("/containers/")?;
    Some(id.strip_suffix("/start")?.to_owned())
}

fn project(lab: &Lab, names: &[&str]) -> String {
    let image = lab.busybox();
    let service = |name: &&str| {
        format!(
            "  {name}: {{image: {image}, command: sleep 600, init: true, stop_grace_period: 0s}}\n"
        )
    };
    let services: String = names.iter().map(service).collect();
    format!("services:\n{services}")
}

/// Names of what runs.
fn runs(lab: &Lab) -> Vec<String> {
    let states = lab.states().into_iter();
    let running = states.filter(|(_, (_, state))| state == "running");
    running.map(|(name, _)| name).collect()
}

#[test]
fn up_makes_anew_what_is_removed_right_before_its_start() {
    let lab = lab!();
    lab.write(&project(&lab, &["a", "b"]));
    for made in [false, true] {
        if made {
            // Taken as they are: what a killed command had asked for.
            lab.succeeds(Tool::Wharf, &["create"]);
        }
        let Some(thief) = Thief::beside(&lab) else {
            println!("skipped: the engine has no socket");
            return;
        };
        let up = thief.run(&lab, &["up", "-d"]);
        std::fs::remove_file(&thief.socket).unwrap();
        assert_eq!(up.code, Some(0), "{}", up.stderr);
        assert_eq!(up.stderr.matches(WORDS).count(), 1, "{}", up.stderr);
        let taken = thief.taken().unwrap();
        assert_eq!(docker_if(&["container", "inspect", &taken]), None);
        assert_eq!(runs(&lab), ["P-a-1", "P-b-1"], "{}", up.stderr);
        lab.succeeds(Tool::Wharf, &["down", "-t", "0"]);
    }
}

#[test]
fn up_in_front_makes_anew_what_is_removed_right_before_its_start() {
    let lab = lab!();
    let image = lab.busybox();
    lab.write(&format!(
        "services:\n  a: {{image: {image}, command: [echo, here]}}\n"
    ));
    let Some(thief) = Thief::beside(&lab) else {
        println!("skipped: the engine has no socket");
        return;
    };
    let up = thief.run(&lab, &["up"]);
    assert_eq!(up.code, Some(0), "{}", up.stderr);
    assert_eq!(up.stderr.matches(WORDS).count(), 1, "{}", up.stderr);
    assert_eq!(up.stdout.matches("here").count(), 1, "{}", up.stdout);
}

#[test]
fn start_and_restart_go_on_without_what_is_removed_meanwhile() {
    let lab = lab!();
    lab.write(&project(&lab, &["a", "b", "c"]));
    for command in ["start", "restart"] {
        lab.succeeds(Tool::Wharf, &["up", "-d", "-t", "0"]);
        if command == "start" {
            lab.succeeds(Tool::Wharf, &["stop", "-t", "0"]);
        }
        let started = |name: &str| {
            let name = format!("{}-{name}-1", lab.project.name);
            inspect(&name)["State"]["StartedAt"].to_string()
        };
        let before = ["a", "b", "c"].map(started);
        let Some(thief) = Thief::beside(&lab) else {
            println!("skipped: the engine has no socket");
            return;
        };
        let ended = thief.run(&lab, &[command]);
        std::fs::remove_file(&thief.socket).unwrap();
        assert_eq!(ended.code, Some(0), "{command}: {}", ended.stderr);
        let left = runs(&lab);
        assert_eq!(left.len(), 2, "{command}: {left:?}: {}", ended.stderr);
        for (name, before) in ["a", "b", "c"].into_iter().zip(before) {
            if left.contains(&format!("P-{name}-1")) {
                assert_ne!(started(name), before, "{command} {name}: {}", ended.stderr);
            }
        }
    }
}

#[test]
fn what_never_was_is_not_looked_for_again() {
    let lab = lab!();
    let image = lab.busybox();
    lab.write(&format!(
        "services:\n  a: {{image: {image}, command: sleep 600, network_mode: 'container:nobody-of-this-name'}}\n"
    ));
    let up = lab.run(Tool::Wharf, &["up", "-d"]);
    assert_eq!(up.code, Some(1), "{}", up.stderr);
    assert!(!up.stderr.contains(WORDS), "{}", up.stderr);
}
