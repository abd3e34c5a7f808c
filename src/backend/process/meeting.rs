//! How a command meets the supervisor of a project: connects to the one that its card names, or has one come up. What it
//! is asked then is `client`'s.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::dirs::{Dirs, ProjectDir, failed};
use super::ledger::Record;
use super::protocol::{Card, Cause, Greeting, PROTOCOL, Reply, Request};
use super::regular;
use super::run::ProcessId;
use super::summon::{self, REVIVED};
use super::unusable::unmade;
use super::{child, lock, socket, trust};
use crate::backend::BackendError;

/// What a supervisor says when it can be connected to.
pub const READY: &str = "ready\n";

/// How long a supervisor may take to say a word: it never does anything long without listening. One that
/// is silent for longer is frozen, and replaced.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// One connection.
#[derive(Debug)]
pub(super) struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Asks, and waits for the answer however long it takes. `Err` when the supervisor has gone.
    pub(super) async fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        self.0.write_all(&text).await?;
        let line = self.line().await?;
        Ok(serde_json::from_str(&line)?)
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        if line.ends_with('\n') {
            Ok(line)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Returns when the supervisor has gone.
    pub(super) async fn closed(&mut self) {
        // It never speaks unasked; whatever comes is its end.
        drop(self.0.read_u8().await);
    }
}

/// What comes of connecting.
pub(super) enum Met {
    Supervisor(Connection),
    Nobody,
    /// One that is there and does not speak.
    Silent(ProcessId),
}

/// What comes of having one come up.
pub(super) enum Up {
    /// There was one by then.
    Met(Connection),
    /// One has begun to listen, in the place of one that is silent or not.
    Started { is_forced: bool },
    /// It was killed on its way up.
    Lost,
}

/// Whose supervisor is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    Ours,
    All,
}

/// Where supervisors are met, and what they are made from.
#[derive(Clone, Debug)]
pub(super) struct Meeting {
    pub(super) dirs: Dirs,
    /// Is run to start one.
    binary: PathBuf,
    /// The version of one that speaks otherwise, where there was one.
    other: Arc<Mutex<Option<String>>>,
}

impl Meeting {
    pub(super) fn new(dirs: Dirs, binary: PathBuf) -> Self {
        Self {
            dirs,
            binary,
            other: Arc::default(),
        }
    }

    /// The version of a supervisor that was asked to leave.
    pub(super) fn other(&self) -> Option<String> {
        let other = self.other.lock().unwrap_or_else(PoisonError::into_inner);
        other.clone()
    }

