//! What a command fails with: a kind (which is the exit code), a cause, and hints that can be pasted.
//!
//! The modules keep their own error types; here, at the boundary, it is decided what each means for
//! the person and for the script that called.

mod answer;

pub use answer::Answer;

use std::error::Error as StdError;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;

use rustix::io::Errno;

use crate::backend::BackendError;
use crate::backend::process::Unrecorded;
use crate::backend::process::refusal::Refusal;
use crate::backend::process::remains;
use crate::backend::process::unusable::more_files;
use crate::plan::placement::PlacementError;
use crate::port::PortError;
use crate::port::claim::Protocol;
use crate::project::diagnostic::Diagnostic;
use crate::project::{LoadError, LoadErrorKind};

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A step or service failed: 1.
    Failed,
    /// The command line is wrong: 2.
    Usage,
    /// The compose file is invalid: 3.
    Invalid,
    /// The engine is unreachable: 4.
    Engine,
    /// A question needs an answer: 5.
    Question,
    /// A bug in wharf: 70 (`EX_SOFTWARE`, `sysexits.h`).
    Bug,
    /// Interrupted by the user: 130.
    Interrupted,
    /// The exit code of a service.
    Service(u8),
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Invalid => 3,
            Self::Engine => 4,
            Self::Question => 5,
            Self::Bug => 70,
            Self::Interrupted => 130,
            Self::Service(code) => code,
        }
    }
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> Self {
        Self::from(kind.code())
    }
}

/// Why a command failed, ready to be reported.
#[derive(Debug)]
pub struct Error {
    /// What it means for the caller.
    pub kind: Kind,
    /// What happened; its sources are the causes.
    pub source: Box<dyn StdError + Send + Sync>,
    /// More to show, a line each: a service's last words, what was done and what was not.
    pub details: Vec<String>,
    /// What to do; each can be pasted or starts with a verb.
    pub hints: Vec<String>,
    /// Flags that would do.
    pub answers: Vec<Answer>,
    /// Findings with places, where the compose file is at fault.
    pub diagnostics: Vec<Diagnostic>,
}

