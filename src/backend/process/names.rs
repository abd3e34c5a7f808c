//! A command's side of the forwarder's socket: waits until names are what they should be. The words that are
//! spoken there.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt as _, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::observe::status;
use super::protocol::{Cause, Request};
use super::refusal::Refusal;
use super::{Processes, socket};
use crate::backend::BackendError;
use crate::project::shell;
use crate::state::Status;

/// The version of the protocol: JSON, one message a line; each request has one answer.
pub const NAMES_PROTOCOL: u32 = 1;

/// How a forwarder begins that was asked in another version. Every version says it so.
const OTHER_VERSION: &str = "the forwarder speaks version ";

/// The longest line either side accepts, in bytes.
pub const LONGEST_LINE: u64 = 64 * 1024;

/// Instances in one request: a name has at most 255 bytes, as a name of a directory.
const AT_ONCE: usize = 200;

/// How long a forwarder may take to come (back): the supervisor starts it.
const COMING: Duration = Duration::from_secs(5);

/// The same for one that another wharf has made: where it cannot be met now, it may listen elsewhere.
const FOREIGN: Duration = Duration::from_millis(500);

/// How long a command waits that could do without.
const CATCHING_UP: Duration = Duration::from_millis(500);

/// How long it may take to answer. It gives up by itself before.
const ANSWERING: Duration = Duration::from_secs(15);

/// How long it is waited for before it is asked whether it is there, and how long it may take to say so: it never does
/// anything long without listening.
const QUIET: Duration = Duration::from_secs(1);
const SILENT: Duration = Duration::from_secs(2);

/// Between two looks for it: soon at first, since a stack that comes up waits for it.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// What a command asks the forwarder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesRequest {
    /// [`NAMES_PROTOCOL`].
    pub version: u32,
    /// Answer when all is in effect that ledger and engine know now.
    pub sync: NamesWanted,
}

/// What has to be in effect besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesWanted {
    /// Services whose relay is connected and listens.
    #[serde(default)]
    pub reachable: Vec<String>,
    /// Instances that are about to start: they see their names, and nothing is in the way of their ports. Empty
    /// where all see theirs.
    #[serde(default)]
    pub instances: Vec<String>,
}

/// What the forwarder answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamesReply {
    /// It is as it was asked for.
    Ok(bool),
    /// It is not, and why.
    Error(String),
}

impl NamesReply {
    /// To whoever speaks another version.
    pub fn other_version(theirs: u32) -> Self {
        Self::Error(format!(
            "{OTHER_VERSION}{NAMES_PROTOCOL} and not {theirs}: another wharf started it"
        ))
    }
}

/// Between two times that starts ask for their names, at least: what begins meanwhile asks together.
const BETWEEN: Duration = Duration::from_millis(5);

/// Starts that wait for the same moment to ask: a stack asks a few times for all of its services.
#[derive(Debug, Default)]
pub(super) struct Together {
    starts: Mutex<BTreeMap<String, Vec<Start>>>,
    /// Whose turn it is to ask, and when one has asked last.
    turn: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Start {
    instance: String,
    /// What came of it.
    done: oneshot::Sender<Result<(), Cause>>,
}

/// The first of them, who asks for all.
struct Asking<'a> {
    together: &'a Together,
    project: &'a str,
}

impl Together {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Start>>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one; whoever is the first of its project asks.
    fn join<'a>(&'a self, project: &'a str, start: Start) -> Option<Asking<'a>> {
        let mut all = self.all();
        let starts = all.entry(project.to_owned()).or_default();
        starts.push(start);
        // Made only for the first: dropping one takes all that have joined.
        (starts.len() == 1).then(|| Asking {
            together: self,
            project,
        })
    }
}

impl Asking<'_> {
    fn take(&self) -> Vec<Start> {
        self.together.all().remove(self.project).unwrap_or_default()
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        // Nobody waits for one that was cut off.
        drop(self.take());
    }
}

impl Processes {
    /// As [`sync_names`](Self::sync_names), for an instance that is about to start; together with all others that
    /// are.
    pub(super) async fn sync_for_start(
        &self,
        project: &str,
        instance: &str,
    ) -> Result<(), BackendError> {
        let (done, told) = oneshot::channel();
        let start = Start {
            instance: instance.to_owned(),
            done,
        };
        if let Some(asking) = self.together.join(project, start) {
            // What begins until then joins.
            let mut turn = self.together.turn.lock().await;
            tokio::task::yield_now().await;
            if let Some(last) = *turn {
                tokio::time::sleep_until(last + BETWEEN).await;
            }
            let mut starts = asking.take();
            drop(asking);
            while !starts.is_empty() {
                let rest = starts.split_off(starts.len().min(AT_ONCE));
                let names = starts.iter().map(|start| start.instance.clone());
                let outcome = self.synced(project, instances(names.collect())).await;
                let told = outcome.map_err(|error| Cause::from(&error));
                for start in starts {
                    // Who has gone meanwhile need not know.
                    drop(start.done.send(told.clone()));
                }
                starts = rest;
            }
            *turn = Some(Instant::now());
        }
        let outcome = match told.await {
            Ok(outcome) => outcome.map_err(io::Error::from),
            // Who asked was cut off.
            Err(_) => {
                self.synced(project, instances(vec![instance.to_owned()]))
                    .await
            }
        };
        outcome.map_err(|error| cannot(project, error))
    }