    /// Connects to the supervisor that the project's card names. One of a version that is not wanted leaves.
    pub(super) async fn connect(
        &self,
        dir: &ProjectDir,
        versions: Versions,
    ) -> Result<Met, BackendError> {
        // Without a card it is where it usually is. What is there may have had another ledger, which somebody has
        // removed: then it does not have this one's lock, and is left to its runs.
        let card = card(dir);
        if card.is_none() && !lock::is_held(&dir.supervisor_lock()) {
            return Ok(Met::Nobody);
        }
        let place = card
            .as_ref()
            .map_or_else(|| dir.socket(), |card| card.socket.clone());
        let stream = socket::reach(&place, std::os::unix::net::UnixStream::connect);
        let Ok(stream) = stream else {
            return Ok(Met::Nobody);
        };
        // Whoever else that is, what it says counts for nothing.
        trust::check_peer(&stream, &dir.instances())
            .map_err(|error| dir.runtime_failed("use", &place, error))?;
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(stream));
        let Ok(stream) = stream else {
            return Ok(Met::Nobody);
        };
        let mut connection = Connection(BufReader::new(stream));
        let silent = || card.map_or(Met::Nobody, |card| Met::Silent(card.process));
        let line = match tokio::time::timeout(PATIENCE, connection.line()).await {
            Ok(Ok(line)) => line,
            // One that is just leaving closes without a word.
            Ok(Err(_)) => return Ok(Met::Nobody),
            Err(_) => return Ok(silent()),
        };
        let greeting = serde_json::from_str::<Greeting>(&line).ok();
        let is_ours = greeting.as_ref().is_some_and(|it| it.protocol == PROTOCOL);
        if is_ours || versions == Versions::All {
            return Ok(Met::Supervisor(connection));
        }
        // Its instances live on, and ours takes them over. What it could not read it could not, and then nobody would.
        Record::read_all(dir)?;
        let version = greeting.map_or_else(|| "of another kind".to_owned(), |it| it.version);
        *self.other.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
        let leaving = async {
            drop(connection.ask(&Request::Shutdown).await);
            connection.closed().await;
        };
        match tokio::time::timeout(PATIENCE, leaving).await {
            Ok(()) => Ok(Met::Nobody),
            Err(_) => Ok(silent()),
        }
    }

    /// Has a supervisor come up, in the place of one that is silent, unless somebody else has done it.
    ///
    /// It goes on by itself, whether it is waited for or not: whoever waits for it may be one of several things that a
    /// command does, and another one of them may be waiting for the same lock.
    pub(super) async fn bring_up(
        &self,
        dir: &ProjectDir,
        versions: Versions,
        silent: Option<ProcessId>,
    ) -> Result<Up, BackendError> {
        let (meeting, dir) = (self.clone(), dir.clone());
        // Ends with whoever waits for it.
        let mut task = JoinSet::new();
        task.spawn(async move { meeting.take_turn(&dir, versions, silent).await });
        match task.join_next().await {
            Some(Ok(outcome)) => outcome,
            Some(Err(error)) => Err(BackendError::State {
                action: "cannot start a supervisor".to_owned(),
                source: io::Error::other(error),
            }),
            None => Ok(Up::Lost),
        }
    }

    async fn take_turn(
        &self,
        dir: &ProjectDir,
        versions: Versions,
        silent: Option<ProcessId>,
    ) -> Result<Up, BackendError> {
        // Before anything is made there.
        dir.check_owner(&format!("start the supervisor of project {}", dir.name()))?;
        let path = dir.start_lock();
        let guard = lock::exclusive(&path, || {})
            .await
            .map_err(|error| failed("lock", &path, error))?;
        // Somebody else may have started it while we waited for the lock.
        let now = card(dir).map(|card| card.process);
        let is_forced = silent.is_some() && now == silent;
        if !is_forced && let Met::Supervisor(connection) = self.connect(dir, versions).await? {
            return Ok(Up::Met(connection));
        }
        match self.start(dir, &guard).await {
            Err(BackendError::State { source, .. })
                if source.kind() == io::ErrorKind::UnexpectedEof =>
            {
                Ok(Up::Lost)
            }
            outcome => outcome.map(|()| Up::Started { is_forced }),
        }
    }

    /// Starts a supervisor and returns when it can be connected to. The start lock goes along with it, so
    /// that it stays taken if this command is killed half-way.
    async fn start(&self, dir: &ProjectDir, guard: &File) -> Result<(), BackendError> {
        let cannot = |source| BackendError::State {
            action: format!("cannot start the supervisor of project {}", dir.name()),
            source,
        };
        let command = summon::supervisor(&self.binary, &self.dirs, dir)?;
        child::seal_descriptors().map_err(cannot)?;
        let mut supervisor = Command::from(command)
            .env_remove(REVIVED)
            .stdin(guard.try_clone().map_err(cannot)?)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| cannot(unmade(error)))?;
        let mut said = String::new();
        if let Some(mut stdout) = supervisor.stdout.take() {
            stdout.read_to_string(&mut said).await.map_err(cannot)?;
        }
        if said == READY {
            // Not waited for: it outlives us, and the runtime reaps it should it end before.
            return Ok(());
        }
        let source = if said.is_empty() {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "it ended without a word, see {}",
                    dir.supervisor_log().display()
                ),
            )
        } else {
            match serde_json::from_str::<Cause>(&said) {
                Ok(cause) => cause.in_words(),
                Err(_) => io::Error::other(said),
            }
        };
        Err(cannot(source))
    }
}

/// The living supervisor that a project's card names.
pub(super) fn present(dir: &ProjectDir) -> Option<ProcessId> {
    let process = card(dir)?.process;
    process.is_alive().then_some(process)
}

/// Who the supervisor is, by its own word.
fn card(dir: &ProjectDir) -> Option<Card> {
    let text = regular::read(&dir.supervisor_card()).ok()?;
    serde_json::from_slice(&text).ok()
}