/// The usual result of a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind.
    pub fn new(kind: Kind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            source: source.into(),
            details: Vec::new(),
            hints: Vec::new(),
            answers: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    /// A step or service failed.
    pub fn failed(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::Failed, source)
    }

    /// The command line is wrong.
    pub fn usage(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::Usage, source)
    }

    /// The user interrupted. Nothing is reported.
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// A service's exit code is the command's. Nothing is reported.
    pub fn service(code: i32) -> Self {
        Self::new(
            Kind::Service(u8::try_from(code).unwrap_or(1)),
            "a service ended",
        )
    }

    /// With advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// With one more line.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }

    /// What to do, a line each: flags first.
    pub fn advice(&self) -> Vec<String> {
        let answers = self.answers.iter().map(Answer::to_string);
        answers.chain(self.hints.iter().cloned()).collect()
    }

    /// The same for a command that has not got these flags: `command` has them.
    #[must_use]
    pub fn answered_by(mut self, command: &str) -> Self {
        for answer in &mut self.answers {
            answer.command = Some(command.to_owned());
        }
        self
    }

    /// Whether there is nothing to say: the exit code is all.
    pub fn is_silent(&self) -> bool {
        matches!(self.kind, Kind::Interrupted | Kind::Service(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.source()
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        let kind = match error.kind {
            LoadErrorKind::Invalid => Kind::Invalid,
            LoadErrorKind::NotFound | LoadErrorKind::Unreadable => Kind::Failed,
            LoadErrorKind::Usage => Kind::Usage,
        };
        let diagnostics = error.diagnostics.clone();
        Self {
            diagnostics,
            ..Self::new(kind, error)
        }
    }
}

impl From<PlacementError> for Error {
    fn from(error: PlacementError) -> Self {
        let (kind, hint) = match &error {
            PlacementError::NeedEngine {
                could_be_local: true,
                ..
            } => (
                Kind::Engine,
                "start the engine, or leave --container out: then they run as processes".to_owned(),
            ),
            PlacementError::NeedEngine { services, .. } => (
                Kind::Engine,
                format!(
                    "start the engine, or give `{}` an `x-wharf.process.command` to run it as a process",
                    services.join("`, `")
                ),
            ),
            PlacementError::NoProcessForm(name) => (
                Kind::Usage,
                format!("add `x-wharf: {{process: {{command: [...]}}}}` to service `{name}`"),
            ),
            PlacementError::NoContainerForm(name) => (
                Kind::Usage,
                format!("add `image:` or `build:` to service `{name}`"),
            ),
            PlacementError::Provided { name, .. } => (
                Kind::Usage,
                format!("leave `{name}` out of it, or take `provider:` out of the service"),
            ),
            PlacementError::Both(_) => (Kind::Usage, "name it once".to_owned()),
            PlacementError::Unknown(_) => (Kind::Usage, "wharf config --services".to_owned()),
        };
        Self::new(kind, error).hint(hint)
    }
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        let mut kind = Kind::Failed;
        let mut hints = Vec::new();
        let mut details = Vec::new();
        match &error {
            BackendError::EngineUnreachable { .. } => {
                kind = Kind::Engine;
                let closed = error.closed_socket();
                hints.push(closed.map_or_else(|| "docker info".to_owned(), |it| it.opened_by()));
            }
            BackendError::NoContext { .. } => {
                kind = Kind::Engine;
                hints.push("docker context ls".to_owned());
            }
            BackendError::Registry {
                registry, source, ..
            } => hints.extend(login(registry, &source.to_string())),
            BackendError::Build {
                message,
                last_lines,
                ..
            } => {
                details.extend(last_lines.iter().cloned());
                details.push(message.clone());
            }
            BackendError::Hook {
                what,
                service,
                last_lines,
                ..
            } => {
                if let Some(service) = service.as_ref().filter(|_| what == "pre_stop") {
                    hints.push(format!("wharf kill {service}   # ends it without the hook"));
                }
                details = last_words(last_lines);
            }
            BackendError::ExitedEarly { last_lines, .. }
            | BackendError::NotReady { last_lines, .. } => details = last_words(last_lines),
            BackendError::Provider { last_lines, .. } if !last_lines.is_empty() => {
                details = last_words(last_lines);
            }
            BackendError::NoProvider { kind, .. } => hints.push(if kind == "compose" {
                "`compose` is no provider; name the program in `provider.type`".to_owned()
            } else {
                format!("put `{kind}` on PATH, or install the Docker client's plugin docker-{kind}")
            }),
            BackendError::PortLost {
                source, last_lines, ..
            } => {
                hints = port_error(source, String::new()).hints;
                details = last_words(last_lines);
            }
            BackendError::PortForbidden {
                port, last_lines, ..
            } => {
                hints.push(format!(
                    "sudo sysctl -w net.ipv4.ip_unprivileged_port_start={port}   # or publish another port"
                ));
                details = last_words(last_lines);
            }
            BackendError::Command { source, .. } | BackendError::HookCommand { source, .. } => {
                hints.extend(Refusal::within(source).map(|refusal| refusal.hint.clone()));
            }
            BackendError::PortTaken { .. } => {
                hints.push("`wharf up` names the holder and asks what to do".to_owned());
            }
            BackendError::Port(port) => return port_error(port, error.to_string()),
            BackendError::Unkillable { left, .. } => hints.extend(remains::after_kill(left)),
            BackendError::Damaged { path, alive, .. } => {
                let aside = set_aside(&path.to_string_lossy());
                hints.push(match alive {
                    Some(Unrecorded::Keeper(pid)) => format!(
                        "pkill -P {pid}; {aside}   # ends what is left of its run and sets it aside; `up` makes the \
                         instance anew"
                    ),
                    Some(Unrecorded::Main(pid)) => format!(
                        "kill {pid}; {aside}   # ends its process and sets it aside; `up` makes the instance anew"
                    ),
                    Some(Unrecorded::Elsewhere) => ENDED_THERE.to_owned(),
                    None => format!("{aside}   # sets it aside; `up` makes the instance anew"),
                });
            }
            BackendError::Unrecorded { alive, .. } => hints.push(match alive {
                Unrecorded::Main(pid) => format!("kill {pid}   # ends it"),
                Unrecorded::Keeper(pid) => format!("pkill -P {pid}   # ends what is left of it"),
                Unrecorded::Elsewhere => ENDED_THERE.to_owned(),
            }),
            BackendError::Elsewhere {
                project,
                host,
                inside,
                ..
            } => hints.push(way_there(project, host.as_deref(), *inside)),
            BackendError::Remains { left, group, .. } => {
                hints.extend(remains::before_start(left, group.as_deref()));
            }
            BackendError::State { action, source } => {
                if source.kind() == std::io::ErrorKind::InvalidData
                    && let Some(path) = action.strip_prefix("cannot read ")
                {
                    hints.push(format!("{}   # sets it aside", set_aside(path)));
                }
                if source.kind() == std::io::ErrorKind::IsADirectory
                    && Refusal::within(source).is_none()
                    && let Some((_, path)) = action.split_once(" /")
                {
                    let aside = set_aside(&format!("/{path}"));
                    hints.push(format!("{aside}   # sets it aside: it is to be a file"));
                }
                hints.extend(Refusal::within(source).map(|refusal| refusal.hint.clone()));
                if source.raw_os_error() == Some(Errno::MFILE.raw_os_error()) {
                    hints.push(more_files().to_owned());
                }
                if is_full(source) {
                    hints.push(room(action, &source.to_string()));
                }
                if source.kind() == std::io::ErrorKind::PermissionDenied
                    && hints.is_empty()
                    && let Some(place) = project_state(action)
                {
                    hints.push(format!(
                        "chmod -R u+rwX {place}   # if it is yours, else: sudo chown -R \"$(id -u)\" {place}"
                    ));
                }
                if error.is_read_only() && hints.is_empty() {
                    hints.push(
                        "export XDG_STATE_HOME=DIR   # a directory that can be written to"
                            .to_owned(),
                    );
                }
            }
            BackendError::NameTaken {
                name,
                owner,
                runs,
                is_chosen,
                ..
            } => {
                let of = owner.as_ref().map_or_else(
                    || "a container of no project".to_owned(),
                    |(project, service)| format!("service {service} of project {project}"),
                );
                let state = if *runs { "runs" } else { "does not run" };
                details.push(format!("{name} is {of}, and {state}"));
                let mut hint = match owner {
                    Some((project, service)) => format!("wharf -p {project} rm -sf {service}"),
                    None if *runs => format!("docker rm -f {name}"),
                    None => format!("docker rm {name}"),
                };
                hint.push_str("   # if nobody needs it");
                if *is_chosen {
                    hint.push_str("; or give the service another `container_name`");
                }
                hints.push(hint);
            }
            BackendError::ApiTooNew { .. } => hints.push("unset DOCKER_API_VERSION".to_owned()),
            BackendError::Engine { .. }
            | BackendError::Stuck { .. }
            | BackendError::Vanished { .. }
            | BackendError::Provider { .. }
            | BackendError::AnsweredByOther { .. }
            | BackendError::Unsupported(_) => {}
        }
        if is_engine_full(&error) {
            hints.push("docker system df; docker system prune frees what nothing uses".to_owned());
        }
        Self {
            details,
            hints,
            ..Self::new(kind, error)
        }
    }
}

