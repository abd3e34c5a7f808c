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
