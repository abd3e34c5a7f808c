//! Programs in the foreground of a command: another one beside a service's process (`exec`), and a
//! service's own for once (`run`).
//!
//! Each leads a session of its own and carries a run id, so what it leaves behind is found and ended as a
//! service's is. The command, not the supervisor, is its parent; a one-off run is in the ledger all the
//! same, so that a command that is killed leaves nothing that `down` does not know.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use tokio::sync::oneshot;

use super::cgroup::{Group, View, controllers};
use super::child::{Extras, Launch, Way};
use super::dirs::InstanceDir;
use super::environment::Environment;
use super::ledger::{Account, Record, Run};
use super::protocol::Request;
use super::refusal::shown;
use super::run::{ProcessId, new_run_id, wall_clock};
use super::tree::Snapshot;
use super::{Processes, convert, journal, owned, pipes, stores, terminal};
use crate::backend::BackendError;
use crate::backend::streams::{Size, Streams};
use crate::state::Status;

/// How often what a run left behind is looked for and killed.
const SWEEPS: u32 = 50;

/// What a program in the foreground gets of the user's terminal.
#[derive(Clone, Debug, Default)]
pub struct Face {
    /// A terminal of its own; else the command's own three descriptors, but for those that are a terminal.
    pub tty: bool,
    /// Standard input.
    pub stdin: bool,
    /// `TERM` of the user's terminal.
    pub term: Option<String>,
    /// Its size.
    pub size: Option<Size>,
}

/// What to run beside a service's process.
#[derive(Clone, Debug, Default)]
pub struct Aside {
    /// argv.
    pub command: Vec<String>,
    /// `KEY=value`, on top of the process's environment.
    pub environment: Vec<String>,
    /// `user[:group]`; `None`: the process's.
    pub user: Option<String>,
    /// In the process's directory, or absolute; `None`: the process's.
    pub working_dir: Option<String>,
}

/// A program in the foreground.
#[derive(Debug)]
pub struct Foreground {
    id: ProcessId,
    end: oneshot::Receiver<io::Result<ExitStatus>>,
    /// What is to be passed on between it and the user; `None`: it has the command's own descriptors.
    pub streams: Option<Streams>,
    /// Whether what is typed is to be passed on to it; else standard input is its own, or it has none.
    pub is_typed: bool,
    /// Its terminal, to resize it by.
    pub terminal: Option<Arc<OwnedFd>>,
    /// Its own sides of these, until it has ended: that it has closed them all is no end of its output, and a
    /// terminal that nobody has open must not be taken for one that has gone.
    held: Vec<OwnedFd>,
    /// Where its end is told, for a program beside an instance.
    told: Option<Told>,
}

/// A program beside an instance, as `events` tells of it.
#[derive(Debug)]
pub(super) struct Told {
    dir: InstanceDir,
    id: String,
}

impl Told {
    /// It has begun.
    pub(super) fn begin(dir: InstanceDir, command: &[String]) -> Self {
        // Without an id of its own it is told all the same.
        let id = new_run_id().unwrap_or_default();
        let shown = shown(command);
        for action in ["exec_create", "exec_start"] {
            journal::note(&dir, &format!("{action}: {shown}"), &[("execID", &id)]);
        }
        Self { dir, id }
    }

    /// It has ended.
    pub(super) fn end(self, code: i32) {
        let code = code.to_string();
        let attributes = [("execID", self.id.as_str()), ("exitCode", &code)];
        journal::note(&self.dir, "exec_die", &attributes);
    }
}

impl Foreground {
    /// `child` is waited for by a thread, which this command may leave behind.
    fn new(mut child: Child) -> Result<Self, BackendError> {
        let pid = child.id();
        let id = ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 });
        let (tell, end) = oneshot::channel();
        std::thread::Builder::new()
            .name("waiter".to_owned())
            .spawn(move || drop(tell.send(child.wait())))
            .map_err(|source| BackendError::State {
                action: format!("cannot wait for process {pid}"),
                source,
            })?;
        Ok(Self {
            id,
            end,
            streams: None,
            is_typed: false,
            terminal: None,
            held: Vec::new(),
            told: None,
        })
    }

    /// Its process.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Waits for its end; the exit code, 128 + signal for a death by signal. To be asked once.
    ///
    /// # Errors
    /// The system does not tell.
    pub async fn wait(&mut self) -> io::Result<i32> {
        let status = (&mut self.end).await;
        self.held.clear();
        let status = status.map_err(io::Error::other)??;
        let code = status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .unwrap_or(super::UNKNOWN_CODE);
        if let Some(told) = self.told.take() {
            told.end(code);
        }
        Ok(code)
    }
}

