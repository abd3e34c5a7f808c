//! A command's side of the control socket: asks the supervisor of a project, which comes up if there is none
//! (`meeting`). Holds no state that matters: a supervisor that was killed is replaced and asked again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::dirs::{Dirs, ProjectDir};
use super::lock;
use super::meeting::{Connection, Meeting, Met, PATIENCE, Up, Versions};
use super::protocol::{Reply, Request};
use super::realm;
use super::refusal::Refusal;
use crate::backend::BackendError;

/// How often a supervisor that takes its time over a request is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often a supervisor that vanishes is replaced before the command gives up.
const ATTEMPTS: usize = 4;

/// Starts that are asked for at a time. Each has a connection, and whatever the supervisor has open is copied for each
/// keeper and closed there again; it has more than enough to do with these.
const STARTS: usize = 16;

/// The way to the supervisors of this user.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) dirs: Dirs,
    meeting: Meeting,
    idle: RefCell<BTreeMap<String, Vec<Connection>>>,
    /// Who may ask for a start.
    starts: Semaphore,
    /// What the user should know and no error says.
    notes: RefCell<Vec<String>>,
    /// What was to be said before.
    told: RefCell<BTreeSet<String>>,
    /// The projects of which nothing was elsewhere.
    here: RefCell<BTreeSet<String>>,
}

impl Client {
    /// `binary` is run to start a supervisor.
    pub(super) fn new(dirs: Dirs, binary: PathBuf) -> Self {
        Self {
            meeting: Meeting::new(dirs.clone(), binary),
            dirs,
            idle: RefCell::default(),
            starts: Semaphore::new(STARTS),
            notes: RefCell::default(),
            told: RefCell::default(),
            here: RefCell::default(),
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
        let other = self.meeting.other();
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

    /// The same, or `None` where there is none and none may be started: among the files of another user root looks on.
    pub(super) async fn look_on(&self, project: &str) -> Result<Option<Connection>, BackendError> {
        let dir = self.dirs.project(project)?;
        if !dir.is_of_another_user() {
            return self.attend(project).await.map(Some);
        }
        match self.connect(&dir, Versions::All).await? {
            Met::Supervisor(connection) => Ok(Some(connection)),
            Met::Nobody | Met::Silent(_) => Ok(None),
        }
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
            match self.meeting.bring_up(&dir, versions, silent).await? {
                Up::Met(connection) => return Ok(connection),
                // The next one takes over what one has begun that was killed on its way up.
                Up::Started { is_forced: false } | Up::Lost => {}
                // Its services have not noticed.
                Up::Started { is_forced: true } => self.notes.borrow_mut().push(format!(
                    "the supervisor of project {project} (pid {}) did not answer for {} s and was replaced",
                    silent.map_or(0, |process| process.pid),
                    PATIENCE.as_secs()
                )),
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
        self.check_here_anew(dir)
    }

    /// As [`Self::check_here`], whatever was found before.
    pub(super) fn check_here_anew(&self, dir: &ProjectDir) -> Result<(), BackendError> {
        if let Some(error) = realm::elsewhere(dir) {
            self.here.borrow_mut().remove(dir.name());
            return Err(error);
        }
        self.here.borrow_mut().insert(dir.name().to_owned());
        Ok(())
    }

    /// Whether they may.
    pub(super) fn is_here(&self, dir: &ProjectDir) -> bool {
        self.check_here(dir).is_ok()
    }

    /// As [`Meeting::connect`], where the project's processes may be judged from here.
    async fn connect(&self, dir: &ProjectDir, versions: Versions) -> Result<Met, BackendError> {
        self.check_here(dir)?;
        self.meeting.connect(dir, versions).await
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader as StdReader, Write};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::backend::process::protocol::{Card, PROTOCOL};
    use crate::backend::process::run::ProcessId;

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
        drop(client.attend("p").await.unwrap());
        assert_eq!(heard.join().unwrap(), "");
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
    async fn whoever_is_not_waited_for_keeps_nobody_waiting() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path().join("s"), root.path().join("r"));
        let lock = dirs.project("p").unwrap().start_lock();
        // A program that says nothing and ends.
        let client = Client::new(dirs, PathBuf::from("/bin/true"));
        let mut first = std::pin::pin!(client.reach("p"));
        let has_begun = async {
            while !lock::is_held(&lock) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = &mut first => panic!("it has not ended yet"),
            () = has_begun => {}
        }
        // A command that does two things at once waits for the other one now.
        let second = tokio::time::timeout(Duration::from_secs(20), client.reach("p")).await;
        assert!(second.unwrap().is_err());
        assert!(first.await.is_err());
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
