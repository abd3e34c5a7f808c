//! What commands and the supervisor say to each other: JSON, one message a line, over a unix socket that
//! only its owner can reach. The supervisor speaks first, then answers each request in turn. Pure data.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::realm::Realm;
use super::refusal::Refusal;
use super::run::{ProcessId, Survivor};
use crate::backend::BackendError;

/// The version of this protocol. A command that meets another one sends [`Request::Shutdown`], which every
/// version understands, and starts a supervisor of its own version in its place.
pub const PROTOCOL: u32 = 4;

/// The longest line either side accepts, in bytes.
pub const LONGEST: usize = 64 * 1024;

/// The supervisor's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// wharf's version.
    pub version: String,
}

/// Who the supervisor is: the content of `supervisor.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Card {
    /// Its process.
    pub process: ProcessId,
    /// Where it listens.
    pub socket: PathBuf,
    /// wharf's version.
    pub version: String,
    /// Where its process id means something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<Realm>,
}

/// What a command asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "request")]
pub enum Request {
    /// Start an instance that is in the ledger. One that is alive stays as it is.
    Start {
        /// Its name.
        instance: String,
        /// Its id before the request: if it has run since, the request was made before and its answer
        /// lost with the supervisor.
        before: Option<String>,
    },
    /// End an instance; answered when nothing is left of it.
    Stop {
        /// Its name.
        instance: String,
        /// Instead of its own grace period, in milliseconds.
        grace_ms: Option<u64>,
    },
    /// Send a signal to an instance: SIGKILL to all of it, any other to its main process.
    Kill {
        /// Its name.
        instance: String,
        /// The signal's number.
        signal: i32,
    },
    /// Freeze every process of an instance.
    Pause {
        /// Its name.
        instance: String,
    },
    /// Let a frozen instance go on.
    Unpause {
        /// Its name.
        instance: String,
    },
    /// Forget an instance that is not alive, and its output.
    Remove {
        /// Its name.
        instance: String,
    },
    /// Answer. The ledger is then no older than the request.
    Ping,
    /// End the supervisor; its instances live on.
    Shutdown,
}

/// What the supervisor answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "reply")]
pub enum Reply {
    /// Done.
    Done {
        /// The id of the instance's run, for [`Request::Start`].
        id: Option<String>,
        /// What the user should know.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
    /// Not done.
    Failed(Failure),
}

/// Why a request failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "failure")]
pub enum Failure {
    /// [`BackendError::Command`].
    Command {
        /// What was to be run.
        command: String,
        /// Where.
        working_dir: PathBuf,
        /// What the system said.
        cause: Cause,
    },
    /// [`BackendError::State`].
    State {
        /// What was tried.
        action: String,
        /// What the system said.
        cause: Cause,
    },
    /// [`BackendError::Unkillable`].
    Unkillable {
        /// What is left.
        left: Vec<Survivor>,
    },
    /// [`BackendError::Remains`].
    Remains {
        /// What is left.
        left: Vec<Survivor>,
        /// The control group that holds what cannot be seen.
        group: Option<PathBuf>,
    },
    /// [`BackendError::Unsupported`].
    Refused {
        /// Why.
        message: String,
    },
}

/// An `io::Error` on its way to another process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `errno(3)`, where the error came from a system call.
    pub errno: Option<i32>,
    /// In words.
    pub message: String,
    /// What to do about it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<&io::Error> for Cause {
    fn from(error: &io::Error) -> Self {
        Self {
            errno: Refusal::within(error).map_or(error.raw_os_error(), |refusal| refusal.errno),
            message: error.to_string(),
            hint: Refusal::within(error).map(|refusal| refusal.hint.clone()),
        }
    }
}

impl Cause {
    /// The error with the words of the cause, where these say more than its number.
    pub fn in_words(self) -> io::Error {
        match self.errno.filter(|_| self.hint.is_none()) {
            Some(errno) => io::Error::new(io::Error::from_raw_os_error(errno).kind(), self.message),
            None => self.into(),
        }
    }
}

