//! What every test here needs: a state directory of its own, a backend on it, and services that are gone
//! when the test is, however it ends.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use wharf::backend::process::run::ProcessId;
use wharf::backend::process::{Dirs, Processes};
use wharf::backend::{Backend, BackendError, LogOptions, Made};
use wharf::event::{Event, Events, Stream};
use wharf::plan::step::{
    Action, Cause, InstanceSpec, ProjectIdentity, Step, StepId, Target, Which,
};
use wharf::project::Env;
use wharf::project::model::Service;
use wharf::state::{BackendKind, Fingerprint, Instance, InstanceId, Readiness, Status};

use crate::groups;

/// The project of every test; each has a state directory of its own.
pub(crate) const PROJECT: &str = "stage";

/// A backend with its own directories.
pub(crate) struct Stage {
    pub(crate) root: tempfile::TempDir,
    pub(crate) processes: Processes,
    pub(crate) events: Events,
    pub(crate) receiver: UnboundedReceiver<Event>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (events, receiver) = Events::channel();
        let processes = backend(&root);
        Self {
            root,
            processes,
            events,
            receiver,
        }
    }

    /// Another command on the same state, which knows nothing of the first.
    pub(crate) fn another(&self) -> Processes {
        backend(&self.root)
    }

    pub(crate) fn dirs(&self) -> Dirs {
        dirs(&self.root)
    }

    /// Does one thing.
    pub(crate) async fn act(&self, action: Action) -> Result<Option<InstanceId>, BackendError> {
        let step = Step {
            id: StepId(1),
            action,
            cause: Cause::Missing,
            needs: Vec::new(),
        };
        self.processes
            .perform(&step, &Made::default(), &self.events)
            .await
    }

    /// Makes and starts the only instance of a service.
    pub(crate) async fn up(&self, service: Service) -> Result<InstanceId, BackendError> {
        let name = service.name.clone();
        self.act(Action::Create(Box::new(self.spec(service))))
            .await?;
        self.start(&name).await
    }

    pub(crate) async fn start(&self, service: &str) -> Result<InstanceId, BackendError> {
        let instance = target(service);
        Ok(self.act(Action::Start { instance }).await?.unwrap())
    }

    pub(crate) async fn stop(
        &self,
        service: &str,
        grace: Option<Duration>,
    ) -> Result<(), BackendError> {
        let instance = target(service);
        self.act(Action::Stop { instance, grace }).await.map(drop)
    }

    pub(crate) async fn remove(&self, service: &str) -> Result<(), BackendError> {
        let action = Action::Remove {
            instance: target(service),
            volumes: false,
        };
        self.act(action).await.map(drop)
    }

    pub(crate) async fn await_ready(
        &self,
        service: &str,
        readiness: Readiness,
    ) -> Result<(), BackendError> {
        let action = Action::AwaitReady {
            instance: target(service),
            readiness,
        };
        self.act(action).await.map(drop)
    }

    pub(crate) async fn exit_code(&self, service: &str) -> i32 {
        self.processes
            .wait_exit(PROJECT, &name(service))
            .await
            .unwrap()
    }

    pub(crate) async fn instance(&self, service: &str) -> Instance {
        self.processes
            .observe(PROJECT)
            .await
            .unwrap()
            .into_iter()
            .find(|instance| instance.service == service)
            .unwrap()
    }

    /// The output of a service as lines.
    pub(crate) async fn lines(
        &mut self,
        service: &str,
        options: LogOptions,
    ) -> Vec<(Stream, String)> {
        let instance = self.instance(service).await;
        self.processes
            .follow(&[instance], &options, &self.events)
            .await
            .unwrap();
        self.heard()
    }

    /// The lines among the events so far.
    pub(crate) fn heard(&mut self) -> Vec<(Stream, String)> {
        let mut lines = Vec::new();
        while let Ok(event) = self.receiver.try_recv() {
            if let Event::Log { stream, line, .. } = event {
                lines.push((stream, String::from_utf8(line).unwrap()));
            }
        }
        lines
    }

    /// The notes among the events so far.
    pub(crate) fn notes(&mut self) -> Vec<String> {
        let mut notes = Vec::new();
        while let Ok(event) = self.receiver.try_recv() {
            if let Event::Note(note) = event {
                notes.push(note);
            }
        }
        notes
    }

    /// Follows a service until it has written a line that begins with `beginning`; the rest of that line.
    pub(crate) async fn line(&self, service: &str, beginning: &str) -> String {
        let instance = self.instance(service).await;
        let (events, mut receiver) = Events::channel();
        let processes = self.another();
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let instances = [instance];
        let mut following = std::pin::pin!(processes.follow(&instances, &options, &events));
        loop {
            tokio::select! {
                biased;
                Some(event) = receiver.recv() => {
                    if let Event::Log { line, .. } = event
                        && let Some(rest) = String::from_utf8(line).unwrap().strip_prefix(beginning)
                    {
                        return rest.to_owned();
                    }
                }
                outcome = &mut following => {
                    outcome.unwrap();
                    while let Ok(event) = receiver.try_recv() {
                        if let Event::Log { line, .. } = event
                            && let Some(rest) = String::from_utf8(line).unwrap().strip_prefix(beginning)
                        {
                            return rest.to_owned();
                        }
                    }
                    panic!("{service} ended without a line that begins with `{beginning}`");
                }
            }
        }
    }

    /// The supervisor, if there is one.
    pub(crate) fn supervisor(&self) -> Option<ProcessId> {
        let card = self.dirs().project(PROJECT).unwrap().supervisor_card();
        let card: wharf::backend::process::protocol::Card =
            serde_json::from_slice(&std::fs::read(card).ok()?).ok()?;
        card.process.is_alive().then_some(card.process)
    }

    /// Kills the supervisor as nobody should.
    pub(crate) fn kill_supervisor(&self) {
        let supervisor = self.supervisor().unwrap();
        let fd = supervisor.open().unwrap();
        assert!(supervisor.signal(rustix::process::Signal::KILL).unwrap());
        until_readable(&fd);
        assert!(!supervisor.is_alive());
    }

    /// The ledger entry of a service.
    pub(crate) fn record(&self, service: &str) -> wharf::backend::process::Record {
        let project = self.dirs().project(PROJECT).unwrap();
        let dir = project.instance(&name(service)).unwrap();
        wharf::backend::process::Record::read(&dir)
            .unwrap()
            .unwrap()
    }

    /// A descriptor that becomes readable when the main process of a service ends.
    pub(crate) fn main_end(&self, service: &str) -> OwnedFd {
        self.record(service).process().unwrap().open().unwrap()
    }

    /// Kills the keeper of a service.
    pub(crate) fn kill_keeper(&self, service: &str) {
        let keeper = self.record(service).keeper().unwrap();
        let ended = keeper.open().unwrap();
        assert!(keeper.signal(rustix::process::Signal::KILL).unwrap());
        until_readable(&ended);
    }

    /// Kills the supervisor if there is one at this moment.
    pub(crate) fn kill_whoever_supervises(&self) {
        if let Some(supervisor) = self.supervisor() {
            supervisor.signal(rustix::process::Signal::KILL).unwrap();
        }
    }

    /// Every process that was started here, whatever its run, ascending.
    pub(crate) fn started(&self) -> Vec<u32> {
        let mark = format!("PWD={}", self.root.path().display());
        let has_mark = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| {
                text.split(|byte| *byte == 0)
                    .any(|entry| entry == mark.as_bytes())
            })
        };
        let mut found: Vec<u32> = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
            .filter(has_mark)
            .collect();
        found.sort_unstable();
        found
    }

    pub(crate) fn spec(&self, service: Service) -> InstanceSpec {
        InstanceSpec {
            project: Arc::new(ProjectIdentity {
                name: PROJECT.into(),
                working_dir: self.root.path().into(),
                config_files: Vec::new(),
                env_files: Vec::new(),
            }),
            name: name(&service.name),
            service: Arc::new(service),
            backend: BackendKind::Process,
            number: 1,
            fingerprint: Fingerprint("0".into()),
            image: String::new(),
            ports: Vec::new(),
            environment: BTreeMap::new(),
            networks: Vec::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            volumes: BTreeMap::new(),
            replaces: None,
            inherits: false,
            readiness: None,
            one_off: None,
            names: wharf::naming::Names::default(),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A test that failed half-way must leave nothing behind: every process of its runs is killed by the
        // ledger, and the supervisor first, so that it starts nothing again.
        if let Some(supervisor) = self.supervisor() {
            drop(supervisor.signal(rustix::process::Signal::KILL));
        }
        let project = self.dirs().project(PROJECT).unwrap();
        for record in wharf::backend::process::Record::read_all(&project).unwrap_or_default() {
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

fn dirs(root: &tempfile::TempDir) -> Dirs {
    Dirs::new(root.path().join("state"), root.path().join("run"))
}

fn backend(root: &tempfile::TempDir) -> Processes {
    let env = Env {
        variables: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        current_dir: PathBuf::from("/"),
    };
    Processes::of_binary(dirs(root), &env, PathBuf::from(env!("CARGO_BIN_EXE_wharf")))
}

pub(crate) fn until_readable(fd: &OwnedFd) {
    let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
    assert!(!fds[0].revents().is_empty());
}

pub(crate) fn name(service: &str) -> String {
    format!("{PROJECT}-{service}-1")
}

pub(crate) fn target(service: &str) -> Target {
    Target {
        backend: BackendKind::Process,
        project: PROJECT.into(),
        service: service.into(),
        name: name(service),
        which: Which::MadeBy(StepId(1)),
        role: None,
    }
}

/// A service that runs a shell script.
pub(crate) fn shell(name: &str, script: &str) -> Service {
    command(name, &["sh", "-c", script])
}

pub(crate) fn command(name: &str, argv: &[&str]) -> Service {
    Service {
        name: name.into(),
        command: Some(argv.iter().map(|word| (*word).to_owned()).collect()),
        ..Service::default()
    }
}

/// The process that has this pid now.
pub(crate) fn process(pid: &str) -> ProcessId {
    ProcessId::of(pid.parse().unwrap()).unwrap()
}

pub(crate) fn exited(code: i32) -> Status {
    Status::Exited { code }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
