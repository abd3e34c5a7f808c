//! Where the process backend keeps its files. Shared by every command and by the supervisor; names
//! paths and makes directories, reads nothing.
//!
//! ```text
//! STATE/projects/PROJECT/            mode 0700
//!     project.lock                   held by the one command that changes the project
//!     start.lock                     held while a supervisor is being started
//!     supervisor.lock                held by the supervisor for its whole life
//!     supervisor.json                who it is and where it listens
//!     supervisor.log                 what it had to say
//!     choices.json                   where services run because a command line said so
//!     traces                         something of the project was made in an engine
//!     unswept                        there may be runs that no entry names
//!     pending/REQUEST                what an engine was asked for and has not answered yet
//!     instances/NAME/instance.json   the ledger entry
//!     instances/NAME/journal         commands in it and the like, for `events`
//!     instances/NAME/over.RUN        that run has ended for good, and the entry could not say so
//!     instances/NAME/run             what the keeper of the present run notes about it
//!     instances/NAME/keeper.lock     held by that keeper for its whole life
//!     instances/NAME/stdin.fifo      what an attached command types, where the service reads it
//!     instances/NAME/std{out,err}.fifo
//!     instances/NAME/std{out,err}.log, log.index, and std{out,err}.N.log, log.N.index after rotations
//!     instances/NAME/secrets, configs
//!     instances/NAME/hosts           what it sees as /etc/hosts
//!     relays/SERVICE/socket          where the relay of a service meets the forwarder
//!     names.sock                     where commands meet the forwarder
//! RUNTIME/PROJECT.sock               where they meet the supervisor; mode 0600
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use sha2::{Digest, Sha256};

use super::foreign;
use super::refusal::Refusal;
use super::run::wall_clock;
use super::trust;
use super::unusable::{ELSEWHERE, WITHOUT_RUNTIME, elsewhere, is_unfit, otherwise};
use crate::backend::BackendError;
use crate::project::Env;
use crate::users;

/// The longest project name that becomes a socket's name as it is: an address holds 107 bytes, with a
/// directory's descriptor in front.
const LONGEST_SOCKET_NAME: usize = 64;

/// The two roots: what must survive a reboot, and what must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    state: PathBuf,
    runtime: PathBuf,
}