impl Processes {
    /// The directory that an instance runs in.
    ///
    /// # Errors
    /// There is no such instance.
    pub fn working_dir(&self, project: &str, name: &str) -> Result<PathBuf, BackendError> {
        Ok(self.record(project, name)?.spec.working_dir)
    }

    /// Starts a program in the environment and directory of an instance that runs.
    ///
    /// # Errors
    /// It cannot be found or executed, or the user does not exist.
    pub fn exec(
        &self,
        project: &str,
        name: &str,
        aside: &Aside,
        face: &Face,
    ) -> Result<Foreground, BackendError> {
        let plan = self.beside(project, name, aside)?;
        let mut foreground = launch(&plan, face)?;
        let dir = self.dirs().project(project)?.instance(name)?;
        foreground.told = Some(Told::begin(dir, &aside.command));
        Ok(foreground)
    }

    /// As [`Processes::exec`], for a program that nobody watches.
    ///
    /// # Errors
    /// As [`Processes::exec`].
    pub fn exec_detached(
        &self,
        project: &str,
        name: &str,
        aside: &Aside,
    ) -> Result<(), BackendError> {
        let plan = self.beside(project, name, aside)?;
        plan.launch(&plan.environment)
            .spawn_under(
                [Stdio::null(), Stdio::null(), Stdio::null()],
                Way::Apart,
                &plan.extras,
            )
            .map_err(|error| plan.failed(&error))?;
        let dir = self.dirs().project(project)?.instance(name)?;
        // Nobody sees its end.
        drop(Told::begin(dir, &aside.command));
        Ok(())
    }

    fn beside(&self, project: &str, name: &str, aside: &Aside) -> Result<Started, BackendError> {
        // It would not be beside it.
        self.check_here_anew(project)?;
        let record = self.record(project, name)?;
        // As in a container: it would wait for what stands still, or not even come to be.
        if record.status == Status::Paused {
            let service = &record.spec.service;
            return Err(BackendError::Unsupported(format!(
                "{name} is paused: `wharf unpause {service}` first"
            )));
        }
        let given = aside.environment.iter();
        let mut environment: BTreeMap<String, String> = given
            .filter_map(|entry| entry.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let mut working_dir = record.spec.working_dir.clone();
        if let Some(dir) = &aside.working_dir {
            working_dir.push(dir);
            environment.insert("PWD".to_owned(), working_dir.display().to_string());
        }
        let user = match &aside.user {
            Some(user) => {
                let found = convert::account_of(user, &[], &record.spec.service)?;
                if let Some((account, user)) = &found {
                    environment.extend(convert::identity(account, user.as_ref()));
                }
                found.map(|(account, _)| account)
            }
            None => record.spec.user.clone(),
        };
        let program = (aside.command.first().map(String::as_str) == Some("wharf"))
            .then(|| self.binary.clone());
        Ok(Started {
            command: aside.command.clone(),
            program,
            working_dir,
            environment: record.spec.environment.with(environment),
            user,
            run_id: record.id().to_owned(),
            hosts: record.spec.names.hosts.clone(),
            // A command that may not put anything into the group of the service runs it beside.
            extras: Extras::beside(&record),
        })
    }

    /// Starts an instance that was made for one command, in that command's foreground.
    ///
    /// # Errors
    /// Its program cannot be found or executed; the ledger cannot be written.
    pub fn start_one_off(
        &self,
        project: &str,
        name: &str,
        face: &Face,
    ) -> Result<Foreground, BackendError> {
        let dir = self.dirs().project(project)?.instance(name)?;
        let mut record = self.record(project, name)?;
        let run_id = new_run_id().map_err(|source| BackendError::State {
            action: "cannot make a run id".to_owned(),
            source,
        })?;
        stores::expose(&dir, record.spec.user.as_ref())?;
        let settings = record.spec.attributes.resources.settings();
        let place = View::new().find(&controllers(&settings));
        let planned = |place| Group::planned(place, &dir.tag(), &run_id);
        let group = place.as_ref().map(planned);
        // On disk before the process is: whoever comes when we are killed takes over what has this id, if anything has.
        let run = Run {
            launcher: ProcessId::of(std::process::id()),
            ..Run::planned(run_id.clone(), group.as_ref())
        };
        record.run = Some(run);
        record.status = Status::Running;
        record.wanted = true;
        record.write(&dir)?;
        let open = |(group, place): (Group, _)| group.open(&place, &settings, name);
        let door = group.zip(place).map(open).transpose();
        let launched = door.and_then(|door| {
            let spec = &record.spec;
            let plan = Started {
                command: spec.command.clone(),
                program: spec.program.clone(),
                working_dir: spec.working_dir.clone(),
                environment: spec.environment.clone(),
                user: spec.user.clone(),
                run_id,
                hosts: spec.names.hosts.clone(),
                extras: Extras::of(&spec.attributes, door.flatten()),
            };
            launch(&plan, face)
        });
        if let Ok(foreground) = &launched {
            if let Some(run) = &mut record.run {
                run.process = Some(foreground.id);
                run.launcher = None;
            }
            record.write(&dir)?;
        } else {
            record.status = Status::Created;
            record.wanted = false;
            // Should this fail, too, the next supervisor finds out that nothing runs.
            drop(record.write(&dir));
        }
        launched
    }

    /// Notes the end of a one-off run, after killing what it left behind; then forgets it, if it is to be
    /// removed.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn end_one_off(
        &self,
        project: &str,
        name: &str,
        code: i32,
        remove: bool,
    ) -> Result<(), BackendError> {
        let dir = self.dirs().project(project)?.instance(name)?;
        let Some(mut record) = Record::read(&dir)? else {
            return Ok(());
        };
        sweep(&record);
        // Another command may have brought a supervisor, which sees the end as well.
        match self.client.ask_if_there(project, &Request::Ping).await {
            // That one knows nothing of this run.
            Ok(_) | Err(BackendError::Elsewhere { .. }) => {}
            Err(error) => return Err(error),
        }
        record.status = Status::Exited { code };
        record.wanted = false;
        if let Some(run) = &mut record.run {
            run.code = Some(code);
            run.finished = Some(wall_clock());
        }
        record.write(&dir)?;
        if remove {
            self.remove(project, name).await?;
        }
        Ok(())
    }
}

