//! A command's side of the control socket: finds the supervisor of a project, starts one if there is none,
//! and asks it. Holds no state that matters: a supervisor that was killed is replaced and asked again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::dirs::{Dirs, ProjectDir, failed};
use super::ledger::Record;
use super::protocol::{Card, Cause, Greeting, PROTOCOL, Reply, Request};
use super::realm;
use super::refusal::Refusal;
use super::regular;
use super::run::ProcessId;
use super::summon::{self, REVIVED};
use super::{child, lock, socket, trust};
use crate::backend::BackendError;

/// What a supervisor says when it can be connected to.
pub const READY: &str = "ready\n";

/// How long a supervisor may take to say a word: it never does anything long without listening. One that
/// is silent for longer is frozen, and replaced.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a supervisor that takes its time over a request is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often a supervisor that vanishes is replaced before the command gives up.
const ATTEMPTS: usize = 4;

/// Starts that are asked for at a time. Each has a connection, and whatever the supervisor has open is copied for each
/// keeper and closed there again; it has more than enough to do with these.
const STARTS: usize = 16;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Asks, and waits for the answer however long it takes. `Err` when the supervisor has gone.
    async fn ask(&mut self, request: &Request) -> io::Result<Reply> {
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

/// The way to the supervisors of this user.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) dirs: Dirs,
    binary: PathBuf,
    idle: RefCell<BTreeMap<String, Vec<Connection>>>,
    /// Who may ask for a start.
    starts: Semaphore,
    /// What the user should know and no error says.
    notes: RefCell<Vec<String>>,
    /// What was to be said before.
    told: RefCell<BTreeSet<String>>,
    /// The projects of which nothing was elsewhere.
    here: RefCell<BTreeSet<String>>,
    /// The version of a supervisor that speaks otherwise, where there was one.
    other: RefCell<Option<String>>,
}

/// What comes of connecting.
enum Met {
    Supervisor(Connection),
    Nobody,
    /// One that is there and does not speak.
    Silent(ProcessId),
}

/// Whose supervisor is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Versions {
    Ours,
    All,
}

impl Client {
    /// `binary` is run to start a supervisor.
    pub(super) fn new(dirs: Dirs, binary: PathBuf) -> Self {
        Self {
            dirs,
            binary,
            idle: RefCell::default(),
            starts: Semaphore::new(STARTS),
            notes: RefCell::default(),
            told: RefCell::default(),
            here: RefCell::default(),
            other: RefCell::default(),
        }
    }

    /// What the user should know and no error says, once.
    pub(super) fn take_notes(&self) -> Vec<String> {
        let mut notes = self.notes.take();
        notes.retain(|note| self.told.borrow_mut().insert(note.clone()));
        notes
    }