impl Dirs {
    /// `$XDG_STATE_HOME/wharf` and `$XDG_RUNTIME_DIR/wharf` (XDG Base Directory Specification 0.8;
    /// relative values are ignored as it demands, and runtime directories of others). Without them `~/.local/state/wharf`, and `run` in it: also
    /// where the runtime directory has gone, as it does with the last login of a user whose programs go on.
    ///
    /// Fails when neither `XDG_STATE_HOME` nor `HOME` says where to put the state, and this user has no home either.
    pub fn from_env(env: &Env) -> Result<Self, BackendError> {
        let absolute = |name: &str| {
            env.get(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let state = absolute("XDG_STATE_HOME")
            .or_else(|| home(env).map(|home| home.join(".local/state")))
            .ok_or_else(|| BackendError::State {
                action: "cannot tell where to keep the state of local processes".to_owned(),
                source: Refusal {
                    errno: None,
                    message: "neither XDG_STATE_HOME nor HOME is set to an absolute path"
                        .to_owned(),
                    hint: ELSEWHERE.to_owned(),
                }
                .into(),
            })?
            .join("wharf");
        let state = foreign::home_of_root(env, &state)
            .map_or(state, |home| home.join(".local/state/wharf"));
        let runtime = absolute("XDG_RUNTIME_DIR")
            .filter(|run| foreign::is_ours(run))
            .map_or_else(|| state.join("run"), |run| run.join("wharf"));
        Ok(Self { state, runtime })
    }

    /// Two roots chosen by the caller; both absolute.
    pub fn new(state: PathBuf, runtime: PathBuf) -> Self {
        Self { state, runtime }
    }

    /// The root of the state.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The root of the sockets.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The directory that has one entry for each project.
    pub(super) fn projects(&self) -> PathBuf {
        self.state.join("projects")
    }

    /// The files of one project. A name that is not a plain file name is refused.
    pub fn project(&self, name: &str) -> Result<ProjectDir, BackendError> {
        plain(name)?;
        Ok(ProjectDir {
            root: self.projects().join(name),
            runtime: self.runtime.clone(),
            name: name.to_owned(),
        })
    }
}

/// The home directory; of the user where nothing says another one, as in a unit of the system's.
fn home(env: &Env) -> Option<PathBuf> {
    let home = match env.get("HOME").filter(|home| !home.is_empty()) {
        Some(home) => PathBuf::from(home),
        None => users::user_with_id(Uid::effective())?.dir,
    };
    home.is_absolute().then_some(home)
}

/// The files of one project.
#[derive(Clone, Debug)]
pub struct ProjectDir {
    root: PathBuf,
    runtime: PathBuf,
    name: String,
}

impl ProjectDir {
    /// The project's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the directories that are missing, for this user alone. Among the files of another user root makes none, and
    /// needs none where that user has them.
    pub fn create(&self) -> Result<(), BackendError> {
        let path = self.instances();
        if self.is_of_another_user() {
            return if path.is_dir() {
                Ok(())
            } else {
                self.check_owner("make a project")
            };
        }
        private_dir(&path).map_err(|source| {
            // To have it given back is told where the error is.
            let is_closed = foreign::is_of_another(&self.root);
            let source = if is_closed { source } else { elsewhere(source) };
            failed("create", &path, source)
        })?;
        self.create_runtime()
    }

    /// That this user's files may be made there, to do what `action` says.
    ///
    /// # Errors
    /// We are root, and they are another user's.
    pub(super) fn check_owner(&self, action: &str) -> Result<(), BackendError> {
        foreign::check(&self.root, action)
    }

    /// Whether we are root, and they are another user's.
    pub(super) fn is_of_another_user(&self) -> bool {
        foreign::owner(&self.root).is_some()
    }

    /// Whether they are there, whosever they are.
    pub(super) fn is_made(&self) -> bool {
        self.instances().is_dir() && self.runtime.is_dir()
    }

    /// The part of it that is not kept over a reboot, alone.
    pub(super) fn create_runtime(&self) -> Result<(), BackendError> {
        let path = &self.runtime;
        private_dir(path).map_err(|source| self.runtime_failed("create", path, source))?;
        trust::check_directory(path, &self.root, self.other_runtime())
            .map_err(|source| failed("use", path, source))
    }

    /// A failure in the directory of the sockets, with what to do where it is for good.
    pub fn runtime_failed(&self, verb: &str, path: &Path, source: io::Error) -> BackendError {
        BackendError::State {
            action: format!("cannot {verb} {}", path.display()),
            source: otherwise(source, self.other_runtime()),
        }
    }

    /// What to do where that directory cannot be used.
    fn other_runtime(&self) -> &'static str {
        let is_beside_the_state = self
            .root
            .ancestors()
            .nth(2)
            .is_some_and(|state| self.runtime.starts_with(state));
        if is_beside_the_state {
            ELSEWHERE
        } else {
            WITHOUT_RUNTIME
        }
    }

    /// Held by a command that changes the project, where the state directory cannot be written to.
    pub(super) fn spare_lock(&self) -> PathBuf {
        self.runtime.join("command.lock")
    }

    /// What stands for this directory in the names of things that are elsewhere.
    pub fn tag(&self) -> String {
        tag(&self.root)
    }

    /// Whether anything was ever kept for the project.
    pub fn exists(&self) -> bool {
        self.root.is_dir()
    }

    /// One entry for each instance.
    pub fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// The files of one instance. A name that is not a plain file name is refused.
    pub fn instance(&self, name: &str) -> Result<InstanceDir, BackendError> {
        plain(name)?;
        Ok(InstanceDir(self.instances().join(name)))
    }

    /// Where services run because a command line said so.
    pub fn choices(&self) -> PathBuf {
        self.root.join("choices.json")
    }

    /// There when something of the project was made in an engine.
    pub fn traces(&self) -> PathBuf {
        self.root.join("traces")
    }

    /// There when there may be runs that no entry names.
    pub fn unswept(&self) -> PathBuf {
        self.root.join("unswept")
    }

    /// A file for each request to an engine that has no answer yet.
    pub fn pending(&self) -> PathBuf {
        self.root.join("pending")
    }

    /// Makes the directory of these, for this user alone.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create_pending(&self) -> io::Result<()> {
        private_dir(&self.pending())
    }

    /// Locked by the one command that changes the project.
    pub fn command_lock(&self) -> PathBuf {
        self.root.join("project.lock")
    }

    /// Locked while a supervisor is being started.
    pub fn start_lock(&self) -> PathBuf {
        self.root.join("start.lock")
    }

    /// Locked by the supervisor as long as it lives.
    pub fn supervisor_lock(&self) -> PathBuf {
        self.root.join("supervisor.lock")
    }

    /// Who the supervisor is and where it listens.
    pub fn supervisor_card(&self) -> PathBuf {
        self.root.join("supervisor.json")
    }

    /// What the supervisor had to say.
    pub fn supervisor_log(&self) -> PathBuf {
        self.root.join("supervisor.log")
    }

