//! A project with local services that run for real, its forwarder, and relays in network namespaces. Everything
//! is gone when the test is, however it ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf::backend::process::{Dirs, NamesWanted, Processes, Record};
use wharf::backend::{Backend as _, Made};
use wharf::event::Events;
use wharf::naming::{Names, Place, Way};
use wharf::plan::step::{
    Action, Cause, InstanceSpec, ProjectIdentity, SettledPort, Step, StepId, Target, Which,
};
use wharf::port::claim::Protocol;
use wharf::project::Env;
use wharf::project::model::Service;
use wharf::state::{BackendKind, Fingerprint};

use crate::engine::{Engine, NETWORK};
use crate::groups;

/// The project of every test; each has a state directory of its own.
pub(crate) const PROJECT: &str = "stage";

/// The bound of every wait; reaching it is a failure.
const LIMIT: Duration = Duration::from_mins(1);

/// Says back what it hears; at the end says who it is. Listens on all `HOST PORT` pairs of its arguments.
pub(crate) const SERVER: &str = "
import socket, sys, threading
def serve(client):
    while True:
        heard = client.recv(65536)
        if not heard: break
        client.sendall(heard)
    client.sendall(sys.argv[1].encode())
    client.close()
def listen(host, port):
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, port))
    server.listen(4096)
    return server
def accept(server):
    while True:
        client, _ = server.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()
words = sys.argv[2:]
all = [listen(words[at], int(words[at + 1])) for at in range(0, len(words), 2)]
for server in all[1:]:
    threading.Thread(target=accept, args=(server,), daemon=True).start()
accept(all[0])
";

pub(crate) struct Stage {
    pub(crate) root: tempfile::TempDir,
    pub(crate) processes: Processes,
    pub(crate) engine: Engine,
    events: Events,
    forwarder: RefCell<Option<Child>>,
    relays: RefCell<Vec<Child>>,
}

/// A network namespace with a relay in it.
pub(crate) struct Namespace {
    pid: u32,
}

impl Stage {
    /// This machine has a leg in the project's network if `gateway` is one of its addresses.
    pub(crate) fn new(gateway: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let env = Env {
            variables: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            current_dir: PathBuf::from("/"),
        };
        let dirs = Dirs::new(root.path().join("state"), root.path().join("run"));
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_wharf"));
        Self {
            processes: Processes::of_binary(dirs, &env, binary),
            engine: Engine::listen(&root.path().join("engine"), gateway),
            events: Events::channel().0,
            forwarder: RefCell::default(),
            relays: RefCell::default(),
            root,
        }
    }

    async fn act(&self, action: Action) {
        let step = Step {
            id: StepId(1),
            action,
            cause: Cause::Missing,
            needs: Vec::new(),
        };
        let outcome = self
            .processes
            .perform(&step, &Made::default(), &self.events)
            .await;
        outcome.unwrap();
    }

    /// Makes and starts a server that listens on `listens` (`HOST PORT …`); `ports` are its declared ports, with
    /// what each is on this machine.
    pub(crate) async fn up(&self, service: &str, ports: &[(u16, u16)], listens: &[String]) {
        let mut command = vec!["python3".to_owned(), "-c".to_owned(), SERVER.to_owned()];
        command.push(service.to_owned());
        command.extend(
            listens
                .iter()
                .flat_map(|at| at.split(' '))
                .map(str::to_owned),
        );
        self.run(service, ports, command).await;
    }

    /// Makes and starts a local service.
    pub(crate) async fn run(&self, service: &str, ports: &[(u16, u16)], command: Vec<String>) {
        let ports = ports.iter().map(|(target, published)| SettledPort {
            target: *target,
            published: Some(*published),
            addresses: Vec::new(),
            protocol: Protocol::Tcp,
            app_protocol: None,
        });
        let spec = InstanceSpec {
            project: Arc::new(ProjectIdentity {
                name: PROJECT.into(),
                working_dir: self.root.path().into(),
                config_files: Vec::new(),
                env_files: Vec::new(),
            }),
            name: name(service),
            service: Arc::new(Service {
                name: service.into(),
                command: Some(command),
                ..Service::default()
            }),
            backend: BackendKind::Process,
            number: 1,
            fingerprint: Fingerprint("0".into()),
            image: String::new(),
            ports: ports.collect(),
            environment: BTreeMap::new(),
            networks: Vec::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            volumes: BTreeMap::new(),
            replaces: None,
            inherits: false,
            readiness: None,
            one_off: None,
            names: Names {
                way: Way::Hosts,
                places: vec![Place {
                    network: NETWORK.into(),
                    aliases: vec![service.into(), name(service)],
                }],
                addresses: wharf::naming::loopback_addresses(
                    &self.root.path().display().to_string(),
                    ["api", "admin", "db", "web"],
                ),
                ..Names::default()
            },
        };
        self.act(Action::Create(Box::new(spec))).await;
        self.start(service).await;
    }

    pub(crate) async fn start(&self, service: &str) {
        let instance = target(service);
        self.act(Action::Start { instance }).await;
    }

    pub(crate) async fn stop(&self, service: &str) {
        let instance = target(service);
        let grace = Some(Duration::ZERO);
        self.act(Action::Stop { instance, grace }).await;
    }