    /// Returns when the project's forwarder has caught up with all that ledger and engine know now: hosts files
    /// are written, ports are listened on, and what is `wanted` besides.
    ///
    /// Fails when there is no forwarder for some seconds, or with what it says keeps it.
    pub async fn sync_names(&self, project: &str, wanted: NamesWanted) -> Result<(), BackendError> {
        let outcome = self.synced(project, wanted).await;
        outcome.map_err(|error| cannot(project, error))
    }

    /// Lets what is known by now be written into the hosts file of an instance, for a command that is about to look
    /// there: others may have started a moment ago. What does not come soon is not waited for.
    pub async fn catch_up(&self, project: &str, instance: &str) {
        let record = self.record(project, instance);
        if record.is_ok_and(|record| record.spec.names.hosts.is_some()) {
            self.catch_up_soon(project).await;
        }
    }

    /// Lets what a command has started be known to its neighbours, whose hosts files a start does not wait for. What
    /// does not come soon is not waited for, and a project without a forwarder has nothing to write.
    pub async fn catch_up_all(&self, project: &str) {
        let forwarder = self.record(project, &crate::naming::forwarder_name(project));
        if forwarder.is_ok_and(|record| status(&record).is_alive()) {
            self.catch_up_soon(project).await;
        }
    }

    async fn catch_up_soon(&self, project: &str) {
        if let Ok(dir) = self.dirs().project(project) {
            let (path, request) = (dir.names_socket(), request(NamesWanted::default()));
            let asked = ask(&path, &request);
            drop(tokio::time::timeout(CATCHING_UP, asked).await);
        }
    }