    /// Where the supervisor will listen. A name too long for a socket's address (`unix(7)`) is cut, and
    /// told apart by its hash.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join(format!("{}.sock", self.short_name()))
    }

    /// Where the forwarder will listen: beside the ledger, so that it is found as long as that is, whatever
    /// becomes of the runtime directory.
    pub fn names_socket(&self) -> PathBuf {
        self.root.join("names.sock")
    }

    /// One entry for each relay.
    pub fn relays(&self) -> PathBuf {
        self.root.join("relays")
    }

    /// What is mounted into the relay of a service. A name that is not a plain file name is refused.
    pub fn relay(&self, service: &str) -> Result<PathBuf, BackendError> {
        plain(service)?;
        Ok(self.relays().join(service))
    }

    fn short_name(&self) -> String {
        let name = &self.name;
        if name.len() <= LONGEST_SOCKET_NAME {
            name.clone()
        } else {
            let kept: String = name.chars().take(32).collect();
            format!("{kept}-{}", tag(Path::new(name)))
        }
    }
}

/// Sixteen digits that stand for a path.
fn tag(path: &Path) -> String {
    let hash = Sha256::digest(path.as_os_str().as_bytes());
    let hash = hash
        .iter()
        .take(8)
        .fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    format!("{hash:016x}")
}

/// What the directories of instances that are being removed are called first.
const REMOVED: &str = ".removed-";

fn removed(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The files of one instance.
#[derive(Clone, Debug)]
pub struct InstanceDir(PathBuf);

impl InstanceDir {
    /// That of its project.
    pub fn tag(&self) -> String {
        let root = self.0.parent().and_then(Path::parent);
        tag(root.unwrap_or(&self.0))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, for this user alone.
    pub fn create(&self) -> Result<(), BackendError> {
        private_dir(&self.0).map_err(|source| failed("create", &self.0, source))
    }

    /// Removes it with all that is in it. Whoever looks finds it whole or not at all, also when this is killed
    /// half-way: the next removal in the project takes what is left.
    pub fn remove(&self) -> Result<(), BackendError> {
        let cannot = |error| failed("remove", &self.0, error);
        let (Some(parent), Some(name)) = (self.0.parent(), self.0.file_name()) else {
            return Err(cannot(io::ErrorKind::InvalidInput.into()));
        };
        // No instance's name begins with a full stop.
        let aside = format!("{REMOVED}{}-{}", wall_clock(), name.to_string_lossy());
        let aside = parent.join(aside);
        match fs::rename(&self.0, &aside) {
            Ok(()) => removed(&aside).map_err(cannot)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(cannot(error)),
        }
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(REMOVED) {
                // Another one may be at it, too.
                drop(removed(&entry.path()));
            }
        }
        Ok(())
    }

    /// What happened beside it.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// There when a run has ended for good and the entry could not say so.
    pub fn over(&self, run_id: &str) -> PathBuf {
        self.0.join(format!("over.{run_id}"))
    }

    /// The ledger entry.
    pub fn record(&self) -> PathBuf {
        self.0.join("instance.json")
    }

    /// Arrival times of the output in a segment of the log; the first is 0.
    pub fn index(&self, segment: u64) -> PathBuf {
        self.0.join(match segment {
            0 => "log.index".to_owned(),
            _ => format!("log.{segment}.index"),
        })
    }

    /// The output of one stream in a segment of the log.
    pub fn log(&self, stream: crate::event::Stream, segment: u64) -> PathBuf {
        let word = word(stream);
        self.0.join(match segment {
            0 => format!("{word}.log"),
            _ => format!("{word}.{segment}.log"),
        })
    }

    /// The segments of the log that there are, ascending.
    pub fn segments(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some(middle) = name
                .to_str()
                .and_then(|name| name.strip_prefix("log."))
                .and_then(|name| name.strip_suffix("index"))
            else {
                continue;
            };
            let number = match middle.strip_suffix('.') {
                Some(number) => number.parse().ok(),
                None => middle.is_empty().then_some(0),
            };
            found.extend(number);
        }
        found.sort_unstable();
        Ok(found)
    }

    /// What the keeper of the present run notes about it.
    pub fn notes(&self) -> PathBuf {
        self.0.join("run")
    }

    /// Locked by the keeper as long as it lives.
    pub fn keeper_lock(&self) -> PathBuf {
        self.0.join("keeper.lock")
    }

    /// The named pipe that the process reads its standard input from, if the service has
    /// `stdin_open`. Whoever attaches writes to it.
    pub fn stdin(&self) -> PathBuf {
        self.0.join("stdin.fifo")
    }

    /// What it sees as `/etc/hosts`.
    pub fn hosts(&self) -> PathBuf {
        self.0.join("hosts")
    }

    /// The directory of the service's secrets or configs.
    pub fn store(&self, kind: &str) -> PathBuf {
        self.0.join(kind)
    }

    /// The named pipe that the process writes one stream to.
    pub fn fifo(&self, stream: crate::event::Stream) -> PathBuf {
        self.0.join(format!("{}.fifo", word(stream)))
    }
}

