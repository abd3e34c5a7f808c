//! Why an engine did not answer: it is not there, it was there once, or it is not for this user to ask.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use nix::unistd::Gid;

use crate::backend::BackendError;
use crate::users;

/// A socket of an engine that this user may not ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Where it is.
    pub endpoint: String,
    /// The group whose members may, where there is one.
    pub group: Option<String>,
}

impl Closed {
    pub(super) fn at(endpoint: &str) -> Self {
        let file = endpoint
            .strip_prefix("unix://")
            .and_then(|path| fs::metadata(path).ok());
        // A group that may write to it, which connecting takes (unix(7)); root's is nobody's to join.
        let group = file
            .filter(|file| file.mode() & 0o020 != 0 && file.gid() != 0)
            .and_then(|file| users::group_with_id(Gid::from_raw(file.gid())))
            .map(|group| group.name);
        Self {
            endpoint: endpoint.to_owned(),
            group,
        }
    }
}

/// What is the matter with an engine that a connection to has failed, in words that follow its name.
pub(in crate::backend) fn why_unreached(
    source: &(dyn std::error::Error + Send + Sync + 'static),
) -> &'static str {
    let kind = source.downcast_ref::<io::Error>().map(io::Error::kind);
    if kind == Some(io::ErrorKind::PermissionDenied) {
        "may not be asked by this user"
    } else {
        "does not answer"
    }
}

impl BackendError {
    /// The engine's socket, where that is there and not for this user.
    pub fn closed_socket(&self) -> Option<Closed> {
        let Self::EngineUnreachable { endpoint, .. } = self else {
            return None;
        };
        is_closed(self).then(|| Closed::at(endpoint))
    }
}

impl Closed {
    /// What opens it to whoever asks.
    pub fn opened_by(&self) -> String {
        self.group.as_ref().map_or_else(
            || "wharf doctor   # says who may ask it".to_owned(),
            |group| {
                format!(
                    "sudo usermod -aG {group} \"$USER\" && newgrp {group}   # its members are as good as root"
                )
            },
        )
    }
}

fn cause(error: &BackendError) -> Option<io::ErrorKind> {
    let BackendError::EngineUnreachable { source, .. } = error else {
        return None;
    };
    source.downcast_ref::<io::Error>().map(io::Error::kind)
}

/// Whether an engine's socket is there, and not for this user.
pub(super) fn is_closed(error: &BackendError) -> bool {
    cause(error) == Some(io::ErrorKind::PermissionDenied)
}

/// Whether there was an engine once: it refuses connections, or its socket is still there.
pub(super) fn was_there(error: &BackendError) -> bool {
    cause(error) == Some(io::ErrorKind::ConnectionRefused)
}

/// Whether nobody listens there at all: no engine, rather than one that does not answer.
pub(super) fn is_absent(error: &BackendError) -> bool {
    matches!(
        cause(error),
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_may_not_be_asked_is_told_from_one_that_is_not_there() {
        let of = |kind: io::ErrorKind| BackendError::EngineUnreachable {
            endpoint: "unix:///run/docker.sock".into(),
            source: Box::new(io::Error::from(kind)),
        };
        for (kind, closed, absent, once) in [
            (io::ErrorKind::PermissionDenied, true, false, false),
            (io::ErrorKind::NotFound, false, true, false),
            (io::ErrorKind::ConnectionRefused, false, true, true),
            (io::ErrorKind::TimedOut, false, false, false),
        ] {
            let error = of(kind);
            let found = (is_closed(&error), is_absent(&error), was_there(&error));
            assert_eq!(found, (closed, absent, once), "{kind}");
        }
    }
}