    /// Asks the supervisor of a project, which is started if need be.
    pub(super) async fn ask(
        &self,
        project: &str,
        request: &Request,
    ) -> Result<Option<String>, BackendError> {
        let mut last = None;
        let _turn = if matches!(request, Request::Start { .. }) {
            // Never closed.
            self.starts.acquire().await.ok()
        } else {
            None
        };
        for _ in 0..ATTEMPTS {
            let mut connection = match self.pooled(project) {
                Some(connection) => connection,
                None => self.reach(project).await?,
            };
            match self.asked(project, &mut connection, request).await {
                Ok(reply) => {
                    self.give_back(project, connection);
                    return match reply {
                        Reply::Done { id, notes } => {
                            self.notes.borrow_mut().extend(notes);
                            Ok(id)
                        }
                        Reply::Failed(failure) => Err(failure.into_error(request.instance())),
                    };
                }
                // It was killed; its successor takes over and every request may be made twice.
                Err(error) => {
                    self.forget(project);
                    last = Some(error);
                }
            }
        }
        let other = self.other.borrow();
        Err(BackendError::State {
            action: format!("the supervisor of project {project} keeps vanishing"),
            source: other
                .as_deref()
                .map(replaced_by)
                .or(last)
                .unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()),
        })
    }

    /// The answer of a supervisor that is awake: one that was frozen meanwhile counts as gone.
    async fn asked(
        &self,
        project: &str,
        connection: &mut Connection,
        request: &Request,
    ) -> io::Result<Reply> {
        let dir = self.dirs.project(project).map_err(io::Error::other)?;
        let patience = if matches!(request, Request::Ping) {
            PATIENCE
        } else {
            HEARTBEAT
        };
        let mut asking = std::pin::pin!(connection.ask(request));
        loop {
            tokio::select! {
                biased;
                reply = &mut asking => return reply,
                () = tokio::time::sleep(patience) => {
                    if !matches!(self.connect(&dir, Versions::Ours).await, Ok(Met::Supervisor(_))) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }

    /// Asks the supervisor only if there is one.
    pub(super) async fn ask_if_there(
        &self,
        project: &str,
        request: &Request,
    ) -> Result<bool, BackendError> {
        let dir = self.dirs.project(project)?;
        // Not one from the pool: its supervisor may have been replaced.
        let Met::Supervisor(mut connection) = self.connect(&dir, Versions::Ours).await? else {
            return Ok(false);
        };
        match connection.ask(request).await {
            Ok(Reply::Done { notes, .. }) => {
                self.notes.borrow_mut().extend(notes);
                // In the place of another one: a command that watches asks for as long as it likes.
                drop(self.pooled(project));
                self.give_back(project, connection);
                Ok(true)
            }
            Ok(Reply::Failed(failure)) => Err(failure.into_error(request.instance())),
            Err(_) => Ok(false),
        }
    }

    /// A connection to the supervisor, which is started if need be and stays as long as the connection.
    pub(super) async fn reach(&self, project: &str) -> Result<Connection, BackendError> {
        self.reach_one_of(project, Versions::Ours).await
    }

    /// The same for whoever asks nothing and waits for its end: one of another version does as well. To replace it would
    /// take it from a command that is at work.
    pub(super) async fn attend(&self, project: &str) -> Result<Connection, BackendError> {
        self.reach_one_of(project, Versions::All).await
    }

    async fn reach_one_of(
        &self,
        project: &str,
        versions: Versions,
    ) -> Result<Connection, BackendError> {
        let dir = self.dirs.project(project)?;
        dir.create()?;
        for _ in 0..ATTEMPTS {
            let silent = match self.connect(&dir, versions).await? {
                Met::Supervisor(connection) => return Ok(connection),
                Met::Nobody => None,
                Met::Silent(process) => Some(process),
            };
            let path = dir.start_lock();
            let guard = lock::exclusive(&path, || {})
                .await
                .map_err(|error| failed("lock", &path, error))?;
            // Somebody else may have started it while we waited for the lock.
            let now = card(&dir).map(|card| card.process);
            if silent.is_none() || now != silent {
                if let Met::Supervisor(connection) = self.connect(&dir, versions).await? {
                    return Ok(connection);
                }
            } else if let Some(process) = silent {
                // The new one takes its place by force; its services do not notice.
                self.notes.borrow_mut().push(format!(
                    "the supervisor of project {project} (pid {}) did not answer for {} s and was replaced",
                    process.pid,
                    PATIENCE.as_secs()
                ));
            }
            match self.start(&dir, &guard).await {
                // Killed on its way up: the next one takes over what it has begun.
                Err(BackendError::State { source, .. })
                    if source.kind() == io::ErrorKind::UnexpectedEof => {}
                outcome => outcome?,
            }
        }
        Err(BackendError::State {
            action: format!("cannot reach the supervisor of project {project}"),
            source: io::ErrorKind::ConnectionRefused.into(),
        })
    }

    /// Has a supervisor come up where there is none. What goes wrong is told when it is asked for something.
    pub(super) async fn anticipate(&self, project: &str) {
        let Ok(dir) = self.dirs.project(project) else {
            return;
        };
        if !lock::is_held(&dir.supervisor_lock())
            && let Ok(connection) = self.reach(project).await
        {
            self.forget(project);
            self.give_back(project, connection);
        }
    }

    /// Says something when the command next asks what there is to say.
    pub(super) fn note(&self, text: String) {
        self.notes.borrow_mut().push(text);
    }

    fn pooled(&self, project: &str) -> Option<Connection> {
        self.idle.borrow_mut().get_mut(project)?.pop()
    }

    /// All of them led to the supervisor that has gone.
    fn forget(&self, project: &str) {
        self.idle.borrow_mut().remove(project);
    }

    fn give_back(&self, project: &str, connection: Connection) {
        self.idle
            .borrow_mut()
            .entry(project.to_owned())
            .or_default()
            .push(connection);
    }

    /// That a project's processes may be judged from here; looked up once.
    ///
    /// # Errors
    /// They may not.
    pub(super) fn check_here(&self, dir: &ProjectDir) -> Result<(), BackendError> {
        if self.here.borrow().contains(dir.name()) {
            return Ok(());
        }
        self.look_again(dir)
    }

    /// As [`Self::check_here`], whatever was found before.
    pub(super) fn look_again(&self, dir: &ProjectDir) -> Result<(), BackendError> {
        if let Some(error) = realm::elsewhere(dir) {
            self.here.borrow_mut().remove(dir.name());
            return Err(error);
        }
        self.here.borrow_mut().insert(dir.name().to_owned());
        Ok(())
    }

    /// Whether they may not.
    pub(super) fn is_elsewhere(&self, dir: &ProjectDir) -> bool {
        self.check_here(dir).is_err()
    }

    /// Connects to the supervisor that the project's card names. One of a version that is not wanted leaves.
    async fn connect(&self, dir: &ProjectDir, versions: Versions) -> Result<Met, BackendError> {
        self.check_here(dir)?;
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
        let line = match tokio::time::timeout(PATIENCE, connection.line()).await {
            Ok(Ok(line)) => line,
            // One that is just leaving closes without a word.
            Ok(Err(_)) => return Ok(Met::Nobody),
            Err(_) => return Ok(card.map_or(Met::Nobody, |card| Met::Silent(card.process))),
        };
        let greeting = serde_json::from_str::<Greeting>(&line).ok();
        let is_ours = greeting.as_ref().is_some_and(|it| it.protocol == PROTOCOL);
        if is_ours || versions == Versions::All {
            return Ok(Met::Supervisor(connection));
        }
        // Its instances live on, and ours takes them over. What it could not read it could not, and then nobody would.
        Record::read_all(dir)?;
        let version = greeting.map_or_else(|| "of another kind".to_owned(), |it| it.version);
        self.other.replace(Some(version));
        let leaving = async {
            drop(connection.ask(&Request::Shutdown).await);
            connection.closed().await;
        };
        match tokio::time::timeout(PATIENCE, leaving).await {
            Ok(()) => Ok(Met::Nobody),
            Err(_) => Ok(card.map_or(Met::Nobody, |card| Met::Silent(card.process))),
        }
    }

    /// Starts a supervisor and returns when it can be connected to. The start lock goes along with it, so
    /// that it stays taken if this command is killed half-way.
    async fn start(&self, dir: &ProjectDir, guard: &std::fs::File) -> Result<(), BackendError> {
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
            .map_err(cannot)?;
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

/// Why a supervisor does not stay: commands of two versions, of which each has one of its own come up.
fn replaced_by(version: &str) -> io::Error {
    Refusal {
        errno: None,
        message: format!(
            "commands of another version of wharf ({version}) are at work on it, too, and replace it"
        ),
        hint: "ps -C wharf -o pid,lstart,args   # what still runs of the other version: end it, or wait for it"
            .to_owned(),
    }
    .into()
}

/// Who the supervisor is, by its own word.
fn card(dir: &ProjectDir) -> Option<Card> {
    let text = regular::read(&dir.supervisor_card()).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader as StdReader, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Where a supervisor is met, with its card.
    fn listener(dir: &ProjectDir) -> UnixListener {
        dir.create().unwrap();
        let card = Card {
            process: ProcessId::of(std::process::id()).unwrap(),
            socket: dir.socket(),
            version: "0".into(),
            realm: None,
        };
        std::fs::write(dir.supervisor_card(), serde_json::to_vec(&card).unwrap()).unwrap();
        UnixListener::bind(dir.socket()).unwrap()
    }

    /// A supervisor that greets with `greeting` and reports the first line it hears.
    fn impostor(dir: &ProjectDir, greeting: &str) -> std::thread::JoinHandle<String> {
        let listener = listener(dir);
        let greeting = greeting.to_owned();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting.as_bytes()).unwrap();
            let mut heard = String::new();
            StdReader::new(&stream).read_line(&mut heard).unwrap();
            heard
        })
    }

    fn client(root: &tempfile::TempDir) -> Client {
        let dirs = Dirs::new(root.path().join("s"), root.path().join("r"));
        Client::new(dirs, PathBuf::from("/nowhere/wharf"))
    }

    #[tokio::test]
    async fn a_supervisor_of_another_version_is_asked_to_leave() {
        let root = tempfile::tempdir().unwrap();
        let client = client(&root);
        let dir = client.dirs.project("p").unwrap();
        let heard = impostor(&dir, "{\"protocol\":99,\"version\":\"9\",\"new\":1}\n");
        assert!(matches!(
            client.connect(&dir, Versions::Ours).await.unwrap(),
            Met::Nobody
        ));
        assert_eq!(heard.join().unwrap(), "{\"request\":\"shutdown\"}\n");
    }

    #[tokio::test]
    async fn a_supervisor_of_what_only_a_newer_wharf_can_read_stays() {
        let root = tempfile::tempdir().unwrap();
        let client = client(&root);
        let dir = client.dirs.project("p").unwrap();
        let heard = impostor(&dir, "{\"protocol\":99,\"version\":\"9\",\"new\":1}\n");
        let instance = dir.instance("p-web-1").unwrap();
        instance.create().unwrap();
        std::fs::write(instance.record(), r#"{"format":99}"#).unwrap();
        let refused = client.ask_if_there("p", &Request::Ping).await.unwrap_err();
        assert!(
            refused.to_string().contains("a newer wharf wrote it"),
            "{refused}"
        );
        assert_eq!(heard.join().unwrap(), "");
    }

    #[tokio::test]
    async fn whoever_only_waits_lets_a_supervisor_of_another_version_be() {
        let root = tempfile::tempdir().unwrap();
        let client = client(&root);
        let dir = client.dirs.project("p").unwrap();
        let heard = impostor(&dir, "{\"protocol\":99,\"version\":\"9\",\"new\":1}\n");
        let mut connection = client.attend("p").await.unwrap();
        // It hears nothing before we go, which is nothing at all.
        drop(connection.0.shutdown().await);
        assert_eq!(heard.join().unwrap(), "");
        connection.closed().await;
    }

    #[tokio::test]
    async fn a_card_without_a_supervisor_is_nobody() {
        let root = tempfile::tempdir().unwrap();
        let client = client(&root);
        let dir = client.dirs.project("p").unwrap();
        drop(impostor(&dir, ""));
        std::fs::remove_file(dir.socket()).unwrap();
        assert!(matches!(
            client.connect(&dir, Versions::Ours).await.unwrap(),
            Met::Nobody
        ));
        std::fs::write(dir.supervisor_card(), "not a card").unwrap();
        assert!(matches!(
            client.connect(&dir, Versions::Ours).await.unwrap(),
            Met::Nobody
        ));
        assert!(!client.ask_if_there("p", &Request::Ping).await.unwrap());
    }

    #[tokio::test]
    async fn whoever_asks_again_and_again_has_one_connection() {
        let root = tempfile::tempdir().unwrap();
        let client = client(&root);
        let dir = client.dirs.project("p").unwrap();
        let greeting = format!("{{\"protocol\":{PROTOCOL},\"version\":\"0\"}}\n");
        let listener = listener(&dir);
        let supervisor = std::thread::spawn(move || {
            let asked = |_| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(greeting.as_bytes()).unwrap();
                let mut heard = String::new();
                StdReader::new(&stream).read_line(&mut heard).unwrap();
                stream
                    .write_all(b"{\"reply\":\"done\",\"id\":null}\n")
                    .unwrap();
                stream
            };
            (0..5).map(asked).collect::<Vec<_>>()
        });
        for _ in 0..5 {
            assert!(client.ask_if_there("p", &Request::Ping).await.unwrap());
        }
        assert_eq!(client.idle.borrow()["p"].len(), 1);
        assert_eq!(supervisor.join().unwrap().len(), 5);
    }

    #[tokio::test]
    async fn a_binary_that_is_not_there_is_an_error_with_its_cause() {
        let root = tempfile::tempdir().unwrap();
        let error = client(&root).ask("p", &Request::Ping).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot start the supervisor of project p"
        );
    }
}
