//! What a command leaves that was interrupted or killed, and that the next one deals with it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::engine::{Lab, docker, env, inspect, lab};
use crate::tools::Tool;

const UP: &[&str] = &["up", "-d", "-t", "0"];

/// Ids of the networks with this name.
fn networks(name: &str) -> Vec<String> {
    let filter = format!("name=^{name}$");
    let ids = docker(&["network", "ls", "-q", "--no-trunc", "--filter", &filter]);
    ids.lines().map(str::to_owned).collect()
}

/// Makes one more network of a name, as an engine does that is asked twice at the same time; whether it did.
fn double(lab: &Lab, name: &str, is_ours: bool) -> bool {
    let host = env().variables["DOCKER_HOST"].clone();
    let Some(path) = host.strip_prefix("unix://") else {
        return false;
    };
    let labels = if is_ours {
        serde_json::json!({
            "com.docker.compose.project": lab.project.name,
            "com.docker.compose.network": "default",
        })
    } else {
        serde_json::json!({})
    };
    let body = serde_json::json!({ "Name": name, "Labels": labels }).to_string();
    let mut stream = UnixStream::connect(path).unwrap();
    let head = "POST /v1.41/networks/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json";
    write!(
        stream,
        "{head}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply.starts_with("HTTP/1.1 201")
}

fn sleeper(lab: &Lab) -> String {
    let image = lab.busybox();
    format!("services:\n  a: {{image: {image}, command: sleep 600, init: true}}\n")
}

#[test]
fn two_networks_of_one_name_become_one() {
    let lab = lab!();
    lab.write(&sleeper(&lab));
    let name = format!("{}_default", lab.project.name);
    lab.succeeds(Tool::Wharf, UP);
    let used = networks(&name);
    if !double(&lab, &name, true) {
        println!("skipped: to this engine names are identities");
        return;
    }
    // The one that the container is in stays.
    lab.succeeds(Tool::Wharf, UP);
    assert_eq!(networks(&name), used);
    lab.succeeds(Tool::Wharf, &["rm", "-sf"]);
    assert!(double(&lab, &name, true));
    lab.succeeds(Tool::Wharf, UP);
    assert_eq!(networks(&name).len(), 1);
    assert!(double(&lab, &name, true));
    lab.succeeds(Tool::Wharf, &["down", "-t", "0"]);
    assert_eq!(networks(&name), [""; 0]);
}

#[test]
fn a_network_of_the_same_name_that_somebody_else_made_is_named() {
    let lab = lab!();
    lab.write(&sleeper(&lab));
    let name = format!("{}_default", lab.project.name);
    lab.succeeds(Tool::Wharf, UP);
    let ours = networks(&name);
    if !double(&lab, &name, false) {
        println!("skipped: to this engine names are identities");
        return;
    }
    let theirs: Vec<String> = networks(&name)
        .into_iter()
        .filter(|id| !ours.contains(id))
        .collect();
    let ended = lab.run(Tool::Wharf, UP);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&theirs[0]), "{}", ended.stderr);
    lab.succeeds(Tool::Wharf, &["down", "-t", "0"]);
    assert_eq!(networks(&name), theirs);
    docker(&["network", "rm", &theirs[0]]);
}

#[test]
fn a_container_that_was_never_finished_is_not_started() {
    let lab = lab!();
    lab.write(&sleeper(&lab));
    lab.succeeds(Tool::Wharf, &["create"]);
    let name = format!("{}-a-1", lab.project.name);
    let half_made = format!("0123456789ab_{name}");
    docker(&["rename", &name, &half_made]);
    for command in ["start", "restart"] {
        let ended = lab.run(Tool::Wharf, &[command]);
        assert!(
            ended.stderr.contains("up -d a"),
            "{command}: {}",
            ended.stderr
        );
        assert_eq!(
            inspect(&half_made)["State"]["Status"],
            "created",
            "{command}"
        );
    }
    lab.succeeds(Tool::Wharf, UP);
    let states = lab.states();
    let states: Vec<_> = states
        .iter()
        .map(|(name, (_, state))| (name.as_str(), state.as_str()))
        .collect();
    assert_eq!(states, [("P-a-1", "running")]);
}

