//! Whose turn it is to change a project: one command has it. One that only waits, for health or a build, hands it to
//! another that asks, and takes it back afterwards.
//!
//! Both files are locks, so that whatever happens to their holders the kernel gives them back.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::realm::Holder;
use super::{Processes, dirs, lock, regular};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::port::process::process_facts;

/// Between two looks at whether somebody asks.
const LOOK: Duration = Duration::from_millis(100);

/// Between two tries to be the one who asks, and to see that nobody does any more.
const TRY: Duration = Duration::from_millis(20);

/// How often it is looked for the name of whoever has just got a lock.
const SIGNING: u32 = 10;

/// How long one who asks waits without a word: it is soon given the turn, if at all.
const WORDLESS: Duration = Duration::from_millis(500);

/// The longest command line that is shown whole, in characters.
const LONGEST: usize = 80;

/// Keeps other commands from changing the project as long as it lives.
#[derive(Debug)]
#[must_use]
pub struct ProjectLock {
    _held: Arc<Held>,
    follows_a_killed_command: bool,
    /// Whether there was no ledger when this command asked for its turn.
    begins: bool,
}

/// The turn of this command.
#[derive(Debug)]
pub(super) struct Held {
    project: String,
    path: PathBuf,
    asking: PathBuf,
    /// `None` while another command has it.
    file: Mutex<Option<File>>,
}

impl ProjectLock {
    /// Whether the command that had the lock before did not give it back: an engine may be still at work at what
    /// it asked for.
    pub fn follows_a_killed_command(&self) -> bool {
        self.follows_a_killed_command
    }

    /// Whether an earlier ledger may have been removed, with what it knew of: there was none, or whoever was to see
    /// to that was killed.
    pub fn may_have_lost(&self) -> bool {
        self.begins || self.follows_a_killed_command
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

impl Held {
    fn slot(&self) -> std::sync::MutexGuard<'_, Option<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self) {
        if let Some(file) = self.slot().take() {
            // Without this the next one takes this command for a killed one, and looks more often.
            drop(file.set_len(0));
        }
    }
}

/// Writes into the file of a lock who has it. Whether it said something before.
fn sign(mut file: &File) -> bool {
    let mut left = Vec::new();
    let said = file.take(1).read_to_end(&mut left).is_ok() && !left.is_empty();
    // Without this only a killed command is not noticed, and the other's note says less.
    let text = Holder::ours().and_then(|ours| serde_json::to_vec(&ours).ok());
    let mut text = text.unwrap_or_default();
    text.push(b'\n');
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(&text));
    drop(written);
    said
}

/// The command that has the lock of a file, in words: its command line and its pid, or where it is.
fn who(path: &Path) -> Option<String> {
    let text = regular::read(path).ok()?;
    let pid = match serde_json::from_slice::<Holder>(&text) {
        Ok(holder) => match holder.place() {
            Some(place) => return Some(format!("pid {} {place}", holder.process.pid)),
            None => holder.process.pid,
        },
        // Of a wharf that wrote the pid alone.
        Err(_) => serde_json::from_slice(&text).ok()?,
    };
    let command = process_facts(pid)?.command;
    let mut words = shell_words::join(&command);
    if words.chars().count() > LONGEST {
        words = words.chars().take(LONGEST).chain(['…']).collect();
    }
    Some(format!("`{words}` (pid {pid})"))
}

/// A project's lock for a moment.
#[derive(Debug)]
#[must_use]
pub(super) struct Borrowed {
    /// The lock, unless the command had it already.
    _own: Option<File>,
}

impl Processes {
    /// Waits until no other command is changing the project; says so once if it has to wait.
    pub async fn lock(&self, project: &str, events: &Events) -> Result<ProjectLock, BackendError> {
        let (path, begins) = self.prepare(project)?;
        let mut locking = std::pin::pin!(lock::exclusive(&path, || {}));
        let mut telling = std::pin::pin!(tell(project, &path, events));
        let file = tokio::select! {
            biased;
            file = &mut locking => file,
            () = &mut telling => locking.await,
        };
        let file = file.map_err(|error| dirs::failed("lock", &path, error))?;
        Ok(self.take(project, &path, file, begins))
    }

    /// As [`Self::lock`], and asks a command that only waits to let this one in between.
    pub async fn lock_soon(
        &self,
        project: &str,
        events: &Events,
    ) -> Result<ProjectLock, BackendError> {
        let (path, begins) = self.prepare(project)?;
        let asking = asking(&path);
        let mut locking = std::pin::pin!(lock::exclusive(&path, || {}));
        let mut ask = std::pin::pin!(async {
            let file = loop {
                if let Some(file) = try_exclusive(&asking)? {
                    break file;
                }
                tokio::time::sleep(TRY).await;
            };
            sign(&file);
            // It is let go with the whole.
            let _asked = file;
            std::future::pending::<io::Result<()>>().await
        });
        let mut telling = std::pin::pin!(async {
            tokio::time::sleep(WORDLESS).await;
            tell(project, &path, events).await;
            std::future::pending::<()>().await;
        });
        let file = loop {
            tokio::select! {
                biased;
                file = &mut locking => break file,
                // One that cannot ask waits as others do.
                Err(_) = &mut ask => break locking.await,
                () = &mut telling => {}
            }
        };
        let file = file.map_err(|error| dirs::failed("lock", &path, error))?;
        Ok(self.take(project, &path, file, begins))
    }