    async fn synced(&self, project: &str, wanted: NamesWanted) -> io::Result<()> {
        let dir = self.dirs().project(project).map_err(io::Error::other)?;
        let path = dir.names_socket();
        let request = request(wanted);
        let mut deadline = Instant::now() + COMING;
        let mut pause = FIRST_PAUSE;
        let mut is_replaced = false;
        if self.has_foreign_forwarder(project) {
            deadline = Instant::now() + FOREIGN;
        }
        loop {
            let error = match answer(&path, &request).await {
                Ok(NamesReply::Ok(_)) => return Ok(()),
                Ok(NamesReply::Error(text)) => {
                    if text.starts_with(OTHER_VERSION)
                        && !is_replaced
                        && self.replace_forwarder(project, None).await
                    {
                        is_replaced = true;
                        deadline = Instant::now() + COMING;
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    return Err(io::Error::other(text));
                }
                // Not there, or killed meanwhile: the next one is on its way.
                Err(error) => error,
            };
            if path.is_dir() {
                return Err(in_the_way(&path).into());
            }
            let is_silent = error.kind() == io::ErrorKind::TimedOut;
            if is_silent || Instant::now() >= deadline {
                let since = if is_silent { QUIET + SILENT } else { COMING };
                if !is_replaced && self.replace_forwarder(project, Some(since)).await {
                    is_replaced = true;
                    deadline = Instant::now() + COMING;
                    pause = FIRST_PAUSE;
                    continue;
                }
                let text = format!(
                    "the forwarder cannot be reached at {}: {error}",
                    path.display()
                );
                return Err(io::Error::new(error.kind(), text));
            }
            self.revive_forwarder(project).await;
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(LONGEST_PAUSE);
        }
    }

    /// Ends a forwarder that lives and cannot be reached `since` so long: it is hung, or somebody has removed its socket;
    /// or one that was reached and is of another version. Whether there was one; the next look starts another.
    async fn replace_forwarder(&self, project: &str, since: Option<Duration>) -> bool {
        let name = crate::naming::forwarder_name(project);
        let Ok(record) = self.record(project, &name) else {
            return false;
        };
        if !status(&record).is_alive() {
            return false;
        }
        let request = Request::Kill {
            instance: name,
            signal: rustix::process::Signal::KILL.as_raw(),
        };
        // Its file may be another one by now, under the same name.
        let is_foreign = since.is_none() || self.has_foreign_forwarder(project);
        let is_ended = self.client.ask(project, &request).await.is_ok();
        if is_ended && is_foreign && self.adopt_forwarder(project).is_ok() {
            let what = "was of another version of wharf and was replaced";
            self.client
                .note(format!("the forwarder of project {project} {what}"));
        } else if let Some(since) = since.filter(|_| is_ended) {
            self.client.note(format!(
                "the forwarder of project {project} could not be reached for {} s and was replaced",
                since.as_secs()
            ));
        }
        is_ended
    }

    /// Whether another file than this program is the project's forwarder.
    fn has_foreign_forwarder(&self, project: &str) -> bool {
        let record = self.record(project, &crate::naming::forwarder_name(project));
        record.is_ok_and(|record| record.spec.program.as_ref() != Some(&self.binary))
    }

    /// Makes this program the project's forwarder, which has ended: its supervisor has let go of the entry.
    fn adopt_forwarder(&self, project: &str) -> Result<(), BackendError> {
        let name = crate::naming::forwarder_name(project);
        let mut record = self.record(project, &name)?;
        record.spec.program = Some(self.binary.clone());
        record.write(&self.dirs().project(project)?.instance(&name)?)
    }

    /// Starts the forwarder again if it has ended: because nobody needed it a moment ago, because a command
    /// that was to remove it did not come to that, or because it was killed so often that it waits.
    async fn revive_forwarder(&self, project: &str) {
        let name = crate::naming::forwarder_name(project);
        let Ok(record) = self.record(project, &name) else {
            return;
        };
        let status = status(&record);
        if status.is_alive() && status != Status::Restarting && record.wanted {
            return;
        }
        let request = Request::Start {
            instance: name,
            before: Some(record.id().to_owned()),
        };
        // While the last one is still ending this is refused, and tried again.
        drop(self.client.ask(project, &request).await);
    }
}

fn instances(names: Vec<String>) -> NamesWanted {
    NamesWanted {
        instances: names,
        ..NamesWanted::default()
    }
}

fn request(sync: NamesWanted) -> NamesRequest {
    NamesRequest {
        version: NAMES_PROTOCOL,
        sync,
    }
}

fn cannot(project: &str, source: io::Error) -> BackendError {
    BackendError::State {
        action: format!("the services of project {project} do not have all their names"),
        source,
    }
}

/// What is at the place of the forwarder's socket, where it cannot be taken away as an old socket is.
fn in_the_way(path: &Path) -> Refusal {
    let shown = path.display();
    Refusal {
        errno: Some(rustix::io::Errno::ISDIR.raw_os_error()),
        message: format!("the forwarder cannot listen at {shown}, which is a directory"),
        hint: format!(
            "to set it aside: mv {} {}",
            shell::word(path),
            shell::word(&path.with_added_extension("aside"))
        ),
    }
}

/// The forwarder's answer, which may take long; `TimedOut` where it does not even say that it is there.
async fn answer(path: &Path, request: &NamesRequest) -> io::Result<NamesReply> {
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
    // No version has this number: it is refused at once.
    let knock = NamesRequest {
        version: 0,
        sync: NamesWanted::default(),
    };
    let until = Instant::now() + ANSWERING;
    let mut asking = std::pin::pin!(ask(path, request));
    while Instant::now() < until {
        tokio::select! {
            biased;
            reply = &mut asking => return reply,
            () = tokio::time::sleep(QUIET) => {}
        }
        tokio::select! {
            biased;
            reply = &mut asking => return reply,
            said = tokio::time::timeout(SILENT, ask(path, &knock)) => drop(said.map_err(|_| silent())?),
        }
    }
    Err(silent())
}

async fn ask(path: &Path, request: &NamesRequest) -> io::Result<NamesReply> {
    let stream = socket::reach(path, |path| {
        let stream = std::os::unix::net::UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    })?;
    let mut stream = BufReader::new(UnixStream::from_std(stream)?);
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    let mut line = String::new();
    stream.take(LONGEST_LINE).read_line(&mut line).await?;
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_those_who_start_together_asks_for_all() {
        let together = Together::default();
        let join = |project, instance: &str| {
            let (done, told) = oneshot::channel();
            let instance = instance.to_owned();
            (together.join(project, Start { instance, done }), told)
        };
        let (first, _) = join("p", "a");
        assert!(join("p", "b").0.is_none());
        let (other, _) = join("q", "a");
        let names = |asking: &Asking<'_>| -> Vec<String> {
            let all = asking.take().into_iter();
            all.map(|start| start.instance).collect()
        };
        assert_eq!(names(&first.unwrap()), ["a", "b"]);
        // One that is cut off takes those along that count on it.
        let (_, mut told) = join("q", "b");
        drop(other);
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(join("q", "c").0.is_some());
    }

    #[test]
    fn the_words_are_these() {
        let request: NamesRequest =
            serde_json::from_str(r#"{"version":1,"sync":{"reachable":["api"]}}"#).unwrap();
        assert_eq!(request.sync.reachable, ["api"]);
        assert!(request.sync.instances.is_empty());
        let words = |reply: &NamesReply| serde_json::to_string(reply).unwrap();
        assert_eq!(words(&NamesReply::Ok(true)), r#"{"ok":true}"#);
        assert_eq!(words(&NamesReply::Error("no".into())), r#"{"error":"no"}"#);
    }
}
