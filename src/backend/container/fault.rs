//! From bollard's errors to the backend's.
//!
//! bollard repeats the cause in its messages; here the engine's own words become the source, once.

use std::io::{self, ErrorKind};

use bollard::errors::Error;

use super::wire::{Unconnected, is_unconnected};
use crate::backend::BackendError;

/// What the engine answered in place of doing what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The engine's message.
    pub message: String,
}

impl Refusal {
    /// The engine's words, if the error is an answer of the engine.
    pub(super) fn of(error: Error) -> Result<Self, Error> {
        let (status, message) = if let Error::DockerResponseServerError {
            status_code,
            message,
        } = error
        {
            (status_code, message)
        } else if let Error::DockerStreamError { error } = error {
            // The status was sent before the trouble came.
            (200, error)
        } else {
            return Err(error);
        };
        Ok(Self {
            status,
            message: message.trim().to_owned(),
        })
    }
}

/// The error of a failed request. `action` completes "the engine refused to …".
pub(super) fn refused(endpoint: &str, action: impl Into<String>, error: Error) -> BackendError {
    if is_unconnected(&error) || is_cut_off(&error) {
        return unreachable_engine(endpoint, error);
    }
    let source: Box<dyn std::error::Error + Send + Sync> = match Refusal::of(error) {
        Ok(refusal) => Box::new(refusal),
        Err(other) => Box::new(other),
    };
    BackendError::Engine {
        action: action.into(),
        source,
    }
}

/// The same failure, told apart where the engine knows something no more that the step was planned with. What the
/// compose file names and nobody has ever made is another matter, so containers count by their ids alone.
pub(super) fn told_apart(error: BackendError) -> BackendError {
    if let BackendError::Engine { source, .. } = &error
        && is_of_vanished(source.as_ref())
    {
        return vanished(error);
    }
    error
}

/// A refusal that is known to be for want of something that was there.
pub(super) fn vanished(error: BackendError) -> BackendError {
    let BackendError::Engine { action, source } = error else {
        return error;
    };
    BackendError::Vanished { action, source }
}

fn is_of_vanished(source: &(dyn std::error::Error + 'static)) -> bool {
    let Some(Refusal { status, message }) = source.downcast_ref::<Refusal>() else {
        return false;
    };
    let mut words = message.split(|letter: char| !letter.is_ascii_alphanumeric());
    let mut has_id =
        || words.any(|word| word.len() == 64 && word.bytes().all(|it| it.is_ascii_hexdigit()));
    // A start fails with another status where what the container shares is gone.
    let message = message.to_ascii_lowercase();
    message.contains("no such container") && has_id()
        || *status == 409 && message.contains("marked for removal")
        || *status == 404 && message.contains(NO_IMAGE)
        || *status == 404 && message.starts_with("no such image")
}

/// How the words begin for an image that is not there.
pub(super) const NO_IMAGE: &str = "there is no image ";

/// Whether the connection ended before the answer was complete: the engine went away.
fn is_cut_off(error: &Error) -> bool {
    // hyper tells this one by its words alone.
    let in_body = |text: String| text.starts_with("error reading a body from connection");
    if let Error::HyperResponseError { err } = error {
        let at_once = err.is_incomplete_message() || err.is_closed() || err.is_canceled();
        return at_once || is_reset(err) || in_body(err.to_string());
    }
    matches!(error, Error::IOError { err } if in_body(err.to_string()))
}

/// Whether the system says so: a killed engine had requests that it had not read.
fn is_reset(error: &(dyn std::error::Error + 'static)) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
        )
    })
}

/// Nobody answers at the endpoint.
pub(super) fn unreachable_engine(endpoint: &str, error: Error) -> BackendError {
    BackendError::EngineUnreachable {
        endpoint: endpoint.to_owned(),
        source: if let Error::IOError { err } = error {
            match err.downcast::<Unconnected>() {
                Ok(unconnected) => Box::new(unconnected.reason()),
                Err(err) => Box::new(err),
            }
        } else {
            Box::new(error)
        },
    }
}

/// Whether the engine says that there is no such thing.
pub(super) fn is_missing(error: &Error) -> bool {
    has_status(error, 404)
}

/// Whether the engine answered with this HTTP status.
pub(super) fn has_status(error: &Error, status: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == status)
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Connection(io::Error);

    impl fmt::Display for Connection {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("connection error")
        }
    }

    impl std::error::Error for Connection {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn what_was_there_is_told_from_what_never_was() {
        let refusal = |status: u16, message: String| BackendError::Engine {
            action: "start p-a-1".to_owned(),
            source: Box::new(Refusal { status, message }),
        };
        let id = "93c8f31c0f2e93c8f31c0f2e93c8f31c0f2e93c8f31c0f2e93c8f31c0f2e93c8";
        for (status, message, is_one) in [
            (404, format!("No such container: {id}"), true),
            (
                500,
                format!("joining network namespace of container: No such container: {id}"),
                true,
            ),
            // Podman's words.
            (
                404,
                format!("no container with name or ID \"{id}\" found: no such container"),
                true,
            ),
            (404, "No such image: a:1".to_owned(), true),
            (404, format!("{NO_IMAGE}a:1"), true),
            // `network_mode: container:nobody`, and an error in a file.
            (404, "No such container: nobody".to_owned(), false),
            (404, "network nothing not found".to_owned(), false),
            (404, "plugin \"none\" not found".to_owned(), false),
            (
                409,
                "container is marked for removal and cannot be started".to_owned(),
                true,
            ),
            (409, format!("container {id} is not running"), false),
        ] {
            let error = told_apart(refusal(status, message.clone()));
            assert_eq!(
                matches!(error, BackendError::Vanished { .. }),
                is_one,
                "{message}"
            );
        }
    }

    #[test]
    fn a_connection_that_the_other_side_dropped_is_cut_off() {
        for (kind, is_one) in [
            (ErrorKind::ConnectionReset, true),
            (ErrorKind::BrokenPipe, true),
            (ErrorKind::InvalidData, false),
        ] {
            assert_eq!(is_reset(&Connection(kind.into())), is_one, "{kind:?}");
        }
    }
}