/// Whether the engine has no room on its disk.
fn is_engine_full(error: &BackendError) -> bool {
    const WORDS: &str = "no space left on device";
    if let BackendError::Build { message, .. } = error {
        return message.contains(WORDS);
    }
    let (BackendError::Engine { source, .. } | BackendError::Registry { source, .. }) = error
    else {
        return false;
    };
    source.to_string().contains(WORDS)
}

impl From<PortError> for Error {
    fn from(error: PortError) -> Self {
        let message = error.to_string();
        let mut converted = port_error(&error, message);
        converted.source = Box::new(error);
        converted
    }
}

/// What to do about a registry that wants to know who asks.
fn login(registry: &str, message: &str) -> Option<String> {
    let asks = [
        "no basic auth credentials",
        "unauthorized",
        "authentication required",
        "access to the resource is denied",
        "requested access",
    ];
    let asks = asks.iter().any(|words| message.contains(words));
    asks.then(|| match registry {
        "docker.io" => "docker login".to_owned(),
        other => format!("docker login {other}"),
    })
}

/// What to do about a process whose pid is not known here.
const ENDED_THERE: &str = "its process runs in another pid namespace: run wharf where the project was started, in the same \
     container or outside of this one";

/// How to get to where a project runs.
fn way_there(project: &str, host: Option<&str>, inside: Option<u32>) -> String {
    let project = shell_words::quote(project);
    let host = host.map(shell_words::quote);
    match (inside, host) {
        (Some(pid), _) => format!(
            "nsenter --target {pid} --pid --time --mount wharf -p {project} ps   # runs wharf there; `stop` and the \
             like in the same way"
        ),
        (None, Some(host)) => format!(
            "docker exec {host} wharf -p {project} ps   # if that is a container; else run wharf where the project was \
             started"
        ),
        (None, None) => {
            "run wharf where the project was started: in the same container, or outside of this one"
                .to_owned()
        }
    }
}