impl From<Cause> for io::Error {
    fn from(cause: Cause) -> Self {
        if let Some(hint) = cause.hint {
            return Refusal {
                errno: cause.errno,
                message: cause.message,
                hint,
            }
            .into();
        }
        cause
            .errno
            .map_or_else(|| Self::other(cause.message), Self::from_raw_os_error)
    }
}

impl Failure {
    /// The error as the client's caller gets it.
    pub fn into_error(self, name: &str) -> BackendError {
        match self {
            Self::Command {
                command,
                working_dir,
                cause,
            } => BackendError::Command {
                command,
                working_dir,
                source: cause.into(),
            },
            Self::State { action, cause } => BackendError::State {
                action,
                source: cause.into(),
            },
            Self::Unkillable { left } => BackendError::Unkillable {
                name: name.to_owned(),
                left,
            },
            Self::Remains { left, group } => BackendError::Remains {
                name: name.to_owned(),
                left,
                group,
            },
            Self::Refused { message } => BackendError::Unsupported(message),
        }
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Command {
                command,
                working_dir,
                source,
            } => Self::Command {
                command,
                working_dir,
                cause: (&source).into(),
            },
            BackendError::State { action, source } => Self::State {
                action,
                cause: (&source).into(),
            },
            BackendError::Unkillable { left, .. } => Self::Unkillable { left },
            BackendError::Remains { left, group, .. } => Self::Remains { left, group },
            other @ (BackendError::EngineUnreachable { .. }
            | BackendError::NoContext { .. }
            | BackendError::Engine { .. }
            | BackendError::Stuck { .. }
            | BackendError::Vanished { .. }
            | BackendError::NameTaken { .. }
            | BackendError::Registry { .. }
            | BackendError::PortTaken { .. }
            | BackendError::Build { .. }
            | BackendError::ExitedEarly { .. }
            | BackendError::PortLost { .. }
            | BackendError::PortForbidden { .. }
            | BackendError::Hook { .. }
            | BackendError::HookCommand { .. }
            | BackendError::NotReady { .. }
            | BackendError::AnsweredByOther { .. }
            | BackendError::Port(_)
            | BackendError::Damaged { .. }
            | BackendError::Unrecorded { .. }
            | BackendError::Elsewhere { .. }
            | BackendError::Provider { .. }
            | BackendError::NoProvider { .. }
            | BackendError::ApiTooNew { .. }
            | BackendError::Unsupported(_)) => Self::Refused {
                message: other.to_string(),
            },
        }
    }
}

impl Reply {
    /// Done, with nothing to tell.
    pub fn done(id: Option<String>) -> Self {
        Self::Done {
            id,
            notes: Vec::new(),
        }
    }
}

impl From<Result<Option<String>, Failure>> for Reply {
    fn from(outcome: Result<Option<String>, Failure>) -> Self {
        match outcome {
            Ok(id) => Self::done(id),
            Err(failure) => Self::Failed(failure),
        }
    }
}

impl Request {
    /// The instance it is about.
    pub fn instance(&self) -> &str {
        match self {
            Self::Start { instance, .. }
            | Self::Stop { instance, .. }
            | Self::Kill { instance, .. }
            | Self::Pause { instance }
            | Self::Unpause { instance }
            | Self::Remove { instance } => instance,
            Self::Ping | Self::Shutdown => "",
        }
    }

    /// A stop.
    pub fn stop(instance: &str, grace: Option<Duration>) -> Self {
        Self::Stop {
            instance: instance.to_owned(),
            grace_ms: grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_plain_json() {
        assert_eq!(
            serde_json::to_string(&Request::Stop {
                instance: "p-web-1".into(),
                grace_ms: Some(50)
            })
            .unwrap(),
            r#"{"request":"stop","instance":"p-web-1","grace_ms":50}"#
        );
    }

    #[test]
    fn a_failure_keeps_the_systems_error_number() {
        let failure = Failure::from(BackendError::Command {
            command: "nope".into(),
            working_dir: "/".into(),
            source: io::Error::from_raw_os_error(2),
        });
        let text = serde_json::to_string(&failure).unwrap();
        let back: Failure = serde_json::from_str(&text).unwrap();
        let BackendError::Command { source, .. } = back.into_error("x") else {
            panic!("another kind of error");
        };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }
}