fn word(stream: crate::event::Stream) -> &'static str {
    match stream {
        crate::event::Stream::Stdout => "stdout",
        crate::event::Stream::Stderr => "stderr",
    }
}

/// Makes a directory, and what is missing above it, for this user alone.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A failure of the state directory, `cannot VERB PATH`.
pub(crate) fn failed(verb: &str, path: &Path, source: io::Error) -> BackendError {
    let is_for_good = is_unfit(&source) || source.kind() == io::ErrorKind::NotADirectory;
    let source = if is_for_good {
        elsewhere(source)
    } else {
        source
    };
    BackendError::State {
        action: format!("cannot {verb} {}", path.display()),
        source,
    }
}

/// Names become directories; nothing may lead out of the state directory.
fn plain(name: &str) -> Result<(), BackendError> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(BackendError::Unsupported(format!(
            "`{name}` cannot name a project or an instance of local processes"
        )));
    }
    Ok(())
}

/// An instance's directory to try things in, which goes with the first value.
#[cfg(test)]
pub(crate) fn place() -> (tempfile::TempDir, InstanceDir) {
    let root = tempfile::tempdir().unwrap();
    let dirs = Dirs::new(root.path().join("s"), root.path().join("r"));
    let dir = dirs.project("p").unwrap().instance("p-web-1").unwrap();
    dir.create().unwrap();
    (root, dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env {
            variables: pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            current_dir: PathBuf::from("/"),
        }
    }

    #[test]
    fn xdg_directories_win_over_home() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().display().to_string();
        let dirs = || {
            Dirs::from_env(&env(&[
                ("HOME", "/home/a"),
                ("XDG_STATE_HOME", "/s"),
                ("XDG_RUNTIME_DIR", &run),
            ]))
            .unwrap()
        };
        let there = root.path().join("wharf");
        assert_eq!(dirs(), Dirs::new("/s/wharf".into(), there));
        // As after the last login of a user whose programs go on.
        fs::remove_dir(root.path()).unwrap();
        assert_eq!(dirs(), Dirs::new("/s/wharf".into(), "/s/wharf/run".into()));
    }

    #[test]
    fn relative_values_are_ignored() {
        let dirs = Dirs::from_env(&env(&[
            ("HOME", "/home/a"),
            ("XDG_STATE_HOME", "s"),
            ("XDG_RUNTIME_DIR", "r"),
        ]))
        .unwrap();
        assert_eq!(dirs.state(), Path::new("/home/a/.local/state/wharf"));
        assert_eq!(dirs.runtime(), Path::new("/home/a/.local/state/wharf/run"));
    }

    #[test]
    fn where_nothing_says_a_home_it_is_the_users() {
        let home = users::user_with_id(Uid::effective()).map(|user| user.dir);
        let expected = home.map(|home| home.join(".local/state/wharf"));
        for variables in [&[][..], &[("HOME", "")]] {
            let dirs = Dirs::from_env(&env(variables)).ok();
            assert_eq!(dirs.map(|dirs| dirs.state), expected);
        }
    }

    #[test]
    fn a_home_that_is_no_directory_is_an_error() {
        assert!(Dirs::from_env(&env(&[("HOME", "here")])).is_err());
    }

    #[test]
    fn a_long_project_name_has_a_socket_that_can_be_bound() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path().join("s"), root.path().to_owned());
        let socket = |name: &str| dirs.project(name).unwrap().socket();
        let (one, other) = ("x".repeat(200), format!("{}y", "x".repeat(199)));
        assert_ne!(socket(&one), socket(&other));
        for name in [&one, &other] {
            let path = socket(name);
            let bound = super::super::socket::reach(&path, std::os::unix::net::UnixListener::bind);
            assert!(bound.is_ok(), "{}", path.display());
        }
        assert_eq!(socket("web"), root.path().join("web.sock"));
    }

    #[test]
    fn names_cannot_lead_out_of_the_state_directory() {
        let dirs = Dirs::new("/s".into(), "/r".into());
        for name in ["", ".", "..", "../x", "a/b", ".hidden"] {
            assert!(dirs.project(name).is_err(), "{name:?}");
        }
        let project = dirs.project("p").unwrap();
        assert!(project.instance("../q").is_err());
        assert!(project.instance("p-web-1").is_ok());
    }
}