/// How to set a file aside.
fn set_aside(path: &str) -> String {
    let quoted = shell_words::quote(path);
    let aside = format!("{path}.damaged");
    format!("mv {quoted} {}", shell_words::quote(&aside))
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// How to see what is full: the file system of the path that an error names, and its inodes where these are used up.
fn room(action: &str, cause: &str) -> String {
    let named = |text: &str| {
        let path = text.get(text.find(" /")? + 1..)?;
        let path = path.split_once(": ").map_or(path, |(path, _)| path);
        let there = Path::new(path).ancestors().find(|it| it.is_dir())?;
        Some(there.to_owned())
    };
    let place = named(action).or_else(|| named(cause));
    let found = place.as_ref().and_then(|it| rustix::fs::statvfs(it).ok());
    // Some file systems count none.
    let without_files =
        found.is_some_and(|it| it.f_files > 0 && it.f_favail == 0 && it.f_bavail > 0);
    let place = place.unwrap_or_else(|| ".".into());
    let place = place.to_string_lossy();
    let place = shell_words::quote(&place);
    if without_files {
        format!("df -i {place}   # too many files: remove some there")
    } else {
        format!("df -h {place}   # what is full: make room there")
    }
}

/// Where the state of projects is, below `$XDG_STATE_HOME`.
const STATE_OF_PROJECTS: &str = "/wharf/projects";

/// The state of the project that an action on one of its files was about (`cannot write /x/y`); more of the state where
/// somebody else has that.
fn project_state(action: &str) -> Option<String> {
    let path = action.get(action.find(" /")? + 1..)?;
    // Directories above it may be called `projects`, too, and are not wharf's to be given away.
    let (before, after) = path.rsplit_once(STATE_OF_PROJECTS)?;
    let state = Path::new(before).join("wharf");
    let own = state.join("projects");
    let name = after
        .strip_prefix('/')
        .and_then(|after| after.split('/').next());
    let project = name.map(|name| own.join(name));
    let me = nix::unistd::geteuid().as_raw();
    let is_foreign = |path: &Path| std::fs::metadata(path).is_ok_and(|facts| facts.uid() != me);
    let mut whole = [&state, &own].into_iter();
    let place = whole.find(|path| is_foreign(path)).cloned();
    let place = place.or(project)?;
    Some(shell_words::quote(&place.to_string_lossy()).into_owned())
}

fn last_words(lines: &[String]) -> Vec<String> {
    if lines.is_empty() {
        return vec!["it wrote nothing".to_owned()];
    }
    let heading = std::iter::once("its last lines:".to_owned());
    heading
        .chain(lines.iter().map(|line| format!("  {line}")))
        .collect()
}

fn port_error(error: &PortError, message: String) -> Error {
    let converted = if matches!(error, PortError::Outrun { .. }) {
        // As where the other one had been faster by a second.
        Error::new(Kind::Question, message)
    } else {
        Error::failed(message)
    };
    match error {
        PortError::Outrun { first, .. } => Error {
            answers: vec![Answer::moving("publishes on another port instead")],
            ..converted.hint(format!(
                "wharf -p {} stop {}",
                shell_words::quote(&first.project),
                shell_words::quote(&first.service)
            ))
        },
        PortError::NotPermitted { command, .. }
        | PortError::UnitRefused { command, .. }
        | PortError::StillStopping { command, .. }
        | PortError::NoServiceManager {
            command: Some(command),
            ..
        } => converted.hint(command.clone()),
        PortError::TakenAgain {
            hint: Some(hint), ..
        } => converted.hint(hint.clone()),
        PortError::TakenAgain { claim, .. } | PortError::NotFree { claim, .. } => {
            // Said by `up` and by `free`: what either of them could be followed by.
            let udp = match claim.protocol {
                Protocol::Tcp => "",
                Protocol::Udp => "/udp",
            };
            converted.hint(format!(
                "see who has it: wharf who {}{udp}; to publish a service elsewhere: wharf up --on-conflict move",
                claim.port
            ))
        }
        PortError::Lookup(source) => converted.detail(source.to_string()),
        PortError::Unkillable { .. }
        | PortError::Protected { .. }
        | PortError::NoServiceManager { command: None, .. } => converted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_of_the_engine_has_a_hint() {
        let hints = |why: &str| {
            let error = BackendError::Engine {
                action: "create p-a-1".to_owned(),
                source: why.to_owned().into(),
            };
            Error::from(error).hints
        };
        let full = "mkdir /var/lib/docker/overlay2/1: no space left on device";
        assert!(hints(full)[0].starts_with("docker system df"));
        assert!(hints("no such image").is_empty());
    }

    #[test]
    fn a_hint_for_a_taken_name_works_as_it_stands() {
        let hint = |owner: Option<(&str, &str)>, runs, is_chosen| {
            let owned = |(project, service): (&str, &str)| (project.to_owned(), service.to_owned());
            let error = Error::from(BackendError::NameTaken {
                name: "db".to_owned(),
                owner: owner.map(owned),
                runs,
                is_chosen,
                source: "Conflict".into(),
            });
            error.hints.join("")
        };
        assert_eq!(
            hint(None, true, false),
            "docker rm -f db   # if nobody needs it"
        );
        assert!(hint(None, false, true).starts_with("docker rm db "));
        assert!(hint(None, false, true).ends_with("another `container_name`"));
        let of_project = hint(Some(("p", "a")), true, false);
        assert!(of_project.starts_with("wharf -p p rm -sf a "));
    }

    #[test]
    fn a_state_directory_that_takes_no_writing_has_a_hint() {
        let error = |kind: std::io::ErrorKind| BackendError::State {
            action: "cannot create /s".to_owned(),
            source: kind.into(),
        };
        let read_only = error(std::io::ErrorKind::ReadOnlyFilesystem);
        assert!(Error::from(read_only).hints[0].contains("XDG_STATE_HOME"));
        assert!(
            Error::from(error(std::io::ErrorKind::NotADirectory))
                .hints
                .is_empty()
        );
    }

    #[test]
    fn only_files_of_wharf_s_are_to_be_given_back() {
        let state = "/usr/projects/u/.local/state/wharf/projects/p";
        let named = project_state(&format!("cannot write {state}/instances/p-a-1/record"));
        assert_eq!(named.as_deref(), Some(state));
        assert_eq!(project_state("cannot write /projects/p/x"), None);
    }

    #[test]
    fn a_verdict_at_once_names_no_time() {
        let told = |seconds| {
            let error = BackendError::NotReady {
                name: "p-a-1".to_owned(),
                seconds,
                last: "unhealthy".to_owned(),
                last_lines: Vec::new(),
            };
            error.to_string()
        };
        assert_eq!(told(0), "p-a-1 is not ready: unhealthy");
        assert_eq!(told(3), "p-a-1 is not ready after 3 s: unhealthy");
    }
}