    /// Starts the forwarder, with the engine or without.
    pub(crate) fn forward(&self, with_engine: bool) {
        let dirs = self.processes.dirs();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command
            .args(["forward", "--project", PROJECT])
            .arg("--state-dir")
            .arg(dirs.state())
            .arg("--runtime-dir")
            .arg(dirs.runtime())
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.root.path().join("engine").display()),
            )
            .stdin(Stdio::null());
        if with_engine {
            command.arg("--engine");
        }
        *self.forwarder.borrow_mut() = Some(command.spawn().unwrap());
    }

    /// The command of a forwarder without the engine.
    pub(crate) fn forwarding(&self) -> Vec<String> {
        let dirs = self.processes.dirs();
        let (state, runtime) = (dirs.state().display(), dirs.runtime().display());
        vec![
            env!("CARGO_BIN_EXE_wharf").to_owned(),
            "forward".to_owned(),
            format!("--project={PROJECT}"),
            format!("--state-dir={state}"),
            format!("--runtime-dir={runtime}"),
        ]
    }

    pub(crate) fn names_socket(&self) -> PathBuf {
        self.processes
            .dirs()
            .project(PROJECT)
            .unwrap()
            .names_socket()
    }

    /// Kills the forwarder as nobody should.
    pub(crate) fn kill_forwarder(&self) {
        let mut forwarder = self.forwarder.borrow_mut().take().unwrap();
        forwarder.kill().unwrap();
        forwarder.wait().unwrap();
    }

    /// Waits for the forwarder's end.
    pub(crate) fn forwarders_end(&self) -> std::process::ExitStatus {
        let mut forwarder = self.forwarder.borrow_mut().take().unwrap();
        forwarder.wait().unwrap()
    }

    pub(crate) fn forwarder_pid(&self) -> u32 {
        self.forwarder.borrow().as_ref().unwrap().id()
    }

    /// Starts the relay of a service in a network namespace of its own.
    pub(crate) fn relay(&self, service: &str) -> Namespace {
        let project = self.processes.dirs().project(PROJECT).unwrap();
        let socket = project.relay(service).unwrap().join("socket");
        let relay = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up && exec \"$@\"",
                "sh",
            ])
            .args([env!("CARGO_BIN_EXE_wharf"), "relay", "--socket"])
            .arg(socket)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = relay.id();
        self.relays.borrow_mut().push(relay);
        Namespace { pid }
    }

    /// Ends the relay that was started last.
    pub(crate) fn end_relay(&self) -> std::process::ExitStatus {
        let mut relay = self.relays.borrow_mut().pop().unwrap();
        let pid = rustix::process::Pid::from_child(&relay);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        relay.wait().unwrap()
    }

    /// Waits until the forwarder has caught up.
    pub(crate) async fn sync(&self, reachable: &[&str]) {
        let reachable: Vec<String> = reachable.iter().map(|name| (*name).to_owned()).collect();
        let wanted = NamesWanted {
            reachable,
            ..NamesWanted::default()
        };
        let outcome = self.processes.sync_names(PROJECT, wanted).await;
        outcome.unwrap();
    }

    /// Where the hosts file of a service is.
    pub(crate) fn hosts(&self, service: &str) -> PathBuf {
        let project = self.processes.dirs().project(PROJECT).unwrap();
        project.instance(&name(service)).unwrap().hosts()
    }

    /// The addresses of a name in the hosts file of a service, in its order.
    pub(crate) fn resolve(&self, service: &str, wanted: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.hosts(service)).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let address = words.next()?.to_owned();
                words.any(|word| word == wanted).then_some(address)
            })
            .collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let forwarder = self.forwarder.take();
        for mut child in self.relays.take().into_iter().chain(forwarder) {
            drop(child.kill());
            drop(child.wait());
        }
        // The supervisor first, so that it starts nothing again.
        let project = self.processes.dirs().project(PROJECT).unwrap();
        let card = std::fs::read(project.supervisor_card()).unwrap_or_default();
        if let Ok(card) = serde_json::from_slice::<wharf::backend::process::protocol::Card>(&card) {
            drop(card.process.signal(rustix::process::Signal::KILL));
        }
        for record in Record::read_all(&project).unwrap_or_default() {
            while let Ok(all) = wharf::backend::process::tree::Snapshot::take() {
                let left = all.tree(record.id(), record.process(), record.keeper(), &[]);
                if left.is_empty() {
                    break;
                }
                for id in left {
                    drop(id.signal(rustix::process::Signal::KILL));
                }
            }
        }
        groups::clear(&project);
    }
}

impl Namespace {
    /// Does something in the namespace.
    pub(crate) fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                what()
            });
            thread.join().unwrap()
        })
    }

    /// Connects from there.
    pub(crate) fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let address: SocketAddr = address.parse().unwrap();
        self.inside(move || {
            let stream = TcpStream::connect_timeout(&address, LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            Ok(stream)
        })
    }

    /// Connects once somebody listens there.
    pub(crate) fn connect_at_last(&self, address: &str) -> TcpStream {
        eventually(address, || self.connect(address).ok())
    }
}

/// Says something, says that it was all, and hears what comes back.
pub(crate) fn talk(mut stream: TcpStream, text: &str) -> io::Result<String> {
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard)?;
    Ok(heard)
}

/// Waits for a fact that announces itself by no event.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether this can make network namespaces; says so where not.
pub(crate) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: a network namespace needs root");
    }
    is_root
}

pub(crate) fn name(service: &str) -> String {
    format!("{PROJECT}-{service}-1")
}

fn target(service: &str) -> Target {
    Target {
        backend: BackendKind::Process,
        project: PROJECT.into(),
        service: service.into(),
        name: name(service),
        which: Which::MadeBy(StepId(1)),
        role: None,
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.local_addr().unwrap().port()
}