/// Kills everything of a run whose main process has ended.
fn sweep(record: &Record) {
    let Some(run) = &record.run else { return };
    let group = record.group();
    for _ in 0..SWEEPS {
        let members = group.as_ref().map(Group::members).unwrap_or_default();
        let left = Snapshot::take().map(|all| all.tree(&run.id, run.process, run.keeper, &members));
        let left = left.unwrap_or_default();
        if left.is_empty() {
            break;
        }
        if let Some(group) = &group {
            // What it cannot do, the signals below do.
            drop(group.kill());
        }
        for process in left {
            // One that may not be signalled stays; the ledger still knows its run id.
            drop(process.signal(Signal::KILL));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    if let Some(group) = group {
        drop(group.remove());
    }
}

/// All that starting a program needs.
struct Started {
    command: Vec<String>,
    program: Option<PathBuf>,
    working_dir: PathBuf,
    environment: Environment,
    user: Option<Account>,
    run_id: String,
    hosts: Option<PathBuf>,
    extras: Extras,
}

impl Started {
    fn launch<'a>(&'a self, environment: &'a Environment) -> Launch<'a> {
        Launch {
            command: &self.command,
            program: self.program.as_deref().map(Path::new),
            working_dir: &self.working_dir,
            environment,
            run_id: &self.run_id,
            user: self.user.as_ref(),
            descriptors: None,
            hosts: self.hosts.as_deref(),
        }
    }

    fn failed(&self, source: &io::Error) -> BackendError {
        BackendError::Command {
            command: shown(&self.command),
            working_dir: self.working_dir.clone(),
            source: self.launch(&self.environment).attempt().explain(source),
        }
    }
}

fn launch(plan: &Started, face: &Face) -> Result<Foreground, BackendError> {
    let cannot = |what: &'static str| {
        move |source| BackendError::State {
            action: format!("cannot open {what}"),
            source,
        }
    };
    let mut environment = plan.environment.clone();
    if let Some(term) = face.term.as_ref().filter(|_| face.tty) {
        environment = environment.with([("TERM".to_owned(), term.clone())]);
    }
    let launch = plan.launch(&environment);
    let start = |ends, way| {
        let child = launch.spawn_under(ends, way, &plan.extras);
        Foreground::new(child.map_err(|error| plan.failed(&error))?)
    };
    if face.tty {
        let cannot = cannot("a terminal");
        let pty = terminal::open(face.size).map_err(cannot)?;
        owned::give(&pty.theirs, plan.user.as_ref());
        let end = || pty.theirs.try_clone().map(Stdio::from).map_err(cannot);
        let foreground = start([end()?, end()?, end()?], Way::OnTerminal)?;
        return Ok(Foreground {
            streams: Some(pty.streams),
            is_typed: face.stdin,
            terminal: Some(pty.ours),
            held: vec![pty.theirs.into()],
            ..foreground
        });
    }
    let pipes = pipes::open(face.stdin, plan.user.as_ref()).map_err(cannot("a pipe"))?;
    Ok(Foreground {
        streams: pipes.streams,
        is_typed: pipes.is_typed,
        held: pipes.held,
        ..start(pipes.theirs, Way::Apart)?
    })
}