/// Starts a service that says `told` when it is to stop and does not; its container's name.
fn stubborn(lab: &Lab) -> String {
    let image = lab.busybox();
    let stubborn = "trap 'echo told' TERM; while :; do sleep 1; done";
    lab.write(&format!(
        "services:\n  a: {{image: {image}, command: [sh, -c, \"{stubborn}\"], stop_grace_period: 3s}}\n"
    ));
    lab.succeeds(Tool::Wharf, UP);
    format!("{}-a-1", lab.project.name)
}

#[test]
fn an_interrupted_replacement_leaves_no_request_behind() {
    let lab = lab!();
    let name = stubborn(&lab);
    let mut command = lab.command(Tool::Wharf, &["up", "-d", "--force-recreate"]);
    let mut up = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(up.stderr.take().unwrap()).lines();
    eventually(|| docker(&["logs", &name]).contains("told"));
    let pid = Pid::from_child(&up);
    kill_process(pid, Signal::INT).unwrap();
    assert!(lines.any(|line| line.unwrap().contains("again to leave at once")));
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(up.wait().unwrap().code(), Some(130), "{rest:?}");
    assert_eq!(inspect(&name)["State"]["Status"], "exited");
    let left: Vec<String> = lab.states().into_keys().collect();
    assert_eq!(left, ["P-a-1"], "{rest:?}");
    lab.succeeds(Tool::Wharf, UP);
    assert_eq!(inspect(&name)["State"]["Status"], "running");
}

/// The engine goes on with what it was asked for when nobody waits for its answer any more.
#[test]
fn a_start_after_a_killed_stop_outlives_that_stop() {
    let lab = lab!();
    let name = stubborn(&lab);
    let told = || docker(&["logs", &name]).matches("told").count();
    for (killed, next) in [
        (&["restart"][..], &["start"][..]),
        (&["stop"], &["up", "-d"]),
        (&["up", "-d", "--force-recreate"], &["start", "a"]),
    ] {
        let before = inspect(&name)["State"]["StartedAt"].clone();
        let heard = told();
        let mut command = lab.command(Tool::Wharf, killed);
        let mut stopping = command.stderr(Stdio::null()).spawn().unwrap();
        eventually(|| told() > heard);
        stopping.kill().unwrap();
        stopping.wait().unwrap();
        lab.succeeds(Tool::Wharf, next);
        let state = inspect(&name)["State"].clone();
        assert_eq!(state["Status"], "running", "{next:?}: {state}");
        assert_ne!(
            state["StartedAt"], before,
            "{next:?}: the stop is still to come"
        );
    }
}