    /// Where the lock of a project is, and whether its ledger is made only now.
    fn prepare(&self, project: &str) -> Result<(PathBuf, bool), BackendError> {
        let dir = self.dirs().project(project)?;
        let path = dir.command_lock();
        let begins = !dir.instances().is_dir();
        let made = dir.create().and_then(|()| {
            let opened = lock::open(&path);
            opened.map_err(|error| dirs::failed("lock", &path, error))
        });
        match made {
            Ok(_) => Ok((path, begins)),
            // What runs in an engine alone needs no ledger.
            Err(error) if error.is_read_only() && dir.create_runtime().is_ok() => {
                let spare = dir.spare_lock();
                let opened = lock::open(&spare).map(|_| (spare, false));
                opened.map_err(|_| error)
            }
            Err(error) => Err(error),
        }
    }

    fn take(&self, project: &str, path: &Path, file: File, begins: bool) -> ProjectLock {
        let follows_a_killed_command = sign(&file);
        let held = Arc::new(Held {
            project: project.to_owned(),
            asking: asking(path),
            path: path.to_path_buf(),
            file: Mutex::new(Some(file)),
        });
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&held);
        ProjectLock {
            _held: held,
            follows_a_killed_command,
            begins,
        }
    }

    fn turn(&self) -> Option<Arc<Held>> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Weak::upgrade(&turn)
    }

    /// The project's lock for a moment, where this command has it already or nobody has it.
    pub(super) fn borrowed(&self, project: &str) -> Option<Borrowed> {
        if let Some(held) = self.turn().filter(|held| held.project == project) {
            return held.slot().is_some().then_some(Borrowed { _own: None });
        }
        let path = self.dirs().project(project).ok()?.command_lock();
        let own = try_exclusive(&path).ok()??;
        Some(Borrowed { _own: Some(own) })
    }

    /// The project of which this command has the turn, or had when it let another one in.
    pub fn turn_of(&self) -> Option<String> {
        self.turn().map(|held| held.project.clone())
    }

    /// Waits until another command asks for this one's turn; says who. Never, where this one has none.
    pub async fn asked(&self) -> String {
        loop {
            if let Some(held) = self.turn()
                && held.slot().is_some()
                && lock::is_held(&held.asking)
            {
                let mut looks = 0;
                loop {
                    if let Some(who) = who(&held.asking) {
                        return who;
                    }
                    // It signs when it has the lock, which may be a moment later.
                    looks += 1;
                    if looks == SIGNING {
                        return "another wharf".to_owned();
                    }
                    tokio::time::sleep(TRY).await;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets those in who ask.
    pub fn give_way(&self) {
        if let Some(held) = self.turn() {
            held.release();
        }
    }

    /// Waits until it is this command's turn again.
    ///
    /// # Errors
    /// The lock cannot be had, or what there is by now is in other namespaces.
    pub async fn regain(&self) -> Result<(), BackendError> {
        let Some(held) = self.turn() else {
            return Ok(());
        };
        if held.slot().is_some() {
            return Ok(());
        }
        while lock::is_held(&held.asking) {
            tokio::time::sleep(TRY).await;
        }
        let file = lock::exclusive(&held.path, || {}).await;
        let file = file.map_err(|error| dirs::failed("lock", &held.path, error))?;
        sign(&file);
        *held.slot() = Some(file);
        self.check_here_anew(&held.project)
    }
}

/// The file that is locked by the one command that asks whoever has a project's lock to let it in between.
fn asking(path: &Path) -> PathBuf {
    path.with_file_name("asking.lock")
}

/// Says for whom a command waits that does not have the lock of a file. Not for itself: it may do several things at once,
/// as `up` with watching does.
async fn tell(project: &str, path: &Path, events: &Events) {
    let mut nameless = 0;
    loop {
        match is_ours(path) {
            Some(true) => tokio::time::sleep(LOOK).await,
            None if nameless < SIGNING => {
                nameless += 1;
                tokio::time::sleep(TRY).await;
            }
            Some(false) | None => break,
        }
    }
    let who = who(path).unwrap_or_else(|| "it".to_owned());
    events.send(Event::Note(format!(
        "another wharf is working on project {project}: waiting for {who}"
    )));
}

/// Whether this command has the lock of a file; `None` where nobody has signed it.
fn is_ours(path: &Path) -> Option<bool> {
    let text = regular::read(path).ok().filter(|text| !text.is_empty())?;
    let is_us = |holder: Holder| {
        let ours = Holder::ours();
        holder.place().is_none() && ours.is_some_and(|ours| ours.process == holder.process)
    };
    Some(serde_json::from_slice(&text).is_ok_and(is_us))
}

/// Takes the lock of a file if nobody has it.
fn try_exclusive(path: &Path) -> io::Result<Option<File>> {
    let file = lock::open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_lock_is_named_here_and_placed_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("lock");
        let file = lock::open(&path).unwrap();
        assert_eq!((who(&path), is_ours(&path)), (None, None));
        assert!(!sign(&file));
        assert_eq!(is_ours(&path), Some(true));
        let pid = std::process::id();
        let here = format!("(pid {pid})");
        assert!(who(&path).unwrap().ends_with(&here));
        std::fs::write(&path, format!("{pid}\n")).unwrap();
        assert!(who(&path).unwrap().ends_with(&here));
        let mut holder = Holder::ours().unwrap();
        let realm = holder.realm.as_mut().unwrap();
        realm.pid += 1;
        realm.host = "there".to_owned();
        std::fs::write(&path, serde_json::to_vec(&holder).unwrap()).unwrap();
        let elsewhere = format!("pid {pid} in another pid namespace, on host `there`");
        assert_eq!(who(&path), Some(elsewhere));
        assert_eq!(is_ours(&path), Some(false));
    }
}