fn eventually(check: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !check() {
        assert!(Instant::now() < end, "it never happened");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn down_takes_what_a_killed_up_had_asked_for() {
    let lab = lab!();
    let image = lab.busybox();
    lab.write(&format!(
        "services:\n  a: {{image: {image}, command: sleep 600, init: true, scale: 4}}\n"
    ));
    let mut command = lab.command(Tool::Wharf, UP);
    let mut up = command.stderr(Stdio::null()).spawn().unwrap();
    let network = format!("{}_default", lab.project.name);
    // From here on it makes containers.
    eventually(|| !networks(&network).is_empty());
    up.kill().unwrap();
    up.wait().unwrap();
    lab.succeeds(Tool::Wharf, &["down", "-t", "0"]);
    let label = format!("label=com.docker.compose.project={}", lab.project.name);
    let listed = Command::new("docker")
        .args(["ps", "-aq", "--filter", &label])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "");
    assert_eq!(networks(&network), [""; 0]);
}

/// Docker Compose writes them when it starts a container, so what it only made has none.
#[test]
fn what_was_made_and_not_started_gets_its_files() {
    let lab = lab!();
    let image = lab.busybox();
    lab.write(&format!(
        "services:\n  a: {{image: {image}, command: sleep 600, init: true, configs: [{{source: c, target: /c}}]}}\nconfigs:\n  c: {{content: hello}}\n"
    ));
    let name = format!("{}-a-1", lab.project.name);
    for command in [UP, &["start"]] {
        lab.succeeds(Tool::Wharf, UP);
        let made = inspect(&name);
        lab.succeeds(Tool::Wharf, &["rm", "-sf"]);
        let labels = made["Config"]["Labels"].as_object().unwrap();
        let mut create = Command::new("docker");
        create.args(["create", "--init", "--name", &name]);
        create.args(["--network", &format!("{}_default", lab.project.name)]);
        for (label, value) in labels {
            create.args(["--label", &format!("{label}={}", value.as_str().unwrap())]);
        }
        create.args([image, "sleep", "600"]);
        create.env("DOCKER_HOST", &env().variables["DOCKER_HOST"]);
        assert!(create.stdout(Stdio::null()).status().unwrap().success());
        let id = inspect(&name)["Id"].clone();
        // By the file of this directory alone: a project's name alone has none.
        lab.succeeds(Tool::Wharf, &[&["-f", "compose.yaml"], command].concat());
        assert_eq!(inspect(&name)["Id"], id, "{command:?}: it is not made anew");
        assert_eq!(
            docker(&["exec", &name, "cat", "/c"]).trim(),
            "hello",
            "{command:?}"
        );
    }
}

/// A way to the engine that can be cut, as if the engine had been killed.
struct Wire {
    socket: PathBuf,
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Wire {
    fn new(socket: &Path) -> Option<Self> {
        let host = env().variables["DOCKER_HOST"].clone();
        let engine = PathBuf::from(host.strip_prefix("unix://")?);
        let listener = UnixListener::bind(socket).unwrap();
        let open = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&open);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(engine)) = (client, UnixStream::connect(&engine)) else {
                    break;
                };
                let pair = || (client.try_clone().unwrap(), engine.try_clone().unwrap());
                for (mut from, mut to) in [pair(), (pair().1, pair().0)] {
                    std::thread::spawn(move || {
                        // Either side may go away first.
                        drop(std::io::copy(&mut from, &mut to));
                        drop(to.shutdown(Shutdown::Write));
                    });
                }
                all.lock().unwrap().extend([client, engine]);
            }
        });
        Some(Self {
            socket: socket.to_owned(),
            open,
        })
    }

    fn cut(&self) {
        std::fs::remove_file(&self.socket).unwrap();
        for stream in self.open.lock().unwrap().iter() {
            // It may be closed already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

#[test]
fn up_in_front_whose_engine_is_gone_stops_its_processes_and_says_what_it_could_not() {
    let lab = lab!();
    lab.write(&format!(
        "{}  p: {{x-wharf: {{process: {{command: [sleep, '600']}}}}}}\n",
        sleeper(&lab)
    ));
    let Some(wire) = Wire::new(&lab.directory.path().join("s")) else {
        println!("skipped: the engine has no socket");
        return;
    };
    let mut command = lab.command(Tool::Wharf, &["up"]);
    command.env("DOCKER_HOST", format!("unix://{}", wire.socket.display()));
    let up = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (container, process) = (format!("{}-a-1", lab.project.name), "-p-1");
    let states = || {
        lab.run(
            Tool::Wharf,
            &["ps", "-a", "--format", "{{.Name}} {{.State}}"],
        )
    };
    let is = |name: &str, state: &str| {
        let line = format!("{name} {state}");
        states().stdout.lines().any(|told| told.ends_with(&line))
    };
    eventually(|| is(&container, "running") && is(process, "running"));
    wire.cut();
    let ended = up.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(4), "{told}");
    assert!(told.contains("does not answer"), "{told}");
    let left = format!("not stopped, the engine decides: {container}");
    assert!(told.contains(&left), "{told}");
    assert!(is(process, "exited"), "{told}");
    lab.succeeds(Tool::Wharf, &["down", "-t", "0"]);
}
